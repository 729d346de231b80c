//! The core that every source of requests feeds: scan, log, index, in the order of the log.
//!
//! It waits for nothing and spawns nothing: time comes from the [`Clock`], files through the input log's
//! writer. A judge takes from it what is due; recovery feeds it what a former life had accepted.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use uuid::Uuid;

use super::clock::Clock;
use super::operations::Operations;
use super::recover;
use super::red::{self, Notes};
use crate::buffer::{
    Arriving, Batch, Buffer, Generation, Key, Moment, Now, SPAN_BYTES, Summary, TRACE_BYTES, Taken, Waits,
};
use crate::log::{Head, Memory, Record, SegmentHeader, StoredRecord, Writer};
use crate::otlp::{self, Malformed, OtState, Outline, SpanFacts};
use crate::sampler::{Policies, RootCondition, Slow};
use crate::telemetry::red::Red;
use crate::telemetry::{Ledger, ledger};
use crate::trace::{HashKey, Position, Randomness, TenantId, Tenants, TooManyTenants, TraceId, WeightRule};

/// Kinds of records in the input log: a request, and one with strings that are not UTF-8. The others need not be
/// looked at again when they leave.
pub(super) const KIND_REQUEST: u8 = 1;
pub(super) const KIND_REQUEST_NOT_UTF8: u8 = 2;

/// The largest message that is taken in, in bytes, decompressed and as protobuf.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// The policies in force and the number of their loading.
#[derive(Debug)]
pub struct InForce {
    pub policies: Policies,
    pub generation: Generation,
}

/// Counters of the engine; the ledger has the spans.
#[derive(Debug, Default)]
pub struct Tallies {
    pub late_spans: AtomicU64,
    pub strings_replaced: AtomicU64,
}

/// See the module.
#[derive(Debug)]
pub struct Engine {
    pub memory: Arc<Memory>,
    pub buffer: Buffer,
    pub policies: ArcSwap<InForce>,
    pub slow: Slow,
    pub ledger: Arc<Ledger>,
    pub tallies: Tallies,
    pub clock: Arc<dyn Clock>,
    /// None: `data.input: memory`.
    pub input: Option<Arc<Writer>>,
    pub max_wait_ms: AtomicU64,
    /// None: nobody asked for RED metrics.
    pub(super) red: Option<Arc<Red>>,
    /// None: randomness is the traces' own.
    hash_key: Option<HashKey>,
    /// What else counts as a root.
    roots: Option<RootCondition>,
    instance: Uuid,
    tenants: RwLock<Tenants>,
    /// Held from the place in the log to the first shard of the index: positions are handed out, written
    /// and indexed in one order.
    order: Mutex<()>,
    /// End of the last record that is indexed, as are all before it.
    indexed: AtomicU64,
}

/// A request that was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Where the record behind it begins; nothing was stored if there is none.
    pub end: Option<Position>,
    pub spans: u32,
    /// Spans that are not OTLP, and what is wrong with the first.
    pub rejected: u32,
    pub fault: Option<String>,
}

/// Why a request was not stored.
#[derive(Debug, thiserror::Error)]
pub enum Unstored {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    Tenants(#[from] TooManyTenants),
    #[error("the request has {0} bytes, at most {MESSAGE_BYTES_MAX} are taken")]
    TooLarge(usize),
    #[error("log and index have no room for the request")]
    NoRoom,
}

thread_local! {
    static BATCH: RefCell<Batch> = RefCell::default();
}

impl Engine {
    pub fn new(parts: Parts) -> Self {
        let Parts {
            memory,
            buffer,
            policies,
            roots,
            slow,
            ledger,
            clock,
            input,
            max_wait_ms,
            hash_key,
            instance,
        } = parts;
        Self {
            memory,
            buffer,
            policies: ArcSwap::from_pointee(InForce { policies, generation: Generation(0) }),
            slow,
            ledger,
            tallies: Tallies::default(),
            clock,
            input,
            max_wait_ms: AtomicU64::new(max_wait_ms),
            red: None,
            hash_key,
            roots,
            instance,
            tenants: RwLock::default(),
            order: Mutex::default(),
            indexed: AtomicU64::default(),
        }
    }

    /// Counts all traffic by service, span name and kind.
    #[must_use]
    pub fn counting(mut self, red: Arc<Red>) -> Self {
        self.red = Some(red);
        self
    }

    /// Puts other policies and waits in force. To be called between judgements: verdicts under the old ones are counted.
    pub(super) fn reload(&self, in_force: InForce, waits: Waits) {
        let InForce { policies, generation } = in_force;
        let policies = policies.continuing(&self.policies.load().policies);
        let in_force = InForce { policies, generation };
        self.slow.set_percentiles(&in_force.policies.percentiles());
        self.ledger.begin(in_force.policies.names());
        self.buffer.set_waits(waits);
        self.max_wait_ms.store(waits.max_wait_ms, Ordering::Relaxed);
        self.policies.store(Arc::new(in_force));
    }

