//! Puts records into segment files, in position order, from one thread.
//!
//! Callers queue and go on; the loop writes all that waits in one vectored write and wakes everyone whose
//! record is in it. An error of the disk loses nothing: what waits stays queued and is tried again at the
//! same offset, while [`Writer::stalled`] says why. Only a failed fsync is final, because the kernel may
//! have dropped the pages: it is handed to the `fatal` callback.
//!
//! [`WriteLoop::step`] is all of the loop's work without its waiting, for simulations.

use super::segment::{self, SegmentHeader};
use super::storage::{File, Open, Storage};
use super::waiters::Waiters;
use crate::trace::Position;
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::watch;

/// Records in one write at most: half of what one system call takes, as each has up to two parts.
const BATCH_RECORDS: usize = 512;
/// How long a stalled loop waits before it tries again.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// Failed tries after which waiters are told: 5 seconds.
const TRIES_BEFORE_TELLING: u32 = 50;
/// The file that holds room for the next segment.
const SPARE: &str = "next.spare";

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

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing waits.
    Idle,
    /// Something was written or synced; more may wait.
    Worked,
    /// The disk refuses; try again later.
    Stalled,
    /// An fsync failed: nothing will be written any more.
    Failed,
}

/// Called once with the reason when an fsync fails. The process must end.
pub type Fatal = Box<dyn Fn(&str) + Send + std::marker::Sync>;

/// The callers' side. Dropping it ends the loop once all that waits is written.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
}

/// The writing side: run it on a thread of its own or call [`Self::step`].
pub struct WriteLoop {
    shared: Arc<Shared>,
    storage: Arc<dyn Storage>,
    settings: Settings,
    fatal: Fatal,
    waiting: VecDeque<Item>,
    live: Option<Live>,
    spare: Option<Arc<dyn File>>,
    /// Names of files that a loss of power may still take.
    names_unsynced: bool,
    failed_tries: u32,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    /// The loop sleeps here.
    work: Condvar,
    /// Callers that wait for room or for a sync sleep here.
    progress: Condvar,
    waiters: Waiters,
    frontier: watch::Sender<Position>,
    stalled: Mutex<Option<String>>,
    queue_bytes: usize,
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
    appended: Position,
    sync_wanted: Position,
    synced: Position,
    closed: bool,
    ended: Option<String>,
}

#[derive(Debug)]
pub(super) enum Item {
    Open(SegmentHeader),
    Record { at: Position, head: Bytes, body: Bytes },
    Seal(u32),
}

#[derive(Debug)]
struct Live {
    number: u32,
    file: Arc<dyn File>,
    end: u32,
}

impl Item {
    fn bytes(&self) -> usize {
        match self {
            Self::Record { head, body, .. } => head.len() + body.len(),
            Self::Open(_) | Self::Seal(_) => 0,
        }
    }

    /// What the frontier is once this is done.
    fn end(&self) -> Position {
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
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue {
                appended: start,
                sync_wanted: start,
                synced: start,
                ..Queue::default()
            }),
            work: Condvar::new(),
            progress: Condvar::new(),
            waiters: Waiters::new(start),
            frontier: watch::Sender::new(start),
            stalled: Mutex::default(),
            queue_bytes: settings.queue_bytes,
        });
        let mut write_loop = WriteLoop {
            shared: shared.clone(),
            storage,
            settings,
            fatal,
            waiting: VecDeque::new(),
            live: None,
            spare: None,
            names_unsynced: false,
            failed_tries: 0,
        };
        write_loop.reserve_spare();
        Ok((Self { shared }, write_loop))
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
            self.shared.progress.wait(&mut queue);
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
            self.shared.progress.wait(&mut queue);
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
    fn failure(&self) -> WriteFailed {
        if let Err(closed) = self.queue.lock().open() {
            return closed;
        }
        WriteFailed::Stalled(
            self.stalled.lock().clone().unwrap_or_else(|| "the disk refused for a while".to_owned()),
        )
    }
}

impl fmt::Debug for WriteLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteLoop")
            .field("settings", &self.settings)
            .field("live", &self.live)
            .finish_non_exhaustive()
    }
}

