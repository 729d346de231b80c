//! Judges what is due: asks the policies, sends out what is kept, records the verdict.
//!
//! A judgement looks at a snapshot, outside every lock. A trace that is dropped is judged by what was folded
//! while its spans came and by its root; the bytes of its other spans are read only if a condition asks for
//! them, or if it is kept.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::engine::{Engine, InForce, Request};
use super::piece::{self, Parcel};
use super::red;
use crate::buffer::{Candidate, Judgement, Lesson, Moment, Now, SHARDS, Sent, Settlement, SpanRef};
use crate::exporter::outbox::{Kept, Outbox};
use crate::otlp::{self, Outline, SpanView, ValueView};
use crate::sampler::{Learned, OperationKey, ReadSpans, Size, Spans, Uniformity, Unit, UnitSpan};
use crate::trace::{Decision, PolicyId, Position, Randomness, Reason, TenantId, TraceId, WeightRule};

/// Traces judged between two looks at a shard's lock.
const ROUND: usize = 512;

/// Bytes of spans that the conditions of one judgement read.
const READ_BYTES_MAX: usize = 16 << 20;

/// Counters of judgements; the ledger has the spans.
#[derive(Debug, Default)]
pub(super) struct JudgeTallies {
    by_reason: [AtomicU64; Reason::ALL.len()],
    pub(super) rootless: AtomicU64,
    /// Units of a root and nothing else. Many of them and many without a root: several instances get parts of one trace.
    pub(super) lone_roots: AtomicU64,
    pub(super) upgrades: AtomicU64,
    pub(super) inconsistent: AtomicU64,
    /// Judgements of which the conditions did not read all spans.
    pub(super) partly_read: AtomicU64,
    /// Of traces with a root that came without `th`.
    pub(super) uniformity: Uniformity,
    /// 1: the randomness of traces is not random.
    pub(super) skewed: AtomicBool,
    /// Milliseconds from the opening of a trace to its judgement, summed.
    pub(super) waited_ms: AtomicU64,
}

impl JudgeTallies {
    fn judged(&self, candidate: &Candidate) {
        self.by_reason[candidate.reason as usize].fetch_add(1, Relaxed);
        self.waited_ms.fetch_add(candidate.age_ms, Relaxed);
        match candidate.judgement {
            Judgement::Unit { whole: false } => _ = self.rootless.fetch_add(1, Relaxed),
            Judgement::Unit { whole: true } if candidate.unjudged == 1 => {
                self.lone_roots.fetch_add(1, Relaxed);
            }
            _ => {}
        }
    }

    /// What came with a `th` was sampled by its randomness, which is then not even.
    fn watch(&self, root: &UnitSpan<'_>, randomness: Randomness) {
        if otlp::ot(root.span.trace_state_bytes()).th.is_none() {
            self.uniformity.count(randomness);
        }
    }

    /// Tells when randomness ceases to be random, and when it is again.
    pub(super) fn alert(&self) {
        let skewed = self.uniformity.is_skewed();
        match (self.skewed.swap(skewed, Relaxed), skewed) {
            (false, true) => tracing::warn!(
                "the low 56 bits of trace IDs are not random: shares and weights are not true; \
                 `randomness: hash` helps if the IDs differ elsewhere"
            ),
            (true, false) => tracing::info!("trace IDs are random again"),
            _ => {}
        }
    }

    pub(super) fn by_reason(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Reason::ALL.iter().map(|reason| (reason.name(), self.by_reason[*reason as usize].load(Relaxed)))
    }
}

/// Is told of verdicts by which nothing leaves; all others are in the outbox.
pub trait Witness: std::fmt::Debug + Send + Sync {
    fn dropped(&self, tenant: &str, trace: TraceId, policy: PolicyId);
}

/// See the module. One judge an engine.
#[derive(Debug)]
pub(super) struct Judge {
    engine: Arc<Engine>,
    outbox: Arc<Outbox>,
    pub(super) tallies: Arc<JudgeTallies>,
    pub(super) witness: Option<Arc<dyn Witness>>,
}

impl Judge {
    pub(super) fn new(engine: Arc<Engine>, outbox: Arc<Outbox>, tallies: Arc<JudgeTallies>) -> Self {
        Self { engine, outbox, tallies, witness: None }
    }

