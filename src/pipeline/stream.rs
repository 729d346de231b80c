//! Judges a stream: a trace whose spans keep coming, by units.
//!
//! Each unit among the new spans has a verdict of its own, asked of the policies or followed from the unit
//! that it hangs on. A unit that is kept takes along what stands above it and below it, and a span whose child
//! has left leaves too, so that everything can be read in its place; what leaves only for that weighs nothing.

use std::collections::{HashMap, HashSet};

use super::engine::InForce;
use super::evidence::{Finder, Located, ReadUnit};
use super::forest::{Forest, Node, Shape, Standing, Walk};
use super::judge::Judge;
use super::piece::Parcel;
use super::sending::Shipment;
use crate::buffer::{
    By, Candidate, Dropped, Leaving, Lesson, Mark, Member, Now, Sent, SentUnit, Settlement, State, UNITS_MAX,
    Which, on_root_dropped,
};
use crate::trace::{PolicyId, Reason, WeightRule};

/// A span that a judgement has read.
#[derive(Debug)]
struct Seen {
    member: Member,
    located: Located,
    is_new: bool,
}

/// The spans that a judgement has read, oldest first, and how they hang together.
#[derive(Debug)]
pub(super) struct Reading {
    seen: Vec<Seen>,
    forest: Forest,
    /// Retries of new spans: their numbers in the index, and the span that they repeat.
    repeats: Vec<(u32, usize)>,
    /// Nothing of the trace had left the log.
    complete: bool,
    /// There was more than a judgement may read.
    partly: bool,
}

/// Spans that leave by one verdict and weight rule.
#[derive(Debug)]
struct Record {
    sent: Sent,
    policy: PolicyId,
    reason: Reason,
    spans: Vec<usize>,
}

/// What became of a unit.
#[derive(Debug)]
enum Fate {
    Kept { sent: Sent, policy: PolicyId, by: By },
    Dropped(PolicyId),
}

/// A unit has a record of its own, as long as there are no more of them; beyond that the units that leave by one
/// verdict share one. A record takes the resources of its spans along, and costs many times a small span.
const RECORDS_MAX: usize = 1024;

/// What leaves, as it is found out.
#[derive(Debug, Default)]
struct Exits {
    records: Vec<Record>,
    /// By number in the reading.
    by: HashMap<usize, By, foldhash::fast::RandomState>,
    verdicts: Vec<Sent>,
}

impl Judge {
    /// Judges the units among the new spans.
    pub(super) fn judge_units(
        &self,
        shard: usize,
        candidate: &Candidate,
        in_force: &InForce,
        now: Now,
    ) -> Settlement {
        // What was dropped is read only if something leaves that it could leave with.
        let mut reading = self.read(shard, candidate, Which::NewAndSent);
        let earlier = self.engine.buffer.sent_units(shard, candidate);
        let mut units = reading.forest.units();
        let reopened_ms = self.engine.arrival_ms_of(candidate.first_unjudged).unwrap_or(now.ms);
        let fate = |unit: &Shape| match self.followed(&reading, unit, &earlier, reopened_ms) {
            Some((by, sent)) => {
                let spans = reading.unit(unit, in_force);
                self.learn(candidate, &spans.evidence(self.operations(candidate)), now);
                Fate::Kept { sent: sent.clone(), policy: in_force.policies.id(&sent.policy), by }
            }
            None => self.judge_unit(candidate, &reading, unit, in_force, now),
        };
        let fates: Vec<Fate> = units.iter().map(fate).collect();
        let leaves = fates.iter().any(|fate| matches!(fate, Fate::Kept { .. })) || reading.has_late_parent();
        if leaves && !candidate.first {
            drop(reading);
            reading = self.read(shard, candidate, Which::All);
            // The same units in the same order: they are made of new spans.
            units = reading.forest.units();
        }
        let mut exits = Exits::default();
        exits.take(candidate, &units, &fates);
        exits.take_along(&reading, &units, &fates);
        exits.late_parents(candidate, &reading, &earlier, in_force);
        let dropped_by = self.count_dropped(&units, &fates, &exits);
        drop((units, fates));
        let leaving = self.send_exits(candidate, &reading, exits, State::Stream, now);
        Settlement::Units(dropped_by, leaving)
    }

