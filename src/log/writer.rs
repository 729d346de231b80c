//! Takes records in position order and says when they are written: the callers' side of a log's files.
//!
//! Callers queue and go on; [`WriteLoop`] writes. An error of the disk loses nothing: what waits stays
//! queued, while [`Writer::stalled`] says why. Only a failed fsync is final, because the kernel may have
//! dropped the pages: it is handed to the [`Fatal`] callback.

use super::segment::{self, SegmentHeader};
use super::storage::Storage;
use super::waiters::Waiters;
use super::write_loop::{Step, WriteLoop};
use crate::trace::Position;
use bytes::Bytes;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use tokio::sync::watch;

/// What "written" means to those who wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMode {
    /// Handed to the kernel: survives the end of the process.
    None,
    /// On the disk: survives the loss of power.
    Always,
}

#[derive(Clone, Debug)]
pub struct Settings {
    pub dir: PathBuf,
    /// Number of the first segment that will be written; all lower ones are complete.
    pub first_segment: u32,
    pub sync: SyncMode,
    /// Bytes that may wait to be written.
    pub queue_bytes: usize,
    /// Room reserved on the disk for each segment and, in advance, for the next; 0: none.
    pub reserve_bytes: u64,
    /// Makes each new file's name durable at once, whatever `sync` says.
    pub sync_names: bool,
}

/// Why a record is not confirmed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteFailed {
    /// It waits and may still be written.
    #[error("the log cannot be written now: {0}")]
    Stalled(String),
    /// It will not be written.
    #[error("the log is closed: {0}")]
    Closed(String),
}

/// Called once with the reason when an fsync fails. The process must end.
pub type Fatal = Box<dyn Fn(&str) + Send + std::marker::Sync>;

/// The callers' side. Dropping it ends the loop once all that waits is written.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    /// Of a writer without a thread.
    by_hand: OnceLock<Mutex<WriteLoop>>,
}

/// What both sides see.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) queue: Mutex<Queue>,
    /// The loop sleeps here.
    pub(super) work: Condvar,
    /// Callers that wait for room or for a sync sleep here.
    pub(super) progress: Condvar,
    pub(super) waiters: Waiters,
    pub(super) frontier: watch::Sender<Position>,
    pub(super) stalled: Mutex<Option<String>>,
    pub(super) queue_bytes: usize,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) items: VecDeque<Item>,
    pub(super) bytes: usize,
    pub(super) appended: Position,
    pub(super) sync_wanted: Position,
    pub(super) synced: Position,
    pub(super) closed: bool,
    pub(super) ended: Option<String>,
}

#[derive(Debug)]
pub(super) enum Item {
    Open(SegmentHeader),
    Record { at: Position, head: Bytes, body: Bytes },
    Seal(u32),
}

impl Item {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Record { head, body, .. } => head.len() + body.len(),
            Self::Open(_) | Self::Seal(_) => 0,
        }
    }

    /// What the frontier is once this is done.
    pub(super) fn end(&self) -> Position {
        match self {
            Self::Open(header) => Position::new(header.number, header.encoded_len() as u32),
            Self::Record { at, .. } => Position::new(at.segment, at.offset + self.bytes() as u32),
            Self::Seal(number) => Position::new(number + 1, 0),
        }
    }
}