    /// Judges what is due now, in rounds, while `may_go_on`. Returns how many traces that were.
    pub(super) fn judge_due(&self, may_go_on: impl Fn() -> bool) -> usize {
        let now = self.engine.clock.now();
        let mut judged = 0;
        for shard in 0..SHARDS {
            loop {
                let in_force = self.engine.policies.load();
                let moment = moment(now, &in_force);
                let through = self.engine.frontier();
                let due = self.engine.buffer.take_due(shard, moment, through, ROUND);
                let count = due.len();
                self.judge(shard, due, &in_force, now);
                judged += count;
                if count > 0 && !may_go_on() {
                    return judged;
                }
                if count < ROUND {
                    break;
                }
            }
        }
        judged
    }

    /// Judges everything that waits, due or not.
    pub(super) fn judge_all(&self) {
        let now = self.engine.clock.now();
        let in_force = self.engine.policies.load();
        for shard in 0..SHARDS {
            let all = self.engine.buffer.take_all(shard, moment(now, &in_force), self.engine.frontier());
            self.judge(shard, all, &in_force, now);
        }
    }

    /// Judges what waits in a segment that will retire.
    pub(super) fn judge_segment(&self, segment: u32) {
        let now = self.engine.clock.now();
        let in_force = self.engine.policies.load();
        for shard in 0..SHARDS {
            let through = self.engine.frontier();
            let listed = self.engine.buffer.take_listed(shard, segment, moment(now, &in_force), through);
            self.judge(shard, listed, &in_force, now);
        }
    }

    fn judge(&self, shard: usize, candidates: Vec<Candidate>, in_force: &InForce, now: Now) {
        if candidates.is_empty() {
            return;
        }
        let verdicts: Vec<_> = candidates
            .into_iter()
            .map(|candidate| {
                let (settlement, lesson) = self.verdict(shard, &candidate, in_force, now);
                (candidate, settlement, lesson)
            })
            .collect();
        if let Some(witness) = &self.witness {
            self.tell(&**witness, &verdicts);
        }
        let charge = |segment, bytes| self.engine.memory.charge(segment, bytes);
        self.engine.buffer.settle(shard, verdicts.into_iter(), moment(now, in_force), charge);
    }

    fn tell(&self, witness: &dyn Witness, verdicts: &[(Candidate, Settlement, Option<Lesson>)]) {
        for (candidate, settlement, _) in verdicts {
            if let Settlement::Dropped(policy) = settlement {
                let tenant = self.engine.tenant_name(candidate.key.tenant);
                witness.dropped(&tenant, candidate.key.trace, *policy);
            }
        }
    }

    /// Decides one trace; what is kept is in the outbox when this returns.
    fn verdict(
        &self,
        shard: usize,
        candidate: &Candidate,
        in_force: &InForce,
        now: Now,
    ) -> (Settlement, Option<Lesson>) {
        self.tallies.judged(candidate);
        if let Some(sent) = candidate.sent.clone().filter(|_| candidate.judgement == Judgement::Follow) {
            let root = self.root_of(candidate);
            let lesson = candidate.lesson.map(|lesson| self.corrected(lesson, root.as_ref(), candidate));
            self.send(shard, candidate, &sent, in_force.policies.id(&sent.policy), now);
            return (Settlement::Kept(sent), lesson);
        }
        let (decision, lesson) = self.decide(shard, candidate, in_force, now);
        let again = candidate.judgement == Judgement::Again;
        // A drop that stands is no second drop; one that becomes a keep is a trace that is kept.
        if !again || decision.kept {
            self.engine.ledger.judged(decision.policy, decision.kept);
        }
        if !decision.kept {
            self.engine.ledger.dropped(decision.policy, u64::from(candidate.unjudged));
            self.engine.ledger.unbuffered(u64::from(candidate.unjudged));
            return (Settlement::Dropped(decision.policy), lesson);
        }
        if again {
            self.tallies.upgrades.fetch_add(1, Relaxed);
        }
        let sent = Sent {
            policy: in_force.policies.name(decision.policy).into(),
            threshold: decision.threshold,
            rule: if again { WeightRule::Zero } else { self.engine.weight_rule() },
        };
        self.send(shard, candidate, &sent, decision.policy, now);
        (Settlement::Kept(sent), lesson)
    }

