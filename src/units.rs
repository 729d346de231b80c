//! Quantities as people write them: `20GiB`, `50%`, `10s`.
//!
//! What is refused is quoted, and what was expected is said.

use std::fmt;
use std::num::NonZeroU8;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

/// Text that is not the quantity it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("found \"{found}\", expected {expected}")]
pub struct UnitError {
    pub found: String,
    pub expected: &'static str,
}

impl UnitError {
    fn new(found: &str, expected: &'static str) -> Self {
        Self { found: found.to_owned(), expected }
    }
}

/// A number of bytes: `512MiB`, `20GiB`, `5MB`, `4096B`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct ByteSize(pub u64);

impl ByteSize {
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    pub const fn gib(n: u64) -> Self {
        Self(n << 30)
    }

    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

const BYTE_UNITS: [(&str, u64); 11] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("PiB", 1 << 50),
];

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let refusal = || UnitError::new(text, "a number of bytes with its unit, such as 512MiB or 20GiB");
        let (number, unit) = split(text).ok_or_else(refusal)?;
        let (_, scale) = BYTE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(refusal)?;
        scaled(number, *scale).map(Self).ok_or_else(refusal)
    }
}

impl fmt::Display for ByteSize {
    /// The largest binary unit that leaves a whole number, so that what is printed reads back as the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("TiB", 1u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        let whole = units.into_iter().find(|(_, scale)| self.0 >= *scale && self.0.is_multiple_of(*scale));
        match whole {
            Some((unit, scale)) => write!(f, "{}{unit}", self.0 / scale),
            None => write!(f, "{}B", self.0),
        }
    }
}

/// How much memory may be used: bytes, or a share of what this process may have at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum MemoryLimit {
    Bytes(ByteSize),
    /// Of the cgroup's limit, else of the machine's memory; 1 to 100.
    Percent(NonZeroU8),
}

impl MemoryLimit {
    /// The limit in bytes where `available` bytes are all there is.
    pub fn of(self, available: u64) -> u64 {
        match self {
            Self::Bytes(size) => size.as_u64(),
            Self::Percent(percent) => {
                (u128::from(available) * u128::from(percent.get()) / 100).try_into().unwrap_or(u64::MAX)
            }
        }
    }
}

impl FromStr for MemoryLimit {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let expected = "a number of bytes such as 8GiB, or a share from 1% to 100%";
        let refusal = || UnitError::new(text, expected);
        let Some(percent) = text.trim().strip_suffix('%') else {
            return text.parse().map(Self::Bytes).map_err(|_| refusal());
        };
        let percent: u8 = percent.trim().parse().map_err(|_| refusal())?;
        NonZeroU8::new(percent).filter(|percent| percent.get() <= 100).map(Self::Percent).ok_or_else(refusal)
    }
}

impl fmt::Display for MemoryLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(size) => size.fmt(f),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// A length of time: `200ms`, `10s`, `5m`, `1h30m`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct HumanDuration(pub Duration);

impl HumanDuration {
    pub const fn from_millis(n: u64) -> Self {
        Self(Duration::from_millis(n))
    }

    pub const fn from_secs(n: u64) -> Self {
        Self(Duration::from_secs(n))
    }

    pub const fn get(self) -> Duration {
        self.0
    }

    pub fn as_millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

const TIME_UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

impl FromStr for HumanDuration {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let refusal = || UnitError::new(text, "a duration with its unit, such as 200ms, 10s or 5m");
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(refusal());
        }
        let mut nanoseconds = 0u64;
        while !rest.is_empty() {
            let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(refusal)?;
            let (number, tail) = rest.split_at(unit_at);
            let unit_len = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit_len);
            let (_, scale) = TIME_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(refusal)?;
            let part = scaled(number, *scale).ok_or_else(refusal)?;
            nanoseconds = nanoseconds.checked_add(part).ok_or_else(refusal)?;
            rest = tail;
        }
        Ok(Self(Duration::from_nanos(nanoseconds)))
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanoseconds = self.0.as_nanos();
        let units =
            [("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000)];
        let whole =
            units.into_iter().find(|(_, scale)| nanoseconds >= *scale && nanoseconds.is_multiple_of(*scale));
        match whole {
            Some((unit, scale)) => write!(f, "{}{unit}", nanoseconds / scale),
            None if nanoseconds == 0 => f.write_str("0s"),
            None => write!(f, "{nanoseconds}ns"),
        }
    }
}

macro_rules! try_from_string {
    ($($unit:ty),*) => {$(
        impl TryFrom<String> for $unit {
            type Error = UnitError;

            fn try_from(text: String) -> Result<Self, UnitError> {
                text.parse()
            }
        }
    )*};
}

try_from_string!(ByteSize, MemoryLimit, HumanDuration);

/// `20GiB` as ("20", "GiB").
fn split(text: &str) -> Option<(&str, &str)> {
    let text = text.trim();
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(unit_at);
    Some((number, unit.trim_start()))
}

/// `number` × `scale`, exact where the product is whole, cut to a whole number where not.
pub(crate) fn scaled(number: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits_missing = whole.is_empty() || (fraction.is_empty() && number.contains('.'));
    if digits_missing || fraction.contains('.') || fraction.len() > 9 {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(scale)?;
    if fraction.is_empty() {
        return Some(whole);
    }
    let part = u128::from(fraction.parse::<u64>().ok()?) * u128::from(scale);
    let part = part / 10u128.pow(fraction.len() as u32);
    whole.checked_add(u64::try_from(part).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_written() {
        let table =
            [("20GiB", 20 << 30), ("1.5KiB", 1536), ("5MB", 5_000_000), ("0B", 0), (" 64 MiB ", 64 << 20)];
        for (text, bytes) in table {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn a_size_without_a_known_unit_is_quoted_back() {
        for text in ["20", "20Gib", "GiB", "1..5MiB", "-1MiB", "", "99999999999TiB", "5.MiB"] {
            let error = text.parse::<ByteSize>().unwrap_err();
            assert_eq!(error.found, text);
        }
        let error = "20Gib".parse::<ByteSize>().unwrap_err().to_string();
        assert_eq!(
            error,
            "found \"20Gib\", expected a number of bytes with its unit, such as 512MiB or 20GiB"
        );
    }

    #[test]
    fn memory_is_bytes_or_a_share() {
        let half: MemoryLimit = "50%".parse().unwrap();
        assert_eq!(half.of(u64::MAX - 1), u64::MAX / 2);
        assert_eq!("2GiB".parse::<MemoryLimit>().unwrap().of(1), 2 << 30);
        for text in ["0%", "101%", "50", "half", "5.5%"] {
            assert!(text.parse::<MemoryLimit>().is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_read_as_written() {
        let table = [("200ms", 200), ("10s", 10_000), ("5m", 300_000), ("1h30m", 5_400_000), ("0.5s", 500)];
        for (text, ms) in table {
            assert_eq!(text.parse(), Ok(HumanDuration::from_millis(ms)), "{text}");
        }
        for text in ["10", "s", "10 parsecs", "10s5", "", "1.s"] {
            assert!(text.parse::<HumanDuration>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_printed_reads_back_as_the_same() {
        for bytes in [0, 1, 1023, 1024, 1536, 20 << 30, u64::MAX] {
            assert_eq!(ByteSize(bytes).to_string().parse(), Ok(ByteSize(bytes)));
        }
        for ns in [0, 1, 1_500_000, 200_000_000, 10_000_000_000, 5_400_000_000_000] {
            let time = HumanDuration(Duration::from_nanos(ns));
            assert_eq!(time.to_string().parse(), Ok(time));
        }
    }
}