impl WriteLoop {
    /// Starts a thread that runs the loop.
    pub fn spawn(self, name: &str) -> io::Result<JoinHandle<Result<(), WriteFailed>>> {
        std::thread::Builder::new().name(name.to_owned()).spawn(move || self.run())
    }

    /// Works until the writer is closed or dropped, then syncs what was written.
    pub fn run(mut self) -> Result<(), WriteFailed> {
        loop {
            match self.step() {
                Step::Worked => {}
                Step::Idle if self.sleep() => {}
                Step::Idle => return self.end("it was closed".to_owned()),
                Step::Stalled if self.gives_up() => {
                    let reason = self.shared.stalled.lock().clone().unwrap_or_default();
                    self.end(reason.clone())?;
                    return Err(WriteFailed::Stalled(reason));
                }
                Step::Stalled => std::thread::sleep(RETRY_AFTER),
                Step::Failed => return Err(self.shared.failure()),
            }
        }
    }

    /// Writes and syncs what waits now.
    pub fn step(&mut self) -> Step {
        let sync_wanted = {
            let mut queue = self.shared.queue.lock();
            if queue.ended.is_some() {
                return Step::Failed;
            }
            self.waiting.append(&mut queue.items);
            (queue.sync_wanted > queue.synced).then_some(queue.sync_wanted)
        };
        let mut worked = false;
        while !self.waiting.is_empty() {
            match self.advance() {
                Ok(()) => worked = true,
                Err(Trouble::Retry(error)) => return self.stall(&error),
                Err(Trouble::Sync(error)) => return self.fail(&error),
            }
        }
        self.recover_from_stall();
        if sync_wanted.is_some() {
            return self.sync();
        }
        if worked { Step::Worked } else { Step::Idle }
    }

    /// Sleeps until there is something to do; `false` when there never will be.
    fn sleep(&self) -> bool {
        let mut queue = self.shared.queue.lock();
        while queue.items.is_empty() && queue.sync_wanted <= queue.synced {
            if queue.closed {
                return false;
            }
            self.shared.work.wait(&mut queue);
        }
        true
    }

    fn gives_up(&self) -> bool {
        self.failed_tries >= TRIES_BEFORE_TELLING && self.shared.queue.lock().closed
    }

    /// Does the first thing that waits; of records, a whole run.
    fn advance(&mut self) -> Result<(), Trouble> {
        let (done, items) = match self.waiting.front() {
            None => return Ok(()),
            Some(Item::Open(header)) => {
                let header = header.clone();
                (self.open(&header)?, 1)
            }
            Some(Item::Seal(number)) => {
                let number = *number;
                (self.seal(number)?, 1)
            }
            Some(Item::Record { .. }) => self.write_run()?,
        };
        let bytes: usize = self.waiting.drain(..items).map(|item| item.bytes()).sum();
        let mut queue = self.shared.queue.lock();
        queue.bytes -= bytes;
        if self.settings.sync == SyncMode::Always {
            queue.synced = done;
        }
        drop(queue);
        self.shared.waiters.advance(done);
        self.shared.frontier.send_replace(done);
        self.shared.progress.notify_all();
        Ok(())
    }

    /// Writes the records at the front in one go; returns the frontier and how many they are.
    fn write_run(&mut self) -> Result<(Position, usize), Trouble> {
        let Some(live) = &mut self.live else {
            return Err(Trouble::Retry(io::Error::other("a record came before its segment")));
        };
        let mut parts = Vec::with_capacity(2 * self.waiting.len().min(BATCH_RECORDS));
        let (mut items, mut end, mut start) = (0, Position::default(), None);
        for item in self.waiting.iter().take(BATCH_RECORDS) {
            let Item::Record { at, head, body } = item else { break };
            start.get_or_insert(at.offset);
            parts.extend(
                [head, body].into_iter().filter(|part| !part.is_empty()).map(|part| IoSlice::new(part)),
            );
            end = item.end();
            items += 1;
        }
        live.file.write_at(u64::from(start.unwrap_or(live.end)), &parts).map_err(Trouble::Retry)?;
        live.end = end.offset;
        if self.settings.sync == SyncMode::Always {
            live.file.sync().map_err(Trouble::Sync)?;
        }
        Ok((end, items))
    }

