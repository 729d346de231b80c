//! Judgements, as a shard sees them: a snapshot is taken, its spans are listed, a verdict is settled.

use super::deadlines::TICK_MS;
use super::departed::{Departed, Mark, Sent, SentUnit, UNITS_MAX, UnitNumber};
use super::entry::{Entry, Key, Lesson, Root, Summary};
use super::life::{self, Judgement, State};
use super::refs::{self, SpanRef};
use super::shard::{Moment, Now, Shard};
use crate::trace::{PolicyId, Position, Reason};

/// A trace that is due, as the judge sees it.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub(super) slot: u32,
    pub key: Key,
    pub judgement: Judgement,
    pub reason: Reason,
    /// Its root is among what is judged, or was before.
    pub root_seen: bool,
    /// It was not judged before.
    pub first: bool,
    /// Some of its spans have left and others not, so the summary is not of those that can leave.
    pub divided: bool,
    pub summary: Summary,
    /// First root by position, while it is reachable.
    pub root: Option<(SpanRef, Root)>,
    /// Spans that have not been judged before.
    pub unjudged: u32,
    /// Where those begin.
    pub first_unjudged: Position,
    /// The policy that dropped it, if the policies are still those.
    pub dropped_by: Option<PolicyId>,
    /// The last verdict by which something of it left.
    pub sent: Option<Sent>,
    pub lesson: Option<Lesson>,
    /// The snapshot: spans before this.
    pub through: Position,
    /// Milliseconds since it was opened or re-opened.
    pub age_ms: u64,
}

/// A span of a trace, and its number in the index.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    pub number: u32,
    pub span: SpanRef,
}

/// Where a walk over the spans of a snapshot goes on, to older ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u32);

/// Part of the spans of a snapshot, newest first.
#[derive(Debug, Default)]
pub struct Stretch {
    pub members: Vec<Member>,
    /// Where older ones are. None: these are the oldest that can be reached.
    pub next: Option<Place>,
    /// Nothing of the trace has left the log, as far as this went.
    pub complete: bool,
}

/// Which spans a walk shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All that are in the log.
    All,
    /// Those that have not left.
    Unsent,
    /// Those of them that were not judged before.
    New,
    /// Those that were not judged before, and those that have left.
    NewAndSent,
}

/// The outcome of a judgement, for the index.
#[derive(Debug)]
pub enum Settlement {
    /// All that can be reached has left.
    Kept(Sent),
    /// Nothing has left, but for context.
    Dropped(PolicyId, Leaving),
    /// Units were judged; the policy that dropped the last of those that were dropped.
    Units(Option<PolicyId>, Leaving),
}

/// Spans that left while others of their trace stayed.
#[derive(Debug, Default)]
pub struct Leaving {
    /// By which units left for the first time.
    pub verdicts: Vec<Sent>,
    /// By number in the index.
    pub spans: Vec<(u32, By)>,
}

/// What lets a span leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// A verdict of [`Leaving::verdicts`].
    Verdict(usize),
    /// An earlier verdict, which it follows.
    Unit(UnitNumber),
    /// Others, that can be read in their place then.
    Alone,
}

/// What a verdict costs in memory, and which segment it is charged to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settled {
    pub segment: u32,
    pub bytes: usize,
}

impl Shard {
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

    /// Takes snapshots of everything that waits, whenever it is due. Of what fills more than a piece the rest
    /// waits for the next call.
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

    /// Takes snapshots of what waits in a segment that will retire. Of what fills more than a piece the rest
    /// waits for the next call.
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