impl Writer {
    /// Opens the folder; nothing is written before the loop runs.
    pub fn build(
        storage: Arc<dyn Storage>,
        settings: Settings,
        fatal: Fatal,
    ) -> io::Result<(Self, WriteLoop)> {
        storage.create_dir_all(&settings.dir)?;
        let start = Position::new(settings.first_segment, 0);
        // A life that was killed has written what it has not synced; the first sync covers it.
        let oldest = segment::numbers(&*storage, &settings.dir)?.first().map(|(number, _)| *number);
        let unsynced = oldest.map_or(start, |number| start.min(Position::new(number, 0)));
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue {
                appended: start,
                sync_wanted: unsynced,
                synced: unsynced,
                ..Queue::default()
            }),
            work: Condvar::new(),
            progress: Condvar::new(),
            waiters: Waiters::new(start),
            frontier: watch::Sender::new(start),
            stalled: Mutex::default(),
            queue_bytes: settings.queue_bytes,
        });
        let write_loop = WriteLoop::new(shared.clone(), storage, settings, fatal);
        Ok((Self { shared, by_hand: OnceLock::new() }, write_loop))
    }

    /// Takes its own loop instead of a thread: who would wait for the loop turns it, and [`Self::step`] does.
    pub fn turn_by_hand(&self, write_loop: WriteLoop) {
        _ = self.by_hand.set(Mutex::new(write_loop.without_pauses()));
    }

    /// What the thread would do next; `Idle` if there is one.
    pub fn step(&self) -> Step {
        self.by_hand.get().map_or(Step::Idle, |write_loop| write_loop.lock().step())
    }

    /// Writes and syncs what waits, as the end of the thread does.
    pub fn finish(&self) -> Result<(), WriteFailed> {
        self.close();
        self.by_hand.get().map_or(Ok(()), |write_loop| write_loop.lock().run_to_end())
    }

    /// Sleeps until the loop has done something.
    fn wait_for_progress(&self, queue: &mut MutexGuard<'_, Queue>) {
        match self.by_hand.get() {
            None => self.shared.progress.wait(queue),
            Some(write_loop) => MutexGuard::unlocked(queue, || _ = write_loop.lock().step()),
        }
    }

    /// Queues one record. The caller holds its order lock: positions arrive in order. `opened` is the header of
    /// the segment that this record begins. `head` and `body` are written one after the other; either may be empty.
    ///
    /// Never blocks; ask [`Self::has_room`] before a record is accepted.
    pub fn append(&self, at: Position, opened: Option<SegmentHeader>, head: Bytes, body: Bytes) {
        let opened = opened.map(Item::Open);
        self.push(&mut self.shared.queue.lock(), opened.into_iter().chain([Item::Record { at, head, body }]));
    }

    /// Whether a record of `bytes` may be accepted: the disk takes writes and the queue has room.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.stalled().is_none() && self.shared.queue.lock().has_room(bytes, self.shared.queue_bytes)
    }

    /// Bytes that wait to be written.
    pub fn queued_bytes(&self) -> usize {
        self.shared.queue.lock().bytes
    }

    /// Queues all items or, without room for `bytes`, none.
    pub(super) fn try_append_all(
        &self,
        bytes: usize,
        items: impl FnOnce() -> Vec<Item>,
    ) -> Result<bool, WriteFailed> {
        let mut queue = self.shared.queue.lock();
        queue.open()?;
        if !queue.has_room(bytes, self.shared.queue_bytes) {
            return Ok(false);
        }
        self.push(&mut queue, items());
        Ok(true)
    }

    /// Blocks until the queue has room for `bytes`; a larger run has room when nothing else waits.
    pub(super) fn wait_for_room(&self, bytes: usize) -> Result<(), WriteFailed> {
        let mut queue = self.shared.queue.lock();
        while !queue.has_room(bytes, self.shared.queue_bytes) {
            queue.open()?;
            self.wait_for_progress(&mut queue);
        }
        queue.open()
    }

    fn push(&self, queue: &mut Queue, items: impl IntoIterator<Item = Item>) {
        let was_empty = queue.items.is_empty();
        for item in items {
            queue.bytes += item.bytes();
            queue.appended = item.end();
            queue.items.push_back(item);
        }
        if was_empty {
            self.shared.work.notify_one();
        }
    }

    /// Everything before it is written; with [`SyncMode::Always`] also synced.
    pub fn written(&self) -> Position {
        self.shared.waiters.frontier()
    }

    /// Everything before it is queued or written.
    pub fn appended(&self) -> Position {
        self.shared.queue.lock().appended
    }

    /// Everything before it is known to be on the disk.
    pub fn synced(&self) -> Position {
        self.shared.queue.lock().synced
    }

    /// The written frontier, for those who read behind it.
    pub fn subscribe(&self) -> watch::Receiver<Position> {
        self.shared.frontier.subscribe()
    }

    /// Waits until everything before `end` is written (and synced, with [`SyncMode::Always`]).
    ///
    /// After 5 seconds without progress the error says why; the record stays queued.
    pub async fn wait(&self, end: Position) -> Result<(), WriteFailed> {
        self.shared.waiters.wait(end).await.map_err(|_| self.shared.failure())
    }

    /// Why nothing can be written at present.
    pub fn stalled(&self) -> Option<String> {
        self.shared.stalled.lock().clone()
    }

    /// Blocks until everything appended so far is on the disk; returns how far that is.
    pub fn sync_all(&self) -> Result<Position, WriteFailed> {
        let dismissals = self.shared.waiters.dismissals();
        let target = self.request_sync();
        let mut queue = self.shared.queue.lock();
        while queue.synced < target {
            if queue.ended.is_some() || self.shared.waiters.dismissals() != dismissals {
                drop(queue);
                return Err(self.shared.failure());
            }
            self.wait_for_progress(&mut queue);
        }
        Ok(target)
    }

    /// Asks for an fsync of everything appended so far; [`Self::synced`] reaches the returned position when it is done.
    pub fn request_sync(&self) -> Position {
        let mut queue = self.shared.queue.lock();
        queue.sync_wanted = queue.appended;
        self.shared.work.notify_one();
        queue.appended
    }

    /// Ends the loop once all that waits is written and synced.
    pub fn close(&self) {
        self.shared.queue.lock().closed = true;
        self.shared.work.notify_one();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

impl Queue {
    fn has_room(&self, bytes: usize, limit: usize) -> bool {
        self.bytes == 0 || self.bytes + bytes <= limit
    }

    fn open(&self) -> Result<(), WriteFailed> {
        match &self.ended {
            Some(reason) => Err(WriteFailed::Closed(reason.clone())),
            None => Ok(()),
        }
    }
}

impl Shared {
    pub(super) fn failure(&self) -> WriteFailed {
        if let Err(closed) = self.queue.lock().open() {
            return closed;
        }
        WriteFailed::Stalled(
            self.stalled.lock().clone().unwrap_or_else(|| "the disk refused for a while".to_owned()),
        )
    }
}