    fn open(&mut self, header: &SegmentHeader) -> Result<Position, Trouble> {
        let path = segment::path(&self.settings.dir, header.number);
        let file = match self.spare.take() {
            Some(spare) => self.open_spare(spare, header, &path),
            None => self.open_new(header, &path),
        };
        let file = file.map_err(Trouble::Retry)?;
        let end = header.encoded_len() as u32;
        self.live = Some(Live { number: header.number, file, end });
        self.names_unsynced = true;
        if self.settings.sync_names || self.settings.sync == SyncMode::Always {
            self.sync_names()?;
        }
        self.reserve_spare();
        Ok(Position::new(header.number, end))
    }

    fn open_spare(
        &mut self,
        spare: Arc<dyn File>,
        header: &SegmentHeader,
        path: &Path,
    ) -> io::Result<Arc<dyn File>> {
        let opened = spare
            .write_at(0, &[IoSlice::new(&header.encode())])
            .and_then(|()| self.storage.rename(&self.settings.dir.join(SPARE), path));
        if let Err(error) = opened {
            self.spare = Some(spare);
            return Err(error);
        }
        Ok(spare)
    }

    fn open_new(&self, header: &SegmentHeader, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = self.storage.open(path, Open::CreateNew)?;
        let written = self.reserve(&*file).and_then(|()| file.write_at(0, &[IoSlice::new(&header.encode())]));
        if let Err(error) = written {
            _ = self.storage.remove(path); // so that the next try can create it
            return Err(error);
        }
        Ok(file)
    }

    fn reserve(&self, file: &dyn File) -> io::Result<()> {
        match self.settings.reserve_bytes {
            0 => Ok(()),
            bytes => file.allocate(bytes),
        }
    }

    /// Takes room for the next segment now. Without room there is no spare; it is tried again.
    fn reserve_spare(&mut self) {
        if self.settings.reserve_bytes == 0 || self.spare.is_some() {
            return;
        }
        let path = self.settings.dir.join(SPARE);
        let Ok(file) = self.storage.open(&path, Open::Truncate) else { return };
        match self.reserve(&*file) {
            Ok(()) => self.spare = Some(file),
            Err(_) => _ = self.storage.remove(&path),
        }
    }

    /// Ends a segment: gives back what it did not use and makes it durable.
    fn seal(&mut self, number: u32) -> Result<Position, Trouble> {
        if let Some(live) = self.live.take_if(|live| live.number == number) {
            let sealed = live.file.truncate(u64::from(live.end)).map_err(Trouble::Retry);
            let sealed = sealed.and_then(|()| live.file.sync().map_err(Trouble::Sync));
            if let Err(trouble) = sealed {
                self.live = Some(live);
                return Err(trouble);
            }
        }
        Ok(Position::new(number + 1, 0))
    }

    /// Syncs everything written; what waits behind it is not part of it.
    fn sync(&mut self) -> Step {
        let written = self.shared.waiters.frontier();
        let from = self.shared.queue.lock().synced.segment;
        if let Err(Trouble::Sync(error) | Trouble::Retry(error)) = self.sync_segments(from, written.segment) {
            return self.fail(&error);
        }
        self.shared.queue.lock().synced = written;
        self.shared.progress.notify_all();
        self.reserve_spare();
        Step::Worked
    }

    /// Syncs the files of a range of segments. Complete ones are opened again: an fsync covers the file, whoever wrote it.
    fn sync_segments(&mut self, from: u32, to: u32) -> Result<(), Trouble> {
        let live = self.live.as_ref().map(|live| live.number);
        for number in (from..=to).filter(|number| Some(*number) != live) {
            match self.storage.open(&segment::path(&self.settings.dir, number), Open::Write) {
                Ok(file) => file.sync().map_err(Trouble::Sync)?,
                Err(error) if error.kind() == ErrorKind::NotFound => {} // deleted, or not begun
                Err(error) => return Err(Trouble::Sync(error)),
            }
        }
        if let Some(live) = &self.live {
            live.file.sync().map_err(Trouble::Sync)?;
        }
        self.sync_names()
    }

    fn sync_names(&mut self) -> Result<(), Trouble> {
        if self.names_unsynced {
            self.storage.sync_dir(&self.settings.dir).map_err(Trouble::Sync)?;
            self.names_unsynced = false;
        }
        Ok(())
    }

