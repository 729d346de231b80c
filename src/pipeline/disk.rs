//! The disk budget: input log and outbox together.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::exporter::outbox::Outbox;

/// The part of the budget that only verdicts may use.
const VERDICTS_SHARE: u64 = 16;

/// Where a verdict cannot be stored nothing is judged; senders are refused a little before that.
#[derive(Debug)]
pub(super) struct DiskBudget {
    limit: u64,
    input: AtomicU64,
    refuses: AtomicBool,
    stops: AtomicBool,
}

impl DiskBudget {
    pub(super) fn new(limit: u64) -> Self {
        Self {
            limit,
            input: AtomicU64::new(0),
            refuses: AtomicBool::new(false),
            stops: AtomicBool::new(false),
        }
    }

    /// Bytes came into the input log.
    pub(super) fn grew(&self, bytes: u64) {
        self.input.fetch_add(bytes, Relaxed);
    }

    /// Files of the input log were deleted.
    pub(super) fn shrank(&self, bytes: u64) {
        let _ = self.input.fetch_update(Relaxed, Relaxed, |input| Some(input.saturating_sub(bytes)));
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    pub(super) fn input_bytes(&self) -> u64 {
        self.input.load(Relaxed)
    }

    /// What the logs leave of the budget, but for a quarter of it in which they may grow at any moment; and no more
    /// than leaves that much of the disk itself, beside `past` bytes that are there already.
    pub(super) fn spare(&self, outbox: &Outbox, past: u64, available: Option<u64>) -> u64 {
        let growth = self.limit / 4;
        let used = self.input_bytes() + outbox.log().bytes_on_disk();
        let of_budget = (self.limit - growth).saturating_sub(used);
        let of_disk = available.map_or(u64::MAX, |free| past.saturating_add(free).saturating_sub(growth));
        of_budget.min(of_disk)
    }

    /// Looks at what is on disk. To be called many times a second. True: what is refused has changed.
    pub(super) fn look(&self, outbox: &Outbox) -> bool {
        let (input, outbox) = (self.input_bytes(), outbox.log().bytes_on_disk());
        self.stops.store(self.no_verdict_fits(input, outbox), Relaxed);
        let refuses = input + outbox > self.limit - self.limit / VERDICTS_SHARE;
        self.refuses.swap(refuses, Relaxed) != refuses
    }

    /// Verdicts have a part for themselves: it is they that let files of the input log go.
    fn no_verdict_fits(&self, input: u64, outbox: u64) -> bool {
        input + outbox > self.limit && outbox > self.limit / VERDICTS_SHARE
    }

    /// No request fits.
    pub(super) fn refuses(&self) -> bool {
        self.refuses.load(Relaxed)
    }

    /// No verdict fits.
    pub(super) fn stops(&self) -> bool {
        self.stops.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_log_beyond_the_budget_does_not_keep_verdicts_from_freeing_it() {
        let disk = DiskBudget::new(1600);
        assert!(!disk.no_verdict_fits(5000, 100));
        assert!(disk.no_verdict_fits(5000, 101));
        assert!(disk.no_verdict_fits(0, 1601));
        assert!(!disk.no_verdict_fits(100, 1500));
    }
}
