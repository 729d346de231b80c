//! One part of the index: the traces whose keys hash to it.
//!
//! A shard stands behind a lock that is held for a few microseconds at a time. Spans arrive in the order
//! of the log; a judgement takes a snapshot of what lies before a position and settles its verdict later,
//! while more spans may come.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::ops::AddAssign;

use hashbrown::HashTable;

use super::deadlines::{Deadlines, Tick};
use super::entry::{Arriving, Entry, Generation, Key, Lesson, Sent, Summary};
use super::kept::{KeptMemory, Remembered};
use super::life::{self, Arrival, Judgement, State};
use super::refs::{self, Ring, SpanRef};
use super::slots::Slots;
use super::{KeyHasher, Settings, Waits};
use crate::trace::{PolicyId, Position, Reason};

/// The two clocks of a moment.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Monotonic: deadlines.
    pub tick: Tick,
    /// Arrival clock, Unix milliseconds: ages of verdicts.
    pub ms: u64,
}

/// When something happens, and under which policies.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub now: Now,
    pub generation: Generation,
    /// How long ago the spans arrived: 0, or what a restart has cost, at most `max_wait`.
    pub age_ms: u64,
}

/// A trace that is due, as the judge sees it.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub(super) slot: u32,
    pub key: Key,
    pub judgement: Judgement,
    pub reason: Reason,
    pub root_seen: bool,
    pub summary: Summary,
    /// First root by position, while it is reachable.
    pub root: Option<SpanRef>,
    /// Spans that have not been judged before.
    pub unjudged: u32,
    /// The policy that dropped it, if the policies are still those.
    pub dropped_by: Option<PolicyId>,
    /// Of a follower.
    pub sent: Option<Sent>,
    pub lesson: Option<Lesson>,
    /// The snapshot: spans before this.
    pub through: Position,
    /// Milliseconds since it was opened or re-opened.
    pub age_ms: u64,
}

/// The spans of a snapshot, oldest first.
#[derive(Debug, Default)]
pub struct Reachable {
    pub spans: Vec<SpanRef>,
    /// Nothing of it has left the log.
    pub complete: bool,
    /// Where the spans begin that were not judged before.
    pub first_unjudged: usize,
}

/// The outcome of a judgement, for the index.
#[derive(Debug)]
pub enum Settlement {
    Kept(Sent),
    Dropped(PolicyId),
}

/// What is known of a trace whose spans are in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    pub state: State,
    pub root_seen: bool,
    /// Spans that wait for a judgement.
    pub unjudged: u32,
    /// Of the last verdict: arrival clock, Unix milliseconds.
    pub judged_ms: u64,
    /// Which dropped it, and under which generation of the policies.
    pub dropped_by: Option<(PolicyId, Generation)>,
    /// By which verdict it was sent.
    pub sent: Option<Sent>,
}

/// What an arrival did, for the memory charge and the counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Spans indexed.
    pub spans: u32,
    /// Traces that had no entry.
    pub traces: u32,
    /// Spans of traces that were judged already.
    pub late: u32,
    /// Spans that an earlier life has sent: not indexed.
    pub skipped: u32,
}

impl AddAssign for Taken {
    fn add_assign(&mut self, other: Self) {
        self.spans += other.spans;
        self.traces += other.traces;
        self.late += other.late;
        self.skipped += other.skipped;
    }
}

/// What a verdict costs in memory, and which segment it is charged to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settled {
    pub segment: u32,
    pub bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    hash: u32,
    slot: u32,
}

/// See the module.
#[derive(Debug)]
pub struct Shard {
    table: HashTable<Bucket>,
    entries: Slots<Entry>,
    refs: Ring,
    /// Entries by the segment in whose list they stand, from `listed_from` on.
    listed: VecDeque<Vec<u32>>,
    listed_from: u32,
    /// Due `max_wait` after their first span.
    first_seen: Deadlines,
    /// Due `after_root` after their root or what re-opened them.
    rooted: Deadlines,
    /// Due now: they fill a piece.
    full: Vec<u32>,
    piece_bytes: u32,
    kept: KeptMemory,
    waits: Waits,
    hasher: KeyHasher,
    unjudged: u64,
}

