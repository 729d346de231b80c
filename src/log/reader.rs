//! Reads segment files in order: every record that can be proven whole, and an account of all other bytes.
//!
//! What is not a record is stepped over to the next one that is, found by its magic and proven by its
//! checksum. Memory is bounded whatever the lengths in the file say.

use super::record::{self, Damage, MAGIC, Parsed, RECORD_HEADER};
use super::segment::{self, HeaderFault, SEGMENT_HEADER, SegmentHeader};
use super::storage::{File, Open, Storage};
use crate::trace::Position;
use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes that one read asks for at least.
const CHUNK: usize = 256 << 10;

/// Bytes that may be checksummed to find the next record. Senders choose what bodies hold, so a damaged one
/// can be full of what looks like records; beyond this the rest of the segment is given up.
const SEARCH_MAX: usize = 1 << 30;

/// What stands at the next place in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadItem {
    Record(ReadRecord),
    /// No records, where there must have been some.
    Damaged {
        from: Position,
        bytes: u64,
    },
    /// The beginning of a record at the end of the segment: a write that was cut off.
    TornTail {
        from: Position,
        bytes: u64,
    },
    /// The segment's header says nothing; its records follow where they can be found. One that belongs to another
    /// segment says enough: so many bytes are not read, as their positions would be those of others.
    BadHeader {
        segment: u32,
        fault: HeaderFault,
        bytes: u64,
    },
}

/// A record as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRecord {
    pub at: Position,
    /// Where the next one begins.
    pub end: Position,
    pub arrival_ms: u64,
    pub tenant: String,
    pub kind: u8,
    /// More records of its group follow.
    pub more: bool,
    /// Its place in its group.
    pub member: u32,
    pub body: Bytes,
    /// All of it, header included.
    pub bytes: Bytes,
}

/// All segments of a folder from a position on, for a log that nobody writes.
#[derive(Debug)]
pub struct Reader {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    from: Position,
    ahead: VecDeque<u32>,
    current: Option<SegmentReader>,
}

impl Reader {
    /// Begins at the record at `from`, or at the first behind it.
    pub fn open(storage: Arc<dyn Storage>, dir: &Path, from: Position) -> io::Result<Self> {
        let ahead = segment::numbers(&*storage, dir)?
            .into_iter()
            .map(|(number, _)| number)
            .filter(|number| *number >= from.segment)
            .collect();
        Ok(Self { storage, dir: dir.to_owned(), from, ahead, current: None })
    }

    /// Reads the segment of this number in `dir` and nothing else.
    pub fn numbered(storage: Arc<dyn Storage>, dir: &Path, number: u32) -> Self {
        let (from, ahead) = (Position::default(), [number].into());
        Self { storage, dir: dir.to_owned(), from, ahead, current: None }
    }

    /// The next item; `None` at the end of the log.
    ///
    /// Errors: the disk, or a segment of a newer format ([`io::ErrorKind::Unsupported`]).
    #[allow(
        clippy::should_implement_trait,
        reason = "an iterator of results invites to go on after an error"
    )]
    pub fn next(&mut self) -> io::Result<Option<ReadItem>> {
        loop {
            if let Some(segment) = &mut self.current {
                if let Some(item) = segment.next()? {
                    return Ok(Some(item));
                }
                self.current = None;
            }
            let Some(number) = self.ahead.front().copied() else { return Ok(None) };
            let (segment, fault) = SegmentReader::open(&*self.storage, &self.dir, number)?;
            self.ahead.pop_front();
            let segment = self.current.insert(segment);
            if number == self.from.segment {
                segment.skip_to(self.from.offset);
            }
            if let Some(fault) = fault {
                let bytes = segment.give_up_if_foreign(&fault);
                return Ok(Some(ReadItem::BadHeader { segment: number, fault, bytes }));
            }
        }
    }
}

/// One segment file, up to a limit that may be moved while it is written.
#[derive(Debug)]
pub(super) struct SegmentReader {
    file: Arc<dyn File>,
    number: u32,
    /// Where the next item begins; the buffer's first byte.
    at: u64,
    limit: u64,
    buffer: BytesMut,
}

