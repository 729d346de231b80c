//! Judges what is due: asks the policies, sends out what is kept, records the verdict.
//!
//! A judgement looks at a snapshot, outside every lock. A trace is judged by what was folded while its spans came; their
//! bytes are read only if a condition asks for them, or if it is kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::engine::{Engine, InForce};
use super::evidence::{Evidence, Located, ReachableSpans, ReadUnit};
use super::operations::{Names, Operations};
use crate::buffer::{
    Candidate, Judgement, Leaving, Lesson, Moment, Now, Root, SHARDS, Sent, Settlement, Which,
};
use crate::exporter::outbox::Outbox;
use crate::sampler::{Learned, Operation, Uniformity, Unit};
use crate::trace::{Decision, PolicyId, Randomness, Reason, TraceId, WeightRule};

/// Traces judged between two looks at a shard's lock.
const ROUND: usize = 512;

/// Counters of judgements; the ledger has the spans.
#[derive(Debug, Default)]
pub(super) struct JudgeTallies {
    by_reason: [AtomicU64; Reason::ALL.len()],
    pub(super) rootless: AtomicU64,
    /// Units of a root and nothing else. Many of them and many without a root: several instances get parts of one trace.
    pub(super) lone_roots: AtomicU64,
    pub(super) upgrades: AtomicU64,
    pub(super) inconsistent: AtomicU64,
    /// Units judged whole whose root has no start: they have no duration, and are not slow.
    pub(super) untimed: AtomicU64,
    /// Those whose root ends before it starts.
    pub(super) negative: AtomicU64,
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
            Judgement::Units if candidate.first => _ = self.rootless.fetch_add(1, Relaxed),
            Judgement::Whole if candidate.unjudged == 1 => _ = self.lone_roots.fetch_add(1, Relaxed),
            _ => {}
        }
    }

    /// What the clocks of a sender make of its roots.
    fn clocked(&self, root: &Root) {
        let tally = match root.start {
            0 => &self.untimed,
            _ if root.is_negative => &self.negative,
            _ => return,
        };
        tally.fetch_add(1, Relaxed);
    }

    /// What came with a `th` was sampled by its randomness, which is then not even.
    fn watch(&self, root: &Root, randomness: Randomness) {
        if !root.is_weighed {
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

    pub(super) fn partly_read(&self) {
        self.partly_read.fetch_add(1, Relaxed);
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
    pub(super) engine: Arc<Engine>,
    pub(super) outbox: Arc<Outbox>,
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

    /// Judges everything that waits, due or not. Memory may be short `after_round`: what leaves is remembered.
    pub(super) fn judge_all(&self, after_round: impl Fn()) {
        let now = self.engine.clock.now();
        let in_force = self.engine.policies.load();
        for shard in 0..SHARDS {
            loop {
                let moment = moment(now, &in_force);
                let all = self.engine.buffer.take_all(shard, moment, self.engine.frontier());
                if all.is_empty() {
                    break;
                }
                self.judge(shard, all, &in_force, now);
                after_round();
            }
        }
    }

    /// Judges what waits in a segment that will retire.
    pub(super) fn judge_segment(&self, segment: u32) {
        let now = self.engine.clock.now();
        let in_force = self.engine.policies.load();
        for shard in 0..SHARDS {
            loop {
                let (moment, through) = (moment(now, &in_force), self.engine.frontier());
                let listed = self.engine.buffer.take_listed(shard, segment, moment, through);
                if listed.is_empty() {
                    break;
                }
                self.judge(shard, listed, &in_force, now);
            }
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
            if let Settlement::Dropped(policy, _) | Settlement::Units(Some(policy), _) = settlement {
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
        match candidate.judgement {
            Judgement::Units => (self.judge_units(shard, candidate, in_force, now), None),
            Judgement::Root => self.judge_root(shard, candidate, in_force, now),
            Judgement::Follow => self.follow(shard, candidate, in_force, now),
            Judgement::Whole | Judgement::Again => self.judge_whole(shard, candidate, in_force, now),
        }
    }

    /// Asks the policies about all that is reachable of a trace that is judged as one.
    fn judge_whole(
        &self,
        shard: usize,
        candidate: &Candidate,
        in_force: &InForce,
        now: Now,
    ) -> (Settlement, Option<Lesson>) {
        let (decision, lesson) = self.decide_whole(shard, candidate, in_force, now);
        let again = candidate.judgement == Judgement::Again;
        // A drop that stands is no second drop; one that becomes a keep is a trace that is kept.
        if !again || decision.kept {
            self.engine.ledger.judged(decision.policy, decision.kept);
        }
        if !decision.kept {
            self.engine.ledger.dropped(decision.policy, u64::from(candidate.unjudged));
            self.engine.ledger.unbuffered(u64::from(candidate.unjudged));
            return (Settlement::Dropped(decision.policy, Leaving::default()), lesson);
        }
        let mut sent = self.sent(&decision, in_force);
        if again {
            self.tallies.upgrades.fetch_add(1, Relaxed);
            sent.rule = WeightRule::Zero;
        }
        self.send_all(shard, candidate, &sent, decision.policy, now);
        (Settlement::Kept(sent), lesson)
    }

    /// No policy is asked: the new spans leave by the verdict that holds.
    fn follow(
        &self,
        shard: usize,
        candidate: &Candidate,
        in_force: &InForce,
        now: Now,
    ) -> (Settlement, Option<Lesson>) {
        let verdict: Option<Sent> = candidate.sent.clone();
        let sent = verdict.expect("a kept trace has left by a verdict");
        let lesson = candidate.lesson.map(|lesson| {
            let spans = ReachableSpans::new(&self.engine, shard, candidate);
            self.corrected(lesson, folded(candidate, &spans, in_force).duration_ns())
        });
        self.send_all(shard, candidate, &sent, in_force.policies.id(&sent.policy), now);
        (Settlement::Kept(sent), lesson)
    }

    fn decide_whole(
        &self,
        shard: usize,
        candidate: &Candidate,
        in_force: &InForce,
        now: Now,
    ) -> (Decision, Option<Lesson>) {
        if candidate.divided {
            let root = self.root_of(candidate);
            let reading = self.read(shard, candidate, Which::Unsent);
            let unit = ReadUnit::fold(root.as_ref(), reading.unsent(), &in_force.policies);
            return self.decide(candidate, &unit.evidence(self.operations(candidate)), in_force, now);
        }
        let spans = ReachableSpans::new(&self.engine, shard, candidate);
        let decided = self.decide(candidate, &folded(candidate, &spans, in_force), in_force, now);
        if spans.partly_read() {
            self.tallies.partly_read();
        }
        decided
    }

    /// Asks the policies, and teaches the sketches what a unit with a root took.
    pub(super) fn decide(
        &self,
        candidate: &Candidate,
        evidence: &Evidence<'_>,
        in_force: &InForce,
        now: Now,
    ) -> (Decision, Option<Lesson>) {
        let operation = evidence.root.map(|root| Operation::from_words(root.operation));
        let duration = evidence.duration_ns();
        let randomness = self.engine.randomness(candidate.key.trace, &candidate.summary);
        let unit = Unit {
            bits: evidence.bits,
            randomness,
            operation,
            duration,
            earliest_start: evidence.earliest_start,
            latest_end: evidence.latest_end,
            spans: evidence.spans,
            dropped_by: candidate.dropped_by,
            again: candidate.judgement == Judgement::Again,
            now_ms: self.engine.clock.elapsed_ms(),
        };
        // A trace counts once, however many units it has.
        if let Some(root) = evidence.root.as_ref().filter(|_| candidate.judgement == Judgement::Whole) {
            self.tallies.watch(root, randomness);
            self.tallies.clocked(root);
        }
        let decision = in_force.policies.judge(&unit, &self.engine.slow);
        let lesson = match (candidate.lesson, operation, duration) {
            (Some(lesson), ..) => Some(self.corrected(lesson, duration)),
            (None, ..) => self.learn(candidate, evidence, now).map(Learned::to_words),
        };
        (decision, lesson)
    }

    /// Teaches the sketches what a unit took; one too that follows a verdict: what is slow is learned from all traffic,
    /// not from what hangs on dropped units alone.
    pub(super) fn learn(&self, candidate: &Candidate, evidence: &Evidence<'_>, now: Now) -> Option<Learned> {
        let operation = Operation::from_words(evidence.root?.operation);
        let name = || Some(Names::of(&evidence.spans.root()?).to_name(candidate.key.tenant));
        Some(self.engine.slow.observe(operation, &name, evidence.duration_ns()?, now.ms))
    }

    /// The duration may have grown since it was learned.
    fn corrected(&self, lesson: Lesson, duration_ns: Option<u64>) -> Lesson {
        match duration_ns {
            Some(duration) => self.engine.slow.correct(Learned::from_words(lesson), duration).to_words(),
            None => lesson,
        }
    }

    /// The verdict by which a kept unit leaves.
    pub(super) fn sent(&self, decision: &Decision, in_force: &InForce) -> Sent {
        let policy = in_force.policies.name(decision.policy).into();
        Sent { policy, threshold: decision.threshold, rule: self.engine.weight_rule() }
    }

    pub(super) fn root_of(&self, candidate: &Candidate) -> Option<Located> {
        candidate.root.and_then(|(root, _)| Located::of(&self.engine, root))
    }

    pub(super) fn operations<'a>(&self, candidate: &Candidate) -> Operations<'_, 'a> {
        Operations::new(&self.engine.slow, candidate.key.tenant)
    }
}

/// What was folded while the spans of a trace came.
fn folded<'a>(candidate: &Candidate, spans: &'a ReachableSpans<'_>, in_force: &InForce) -> Evidence<'a> {
    let summary = candidate.summary;
    let current = summary.generation == in_force.generation;
    Evidence {
        root: candidate.root.map(|(_, root)| root),
        bits: current.then_some(summary.bits),
        earliest_start: summary.earliest_start,
        latest_end: summary.latest_end,
        spans,
    }
}

fn moment(now: Now, in_force: &InForce) -> Moment {
    Moment { now, generation: in_force.generation, age_ms: 0 }
}