impl Shard {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            table: HashTable::new(),
            entries: Slots::default(),
            refs: Ring::default(),
            listed: VecDeque::new(),
            listed_from: 0,
            first_seen: Deadlines::default(),
            rooted: Deadlines::default(),
            full: Vec::new(),
            piece_bytes: settings.piece_bytes,
            kept: KeptMemory::new(settings.remembered_max),
            waits: settings.waits,
            hasher: settings.hasher(),
            unjudged: 0,
        }
    }

    /// Traces with an entry.
    pub fn traces(&self) -> usize {
        self.entries.len()
    }

    /// Spans that can be reached.
    pub fn spans(&self) -> usize {
        self.refs.len()
    }

    /// Spans not judged yet.
    pub fn unjudged(&self) -> u64 {
        self.unjudged
    }

    /// Takes one span in. Positions never go back.
    pub(super) fn insert(
        &mut self,
        key: Key,
        hash: u32,
        span: &Arriving,
        at: SpanRef,
        moment: Moment,
    ) -> Taken {
        let mut taken = Taken::default();
        let slot = match self.find(&key, hash) {
            Some(slot) => slot,
            None => {
                taken.traces = 1;
                self.first_span(key, hash, at.segment, moment)
            }
        };
        let Some(entry) = self.entries.get_mut(slot) else { return taken };
        if at.position() < entry.through {
            taken.skipped = 1;
            return taken;
        }
        taken.spans = 1;
        taken.late = u32::from(entry.state != State::Open || entry.judging);
        if entry.unjudged == 0 {
            self.open(slot, at.position(), moment);
        }
        self.chain(slot, span, at, moment);
        self.unjudged += 1;
        taken
    }

    /// The trace begins to wait: for the first time, or again.
    fn open(&mut self, slot: u32, at: Position, moment: Moment) {
        let Moment { now, generation, age_ms } = moment;
        let Waits { after_root_ms, max_wait_ms, hindsight_ms } = self.waits;
        let Some(entry) = self.entries.get_mut(slot) else { return };
        let first = entry.state == State::Open && !entry.judging;
        // A verdict that is being made is as young as can be.
        let verdict_age_ms = if entry.judging { 0 } else { now.ms.saturating_sub(entry.judged_ms) };
        if !first && life::on_span(entry.state, false, verdict_age_ms, hindsight_ms) == Arrival::Restarts {
            entry.begin_anew(at, generation);
        }
        entry.first_unjudged = at;
        entry.opened = now.tick;
        entry.due = if first {
            let wait_ms = max_wait_ms.saturating_sub(age_ms).max(after_root_ms);
            self.first_seen.push(now.tick.after(wait_ms), slot)
        } else {
            self.rooted.push(now.tick.after(after_root_ms), slot)
        };
    }

    /// Folds a span into its trace and chains it to the others.
    fn chain(&mut self, slot: u32, span: &Arriving, at: SpanRef, moment: Moment) {
        let Some(entry) = self.entries.get_mut(slot) else { return };
        entry.summary.fold(span, moment.generation);
        entry.unjudged += 1;
        let bytes = entry.unjudged_bytes;
        entry.unjudged_bytes = bytes.saturating_add(at.len());
        if bytes < self.piece_bytes && entry.unjudged_bytes >= self.piece_bytes {
            self.full.push(slot);
        }
        let number = self.refs.push(at.chained(entry.head));
        entry.head = number;
        if span.root && !entry.root_seen {
            entry.root_seen = true;
            entry.root = number;
            let due = moment.now.tick.after(self.waits.after_root_ms);
            if !entry.due.reached(due) {
                entry.due = self.rooted.push(due, slot);
            }
        }
    }

    fn find(&self, key: &Key, hash: u32) -> Option<u32> {
        let same = |bucket: &Bucket| {
            bucket.hash == hash && self.entries.get(bucket.slot).is_some_and(|entry| entry.key == *key)
        };
        self.table.find(spread(hash), same).map(|bucket| bucket.slot)
    }

    pub(super) fn known(&self, key: &Key, hash: u32) -> Option<Known> {
        let entry = self.find(key, hash).and_then(|slot| self.entries.get(slot))?;
        Some(Known {
            state: entry.state,
            root_seen: entry.root_seen,
            unjudged: entry.unjudged,
            judged_ms: entry.judged_ms,
            dropped_by: (entry.state == State::Dropped).then_some(entry.dropped_by),
            sent: entry.sent.as_deref().cloned(),
        })
    }

    /// An entry for a trace that has none: as it is remembered, else open.
    fn first_span(&mut self, key: Key, hash: u32, segment: u32, moment: Moment) -> u32 {
        let mut entry = Entry::open(key, moment.generation);
        if let Some(remembered) = self.kept.recall(&key, moment.now.ms) {
            entry.state = remembered.state;
            entry.judged_ms = remembered.judged_ms;
            entry.through = remembered.through;
            entry.sent = Some(Box::new(remembered.sent));
        }
        entry.listed = segment;
        let slot = self.entries.insert(entry);
        self.list(segment, slot);
        self.table.insert_unique(spread(hash), Bucket { hash, slot }, |bucket| spread(bucket.hash));
        slot
    }

    fn list(&mut self, segment: u32, slot: u32) {
        if self.listed.is_empty() {
            self.listed_from = segment;
        }
        while segment < self.listed_from {
            self.listed.push_front(Vec::new());
            self.listed_from -= 1;
        }
        let at = (segment - self.listed_from) as usize;
        if at >= self.listed.len() {
            self.listed.resize_with(at + 1, Vec::new);
        }
        self.listed[at].push(slot);
    }

    /// Takes snapshots of up to `limit` traces that are due, of what lies before `through`.
    pub(super) fn take_due(&mut self, moment: Moment, through: Position, limit: usize) -> Vec<Candidate> {
        let beyond = self.refs.first_from(through);
        let mut candidates = self.take_full(moment, through, beyond);
        while candidates.len() < limit {
            let tick = moment.now.tick;
            let Some((due, slot)) = self.rooted.pop_due(tick).or_else(|| self.first_seen.pop_due(tick))
            else {
                break;
            };
            let current = |entry: &Entry| entry.due == due && entry.unjudged > 0 && !entry.judging;
            if self.entries.get(slot).is_some_and(current) {
                candidates.extend(self.snapshot(slot, None, through, beyond, moment));
            }
        }
        candidates
    }

    fn take_full(&mut self, moment: Moment, through: Position, beyond: u32) -> Vec<Candidate> {
        let full = std::mem::take(&mut self.full).into_iter();
        full.filter_map(|slot| {
            let fills = |entry: &&Entry| entry.unjudged_bytes >= self.piece_bytes && !entry.judging;
            self.entries.get(slot).filter(fills)?;
            self.snapshot(slot, Some(Reason::Full), through, beyond, moment)
        })
        .collect()
    }

    /// Takes snapshots of everything that waits, whenever it is due.
    pub(super) fn take_all(&mut self, moment: Moment, through: Position) -> Vec<Candidate> {
        let beyond = self.refs.first_from(through);
        let slots = 0..self.entries.end();
        slots
            .filter_map(|slot| {
                self.entries.get(slot).filter(|entry| entry.unjudged > 0 && !entry.judging)?;
                self.snapshot(slot, Some(Reason::Drain), through, beyond, moment)
            })
            .collect()
    }

    /// How long the oldest spans must still wait before segment `segment` may retire: memory never makes
    /// a trace be judged younger than `after_root`.
    pub(super) fn retirable_in_ms(&self, segment: u32, now: Now) -> u64 {
        let ages = self.unjudged_in(segment).map(|entry| now.tick.ms_since(entry.opened));
        ages.min().map_or(0, |youngest| self.waits.after_root_ms.saturating_sub(youngest))
    }

    /// Takes snapshots of what waits in a segment that will retire.
    pub(super) fn take_listed(&mut self, segment: u32, moment: Moment, through: Position) -> Vec<Candidate> {
        let beyond = self.refs.first_from(through);
        let slots: Vec<u32> = self.listed_in(segment).to_vec();
        slots
            .into_iter()
            .filter_map(|slot| {
                self.entries.get(slot).filter(|entry| waits_in(entry, segment))?;
                self.snapshot(slot, Some(Reason::Pressure), through, beyond, moment)
            })
            .collect()
    }

    fn unjudged_in(&self, segment: u32) -> impl Iterator<Item = &Entry> {
        let entries = self.listed_in(segment).iter().filter_map(|slot| self.entries.get(*slot));
        entries.filter(move |entry| waits_in(entry, segment))
    }

    /// Slots that stand in a segment's list; some may stand elsewhere by now.
    fn listed_in(&self, segment: u32) -> &[u32] {
        let at = segment.checked_sub(self.listed_from);
        at.and_then(|at| self.listed.get(at as usize)).map_or(&[], Vec::as_slice)
    }

    /// What a judgement needs to know. Spans from `beyond` on are not part of it: they re-open the trace.
    fn snapshot(
        &mut self,
        slot: u32,
        reason: Option<Reason>,
        through: Position,
        beyond: u32,
        moment: Moment,
    ) -> Option<Candidate> {
        let excluded = self.excluded(slot, beyond);
        let entry = self.entries.get_mut(slot)?;
        let unjudged = entry.unjudged - excluded.count;
        if unjudged == 0 {
            entry.due = self.rooted.push(moment.now.tick.after(super::TICK_MS), slot);
            return None;
        }
        let first = if entry.root_seen { Reason::Root } else { Reason::Wait };
        let natural = if entry.state == State::Open { first } else { Reason::Late };
        let candidate = Candidate {
            slot,
            key: entry.key,
            judgement: life::on_due(entry.state, entry.root_seen),
            reason: reason.unwrap_or(natural),
            root_seen: entry.root_seen,
            summary: entry.summary,
            root: self.refs.get(entry.root).copied(),
            unjudged,
            dropped_by: entry.dropped_by(moment.generation),
            sent: entry.sent.as_deref().cloned(),
            lesson: entry.lesson,
            through,
            age_ms: moment.now.tick.ms_since(entry.opened),
        };
        entry.judging = true;
        entry.unjudged = excluded.count;
        entry.unjudged_bytes = 0;
        if let Some(first) = excluded.first {
            entry.first_unjudged = first;
            entry.opened = moment.now.tick;
            entry.due = self.rooted.push(moment.now.tick.after(self.waits.after_root_ms), slot);
        }
        Some(candidate)
    }

    fn excluded(&self, slot: u32, beyond: u32) -> Excluded {
        let mut excluded = Excluded::default();
        let mut number = self.entries.get(slot).map_or(refs::NONE, |entry| entry.head);
        while let Some(span) = self.refs.get(number) {
            if (number.wrapping_sub(beyond) as i32) < 0 {
                break;
            }
            excluded.count += 1;
            excluded.first = Some(span.position());
            number = span.previous;
        }
        excluded
    }

    /// The spans of a snapshot that have not been sent.
    pub(super) fn reachable(&self, candidate: &Candidate) -> Reachable {
        let mut reachable = Reachable { complete: true, ..Reachable::default() };
        let Some(entry) = self.entries.get(candidate.slot) else { return reachable };
        let mut number = entry.head;
        while number != refs::NONE {
            let Some(span) = self.refs.get(number) else {
                reachable.complete = false;
                break;
            };
            if span.position() < entry.through {
                break;
            }
            if span.position() < candidate.through {
                reachable.spans.push(*span);
            }
            number = span.previous;
        }
        reachable.spans.reverse();
        reachable.first_unjudged = reachable.spans.len().saturating_sub(candidate.unjudged as usize);
        reachable
    }

    /// Records a verdict. A drop that stands, and a verdict that is followed, keep their time.
    pub(super) fn settle(
        &mut self,
        candidate: &Candidate,
        settlement: Settlement,
        lesson: Option<Lesson>,
        moment: Moment,
    ) -> Settled {
        self.unjudged -= u64::from(candidate.unjudged);
        let Some(entry) = self.entries.get_mut(candidate.slot) else { return Settled::default() };
        entry.judging = false;
        entry.lesson = lesson;
        let kept = matches!(settlement, Settlement::Kept(_));
        entry.state = life::on_verdict(candidate.judgement, kept);
        let mut settled = Settled { segment: entry.listed, bytes: 0 };
        match settlement {
            Settlement::Kept(sent) => {
                entry.through = candidate.through;
                if candidate.judgement != Judgement::Follow {
                    entry.judged_ms = moment.now.ms;
                }
                if entry.sent.replace(Box::new(sent)).is_none() {
                    settled.bytes = super::SENT_BYTES;
                }
            }
            Settlement::Dropped(policy) => {
                entry.dropped_by = (policy, moment.generation);
                if candidate.judgement != Judgement::Again {
                    entry.judged_ms = moment.now.ms;
                }
            }
        }
        settled
    }

    /// Lets go of the oldest segment: of its references, and of the traces that have no other span.
    /// `charge` is told of what now counts for a later segment, in bytes.
    pub(super) fn retire(&mut self, segment: u32, mut charge: impl FnMut(u32, usize)) {
        self.refs.retire(segment);
        while self.listed_from <= segment && !self.listed.is_empty() {
            let listed = self.listed_from;
            let slots = self.listed.pop_front().unwrap_or_default();
            self.listed_from += 1;
            for slot in slots {
                self.leave(slot, listed, segment, &mut charge);
            }
        }
    }

    fn leave(&mut self, slot: u32, listed: u32, retired: u32, charge: &mut impl FnMut(u32, usize)) {
        let Some(entry) = self.entries.get_mut(slot).filter(|entry| entry.listed == listed) else { return };
        let newest = self.refs.get(entry.head).map(|span| span.segment);
        let Some(newest) = newest else { return self.forget(slot) };
        let next = if entry.unjudged > 0 { entry.first_unjudged.segment.max(retired + 1) } else { newest };
        entry.listed = next;
        charge(next, super::TRACE_BYTES + if entry.sent.is_some() { super::SENT_BYTES } else { 0 });
        self.list(next, slot);
    }

    fn forget(&mut self, slot: u32) {
        let Some(entry) = self.entries.remove(slot) else { return };
        debug_assert!(entry.unjudged == 0 && !entry.judging, "a segment retires when all in it is judged");
        if let Ok(found) =
            self.table.find_entry(spread(self.hash_of(&entry.key)), |bucket| bucket.slot == slot)
        {
            found.remove();
        }
        let Some(sent) = entry.sent.filter(|_| life::on_forgotten(entry.state)) else { return };
        self.kept.remember(Remembered {
            key: entry.key,
            state: entry.state,
            sent: *sent,
            judged_ms: entry.judged_ms,
            through: entry.through,
        });
    }

    fn hash_of(&self, key: &Key) -> u32 {
        super::split(self.hasher.hash_one(key)).1
    }

    #[cfg(test)]
    pub(super) fn in_order(&self) -> bool {
        self.refs.in_order()
    }

    /// Remembers what an earlier life of the process has kept.
    pub(super) fn remember(&mut self, trace: Remembered) {
        self.kept.remember(trace);
    }

    pub(super) fn bound_kept(&mut self) {
        self.kept.bound();
    }

    pub(super) fn expire(&mut self, now_ms: u64) {
        self.kept.expire(now_ms);
    }

    /// The oldest position that is still unjudged among slots `from..to`.
    pub(super) fn low_water(&self, from: u32, to: u32) -> Option<Position> {
        let waiting = (from..to).filter_map(|slot| self.entries.get(slot)).filter(|entry| entry.unjudged > 0);
        waiting.map(|entry| entry.first_unjudged).min()
    }

    /// Slots in use; scans go in steps below this.
    pub(super) fn end(&self) -> u32 {
        self.entries.end()
    }

    /// The kept traces among slots `from..to`, as they would be remembered.
    pub(super) fn live_kept(&self, from: u32, to: u32) -> impl Iterator<Item = Remembered> {
        (from..to).filter_map(|slot| {
            let entry = self.entries.get(slot)?;
            let sent = entry.sent.as_deref().filter(|_| life::on_forgotten(entry.state))?;
            Some(Remembered {
                key: entry.key,
                state: entry.state,
                sent: sent.clone(),
                judged_ms: entry.judged_ms,
                through: entry.through,
            })
        })
    }

    pub(super) fn remembered(&self) -> impl Iterator<Item = &Remembered> {
        self.kept.iter()
    }
}

#[derive(Default)]
struct Excluded {
    count: u32,
    first: Option<Position>,
}

fn waits_in(entry: &Entry, segment: u32) -> bool {
    entry.unjudged > 0 && !entry.judging && entry.first_unjudged.segment <= segment
}

/// The table takes its group from the low bits and its tag from the high ones.
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}
