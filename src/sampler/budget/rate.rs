//! Rates as people write them: `100/s`, `1/min`, `2000 spans/s`, `5MB/s`.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use crate::units::{ByteSize, scaled};

/// So much of what is judged in so much time. Exact in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Rate {
    thousandths: u64,
    measure: Measure,
    per: Per,
}

/// What is counted of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// The unit itself.
    Traces,
    Spans,
    /// Of its spans, as they came.
    Bytes,
}

/// In which time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Per {
    Second,
    Minute,
    Hour,
}

/// A text is no rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("found `{found}`, expected a rate such as 100/s, 1/min, 2000 spans/s or 5MB/s")]
pub struct RateError {
    pub found: String,
}

impl Rate {
    pub fn measure(self) -> Measure {
        self.measure
    }

    pub fn per_second(self) -> f64 {
        self.thousandths as f64 / 1e3 / self.per.seconds()
    }

    pub fn is_zero(self) -> bool {
        self.thousandths == 0
    }

    /// Whether jumps are met within a second; otherwise within a minute.
    pub fn is_by_the_second(self) -> bool {
        self.per == Per::Second
    }

    fn read(text: &str) -> Option<Self> {
        let (amount, per) = text.split_once('/')?;
        let per = match per.trim() {
            "s" => Per::Second,
            "min" => Per::Minute,
            "h" => Per::Hour,
            _ => return None,
        };
        let amount = amount.trim();
        let unit_at = amount.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(amount.len());
        let (number, unit) = amount.split_at(unit_at);
        let (thousandths, measure) = match unit.trim_start() {
            "" | "trace" | "traces" => (scaled(number, 1_000)?, Measure::Traces),
            "span" | "spans" => (scaled(number, 1_000)?, Measure::Spans),
            _ => (amount.parse::<ByteSize>().ok()?.as_u64().checked_mul(1_000)?, Measure::Bytes),
        };
        Some(Self { thousandths, measure, per })
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        Self::read(text).ok_or_else(|| RateError { found: text.to_owned() })
    }
}

impl TryFrom<String> for Rate {
    type Error = RateError;

    fn try_from(text: String) -> Result<Self, RateError> {
        text.parse()
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let amount = self.thousandths as f64 / 1e3;
        let measure = match self.measure {
            Measure::Traces => "",
            Measure::Spans => " spans",
            Measure::Bytes => "B",
        };
        write!(f, "{amount}{measure}/{}", self.per.name())
    }
}

impl Per {
    fn seconds(self) -> f64 {
        match self {
            Self::Second => 1.0,
            Self::Minute => 60.0,
            Self::Hour => 3_600.0,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Second => "s",
            Self::Minute => "min",
            Self::Hour => "h",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (f64, Measure) {
        let rate: Rate = text.parse().unwrap();
        (rate.per_second(), rate.measure())
    }

    #[test]
    fn a_rate_is_an_amount_of_something_in_a_time() {
        assert_eq!(read("100/s"), (100.0, Measure::Traces));
        assert_eq!(read("30/min"), (0.5, Measure::Traces));
        assert_eq!(read("36 traces/h"), (0.01, Measure::Traces));
        assert_eq!(read("2000 spans/s"), (2_000.0, Measure::Spans));
        assert_eq!(read("0.5 spans / s"), (0.5, Measure::Spans));
        assert_eq!(read("5MB/s"), (5e6, Measure::Bytes));
        assert_eq!(read("60 KiB/min"), (1_024.0, Measure::Bytes));
        assert!("0/s".parse::<Rate>().unwrap().is_zero());
    }

    #[test]
    fn what_is_no_rate_is_quoted_back() {
        for text in ["", "/s", "100", "100/", "100/d", "-1/s", "1e3/s", "5 parsecs/s", "100 per s", "1/s/s"] {
            let error = text.parse::<Rate>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("found `{text}`, expected a rate")), "{error}");
        }
    }

    #[test]
    fn what_is_printed_reads_back_as_the_same() {
        for text in ["100/s", "0.5 spans/min", "5MB/s", "1/h"] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!(rate.to_string().parse(), Ok(rate));
        }
    }
}
