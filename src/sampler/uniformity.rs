//! Watches whether randomness is random: each sixteenth of R should have as many traces as any other.
//!
//! Identifiers with little in their low bits, or chosen by a sampler that says nothing of it, make shares
//! and weights untrue. Traces that came with a `th` are left out: what was sampled by R is not even in R.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::trace::Randomness;

/// Parts that R is divided into.
const PARTS: usize = 16;
/// Below it nothing is said. 200 traces a part: being off by 2 by chance takes seven standard deviations.
const TRACES_MIN: u32 = 200 * PARTS as u32;
/// Beyond it what is older counts half.
const TRACES_MAX: u32 = 1 << 16;

/// Counts of recent traces by the sixteenth of their R. Counted by one thread, read by any.
#[derive(Debug, Default)]
pub struct Uniformity {
    parts: [AtomicU32; PARTS],
}

impl Uniformity {
    pub fn count(&self, randomness: Randomness) {
        let part = (randomness.0 >> 52) as usize % PARTS;
        let count = self.parts[part].fetch_add(1, Relaxed) + 1;
        if count >= TRACES_MAX / PARTS as u32 && self.total() >= TRACES_MAX {
            self.parts.iter().for_each(|part| part.store(part.load(Relaxed) / 2, Relaxed));
        }
    }

    /// The share of each sixteenth, lowest first. None: too few traces to tell.
    pub fn shares(&self) -> Option<[f64; PARTS]> {
        let counts = self.parts.each_ref().map(|part| part.load(Relaxed));
        let total: u32 = counts.iter().sum();
        (total >= TRACES_MIN).then(|| counts.map(|count| f64::from(count) / f64::from(total)))
    }

    /// Whether a sixteenth has more than twice, or less than half, of what it should have.
    pub fn is_skewed(&self) -> bool {
        let even = 1.0 / PARTS as f64;
        let off = |share: f64| share > 2.0 * even || share < even / 2.0;
        self.shares().is_some_and(|shares| shares.into_iter().any(off))
    }

    fn total(&self) -> u32 {
        self.parts.iter().map(|part| part.load(Relaxed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(traces: u64, randomness: impl Fn(u64) -> u64) -> Uniformity {
        let uniformity = Uniformity::default();
        (0..traces).for_each(|n| uniformity.count(Randomness(randomness(n) & ((1 << 56) - 1))));
        uniformity
    }

    fn even(n: u64) -> u64 {
        n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 8
    }

    #[test]
    fn even_randomness_is_not_skewed() {
        for traces in [TRACES_MIN.into(), 1_000_000] {
            let uniformity = counted(traces, even);
            assert!(!uniformity.is_skewed(), "{uniformity:?}");
            assert!(uniformity.shares().unwrap().iter().all(|share| (0.04..0.08).contains(share)));
        }
    }

    #[test]
    fn little_is_not_enough_to_tell() {
        let uniformity = counted(u64::from(TRACES_MIN) - 1, |_| 0);
        assert_eq!((uniformity.shares(), uniformity.is_skewed()), (None, false));
    }

    #[test]
    fn counters_in_the_low_bits_and_ratio_samplers_are_skewed() {
        assert!(counted(10_000, |n| n).is_skewed());
        assert!(counted(10_000, |n| even(n) % (1 << 55)).is_skewed());
    }

    #[test]
    fn what_has_become_even_is_not_skewed_for_ever() {
        let uniformity = counted(1_000_000, |_| 0);
        assert!(uniformity.is_skewed());
        (0..300_000).for_each(|n| uniformity.count(Randomness(even(n) & ((1 << 56) - 1))));
        assert!(!uniformity.is_skewed());
    }
}
