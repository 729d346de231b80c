//! Randomness of a trace, the thresholds it is compared with, and the shares they stand for.
//!
//! As in [OTEP 235](https://github.com/open-telemetry/oteps/pull/235) and W3C trace context level 2: 56 bits each, a
//! trace is kept if R >= T. A share is read as an exact decimal, never as a binary float: a float of 53 bits is off
//! in the last hexadecimal digit of the threshold at 20 % already.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use super::TraceId;

/// 2^56: one more than the largest randomness.
const ALL: u64 = 1 << 56;
/// Hexadecimal digits of 56 bits.
const DIGITS: usize = 14;
/// Decimals of a percentage that are read exactly.
const DECIMALS_MAX: usize = 55;

/// 56 random bits of a trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Randomness(pub u64);

impl Randomness {
    /// The low 56 bits of the identifier.
    #[inline]
    pub fn of_trace(id: TraceId) -> Self {
        Self(u128::from_be_bytes(id.0) as u64 & (ALL - 1))
    }

    /// An explicit `rv` value: exactly 14 lower-case hexadecimal digits.
    pub fn decode(rv: &[u8]) -> Option<Self> {
        if rv.len() != DIGITS {
            return None;
        }
        hexadecimal(rv).map(Self)
    }
}

/// Rejection threshold, 0 (keep all) to 2^56 (keep nothing).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Threshold(pub u64);

impl Threshold {
    /// Keeps every trace.
    pub const ALWAYS: Self = Self(0);
    /// Keeps no trace. It cannot be written as `th`.
    pub const NEVER: Self = Self(ALL);

    /// 2^56 - round(p x 2^56).
    pub const fn of(share: Share) -> Self {
        Self(ALL - share.kept)
    }

    /// Whether a trace of this randomness is kept.
    #[inline]
    pub const fn keeps(self, randomness: Randomness) -> bool {
        randomness.0 >= self.0
    }

    /// The share of traces that it keeps.
    pub fn probability(self) -> f64 {
        (ALL - self.0.min(ALL)) as f64 / ALL as f64
    }

    /// Adjusted count: how many traces one kept trace stands for. 0 for [`Self::NEVER`].
    pub fn weight(self) -> f64 {
        if self.0 >= ALL {
            return 0.0;
        }
        ALL as f64 / (ALL - self.0) as f64
    }

    /// The value of `th`: 14 hexadecimal digits without their trailing zeros. None of [`Self::NEVER`].
    pub fn encode(self) -> Option<EncodedThreshold> {
        if self.0 >= ALL {
            return None;
        }
        let mut digits = [b'0'; DIGITS];
        for (place, digit) in digits.iter_mut().rev().enumerate() {
            *digit = b"0123456789abcdef"[(self.0 >> (4 * place)) as usize & 0xf];
        }
        let significant = digits.iter().rposition(|&digit| digit != b'0').unwrap_or(0) + 1;
        Some(EncodedThreshold { digits, significant })
    }

    /// Reads a value of `th`: 1 to 14 lower-case hexadecimal digits.
    pub fn decode(th: &[u8]) -> Option<Self> {
        if th.is_empty() || th.len() > DIGITS {
            return None;
        }
        hexadecimal(th).map(|value| Self(value << (4 * (DIGITS - th.len()))))
    }
}

/// A threshold as it is written in the trace state.
#[derive(Clone, Copy, Debug)]
pub struct EncodedThreshold {
    digits: [u8; DIGITS],
    significant: usize,
}

impl EncodedThreshold {
    pub fn as_bytes(&self) -> &[u8] {
        &self.digits[..self.significant]
    }
}

impl fmt::Display for EncodedThreshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|&digit| write!(f, "{}", char::from(digit)))
    }
}

/// Up to 14 lower-case hexadecimal digits.
fn hexadecimal(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |value, &digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u64::from(digit))
    })
}

/// A share of traces, 0 % to 100 %, in steps of 2^-56.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Share {
    /// round(p x 2^56)
    kept: u64,
}

impl Share {
    pub const NOTHING: Self = Self { kept: 0 };
    pub const EVERYTHING: Self = Self { kept: ALL };

    /// The share nearest to a computed probability; below 0 and NaN count as 0, above 1 as 1.
    pub fn nearest(probability: f64) -> Self {
        Self { kept: (probability.clamp(0.0, 1.0) * ALL as f64).round() as u64 }
    }

    /// 0 to 1.
    pub fn probability(self) -> f64 {
        self.kept as f64 / ALL as f64
    }
}

impl fmt::Display for Share {
    /// In percent, to twelve decimals.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", (self.probability() * 1e14).round() / 1e12)
    }
}

impl FromStr for Share {
    type Err = ShareError;

    /// Reads a percentage: digits, if wanted a point and up to 55 decimals, and a percent sign.
    fn from_str(text: &str) -> Result<Self, ShareError> {
        percentage(text).ok_or_else(|| ShareError { found: text.to_owned() })
    }
}

impl TryFrom<String> for Share {
    type Error = ShareError;

    fn try_from(text: String) -> Result<Self, ShareError> {
        text.parse()
    }
}

