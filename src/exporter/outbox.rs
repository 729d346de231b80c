//! Everything that was kept, until every exporter has met its fate at its backend.
//!
//! One log of pieces; each exporter reads it with its own cursor, so a slow backend delays only itself. Promises:
//!
//! - The pieces of one judgement are one group: written and read together or not at all.
//! - In spans and for each exporter: kept + pending at start = delivered + pending + lost{cause}.
//! - A segment is deletable once every saved cursor and a saved state are past it.

use std::collections::BTreeMap;
use std::io;
use std::ops::AddAssign as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use uuid::Uuid;

use super::cursor::{Cursor, Cursors};
use super::known::{Extent, Known};
use super::metrics::{Amount, Lost, Metrics};
pub use super::tail::Tail;
use crate::log::segment::{self, SegmentInfo};
use crate::log::writer::Fatal;
use crate::log::{
    AppendError, Appended, GroupItem, GroupLog, GroupReader, GroupRecord, GroupSettings, HeaderFault,
    ReadRecord, SegmentHeader, Storage, WriteFailed, WriteLoop,
};
use crate::proto::{Piece, SegmentAttributes};
use crate::trace::Position;

/// The kind of an outbox record that holds a [`Piece`]; none of the input log's.
pub const PIECE: u8 = 16;

#[derive(Clone, Debug)]
pub struct Settings {
    /// The data folder: segments go to `outbox/` in it, cursors to `cursor.<exporter>`.
    pub data: PathBuf,
    pub roll_age_ms: u64,
    pub roll_bytes: u64,
    /// Bytes that may wait to be written.
    pub queue_bytes: usize,
    /// Room reserved for each segment and, in advance, for the next.
    pub reserve_bytes: u64,
    /// What the headers of new segments carry.
    pub attributes: SegmentAttributes,
    /// The highest segment number that the state file knows of.
    pub highest_known: u32,
    /// Pieces behind this would be made again if they were not there, from the input log. None: none would.
    pub again_from: Option<Position>,
    /// What else the state knows.
    pub known: Known,
    pub new_uuid: fn() -> Uuid,
}

/// What opening found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Cut off the end: what had not been written whole.
    pub torn_bytes: u64,
    /// Had been written and is gone, though an exporter needs it.
    pub missing_bytes: u64,
    /// Files of which the name or the header was wrong and is right again.
    pub repaired: usize,
}

/// A piece to append, and whose it is.
#[derive(Clone, Copy, Debug)]
pub struct Kept<'a> {
    pub tenant: &'a str,
    pub piece: &'a Piece,
}

/// A piece as a tail reads it.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// Its record.
    pub at: Position,
    /// How far the cursor may go once this and all before it are settled: never into a group.
    pub end: Position,
    pub tenant: Arc<str>,
    pub piece: Piece,
}

/// One exporter's place in the outbox.
#[derive(Clone, Debug)]
pub struct Subscription {
    pub cursor: Arc<Cursor>,
    pub metrics: Arc<Metrics>,
}

impl Subscription {
    /// Everything before `to` is settled, or is lost because it could not be read.
    pub fn advance(&self, to: Position) {
        self.cursor.advance(to);
        self.metrics.passed(to.segment, Lost::Corrupt);
    }
}

#[derive(Debug)]
pub struct Outbox {
    log: Arc<GroupLog>,
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    cursors: Cursors,
    subscriptions: Vec<Subscription>,
    /// What the records of each segment hold, where that is known.
    totals: Mutex<BTreeMap<u32, Amount>>,
}

