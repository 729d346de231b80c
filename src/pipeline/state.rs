//! The state file: what a restart must know that neither log can tell.
//!
//! Written every few seconds by write-new, fsync, rename. The order makes it true at any crash: the
//! outbox's end and the low-water are read first, then the entries; the outbox is synced; the state is
//! written; only then is anything deleted. Records of the outbox behind what the state covers are applied
//! over it when it is read.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message;

use super::engine::Engine;
use super::learned;
use super::piece::{state_from_proto, state_to_proto};
use crate::buffer::{Key, Remembered, Sent, SentUnit, State as Life};
use crate::exporter::known::{Extent, Known};
use crate::log::{Open, Storage, storage};
use crate::proto;
use crate::trace::{Position, TenantId, Threshold, TraceId, WeightRule};

/// The meaning of the file; a later one is refused.
const FORMAT: u32 = 1;

/// Magic, then the checksum of the rest, then the message.
const MAGIC: [u8; 4] = *b"TWst";

/// What a state file says.
#[derive(Debug, Default)]
pub(super) struct Saved {
    pub(super) written_ms: u64,
    /// Smallest position of the input log that is still needed.
    pub(super) low_water: Position,
    /// Outbox records before this are reflected.
    pub(super) outbox_covered: Position,
    /// Highest segment numbers used.
    pub(super) input_segment: u32,
    pub(super) outbox_segment: u32,
    pub(super) kept: Vec<SavedTrace>,
    pub(super) learned: Vec<proto::Sketch>,
    pub(super) published_ms: u64,
    pub(super) budgets: Vec<proto::Budget>,
    /// What the input log held: where each segment ended.
    pub(super) input: Vec<Position>,
    pub(super) outbox: Known,
    /// What the numbers of tenants in `learned` stand for.
    pub(super) tenants: Vec<Arc<str>>,
}

/// A trace of which something was sent, or that is a stream; its tenant by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SavedTrace {
    pub(super) tenant: Arc<str>,
    pub(super) trace: TraceId,
    pub(super) state: Life,
    /// None: a stream that has kept nothing.
    pub(super) sent: Option<Sent>,
    pub(super) units: Vec<SentUnit>,
    pub(super) judged_ms: u64,
    pub(super) through: Position,
}

/// Why a state file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum StateError {
    #[error("read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "{path} is of format {found}; this version reads up to {FORMAT}: it was written by a later version"
    )]
    Later { path: PathBuf, found: u32 },
}

/// A snapshot, encoded; made between judgements.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) low_water: Position,
    pub(super) outbox_covered: Position,
    bytes: Vec<u8>,
}

impl Snapshot {
    /// `outbox_covered` was read before this is called, `outbox` with it; then `low_water`.
    pub(super) fn take(
        engine: &Engine,
        outbox_covered: Position,
        low_water: Position,
        highest: Highest,
        outbox: &Known,
    ) -> Self {
        let frontier = engine.frontier();
        let mut writer = StateWriter::default();
        engine.buffer.kept(|trace| writer.push(engine, &trace));
        let learned = engine.slow.snapshot();
        let sketches = learned.sketches.iter().map(|sketch| {
            let tenant = writer.tenants.number(&engine.tenant_name(sketch.tenant));
            learned::sketch_to_proto(sketch, tenant)
        });
        let sketches = sketches.collect();
        let state = proto::State {
            format_version: FORMAT,
            written_at_ms: engine.clock.arrival_ms(),
            low_water: Some(low_water.into()),
            outbox_covered: Some(outbox_covered.into()),
            input_segment: highest.input.max(frontier.segment),
            outbox_segment: highest.outbox,
            policies: writer.policies.names,
            tenants: writer.tenants.names,
            sketches,
            thresholds_published_at_ms: learned.published_ms,
            budgets: learned::budgets(engine),
            input: input_extents(engine, low_water, frontier),
            outbox: outbox.segments.iter().map(proto::Extent::from).collect(),
            cursors: outbox.cursors.iter().map(exporter_cursor).collect(),
            ..proto::State::default()
        };
        let mut bytes = writer.body;
        state.encode(&mut bytes).expect("a vector grows");
        Self { low_water, outbox_covered, bytes }
    }