    /// What a judgement needs to know. Spans from `beyond` on are not part of it: they re-open the trace. Nor
    /// are those that a piece has no room for: they follow at once.
    fn snapshot(
        &mut self,
        slot: u32,
        reason: Option<Reason>,
        through: Position,
        beyond: u32,
        moment: Moment,
    ) -> Option<Candidate> {
        let excluded = self.excluded(slot, beyond);
        let through = excluded.first.map_or(through, |first| first.min(through));
        let entry = self.entries.get_mut(slot)?;
        let unjudged = entry.unjudged - excluded.count;
        if unjudged == 0 {
            entry.due = self.rooted.push(moment.now.tick.after(TICK_MS), slot);
            return None;
        }
        let root = self.refs.get(entry.root).copied();
        // A root that has left the log was judged before.
        let root_seen = entry.root_seen && root.is_none_or(|root| root.position() < through);
        let candidate = Candidate {
            slot,
            key: entry.key,
            judgement: life::on_due(entry.state, root_seen),
            reason: reason.unwrap_or_else(|| natural_reason(entry.state, root_seen)),
            root_seen,
            first: entry.state == State::Open,
            divided: entry.divided(),
            summary: entry.summary,
            root: root.filter(|_| root_seen).map(|root| (root, entry.root_facts)),
            unjudged,
            first_unjudged: entry.first_unjudged,
            dropped_by: entry.dropped_by(moment.generation),
            sent: entry.departed.as_deref().map(|departed| departed.last.clone()),
            lesson: entry.lesson(),
            through,
            age_ms: moment.now.tick.ms_since(entry.opened),
        };
        entry.judging = true;
        entry.unjudged = excluded.count;
        let judged = entry.unjudged_bytes.saturating_sub(excluded.bytes);
        entry.bytes = entry.bytes.saturating_add(judged);
        entry.unjudged_bytes = excluded.bytes;
        if let Some(first) = excluded.first {
            entry.first_unjudged = first;
            if !excluded.for_size {
                entry.opened = moment.now.tick;
            }
            entry.due = self.rooted.push(moment.now.tick.after(self.waits.after_root_ms), slot);
            if excluded.bytes >= self.piece_bytes {
                self.full.push(slot);
            }
        }
        Some(candidate)
    }

    /// The newest spans that a snapshot leaves out.
    fn excluded(&self, slot: u32, beyond: u32) -> Excluded {
        let mut excluded = Excluded::default();
        let Some(entry) = self.entries.get(slot) else { return excluded };
        let mut number = entry.head;
        while let Some(span) = self.refs.get(number).filter(|_| excluded.count < entry.unjudged) {
            if (number.wrapping_sub(beyond) as i32) < 0 {
                let too_much = entry.unjudged_bytes.saturating_sub(excluded.bytes) > self.piece_bytes;
                if !too_much || excluded.count + 1 == entry.unjudged {
                    break;
                }
                excluded.for_size = true;
            }
            excluded.count += 1;
            excluded.bytes += span.len();
            excluded.first = Some(span.position());
            number = span.previous;
        }
        excluded
    }

    /// Walks over spans of a snapshot, newest first, from `from` or the newest on: as many as come to at most
    /// `bytes`, but one at least.
    pub(super) fn stretch(
        &self,
        candidate: &Candidate,
        which: Which,
        from: Option<Place>,
        bytes: usize,
    ) -> Stretch {
        let mut stretch = Stretch { complete: true, ..Stretch::default() };
        let Some(entry) = self.entries.get(candidate.slot) else { return stretch };
        let all_before = entry.all_before();
        let mut number = from.map_or(entry.head, |place| place.0);
        let mut taken = 0;
        while number != refs::NONE {
            let Some(span) = self.refs.get(number).copied() else {
                stretch.complete = false;
                break;
            };
            let has_left = span.position() < all_before;
            let is_new = span.position() >= candidate.first_unjudged;
            if has_left && which == Which::Unsent || !is_new && which == Which::New {
                break;
            }
            let is_shown = match which {
                Which::All => true,
                Which::Unsent | Which::New => span.mark() == Mark::None,
                Which::NewAndSent => has_left || span.mark() != Mark::None || is_new,
            };
            if is_shown && span.position() < candidate.through {
                taken += span.len() as usize;
                if taken > bytes && !stretch.members.is_empty() {
                    stretch.next = Some(Place(number));
                    break;
                }
                let span = if has_left && span.mark() == Mark::None { span.alone() } else { span };
                stretch.members.push(Member { number, span });
            }
            number = span.previous;
        }
        stretch
    }