impl Outbox {
    /// Opens or creates the outbox; `exporters` are all that are configured, by name.
    ///
    /// Seals what is there, and reads what is pending to count it. The caller runs the write loop on a thread.
    pub fn open(
        storage: Arc<dyn Storage>,
        settings: Settings,
        exporters: &[String],
        fatal: Fatal,
    ) -> io::Result<(Self, WriteLoop, Found)> {
        let dir = settings.data.join("outbox");
        storage.create_dir_all(&dir)?;
        let known = settings.known;
        let attributes = Bytes::from(settings.attributes.encode_to_vec());
        let like = |number| SegmentHeader {
            number,
            uuid: (settings.new_uuid)(),
            opened_ms: 0,
            attributes: attributes.clone(),
        };
        let repaired = known.repair(&storage, &dir, like)?;
        let next = segment::next_number(&*storage, &dir, settings.highest_known)?;
        let cursors = Cursors::open(&storage, &settings.data, exporters, &known, Position::new(next, 0))?;
        // A number that a cursor has passed must not come again, whatever became of its file.
        let used = cursors.iter().map(|cursor| used_before(cursor.position())).max();
        let highest_known = used.unwrap_or_default().max(settings.highest_known);
        let log_settings = GroupSettings {
            dir: dir.clone(),
            roll_age_ms: settings.roll_age_ms,
            roll_bytes: settings.roll_bytes,
            queue_bytes: settings.queue_bytes,
            reserve_bytes: settings.reserve_bytes,
            attributes,
            highest_known,
            again_from: settings.again_from,
            new_uuid: settings.new_uuid,
        };
        let last = segment::numbers(&*storage, &dir)?.last().map(|(number, _)| *number);
        let (log, write_loop, opened) = GroupLog::open(storage.clone(), log_settings, fatal)?;
        let subscribe =
            |cursor: &Arc<Cursor>| Subscription { cursor: cursor.clone(), metrics: Arc::default() };
        let subscriptions = cursors.iter().map(subscribe).collect();
        let totals = Mutex::default();
        let outbox = Self { log: log.into(), storage, dir, cursors, subscriptions, totals };
        let missing = outbox.count_pending(&known)?;
        // What is gone before the first file will not be read.
        let first =
            segment::numbers(&*outbox.storage, &outbox.dir)?.first().map_or(next, |(number, _)| *number);
        let behind = outbox.subscriptions().filter(|at| at.cursor.position().segment < first);
        behind.for_each(|subscription| subscription.advance(Position::new(first, 0)));
        // What was cut off and had been whole is not torn.
        let cut = missing.iter().filter(|(number, _)| Some(*number) == last).map(|(_, bytes)| bytes).sum();
        let torn_bytes = opened.cut_bytes.saturating_sub(cut);
        let missing_bytes = missing.iter().map(|(_, bytes)| bytes).sum();
        Ok((outbox, write_loop, Found { torn_bytes, missing_bytes, repaired }))
    }

    /// What a state must say of the outbox. To be called between two groups.
    pub fn known(&self) -> Known {
        let totals = self.totals.lock();
        let segments = self.log.extents().into_iter().map(|info| {
            let SegmentInfo { number, uuid, opened_ms, attributes, len, .. } = info;
            let header = SegmentHeader { number, uuid, opened_ms, attributes };
            Extent { header, end: len as u32, amount: totals.get(&number).copied() }
        });
        let cursors = self.cursors.iter().map(|cursor| (cursor.exporter().to_owned(), cursor.saved()));
        Known { is_lost: false, segments: segments.collect(), cursors: cursors.collect() }
    }

