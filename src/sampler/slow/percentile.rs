//! Percentiles as people write them: `p95`, `p99.9`.

use std::fmt;

use serde::Deserialize;

/// Above how much of its like a trace counts as slow; above 0 and below 100 %.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Percentile {
    thousandths: u32,
}

const WHOLE: u32 = 100_000;

/// A text is no percentile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("found `{found}`, expected a percentile such as p95 or p99.9, above p0 and below p100")]
pub struct PercentileError {
    pub found: String,
}

impl TryFrom<String> for Percentile {
    type Error = PercentileError;

    fn try_from(text: String) -> Result<Self, PercentileError> {
        Self::read(&text).ok_or(PercentileError { found: text })
    }
}

impl Percentile {
    /// From its thousandths of a percent, as [`Self::thousandths`] gives them.
    pub fn from_thousandths(thousandths: u32) -> Option<Self> {
        (1..WHOLE).contains(&thousandths).then_some(Self { thousandths })
    }

    pub fn thousandths(self) -> u32 {
        self.thousandths
    }

    /// 0.95 of p95.
    pub fn fraction(self) -> f64 {
        f64::from(self.thousandths) / f64::from(WHOLE)
    }

    fn read(text: &str) -> Option<Self> {
        let number = text.strip_prefix('p')?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits =
            |text: &str| !text.is_empty() && text.len() <= 3 && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) {
            return None;
        }
        let whole: u32 = whole.parse().ok()?;
        let fraction: u32 = format!("{fraction:0<3}").parse().ok()?;
        Self::from_thousandths(whole * 1_000 + fraction)
    }

    /// Which of `count` observations, counted from 1 by rising duration, has this share at or below it.
    pub(super) fn rank(self, count: u64) -> u64 {
        let exact = u128::from(count) * u128::from(self.thousandths);
        (exact.div_ceil(u128::from(WHOLE)) as u64).max(1)
    }
}

impl fmt::Display for Percentile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, fraction) = (self.thousandths / 1_000, self.thousandths % 1_000);
        match fraction {
            0 => write!(f, "p{whole}"),
            _ => write!(f, "p{whole}.{}", format!("{fraction:03}").trim_end_matches('0')),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Percentile> {
        Percentile::try_from(text.to_owned()).ok()
    }

    #[test]
    fn a_percentile_is_read_and_written_alike() {
        for text in ["p95", "p99.9", "p50", "p99.999", "p0.5"] {
            assert_eq!(read(text).unwrap().to_string(), text);
        }
        assert_eq!(read("p95.0"), read("p95"));
    }

    #[test]
    fn what_leaves_nothing_or_everything_slow_is_refused() {
        for text in ["p0", "p100", "95", "p", "p9x", "p99.9999", "p-5", "p101", "P95"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn the_rank_is_rounded_up() {
        let p95 = read("p95").unwrap();
        assert_eq!([1, 20, 21, 200].map(|count| p95.rank(count)), [1, 19, 20, 190]);
    }
}
