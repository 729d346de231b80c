//! How much has matched of late: by the second for a minute, and by the minute.

use super::Rate;

/// Seconds in the window of the mean.
const WINDOW: u64 = 60;
const SECOND_MS: u64 = 1_000;
const MINUTE_MS: u64 = 60 * SECOND_MS;

/// What a meter knows, to be taken up later at the same time of the same clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeterSnapshot {
    /// None: nothing has matched yet.
    pub first_ms: Option<u64>,
    pub now_ms: u64,
    /// As many as a minute has seconds; that of second n is at n modulo 60.
    pub by_second: Vec<u32>,
    pub this_minute: u64,
    pub last_minute: u64,
}

/// Counts of one key against one bound.
///
/// Time is in milliseconds of a clock that does not go back; a step back counts for the latest second known.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    first_ms: Option<u64>,
    now_ms: u64,
    by_second: [u32; WINDOW as usize],
    /// Of `by_second`.
    sum: u64,
    this_minute: u64,
    last_minute: u64,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            first_ms: None,
            now_ms: 0,
            by_second: [0; WINDOW as usize],
            sum: 0,
            this_minute: 0,
            last_minute: 0,
        }
    }
}

impl Meter {
    /// Counts what matched, in the second of the last [`Self::turn_to`].
    pub(super) fn add(&mut self, amount: u64) {
        self.first_ms.get_or_insert(self.now_ms);
        let bucket = &mut self.by_second[place(self.now_ms / SECOND_MS)];
        let counted = u32::try_from(amount).unwrap_or(u32::MAX).min(u32::MAX - *bucket);
        *bucket += counted;
        self.sum += u64::from(counted);
        self.this_minute += u64::from(counted);
    }

    /// Forgets what is older than a minute.
    pub(super) fn turn_to(&mut self, now_ms: u64) {
        if now_ms <= self.now_ms {
            return;
        }
        let (before, now) = (self.now_ms / SECOND_MS, now_ms / SECOND_MS);
        for second in before + 1..=now.min(before + WINDOW) {
            self.sum -= u64::from(std::mem::take(&mut self.by_second[place(second)]));
        }
        match now_ms / MINUTE_MS - self.now_ms / MINUTE_MS {
            0 => {}
            1 => self.last_minute = std::mem::take(&mut self.this_minute),
            _ => (self.last_minute, self.this_minute) = (0, 0),
        }
        self.now_ms = now_ms;
    }

    /// By the second, over the last minute or since the first match, at least a second. None before that.
    pub(super) fn mean(&self) -> Option<f64> {
        let window_ms = (self.now_ms / SECOND_MS * SECOND_MS).saturating_sub((WINDOW - 1) * SECOND_MS);
        let since_ms = self.first_ms?.max(window_ms);
        Some(self.sum as f64 * 1e3 / (self.now_ms - since_ms).max(SECOND_MS) as f64)
    }

    /// By the second: the largest of the mean, the last full period of the bound and the current one so far.
    pub(super) fn rate(&self, bound: Rate) -> Option<f64> {
        let mean = self.mean()?;
        let second = self.now_ms / SECOND_MS;
        let of_second = |second| f64::from(self.by_second[place(second)]);
        let of_minute = |count: u64| count as f64 / WINDOW as f64;
        let (last, current) = if bound.is_by_the_second() {
            (second.checked_sub(1).map_or(0.0, of_second), of_second(second))
        } else {
            (of_minute(self.last_minute), of_minute(self.this_minute))
        };
        Some(mean.max(last).max(current))
    }

    pub(super) fn snapshot(&self) -> MeterSnapshot {
        MeterSnapshot {
            first_ms: self.first_ms,
            now_ms: self.now_ms,
            by_second: self.by_second.to_vec(),
            this_minute: self.this_minute,
            last_minute: self.last_minute,
        }
    }