    /// Asks the policies, and teaches the sketches what a unit with a root took.
    fn decide(
        &self,
        shard: usize,
        candidate: &Candidate,
        in_force: &InForce,
        now: Now,
    ) -> (Decision, Option<Lesson>) {
        let root = self.root_of(candidate);
        let root_span = root.as_ref().and_then(Located::unit_span);
        let names = root_span.as_ref().map(Operation::of);
        let tenant = candidate.key.tenant;
        let operation = names.as_ref().map(|names| names.key(tenant));
        let duration = root.as_ref().and_then(|root| duration_ns(root, candidate));
        let reachable = ReachableSpans { judge: self, shard, candidate, read: OnceCell::new() };
        let randomness = self.engine.randomness(candidate.key.trace, &candidate.summary);
        let unit = Unit {
            bits: (candidate.summary.generation == in_force.generation).then_some(candidate.summary.bits),
            randomness,
            root: root_span,
            operation,
            duration,
            earliest_start: candidate.summary.earliest_start,
            latest_end: candidate.summary.latest_end,
            spans: &reachable,
            dropped_by: candidate.dropped_by,
            again: candidate.judgement == Judgement::Again,
            now_ms: self.engine.clock.elapsed_ms(),
        };
        if let Some(root) = root_span.as_ref().filter(|_| !unit.again) {
            self.tallies.watch(root, randomness);
        }
        let decision = in_force.policies.judge(&unit, &self.engine.slow);
        let lesson = match (candidate.lesson, operation, duration) {
            (Some(lesson), ..) => Some(self.corrected(lesson, root.as_ref(), candidate)),
            (None, Some(operation), Some(duration)) => {
                Some(self.engine.slow.observe(operation, duration, now.ms).to_words())
            }
            _ => None,
        };
        (decision, lesson)
    }

    /// The duration may have grown since it was learned.
    fn corrected(&self, lesson: Lesson, root: Option<&Located>, candidate: &Candidate) -> Lesson {
        match root.and_then(|root| duration_ns(root, candidate)) {
            Some(duration) => self.engine.slow.correct(Learned::from_words(lesson), duration).to_words(),
            None => lesson,
        }
    }

    fn root_of(&self, candidate: &Candidate) -> Option<Located> {
        candidate.root.and_then(|root| self.located(root))
    }

    /// Puts the pieces of a kept unit into the outbox, as one group.
    fn send(&self, shard: usize, candidate: &Candidate, sent: &Sent, policy: PolicyId, now: Now) {
        let reachable = self.engine.buffer.reachable(shard, candidate);
        let old = reachable.first_unjudged as u64;
        let bodies: Vec<Located> = reachable.spans.iter().filter_map(|span| self.located(*span)).collect();
        let parcel = Parcel {
            candidate,
            sent,
            complete: reachable.complete,
            decided_at_ms: now.ms,
            randomness: self.engine.randomness(candidate.key.trace, &candidate.summary),
        };
        let packed = piece::pack(&parcel, &bodies);
        let tenant = self.engine.tenant_name(candidate.key.tenant);
        let group: Vec<Kept<'_>> =
            packed.pieces.iter().map(|piece| Kept { tenant: &tenant, piece }).collect();
        // It is closed when its disk has failed: the process ends, and the next one judges again.
        if let Err(error) = self.outbox.append_group(&group, now.ms) {
            return tracing::error!(%error, "outbox takes nothing any more");
        }
        let ledger = &self.engine.ledger;
        ledger.upgraded(old);
        ledger.duplicate(packed.duplicates);
        ledger.kept(policy, packed.spans);
        ledger.unbuffered(u64::from(candidate.unjudged));
        self.tallies.inconsistent.fetch_add(packed.inconsistent, Relaxed);
        if let Some(red) = &self.engine.red {
            red::examples(red, &tenant, &packed.pieces, now.ms);
        }
    }

    /// The request that holds a span.
    fn located(&self, span: SpanRef) -> Option<Located> {
        self.located_after(span, &mut None)
    }