    /// Stores and indexes a request. It is safe to acknowledge when the input log has written up to
    /// [`Stored::end`]. `room` is asked for the bytes that log and index take for it at most.
    pub fn receive(
        &self,
        tenant: &str,
        body: &[u8],
        room: impl FnOnce(usize) -> bool,
    ) -> Result<Stored, Unstored> {
        if body.len() > MESSAGE_BYTES_MAX {
            return Err(Unstored::TooLarge(body.len()));
        }
        let tenant_id = self.tenant(tenant)?;
        BATCH.with_borrow_mut(|batch| {
            let in_force = self.policies.load();
            let scanned = self.scan(tenant_id, body, &in_force.policies, batch)?;
            if scanned.rejected > 0 {
                self.ledger.rejected(ledger::INVALID, scanned.rejected.into());
            }
            let mut stored = Stored {
                end: None,
                spans: batch.len() as u32,
                rejected: scanned.rejected,
                fault: scanned.first_rejection.map(|fault| fault.to_string()),
            };
            if !batch.is_empty() {
                if !room(body.len() + batch.len() * (SPAN_BYTES + TRACE_BYTES)) {
                    return Err(Unstored::NoRoom);
                }
                let now = self.clock.now();
                let moment = Moment { now, generation: in_force.generation, age_ms: 0 };
                let kind = if scanned.strings_replaced == 0 { KIND_REQUEST } else { KIND_REQUEST_NOT_UTF8 };
                stored.end = Some(self.store(tenant, kind, body, batch, moment));
                if let Some(red) = &self.red {
                    red::count(red, tenant, body);
                }
            }
            Ok(stored)
        })
    }

    fn scan(
        &self,
        tenant: TenantId,
        body: &[u8],
        policies: &Policies,
        batch: &mut Batch,
    ) -> Result<otlp::Scanned, Malformed> {
        batch.clear();
        let mut notes = self.red.as_ref().map(|_| Notes::begin());
        let mut roots = self.roots.as_ref().map(RootCondition::asking);
        let mut folding = policies.folding();
        let mut operations = Operations::new(&self.slow, tenant);
        let scanned = otlp::scan_for(policies.keys(), body, |span, seen| {
            let key = Key { trace: span.trace_id, tenant };
            let is_root = span.parent.is_none() || roots.as_mut().is_some_and(|it| it.holds(span));
            let state = otlp::ot(span.trace_state);
            let root = is_root.then(|| operations.root(span, &state));
            batch.push(self.buffer.route(key, arriving(span, &state, folding.fold(span, seen))), root);
            if let Some(notes) = &mut notes {
                notes.note(body, span);
            }
        });
        notes.into_iter().for_each(Notes::keep);
        let scanned = scanned?;
        self.tallies.strings_replaced.fetch_add(u64::from(scanned.strings_replaced), Ordering::Relaxed);
        Ok(scanned)
    }

    /// Appends, hands to the writer and indexes. Returns where the next record begins.
    fn store(&self, tenant: &str, kind: u8, body: &[u8], batch: &mut Batch, moment: Moment) -> Position {
        let arrival_ms = moment.now.ms;
        let record = Record { arrival_ms, tenant, kind, more: false, member: 0, body };
        let head = Head::new(&record).expect("messages and tenants are bounded before");
        let outline = Outline::note(body).into();
        self.ledger.accepted(batch.len() as u64);
        self.ledger.buffered(batch.len() as u64);
        let order = self.order.lock();
        let appended = self.memory.append_noted(head.as_bytes(), body, outline, arrival_ms);
        if let Some(input) = &self.input {
            let opened = appended.opened.then(|| self.header(appended.record.at.segment, arrival_ms));
            input.append(appended.record.at, opened, appended.record.bytes.clone(), Bytes::new());
        }
        let at = appended.record.at;
        let body_at = Position::new(at.segment, at.offset + head.as_bytes().len() as u32);
        let taken = self.buffer.insert(batch, body_at, moment, || drop(order));
        self.charge(at.segment, taken);
        let end = appended.record.end();
        self.indexed.fetch_max(end.to_u64(), Ordering::AcqRel);
        end
    }

    fn header(&self, number: u32, opened_ms: u64) -> SegmentHeader {
        let uuid = recover::segment_uuid(self.instance, self.memory.first_segment(), number);
        SegmentHeader { number, uuid, opened_ms, attributes: Bytes::new() }
    }

    /// Indexes a record of a former life that is back in memory at its old place. None: it is no request.
    pub fn replay(&self, record: &StoredRecord, now: Now, age_ms: u64) -> Option<Taken> {
        let parsed = record.parse().ok()?;
        let tenant = self.tenant(parsed.tenant).ok()?;
        let body = &record.bytes[parsed.body()];
        BATCH.with_borrow_mut(|batch| {
            let in_force = self.policies.load();
            self.scan(tenant, body, &in_force.policies, batch).ok()?;
            let body_at = Position::new(record.at.segment, record.at.offset + parsed.body_at as u32);
            let moment = Moment { now, generation: in_force.generation, age_ms };
            let taken = self.buffer.insert(batch, body_at, moment, || ());
            self.ledger.recovered(u64::from(taken.spans));
            self.ledger.buffered(u64::from(taken.spans));
            self.charge(record.at.segment, taken);
            self.indexed.fetch_max(record.end().to_u64(), Ordering::AcqRel);
            Some(taken)
        })
    }