    /// Appends the pieces of one judgement. Blocks while the queue is full: not for I/O workers.
    pub fn append_group(&self, kept: &[Kept<'_>], now_ms: u64) -> Result<Appended, AppendError> {
        let appended = self.log.append_group(&records(kept, now_ms), now_ms)?;
        self.count_appended(kept, appended);
        Ok(appended)
    }

    /// As [`Self::append_group`], but says [`AppendError::WouldBlock`] instead of waiting.
    pub fn try_append_group(&self, kept: &[Kept<'_>], now_ms: u64) -> Result<Appended, AppendError> {
        let appended = self.log.try_append_group(&records(kept, now_ms), now_ms)?;
        self.count_appended(kept, appended);
        Ok(appended)
    }

    /// Seals a segment that is due and saves the cursors. To be called every second; blocks on the disk.
    pub fn tick(&self, now_ms: u64) -> io::Result<()> {
        self.log.roll(now_ms);
        self.save_cursors()
    }

    pub fn save_cursors(&self) -> io::Result<()> {
        self.cursors.iter().try_for_each(|cursor| cursor.save())
    }

    /// Blocks until all that was appended is on the disk; returns how far that is.
    pub fn sync(&self) -> Result<Position, WriteFailed> {
        self.log.sync()
    }

    /// The log under it: sealed segments, frontier, stalls, bytes on disk, close.
    pub fn log(&self) -> &GroupLog {
        &self.log
    }

    /// What headers of segments opened from now on carry.
    pub fn set_attributes(&self, attributes: &SegmentAttributes) {
        self.log.set_attributes(attributes.encode_to_vec().into());
    }

    /// The place of a configured exporter.
    pub fn subscription(&self, exporter: &str) -> Option<&Subscription> {
        self.subscriptions().find(|subscription| subscription.cursor.exporter() == exporter)
    }

    pub fn subscriptions(&self) -> impl Iterator<Item = &Subscription> {
        self.subscriptions.iter()
    }

    /// Reads for an exporter from its cursor on.
    pub fn tail(&self, exporter: &str) -> Option<Tail> {
        Some(Tail::new(self.log.clone(), self.subscription(exporter)?.clone()))
    }

    /// Deletes the segments that nobody needs: all saved cursors are past them, and a saved state covers them.
    pub fn delete_settled(&self, covered: Position) -> io::Result<()> {
        let low = self.cursors.low().min(covered);
        for segment in deletable(&self.log.sealed(), low) {
            self.log.delete(segment.number)?;
        }
        // Files whose header cannot be read are in no list.
        let first_needed =
            self.log.sealed().first().map_or(low.segment, |segment| segment.number.min(low.segment));
        let below = first_needed.min(self.log.written().segment);
        self.totals.lock().retain(|segment, _| *segment >= below);
        segment::delete_below(&*self.storage, &self.dir, below, &mut 0)
    }

    /// Bytes of the segments that every saved cursor is past: the next state lets them go.
    pub fn settled_bytes(&self) -> u64 {
        deletable(&self.log.sealed(), self.cursors.low()).map(|segment| segment.len).sum()
    }

    /// Gives up the oldest sealed segment that somebody waits for, which makes it deletable. What waits in it is
    /// counted lost, even if it is under way just now. False: there is none. Blocks on the disk.
    pub fn lose_oldest(&self) -> io::Result<bool> {
        let slowest = self.cursors.iter().map(|cursor| cursor.position()).min().unwrap_or(Position::MAX);
        let sealed = self.log.sealed();
        let waits =
            |segment: &&SegmentInfo| deletable(std::slice::from_ref(*segment), slowest).next().is_none();
        let Some(oldest) = sealed.iter().find(waits) else { return Ok(false) };
        let behind = Position::new(oldest.number + 1, 0);
        for subscription in self.subscriptions().filter(|at| at.cursor.position() < behind) {
            subscription.cursor.advance(behind);
            let lost = subscription.metrics.passed(behind.segment, Lost::Evicted);
            let exporter = subscription.cursor.exporter();
            tracing::warn!(exporter, spans = lost.spans, "outbox is full, its oldest segment is given up");
        }
        self.save_cursors()?;
        Ok(true)
    }

    fn count_appended(&self, kept: &[Kept<'_>], appended: Appended) {
        for subscription in &self.subscriptions {
            for Kept { piece, .. } in kept {
                subscription.metrics.appended(appended.at.segment, Amount::of(piece));
            }
        }
        let mut totals = self.totals.lock();
        let total = totals.entry(appended.at.segment).or_default();
        kept.iter().for_each(|kept| *total += Amount::of(kept.piece));
    }

    /// Counts what waits for each exporter, and what should and is not there, which is returned by segment. Only
    /// what the last state does not tell of is read.
    fn count_pending(&self, known: &Known) -> io::Result<Vec<(u32, u64)>> {
        let (files, foreign) = self.files()?;
        let low = self.cursors.low();
        for (number, len) in files.iter().filter(|(number, _)| *number >= low.segment) {
            let extent = known.extent(*number);
            let inside = self.cursors.iter().any(|cursor| cursor.position().segment == *number);
            let whole = extent.filter(|extent| u64::from(extent.end) == *len && !inside);
            match whole.and_then(|extent| extent.amount) {
                Some(amount) => self.waits(*number, Position::new(*number, u32::MAX), amount),
                None => self.count_segment(*number, extent.and_then(|extent| extent.amount))?,
            }
        }
        let is_gone = |extent: &&Extent| files.iter().all(|(number, _)| *number != extent.header.number);
        // Nobody comes past what is gone behind the last file: it is lost together with what of that is.
        let last = files.last().map_or(u32::MAX, |(number, _)| *number);
        for extent in known.segments.iter().filter(is_gone) {
            let number = extent.header.number;
            self.waits(number.min(last), Position::new(number, 0), extent.amount.unwrap_or_default());
        }
        for subscription in self.subscriptions() {
            let missing = known.missing(&files, &foreign, subscription.cursor.position());
            subscription.metrics.unreadable(missing.iter().map(|(_, bytes)| bytes).sum());
            subscription.metrics.started();
        }
        Ok(known.missing(&files, &foreign, low))
    }

    /// Numbers and lengths of the segments, apart those that another segment's file has taken the place of.
    fn files(&self) -> io::Result<(Files, Files)> {
        let unreadable = segment::segments(&*self.storage, &self.dir)?.unreadable.into_iter();
        let foreign = unreadable.filter(|file| matches!(file.fault, HeaderFault::WrongNumber(_)));
        let foreign: Files = foreign.map(|file| (file.number, file.len)).collect();
        let mut files = segment::numbers(&*self.storage, &self.dir)?;
        files.retain(|(number, _)| foreign.iter().all(|(other, _)| number != other));
        Ok((files, foreign))
    }

    /// Reads a segment to count what it holds; `known` is what it held.
    fn count_segment(&self, number: u32, known: Option<Amount>) -> io::Result<()> {
        let mut reader = GroupReader::numbered(self.storage.clone(), &self.dir, number);
        let mut total = Amount::default();
        while let Some(item) = reader.next()? {
            let GroupItem::Group(group) = item else { continue };
            for piece in group.records.iter().filter_map(read_piece) {
                total += Amount::of(&piece);
                self.waits(number, group.end, Amount::of(&piece));
            }
        }
        let lost = known.unwrap_or_default().without(total);
        self.waits(number, Position::new(number, u32::MAX), lost);
        Ok(())
    }

    /// An amount that ends at `end` waits for those who are not there yet.
    fn waits(&self, segment: u32, end: Position, amount: Amount) {
        self.totals.lock().entry(segment).or_default().add_assign(amount);
        for subscription in self.subscriptions().filter(|at| at.cursor.position() < end) {
            subscription.metrics.appended(segment, amount);
        }
    }
}

/// The last segment of which something lies before a position.
fn used_before(position: Position) -> u32 {
    if position.offset > 0 { position.segment } else { position.segment.saturating_sub(1) }
}

/// Numbers and lengths of segment files.
type Files = Vec<(u32, u64)>;

/// The sealed segments that lie before `low` as a whole.
pub fn deletable(sealed: &[SegmentInfo], low: Position) -> impl Iterator<Item = &SegmentInfo> {
    sealed.iter().take_while(move |segment| {
        segment.number < low.segment || segment.number == low.segment && segment.len <= u64::from(low.offset)
    })
}

fn records<'a>(kept: &[Kept<'a>], arrival_ms: u64) -> Vec<GroupRecord<'a>> {
    let record = |kept: &Kept<'a>| GroupRecord {
        arrival_ms,
        tenant: kept.tenant,
        kind: PIECE,
        body: kept.piece.encode_to_vec().into(),
    };
    kept.iter().map(record).collect()
}