    /// The verdicts by which units of a stream have left.
    pub(super) fn sent_units(&self, candidate: &Candidate) -> Vec<SentUnit> {
        let entry = self.entries.get(candidate.slot);
        let departed = entry.and_then(|entry| entry.departed.as_deref());
        departed.map(|departed| departed.units.clone()).unwrap_or_default()
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
        let judgement = candidate.judgement;
        let bytes_before = entry.memory_bytes();
        entry.judging = false;
        entry.learn(lesson);
        entry.through = candidate.through;
        let kept = matches!(settlement, Settlement::Kept(_));
        entry.state = life::on_verdict(judgement, kept);
        let stands = judgement == Judgement::Follow || judgement == Judgement::Again && !kept;
        if !stands {
            entry.judged_ms = moment.now.ms;
        }
        match settlement {
            Settlement::Kept(sent) => match &mut entry.departed {
                Some(departed) => departed.all_left(sent, candidate.through),
                none => {
                    let all_before = candidate.through;
                    *none = Some(Box::new(Departed { all_before, ..Departed::new(sent) }));
                }
            },
            Settlement::Dropped(policy, leaving) => {
                entry.dropped_by = (policy, moment.generation);
                self.leave_apart(candidate.slot, &leaving, moment.now.ms);
            }
            Settlement::Units(dropped_by, leaving) => {
                if let Some(policy) = dropped_by {
                    entry.dropped_by = (policy, moment.generation);
                }
                self.leave_apart(candidate.slot, &leaving, moment.now.ms);
            }
        }
        let Some(entry) = self.entries.get(candidate.slot) else { return Settled::default() };
        Settled { segment: entry.listed, bytes: entry.memory_bytes().saturating_sub(bytes_before) }
    }

    /// Notes what has left of a trace of which other spans stay.
    fn leave_apart(&mut self, slot: u32, leaving: &Leaving, now_ms: u64) {
        let mut numbers = Vec::with_capacity(leaving.verdicts.len());
        let mut taken = [false; UNITS_MAX];
        for sent in &leaving.verdicts {
            let Some(entry) = self.entries.get_mut(slot) else { return };
            let departed = entry.departed.get_or_insert_with(|| Box::new(Departed::new(sent.clone())));
            departed.last = sent.clone();
            let place = departed.place(sent, now_ms);
            taken[place.number.index()] |= place.taken;
            numbers.push(place.number);
        }
        if taken.contains(&true) {
            self.forget_units(slot, &taken);
        }
        for (number, by) in &leaving.spans {
            let mark = match by {
                By::Verdict(verdict) => numbers.get(*verdict).map_or(Mark::Alone, |unit| Mark::Unit(*unit)),
                By::Unit(unit) => Mark::Unit(*unit),
                By::Alone => Mark::Alone,
            };
            self.refs.mark(*number, mark);
        }
    }

    /// Nothing follows the spans that left by these verdicts any more.
    fn forget_units(&mut self, slot: u32, units: &[bool; UNITS_MAX]) {
        let mut number = self.entries.get(slot).map_or(refs::NONE, |entry| entry.head);
        while let Some(span) = self.refs.get(number).copied() {
            if let Mark::Unit(unit) = span.mark()
                && units[unit.index()]
            {
                self.refs.mark(number, Mark::Alone);
            }
            number = span.previous;
        }
    }
}

#[derive(Default)]
struct Excluded {
    count: u32,
    bytes: u32,
    /// The oldest of them.
    first: Option<Position>,
    /// A piece has no room for them; else they came too late.
    for_size: bool,
}

fn natural_reason(state: State, root_seen: bool) -> Reason {
    match (state, root_seen) {
        (State::Open, true) => Reason::Root,
        (State::Open, false) => Reason::Wait,
        _ => Reason::Late,
    }
}

fn waits_in(entry: &Entry, segment: u32) -> bool {
    entry.unjudged > 0 && !entry.judging && entry.first_unjudged.segment <= segment
}