    /// Judges the root of a stream with all that has not left.
    pub(super) fn judge_root(
        &self,
        shard: usize,
        candidate: &Candidate,
        in_force: &InForce,
        now: Now,
    ) -> (Settlement, Option<Lesson>) {
        let reading = self.read(shard, candidate, Which::All);
        let root = self.root_of(candidate);
        let unit = ReadUnit::fold(root.as_ref(), reading.unsent(), &in_force.policies);
        let evidence = unit.evidence(self.operations(candidate));
        let (decision, lesson) = self.decide(candidate, &evidence, in_force, now);
        self.engine.ledger.judged(decision.policy, decision.kept);
        if decision.kept {
            let sent = self.sent(&decision, in_force);
            self.send_all(shard, candidate, &sent, decision.policy, now);
            return (Settlement::Kept(sent), lesson);
        }
        let mut exits = Exits::default();
        if let Some(last) = &candidate.sent
            && on_root_dropped(candidate.sent.is_some()) == Dropped::RootLeaves
        {
            let is_root =
                |seen: &Seen| candidate.root.map(|(root, _)| root.position()) == Some(seen.position());
            let root = reading.seen.iter().position(is_root);
            exits.leave(in_force.context(last, root.into_iter().collect()), By::Alone);
            let earlier = self.engine.buffer.sent_units(shard, candidate);
            exits.late_parents(candidate, &reading, &earlier, in_force);
        }
        let stays = (0..reading.seen.len()).filter(|span| reading.seen[*span].is_new && !exits.has(*span));
        self.engine.ledger.dropped(decision.policy, stays.count() as u64);
        let leaving = self.send_exits(candidate, &reading, exits, State::Dropped, now);
        (Settlement::Dropped(decision.policy, leaving), lesson)
    }

    /// The new spans, then the newest others.
    pub(super) fn read(&self, shard: usize, candidate: &Candidate, which: Which) -> Reading {
        let piece_bytes = self.engine.buffer.piece_bytes();
        let stretch = self.engine.buffer.stretch(shard, candidate, which, None, piece_bytes);
        let members = stretch.members.iter().rev();
        let mut finder = Finder::new(&self.engine);
        let seen: Vec<Seen> = members
            .filter_map(|member| {
                let located = finder.find(member.span)?;
                let is_new = member.span.position() >= candidate.first_unjudged;
                Some(Seen { member: *member, located, is_new })
            })
            .collect();
        Reading { partly: stretch.next.is_some(), ..Reading::of(seen, stretch.complete) }
    }

    /// The verdict that a unit follows: that of the unit that it hangs on, while it holds.
    fn followed<'a>(
        &self,
        reading: &Reading,
        unit: &Shape,
        earlier: &'a [SentUnit],
        reopened_ms: u64,
    ) -> Option<(By, &'a Sent)> {
        let hindsight_ms = self.engine.buffer.hindsight_ms();
        reading.forest.parents(unit.root?).find_map(|parent| {
            let Mark::Unit(number) = reading.seen[parent].mark() else { return None };
            let verdict = number.of(earlier)?;
            let holds = reopened_ms.saturating_sub(verdict.when_ms) < hindsight_ms;
            holds.then_some((By::Unit(number), &verdict.sent))
        })
    }

    fn judge_unit(
        &self,
        candidate: &Candidate,
        reading: &Reading,
        unit: &Shape,
        in_force: &InForce,
        now: Now,
    ) -> Fate {
        let spans = reading.unit(unit, in_force);
        let evidence = spans.evidence(self.operations(candidate));
        let (decision, _) = self.decide(candidate, &evidence, in_force, now);
        self.engine.ledger.judged(decision.policy, decision.kept);
        if !decision.kept {
            return Fate::Dropped(decision.policy);
        }
        let sent = self.sent(&decision, in_force);
        Fate::Kept { sent, policy: decision.policy, by: By::Verdict(0) }
    }

    /// Counts the spans of dropped units that stay; returns the last policy that dropped one.
    fn count_dropped(&self, units: &[Shape], fates: &[Fate], exits: &Exits) -> Option<PolicyId> {
        let mut dropped_by = None;
        for (unit, fate) in units.iter().zip(fates) {
            if let Fate::Dropped(policy) = fate {
                let stays = unit.members.iter().filter(|span| !exits.has(**span)).count();
                self.engine.ledger.dropped(*policy, stays as u64);
                dropped_by = Some(*policy);
            }
        }
        dropped_by
    }

    /// Sends what leaves as one group.
    fn send_exits(
        &self,
        candidate: &Candidate,
        reading: &Reading,
        exits: Exits,
        state_after: State,
        now: Now,
    ) -> Leaving {
        let mut shipment = Shipment::default();
        let is_shared = exits.records.len() > RECORDS_MAX;
        let bytes_max = self.record_bytes(is_shared);
        for Record { sent, policy, reason, mut spans } in exits.records {
            spans.sort_unstable();
            let old = spans.iter().filter(|span| !reading.seen[**span].is_new).count();
            shipment.upgraded += old as u64;
            let located: Vec<&Located> = spans.iter().map(|span| &reading.seen[*span].located).collect();
            let complete = reading.complete && !reading.partly;
            let parcel =
                Parcel { reason, complete, state_after, bytes_max, ..self.parcel(candidate, &sent, now) };
            shipment.pack(&parcel, &located, policy);
        }
        let untaken = self.ship(candidate, &shipment, now);
        if reading.partly {
            self.tallies.partly_read();
        }
        self.engine.ledger.duplicate(reading.repeats.len() as u64);
        self.engine.ledger.unbuffered(u64::from(candidate.unjudged).saturating_sub(untaken));
        let by = exits.by;
        let repeats = reading.repeats.iter().filter_map(|(number, of)| Some((*number, *by.get(of)?)));
        let spans = by.iter().map(|(span, by)| (reading.seen[*span].member.number, *by)).chain(repeats);
        Leaving { spans: spans.collect(), verdicts: exits.verdicts }
    }
}

