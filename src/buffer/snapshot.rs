//! Judgements, as a shard sees them: a snapshot is taken, its spans are listed, a verdict is settled.

use super::deadlines::TICK_MS;
use super::entry::{Entry, Key, Lesson, Sent, Summary};
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
            entry.due = self.rooted.push(moment.now.tick.after(TICK_MS), slot);
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
}

#[derive(Default)]
struct Excluded {
    count: u32,
    first: Option<Position>,
}

fn waits_in(entry: &Entry, segment: u32) -> bool {
    entry.unjudged > 0 && !entry.judging && entry.first_unjudged.segment <= segment
}