fn percentage(text: &str) -> Option<Share> {
    let number = text.strip_suffix('%')?;
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !all_digits(whole) || !all_digits(decimals) || decimals.len() > DECIMALS_MAX {
        return None;
    }
    let whole: u32 = whole.parse().ok()?;
    if whole >= 100 {
        let is_all = whole == 100 && decimals.bytes().all(|digit| digit == b'0');
        return is_all.then_some(Share::EVERYTHING);
    }
    let mut fraction = [0; 2 + DECIMALS_MAX];
    fraction[0] = (whole / 10) as u8;
    fraction[1] = (whole % 10) as u8;
    for (place, digit) in fraction[2..].iter_mut().zip(decimals.bytes()) {
        *place = digit - b'0';
    }
    Some(Share { kept: times_all(fraction) })
}

/// round(0.fraction x 2^56), exact: each doubling of the decimal digits carries out one binary digit; the 57th rounds.
fn times_all(mut fraction: [u8; 2 + DECIMALS_MAX]) -> u64 {
    let mut bits = 0;
    for _ in 0..57 {
        let mut carry = 0;
        for digit in fraction.iter_mut().rev() {
            let doubled = 2 * *digit + carry;
            carry = u8::from(doubled >= 10);
            *digit = doubled % 10;
        }
        bits = bits << 1 | u64::from(carry);
    }
    bits.div_ceil(2)
}

/// A share that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("found `{found}`, expected a share from 0% to 100%, such as 5% or 0.1%, of at most 55 decimals")]
pub struct ShareError {
    pub found: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of the vectors of one kind, by column.
    fn vectors(kind: &str) -> impl Iterator<Item = Vec<&'static str>> {
        let lines = include_str!("../../tests/conformance/threshold_vectors.csv").lines();
        lines.map(|line| line.split(',').collect::<Vec<_>>()).filter(move |row| row[0] == kind)
    }

    fn assert_near(weight: f64, expected: &str) {
        let expected: f64 = expected.parse().unwrap();
        assert!((weight / expected - 1.0).abs() < 1e-14, "{weight} is not {expected}");
    }

    #[test]
    fn shares_are_encoded_as_the_vectors_say() {
        let mut rows = 0;
        for row in vectors("encode") {
            let threshold = Threshold::of(row[4].parse().unwrap());
            if row[8] == "never" {
                assert_eq!(threshold, Threshold::NEVER);
                assert!(!threshold.keeps(Randomness(ALL - 1)));
                assert!(threshold.encode().is_none());
                assert_eq!(threshold.weight(), 0.0);
            } else {
                assert_eq!(format!("{:014x}", threshold.0), row[5], "{}", row[4]);
                assert_eq!(threshold.encode().unwrap().to_string(), row[6]);
                assert_near(threshold.weight(), row[7]);
            }
            rows += 1;
        }
        assert_eq!(rows, 45);
    }

    #[test]
    fn thresholds_are_decoded_as_the_vectors_say() {
        let mut rows = 0;
        for row in vectors("decode") {
            let threshold = Threshold::decode(row[6].as_bytes());
            assert_eq!(threshold.is_some(), row[8] == "valid", "{}", row[6]);
            if let Some(threshold) = threshold {
                assert_eq!(format!("{:014x}", threshold.0), row[5]);
                assert_near(threshold.weight(), row[7]);
            }
            rows += 1;
        }
        assert_eq!(rows, 15);
    }

    #[test]
    fn a_share_is_a_percentage_from_0_to_100() {
        for text in
            ["", "5", "%", "-1%", "+1%", "101%", "100.1%", "1e1%", " 5%", "5 %", ".5%", "5.%", "5%%", "1/2"]
        {
            let error = text.parse::<Share>().unwrap_err();
            assert!(error.to_string().starts_with(&format!("found `{text}`, expected")), "{error}");
        }
        assert_eq!("100.000%".parse(), Ok(Share::EVERYTHING));
        assert_eq!("007%".parse::<Share>(), "7%".parse());
        assert!(format!("0.{}1%", "0".repeat(54)).parse::<Share>().is_ok());
        assert!(format!("0.{}1%", "0".repeat(55)).parse::<Share>().is_err());
    }

    #[test]
    fn a_share_is_rounded_to_the_nearest_step() {
        let half_a_step = "0.00000000000000069388939039072283776476979255676269531%";
        assert_eq!(half_a_step.parse::<Share>().unwrap().kept, 0);
        let more_than_half = "0.000000000000000693889390390722837764769792556762695313%";
        assert_eq!(more_than_half.parse::<Share>().unwrap().kept, 1);
    }

    #[test]
    fn a_computed_probability_becomes_the_nearest_share() {
        assert_eq!(Share::nearest(0.5), "50%".parse().unwrap());
        assert_eq!(Share::nearest(2.0), Share::EVERYTHING);
        assert_eq!(Share::nearest(f64::NAN), Share::NOTHING);
        assert_eq!(Share::nearest(0.25).probability(), 0.25);
    }

    #[test]
    fn a_share_is_read_from_configuration() {
        let share: Share = serde_json::from_str("\"12.5%\"").unwrap();
        assert_eq!(Threshold::of(share).encode().unwrap().to_string(), "e");
        assert!(serde_json::from_str::<Share>("\"12.5\"").is_err());
    }
}