impl Record {
    /// Spans of both may share one.
    fn is_like(&self, other: &Self) -> bool {
        (&self.sent, self.policy, self.reason) == (&other.sent, other.policy, other.reason)
    }
}

impl Seen {
    fn mark(&self) -> Mark {
        self.member.span.mark()
    }

    fn position(&self) -> crate::trace::Position {
        self.member.span.position()
    }

    fn standing(&self) -> Standing {
        match (self.mark(), self.is_new) {
            (Mark::None, true) => Standing::New,
            (Mark::None, false) => Standing::Unsent,
            _ => Standing::Sent,
        }
    }
}

impl Reading {
    /// Of new spans that are byte-identical the first stands for all.
    fn of(read: Vec<Seen>, complete: bool) -> Self {
        let mut repeats = Vec::new();
        let mut first: HashMap<&[u8], usize, foldhash::fast::RandomState> = HashMap::default();
        let mut repeated: HashSet<usize> = HashSet::new();
        let mut kept = 0;
        for (number, seen) in read.iter().enumerate() {
            match first.get(seen.located.message()) {
                Some(of) if seen.is_new => {
                    repeats.push((seen.member.number, *of));
                    repeated.insert(number);
                }
                _ => {
                    if seen.is_new {
                        first.insert(seen.located.message(), kept);
                    }
                    kept += 1;
                }
            }
        }
        drop(first);
        let numbered = read.into_iter().enumerate().filter(|(number, _)| !repeated.contains(number));
        let seen: Vec<Seen> = numbered.map(|(_, seen)| seen).collect();
        let nodes: Vec<Node> = seen
            .iter()
            .map(|seen| {
                let span = seen.located.view();
                Node { id: span.span_id(), parent: span.parent(), standing: seen.standing() }
            })
            .collect();
        Self { forest: Forest::new(&nodes), seen, repeats, complete, partly: false }
    }

    fn unit(&self, unit: &Shape, in_force: &InForce) -> ReadUnit<'_> {
        let members = unit.members.iter().map(|span| &self.seen[*span].located);
        let root = unit.root.map(|span| &self.seen[span].located);
        ReadUnit::fold(root, members, &in_force.policies)
    }

    /// A new span's child has left before it came.
    fn has_late_parent(&self) -> bool {
        let mut sent = (0..self.seen.len()).filter(|span| self.seen[*span].mark() != Mark::None);
        sent.any(|child| self.forest.parents(child).any(|parent| self.seen[parent].is_new))
    }

    /// What has not left.
    pub(super) fn unsent(&self) -> impl Iterator<Item = &Located> {
        self.seen.iter().filter(|seen| seen.mark() == Mark::None).map(|seen| &seen.located)
    }
}

impl Exits {
    fn has(&self, span: usize) -> bool {
        self.by.contains_key(&span)
    }

