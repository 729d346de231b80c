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

    pub(super) fn input_bytes(&self) -> u64 {
        self.input.load(Relaxed)
    }

    /// Looks at what is on disk. To be called many times a second. True: what is refused has changed.
    pub(super) fn look(&self, outbox: &Outbox) -> bool {
        let used = self.input_bytes() + outbox.log().bytes_on_disk();
        self.stops.store(used > self.limit, Relaxed);
        let refuses = used > self.limit - self.limit / VERDICTS_SHARE;
        self.refuses.swap(refuses, Relaxed) != refuses
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
