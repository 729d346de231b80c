//! Starts where the last life of the process stopped, however it stopped.
//!
//! State first, then the outbox records behind it, then the input log from the low-water on through the
//! function that receives: spans that an earlier judgement has sent are skipped, the rest is judged again.
//! Nothing is written here but numbers: the old files stay until a later state makes them dispensable.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tracing::warn;
use uuid::Uuid;

use super::engine::{Engine, KIND_REQUEST, KIND_REQUEST_NOT_UTF8};
use super::piece::state_from_proto;
use super::state::{Saved, SavedTrace};
use crate::buffer::{Now, Sent, SentUnit, State as Life, Taken, UNITS_MAX};
use crate::exporter::outbox;
use crate::log::segment::{self, SEGMENT_HEADER};
use crate::log::{GroupItem, ReadItem, Reader, Storage};
use crate::proto;
use crate::trace::{Position, Threshold, TraceId, WeightRule};

/// What recovery found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Recovered {
    /// Spans that wait for a judgement again.
    pub(super) spans: u64,
    /// Spans that had been sent.
    pub(super) skipped: u64,
    /// Bytes of either log that cannot be read.
    pub(super) lost_bytes: u64,
    /// Files of the input log that are gone, whatever they held.
    pub(super) lost_segments: u64,
    /// Bytes at the end of a log that were never acknowledged.
    pub(super) torn_bytes: u64,
}

/// How recovery goes on, and whether.
#[derive(Debug, Default)]
pub(super) struct Start {
    halted: Arc<AtomicBool>,
    /// Exporters deliver meanwhile: it pays to wait for room in the outbox.
    pub(super) exporters_run: bool,
}

/// Ends a recovery when dropped: nobody waits for it any more.
#[derive(Debug)]
pub(super) struct Halt(Arc<AtomicBool>);

impl Start {
    /// One that may be halted, beside running exporters.
    pub(super) fn waiting() -> (Self, Halt) {
        let halted = Arc::new(AtomicBool::new(false));
        (Self { halted: halted.clone(), exporters_run: true }, Halt(halted))
    }

    pub(super) fn is_halted(&self) -> bool {
        self.halted.load(Relaxed)
    }

    fn go_on(&self) -> io::Result<()> {
        if self.is_halted() { Err(interrupted()) } else { Ok(()) }
    }
}