    /// Returns the size of the file.
    pub(super) fn write(&self, disk: &dyn Storage, path: &Path) -> io::Result<usize> {
        let mut file = Vec::with_capacity(self.bytes.len() + 8);
        file.extend_from_slice(&MAGIC);
        file.extend_from_slice(&crc32c::crc32c(&self.bytes).to_le_bytes());
        file.extend_from_slice(&self.bytes);
        storage::write_new(disk, path, &file)?;
        Ok(file.len())
    }
}

/// What the input log's files hold from the low-water on.
fn input_extents(engine: &Engine, low_water: Position, frontier: Position) -> Vec<proto::Extent> {
    if engine.input.is_none() {
        return Vec::new();
    }
    let ends = engine.memory.extents(frontier).into_iter().filter(|end| *end > low_water);
    let extent =
        |end: Position| proto::Extent { segment: end.segment, end: end.offset, ..proto::Extent::default() };
    ends.map(extent).collect()
}

fn exporter_cursor((exporter, saved): &(String, Position)) -> proto::ExporterCursor {
    proto::ExporterCursor { exporter: exporter.clone(), saved: Some((*saved).into()) }
}

/// The highest segment numbers in use.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Highest {
    pub(super) input: u32,
    pub(super) outbox: u32,
}

/// Encodes kept traces one by one: parts of a message, concatenated, are the message.
#[derive(Default)]
struct StateWriter {
    body: Vec<u8>,
    policies: Names,
    tenants: Names,
}

impl StateWriter {
    fn push(&mut self, engine: &Engine, trace: &Remembered) {
        let none = Sent { policy: NOTHING.into(), threshold: Threshold::NEVER, rule: WeightRule::Zero };
        let sent = trace.sent.as_ref().unwrap_or(&none);
        let unit = |unit: &SentUnit| proto::SentUnit {
            policy: self.policies.number(&unit.sent.policy),
            threshold: unit.sent.threshold.0,
            weight_rule: proto::WeightRule::from(unit.sent.rule).into(),
            when_ms: unit.when_ms,
        };
        let live = proto::LiveEntry {
            sent: trace.units.iter().map(unit).collect(),
            tenant: self.tenants.number(&engine.tenant_name(trace.key.tenant)),
            trace: Some(trace.key.trace.into()),
            state: state_to_proto(trace.state).into(),
            policy: self.policies.number(&sent.policy),
            threshold: sent.threshold.0,
            weight_rule: proto::WeightRule::from(sent.rule).into(),
            when_ms: trace.judged_ms,
            through: Some(trace.through.into()),
        };
        prost::encoding::message::encode(LIVE_TAG, &live, &mut self.body);
    }
}

/// The policy of a stream that has kept nothing: no policy has an empty name.
const NOTHING: &str = "";

/// Field number of `State.live`.
const LIVE_TAG: u32 = 10;

/// Names by number, in the order in which they came.
#[derive(Default)]
struct Names {
    names: Vec<String>,
    numbers: HashMap<Arc<str>, u32>,
}

impl Names {
    fn number(&mut self, name: &Arc<str>) -> u32 {
        if let Some(known) = self.numbers.get(name) {
            return *known;
        }
        let number = self.names.len() as u32;
        self.names.push(name.to_string());
        self.numbers.insert(name.clone(), number);
        number
    }
}

/// What is at the place of a state file.
#[derive(Debug)]
pub(super) enum Read {
    Saved(Box<Saved>),
    Nothing,
    /// So many bytes that are no state.
    Damaged(u64),
}

