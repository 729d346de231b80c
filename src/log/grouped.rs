//! A log of groups: records that are read together or not at all.
//!
//! A group never crosses segments. A segment is sealed at its age, at its size, at the full hour, on
//! request, and by a restart; sealed, it never changes. Readers see whole groups, never beyond what is
//! written; of a group that was cut off or damaged they see nothing.

use super::group_reader::{GroupItem, GroupReader};
use super::record::{Head, RECORD_MAX, Record, RecordTooLarge};
use super::segment::{self, SegmentHeader, SegmentInfo, Unreadable};
use super::storage::{File, Open, Storage};
use super::write_loop::WriteLoop;
use super::writer::{Fatal, Item, Settings, SyncMode, WriteFailed, Writer};
use crate::trace::Position;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::watch;
use uuid::Uuid;

const HOUR_MS: u64 = 3_600_000;
/// A group's bytes at most.
const GROUP_MAX: u64 = 2 << 30;
/// A segment's bytes at most, but for one that holds a single group: offsets have 32 bits.
pub const SEGMENT_MAX: u64 = 2 << 30;

#[derive(Clone, Debug)]
pub struct GroupSettings {
    pub dir: PathBuf,
    /// A segment is sealed when it is this old,
    pub roll_age_ms: u64,
    /// or before it would grow beyond this.
    pub roll_bytes: u64,
    /// Bytes that may wait to be written.
    pub queue_bytes: usize,
    /// Room reserved for each segment and, in advance, for the next.
    pub reserve_bytes: u64,
    /// What the headers of new segments carry.
    pub attributes: Bytes,
    /// The highest number that is known to have been used; no segment gets it again.
    pub highest_known: u32,
    /// What lies behind this would be written again if it were not there. None: nothing would.
    pub again_from: Option<Position>,
    /// Names new segments. `Uuid::new_v4` unless a simulation must repeat itself.
    pub new_uuid: fn() -> Uuid,
}

/// A record to append; its place in the group is its place in the slice.
#[derive(Clone, Debug)]
pub struct GroupRecord<'a> {
    pub arrival_ms: u64,
    pub tenant: &'a str,
    pub kind: u8,
    pub body: Bytes,
}

/// Where a group stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    pub at: Position,
    /// Behind its last record; pass it to [`GroupLog::wait`].
    pub end: Position,
}

/// Why a group was not appended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    #[error(transparent)]
    RecordTooLarge(#[from] RecordTooLarge),
    #[error("a group of {0} bytes is larger than a segment can be")]
    GroupTooLarge(u64),
    /// Only from [`GroupLog::try_append_group`].
    #[error("too much waits to be written")]
    WouldBlock,
    #[error(transparent)]
    Write(#[from] WriteFailed),
}

/// What opening found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Bytes cut off the end: records or groups that had not been written whole.
    pub cut_bytes: u64,
    /// Segments whose headers say nothing. They are not among the sealed ones; a reader still finds their groups.
    pub unreadable: Vec<Unreadable>,
}

/// The writing side, and the book of sealed segments.
#[derive(Debug)]
pub struct GroupLog {
    writer: Writer,
    storage: Arc<dyn Storage>,
    settings: GroupSettings,
    /// Gives groups their places: held for a few lines, the queue's lock within it.
    order: Mutex<Order>,
}

#[derive(Debug)]
struct Order {
    next_number: u32,
    live: Option<LiveSegment>,
    /// Complete or about to be, by number.
    sealed: BTreeMap<u32, SegmentInfo>,
    attributes: Bytes,
}

#[derive(Clone, Debug)]
struct LiveSegment {
    header: SegmentHeader,
    end: u64,
}

