//! What one exporter has done, for telemetry to read.
//!
//! In spans: kept + pending at start + repeated = delivered + pending + lost{cause}. An exporter counts a batch when its
//! fate is known, which may be before its cursor has passed it: after a crash such spans are pending again, and if only
//! its task has died, they are repeated.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::proto::Piece;

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

/// What keeps an exporter from delivering. It tries again by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The backend takes nothing.
    Backend,
    /// This machine's disk: the outbox cannot be read, or a file not be written.
    Disk,
    /// A defect of this program: its task has died, or cannot make what it has to send.
    Defect,
}

/// An amount of what the outbox holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    pub spans: u64,
    pub records: u64,
    /// Of OTLP.
    pub bytes: u64,
}

impl Amount {
    /// One record.
    pub fn of(piece: &Piece) -> Self {
        Self { spans: piece.spans.into(), records: 1, bytes: piece.otlp.len() as u64 }
    }

    /// Stops at zero.
    pub(super) const fn without(self, less: Self) -> Self {
        Self {
            spans: self.spans.saturating_sub(less.spans),
            records: self.records.saturating_sub(less.records),
            bytes: self.bytes.saturating_sub(less.bytes),
        }
    }
}

impl std::ops::AddAssign for Amount {
    fn add_assign(&mut self, more: Self) {
        self.spans += more.spans;
        self.records += more.records;
        self.bytes += more.bytes;
    }
}

/// What waits in one segment. A record may be settled a moment before it is counted as appended.
#[derive(Clone, Copy, Debug, Default)]
struct Balance {
    appended: Amount,
    settled: Amount,
}

impl Balance {
    const fn left(self) -> Amount {
        self.appended.without(self.settled)
    }
}

#[derive(Debug, Default)]
struct Pending {
    by_segment: BTreeMap<u32, Balance>,
    /// Segments below it are passed: what comes of them has been counted.
    passed: u32,
}

impl Pending {
    fn balance(&mut self, segment: u32) -> Option<&mut Balance> {
        (segment >= self.passed).then(|| self.by_segment.entry(segment).or_default())
    }

    fn left(&self) -> Amount {
        let mut sum = Amount::default();
        self.by_segment.values().for_each(|balance| sum += balance.left());
        sum
    }
}

/// The counters of one exporter. Written by it and by the outbox, read by telemetry.
#[derive(Debug, Default)]
pub struct Metrics {
    /// By outbox segment: what is left of a segment that the cursor has passed could not be read.
    pending: Mutex<Pending>,
    pending_at_start: AtomicU64,
    delivered: AtomicU64,
    lost: [AtomicU64; Lost::ALL.len()],
    lost_bytes: AtomicU64,
    batches: AtomicU64,
    retries: AtomicU64,
    deaths: AtomicU64,
    repeated: AtomicU64,
    duplicate_keys: AtomicU64,
    obstacle: Mutex<Option<Obstacle>>,
    last_error: Mutex<Option<String>>,
}

impl Metrics {
    pub fn pending(&self) -> Amount {
        self.pending.lock().left()
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

    /// Times its task has died and was begun again.
    pub fn deaths(&self) -> u64 {
        self.deaths.load(Relaxed)
    }

    /// Spans that count again, because its task had died before the cursor passed them.
    pub fn repeated(&self) -> u64 {
        self.repeated.load(Relaxed)
    }

    /// Attributes that lost to a later one of the same key.
    pub fn duplicate_keys(&self) -> u64 {
        self.duplicate_keys.load(Relaxed)
    }

    /// What it is kept from its work by.
    pub fn obstacle(&self) -> Option<Obstacle> {
        *self.obstacle.lock()
    }

    /// The last request failed, or the last upload.
    pub fn is_down(&self) -> bool {
        self.obstacle() == Some(Obstacle::Backend)
    }

    /// Kept after recovery: why it failed last.
    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().clone()
    }

    /// A record of the outbox waits for this exporter.
    pub(super) fn appended(&self, segment: u32, amount: Amount) {
        if let Some(balance) = self.pending.lock().balance(segment) {
            balance.appended += amount;
        }
    }

    /// All that was appended so far was there before the process.
    pub(super) fn started(&self) {
        self.pending_at_start.store(self.pending().spans, Relaxed);
    }

    /// The fate of a record, or of a part of one, is known: `rejected` of its spans are lost, the others delivered.
    pub(super) fn settled(&self, segment: u32, amount: Amount, rejected: u64) {
        let mut pending = self.pending.lock();
        let Some(balance) = pending.balance(segment) else { return };
        balance.settled += amount;
        drop(pending);
        let rejected = rejected.min(amount.spans);
        self.delivered.fetch_add(amount.spans - rejected, Relaxed);
        self.lost[Lost::Rejected as usize].fetch_add(rejected, Relaxed);
    }

