//! When to send again.
//!
//! One for an exporter, not one for a batch: a backend that is down is asked by one request at a time.

use std::time::Duration;

use tokio::time::Instant;

use super::outcome::Wait;

/// A backend that says "come back in an hour" is asked sooner.
const TOLD_MAX: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// After the first failure; doubles with every other.
    pub first: Duration,
    pub max: Duration,
    /// While the credentials or the address are wrong.
    pub operator: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(500),
            max: Duration::from_secs(10),
            operator: Duration::from_secs(30),
        }
    }
}

#[derive(Debug)]
pub(super) struct Backoff {
    settings: Settings,
    /// In a row.
    failures: u32,
    down_since: Option<Instant>,
    resume: Option<Instant>,
}

impl Backoff {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, failures: 0, down_since: None, resume: None }
    }

    /// Handed back with the fate of a request that starts now.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// When the next request may start.
    pub(super) fn resume(&self) -> Option<Instant> {
        self.resume
    }

    /// A request failed that started after `started` failures. `random` is in 0..1. True if all was well before.
    ///
    /// Requests that fail together are one failure.
    pub(super) fn failed(&mut self, started: u32, wait: Wait, now: Instant, random: f64) -> bool {
        let until = now + self.delay(started, wait, random);
        self.resume = Some(self.resume.map_or(until, |before| before.max(until)));
        if started == self.failures {
            self.failures = self.failures.saturating_add(1);
        }
        let first = self.down_since.is_none();
        self.down_since.get_or_insert(now);
        first
    }

    /// A request was answered. How long none was, if the one before was not.
    pub(super) fn answered(&mut self, now: Instant) -> Option<Duration> {
        self.failures = 0;
        self.resume = None;
        self.down_since.take().map(|since| now - since)
    }

    /// Jitter is a half of the time, so that exporters of one backend part; what the backend says is the least.
    fn delay(&self, failures: u32, wait: Wait, random: f64) -> Duration {
        let doubled = self.settings.first.saturating_mul(1 << failures.min(16));
        let exponential = doubled.min(self.settings.max);
        match wait {
            Wait::Backoff => exponential.mul_f64(0.5 + random / 2.0),
            Wait::Told(delay) => delay.min(TOLD_MAX) + self.settings.first.mul_f64(random / 2.0),
            Wait::Operator => self.settings.operator.mul_f64(0.5 + random / 2.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff() -> (Backoff, Instant) {
        (Backoff::new(Settings::default()), Instant::now())
    }

    #[test]
    fn the_wait_doubles_up_to_its_bound() {
        let (mut backoff, now) = backoff();
        let mut waits = Vec::new();
        for _ in 0..7 {
            backoff.resume = None;
            backoff.failed(backoff.failures(), Wait::Backoff, now, 1.0);
            waits.push((backoff.resume().unwrap() - now).as_millis());
        }
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
    }

    #[test]
    fn requests_that_fail_together_are_one_failure() {
        let (mut backoff, now) = backoff();
        let started = backoff.failures();
        assert!(backoff.failed(started, Wait::Backoff, now, 0.0));
        assert!(!backoff.failed(started, Wait::Backoff, now, 0.0));
        assert_eq!(backoff.failures(), 1);
    }

    #[test]
    fn the_backend_is_not_asked_sooner_than_it_said() {
        let (mut backoff, now) = backoff();
        let told = Duration::from_secs(42);
        backoff.failed(0, Wait::Told(told), now, 0.0);
        assert_eq!(backoff.resume(), Some(now + told));
        backoff.failed(0, Wait::Backoff, now, 0.0);
        assert_eq!(backoff.resume(), Some(now + told));
    }

    #[test]
    fn an_answer_ends_the_wait_and_says_how_long_it_was() {
        let (mut backoff, now) = backoff();
        backoff.failed(0, Wait::Backoff, now, 0.5);
        assert_eq!(backoff.answered(now + Duration::from_secs(3)), Some(Duration::from_secs(3)));
        assert_eq!((backoff.failures(), backoff.resume()), (0, None));
        assert_eq!(backoff.answered(now), None);
    }
}