    /// The request that holds a span, which often is the `last`, in a segment.
    fn located_after(&self, span: SpanRef, last: &mut Option<(u32, Request)>) -> Option<Located> {
        let Position { segment, offset } = span.position();
        let holds = |(of, request): &(u32, Request)| {
            *of == segment && (request.at..request.at + request.body.len() as u32).contains(&offset)
        };
        if !last.as_ref().is_some_and(holds) {
            *last = Some((segment, self.engine.request_of(span.position())?));
        }
        let (_, request) = last.clone()?;
        Some(Located { at: offset - request.at, len: span.len(), request })
    }
}

/// A span in its request.
#[derive(Clone, Debug)]
pub(super) struct Located {
    pub(super) request: Request,
    /// Of the span message in the request.
    pub(super) at: u32,
    pub(super) len: u32,
}

impl Located {
    pub(super) fn message(&self) -> &[u8] {
        &self.request.body[self.at as usize..(self.at + self.len) as usize]
    }

    fn unit_span(&self) -> Option<UnitSpan<'_>> {
        let place = Outline::new(&self.request.outline).locate(&self.request.body, self.at)?;
        Some(UnitSpan {
            span: SpanView::new(self.message()),
            resource_spans: place.resource_spans,
            scope_spans: place.scope_spans,
        })
    }
}

/// The spans of a judgement, read when a condition first asks for them.
struct ReachableSpans<'a> {
    judge: &'a Judge,
    shard: usize,
    candidate: &'a Candidate,
    read: OnceCell<(Vec<Located>, bool)>,
}

impl ReachableSpans<'_> {
    /// The newest spans, as many as may be read, and whether that is all. What is new is the newest.
    fn newest(&self) -> (Vec<Located>, bool) {
        let reachable = self.judge.engine.buffer.reachable(self.shard, self.candidate);
        let mut room = READ_BYTES_MAX;
        let newest = reachable.spans.iter().rev().take_while(|span| {
            let fits = span.len() as usize <= room;
            room = room.saturating_sub(span.len() as usize);
            fits
        });
        let mut last = None;
        let located: Vec<_> = newest.map(|span| self.judge.located_after(*span, &mut last)).collect();
        let complete = located.len() == reachable.spans.len();
        if !complete {
            self.judge.tallies.partly_read.fetch_add(1, Relaxed);
        }
        (located.into_iter().flatten().collect(), complete)
    }
}

impl Spans for ReachableSpans<'_> {
    fn read(&self) -> ReadSpans<'_> {
        let (located, complete) = self.read.get_or_init(|| self.newest());
        ReadSpans { spans: located.iter().filter_map(Located::unit_span).collect(), complete: *complete }
    }

    fn size(&self) -> Size {
        let reachable = self.judge.engine.buffer.reachable(self.shard, self.candidate);
        let bytes = reachable.spans.iter().map(|span| u64::from(span.len())).sum();
        Size { spans: reachable.spans.len() as u64, bytes }
    }
}

/// The names that an operation goes by.
struct Operation<'a> {
    service: Cow<'a, str>,
    name: Cow<'a, str>,
}

impl<'a> Operation<'a> {
    /// Of duplicate attributes the last counts.
    fn of(root: &UnitSpan<'a>) -> Self {
        let attributes = root.resource_spans.resource().attributes();
        let services = attributes.filter(|attribute| attribute.key_bytes() == b"service.name");
        let service = match services.last().map(|attribute| attribute.value()) {
            Some(ValueView::String(name)) => String::from_utf8_lossy(name),
            _ => Cow::Borrowed(""),
        };
        Self { service, name: root.span.name() }
    }

    fn key(&self, tenant: TenantId) -> OperationKey<'_> {
        OperationKey { tenant, service: &self.service, name: &self.name }
    }
}

/// The larger of the root's own duration and the time from its start to the latest end; none without a start.
fn duration_ns(root: &Located, candidate: &Candidate) -> Option<u64> {
    let root = SpanView::new(root.message());
    let start = root.start();
    (start != 0).then(|| root.end().max(candidate.summary.latest_end).saturating_sub(start))
}

fn moment(now: Now, in_force: &InForce) -> Moment {
    Moment { now, generation: in_force.generation, age_ms: 0 }
}
