//! What one exporter has done, for telemetry to read.
//!
//! In spans: kept + pending at start = delivered + pending + lost{cause}. An exporter counts a batch when its fate is
//! known, which may be before its cursor has passed it: after a crash such spans are pending again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

/// Why spans did not reach a backend and never will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The backend refused them finally.
    Rejected,
    /// The outbox was full and `when_full` is `lose_oldest`.
    Evicted,
    /// Their records cannot be read back.
    Corrupt,
}

impl Lost {
    pub const ALL: [Self; 3] = [Self::Rejected, Self::Evicted, Self::Corrupt];

    /// As the label `cause` has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Evicted => "evicted",
            Self::Corrupt => "corrupt",
        }
    }
}

/// An amount of what the outbox holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    pub spans: u64,
    pub records: u64,
    /// Of record bodies.
    pub bytes: u64,
}

impl Amount {
    /// One record.
    pub const fn record(spans: u32, bytes: usize) -> Self {
        Self { spans: spans as u64, records: 1, bytes: bytes as u64 }
    }

    fn is_zero(self) -> bool {
        self == Self::default()
    }
}

impl std::ops::AddAssign for Amount {
    fn add_assign(&mut self, more: Self) {
        self.spans += more.spans;
        self.records += more.records;
        self.bytes += more.bytes;
    }
}

impl std::ops::SubAssign for Amount {
    /// Stops at zero.
    fn sub_assign(&mut self, less: Self) {
        self.spans = self.spans.saturating_sub(less.spans);
        self.records = self.records.saturating_sub(less.records);
        self.bytes = self.bytes.saturating_sub(less.bytes);
    }
}

/// The counters of one exporter. Written by it and by the outbox, read by telemetry.
#[derive(Debug, Default)]
pub struct Metrics {
    /// By outbox segment: what is left of a segment that the cursor has passed cannot be read.
    pending: Mutex<BTreeMap<u32, Amount>>,
    pending_at_start: AtomicU64,
    delivered: AtomicU64,
    lost: [AtomicU64; Lost::ALL.len()],
    lost_bytes: AtomicU64,
    batches: AtomicU64,
    retries: AtomicU64,
    down: AtomicBool,
    last_error: Mutex<Option<String>>,
}

impl Metrics {
    pub fn pending(&self) -> Amount {
        let mut sum = Amount::default();
        for amount in self.pending.lock().values() {
            sum += *amount;
        }
        sum
    }

    /// Spans that were pending when the process started.
    pub fn pending_at_start(&self) -> u64 {
        self.pending_at_start.load(Relaxed)
    }

    /// Spans that the backend has.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Relaxed)
    }

    /// Spans.
    pub fn lost(&self, cause: Lost) -> u64 {
        self.lost[cause as usize].load(Relaxed)
    }

    /// Bytes of the outbox that could not be read as records.
    pub fn lost_bytes(&self) -> u64 {
        self.lost_bytes.load(Relaxed)
    }

    /// Batches whose fate is known.
    pub fn batches(&self) -> u64 {
        self.batches.load(Relaxed)
    }

    /// Requests that were sent again.
    pub fn retries(&self) -> u64 {
        self.retries.load(Relaxed)
    }

    /// The last request failed, or the last upload.
    pub fn is_down(&self) -> bool {
        self.down.load(Relaxed)
    }

    /// Kept after recovery: why it failed last.
    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().clone()
    }

    /// A record of the outbox waits for this exporter.
    pub(super) fn appended(&self, segment: u32, amount: Amount) {
        *self.pending.lock().entry(segment).or_default() += amount;
    }

    /// All that was appended so far was there before the process.
    pub(super) fn started(&self) {
        self.pending_at_start.store(self.pending().spans, Relaxed);
    }

    /// The fate of a record's part is known: `rejected` of its spans are lost, the others delivered.
    pub(super) fn settled(&self, segment: u32, amount: Amount, rejected: u64) {
        let spans = self.take(segment, amount);
        let rejected = rejected.min(spans);
        self.delivered.fetch_add(spans - rejected, Relaxed);
        self.lost[Lost::Rejected as usize].fetch_add(rejected, Relaxed);
    }

    /// The cursor is past all segments before this one: what still waits in them is lost.
    pub(super) fn passed(&self, segment: u32, cause: Lost) -> Amount {
        let mut pending = self.pending.lock();
        let rest = pending.split_off(&segment);
        let mut lost = Amount::default();
        for amount in std::mem::replace(&mut *pending, rest).into_values() {
            lost += amount;
        }
        self.lost[cause as usize].fetch_add(lost.spans, Relaxed);
        lost
    }

    pub(super) fn unreadable(&self, bytes: u64) {
        self.lost_bytes.fetch_add(bytes, Relaxed);
    }

    pub(super) fn batch(&self) {
        self.batches.fetch_add(1, Relaxed);
    }

    pub(super) fn retry(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    /// Sending failed.
    pub(super) fn failed(&self, error: &str) {
        self.down.store(true, Relaxed);
        self.note(error);
    }

    /// Sending works.
    pub(super) fn works(&self) {
        self.down.store(false, Relaxed);
    }

    pub(super) fn note(&self, error: &str) {
        *self.last_error.lock() = Some(error.to_owned());
    }

    /// Spans that were pending still: not those of a segment that was given up meanwhile.
    fn take(&self, segment: u32, amount: Amount) -> u64 {
        let mut pending = self.pending.lock();
        let Some(left) = pending.get_mut(&segment) else { return 0 };
        let spans = amount.spans.min(left.spans);
        *left -= amount;
        if left.is_zero() {
            pending.remove(&segment);
        }
        spans
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_behind_the_cursor_is_lost() {
        let metrics = Metrics::default();
        metrics.appended(1, Amount::record(5, 100));
        metrics.appended(2, Amount::record(3, 50));
        metrics.settled(1, Amount::record(2, 40), 1);
        assert_eq!(metrics.passed(2, Lost::Corrupt).spans, 3);
        assert_eq!(
            (metrics.delivered(), metrics.lost(Lost::Rejected), metrics.lost(Lost::Corrupt)),
            (1, 1, 3)
        );
        assert_eq!(metrics.pending(), Amount::record(3, 50));
    }

    #[test]
    fn a_batch_of_a_segment_that_was_given_up_is_not_counted_twice() {
        let metrics = Metrics::default();
        metrics.appended(1, Amount::record(5, 100));
        metrics.passed(2, Lost::Evicted);
        metrics.settled(1, Amount::record(5, 100), 0);
        assert_eq!((metrics.delivered(), metrics.lost(Lost::Evicted)), (0, 5));
    }
}