    fn stall(&mut self, error: &io::Error) -> Step {
        self.failed_tries += 1;
        *self.shared.stalled.lock() = Some(error.to_string());
        if self.failed_tries >= TRIES_BEFORE_TELLING {
            self.dismiss();
        }
        Step::Stalled
    }

    fn recover_from_stall(&mut self) {
        if self.failed_tries > 0 {
            self.failed_tries = 0;
            *self.shared.stalled.lock() = None;
        }
    }

    /// Sends away those who wait for a write and those who wait for a sync.
    fn dismiss(&self) {
        self.shared.waiters.dismiss();
        let _queue = self.shared.queue.lock(); // else a caller could miss it between its look and its sleep
        self.shared.progress.notify_all();
    }

    fn fail(&mut self, error: &io::Error) -> Step {
        let reason = format!("sync the log in {}: {error}", self.settings.dir.display());
        self.shared.queue.lock().ended = Some(reason.clone());
        self.shared.waiters.end();
        self.dismiss();
        (self.fatal)(&reason);
        Step::Failed
    }

    /// The last sync, and the end for everyone who still waits.
    fn end(&mut self, reason: String) -> Result<(), WriteFailed> {
        let synced = self.sync();
        self.spare.take().into_iter().for_each(|_| _ = self.storage.remove(&self.settings.dir.join(SPARE)));
        if synced == Step::Failed {
            return Err(self.shared.failure());
        }
        self.shared.queue.lock().ended = Some(reason);
        self.shared.waiters.end();
        self.dismiss();
        Ok(())
    }
}

