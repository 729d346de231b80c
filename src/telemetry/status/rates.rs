//! Rates of the last minute from counters that only rise.

use std::collections::VecDeque;

use parking_lot::Mutex;
use serde::Serialize;

/// How far back rates look.
const SPAN_MS: u64 = 60_000;

/// Counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub accepted_spans: u64,
    pub kept_spans: u64,
    pub dropped_spans: u64,
    pub accepted_requests: u64,
    pub refused_requests: u64,
}

/// Each a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Rates {
    pub accepted_spans: f64,
    pub kept_spans: f64,
    pub dropped_spans: f64,
    pub accepted_requests: f64,
    pub refused_requests: f64,
    /// The seconds they were counted over.
    pub over_seconds: f64,
}

/// Counters of the last minute, noted about once a second.
#[derive(Debug, Default)]
pub struct History(Mutex<VecDeque<(u64, Counts)>>);

impl History {
    /// `now_ms` is monotonic.
    pub fn note(&self, now_ms: u64, counts: Counts) {
        let mut notes = self.0.lock();
        notes.push_back((now_ms, counts));
        while notes.get(1).is_some_and(|(then, _)| now_ms - then >= SPAN_MS) {
            notes.pop_front();
        }
    }

    /// From the oldest note to `counts`, now.
    pub fn rates(&self, now_ms: u64, counts: Counts) -> Rates {
        let Some((then_ms, then)) = self.0.lock().front().copied() else { return Rates::default() };
        let seconds = now_ms.saturating_sub(then_ms) as f64 / 1e3;
        if seconds <= 0.0 {
            return Rates::default();
        }
        let rate = |term: fn(&Counts) -> u64| term(&counts).saturating_sub(term(&then)) as f64 / seconds;
        Rates {
            accepted_spans: rate(|counts| counts.accepted_spans),
            kept_spans: rate(|counts| counts.kept_spans),
            dropped_spans: rate(|counts| counts.dropped_spans),
            accepted_requests: rate(|counts| counts.accepted_requests),
            refused_requests: rate(|counts| counts.refused_requests),
            over_seconds: seconds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(accepted_spans: u64) -> Counts {
        Counts { accepted_spans, ..Counts::default() }
    }

    #[test]
    fn rates_are_of_the_last_minute_only() {
        let history = History::default();
        // 100 spans a second for a minute, then 10.
        for second in 0..=60 {
            history.note(second * 1_000, accepted(second * 100));
        }
        assert_eq!(history.rates(60_000, accepted(6_000)).accepted_spans, 100.0);
        for second in 61..=120 {
            history.note(second * 1_000, accepted(6_000 + (second - 60) * 10));
        }
        let rates = history.rates(120_000, accepted(6_600));
        assert_eq!((rates.accepted_spans, rates.over_seconds), (10.0, 60.0));
        assert!(history.0.lock().len() <= 62);
    }

    #[test]
    fn before_there_is_a_past_there_is_no_rate() {
        assert_eq!(History::default().rates(5, accepted(7)), Rates::default());
    }
}