    /// The cursor is past all segments before this one: what still waits in them is lost.
    pub(super) fn passed(&self, segment: u32, cause: Lost) -> Amount {
        let mut pending = self.pending.lock();
        pending.passed = pending.passed.max(segment);
        let rest = pending.by_segment.split_off(&segment);
        let before = Pending { by_segment: std::mem::replace(&mut pending.by_segment, rest), passed: 0 };
        let lost = before.left();
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

    /// Its task has settled this and ends before the cursor has passed it: it waits again.
    pub(super) fn again(&self, segment: u32, amount: Amount) {
        let mut pending = self.pending.lock();
        let Some(balance) = pending.balance(segment) else { return };
        balance.settled = balance.settled.without(amount);
        self.repeated.fetch_add(amount.spans, Relaxed);
    }

    pub(super) fn replaced_keys(&self, attributes: u64) {
        self.duplicate_keys.fetch_add(attributes, Relaxed);
    }

    /// It cannot deliver. True: that is new.
    pub(super) fn failed(&self, obstacle: Obstacle, error: &str) -> bool {
        self.note(error);
        self.obstacle.lock().replace(obstacle) != Some(obstacle)
    }

    /// Its task has died.
    pub fn died(&self, error: &str) {
        self.deaths.fetch_add(1, Relaxed);
        self.failed(Obstacle::Defect, error);
    }

    /// It delivers. Returns what it was kept by until now.
    pub(super) fn works(&self) -> Option<Obstacle> {
        self.obstacle.lock().take()
    }

    /// The disk is no obstacle any more, if it was one.
    pub(super) fn disk_works(&self) {
        self.obstacle.lock().take_if(|obstacle| *obstacle == Obstacle::Disk);
    }

    pub(super) fn note(&self, error: &str) {
        *self.last_error.lock() = Some(error.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(spans: u32, bytes: usize) -> Amount {
        Amount::of(&Piece { spans, otlp: vec![0; bytes].into(), ..Default::default() })
    }

    #[test]
    fn what_is_left_behind_the_cursor_is_lost() {
        let metrics = Metrics::default();
        metrics.appended(1, record(5, 100));
        metrics.appended(2, record(3, 50));
        metrics.settled(1, record(2, 40), 1);
        assert_eq!(metrics.passed(2, Lost::Corrupt).spans, 3);
        assert_eq!(
            (metrics.delivered(), metrics.lost(Lost::Rejected), metrics.lost(Lost::Corrupt)),
            (1, 1, 3)
        );
        assert_eq!(metrics.pending(), record(3, 50));
    }

    #[test]
    fn a_batch_of_a_segment_that_was_given_up_is_not_counted_twice() {
        let metrics = Metrics::default();
        metrics.appended(1, record(5, 100));
        metrics.passed(2, Lost::Evicted);
        metrics.settled(1, record(5, 100), 0);
        assert_eq!((metrics.delivered(), metrics.lost(Lost::Evicted)), (0, 5));
    }

    #[test]
    fn a_record_may_be_settled_before_it_is_counted() {
        let metrics = Metrics::default();
        metrics.settled(1, record(5, 100), 0);
        assert_eq!(metrics.pending(), Amount::default());
        metrics.appended(1, record(5, 100));
        assert_eq!((metrics.delivered(), metrics.pending()), (5, Amount::default()));
    }

    #[test]
    fn what_a_dead_task_had_settled_ahead_of_its_cursor_waits_again_and_the_book_balances() {
        let metrics = Metrics::default();
        metrics.appended(1, record(5, 100));
        metrics.appended(1, record(3, 50));
        metrics.settled(1, record(3, 50), 1);
        metrics.again(1, record(3, 50));
        assert_eq!(metrics.pending().spans, 8);
        metrics.settled(1, record(5, 100), 0);
        metrics.settled(1, record(3, 50), 0);
        let went = metrics.delivered() + metrics.lost(Lost::Rejected) + metrics.pending().spans;
        assert_eq!((8 + metrics.repeated(), metrics.pending()), (went, Amount::default()));
    }

    #[test]
    fn an_obstacle_is_new_once_and_only_its_own_success_ends_that_of_the_disk() {
        let metrics = Metrics::default();
        assert!(metrics.failed(Obstacle::Disk, "full") && !metrics.failed(Obstacle::Disk, "full"));
        assert!(!metrics.is_down());
        assert!(metrics.failed(Obstacle::Backend, "down"));
        metrics.disk_works();
        assert!(metrics.is_down());
        assert_eq!((metrics.works(), metrics.obstacle()), (Some(Obstacle::Backend), None));
    }
}