/// An error by what follows from it.
#[derive(Debug)]
enum Trouble {
    /// Try again; nothing is lost.
    Retry(io::Error),
    /// What was written may be lost.
    Sync(io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::memory::{Memory, StoredRecord};
    use crate::log::reader::{ReadItem, Reader};
    use crate::log::record::{Head, Record};
    use crate::log::sim::SimDisk;
    use crate::log::storage::Disk;
    use futures::FutureExt;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use uuid::Uuid;

    const DIR: &str = "input";

    fn settings(sync: SyncMode) -> Settings {
        Settings {
            dir: DIR.into(),
            first_segment: 1,
            sync,
            queue_bytes: 1 << 20,
            reserve_bytes: 0,
            sync_names: false,
        }
    }

    fn never() -> Fatal {
        Box::new(|reason| panic!("{reason}"))
    }

    /// A memory log and a writer, as the pipeline couples them.
    struct Log {
        memory: Memory,
        writer: Writer,
    }

    impl Log {
        fn build(disk: &SimDisk, settings: Settings, fatal: Fatal) -> (Self, WriteLoop) {
            let memory = Memory::new(1000, settings.first_segment);
            let (writer, write_loop) = Writer::build(disk.storage(), settings, fatal).unwrap();
            (Self { memory, writer }, write_loop)
        }

        fn append(&self, n: u64, body: &[u8]) -> StoredRecord {
            let record = Record { arrival_ms: n, tenant: "t", kind: 0, more: false, member: 0, body };
            let appended = self.memory.append(Head::new(&record).unwrap().as_bytes(), body, n);
            let stored = appended.record;
            let opened = appended.opened.then(|| SegmentHeader {
                number: stored.at.segment,
                uuid: Uuid::from_u128(u128::from(n)),
                opened_ms: n,
                attributes: Bytes::new(),
            });
            self.writer.append(stored.at, opened, Bytes::new(), stored.bytes.clone());
            stored
        }
    }

    fn read(storage: Arc<dyn Storage>, dir: &Path) -> Vec<ReadItem> {
        let mut reader = Reader::open(storage, dir, Position::default()).unwrap();
        std::iter::from_fn(|| reader.next().unwrap()).collect()
    }

    fn arrivals(disk: &SimDisk) -> Vec<u64> {
        let records = read(disk.storage(), Path::new(DIR)).into_iter().filter_map(|item| match item {
            ReadItem::Record(record) => Some(record.arrival_ms),
            _ => None,
        });
        records.collect()
    }

    #[test]
    fn files_hold_the_positions_and_bytes_of_memory() {
        let disk = SimDisk::new(1);
        let (log, mut write_loop) = Log::build(&disk, settings(SyncMode::None), never());
        let stored: Vec<StoredRecord> = (0..20).map(|n| log.append(n, &[n as u8; 300])).collect();
        assert_eq!(write_loop.step(), Step::Worked);
        assert_eq!(write_loop.step(), Step::Idle);
        let items = read(disk.storage(), Path::new(DIR));
        assert_eq!(items.len(), stored.len());
        for (item, stored) in items.iter().zip(&stored) {
            let ReadItem::Record(record) = item else { panic!("{item:?}") };
            assert_eq!((record.at, record.end, &record.body), (stored.at, stored.end(), &stored.body()));
        }
        assert_eq!(log.writer.written(), stored[19].end());
        assert_eq!(log.writer.queued_bytes(), 0);
    }

    #[test]
    fn what_waits_together_is_one_write() {
        let disk = SimDisk::new(1);
        let (log, mut write_loop) = Log::build(&disk, settings(SyncMode::Always), never());
        log.append(0, b"");
        write_loop.step();
        let before = disk.counts();
        (1..10).for_each(|n| _ = log.append(n, b"spans"));
        write_loop.step();
        let after = disk.counts();
        assert_eq!((after.writes - before.writes, after.syncs - before.syncs), (1, 1));
    }

    #[test]
    fn a_waiter_is_told_when_its_record_is_written_and_not_before() {
        let disk = SimDisk::new(1);
        let (log, mut write_loop) = Log::build(&disk, settings(SyncMode::None), never());
        let end = log.append(0, b"spans").end();
        let mut wait = Box::pin(log.writer.wait(end));
        assert!(wait.as_mut().now_or_never().is_none());
        write_loop.step();
        assert_eq!(wait.now_or_never(), Some(Ok(())));
    }

    #[test]
    fn what_was_confirmed_survives_the_end_of_the_process_and_with_sync_a_loss_of_power() {
        for seed in 0..100 {
            let disk = SimDisk::new(seed);
            let sync = if seed % 2 == 0 { SyncMode::Always } else { SyncMode::None };
            let (log, mut write_loop) = Log::build(&disk, settings(sync), never());
            (0..12).for_each(|n| _ = log.append(n, &[1; 200]));
            write_loop.step();
            (12..15).for_each(|n| _ = log.append(n, &[1; 200]));
            if sync == SyncMode::Always {
                disk.crash()
            } else {
                disk.kill()
            }
            assert_eq!(arrivals(&disk), (0..12).collect::<Vec<_>>());
        }
    }

    #[test]
    fn after_a_loss_of_power_what_was_synced_is_there_and_the_rest_is_whole_or_lost() {
        for seed in 0..200 {
            let disk = SimDisk::new(seed);
            let (log, mut write_loop) = Log::build(&disk, settings(SyncMode::None), never());
            (0..6).for_each(|n| _ = log.append(n, &[1; 250]));
            let wanted = log.writer.request_sync();
            write_loop.step();
            assert_eq!(log.writer.synced(), wanted);
            for n in 6..12 {
                log.append(n, &[1; 250]);
                write_loop.step();
            }
            disk.crash();
            let found = arrivals(&disk);
            assert!(found.starts_with(&[0, 1, 2, 3, 4, 5]), "seed {seed}: {found:?}");
        }
    }

    #[test]
    fn a_full_disk_stalls_the_log_and_loses_nothing() {
        let disk = SimDisk::new(1);
        let (log, mut write_loop) = Log::build(&disk, settings(SyncMode::None), never());
        log.append(0, &[1; 300]);
        write_loop.step();
        disk.set_capacity(Some(disk.used() + 100));
        let end = log.append(1, &[2; 300]).end();
        let mut wait = Box::pin(log.writer.wait(end));
        assert!(wait.as_mut().now_or_never().is_none());
        for _ in 1..TRIES_BEFORE_TELLING {
            assert_eq!(write_loop.step(), Step::Stalled);
        }
        assert!(wait.as_mut().now_or_never().is_none());
        assert!(log.writer.stalled().is_some() && !log.writer.has_room(1));
        write_loop.step();
        assert!(matches!(wait.now_or_never(), Some(Err(WriteFailed::Stalled(_)))));
        disk.set_capacity(None);
        log.append(2, &[3; 300]);
        assert_eq!(write_loop.step(), Step::Worked);
        assert!(log.writer.stalled().is_none() && log.writer.has_room(1));
        assert_eq!(log.writer.wait(end).now_or_never(), Some(Ok(())));
        assert_eq!(arrivals(&disk), [0, 1, 2]);
    }

    #[test]
    fn a_segment_that_cannot_be_begun_is_begun_when_there_is_room() {
        let disk = SimDisk::new(1);
        let (log, mut write_loop) = Log::build(&disk, settings(SyncMode::None), never());
        disk.set_capacity(Some(10));
        log.append(0, b"spans");
        assert_eq!(write_loop.step(), Step::Stalled);
        disk.set_capacity(None);
        disk.fail_writes(1);
        assert_eq!(write_loop.step(), Step::Stalled);
        assert_eq!(write_loop.step(), Step::Worked);
        assert_eq!(arrivals(&disk), [0]);
    }

    #[test]
    fn a_failed_sync_is_final() {
        let disk = SimDisk::new(1);
        let told = Arc::new(AtomicUsize::new(0));
        let teller = told.clone();
        let fatal: Fatal = Box::new(move |_| _ = teller.fetch_add(1, Ordering::Relaxed));
        let (log, mut write_loop) = Log::build(&disk, settings(SyncMode::Always), fatal);
        log.append(0, b"");
        write_loop.step();
        disk.fail_syncs(1);
        let end = log.append(1, b"").end();
        assert_eq!(write_loop.step(), Step::Failed);
        assert_eq!(write_loop.step(), Step::Failed);
        assert_eq!(told.load(Ordering::Relaxed), 1);
        assert!(matches!(log.writer.wait(end).now_or_never(), Some(Err(WriteFailed::Closed(_)))));
        assert!(log.writer.sync_all().is_err());
    }

    #[test]
    fn a_full_queue_has_no_room_until_it_is_written() {
        let disk = SimDisk::new(1);
        let (log, mut write_loop) =
            Log::build(&disk, Settings { queue_bytes: 500, ..settings(SyncMode::None) }, never());
        log.append(0, &[1; 300]);
        assert!(log.writer.has_room(100) && !log.writer.has_room(300));
        write_loop.step();
        assert!(log.writer.has_room(300) && log.writer.has_room(10_000));
    }

    #[test]
    fn many_threads_wait_for_one_writer_on_a_real_disk() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings { dir: dir.path().join("input"), ..settings(SyncMode::None) };
        let input = settings.dir.clone();
        let (writer, write_loop) = Writer::build(Arc::new(Disk), settings, never()).unwrap();
        let log = Log { memory: Memory::new(100_000, 1), writer };
        let thread = write_loop.spawn("input-log").unwrap();
        let order = Mutex::new(());
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let (log, order) = (&log, &order);
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    for n in 0..500 {
                        let guard = order.lock();
                        let end = log.append(worker * 500 + n, &[n as u8; 700]).end();
                        drop(guard);
                        runtime.block_on(log.writer.wait(end)).unwrap();
                    }
                });
            }
        });
        assert_eq!(log.writer.sync_all().unwrap(), log.writer.written());
        drop(log);
        thread.join().unwrap().unwrap();
        assert_eq!(read(Arc::new(Disk), &input).len(), 2000);
    }

    #[test]
    fn the_loop_ends_when_the_writer_is_dropped_and_writes_what_waits() {
        let disk = SimDisk::new(1);
        let (log, write_loop) = Log::build(&disk, settings(SyncMode::None), never());
        (0..5).for_each(|n| _ = log.append(n, b"spans"));
        drop(log);
        write_loop.run().unwrap();
        disk.crash();
        assert_eq!(arrivals(&disk), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_record_appended_after_the_end_is_refused_to_its_waiter() {
        let disk = SimDisk::new(1);
        let (log, write_loop) = Log::build(&disk, settings(SyncMode::None), never());
        log.writer.close();
        write_loop.run().unwrap();
        let end = log.append(0, b"spans").end();
        assert!(matches!(log.writer.wait(end).now_or_never(), Some(Err(WriteFailed::Closed(_)))));
    }
}
