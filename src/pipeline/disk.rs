//! The disk budget: input log and outbox together, and never the last of what the disk itself has.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::exporter::outbox::Outbox;
use crate::log::Storage;

/// The part of the budget that only verdicts may use.
const VERDICTS_SHARE: u64 = 16;
/// Of the disk itself so much is left, but not more than that part of the budget: the state, without which nothing
/// can be deleted, and the file that becomes Parquet are written beside the logs.
const LEFT_FREE: u64 = 256 << 20;

/// Where a verdict cannot be stored nothing is judged; senders are refused a little before that.
#[derive(Debug)]
pub(super) struct DiskBudget {
    limit: u64,
    input: AtomicU64,
    refuses: AtomicBool,
    stops: AtomicBool,
    /// Where to ask how much the disk has left.
    place: Option<(Arc<dyn Storage>, PathBuf)>,
}

impl DiskBudget {
    pub(super) fn new(limit: u64) -> Self {
        Self {
            limit,
            input: AtomicU64::new(0),
            refuses: AtomicBool::new(false),
            stops: AtomicBool::new(false),
            place: None,
        }
    }

    /// Minds the room that the disk below `path` really has.
    pub(super) fn below(self, storage: Arc<dyn Storage>, path: &Path) -> Self {
        Self { place: Some((storage, path.to_owned())), ..self }
    }

    /// Bytes that the disk itself can still take, where that is known.
    pub(super) fn available(&self) -> Option<u64> {
        self.place.as_ref().and_then(|(storage, path)| storage.available(path))
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
        let used = self.input_bytes() + outbox.log().bytes_on_disk();
        self.stops.store(self.no_verdict_fits(used, outbox.log().bytes()), Relaxed);
        let refuses = !self.has_room(used, self.available());
        self.refuses.swap(refuses, Relaxed) != refuses
    }

    /// Whether requests fit when so many bytes of the outbox are deleted.
    pub(super) fn has_room_without(&self, outbox: &Outbox, deleted: u64) -> bool {
        let used = self.input_bytes() + outbox.log().bytes_on_disk();
        self.has_room(used.saturating_sub(deleted), self.available().map(|free| free + deleted))
    }

    fn has_room(&self, used: u64, available: Option<u64>) -> bool {
        let verdicts = self.limit / VERDICTS_SHARE;
        used <= self.limit - verdicts && available.is_none_or(|free| free >= verdicts.min(LEFT_FREE))
    }

    /// Verdicts have a part for themselves: it is they that let files of the input log go.
    fn no_verdict_fits(&self, used: u64, outbox: u64) -> bool {
        used > self.limit && outbox > self.limit / VERDICTS_SHARE
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
        assert!(disk.no_verdict_fits(1601, 1601));
        assert!(!disk.no_verdict_fits(1600, 1500));
    }

    #[test]
    fn the_last_of_the_disk_is_left_for_the_state_whatever_the_budget_says() {
        let disk = DiskBudget::new(1600);
        assert!(disk.has_room(1500, None) && !disk.has_room(1501, None));
        assert!(disk.has_room(0, Some(100)) && !disk.has_room(0, Some(99)));
        assert!(DiskBudget::new(1 << 40).has_room(0, Some(LEFT_FREE)));
    }
}
