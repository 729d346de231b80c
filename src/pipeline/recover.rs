//! Starts where the last life of the process stopped, however it stopped.
//!
//! State first, then the outbox records behind it, then the input log from the low-water on through the
//! function that receives: spans that an earlier judgement has sent are skipped, the rest is judged again.
//! Nothing is written here but numbers: the old files stay until a later state makes them dispensable.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tracing::warn;

use super::engine::{Engine, KIND_REQUEST, KIND_REQUEST_NOT_UTF8};
use super::state::{Saved, SavedTrace};
use crate::buffer::{Now, Sent, State as Life, Taken};
use crate::exporter::outbox;
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
    /// Bytes at the end of a log that were never acknowledged.
    pub(super) torn_bytes: u64,
}

/// Kept traces by tenant and ID.
type Kept = HashMap<(Arc<str>, TraceId), SavedTrace>;

/// Applies the outbox records behind the state.
pub(super) fn kept_since(
    disk: &Arc<dyn Storage>,
    data: &Path,
    saved: &mut Saved,
    recovered: &mut Recovered,
) -> io::Result<()> {
    let traces = std::mem::take(&mut saved.kept).into_iter();
    let mut kept: Kept = traces.map(|trace| ((trace.tenant.clone(), trace.trace), trace)).collect();
    let mut reader = outbox::recover(disk.clone(), data, saved.outbox_covered);
    while let Some(item) = reader.next()? {
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
    saved.kept = kept.into_values().collect();
    Ok(())
}

/// What follows a verdict keeps its time; a new verdict replaces it.
fn apply(kept: &mut Kept, tenant: &str, piece: &proto::Piece) {
    let Ok(id) = <[u8; 16]>::try_from(&piece.trace_id[..]) else { return };
    let tenant: Arc<str> = tenant.into();
    let rule = WeightRule::from(piece.weight_rule());
    let sent = Sent { policy: piece.policy.as_str().into(), threshold: Threshold(piece.threshold), rule };
    let through = Position::new(piece.through_segment, piece.through_offset);
    let trace = SavedTrace {
        tenant: tenant.clone(),
        trace: TraceId(id),
        state: if piece.state_after() == proto::TraceState::Stream { Life::Stream } else { Life::Kept },
        sent,
        judged_ms: piece.decided_at_ms,
        through,
    };
    match kept.entry((tenant, TraceId(id))) {
        Entry::Vacant(place) => _ = place.insert(trace),
        Entry::Occupied(mut place) => {
            let known = place.get_mut();
            let follows = known.sent == trace.sent;
            let judged_ms = if follows { known.judged_ms } else { trace.judged_ms };
            let through = known.through.max(trace.through);
            *known = SavedTrace { judged_ms, through, ..trace };
        }
    }
}

/// Reads the input log in `dir` from the low-water on. `relieve` is called after each record: memory may be
/// short.
pub(super) fn replay(
    engine: &Engine,
    disk: &Arc<dyn Storage>,
    dir: &Path,
    low_water: Position,
    recovered: &mut Recovered,
    mut relieve: impl FnMut(),
) -> io::Result<()> {
    let now = engine.clock.now();
    let mut reader = Reader::open(disk.clone(), dir, low_water)?;
    while let Some(item) = reader.next()? {
        match item {
            ReadItem::Record(record) if matches!(record.kind, KIND_REQUEST | KIND_REQUEST_NOT_UTF8) => {
                let age_ms = now.ms.saturating_sub(record.arrival_ms).min(engine.max_wait_ms.load(Relaxed));
                let stored = engine.memory.restore(record.at, record.bytes, record.arrival_ms);
                // A verdict is as old as it was when the span came.
                let then = Now { ms: record.arrival_ms, ..now };
                recovered.add(engine.replay(&stored, then, age_ms));
                relieve();
            }
            ReadItem::Record(_) => {}
            ReadItem::Damaged { bytes, .. } => recovered.lost_bytes += bytes,
            ReadItem::TornTail { bytes, .. } => recovered.torn_bytes += bytes,
            ReadItem::BadHeader { segment, fault } => warn!(segment, %fault, "segment header cannot be read"),
        }
    }
    Ok(())
}

impl Recovered {
    fn add(&mut self, taken: Taken) {
        self.spans += u64::from(taken.spans);
        self.skipped += u64::from(taken.skipped);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::buffer::{Key, Remembered};
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
        replay(engine, disk, Path::new(DIR), low_water, &mut recovered, || ()).unwrap();
        recovered
    }

    fn kept(trace: TraceId, judged_ms: u64, through: Position) -> Remembered {
        let sent = Sent { policy: "errors".into(), threshold: Threshold(0), rule: WeightRule::Threshold };
        Remembered { key: Key { trace, tenant: TenantId(0) }, state: Life::Kept, sent, judged_ms, through }
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
        let state = Snapshot::take(&engine, Position::default(), Highest::default());
        assert_eq!(state.low_water, Position::new(FIRST, 0));
    }
}