/// The piece in a record; `None`: written by another program, or by none.
pub fn read_piece(record: &ReadRecord) -> Option<Piece> {
    let piece = Piece::decode(record.body.clone()).ok().filter(|_| record.kind == PIECE);
    piece.filter(|piece| piece.trace().is_some())
}

/// Reads the outbox's groups from `from` on, when nobody writes: for recovery.
pub fn recover(storage: Arc<dyn Storage>, data: &Path, from: Position) -> GroupReader {
    GroupReader::recover(storage, &data.join("outbox"), from)
}

#[cfg(test)]
pub(super) mod tests {
    use std::thread::JoinHandle;

    use super::*;
    use crate::log::SimDisk;
    use crate::trace::TraceId;

    /// An outbox on a disk in memory, its writer running.
    #[derive(Debug)]
    pub(crate) struct Bench {
        pub(crate) outbox: Arc<Outbox>,
        writer: Option<JoinHandle<Result<(), WriteFailed>>>,
        appended: u8,
    }

    impl Bench {
        pub(crate) fn open(disk: &SimDisk, exporters: &[&str]) -> Self {
            Self::open_for(disk, exporters, SegmentAttributes::default())
        }

        pub(crate) fn open_for(disk: &SimDisk, exporters: &[&str], attributes: SegmentAttributes) -> Self {
            Self::open_with(disk, exporters, attributes, Known::default())
        }

