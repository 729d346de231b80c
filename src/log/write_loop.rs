//! The writing side of a log: one loop that puts what waits into segment files.
//!
//! It writes all that waits in one vectored write and wakes everyone whose record is in it. What the disk
//! refuses is tried again at the same offset. [`WriteLoop::step`] is all of the work without the waiting,
//! for simulations.

use super::segment::{self, SegmentHeader};
use super::storage::{File, Open, Storage};
use super::writer::{Fatal, Item, Settings, Shared, SyncMode, WriteFailed};
use crate::trace::Position;
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Records in one write at most: half of what one system call takes, as each has up to two parts.
const BATCH_RECORDS: usize = 512;
/// How long a stalled loop waits before it tries again.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// Failed tries after which waiters are told: 5 seconds.
const TRIES_BEFORE_TELLING: u32 = 50;
/// The file that holds room for the next segment.
const SPARE: &str = "next.spare";

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
    linger: Duration,
    retry_after: Duration,
}

#[derive(Debug)]
struct Live {
    number: u32,
    file: Arc<dyn File>,
    end: u32,
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
    pub(super) fn new(
        shared: Arc<Shared>,
        storage: Arc<dyn Storage>,
        settings: Settings,
        fatal: Fatal,
    ) -> Self {
        let mut write_loop = Self {
            shared,
            storage,
            settings,
            fatal,
            waiting: VecDeque::new(),
            live: None,
            spare: None,
            names_unsynced: true, // by a life that was killed
            failed_tries: 0,
            linger: Duration::ZERO,
            retry_after: RETRY_AFTER,
        };
        write_loop.reserve_spare();
        write_loop
    }

    /// Once woken, waits so long for more before it writes: one write and one wake-up then serve many.
    #[must_use]
    pub fn lingering(self, linger: Duration) -> Self {
        Self { linger, ..self }
    }

    /// For one that is turned by hand: nobody sleeps.
    pub(super) fn without_pauses(self) -> Self {
        Self { linger: Duration::ZERO, retry_after: Duration::ZERO, ..self }
    }

    /// Starts a thread that runs the loop.
    pub fn spawn(self, name: &str) -> io::Result<JoinHandle<Result<(), WriteFailed>>> {
        std::thread::Builder::new().name(name.to_owned()).spawn(move || self.run())
    }

    /// Works until the writer is closed or dropped, then syncs what was written.
    pub fn run(mut self) -> Result<(), WriteFailed> {
        self.run_to_end()
    }

    pub(super) fn run_to_end(&mut self) -> Result<(), WriteFailed> {
        loop {
            match self.step() {
                Step::Worked if self.linger.is_zero() => {}
                Step::Worked => std::thread::sleep(self.linger),
                Step::Idle if self.sleep() => std::thread::sleep(self.linger),
                Step::Idle => return self.end("it was closed".to_owned()),
                Step::Stalled if self.gives_up() => {
                    let reason = self.shared.stalled.lock().clone().unwrap_or_default();
                    self.end(reason.clone())?;
                    return Err(WriteFailed::Stalled(reason));
                }
                Step::Stalled => std::thread::sleep(self.retry_after),
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
            Some(spare) => match self.open_spare(spare, header, &path) {
                // Somebody has tidied up.
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    self.spare = None;
                    self.open_new(header, &path)
                }
                opened => opened,
            },
            None => self.open_new(header, &path),
        };
        let file = file.map_err(Trouble::Retry)?;
        let end = header.encoded_len() as u32;
        let live = self.live.insert(Live { number: header.number, file, end });
        self.names_unsynced = true;
        if self.settings.sync_names || self.settings.sync == SyncMode::Always {
            // Not the name alone: records that survive a loss of power say little without their header.
            live.file.sync().map_err(Trouble::Sync)?;
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
        if self.storage.exists(path)? {
            return Err(ErrorKind::AlreadyExists.into()); // a rename would replace it
        }
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
        *self.shared.stalled.lock() = Some(format!("{}: {error}", self.settings.dir.display()));
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
    use crate::log::writer::Writer;
    use bytes::Bytes;
    use futures::FutureExt;
    use parking_lot::Mutex;
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