    fn leave(&mut self, record: Record, by: By) {
        self.by.extend(record.spans.iter().map(|span| (*span, by)));
        self.add(record);
    }

    fn add(&mut self, record: Record) {
        if record.spans.is_empty() {
            return;
        }
        let mut shared = self.records.iter_mut().skip(RECORDS_MAX).rev().take(UNITS_MAX);
        match shared.find(|shared| shared.is_like(&record)) {
            Some(shared) => shared.spans.extend(record.spans),
            None => self.records.push(record),
        }
    }

    /// The spans of kept units.
    fn take(&mut self, candidate: &Candidate, units: &[Shape], fates: &[Fate]) {
        for (unit, fate) in units.iter().zip(fates) {
            if let Fate::Kept { sent, policy, by } = fate {
                let by = self.verdict(sent, *by);
                let (sent, spans) = (sent.clone(), unit.members.clone());
                self.leave(Record { sent, policy: *policy, reason: candidate.reason, spans }, by);
            }
        }
    }

    /// The number of a new verdict; an earlier one has its own. Nothing follows what leaves by more of them than
    /// a stream has places for.
    fn verdict(&mut self, sent: &Sent, by: By) -> By {
        let By::Verdict(_) = by else { return by };
        match self.verdicts.iter().rposition(|known| known == sent) {
            Some(known) => By::Verdict(known),
            None if self.verdicts.len() == UNITS_MAX => By::Alone,
            None => {
                self.verdicts.push(sent.clone());
                By::Verdict(self.verdicts.len() - 1)
            }
        }
    }

    /// What stands below kept units and above them. What is below one, whatever it is above, belongs to it.
    fn take_along(&mut self, reading: &Reading, units: &[Shape], fates: &[Fate]) {
        let (mut down, mut up) = (Walk::over(&reading.forest), Walk::over(&reading.forest));
        let mut kept: Vec<(&Shape, Record)> = Vec::new();
        for (unit, fate) in units.iter().zip(fates) {
            if let Fate::Kept { sent, policy, by } = fate {
                let by = self.verdict(sent, *by);
                let below = unit.members.iter().flat_map(|span| down.below(*span)).collect();
                let spans = self.unsent(reading, below);
                self.by.extend(spans.iter().map(|span| (*span, by)));
                kept.push((unit, context(sent, *policy, spans)));
            }
        }
        for (unit, mut record) in kept {
            let from = unit.root.or(unit.members.first().copied());
            let above = from.map(|span| up.above(span)).unwrap_or_default();
            let above = self.unsent(reading, above);
            self.by.extend(above.iter().map(|span| (*span, By::Alone)));
            record.spans.extend(above);
            self.add(record);
        }
    }

    /// New spans whose child has left before they came, and what stands above them.
    fn late_parents(
        &mut self,
        candidate: &Candidate,
        reading: &Reading,
        earlier: &[SentUnit],
        in_force: &InForce,
    ) {
        let Some(last) = &candidate.sent else { return };
        let mut up = Walk::over(&reading.forest);
        for (child, seen) in reading.seen.iter().enumerate() {
            let sent = match seen.mark() {
                Mark::None => continue,
                Mark::Unit(number) => number.of(earlier).map_or(last, |unit| &unit.sent),
                Mark::Alone => last,
            };
            let is_late = |span: &usize| reading.seen[*span].is_new && !self.has(*span);
            let late: Vec<usize> = reading.forest.parents(child).filter(is_late).collect();
            let above: Vec<usize> = late.iter().flat_map(|span| up.above(*span)).collect();
            let mut above = self.unsent(reading, above);
            above.retain(|span| !late.contains(span));
            self.leave(in_force.context(sent, [late, above].concat()), By::Alone);
        }
    }

    fn unsent(&self, reading: &Reading, mut spans: Vec<usize>) -> Vec<usize> {
        spans.retain(|span| reading.seen[*span].mark() == Mark::None && !self.has(*span));
        spans
    }
}

impl InForce {
    /// What leaves so that what left by a verdict can be read.
    fn context(&self, sent: &Sent, spans: Vec<usize>) -> Record {
        context(sent, self.policies.id(&sent.policy), spans)
    }
}

fn context(sent: &Sent, policy: PolicyId, spans: Vec<usize>) -> Record {
    let sent = Sent { rule: WeightRule::Zero, ..sent.clone() };
    Record { sent, policy, reason: Reason::Context, spans }
}
