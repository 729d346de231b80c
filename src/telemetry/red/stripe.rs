//! The counts of some threads.

use std::collections::{HashMap, HashSet};

use super::buckets;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Stripe {
    /// Series by keyed hash, as far as these threads have met them.
    numbers: HashMap<u64, u32, foldhash::fast::RandomState>,
    /// By number.
    counts: Vec<Counts>,
}

/// What was counted of one series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) calls: u64,
    pub(super) errors: u64,
    pub(super) nanoseconds: u128,
    pub(super) buckets: [u64; buckets::COUNT],
}

impl Counts {
    pub(super) fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.errors += other.errors;
        self.nanoseconds += other.nanoseconds;
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(bucket, other)| *bucket += other);
    }
}

impl Stripe {
    #[inline]
    pub(super) fn number(&self, key: u64) -> Option<u32> {
        self.numbers.get(&key).copied()
    }

    pub(super) fn learn(&mut self, key: u64, number: u32) {
        self.numbers.insert(key, number);
    }

    #[inline]
    pub(super) fn count(&mut self, number: u32, failed: bool, duration: Option<u64>) {
        let number = number as usize;
        if number >= self.counts.len() {
            self.counts.resize(number + 1, Counts::default());
        }
        let counts = &mut self.counts[number];
        counts.calls += 1;
        counts.errors += u64::from(failed);
        if let Some(nanoseconds) = duration {
            counts.nanoseconds += u128::from(nanoseconds);
            counts.buckets[buckets::of(nanoseconds)] += 1;
        }
    }

    /// These series are others', or nobody's, from now on.
    pub(super) fn forget(&mut self, gone: &HashSet<u32>) {
        self.numbers.retain(|_, number| !gone.contains(number));
        for number in gone {
            if let Some(counts) = self.counts.get_mut(*number as usize) {
                *counts = Counts::default();
            }
        }
    }

    /// By number; what is missing at the end was not counted here.
    pub(super) fn counts(&self) -> &[Counts] {
        &self.counts
    }
}
