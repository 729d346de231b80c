//! The disk budget: input log and outbox together.
//!
//! Only verdicts free the input log, and only exporters free the outbox: so that neither waits for the other,
//! requests cannot fill the budget alone, and verdicts stop only when the outbox holds what exporters can free.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::exporter::outbox::Outbox;

/// The part of the budget that only verdicts may use.
const VERDICTS_SHARE: u64 = 16;
/// The part of the budget that the outbox has whatever the input log takes.
const OUTBOX_SHARE: u64 = 4;

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

    /// The files of the input log were measured.
    pub(super) fn measured(&self, bytes: u64) {
        self.input.store(bytes, Relaxed);
    }

    pub(super) fn input_bytes(&self) -> u64 {
        self.input.load(Relaxed)
    }

    /// Looks at what is on disk. To be called many times a second. True: what is refused has changed.
    pub(super) fn look(&self, outbox: &Outbox) -> bool {
        self.weigh(self.input_bytes(), outbox.log().bytes_on_disk())
    }

    fn weigh(&self, input: u64, outbox: u64) -> bool {
        let of_outbox = self.limit / OUTBOX_SHARE;
        let used = input + outbox;
        self.stops.store(used > self.limit && outbox > of_outbox, Relaxed);
        let refuses = used > self.limit - self.limit / VERDICTS_SHARE || input > self.limit - of_outbox;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn after(input: u64, outbox: u64) -> (bool, bool) {
        let disk = DiskBudget::new(1600);
        disk.weigh(input, outbox);
        (disk.refuses(), disk.stops())
    }

    #[test]
    fn senders_are_refused_before_verdicts_stop() {
        assert_eq!(after(500, 1000), (false, false));
        assert_eq!(after(501, 1000), (true, false));
        assert_eq!(after(601, 1000), (true, true));
    }

    #[test]
    fn an_input_log_that_fills_the_disk_is_still_judged() {
        assert_eq!(after(1201, 0), (true, false));
        assert_eq!(after(5000, 400), (true, false));
        assert_eq!(after(5000, 401), (true, true));
    }

    #[test]
    fn requests_count_until_their_files_are_measured() {
        let disk = DiskBudget::new(1600);
        disk.grew(100);
        disk.grew(50);
        assert_eq!(disk.input_bytes(), 150);
        disk.measured(120);
        disk.grew(10);
        assert_eq!(disk.input_bytes(), 130);
    }
}
