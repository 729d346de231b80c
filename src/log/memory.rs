//! The log in memory: a queue of segments that holds the bytes of every record until its segment retires.
//!
//! A segment's memory is allocated once and filled by copying; offsets are those of the file. A record,
//! once appended, never moves, so readers hold no lock while they read, and a retired segment's bytes
//! live as long as someone still reads them.

use super::record::{self, Damage, Parsed};
use super::segment::SEGMENT_HEADER;
use crate::trace::Position;
use bytes::{Bytes, BytesMut};
use parking_lot::{Mutex, RwLock};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// The size that segments have unless a test says otherwise.
pub const SEGMENT_BYTES: usize = 4 << 20;

/// Retired segments whose memory is kept: what a fast sender fills between two looks at what may retire.
const SPARES_MAX: usize = 8;

/// What one record costs beside its bytes: its place in the segment's list.
const RECORD_COST: usize = size_of::<StoredRecord>();

/// The live segments. Appenders are serialised by the caller; anyone reads.
#[derive(Debug)]
pub struct Memory {
    segment_bytes: usize,
    first_segment: u32,
    /// Room that is left in the newest segment. Held by the appender only.
    room: Mutex<BytesMut>,
    live: RwLock<Live>,
    bytes: AtomicUsize,
    /// Memory of retired segments: a steady log asks the system for none.
    spare: Mutex<Vec<BytesMut>>,
}

#[derive(Debug)]
struct Live {
    segments: VecDeque<Arc<Segment>>,
    next_number: u32,
}

/// What `append` did.
#[derive(Clone, Debug)]
pub struct AppendedRecord {
    pub record: StoredRecord,
    /// It is the first of its segment.
    pub opened: bool,
}

/// A run of records. The newest still grows.
#[derive(Debug)]
pub struct Segment {
    pub number: u32,
    /// Of an earlier life: nothing is appended to it.
    restored: bool,
    records: RwLock<Vec<StoredRecord>>,
    /// What was left of its memory: the handle by which all of it is had back.
    rest: Mutex<BytesMut>,
    used: AtomicUsize,
    charged: AtomicUsize,
    first_arrival_ms: AtomicU64,
    last_arrival_ms: AtomicU64,
}

/// A record in memory: header, tenant and body in one piece.
#[derive(Clone, Debug)]
pub struct StoredRecord {
    pub at: Position,
    pub bytes: Bytes,
    /// What the appender wants to know of it later.
    pub notes: Arc<[u32]>,
}

impl Memory {
    /// Numbering begins at `first_segment`.
    pub fn new(segment_bytes: usize, first_segment: u32) -> Self {
        let live = Live { segments: VecDeque::new(), next_number: first_segment };
        Self {
            segment_bytes,
            first_segment,
            room: Mutex::new(BytesMut::new()),
            live: RwLock::new(live),
            bytes: AtomicUsize::new(0),
            spare: Mutex::default(),
        }
    }

    /// The number that this log began with.
    pub fn first_segment(&self) -> u32 {
        self.first_segment
    }

    /// Copies a record in behind all others. The caller's order lock is held: positions follow the order of calls.
    pub fn append(&self, head: &[u8], body: &[u8], arrival_ms: u64) -> AppendedRecord {
        self.append_noted(head, body, Arc::default(), arrival_ms)
    }

    /// As [`Self::append`], with notes beside the record.
    pub fn append_noted(
        &self,
        head: &[u8],
        body: &[u8],
        notes: Arc<[u32]>,
        arrival_ms: u64,
    ) -> AppendedRecord {
        let len = head.len() + body.len();
        let mut room = self.room.lock();
        let newest = self.newest().filter(|segment| segment.fits(len, self.segment_bytes));
        let opened = newest.is_none();
        let segment = newest.unwrap_or_else(|| self.open(len, arrival_ms, &mut room));
        room.extend_from_slice(head);
        room.extend_from_slice(body);
        let bytes = room.split().freeze();
        let noted = size_of_val(&*notes);
        segment.charged.fetch_add(noted, Relaxed);
        self.bytes.fetch_add(len + RECORD_COST + noted, Relaxed);
        AppendedRecord { record: segment.push(bytes, notes, arrival_ms), opened }
    }

