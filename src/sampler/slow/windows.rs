//! What one sketch knows: the current five minutes and the five before.

use super::percentile::Percentile;
use super::sketch::{Bucket, Sketch, upper_edges};

/// Length of a window.
pub const WINDOW_MS: u64 = 300_000;
/// Below this many observations nothing is slow.
pub const OBSERVATIONS_MIN: u64 = 200;

/// The window of a moment, counted from the Unix epoch.
pub(super) fn window_of(now_ms: u64) -> u32 {
    (now_ms / WINDOW_MS) as u32
}

/// Two windows of durations and the thresholds that were published from them.
#[derive(Debug, Default)]
pub(super) struct Windows {
    /// Number of the current window.
    pub(super) window: u32,
    pub(super) current: Sketch,
    pub(super) previous: Sketch,
    /// Whether there were enough observations at the last publication.
    pub(super) grown: bool,
    /// Of each percentile that was asked for then.
    pub(super) thresholds: Box<[(Percentile, u64)]>,
}

impl Windows {
    pub(super) fn new(window: u32) -> Self {
        Self { window, ..Self::default() }
    }

    pub(super) fn count(&self) -> u64 {
        self.current.count() + self.previous.count()
    }

    /// Moves on to `window`. A clock that steps back changes nothing.
    pub(super) fn turn_to(&mut self, window: u32) {
        match window.saturating_sub(self.window) {
            0 => return,
            1 => self.previous = std::mem::take(&mut self.current),
            _ => (self.previous, self.current) = Default::default(),
        }
        self.window = window;
    }

    /// Counts a duration in the current window.
    pub(super) fn add(&mut self, bucket: Bucket) {
        self.current.add(bucket, 1);
    }

    /// Moves what was learned in `window` from one bucket to another, if it is still remembered.
    pub(super) fn correct(&mut self, window: u32, from: Bucket, to: Bucket) -> bool {
        let sketch = match self.window.checked_sub(window) {
            Some(0) => &mut self.current,
            Some(1) => &mut self.previous,
            _ => return false,
        };
        let found = sketch.remove(from);
        if found {
            sketch.add(to, 1);
        }
        found
    }

    /// Publishes the thresholds of these percentiles, which rise.
    pub(super) fn publish(&mut self, percentiles: &[Percentile]) {
        let count = self.count();
        self.grown = count >= OBSERVATIONS_MIN;
        self.thresholds = Box::default();
        if self.grown {
            let ranks = percentiles.iter().map(|percentile| percentile.rank(count));
            let edges = upper_edges([&self.previous, &self.current], ranks);
            self.thresholds = percentiles.iter().copied().zip(edges).collect();
        }
    }

    /// Longest duration that is not slow.
    pub(super) fn threshold(&self, percentile: Percentile) -> Option<u64> {
        self.thresholds.iter().find(|(of, _)| *of == percentile).map(|(_, edge)| *edge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p95() -> [Percentile; 1] {
        [Percentile::from_thousandths(95_000).unwrap()]
    }

    #[test]
    fn what_is_two_windows_old_is_forgotten() {
        let mut windows = Windows::new(7);
        (0..300).for_each(|_| windows.add(Bucket::of(1_000_000)));
        windows.turn_to(8);
        assert_eq!(windows.count(), 300);
        windows.turn_to(9);
        assert_eq!(windows.count(), 0);
    }

    #[test]
    fn a_clock_that_steps_back_forgets_nothing() {
        let mut windows = Windows::new(7);
        windows.add(Bucket::of(5));
        windows.turn_to(3);
        assert_eq!((windows.window, windows.count()), (7, 1));
    }

    #[test]
    fn nothing_is_published_below_the_least_count() {
        let mut windows = Windows::new(1);
        (1..OBSERVATIONS_MIN).for_each(|_| windows.add(Bucket::of(1_000)));
        windows.publish(&p95());
        assert!(!windows.grown && windows.thresholds.is_empty());
        windows.add(Bucket::of(1_000));
        windows.publish(&p95());
        assert_eq!(windows.threshold(p95()[0]), Some(Bucket::of(1_000).upper_edge()));
    }

    #[test]
    fn a_correction_reaches_the_window_in_which_it_was_learned() {
        let mut windows = Windows::new(1);
        windows.add(Bucket::of(1_000));
        windows.turn_to(2);
        assert!(windows.correct(1, Bucket::of(1_000), Bucket::of(9_000)));
        assert_eq!(windows.previous.buckets().collect::<Vec<_>>(), [(Bucket::of(9_000), 1)]);
        windows.turn_to(3);
        assert!(!windows.correct(1, Bucket::of(9_000), Bucket::of(10_000)));
    }
}
