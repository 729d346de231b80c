//! A log of groups: records that are read together or not at all.
//!
//! A group never crosses segments. A segment is sealed at its age, at its size, at the full hour, on
//! request, and by a restart; sealed, it never changes. Readers see whole groups, never beyond what is
//! written; of a group that was cut off or damaged they see nothing.

use super::reader::{ReadItem, ReadRecord, SegmentReader};
use super::record::{Head, RECORD_MAX, Record, RecordTooLarge};
use super::segment::{self, SEGMENT_HEADER, SegmentHeader, SegmentInfo, Unreadable};
use super::storage::{Open, Storage};
use super::writer::{Fatal, Item, Settings, SyncMode, WriteFailed, WriteLoop, Writer};
use crate::trace::Position;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::watch;
use uuid::Uuid;

const HOUR_MS: u64 = 3_600_000;
/// A group's bytes at most: offsets have 32 bits.
const GROUP_MAX: u64 = 2 << 30;

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
        let cut_bytes = cut_tail(&storage, &settings.dir)?;
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
        live.end + more > self.settings.roll_bytes
            || now_ms.saturating_sub(opened_ms) >= self.settings.roll_age_ms
            || now_ms / HOUR_MS > opened_ms / HOUR_MS
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
        let Some(LiveSegment { header, end }) = self.live.take() else { return };
        let SegmentHeader { number, uuid, opened_ms, attributes } = header;
        let path = segment::path(dir, number);
        self.sealed.insert(number, SegmentInfo { number, uuid, opened_ms, attributes, len: end, path });
    }
}