impl Drop for Halt {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn interrupted() -> io::Error {
    io::Error::new(io::ErrorKind::Interrupted, "recovery was asked to end; the next start goes on")
}

/// Traces of which something was sent, by tenant and ID.
type Kept = HashMap<(Arc<str>, TraceId), SavedTrace>;

/// Applies the outbox records behind the state.
pub(super) fn kept_since(
    disk: &Arc<dyn Storage>,
    data: &Path,
    saved: &mut Saved,
    recovered: &mut Recovered,
    start: &Start,
) -> io::Result<()> {
    let traces = std::mem::take(&mut saved.kept).into_iter();
    let mut kept: Kept = traces.map(|trace| ((trace.tenant.clone(), trace.trace), trace)).collect();
    let mut reader = outbox::recover(disk.clone(), data, saved.outbox_covered);
    while let Some(item) = reader.next()? {
        start.go_on()?;
        match item {
            GroupItem::Group(group) => {
                for record in &group.records {
                    match outbox::read_piece(record) {
                        Some(piece) => apply(&mut kept, &record.tenant, &piece),
                        None => recovered.lost_bytes += record.bytes.len() as u64,
                    }
                }
            }
            GroupItem::Lost { bytes, .. } => recovered.lost_bytes += bytes,
        }
    }
    // The input segment that a verdict names may be gone with a loss of power; its number must not come again.
    let named = kept.values().map(|trace| trace.through.segment).max().unwrap_or_default();
    saved.input_segment = saved.input_segment.max(named);
    saved.kept = kept.into_values().collect();
    // Not in the order of hashes: a start repeats itself.
    saved.kept.sort_unstable_by(|a, b| (&a.tenant, a.trace).cmp(&(&b.tenant, b.trace)));
    Ok(())
}

/// What follows the verdict of a kept trace keeps its time; a new verdict replaces it.
fn apply(kept: &mut Kept, tenant: &str, piece: &proto::Piece) {
    let Some(trace) = piece.trace() else { return };
    let tenant: Arc<str> = tenant.into();
    let rule = WeightRule::from(piece.weight_rule());
    let sent = Sent { policy: piece.policy.as_str().into(), threshold: Threshold(piece.threshold), rule };
    let known = kept.entry((tenant.clone(), trace)).or_insert_with(|| SavedTrace {
        tenant,
        trace,
        state: Life::Open,
        sent: None,
        units: Vec::new(),
        judged_ms: piece.decided_at_ms,
        through: Position::default(),
    });
    let state = state_from_proto(piece.state_after());
    let follows = (known.state, state) == (Life::Kept, Life::Kept) && known.sent.as_ref() == Some(&sent);
    if !follows {
        known.judged_ms = piece.decided_at_ms;
    }
    let unit_left = state == Life::Stream && piece.reason() != proto::Reason::Context;
    match state {
        Life::Stream if unit_left => {
            known.units.push(SentUnit { sent: sent.clone(), when_ms: piece.decided_at_ms });
            known.units.dedup();
            known.units.drain(..known.units.len().saturating_sub(UNITS_MAX));
        }
        Life::Kept => known.units.clear(),
        _ => {}
    }
    // What leaves for context has the verdict of others, without its weight.
    if state == Life::Kept || unit_left || known.sent.is_none() {
        known.sent = Some(sent);
    }
    known.state = state;
    known.through = known.through.max(piece.through());
}

/// Reads the input log in `dir` from the low-water on; its files held what `extents` say. `relieve` is called after each record: memory may be
/// short. It is false when recovery is to end.
pub(super) fn replay(
    engine: &Engine,
    disk: &Arc<dyn Storage>,
    dir: &Path,
    low_water: Position,
    extents: &[Position],
    recovered: &mut Recovered,
    mut relieve: impl FnMut() -> bool,
) -> io::Result<()> {
    let now = engine.clock.now();
    recovered.lost_bytes += missing(&segment::numbers(&**disk, dir)?, extents, low_water);
    let known_end = |segment| extents.iter().find(|end| end.segment == segment).map_or(0, |end| end.offset);
    let mut reader = Reader::open(disk.clone(), dir, low_water)?;
    while let Some(item) = reader.next()? {
        match item {
            ReadItem::Record(record) if matches!(record.kind, KIND_REQUEST | KIND_REQUEST_NOT_UTF8) => {
                let bytes = record.bytes.len() as u64;
                let age_ms = now.ms.saturating_sub(record.arrival_ms).min(engine.max_wait_ms.load(Relaxed));
                let stored = engine.memory.restore(record.at, record.bytes, record.arrival_ms);
                // A verdict is as old as it was when the span came.
                let then = Now { ms: record.arrival_ms, ..now };
                match engine.replay(&stored, then, age_ms) {
                    Some(taken) => recovered.add(taken),
                    None => recovered.lost_bytes += bytes,
                }
                if !relieve() {
                    return Err(interrupted());
                }
            }
            // Of another log.
            ReadItem::Record(record) => recovered.lost_bytes += record.bytes.len() as u64,
            ReadItem::Damaged { bytes, .. } => recovered.lost_bytes += bytes,
            ReadItem::TornTail { from, bytes } => {
                let was_whole = u64::from(known_end(from.segment).saturating_sub(from.offset)).min(bytes);
                recovered.lost_bytes += was_whole;
                recovered.torn_bytes += bytes - was_whole;
            }
            ReadItem::BadHeader { segment, fault, bytes } => {
                recovered.lost_bytes += bytes;
                warn!(segment, %fault, "segment header cannot be read");
            }
        }
    }
    Ok(())
}

/// The name of an input segment: whose directory it is, the first number of the life that wrote it, and its own.
/// A life uses all numbers in between, so that it shows when one is gone.
pub(super) fn segment_uuid(instance: Uuid, first: u32, number: u32) -> Uuid {
    Uuid::from_u64_pair(instance.as_u64_pair().0, u64::from(first) << 32 | u64::from(number))
}

/// How many files of the input log are gone, as those behind them say.
pub(super) fn missing_segments(
    disk: &dyn Storage,
    dir: &Path,
    instance: Uuid,
    low_water: Position,
) -> io::Result<u64> {
    let found = segment::segments(disk, dir)?;
    let files = segment::numbers(disk, dir)?;
    let there: BTreeSet<u32> = files.iter().map(|(number, _)| *number).collect();
    // What is needed lies beyond the end of a file that is still there.
    let cut = files
        .iter()
        .filter(|(number, len)| *number == low_water.segment && *len < u64::from(low_water.offset));
    let mut missing: BTreeSet<u32> = cut.map(|(number, _)| *number).collect();
    for info in found.readable {
        if info.number >= low_water.segment && !info.attributes.is_empty() {
            missing.insert(info.number); // a file of the outbox has its name
        }
        let (owner, numbers) = info.uuid.as_u64_pair();
        if owner == instance.as_u64_pair().0 {
            let first = ((numbers >> 32) as u32).max(low_water.segment);
            missing.extend((first..info.number).filter(|number| !there.contains(number)));
        }
    }
    Ok(missing.len() as u64)
}

/// Bytes from the low-water on that were in the files and are not any more.
pub(super) fn missing(files: &[(u32, u64)], extents: &[Position], low_water: Position) -> u64 {
    let missing = extents.iter().filter(|end| **end > low_water).map(|end| {
        let file = files.iter().find(|(number, _)| *number == end.segment).map_or(0, |(_, len)| *len);
        let not_needed = if end.segment == low_water.segment { low_water.offset } else { 0 };
        let there = file.max(not_needed.into()).max(SEGMENT_HEADER as u64);
        u64::from(end.offset).saturating_sub(there)
    });
    missing.sum()
}

impl Recovered {
    fn add(&mut self, taken: Taken) {
        self.spans += u64::from(taken.spans);
        self.skipped += u64::from(taken.skipped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::{Key, Remembered};
    use crate::exporter::known::Known;
    use crate::log::{Head, Record, SegmentHeader, SimDisk, segment};
    use crate::pipeline::state::{Highest, Snapshot};
    use crate::pipeline::testing::{FIRST, engine, request};
    use crate::trace::TenantId;

    const DIR: &str = "input";
    const ARRIVAL_MS: u64 = 1_700_000_000_000;
    const HOUR_MS: u64 = 3_600_000;

    /// An input log of one request with one root span.
    fn one_request(trace: TraceId) -> Arc<dyn Storage> {
        let body = request(trace, 1);
        let (tenant, kind, arrival_ms) = ("", KIND_REQUEST, ARRIVAL_MS);
        let record = Record { arrival_ms, tenant, kind, more: false, member: 0, body: &body };
        let uuid = Uuid::nil();
        let header = SegmentHeader { number: 1, uuid, opened_ms: ARRIVAL_MS, attributes: Default::default() };
        let disk = SimDisk::new(1);
        let file = [header.encode(), Head::new(&record).unwrap().into_vec(), body].concat();
        disk.put(&segment::path(Path::new(DIR), 1), file);
        disk.storage()
    }

    fn read(engine: &Engine, disk: &Arc<dyn Storage>, low_water: Position) -> Recovered {
        let mut recovered = Recovered::default();
        replay(engine, disk, Path::new(DIR), low_water, &[], &mut recovered, || true).unwrap();
        recovered
    }

    fn kept(trace: TraceId, judged_ms: u64, through: Position) -> Remembered {
        let sent = Sent { policy: "errors".into(), threshold: Threshold(0), rule: WeightRule::Threshold };
        let key = Key { trace, tenant: TenantId(0) };
        let units = Box::default();
        Remembered { key, state: Life::Kept, sent: Some(sent), units, judged_ms, through }
    }

    #[test]
    fn a_segment_that_is_gone_is_missed_by_those_behind_it() {
        let (disk, dir, instance) = (SimDisk::new(1), Path::new(DIR), Uuid::from_u64_pair(7, 8));
        for (first, number) in [(3, 3), (3, 4), (3, 6), (9, 9)] {
            let uuid = segment_uuid(instance, first, number);
            let header = SegmentHeader { number, uuid, opened_ms: 0, attributes: Default::default() };
            disk.put(&segment::path(dir, number), header.encode());
        }
        let missing = |low: u32| missing_segments(&disk, dir, instance, Position::new(low, 0)).unwrap();
        assert_eq!((missing(0), missing(5), missing(6)), (1, 1, 0), "lives that wrote nothing leave gaps");
    }

    #[test]
    fn the_number_of_an_input_segment_that_a_verdict_names_does_not_come_again() {
        let Remembered { state, sent, judged_ms, through, .. } =
            kept(TraceId([1; 16]), 0, Position::new(9, 7));
        let (tenant, trace, units) = ("".into(), TraceId([1; 16]), Vec::new());
        let named = SavedTrace { tenant, trace, state, sent, units, judged_ms, through };
        let mut saved = Saved { input_segment: 3, kept: vec![named], ..Saved::default() };
        let disk = SimDisk::new(1).storage();
        kept_since(&disk, Path::new("data"), &mut saved, &mut Recovered::default(), &Start::default())
            .unwrap();
        assert_eq!(saved.input_segment, 9);
    }

    #[test]
    fn what_was_sent_is_not_sent_again_however_long_the_process_was_down() {
        let trace = TraceId([1; 16]);
        for hours in [1, 100] {
            let engine = engine(ARRIVAL_MS + hours * HOUR_MS);
            engine.buffer.remember(kept(trace, ARRIVAL_MS + 10_000, Position::new(2, 0)));
            let recovered = read(&engine, &one_request(trace), Position::default());
            assert_eq!((recovered.spans, recovered.skipped), (0, 1), "{hours} hours");
        }
    }

    #[test]
    fn a_verdict_is_as_old_as_it_was_when_its_late_span_came() {
        let trace = TraceId([1; 16]);
        let engine = engine(ARRIVAL_MS + HOUR_MS);
        engine.buffer.remember(kept(trace, ARRIVAL_MS - 1_000, Position::new(1, 10)));
        assert_eq!(read(&engine, &one_request(trace), Position::default()).spans, 1);
        let mut states = Vec::new();
        engine.buffer.kept(|kept| states.push(kept.state));
        assert_eq!(states, [Life::Kept], "the span follows the verdict");
    }

    #[test]
    fn a_state_after_a_recovery_that_found_nothing_does_not_go_back() {
        let engine = engine(ARRIVAL_MS);
        let behind = Position::new(1, 10_000);
        assert_eq!(read(&engine, &one_request(TraceId([1; 16])), behind).spans, 0);
        engine.replayed(FIRST);
        let (covered, low_water) = (Position::default(), engine.low_water());
        let state = Snapshot::take(&engine, covered, low_water, Highest::default(), &Known::default());
        assert_eq!(state.low_water, Position::new(FIRST, 0));
    }
}