impl SegmentReader {
    /// Stands at the first record. With a fault in the header, at the first byte, so that all is accounted for.
    pub(super) fn open(
        storage: &dyn Storage,
        dir: &Path,
        number: u32,
    ) -> io::Result<(Self, Option<HeaderFault>)> {
        let path = segment::path(dir, number);
        let file = storage.open(&path, Open::Read)?;
        let (at, fault) = match SegmentHeader::read(&*file, number)? {
            Ok(header) => (header.encoded_len() as u64, None),
            Err(fault @ HeaderFault::NewerVersion(_)) => {
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    format!("{}: {fault}", path.display()),
                ));
            }
            Err(fault) => (0, Some(fault)),
        };
        let limit = file.len()?;
        Ok((Self { file, number, at, limit, buffer: BytesMut::new() }, fault))
    }

    /// Passes over the records of another segment; returns their bytes.
    pub(super) fn give_up_if_foreign(&mut self, fault: &HeaderFault) -> u64 {
        if !matches!(fault, HeaderFault::WrongNumber(_)) {
            return 0;
        }
        std::mem::replace(&mut self.at, self.limit).abs_diff(self.limit)
    }

    pub(super) fn position(&self) -> Position {
        Position::new(self.number, self.at as u32)
    }

    /// Up to where the file is written: a segment that still grows.
    pub(super) fn limit_to(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// All of the file: a segment that is complete.
    pub(super) fn limit_to_file(&mut self) -> io::Result<()> {
        self.limit = self.file.len()?;
        Ok(())
    }

    /// Moves forward to `offset`, where a record begins; never into the header.
    pub(super) fn skip_to(&mut self, offset: u32) {
        if u64::from(offset) > self.at {
            self.seek(offset);
        }
    }

    /// Goes back to where a record begins.
    pub(super) fn seek(&mut self, offset: u32) {
        self.at = u64::from(offset);
        self.buffer.clear();
    }

    /// The next item before the limit.
    pub(super) fn next(&mut self) -> io::Result<Option<ReadItem>> {
        if self.at >= self.limit {
            return Ok(None);
        }
        match self.whole_record()? {
            Some(len) => self.take(len).map(Some),
            None => self.step_over().map(Some),
        }
    }

    /// The length of the record that begins here, if one does and is all there.
    fn whole_record(&mut self) -> io::Result<Option<usize>> {
        self.fill(RECORD_HEADER)?;
        let Ok(len) = record::claimed_len(&self.buffer) else { return Ok(None) };
        if len as u64 > self.limit - self.at {
            return Ok(None);
        }
        self.fill(len)?;
        Ok(record::parse_checked(&self.buffer).ok().map(|parsed| parsed.len))
    }

    fn take(&mut self, len: usize) -> io::Result<ReadItem> {
        let at = self.position();
        let bytes = self.buffer.split_to(len).freeze();
        self.at += len as u64;
        let parsed = record::parse(&bytes).map_err(|damage: Damage| io::Error::other(damage))?;
        let Parsed { arrival_ms, tenant, kind, more, member, .. } = parsed;
        let body = bytes.slice(parsed.body());
        let tenant = tenant.to_owned();
        Ok(ReadItem::Record(ReadRecord {
            at,
            end: self.position(),
            arrival_ms,
            tenant,
            kind,
            more,
            member,
            body,
            bytes,
        }))
    }

    /// Finds the next record behind this place and says what lies between.
    fn step_over(&mut self) -> io::Result<ReadItem> {
        let from = self.position();
        let begin = self.at;
        let cut_off = self.is_cut_off()?;
        let mut searched = 0;
        self.advance(1);
        while self.limit - self.at >= RECORD_HEADER as u64 && searched < SEARCH_MAX {
            self.fill(RECORD_HEADER)?;
            match find_magic(&self.buffer) {
                Some(0) if self.whole_record()?.is_some() => {
                    return Ok(ReadItem::Damaged { from, bytes: self.at - begin });
                }
                Some(0) => {
                    searched += record::claimed_len(&self.buffer).unwrap_or(0);
                    self.advance(1);
                }
                Some(ahead) => self.advance(ahead),
                None if self.buffer.is_empty() => break, // the file is shorter than the limit
                None => self.advance((self.buffer.len() + 1).saturating_sub(MAGIC.len()).max(1)),
            }
        }
        self.at = self.limit;
        self.buffer.clear();
        let bytes = self.limit - begin;
        Ok(if cut_off { ReadItem::TornTail { from, bytes } } else { ReadItem::Damaged { from, bytes } })
    }

    /// Whether what is left may be the beginning of a record, or of the segment.
    fn is_cut_off(&mut self) -> io::Result<bool> {
        if self.at == 0 && self.limit < SEGMENT_HEADER as u64 {
            return Ok(true);
        }
        self.fill(RECORD_HEADER)?;
        let left = self.limit - self.at;
        let begins = self.buffer.iter().zip(MAGIC.iter()).all(|(byte, magic)| byte == magic);
        let short = left < RECORD_HEADER as u64;
        Ok(begins && (short || record::claimed_len(&self.buffer).is_ok_and(|len| len as u64 > left)))
    }

    fn advance(&mut self, bytes: usize) {
        let bytes = bytes.min((self.limit - self.at) as usize);
        self.buffer.advance(bytes.min(self.buffer.len()));
        self.at += bytes as u64;
    }

    /// Has at least `wanted` bytes in the buffer, or all up to the limit.
    fn fill(&mut self, wanted: usize) -> io::Result<()> {
        let have = self.buffer.len();
        if have >= wanted {
            return Ok(());
        }
        let room = (self.limit - self.at) as usize - have.min((self.limit - self.at) as usize);
        let more = (wanted - have).max(CHUNK).min(room);
        self.buffer.resize(have + more, 0);
        let read = self.file.read_at(self.at + have as u64, &mut self.buffer[have..]);
        self.buffer.truncate(have + read.as_ref().copied().unwrap_or(0));
        read.map(drop)
    }
}