/// Reads a state file.
pub(super) fn read(disk: &dyn Storage, path: &Path) -> Result<Read, StateError> {
    let failed = |source| StateError::Read { path: path.to_owned(), source };
    let foreign = foreign(disk, path).map_err(failed)?;
    if let Some(bytes) = foreign {
        return Ok(Read::Damaged(bytes));
    }
    let Some(file) = storage::read_all(disk, path).map_err(failed)? else { return Ok(Read::Nothing) };
    let Some(state) = decode(&file) else { return Ok(Read::Damaged(file.len() as u64)) };
    if state.format_version > FORMAT {
        return Err(StateError::Later { path: path.to_owned(), found: state.format_version });
    }
    Ok(Read::Saved(Box::new(saved(state))))
}

/// The length of a file that does not begin as a state; it may be any, so it is not read.
fn foreign(disk: &dyn Storage, path: &Path) -> io::Result<Option<u64>> {
    if !disk.exists(path)? {
        return Ok(None);
    }
    let file = disk.open(path, Open::Read)?;
    let mut magic = [0; MAGIC.len()];
    let read = file.read_at(0, &mut magic)?;
    Ok(if magic[..read] == MAGIC { None } else { Some(file.len()?) })
}

fn decode(file: &[u8]) -> Option<proto::State> {
    let body = file.strip_prefix(&MAGIC)?;
    let (crc, body) = body.split_first_chunk::<4>()?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return None;
    }
    proto::State::decode(body).ok()
}

fn saved(state: proto::State) -> Saved {
    let tenants: Vec<Arc<str>> = state.tenants.iter().map(|name| Arc::from(name.as_str())).collect();
    let policies: Vec<Arc<str>> = state.policies.iter().map(|name| Arc::from(name.as_str())).collect();
    let named = |names: &[Arc<str>], number: u32| names.get(number as usize).cloned().unwrap_or_default();
    let sent = |policy: u32, threshold: u64, rule: proto::WeightRule| Sent {
        policy: named(&policies, policy),
        threshold: Threshold(threshold),
        rule: WeightRule::from(rule),
    };
    let unit = |unit: &proto::SentUnit| SentUnit {
        sent: sent(unit.policy, unit.threshold, unit.weight_rule()),
        when_ms: unit.when_ms,
    };
    let kept = state.live.iter().map(|entry| SavedTrace {
        tenant: named(&tenants, entry.tenant),
        trace: entry.trace.unwrap_or_default().into(),
        state: state_from_proto(entry.state()),
        sent: Some(sent(entry.policy, entry.threshold, entry.weight_rule()))
            .filter(|sent| &*sent.policy != NOTHING),
        units: entry.sent.iter().map(unit).collect(),
        judged_ms: entry.when_ms,
        through: entry.through.unwrap_or_default().into(),
    });
    Saved {
        written_ms: state.written_at_ms,
        kept: kept.collect(),
        low_water: state.low_water.unwrap_or_default().into(),
        outbox_covered: state.outbox_covered.unwrap_or_default().into(),
        input_segment: state.input_segment,
        outbox_segment: state.outbox_segment,
        input: state.input.iter().map(|extent| Position::new(extent.segment, extent.end)).collect(),
        outbox: Known {
            is_lost: false,
            segments: state.outbox.iter().map(Extent::from).collect(),
            cursors: state
                .cursors
                .into_iter()
                .map(|at| (at.exporter, at.saved.unwrap_or_default().into()))
                .collect(),
        },
        learned: state.sketches,
        published_ms: state.thresholds_published_at_ms,
        budgets: state.budgets,
        tenants,
    }
}

impl SavedTrace {
    /// As the buffer remembers it.
    pub(super) fn remembered(self, tenant: TenantId) -> Remembered {
        Remembered {
            key: Key { trace: self.trace, tenant },
            state: self.state,
            sent: self.sent,
            units: self.units.into(),
            judged_ms: self.judged_ms,
            through: self.through,
        }
    }
}