        fn open_with(
            disk: &SimDisk,
            exporters: &[&str],
            attributes: SegmentAttributes,
            known: Known,
        ) -> Self {
            let settings = Settings {
                data: "data".into(),
                roll_age_ms: 300_000,
                roll_bytes: 1 << 30,
                queue_bytes: 64 << 20,
                reserve_bytes: 0,
                attributes,
                highest_known: known.segments.iter().map(|extent| extent.header.number).max().unwrap_or(0),
                again_from: None,
                known,
                new_uuid: Uuid::new_v4,
            };
            let exporters: Vec<String> = exporters.iter().map(|name| (*name).to_owned()).collect();
            let fatal: Fatal = Box::new(|error| panic!("{error}"));
            let (outbox, writer, _) = Outbox::open(disk.storage(), settings, &exporters, fatal).unwrap();
            let writer = Some(writer.spawn("outbox").unwrap());
            Self { outbox: outbox.into(), writer, appended: 0 }
        }

        /// Appends a group of pieces of the given spans; each span is ten bytes. Returns when it is written.
        pub(crate) fn append(&mut self, tenant: &str, spans: &[u32]) {
            let otlp = |spans: u32| vec![0xff; 10 * spans as usize].into();
            self.append_otlp(tenant, spans.iter().map(|spans| (*spans, otlp(*spans))).collect());
        }

        pub(crate) fn append_otlp(&mut self, tenant: &str, pieces: Vec<(u32, bytes::Bytes)>) {
            let pieces: Vec<Piece> = pieces
                .into_iter()
                .map(|(spans, otlp)| {
                    self.appended += 1;
                    let trace_id = TraceId([self.appended; 16]).into();
                    Piece { trace_id, spans, otlp, ..Default::default() }
                })
                .collect();
            let kept: Vec<_> = pieces.iter().map(|piece| Kept { tenant, piece }).collect();
            self.outbox.append_group(&kept, 1_000).unwrap();
            self.outbox.sync().unwrap();
        }

        pub(crate) fn close(mut self) {
            self.outbox.log().close();
            self.writer.take().unwrap().join().unwrap().unwrap();
        }
    }

    fn spans(parcels: &[Parcel]) -> Vec<u32> {
        parcels.iter().map(|parcel| parcel.piece.spans).collect()
    }

    fn settle(subscription: &Subscription, parcels: &[Parcel]) {
        for parcel in parcels {
            subscription.metrics.settled(parcel.at.segment, Amount::of(&parcel.piece), 0);
            subscription.advance(parcel.end);
        }
    }

    #[test]
    fn a_tail_reads_what_was_appended_and_goes_on() {
        let mut bench = Bench::open(&SimDisk::new(1), &["a"]);
        let mut tail = bench.outbox.tail("a").unwrap();
        assert!(tail.read(1_000).unwrap().is_empty());
        bench.append("t", &[3, 4]);
        bench.append("", &[5]);
        let parcels = tail.read(1_000).unwrap();
        assert_eq!(spans(&parcels), [3, 4, 5]);
        assert_eq!((&*parcels[1].tenant, &*parcels[2].tenant), ("t", ""));
        bench.append("", &[6]);
        assert_eq!(spans(&tail.read(1_000).unwrap()), [6]);
        bench.close();
    }