    /// All that a former life left is indexed; what comes begins with segment `first`. A life that reads or
    /// receives nothing has a frontier too: its low-water must not lie before that of the life before.
    pub fn replayed(&self, first: u32) {
        self.indexed.fetch_max(Position::new(first, 0).to_u64(), Ordering::AcqRel);
    }

    fn charge(&self, segment: u32, taken: Taken) {
        let bytes = taken.spans as usize * SPAN_BYTES + taken.traces as usize * TRACE_BYTES;
        self.memory.charge(segment, bytes);
        self.tallies.late_spans.fetch_add(u64::from(taken.late), Ordering::Relaxed);
    }

    /// Everything before this is written and indexed: where a snapshot ends.
    pub fn frontier(&self) -> Position {
        let indexed = Position::from_u64(self.indexed.load(Ordering::Acquire));
        self.input.as_ref().map_or(indexed, |input| indexed.min(input.written()))
    }

    /// The record of the oldest span that is not judged yet, else the frontier. Meaningful between judgements.
    pub fn low_water(&self) -> Position {
        let frontier = self.frontier();
        let waiting = self.buffer.low_water().map_or(frontier, |waiting| waiting.min(frontier));
        self.memory.record_of(waiting).map_or(waiting, |record| record.at)
    }

    /// What shares of a trace are compared with.
    pub fn randomness(&self, trace: TraceId, summary: &Summary) -> Randomness {
        self.hash_key.map_or_else(|| summary.randomness(trace), |key| key.randomness(trace))
    }

    /// The same of a trace of which only the identifier is left.
    pub fn randomness_of_id(&self, trace: TraceId) -> Randomness {
        self.hash_key.map_or_else(|| Randomness::of_trace(trace), |key| key.randomness(trace))
    }

    /// How what is kept at its first verdict is weighed.
    pub fn weight_rule(&self) -> WeightRule {
        if self.hash_key.is_some() { WeightRule::Hashed } else { WeightRule::Threshold }
    }

    /// The number of a tenant.
    pub fn tenant(&self, name: &str) -> Result<TenantId, TooManyTenants> {
        if let Some(known) = self.tenants.read().get(name) {
            return Ok(known);
        }
        self.tenants.write().intern(name)
    }

    pub(super) fn tenants(&self) -> Vec<(TenantId, Arc<str>)> {
        self.tenants.read().all().map(|(id, name)| (id, name.clone())).collect()
    }

    /// How much traffic the memory log holds.
    pub(super) fn window_ms(&self) -> u64 {
        let opened = self.memory.oldest().map(|oldest| oldest.opened_ms());
        opened.map_or(0, |opened| self.clock.arrival_ms().saturating_sub(opened))
    }

    pub fn tenant_name(&self, id: TenantId) -> Arc<str> {
        self.tenants.read().name(id).clone()
    }

    /// When the request that holds a span arrived.
    pub fn arrival_ms_of(&self, at: Position) -> Option<u64> {
        let record = self.memory.record_of(at)?;
        record.parse().ok().map(|parsed| parsed.arrival_ms)
    }

    /// The request that holds a span.
    pub fn request_of(&self, at: Position) -> Option<Request> {
        let record = self.memory.record_of(at)?;
        let parsed = record.parse().ok()?;
        let at = record.at.offset + parsed.body_at as u32;
        let body = record.bytes.slice(parsed.body());
        Some(Request { at, body, utf8: parsed.kind == KIND_REQUEST, outline: record.notes })
    }
}

/// A request in the memory log.
#[derive(Clone, Debug)]
pub struct Request {
    /// Where it begins in its segment.
    pub at: u32,
    pub body: Bytes,
    /// All its strings are UTF-8.
    pub utf8: bool,
    /// Words of its [`Outline`].
    pub outline: Arc<[u32]>,
}

/// What an [`Engine`] is made of.
#[derive(Debug)]
pub struct Parts {
    pub memory: Arc<Memory>,
    pub buffer: Buffer,
    pub policies: Policies,
    pub roots: Option<RootCondition>,
    pub slow: Slow,
    pub ledger: Arc<Ledger>,
    pub clock: Arc<dyn Clock>,
    pub input: Option<Arc<Writer>>,
    pub max_wait_ms: u64,
    /// None: randomness is the traces' own.
    pub hash_key: Option<HashKey>,
    /// Of the data directory.
    pub instance: Uuid,
}

#[inline]
fn arriving(span: &SpanFacts<'_>, state: &OtState, bits: u32) -> Arriving {
    let SpanFacts { at, len, start, end, .. } = *span;
    Arriving { at, len, bits, start, end, randomness: state.rv }
}