    fn open(&self, record_len: usize, arrival_ms: u64, room: &mut BytesMut) -> Arc<Segment> {
        let spare = if record_len <= self.segment_bytes { self.spare.lock().pop() } else { None };
        let fresh = || BytesMut::with_capacity(record_len.max(self.segment_bytes));
        let full = std::mem::replace(room, spare.unwrap_or_else(fresh));
        let mut live = self.live.write();
        if let Some(newest) = live.segments.back() {
            *newest.rest.lock() = full;
        }
        let segment = Arc::new(Segment::new(live.next_number, arrival_ms));
        live.next_number += 1;
        live.segments.push_back(segment.clone());
        segment
    }

    /// Puts a record of an earlier life back at its old place. Positions never go back; those of new
    /// segments lie above them.
    pub fn restore(&self, at: Position, bytes: Bytes, arrival_ms: u64) -> StoredRecord {
        let newest = self.newest().filter(|segment| segment.number == at.segment);
        let segment = newest.unwrap_or_else(|| {
            let segment = Arc::new(Segment { restored: true, ..Segment::new(at.segment, arrival_ms) });
            self.live.write().segments.push_back(segment.clone());
            segment
        });
        self.bytes.fetch_add(bytes.len() + RECORD_COST, Relaxed);
        segment.push_at(StoredRecord { at, bytes, notes: Arc::default() }, arrival_ms)
    }

    /// Counts what the index spends on a segment's records; it makes the segment full as its bytes do.
    pub fn charge(&self, segment: u32, bytes: usize) {
        let live = self.live.read(); // held, so that a segment does not retire between the two sums
        if let Some(segment) = live.get(segment) {
            segment.charged.fetch_add(bytes, Relaxed);
            self.bytes.fetch_add(bytes, Relaxed);
        }
    }

    pub fn segment(&self, number: u32) -> Option<Arc<Segment>> {
        self.live.read().get(number).cloned()
    }

    pub fn oldest(&self) -> Option<Arc<Segment>> {
        self.live.read().segments.front().cloned()
    }

    pub fn newest(&self) -> Option<Arc<Segment>> {
        self.live.read().segments.back().cloned()
    }

    /// Takes the oldest segment out, unless it is the one that is appended to.
    pub fn retire_oldest(&self) -> Option<Arc<Segment>> {
        let mut live = self.live.write();
        if live.segments.len() < 2 {
            return None;
        }
        let retired = live.segments.pop_front()?;
        self.bytes.fetch_sub(retired.cost(), Relaxed);
        Some(retired)
    }

    /// Keeps the memory of a retired segment for the next one, if nobody reads it any more.
    pub fn recycle(&self, retired: Arc<Segment>) {
        let Some(Segment { records, rest, .. }) = Arc::into_inner(retired) else { return };
        drop(records);
        let mut memory = rest.into_inner();
        let mut spare = self.spare.lock();
        if spare.len() < SPARES_MAX && memory.try_reclaim(self.segment_bytes) {
            spare.push(memory);
        }
    }

    /// Retired segments whose memory waits for the next one.
    #[cfg(test)]
    pub(crate) fn spares(&self) -> usize {
        self.spare.lock().len()
    }

    /// Gives memory kept for later back to the system: the log grows no more.
    pub fn shrink(&self) {
        self.spare.lock().clear();
    }

    /// Bytes of all live records, and what was charged for them.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// Bytes of all live records alone.
    pub fn wire_bytes(&self) -> usize {
        self.live.read().segments.iter().map(|segment| segment.used()).sum()
    }

    /// Live segments.
    pub fn len(&self) -> usize {
        self.live.read().segments.len()
    }

    pub fn is_empty(&self) -> bool {
        self.live.read().segments.is_empty()
    }

    /// The first number that is still reachable; the next one to be opened if nothing is.
    pub fn low(&self) -> u32 {
        let live = self.live.read();
        live.segments.front().map_or(live.next_number, |segment| segment.number)
    }

    /// Live segments and where the last of their records before `end` ends.
    pub fn extents(&self, end: Position) -> Vec<Position> {
        let live = self.live.read();
        let ends = live.segments.iter().filter_map(|segment| segment.end_before(end));
        ends.collect()
    }

    /// The record that holds the byte at `at`; `None` once it has retired.
    pub fn record_of(&self, at: Position) -> Option<StoredRecord> {
        self.segment(at.segment)?.record_of(at.offset)
    }
}