impl LiveSegment {
    fn position(&self) -> Position {
        Position::new(self.header.number, self.end as u32)
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

/// The records of one group, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub at: Position,
    /// Where the next group begins: a cursor past this one.
    pub end: Position,
    pub records: Vec<ReadRecord>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupItem {
    Group(Group),
    /// Bytes that are no whole group; `end` is a cursor past them.
    Lost {
        from: Position,
        end: Position,
        bytes: u64,
    },
}

#[derive(Debug)]
struct Current {
    segment: SegmentReader,
    /// It will not grow, and the reader's limit is its end.
    complete: bool,
}

/// Yields whole groups in order.
#[derive(Debug)]
pub struct GroupReader {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    at: Position,
    frontier: watch::Receiver<Position>,
    current: Option<Current>,
    ready: VecDeque<GroupItem>,
}

impl GroupReader {
    fn new(
        storage: Arc<dyn Storage>,
        dir: &Path,
        from: Position,
        frontier: watch::Receiver<Position>,
    ) -> Self {
        Self { storage, dir: dir.to_owned(), at: from, frontier, current: None, ready: VecDeque::new() }
    }

    /// Reads all groups of one sealed segment and nothing else.
    pub fn segment(storage: Arc<dyn Storage>, segment: &SegmentInfo) -> Self {
        let dir = segment.path.parent().unwrap_or(Path::new("")).to_owned();
        let end = watch::Sender::new(Position::new(segment.number + 1, 0)).subscribe();
        Self::new(storage, &dir, Position::new(segment.number, 0), end)
    }

    /// Reads every group in `dir` from `from` on, when nobody writes there.
    pub fn recover(storage: Arc<dyn Storage>, dir: &Path, from: Position) -> Self {
        Self::new(storage, dir, from, watch::Sender::new(Position::MAX).subscribe())
    }

    /// A cursor past everything yielded.
    pub fn position(&self) -> Position {
        self.at
    }

    /// The next group before the frontier; `None`: there is none yet.
    #[allow(clippy::should_implement_trait, reason = "`None` is not the end")]
    pub fn next(&mut self) -> io::Result<Option<GroupItem>> {
        let frontier = *self.frontier.borrow_and_update();
        loop {
            if let Some(item) = self.ready.pop_front() {
                self.at = item.end();
                return Ok(Some(item));
            }
            if self.current.is_none() && !self.open_next(frontier)? {
                return Ok(None);
            }
            let Some(current) = &mut self.current else { continue };
            current.follow(frontier)?;
            let Current { segment, complete } = current;
            let complete = *complete;
            match gather(segment, complete, &mut self.ready)? {
                Gathered::Items => {}
                Gathered::End if complete => {
                    self.at = Position::new(segment.position().segment + 1, 0);
                    self.current = None;
                }
                Gathered::End => return Ok(None),
            }
        }
    }

    /// Waits until the frontier moves; `false` when it never will.
    pub async fn changed(&mut self) -> bool {
        self.frontier.changed().await.is_ok()
    }

    /// Opens the segment at the cursor or the next that exists.
    fn open_next(&mut self, frontier: Position) -> io::Result<bool> {
        let next = segment::numbers(&*self.storage, &self.dir)?
            .into_iter()
            .map(|(number, _)| number)
            .find(|number| *number >= self.at.segment);
        let Some(number) = next.filter(|number| Position::new(*number, SEGMENT_HEADER as u32 - 1) < frontier)
        else {
            return Ok(false);
        };
        let (mut segment, _) = SegmentReader::open(&*self.storage, &self.dir, number)?;
        if number == self.at.segment {
            segment.skip_to(self.at.offset);
        }
        self.current = Some(Current { segment, complete: false });
        Ok(true)
    }
}

impl Current {
    fn follow(&mut self, frontier: Position) -> io::Result<()> {
        if self.complete {
            return Ok(());
        }
        self.complete = self.segment.position().segment < frontier.segment;
        match self.complete {
            true => self.segment.limit_to_file(),
            false => Ok(self.segment.limit_to(u64::from(frontier.offset))),
        }
    }
}

impl GroupItem {
    /// A cursor past it.
    pub fn end(&self) -> Position {
        match self {
            Self::Group(group) => group.end,
            Self::Lost { end, .. } => *end,
        }
    }
}

enum Gathered {
    Items,
    End,
}

/// Reads up to the end of the next group into `ready`. In a segment that still grows, a group without its end is left for later.
fn gather(
    segment: &mut SegmentReader,
    complete: bool,
    ready: &mut VecDeque<GroupItem>,
) -> io::Result<Gathered> {
    let start = segment.position();
    let mut lost_from = None;
    let mut records: Vec<ReadRecord> = Vec::new();
    while let Some(item) = segment.next()? {
        let ReadItem::Record(record) = item else {
            lost_from.get_or_insert(records.first().map_or(start, |first| first.at));
            records.clear();
            continue;
        };
        if record.member as usize != records.len() {
            // Its group's beginning is lost, or it begins a group after one that lost its end.
            lost_from.get_or_insert(records.first().map_or(record.at, |first| first.at));
            records.clear();
            if record.member != 0 {
                continue;
            }
        }
        let more = record.more;
        records.push(record);
        if !more {
            push_group(records, lost_from, ready);
            return Ok(Gathered::Items);
        }
    }
    let end = segment.position();
    if end == start {
        return Ok(Gathered::End);
    }
    if !complete {
        segment.seek(start.offset);
        return Ok(Gathered::End);
    }
    ready.push_back(lost(start, end));
    Ok(Gathered::Items)
}

fn push_group(records: Vec<ReadRecord>, lost_from: Option<Position>, ready: &mut VecDeque<GroupItem>) {
    let (Some(first), Some(last)) = (records.first(), records.last()) else { return };
    let (at, end) = (first.at, last.end);
    if let Some(from) = lost_from {
        ready.push_back(lost(from, at));
    }
    ready.push_back(GroupItem::Group(Group { at, end, records }));
}

fn lost(from: Position, end: Position) -> GroupItem {
    GroupItem::Lost { from, end, bytes: u64::from(end.offset.saturating_sub(from.offset)) }
}

/// Cuts what is not a whole group off the end of the last segment, so that nothing half written is ever read;
/// a segment without any group goes. Returns the bytes lost.
fn cut_tail(storage: &Arc<dyn Storage>, dir: &Path) -> io::Result<u64> {
    let Some((number, len)) = segment::numbers(&**storage, dir)?.pop() else { return Ok(0) };
    let path = segment::path(dir, number);
    let mut reader = GroupReader::recover(storage.clone(), dir, Position::new(number, 0));
    let mut whole_to = None;
    while let Some(item) = reader.next()? {
        if let GroupItem::Group(group) = item {
            whole_to = Some(u64::from(group.end.offset));
        }
    }
    let Some(whole_to) = whole_to else {
        storage.remove(&path)?;
        storage.sync_dir(dir)?;
        return Ok(len.saturating_sub(SEGMENT_HEADER as u64));
    };
    if whole_to < len {
        let file = storage.open(&path, Open::Write)?;
        file.truncate(whole_to)?;
        file.sync()?;
    }
    Ok(len - whole_to)
}

const _: () = assert!(RECORD_MAX as u64 <= GROUP_MAX);
