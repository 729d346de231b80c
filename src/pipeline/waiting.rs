//! What a stopped instance has left unjudged of one trace: spans in its input log that the next start will read.
//!
//! Nothing is locked or written. What was dropped since the last state was written is judged again by the next start, so it
//! is found here as well; what has left is not.

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::engine::{KIND_REQUEST, KIND_REQUEST_NOT_UTF8};
use super::recover::{self, Recovered, Start};
use super::state::{self, Read, Saved};
use crate::log::{ReadItem, ReadRecord, Reader, Storage};
use crate::otlp;
use crate::trace::{Position, TraceId};

/// Spans of a trace of one tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Waiting {
    pub tenant: String,
    pub spans: u64,
    /// A span without a parent is among them.
    pub root_seen: bool,
    /// When the first of them came, in Unix milliseconds.
    pub came_ms: u64,
}

/// Looks through the input log of the directory `data`, from what its state still needs on.
///
/// # Errors
///
/// The disk, or a state of a later version.
pub fn find(
    disk: &Arc<dyn Storage>,
    data: &Path,
    trace: TraceId,
    tenant: Option<&str>,
) -> anyhow::Result<Vec<Waiting>> {
    let input = data.join("input");
    if !disk.exists(&input)? {
        return Ok(Vec::new());
    }
    let mut saved = match state::read(&**disk, &data.join("state"))? {
        Read::Saved(saved) => *saved,
        Read::Nothing | Read::Damaged(_) => Saved::default(),
    };
    recover::kept_since(disk, data, &mut saved, &mut Recovered::default(), &Start::default())?;
    let mut reader = Reader::open(disk.clone(), &input, saved.low_water)?;
    let mut found: Vec<Waiting> = Vec::new();
    while let Some(item) = reader.next()? {
        let ReadItem::Record(record) = item else { continue };
        let is_request = matches!(record.kind, KIND_REQUEST | KIND_REQUEST_NOT_UTF8);
        if is_request && tenant.is_none_or(|tenant| tenant == record.tenant) {
            let seen = saved.kept.iter().find(|kept| kept.trace == trace && *kept.tenant == *record.tenant);
            add(&mut found, &record, trace, seen.map_or(Position::default(), |kept| kept.through));
        }
    }
    Ok(found)
}

/// Counts the spans of the trace that lie at or behind `from`.
fn add(found: &mut Vec<Waiting>, record: &ReadRecord, trace: TraceId, from: Position) {
    let body_at = record.at.offset + (record.bytes.len() - record.body.len()) as u32;
    let (mut spans, mut root_seen) = (0, false);
    let scanned = otlp::scan(&record.body, |span| {
        if span.trace_id == trace && Position::new(record.at.segment, body_at + span.at) >= from {
            spans += 1;
            root_seen |= span.parent.is_none();
        }
    });
    if scanned.is_err() || spans == 0 {
        return;
    }
    match found.iter_mut().find(|waiting| waiting.tenant == record.tenant) {
        Some(waiting) => {
            waiting.spans += spans;
            waiting.root_seen |= root_seen;
        }
        None => {
            let (tenant, came_ms) = (record.tenant.clone(), record.arrival_ms);
            found.push(Waiting { tenant, spans, root_seen, came_ms });
        }
    }
}