impl Live {
    /// Numbers rise, but some may be missing: a life that accepted nothing has used one.
    fn get(&self, number: u32) -> Option<&Arc<Segment>> {
        let low = self.segments.front()?.number;
        let expected = self.segments.get(number.checked_sub(low)? as usize);
        expected.filter(|segment| segment.number == number).or_else(|| {
            let at = self.segments.binary_search_by_key(&number, |segment| segment.number).ok()?;
            self.segments.get(at)
        })
    }
}

impl Segment {
    fn new(number: u32, opened_ms: u64) -> Self {
        Self {
            number,
            restored: false,
            records: RwLock::default(),
            rest: Mutex::default(),
            used: AtomicUsize::new(0),
            charged: AtomicUsize::new(0),
            first_arrival_ms: AtomicU64::new(opened_ms),
            last_arrival_ms: AtomicU64::new(opened_ms),
        }
    }

    fn fits(&self, len: usize, segment_bytes: usize) -> bool {
        !self.restored && self.cost() + len + RECORD_COST <= segment_bytes
    }

    fn push(&self, bytes: Bytes, notes: Arc<[u32]>, arrival_ms: u64) -> StoredRecord {
        let offset = SEGMENT_HEADER + self.used.load(Relaxed);
        self.push_at(StoredRecord { at: Position::new(self.number, offset as u32), bytes, notes }, arrival_ms)
    }

    fn push_at(&self, record: StoredRecord, arrival_ms: u64) -> StoredRecord {
        let len = record.bytes.len();
        let mut records = self.records.write();
        records.push(record.clone());
        drop(records);
        self.used.fetch_add(len, Relaxed);
        self.last_arrival_ms.store(arrival_ms, Relaxed);
        record
    }

    /// The record that holds the byte at `offset`.
    pub fn record_of(&self, offset: u32) -> Option<StoredRecord> {
        let records = self.records.read();
        let behind = records.partition_point(|record| record.at.offset <= offset);
        let record = records.get(behind.checked_sub(1)?)?;
        ((offset - record.at.offset) as usize).lt(&record.bytes.len()).then(|| record.clone())
    }

    /// All records so far, in order.
    pub fn records(&self) -> Vec<StoredRecord> {
        self.records.read().clone()
    }

    /// Bytes of its records.
    pub fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    /// What the index spends on it.
    pub fn charged(&self) -> usize {
        self.charged.load(Relaxed)
    }

    fn cost(&self) -> usize {
        self.used() + self.records.read().len() * RECORD_COST + self.charged()
    }

    /// Arrival of its first record.
    pub fn opened_ms(&self) -> u64 {
        self.first_arrival_ms.load(Relaxed)
    }

    pub fn last_arrival_ms(&self) -> u64 {
        self.last_arrival_ms.load(Relaxed)
    }

    fn end_before(&self, end: Position) -> Option<Position> {
        let records = self.records.read();
        let before = records.partition_point(|record| record.end() <= end);
        records.get(before.checked_sub(1)?).map(StoredRecord::end)
    }

    /// Where the next record would begin.
    pub fn end(&self) -> Position {
        Position::new(self.number, (SEGMENT_HEADER + self.used()) as u32)
    }
}

impl StoredRecord {
    /// Where the record behind it begins.
    pub fn end(&self) -> Position {
        Position::new(self.at.segment, self.at.offset + self.bytes.len() as u32)
    }