    #[test]
    fn a_cursor_stands_before_or_behind_a_group_never_in_it() {
        let disk = SimDisk::new(1);
        let mut bench = Bench::open(&disk, &["a"]);
        bench.append("", &[3, 4]);
        let mut tail = bench.outbox.tail("a").unwrap();
        let parcels = tail.read(1_000).unwrap();
        settle(tail.subscription(), &parcels[..1]);
        bench.outbox.save_cursors().unwrap();
        bench.close();
        let bench = Bench::open(&disk, &["a"]);
        assert_eq!(spans(&bench.outbox.tail("a").unwrap().read(1_000).unwrap()), [3, 4]);
        bench.close();
    }

    #[test]
    fn a_segment_that_a_cursor_has_entered_does_not_give_its_number_away() {
        let disk = SimDisk::new(1);
        let mut bench = Bench::open(&disk, &["a"]);
        bench.append("", &[3]);
        let mut tail = bench.outbox.tail("a").unwrap();
        let parcels = tail.read(1_000).unwrap();
        settle(tail.subscription(), &parcels);
        bench.outbox.save_cursors().unwrap();
        bench.close();
        // Its only group did not outlive a loss of power, so recovery has removed it.
        disk.remove(&segment::path(Path::new("data/outbox"), 1)).unwrap();
        let mut bench = Bench::open(&disk, &["a"]);
        bench.append("", &[4]);
        assert_eq!(spans(&bench.outbox.tail("a").unwrap().read(1_000).unwrap()), [4]);
        bench.close();
    }

    /// Two segments of one piece each, 3 and 4 spans; then a life that knows of both and misses the files of these.
    fn missing(disk: &SimDisk, gone: &[u32]) -> Bench {
        let mut bench = Bench::open(disk, &["a"]);
        bench.append("", &[3]);
        bench.outbox.log().seal();
        bench.append("", &[4]);
        let known = bench.outbox.known();
        bench.close();
        for number in gone {
            disk.remove(&segment::path(Path::new("data/outbox"), *number)).unwrap();
        }
        Bench::open_with(disk, &["a"], SegmentAttributes::default(), known)
    }

    #[test]
    fn what_is_gone_before_the_first_file_does_not_wait_for_ever() {
        let mut bench = missing(&SimDisk::new(1), &[1, 2]);
        let metrics = bench.outbox.subscription("a").unwrap().metrics.clone();
        assert_eq!((metrics.pending(), metrics.lost(Lost::Corrupt)), (Amount::default(), 4));
        bench.append("", &[5]);
        assert_eq!(spans(&bench.outbox.tail("a").unwrap().read(1_000).unwrap()), [5]);
        bench.close();
    }

    #[test]
    fn what_is_gone_behind_the_last_file_does_not_wait_for_ever() {
        let bench = missing(&SimDisk::new(1), &[2]);
        let mut tail = bench.outbox.tail("a").unwrap();
        let metrics = tail.subscription().metrics.clone();
        assert_eq!(metrics.pending().spans, 7);
        let parcels = tail.read(1_000).unwrap();
        settle(tail.subscription(), &parcels);
        tail.subscription().advance(Position::new(2, 0));
        assert_eq!((metrics.pending(), metrics.lost(Lost::Corrupt)), (Amount::default(), 4));
        bench.close();
    }