impl GroupLog {
    /// Seals what is there: cuts an incomplete group off its end and begins at a new number with the first group.
    pub fn open(
        storage: Arc<dyn Storage>,
        settings: GroupSettings,
        fatal: Fatal,
    ) -> io::Result<(Self, WriteLoop, Found)> {
        storage.create_dir_all(&settings.dir)?;
        let next_number = segment::next_number(&*storage, &settings.dir, settings.highest_known)?;
        let cut_bytes = cut_tail(&storage, &settings.dir, settings.again_from)?;
        let segments = segment::segments(&*storage, &settings.dir)?;
        let found = Found { cut_bytes, unreadable: segments.unreadable };
        let sealed = segments.readable.into_iter().map(|info| (info.number, info)).collect();
        let writer_settings = Settings {
            dir: settings.dir.clone(),
            first_segment: next_number,
            sync: SyncMode::None,
            queue_bytes: settings.queue_bytes,
            reserve_bytes: settings.reserve_bytes,
            sync_names: true,
        };
        let (writer, write_loop) = Writer::build(storage.clone(), writer_settings, fatal)?;
        let order =
            Mutex::new(Order { next_number, live: None, sealed, attributes: settings.attributes.clone() });
        Ok((Self { writer, storage, settings, order }, write_loop, found))
    }

