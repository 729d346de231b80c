//! Kept traces as examples: the latest for each bucket of a series, and for its errors.

use std::collections::{HashMap, HashSet};

use super::buckets;
use crate::trace::TraceId;

/// A kept trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exemplar {
    pub(super) trace: TraceId,
    /// Of its span, in nanoseconds.
    pub(super) duration: Option<u64>,
    /// When it was kept.
    pub(super) at_ms: u64,
}

/// As many as there are series and buckets, so bounded with them.
#[derive(Debug, Default)]
pub(super) struct Exemplars {
    by_bucket: HashMap<(u32, usize), Exemplar, foldhash::fast::RandomState>,
    of_errors: HashMap<u32, Exemplar, foldhash::fast::RandomState>,
}

impl Exemplars {
    pub(super) fn put(&mut self, series: u32, failed: bool, exemplar: Exemplar) {
        if let Some(nanoseconds) = exemplar.duration {
            self.by_bucket.insert((series, buckets::of(nanoseconds)), exemplar);
        }
        if failed {
            self.of_errors.insert(series, exemplar);
        }
    }

    pub(super) fn forget(&mut self, gone: &HashSet<u32>) {
        self.by_bucket.retain(|(series, _), _| !gone.contains(series));
        self.of_errors.retain(|series, _| !gone.contains(series));
    }

    pub(super) fn of_bucket(&self, series: u32, bucket: usize) -> Option<&Exemplar> {
        self.by_bucket.get(&(series, bucket))
    }

    pub(super) fn of_errors(&self, series: u32) -> Option<&Exemplar> {
        self.of_errors.get(&series)
    }
}
