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
use super::departed::{Sent, SentUnit};
use super::entry::{Arriving, Entry, Generation, Key, Root};
use super::kept::{KeptMemory, Remembered};
use super::life::{self, Arrival, State};
use super::refs::{Ring, SpanRef};
use super::slots::Slots;
use super::{KeyHasher, Settings, Waits};
use crate::trace::{PolicyId, Position};

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

/// What is known of a trace whose spans are in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    pub state: State,
    pub root_seen: bool,
    /// Spans that wait for a judgement.
    pub unjudged: u32,
    /// Of the last verdict: arrival clock, Unix milliseconds.
    pub judged_ms: u64,
    /// Which dropped it, or the last unit of it that was dropped, and under which generation of the policies.
    pub dropped_by: Option<(PolicyId, Generation)>,
    /// By which verdict it, or the last unit of it that was kept, was sent.
    pub sent: Option<Sent>,
    /// Of a stream: the verdicts by which units of it have left.
    pub units: Vec<SentUnit>,
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

/// A table that is so many times larger than what is in it, and more, gives memory back.
const SHRINK_FACTOR: usize = 4;
const SHRINK_MIN: usize = 1024;

#[derive(Clone, Copy, Debug)]
struct Bucket {
    hash: u32,
    slot: u32,
}

/// See the module.
#[derive(Debug)]
pub struct Shard {
    table: HashTable<Bucket>,
    pub(super) entries: Slots<Entry>,
    pub(super) refs: Ring,
    /// Entries by the segment in whose list they stand, from `listed_from` on.
    pub(super) listed: VecDeque<Vec<u32>>,
    pub(super) listed_from: u32,
    /// Due `max_wait` after their first span.
    pub(super) first_seen: Deadlines,
    /// Due `after_root` after their root or what re-opened them.
    pub(super) rooted: Deadlines,
    /// Due now: they fill a piece.
    pub(super) full: Vec<u32>,
    pub(super) piece_bytes: u32,
    pub(super) kept: KeptMemory,
    pub(super) waits: Waits,
    pub(super) hasher: KeyHasher,
    pub(super) unjudged: u64,
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

    /// Waits that begin from here on are these; those that run keep their length.
    pub(super) fn set_waits(&mut self, waits: Waits) {
        self.waits = waits;
        self.first_seen.begin();
        self.rooted.begin();
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
        (span, root): (&Arriving, Option<&Root>),
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
        // Most spans join others that wait: their entry is looked up once.
        let entry = if entry.unjudged == 0 {
            self.open(slot, at.position(), moment);
            let Some(opened) = self.entries.get_mut(slot) else { return taken };
            opened
        } else {
            entry
        };
        self.unjudged += 1;
        entry.summary.fold(span, root.is_some(), moment.generation);
        entry.unjudged += 1;
        let bytes = entry.unjudged_bytes;
        entry.unjudged_bytes = bytes.saturating_add(at.len());
        if bytes < self.piece_bytes && entry.unjudged_bytes >= self.piece_bytes {
            self.full.push(slot);
        }
        let number = self.refs.push(at.chained(entry.head));
        entry.head = number;
        if let Some(root) = root.filter(|_| !entry.root_seen) {
            entry.root_seen = true;
            entry.root = number;
            entry.root_facts = *root;
            let due = moment.now.tick.after(self.waits.after_root_ms);
            if !entry.due.reached(due) {
                entry.due = self.rooted.push(due, slot);
            }
        }
        taken
    }

    /// The trace begins to wait: for the first time, or again.
    fn open(&mut self, slot: u32, at: Position, moment: Moment) {
        let Moment { now, age_ms, .. } = moment;
        let Waits { after_root_ms, max_wait_ms, hindsight_ms } = self.waits;
        let Some(entry) = self.entries.get_mut(slot) else { return };
        let first = entry.state == State::Open && !entry.judging;
        // A verdict that is being made is as young as can be.
        let verdict_age_ms = if entry.judging { 0 } else { now.ms.saturating_sub(entry.judged_ms) };
        if !first && life::on_span(entry.state, false, verdict_age_ms, hindsight_ms) == Arrival::Streams {
            entry.begin_stream();
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

    pub(super) fn find(&self, key: &Key, hash: u32) -> Option<u32> {
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
            dropped_by: entry.last_drop(),
            sent: entry.departed.as_deref().map(|departed| departed.last.clone()),
            units: entry.departed.as_deref().map(|departed| departed.units.clone()).unwrap_or_default(),
        })
    }

    /// An entry for a trace that has none: as it is remembered, else open.
    fn first_span(&mut self, key: Key, hash: u32, segment: u32, moment: Moment) -> u32 {
        let mut entry = Entry::open(key, moment.generation);
        if let Some(remembered) = self.kept.recall(&key, moment.now.ms) {
            entry.recall(remembered);
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

    /// Lets go of the oldest segment: of its references, and of the traces that have no other span.
    /// `charge` is told of what now counts for a later segment, in bytes.
    pub(super) fn retire(&mut self, segment: u32, mut charge: impl FnMut(u32, usize)) {
        self.refs.retire(segment);
        self.shrink();
        while self.listed_from <= segment && !self.listed.is_empty() {
            let listed = self.listed_from;
            let slots = self.listed.pop_front().unwrap_or_default();
            self.listed_from += 1;
            for slot in slots {
                self.leave(slot, listed, segment, &mut charge);
            }
        }
    }

    /// After a burst: what is charged for a trace is that its tables are not much larger than needed.
    fn shrink(&mut self) {
        if self.table.capacity() > SHRINK_FACTOR * (self.table.len() + SHRINK_MIN) {
            self.table.shrink_to(2 * self.table.len(), |bucket| spread(bucket.hash));
        }
        self.first_seen.shrink();
        self.rooted.shrink();
    }

    fn leave(&mut self, slot: u32, listed: u32, retired: u32, charge: &mut impl FnMut(u32, usize)) {
        let Some(entry) = self.entries.get_mut(slot).filter(|entry| entry.listed == listed) else { return };
        let newest = self.refs.get(entry.head).map(|span| span.segment);
        let Some(newest) = newest else { return self.forget(slot) };
        let next = if entry.unjudged > 0 { entry.first_unjudged.segment.max(retired + 1) } else { newest };
        entry.listed = next;
        charge(next, entry.memory_bytes());
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
        if entry.outlives_its_spans() {
            // No reference names a unit of it any more.
            self.kept.remember(Remembered { units: Box::default(), ..entry.remembered() });
        }
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

    pub(super) fn forget_kept(&mut self, now_ms: u64, low_water: Position) {
        self.kept.forget(now_ms, low_water);
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

    /// The traces among slots `from..to` that a restart must know, as they would be remembered.
    pub(super) fn live_kept(&self, from: u32, to: u32) -> impl Iterator<Item = Remembered> {
        let entries = (from..to).filter_map(|slot| self.entries.get(slot));
        entries.filter(|entry| entry.outlives_a_restart()).map(Entry::remembered)
    }

    pub(super) fn remembered(&self) -> impl Iterator<Item = &Remembered> {
        self.kept.iter()
    }
}

/// The table takes its group from the low bits and its tag from the high ones.
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}