    #[test]
    fn what_is_pending_is_counted_for_each_exporter_and_again_at_start() {
        let disk = SimDisk::new(1);
        let mut bench = Bench::open(&disk, &["a", "b"]);
        bench.append("", &[3, 4]);
        bench.append("", &[5]);
        let mut tail = bench.outbox.tail("a").unwrap();
        let parcels = tail.read(1).unwrap();
        settle(tail.subscription(), &parcels);
        let metrics = |bench: &Bench, name: &str| bench.outbox.subscription(name).unwrap().metrics.clone();
        assert_eq!(metrics(&bench, "a").pending(), Amount { spans: 5, records: 1, bytes: 50 });
        assert_eq!(metrics(&bench, "b").pending(), Amount { spans: 12, records: 3, bytes: 120 });
        bench.outbox.save_cursors().unwrap();
        bench.close();
        let bench = Bench::open(&disk, &["a", "b", "new"]);
        assert_eq!(metrics(&bench, "a").pending_at_start(), 5);
        assert_eq!(metrics(&bench, "b").pending_at_start(), 12);
        assert_eq!(metrics(&bench, "new").pending_at_start(), 0);
        bench.close();
    }

    #[test]
    fn a_segment_goes_when_every_cursor_and_a_state_are_past_it() {
        let disk = SimDisk::new(1);
        let mut bench = Bench::open(&disk, &["a", "b"]);
        bench.append("", &[3]);
        bench.outbox.log().seal();
        bench.append("", &[4]);
        let covered = bench.outbox.sync().unwrap();
        let sealed = |bench: &Bench| bench.outbox.log().sealed().len();
        for name in ["a", "b"] {
            bench.outbox.delete_settled(covered).unwrap();
            assert_eq!(sealed(&bench), 1, "before {name}");
            let mut tail = bench.outbox.tail(name).unwrap();
            let parcels = tail.read(1_000).unwrap();
            settle(tail.subscription(), &parcels);
            bench.outbox.save_cursors().unwrap();
        }
        bench.outbox.delete_settled(Position::default()).unwrap();
        assert_eq!(sealed(&bench), 1);
        bench.outbox.delete_settled(covered).unwrap();
        assert_eq!(sealed(&bench), 0);
        bench.close();
    }

    #[test]
    fn a_damaged_record_is_counted_and_the_rest_is_read() {
        let disk = SimDisk::new(1);
        let mut bench = Bench::open(&disk, &["a"]);
        bench.append("", &[3]);
        bench.append("", &[40]);
        bench.append("", &[5]);
        bench.outbox.log().seal();
        bench.append("", &[6]);
        let path = segment::path(Path::new("data/outbox"), 1);
        let mut content = disk.content(&path).unwrap();
        let middle = content.len() / 2;
        content[middle] ^= 1;
        disk.put(&path, content);
        let mut tail = bench.outbox.tail("a").unwrap();
        let parcels = tail.read(1_000_000).unwrap();
        assert_eq!(spans(&parcels), [3, 5, 6]);
        settle(tail.subscription(), &parcels);
        let metrics = &tail.subscription().metrics;
        assert_eq!((metrics.delivered(), metrics.lost(Lost::Corrupt)), (14, 40));
        assert!(metrics.lost_bytes() > 400);
        assert_eq!(metrics.pending(), Amount::default());
        bench.close();
    }

    #[test]
    fn a_full_outbox_gives_up_its_oldest_segment_for_the_slowest_only() {
        let mut bench = Bench::open(&SimDisk::new(1), &["fast", "slow"]);
        bench.append("", &[3]);
        let mut fast = bench.outbox.tail("fast").unwrap();
        let mut slow = bench.outbox.tail("slow").unwrap();
        let parcels = fast.read(1_000).unwrap();
        settle(fast.subscription(), &parcels);
        bench.outbox.log().seal();
        bench.append("", &[4]);
        assert!(bench.outbox.lose_oldest().unwrap());
        assert_eq!(spans(&slow.read(1_000).unwrap()), [4]);
        assert_eq!(spans(&fast.read(1_000).unwrap()), [4]);
        let lost = |tail: &Tail| tail.subscription().metrics.lost(Lost::Evicted);
        assert_eq!((lost(&fast), lost(&slow)), (0, 3));
        bench.outbox.delete_settled(Position::MAX).unwrap();
        assert!(bench.outbox.log().sealed().is_empty());
        assert!(!bench.outbox.lose_oldest().unwrap());
        bench.close();
    }
}