    /// Appends a group; blocks while the queue is full, so never call it on an I/O worker.
    pub fn append_group(&self, records: &[GroupRecord<'_>], now_ms: u64) -> Result<Appended, AppendError> {
        let group = Encoded::new(records)?;
        loop {
            self.writer.wait_for_room(group.bytes as usize)?;
            match self.place(&group, now_ms) {
                Err(AppendError::WouldBlock) => {} // another was faster
                placed => return placed,
            }
        }
    }

    /// Appends a group, or says that it would have to wait.
    pub fn try_append_group(
        &self,
        records: &[GroupRecord<'_>],
        now_ms: u64,
    ) -> Result<Appended, AppendError> {
        self.place(&Encoded::new(records)?, now_ms)
    }

    fn place(&self, group: &Encoded, now_ms: u64) -> Result<Appended, AppendError> {
        let mut order = self.order.lock();
        let live = order.live.clone().filter(|live| !self.is_over(live, now_ms, group.bytes));
        let (opened, mut live) = match live {
            Some(live) => (None, live),
            None => {
                let live = self.next_segment(&order, now_ms);
                (Some(live.header.clone()), live)
            }
        };
        let at = live.position();
        live.end += group.bytes;
        let seal = order.live.as_ref().filter(|_| opened.is_some()).map(|old| Item::Seal(old.header.number));
        let items = || seal.into_iter().chain(opened.map(Item::Open)).chain(group.items(at)).collect();
        if !self.writer.try_append_all(group.bytes as usize, items)? {
            return Err(AppendError::WouldBlock);
        }
        let end = live.position();
        if order.next_number == live.header.number {
            order.seal_live(&self.settings.dir);
            order.next_number += 1;
        }
        order.live = Some(live);
        Ok(Appended { at, end })
    }

    fn is_over(&self, live: &LiveSegment, now_ms: u64, more: u64) -> bool {
        let opened_ms = live.header.opened_ms;
        live.end + more > self.settings.roll_bytes.min(SEGMENT_MAX)
            // A clock that was set back ends a segment too: it would never grow old.
            || now_ms.abs_diff(opened_ms) >= self.settings.roll_age_ms
            || now_ms / HOUR_MS != opened_ms / HOUR_MS
    }

    fn next_segment(&self, order: &Order, now_ms: u64) -> LiveSegment {
        let header = SegmentHeader {
            number: order.next_number,
            uuid: (self.settings.new_uuid)(),
            opened_ms: now_ms,
            attributes: order.attributes.clone(),
        };
        let end = header.encoded_len() as u64;
        LiveSegment { header, end }
    }

    /// Seals the live segment if its age or the hour says so. Call it every second or so: without
    /// groups nothing else would.
    pub fn roll(&self, now_ms: u64) -> bool {
        let mut order = self.order.lock();
        let over = order.live.as_ref().is_some_and(|live| self.is_over(live, now_ms, 0));
        over && self.seal_locked(&mut order)
    }

    /// Seals the live segment now; `false` if there is none.
    pub fn seal(&self) -> bool {
        self.seal_locked(&mut self.order.lock())
    }

    fn seal_locked(&self, order: &mut Order) -> bool {
        let Some(live) = &order.live else { return false };
        let seal = Item::Seal(live.header.number);
        let queued = self.writer.try_append_all(0, || vec![seal]).unwrap_or(false);
        if queued {
            order.seal_live(&self.settings.dir);
        }
        queued
    }

    /// What the headers of segments opened from now on carry.
    pub fn set_attributes(&self, attributes: Bytes) {
        self.order.lock().attributes = attributes;
    }

    /// Segments that are complete and durable, oldest first.
    pub fn sealed(&self) -> Vec<SegmentInfo> {
        let written = self.writer.written().segment;
        self.order.lock().sealed.range(..written).map(|(_, info)| info.clone()).collect()
    }

    /// Every segment there is, the live one included, as long as it is once all that was appended is written.
    pub fn extents(&self) -> Vec<SegmentInfo> {
        let order = self.order.lock();
        let live = order.live.as_ref().map(|live| live.info(&self.settings.dir));
        order.sealed.values().cloned().chain(live).collect()
    }

    /// Removes a sealed segment.
    pub fn delete(&self, number: u32) -> io::Result<()> {
        if number >= self.writer.written().segment {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("segment {number} is not sealed"),
            ));
        }
        self.order.lock().sealed.remove(&number);
        match self.storage.remove(&segment::path(&self.settings.dir, number)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// Bytes of its segments.
    pub fn bytes(&self) -> u64 {
        let order = self.order.lock();
        let sealed: u64 = order.sealed.values().map(|info| info.len).sum();
        sealed + order.live.as_ref().map_or(0, |live| live.end)
    }

    /// What the log takes on the disk, reserved room included.
    pub fn bytes_on_disk(&self) -> u64 {
        let order = self.order.lock();
        let sealed: u64 = order.sealed.values().map(|info| info.len).sum();
        let live = order.live.as_ref().map_or(0, |live| live.end.max(self.settings.reserve_bytes));
        sealed + live + self.settings.reserve_bytes
    }

    /// The highest segment number used so far.
    pub fn highest(&self) -> u32 {
        self.order.lock().next_number - 1
    }

    /// Everything before it is queued or written.
    pub fn appended(&self) -> Position {
        self.writer.appended()
    }

    /// Everything before it is written.
    pub fn written(&self) -> Position {
        self.writer.written()
    }

    /// The written frontier, for those who wait for more.
    pub fn subscribe(&self) -> watch::Receiver<Position> {
        self.writer.subscribe()
    }

    /// Waits until everything before `end` is written.
    pub async fn wait(&self, end: Position) -> Result<(), WriteFailed> {
        self.writer.wait(end).await
    }

    /// Blocks until everything appended so far is on the disk; returns how far that is.
    pub fn sync(&self) -> Result<Position, WriteFailed> {
        self.writer.sync_all()
    }

    /// The writer, for what a simulation drives step by step and a status page shows.
    pub fn writer(&self) -> &Writer {
        &self.writer
    }

    pub fn stalled(&self) -> Option<String> {
        self.writer.stalled()
    }

    /// Ends the loop once all that waits is written and synced. The live segment is not sealed; the next start does.
    pub fn close(&self) {
        self.writer.close();
    }

    /// Reads groups from `from` on, to the written frontier and on as it moves.
    pub fn reader(&self, from: Position) -> GroupReader {
        GroupReader::new(self.storage.clone(), &self.settings.dir, from, self.subscribe())
    }
}

impl Order {
    fn seal_live(&mut self, dir: &Path) {
        let Some(live) = self.live.take() else { return };
        self.sealed.insert(live.header.number, live.info(dir));
    }
}

impl LiveSegment {
    fn position(&self) -> Position {
        Position::new(self.header.number, self.end as u32)
    }

    fn info(&self, dir: &Path) -> SegmentInfo {
        let SegmentHeader { number, uuid, opened_ms, attributes } = self.header.clone();
        SegmentInfo { number, uuid, opened_ms, attributes, len: self.end, path: segment::path(dir, number) }
    }
}

/// A group ready to be queued: checksums are made outside every lock.
#[derive(Debug)]
struct Encoded {
    records: Vec<(Bytes, Bytes)>,
    bytes: u64,
}

impl Encoded {
    fn new(records: &[GroupRecord<'_>]) -> Result<Self, AppendError> {
        let mut encoded = Self { records: Vec::with_capacity(records.len()), bytes: 0 };
        for (member, record) in records.iter().enumerate() {
            let head = Head::new(&Record {
                arrival_ms: record.arrival_ms,
                tenant: record.tenant,
                kind: record.kind,
                more: member + 1 < records.len(),
                member: member as u32,
                body: &record.body,
            })?;
            let head = Bytes::from(head.into_vec());
            encoded.bytes += (head.len() + record.body.len()) as u64;
            encoded.records.push((head, record.body.clone()));
        }
        if encoded.bytes > GROUP_MAX { Err(AppendError::GroupTooLarge(encoded.bytes)) } else { Ok(encoded) }
    }

    fn items(&self, mut at: Position) -> impl Iterator<Item = Item> {
        self.records.iter().map(move |(head, body)| {
            let item = Item::Record { at, head: head.clone(), body: body.clone() };
            at.offset += (head.len() + body.len()) as u32;
            item
        })
    }
}

/// Cuts what is not a whole group off the end of the last segment, so that nothing half written is ever read;
/// a segment without any group goes. Returns the bytes lost.
///
/// A loss of power may leave a gap of zeros with whole groups behind it. They say that all before them was written, which is not
/// so: where they would be written again, the log ends at the gap.
fn cut_tail(storage: &Arc<dyn Storage>, dir: &Path, again_from: Option<Position>) -> io::Result<u64> {
    let Some((number, len)) = segment::numbers(&**storage, dir)?.pop() else { return Ok(0) };
    let path = segment::path(dir, number);
    let file = storage.open(&path, Open::Write)?;
    let mut reader = GroupReader::recover(storage.clone(), dir, Position::new(number, 0));
    let mut whole_to = None;
    while let Some(item) = reader.next()? {
        match item {
            GroupItem::Group(group) => whole_to = Some(u64::from(group.end.offset)),
            GroupItem::Lost { from, end, .. } if again_from.is_some_and(|again| from >= again) => {
                if was_never_written(&*file, from.offset, end.offset)? {
                    break;
                }
            }
            GroupItem::Lost { .. } => {}
        }
    }
    let Some(whole_to) = whole_to else {
        let header = SegmentHeader::read(&*file, number)?.map_or(0, |header| header.encoded_len() as u64);
        storage.remove(&path)?;
        storage.sync_dir(dir)?;
        return Ok(len - header);
    };
    // What a life that was killed had reserved is given back as well.
    file.truncate(whole_to)?;
    // It is sealed from now on, and a life that was killed may not have synced it.
    file.sync()?;
    Ok(len - whole_to)
}

/// Where a write was lost there are zeros, more of them than stand in a record.
fn was_never_written(file: &dyn File, from: u32, to: u32) -> io::Result<bool> {
    const ZEROS: usize = 64;
    let mut at = u64::from(from);
    let mut zeros = 0;
    let mut bytes = [0; 4096];
    while at < u64::from(to) {
        let wanted = bytes.len().min((u64::from(to) - at) as usize);
        let read = file.read_at(at, &mut bytes[..wanted])?;
        for byte in &bytes[..read] {
            zeros = if *byte == 0 { zeros + 1 } else { 0 };
            if zeros == ZEROS {
                return Ok(true);
            }
        }
        if read == 0 {
            break;
        }
        at += read as u64;
    }
    Ok(false)
}

const _: () = assert!(RECORD_MAX as u64 <= GROUP_MAX);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::sim::SimDisk;
    use crate::log::write_loop::Step;
    use futures::FutureExt;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    const DIR: &str = "outbox";
    const NOW: u64 = 1_700_000_000_000;

    fn uuid() -> Uuid {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Uuid::from_u128(u128::from(NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    fn settings() -> GroupSettings {
        GroupSettings {
            dir: DIR.into(),
            roll_age_ms: 60_000,
            roll_bytes: 10_000,
            queue_bytes: 1 << 20,
            reserve_bytes: 0,
            attributes: Bytes::from_static(b"url"),
            highest_known: 0,
            again_from: None,
            new_uuid: uuid,
        }
    }

    fn open(disk: &SimDisk, settings: GroupSettings) -> (GroupLog, WriteLoop, Found) {
        GroupLog::open(disk.storage(), settings, Box::new(|reason| panic!("{reason}"))).unwrap()
    }

    fn group(n: u64, len: usize, body: usize) -> Vec<GroupRecord<'static>> {
        let record = GroupRecord { arrival_ms: n, tenant: "t", kind: 1, body: vec![n as u8; body].into() };
        vec![record; len]
    }

    fn groups(reader: &mut GroupReader) -> Vec<(u64, usize)> {
        let items = std::iter::from_fn(|| reader.next().unwrap());
        let groups = items.filter_map(|item| match item {
            GroupItem::Group(group) => Some((group.records[0].arrival_ms, group.records.len())),
            GroupItem::Lost { .. } => None,
        });
        groups.collect()
    }

    fn recovered(disk: &SimDisk) -> Vec<(u64, usize)> {
        groups(&mut GroupReader::recover(disk.storage(), Path::new(DIR), Position::default()))
    }

    #[test]
    fn a_read_that_fails_amid_a_group_is_made_again() {
        let disk = SimDisk::new(1);
        let large = GroupSettings { roll_bytes: 1 << 30, ..settings() };
        let (log, mut write_loop, _) = open(&disk, GroupSettings { queue_bytes: 4 << 20, ..large });
        log.append_group(&group(1, 3, 300 << 10), NOW).unwrap();
        write_loop.step();
        let mut reader = log.reader(Position::default());
        disk.fail_read(2);
        assert!(reader.next().is_err());
        assert_eq!(groups(&mut reader), [(1, 3)]);
    }

    #[test]
    fn readers_see_whole_groups_up_to_the_frontier() {
        let disk = SimDisk::new(1);
        let (log, mut write_loop, _) = open(&disk, settings());
        let mut reader = log.reader(Position::default());
        assert!(reader.next().unwrap().is_none());
        log.append_group(&group(1, 3, 100), NOW).unwrap();
        assert!(reader.next().unwrap().is_none());
        write_loop.step();
        assert_eq!(reader.changed().now_or_never(), Some(true));
        assert_eq!(groups(&mut reader), [(1, 3)]);
        let appended = log.append_group(&group(2, 1, 100), NOW).unwrap();
        write_loop.step();
        assert_eq!(log.wait(appended.end).now_or_never(), Some(Ok(())));
        assert_eq!(groups(&mut reader), [(2, 1)]);
        assert_eq!(reader.position(), appended.end);
        assert_eq!(groups(&mut log.reader(appended.at)), [(2, 1)]);
    }

    #[test]
    fn a_segment_of_a_clock_that_was_set_back_is_sealed() {
        let (log, _write_loop, _) = open(&SimDisk::new(1), settings());
        let noon = NOW - NOW % HOUR_MS;
        for back_ms in [2 * HOUR_MS, 60_000] {
            log.append_group(&group(1, 1, 100), noon + HOUR_MS - 1).unwrap();
            assert!(!log.roll(noon + HOUR_MS - 2));
            assert!(log.roll(noon + HOUR_MS - 1 - back_ms));
        }
    }

    #[test]
    fn a_segment_never_grows_beyond_what_an_offset_can_say() {
        let (log, _write_loop, _) =
            open(&SimDisk::new(1), GroupSettings { roll_bytes: u64::MAX, ..settings() });
        let header = SegmentHeader { number: 1, uuid: uuid(), opened_ms: NOW, attributes: Bytes::new() };
        let live = LiveSegment { header, end: SEGMENT_MAX - 100 };
        assert!(!log.is_over(&live, NOW, 100));
        assert!(log.is_over(&live, NOW, 101));
    }

    #[test]
    fn a_segment_is_sealed_by_size_age_hour_and_on_request() {
        let disk = SimDisk::new(1);
        let (log, mut write_loop, _) = open(&disk, settings());
        let mut reader = log.reader(Position::default());
        let segment = |now: u64| log.append_group(&group(now, 2, 2000), now).unwrap().at.segment;
        let hour = NOW - NOW % HOUR_MS + HOUR_MS;
        let numbers = [NOW, NOW, NOW + 10, NOW + 60_010, hour - 1, hour].map(segment);
        assert_eq!(numbers, [1, 1, 2, 3, 4, 5]);
        assert!(!log.roll(hour + 1) && log.roll(hour + 60_000) && !log.seal());
        assert_eq!(segment(hour + 60_000), 6);
        assert!(log.seal());
        assert!(log.sealed().is_empty());
        write_loop.step();
        let sealed = log.sealed();
        assert_eq!(sealed.iter().map(|info| info.number).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
        for info in &sealed {
            assert_eq!(info.len, disk.content(&info.path).unwrap().len() as u64);
            assert_eq!(info.attributes, "url");
        }
        assert_eq!(sealed, segment::segments(&disk, Path::new(DIR)).unwrap().readable);
        assert_eq!(groups(&mut reader).len(), 7);
        assert_eq!(groups(&mut GroupReader::segment(disk.storage(), &sealed[0])), [(NOW, 2), (NOW, 2)]);
    }

    #[test]
    fn a_group_larger_than_the_roll_size_has_a_segment_of_its_own() {
        let disk = SimDisk::new(1);
        let (log, mut write_loop, _) = open(&disk, settings());
        let numbers = [(1, 100), (30, 1000), (1, 100)]
            .map(|(len, body)| log.append_group(&group(1, len, body), NOW).unwrap().at.segment);
        assert_eq!(numbers, [1, 2, 3]);
        write_loop.step();
        assert_eq!(recovered(&disk), [(1, 1), (1, 30), (1, 1)]);
    }

    #[test]
    fn a_segment_that_is_listed_as_sealed_survives_a_loss_of_power() {
        for seed in 0..50 {
            let disk = SimDisk::new(seed);
            let (log, mut write_loop, _) = open(&disk, settings());
            log.append_group(&group(1, 2, 100), NOW).unwrap();
            write_loop.step();
            log.seal();
            assert!(log.sealed().is_empty());
            write_loop.step();
            let sealed = log.sealed();
            disk.crash();
            assert_eq!(sealed, segment::segments(&disk, Path::new(DIR)).unwrap().readable, "seed {seed}");
            assert_eq!(recovered(&disk), [(1, 2)], "seed {seed}");
        }
    }

    #[test]
    fn the_live_segment_is_durable_once_synced() {
        for seed in 0..100 {
            let disk = SimDisk::new(seed);
            let (log, mut write_loop, _) = open(&disk, settings());
            log.append_group(&group(1, 2, 100), NOW).unwrap();
            log.seal();
            log.append_group(&group(2, 2, 100), NOW).unwrap();
            log.writer().request_sync();
            write_loop.step();
            log.append_group(&group(3, 2, 100), NOW).unwrap();
            write_loop.step();
            disk.crash();
            let (log, _, _) = open(&disk, settings());
            let found = groups(&mut log.reader(Position::default()));
            assert!(found == [(1, 2), (2, 2)] || found == [(1, 2), (2, 2), (3, 2)], "seed {seed}: {found:?}");
        }
    }

    #[test]
    fn what_would_be_written_again_ends_at_a_gap() {
        let disk = SimDisk::new(1);
        let (log, mut write_loop, _) = open(&disk, settings());
        let appended: Vec<_> = (1..=4).map(|n| log.append_group(&group(n, 1, 100), NOW).unwrap()).collect();
        write_loop.step();
        drop((log, write_loop));
        let path = segment::path(Path::new(DIR), 1);
        let mut file = disk.content(&path).unwrap();
        file[appended[1].at.offset as usize..appended[1].end.offset as usize].fill(0);
        for (again_from, left) in [
            (None, vec![1, 3, 4]),
            (Some(appended[2].at), vec![1, 3, 4]),
            (Some(appended[1].at), vec![1]),
            (Some(Position::default()), vec![1]),
        ] {
            disk.put(&path, file.clone());
            open(&disk, GroupSettings { again_from, ..settings() });
            let read: Vec<u64> = recovered(&disk).into_iter().map(|(n, _)| n).collect();
            assert_eq!(read, left, "{again_from:?}");
        }
    }

    #[test]
    fn a_restart_cuts_a_group_that_is_not_whole_at_every_byte_and_begins_a_new_number() {
        let disk = SimDisk::new(1);
        let (log, mut write_loop, _) = open(&disk, settings());
        let first = log.append_group(&group(1, 2, 50), NOW).unwrap();
        let second = log.append_group(&group(2, 3, 50), NOW).unwrap();
        write_loop.step();
        let path = segment::path(Path::new(DIR), 1);
        let whole = disk.content(&path).unwrap();
        for cut in 0..second.end.offset {
            let disk = SimDisk::new(1);
            disk.put(&path, whole[..cut as usize].to_vec());
            let (log, mut write_loop, found) = open(&disk, settings());
            let (kept, whole) = match cut {
                _ if cut < first.at.offset => (0, 0),
                _ if cut < first.end.offset => (0, first.at.offset),
                _ => (1, first.end.offset),
            };
            assert_eq!(found.cut_bytes, u64::from(cut - whole), "cut at {cut}");
            let appended = log.append_group(&group(3, 1, 5), NOW).unwrap();
            assert_eq!(appended.at.segment, 2);
            write_loop.step();
            assert_eq!(groups(&mut log.reader(Position::default())).len(), kept + 1, "cut at {cut}");
        }
    }

    #[test]
    fn a_damaged_group_is_lost_whole_and_its_neighbours_are_read() {
        let disk = SimDisk::new(1);
        let (log, mut write_loop, _) = open(&disk, settings());
        let bounds: Vec<Appended> =
            (0..3).map(|n| log.append_group(&group(n, 3, 20), NOW).unwrap()).collect();
        log.seal();
        write_loop.step();
        let path = segment::path(Path::new(DIR), 1);
        let whole = disk.content(&path).unwrap();
        for byte in bounds[0].at.offset..bounds[2].end.offset {
            let mut damaged = whole.clone();
            damaged[byte as usize] ^= 4;
            disk.put(&path, damaged);
            let hit = bounds.iter().position(|bound| byte < bound.end.offset).unwrap() as u64;
            let expected: Vec<_> = (0..3).filter(|n| *n != hit).map(|n| (n, 3)).collect();
            assert_eq!(recovered(&disk), expected, "byte {byte}");
            let mut reader = log.reader(Position::default());
            let lost = std::iter::from_fn(|| reader.next().unwrap()).find_map(|item| match item {
                GroupItem::Lost { from, bytes, .. } => Some((from, bytes)),
                GroupItem::Group(_) => None,
            });
            let hit = bounds[hit as usize];
            assert_eq!(lost, Some((hit.at, u64::from(hit.end.offset - hit.at.offset))), "byte {byte}");
        }
    }

    #[test]
    fn the_live_segment_is_followed_into_the_next_even_when_the_reader_looked_between() {
        let disk = SimDisk::new(1);
        let (log, mut write_loop, _) = open(&disk, settings());
        let mut reader = log.reader(Position::default());
        let mut seen = Vec::new();
        for n in 0..60 {
            log.append_group(&group(n, 2, 500), NOW).unwrap();
            if n % 3 == 0 {
                write_loop.step();
                seen.extend(groups(&mut reader));
            }
        }
        write_loop.step();
        seen.extend(groups(&mut reader));
        assert_eq!(seen, (0..60).map(|n| (n, 2)).collect::<Vec<_>>());
    }

    #[test]
    fn what_a_life_that_was_killed_had_reserved_is_given_back() {
        let disk = SimDisk::new(1);
        let reserving = || GroupSettings { reserve_bytes: 10_000, ..settings() };
        for life in 0..3 {
            let (log, mut write_loop, _) = open(&disk, reserving());
            log.append_group(&group(life, 1, 100), NOW).unwrap();
            write_loop.step();
            assert!(disk.used() <= log.bytes_on_disk(), "life {life}: {} bytes are used", disk.used());
            disk.kill();
        }
    }

    #[test]
    fn reserved_room_lets_the_log_go_on_when_the_disk_is_full() {
        let disk = SimDisk::new(1);
        let (log, mut write_loop, _) = open(&disk, GroupSettings { reserve_bytes: 10_000, ..settings() });
        log.append_group(&group(1, 1, 1000), NOW).unwrap();
        write_loop.step();
        assert_eq!(log.bytes_on_disk(), 20_000);
        disk.set_capacity(Some(disk.used()));
        for n in 2..16 {
            log.append_group(&group(n, 1, 1000), NOW).unwrap();
            assert_eq!(write_loop.step(), Step::Worked, "group {n}");
        }
        assert_eq!(log.highest(), 2);
        (16..22).for_each(|n| _ = log.append_group(&group(n, 1, 1000), NOW).unwrap());
        assert_eq!(write_loop.step(), Step::Stalled);
        disk.set_capacity(None);
        assert_eq!(write_loop.step(), Step::Worked);
        assert_eq!(recovered(&disk).len(), 21);
    }

    #[test]
    fn a_sealed_file_gives_back_the_room_it_did_not_use() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let settings = GroupSettings { dir: dir.path().into(), reserve_bytes: 4 << 20, ..settings() };
        let (log, mut write_loop, _) =
            GroupLog::open(Arc::new(crate::log::Disk), settings, Box::new(|reason| panic!("{reason}")))
                .unwrap();
        for n in 1..=2 {
            log.append_group(&group(n, 1, 1000), NOW).unwrap();
            log.seal();
            write_loop.step();
        }
        for info in log.sealed() {
            let file = std::fs::metadata(&info.path).unwrap();
            assert_eq!(file.len(), info.len);
            assert!(file.blocks() * 512 < 1 << 20, "{} blocks", file.blocks());
        }
        assert_eq!(groups(&mut log.reader(Position::default())), [(1, 1), (2, 1)]);
    }

    #[test]
    fn a_full_queue_blocks_or_says_so() {
        let disk = SimDisk::new(1);
        let (log, write_loop, _) = open(&disk, GroupSettings { queue_bytes: 1000, ..settings() });
        log.try_append_group(&group(1, 1, 800), NOW).unwrap();
        assert_eq!(log.try_append_group(&group(2, 1, 800), NOW), Err(AppendError::WouldBlock));
        let thread = write_loop.spawn("outbox").unwrap();
        (3..100).for_each(|n| _ = log.append_group(&group(n, 1, 800), NOW).unwrap());
        let synced = log.sync().unwrap();
        assert_eq!(synced, log.appended());
        drop(log);
        thread.join().unwrap().unwrap();
        assert_eq!(recovered(&disk).len(), 98);
    }

    #[test]
    fn numbers_are_never_used_again() {
        let disk = SimDisk::new(1);
        let (log, mut write_loop, _) = open(&disk, GroupSettings { highest_known: 7, ..settings() });
        assert_eq!(log.append_group(&group(1, 1, 10), NOW).unwrap().at.segment, 8);
        log.seal();
        write_loop.step();
        assert!(log.delete(9).is_err());
        log.delete(8).unwrap();
        assert!(log.sealed().is_empty());
        let (log, _, _) = open(&disk, GroupSettings { highest_known: log.highest(), ..settings() });
        assert_eq!(log.append_group(&group(1, 1, 10), NOW).unwrap().at.segment, 9);
    }

    proptest! {
        #[test]
        fn after_any_loss_of_power_readers_see_whole_groups_in_order_and_all_that_was_synced(
            seed: u64,
            steps in prop::collection::vec((1..4usize, 0..700usize, 0..5u8), 1..25),
        ) {
            let disk = SimDisk::new(seed);
            let (log, mut write_loop, _) = open(&disk, GroupSettings { roll_bytes: 3000, ..settings() });
            let mut synced = 0;
            for (n, (len, body, what)) in steps.iter().enumerate() {
                log.append_group(&group(n as u64, *len, *body), NOW).unwrap();
                match what {
                    0 => _ = log.seal(),
                    1 => {
                        log.writer().request_sync();
                        write_loop.step();
                        synced = n + 1;
                    }
                    _ => _ = write_loop.step(),
                }
            }
            disk.crash();
            let (log, _, _) = open(&disk, settings());
            let found = groups(&mut log.reader(Position::default()));
            prop_assert!(found.len() >= synced, "{found:?}, {synced} synced");
            prop_assert!(found.is_sorted_by(|one, other| one.0 < other.0));
            for (n, len) in &found {
                prop_assert_eq!(*len, steps[*n as usize].0);
            }
        }
    }
}
