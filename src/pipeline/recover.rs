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

use tracing::warn;

use super::engine::{Engine, KIND_REQUEST, KIND_REQUEST_NOT_UTF8};
use super::state::{Saved, SavedTrace};
use crate::buffer::{Sent, State as Life, Taken};
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
                let age_ms = now.ms.saturating_sub(record.arrival_ms).min(engine.max_wait_ms);
                let stored = engine.memory.restore(record.at, record.bytes, record.arrival_ms);
                recovered.add(engine.replay(&stored, now, age_ms));
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