    /// None: it is none of this program's.
    pub(super) fn restored(from: &MeterSnapshot) -> Option<Self> {
        let by_second: [u32; WINDOW as usize] = from.by_second.as_slice().try_into().ok()?;
        let MeterSnapshot { first_ms, now_ms, this_minute, last_minute, .. } = *from;
        let sum = by_second.iter().map(|count| u64::from(*count)).sum();
        let is_later = first_ms.is_some_and(|first_ms| first_ms > now_ms);
        (!is_later).then_some(Self { first_ms, now_ms, by_second, sum, this_minute, last_minute })
    }

    /// Nothing has matched for so long that a new meter would say nearly the same.
    pub(super) fn is_idle(&self) -> bool {
        self.sum == 0 && self.this_minute == 0 && self.last_minute == 0
    }
}

fn place(second: u64) -> usize {
    (second % WINDOW) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 60 * MINUTE_MS;

    fn bound(text: &str) -> Rate {
        text.parse().unwrap()
    }

    /// `amount` every `every_ms` from `from_ms` up to `to_ms`.
    fn feed(meter: &mut Meter, from_ms: u64, to_ms: u64, every_ms: u64, amount: u64) {
        for at_ms in (from_ms..to_ms).step_by(every_ms as usize) {
            meter.turn_to(at_ms);
            meter.add(amount);
        }
    }

    #[test]
    fn before_the_first_match_there_is_no_rate() {
        let mut meter = Meter::default();
        meter.turn_to(HOUR_MS);
        assert_eq!((meter.mean(), meter.rate(bound("1/s"))), (None, None));
        meter.add(1);
        assert_eq!(meter.mean(), Some(1.0), "a second at least");
    }

    #[test]
    fn the_mean_is_that_of_the_last_minute_or_since_the_first_match() {
        let mut meter = Meter::default();
        feed(&mut meter, HOUR_MS, HOUR_MS + 10_000, 10, 1);
        meter.turn_to(HOUR_MS + 10_000);
        assert_eq!(meter.mean(), Some(100.0));
        meter.turn_to(HOUR_MS + 20_000);
        assert_eq!(meter.mean(), Some(50.0));
        meter.turn_to(HOUR_MS + 80_000);
        assert_eq!(meter.mean(), Some(0.0));
        feed(&mut meter, HOUR_MS + 80_000, HOUR_MS + 200_000, 10, 1);
        meter.turn_to(HOUR_MS + 200_000);
        assert_eq!(meter.mean(), Some(100.0));
    }

    #[test]
    fn a_jump_is_met_in_the_same_period() {
        let mut meter = Meter::default();
        feed(&mut meter, 0, 120_000, 1_000, 1);
        meter.turn_to(120_000);
        meter.add(500);
        assert!(meter.mean().unwrap() < 10.0);
        assert_eq!(meter.rate(bound("1/s")), Some(500.0));
        meter.turn_to(121_999);
        assert_eq!(meter.rate(bound("1/s")), Some(500.0), "the last full second");
        meter.turn_to(122_000);
        assert_eq!(meter.rate(bound("1/s")), meter.mean());
        meter.turn_to(239_999);
        assert_eq!(meter.rate(bound("1/min")), Some(500.0 / 60.0), "the last full minute");
        meter.turn_to(240_000);
        assert_eq!(meter.rate(bound("1/min")), Some(0.0));
    }

    #[test]
    fn a_clock_that_stands_or_steps_back_counts_for_the_latest_second() {
        let mut meter = Meter::default();
        meter.turn_to(5_000);
        meter.add(1);
        meter.turn_to(1_000);
        meter.add(1);
        assert_eq!(meter.mean(), Some(2.0));
    }

    #[test]
    fn what_is_idle_has_matched_nothing_for_a_minute_and_more() {
        let mut meter = Meter::default();
        feed(&mut meter, 0, 1, 1, 7);
        meter.turn_to(119_999);
        assert!(!meter.is_idle());
        meter.turn_to(120_000);
        assert!(meter.is_idle());
    }

    #[test]
    fn a_second_of_more_than_can_be_counted_is_full() {
        let mut meter = Meter::default();
        meter.add(u64::MAX);
        meter.add(5);
        assert_eq!(meter.mean(), Some(f64::from(u32::MAX)));
    }
}