fn find_magic(bytes: &[u8]) -> Option<usize> {
    bytes.windows(MAGIC.len()).position(|window| window == MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::record::{Head, Record};
    use crate::log::sim::SimDisk;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn header(number: u32) -> Vec<u8> {
        SegmentHeader { number, uuid: Uuid::from_u128(1), opened_ms: 5, attributes: Bytes::new() }.encode()
    }

    fn record(n: u64, body: &[u8]) -> Vec<u8> {
        let record = Record { arrival_ms: n, tenant: "t", kind: 0, more: false, member: 0, body };
        [Head::new(&record).unwrap().as_bytes(), body].concat()
    }

    /// A segment of these records, and where each begins and the last ends.
    fn segment(bodies: &[Vec<u8>]) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = header(1);
        let mut starts = vec![bytes.len()];
        for (n, body) in bodies.iter().enumerate() {
            bytes.extend(record(n as u64, body));
            starts.push(bytes.len());
        }
        (bytes, starts)
    }

    #[test]
    fn a_segment_of_which_the_header_was_cut_off_is_torn() {
        let items = read(&[header(1)[..17].to_vec()]);
        let (from, fault) = (Position::new(1, 0), HeaderFault::Short);
        let header = ReadItem::BadHeader { segment: 1, fault, bytes: 0 };
        assert_eq!(items, [header, ReadItem::TornTail { from, bytes: 17 }]);
    }

    #[test]
    fn a_read_that_fails_is_no_damage() {
        let disk = SimDisk::new(1);
        let (bytes, starts) = segment(&[vec![1; 100], vec![2; CHUNK], vec![3; 100]]);
        disk.put(&segment::path(Path::new("d"), 1), bytes);
        for good in 0..4 {
            let mut reader = Reader::open(disk.storage(), Path::new("d"), Position::default()).unwrap();
            disk.fail_read(good);
            let (mut failed, mut ends) = (0, Vec::new());
            loop {
                match reader.next() {
                    Ok(Some(ReadItem::Record(record))) => ends.push(record.end.offset as usize),
                    Ok(None) => break,
                    Err(_) => failed += 1,
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!((failed, ends), (1, starts[1..].to_vec()), "after {good} reads");
        }
    }

    fn read(segments: &[Vec<u8>]) -> Vec<ReadItem> {
        let disk = SimDisk::new(1);
        for (index, bytes) in segments.iter().enumerate() {
            disk.put(&segment::path(Path::new("d"), index as u32 + 1), bytes.clone());
        }
        let mut reader = Reader::open(disk.storage(), Path::new("d"), Position::default()).unwrap();
        std::iter::from_fn(|| reader.next().unwrap()).collect()
    }

    fn arrivals(items: &[ReadItem]) -> Vec<u64> {
        let records = items.iter().filter_map(|item| match item {
            ReadItem::Record(record) => Some(record.arrival_ms),
            _ => None,
        });
        records.collect()
    }

    fn lost(items: &[ReadItem]) -> u64 {
        let bytes = items.iter().map(|item| match item {
            ReadItem::Damaged { bytes, .. } | ReadItem::TornTail { bytes, .. } => *bytes,
            _ => 0,
        });
        bytes.sum()
    }

    fn bodies() -> Vec<Vec<u8>> {
        (0..5).map(|n| vec![n; 7 + usize::from(n) * 3]).collect()
    }

    proptest! {
        #[test]
        fn what_was_appended_is_read_in_order(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
        ) {
            let items = read(&[segment(&bodies).0]);
            prop_assert_eq!(items.len(), bodies.len());
            for (item, body) in items.iter().zip(&bodies) {
                let ReadItem::Record(record) = item else { panic!("{item:?}") };
                prop_assert_eq!(&record.body[..], &body[..]);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_are_all_accounted_for(
            bytes in prop::collection::vec(any::<u8>(), 0..400),
            magics in prop::collection::vec(0..400usize, 0..8),
        ) {
            let mut bytes = bytes;
            for at in magics {
                if at + 4 <= bytes.len() {
                    bytes[at..at + 4].copy_from_slice(&MAGIC);
                }
            }
            let segment = [header(1), bytes.clone()].concat();
            prop_assert_eq!(lost(&read(&[segment])), bytes.len() as u64);
        }
    }

    #[test]
    fn a_tail_torn_at_any_byte_loses_only_the_torn_record() {
        let (bytes, starts) = segment(&bodies());
        for cut in starts[0]..bytes.len() {
            let items = read(&[bytes[..cut].to_vec()]);
            let whole = starts.iter().filter(|start| **start <= cut).count() - 1;
            assert_eq!(arrivals(&items), (0..whole as u64).collect::<Vec<_>>(), "cut at {cut}");
            assert_eq!(lost(&items), (cut - starts[whole]) as u64, "cut at {cut}");
        }
    }

    #[test]
    fn a_cut_is_told_from_damage_at_the_end() {
        let (bytes, starts) = segment(&bodies());
        let cut = read(&[bytes[..bytes.len() - 3].to_vec()]);
        assert!(matches!(cut.last(), Some(ReadItem::TornTail { .. })), "{cut:?}");
        let mut damaged = bytes;
        damaged[starts[4] + 20] ^= 1;
        let damaged = read(&[damaged]);
        assert!(matches!(damaged.last(), Some(ReadItem::Damaged { .. })), "{damaged:?}");
    }

    #[test]
    fn a_segment_under_anothers_name_is_not_read_in_its_place() {
        let items = read(&[header(9), header(2)].map(|header| [header, record(7, b"x")].concat()));
        let expected = (HeaderFault::WrongNumber(9), 48 + record(7, b"x").len() as u64);
        assert!(
            matches!(&items[0], ReadItem::BadHeader { fault, bytes, .. } if (fault.clone(), *bytes) == expected)
        );
        assert_eq!(arrivals(&items), [7]);
    }

    #[test]
    fn one_flipped_bit_loses_its_record_and_no_other() {
        let (bytes, starts) = segment(&bodies());
        for bit in starts[0] * 8..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let items = read(&[flipped]);
            let hit = starts.iter().filter(|start| **start <= bit / 8).count() - 1;
            let others: Vec<u64> = (0..5).filter(|n| *n != hit as u64).collect();
            assert_eq!(arrivals(&items), others, "bit {bit}");
            assert_eq!(lost(&items), (starts[hit + 1] - starts[hit]) as u64, "bit {bit}");
        }
    }

    #[test]
    fn a_garbled_header_is_reported_and_the_records_behind_it_are_read() {
        for at in 0..48 {
            let (mut bytes, _) = segment(&bodies());
            bytes[at] ^= 0x10;
            let items = read(&[bytes]);
            assert!(matches!(items[0], ReadItem::BadHeader { segment: 1, .. }), "{:?}", items[0]);
            assert_eq!(arrivals(&items), [0, 1, 2, 3, 4]);
            assert_eq!(lost(&items), 48);
        }
    }

    #[test]
    fn reading_goes_on_from_a_position_and_across_segments() {
        let (first, starts) = segment(&bodies());
        let mut second = header(4);
        second.extend(record(77, b"later"));
        let disk = SimDisk::new(1);
        disk.put(&segment::path(Path::new("d"), 1), first);
        disk.put(&segment::path(Path::new("d"), 4), second);
        let from = Position::new(1, starts[3] as u32);
        let mut reader = Reader::open(disk.storage(), Path::new("d"), from).unwrap();
        let items: Vec<ReadItem> = std::iter::from_fn(|| reader.next().unwrap()).collect();
        assert_eq!(arrivals(&items), [3, 4, 77]);
    }

    #[test]
    fn records_larger_than_a_chunk_and_damage_longer_than_one_are_read_over() {
        let bodies = [vec![1; 3 * CHUNK], vec![0xF7; 2 * CHUNK + 5], vec![3; CHUNK - 1], vec![]];
        let (mut bytes, starts) = segment(&bodies);
        assert_eq!(arrivals(&read(&[bytes.clone()])), [0, 1, 2, 3]);
        bytes[starts[1] + 9] ^= 1;
        let items = read(&[bytes]);
        assert_eq!(arrivals(&items), [0, 2, 3]);
        assert_eq!(lost(&items), (starts[2] - starts[1]) as u64);
    }

    #[test]
    fn a_record_inside_a_body_is_not_a_record() {
        let inner = record(99, b"inner");
        let (bytes, _) = segment(&[inner, b"x".to_vec()]);
        assert_eq!(arrivals(&read(&[bytes])), [0, 1]);
    }
}