    pub fn parse(&self) -> Result<Parsed<'_>, Damage> {
        record::parse(&self.bytes)
    }

    /// The body, sharing the segment's memory.
    pub fn body(&self) -> Bytes {
        match self.parse() {
            Ok(parsed) => self.bytes.slice(parsed.body()),
            Err(_) => Bytes::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::record::{Head, RECORD_HEADER, Record};

    fn append(memory: &Memory, arrival_ms: u64, body: &[u8]) -> AppendedRecord {
        let record = Record { arrival_ms, tenant: "acme", kind: 1, more: false, member: 0, body };
        memory.append(Head::new(&record).unwrap().as_bytes(), body, arrival_ms)
    }

    #[test]
    fn a_retired_segment_gives_its_memory_to_the_next() {
        let memory = Memory::new(10_000, 1);
        let fill = || memory.append(&[1; 28], &[2; 6_000], 0).record;
        let first = fill();
        let place = first.bytes.as_ptr();
        drop(first);
        fill();
        memory.recycle(memory.retire_oldest().unwrap());
        assert_eq!(fill().bytes.as_ptr(), place);
    }

    #[test]
    fn a_segment_that_is_read_keeps_its_memory() {
        let memory = Memory::new(10_000, 1);
        let fill = |byte| memory.append(&[1; 28], &[byte; 6_000], 0).record;
        let first = fill(2);
        fill(3);
        memory.recycle(memory.retire_oldest().unwrap());
        fill(4);
        assert_eq!(first.bytes[28..], [2; 6_000]);
    }

    #[test]
    fn a_record_is_found_by_any_byte_of_it() {
        let memory = Memory::new(4096, 7);
        let first = append(&memory, 1, b"one").record;
        let second = append(&memory, 2, b"second").record;
        assert_eq!(first.at, Position::new(7, SEGMENT_HEADER as u32));
        assert_eq!(first.end(), second.at);
        for offset in second.at.offset..second.end().offset {
            let found = memory.record_of(Position::new(7, offset)).unwrap();
            assert_eq!(found.at, second.at);
            assert_eq!(found.body(), "second");
            assert_eq!(found.parse().unwrap().tenant, "acme");
        }
        assert!(memory.record_of(second.end()).is_none());
        assert!(memory.record_of(Position::new(7, SEGMENT_HEADER as u32 - 1)).is_none());
        assert!(memory.record_of(Position::new(6, 100)).is_none());
    }

    #[test]
    fn records_of_a_segment_share_one_allocation() {
        let memory = Memory::new(1 << 20, 1);
        let records: Vec<StoredRecord> =
            (0..10).map(|n| append(&memory, n, &[n as u8; 100]).record).collect();
        for pair in records.windows(2) {
            assert_eq!(pair[0].bytes.as_ptr_range().end, pair[1].bytes.as_ptr());
        }
    }

    #[test]
    fn a_full_segment_is_followed_by_the_next_and_a_large_record_has_its_own() {
        let memory = Memory::new(1000, 1);
        let opened: Vec<bool> = (0..4).map(|n| append(&memory, n, &[0; 400]).opened).collect();
        assert_eq!(opened, [true, false, true, false]);
        let large = append(&memory, 9, &[0; 5000]);
        assert_eq!((large.opened, large.record.at.segment), (true, 3));
        assert_eq!(append(&memory, 10, b"").record.at, Position::new(4, SEGMENT_HEADER as u32));
        assert_eq!(memory.segment(3).unwrap().last_arrival_ms(), 9);
    }

    #[test]
    fn what_the_index_costs_fills_a_segment() {
        let memory = Memory::new(1000, 1);
        append(&memory, 1, &[0; 100]);
        memory.charge(1, 900);
        assert!(append(&memory, 2, &[0; 100]).opened);
        assert_eq!(memory.segment(1).unwrap().charged(), 900);
    }

    #[test]
    fn a_segment_is_found_behind_numbers_that_were_never_filled() {
        let memory = Memory::new(4096, 9);
        let old = append(&Memory::new(4096, 3), 1, b"old").record;
        memory.restore(old.at, old.bytes, 1);
        let new = append(&memory, 2, b"new").record;
        assert_eq!((old.at.segment, new.at.segment), (3, 9));
        assert_eq!(memory.record_of(new.at).map(|record| record.body()), Some("new".into()));
        assert!(memory.segment(4).is_none() && memory.segment(8).is_none());
        memory.charge(9, 50);
        assert_eq!(memory.segment(9).unwrap().charged(), 50);
    }

    #[test]
    fn bytes_are_given_back_when_a_segment_retires_and_the_newest_never_does() {
        let memory = Memory::new(1000, 1);
        append(&memory, 1, &[0; 800]);
        let kept = append(&memory, 2, &[7; 800]).record;
        memory.charge(1, 50);
        let both = memory.bytes();
        assert_eq!(both, 2 * (RECORD_HEADER + 4 + 800 + RECORD_COST) + 50);
        assert_eq!(memory.low(), 1);
        assert_eq!(memory.retire_oldest().unwrap().number, 1);
        assert_eq!(memory.bytes(), RECORD_HEADER + 4 + 800 + RECORD_COST);
        assert!(memory.retire_oldest().is_none());
        memory.charge(1, 50);
        assert_eq!(memory.bytes(), RECORD_HEADER + 4 + 800 + RECORD_COST);
        assert_eq!((memory.low(), memory.len()), (2, 1));
        assert_eq!(kept.body(), vec![7; 800]);
    }
}
