//! Gathers spans into traces until their wait is over.
//!
//! The buffer is an index over the log: it holds no span, only where each is. It is made of shards, each
//! behind its own lock, and every one of them sees spans in the order of the log: a request takes the
//! shards hand over hand, the next before it lets go of the last, so that no request overtakes another.
//!
//! What it costs is charged by the span and by the trace ([`SPAN_BYTES`], [`TRACE_BYTES`]) to the segment
//! of the log that holds them, and leaves with it. So is what a trace owns once something of it has left.

mod deadlines;
mod departed;
mod entry;
mod kept;
mod largest;
mod life;
mod refs;
mod seen;
mod shard;
mod slots;
mod snapshot;
#[cfg(test)]
mod tests;

use std::hash::BuildHasher;

use parking_lot::{Mutex, MutexGuard};

pub use deadlines::{TICK_MS, Tick};
pub use departed::{Mark, Sent, SentUnit, UNITS_MAX, UnitNumber};
pub use entry::{Arriving, Generation, Key, Lesson, Root, Summary};
pub use kept::{REMEMBERED_MS, Remembered};
pub use largest::Large;
pub use life::{Dropped, Judgement, State, on_root_dropped};
pub use refs::SpanRef;
pub use seen::{Live, Seen};
pub use shard::{Known, Moment, Now, Shard, Taken};
pub use snapshot::{By, Candidate, Leaving, Member, Place, Settled, Settlement, Stretch, Which};

use crate::trace::Position;

/// Shards of the index. One lock each; a request takes each once.
pub const SHARDS: usize = 16;

/// What a span costs in the index.
pub const SPAN_BYTES: usize = size_of::<SpanRef>();

/// What a trace costs in the index: its entry, its bucket in a table that is between half and seven
/// eighths full, its place in a list and in two queues that grow by doubling.
pub const TRACE_BYTES: usize = size_of::<entry::Entry>() + 20 + 8 + 2 * 16;

/// What a remembered trace costs: its place in a table and in a queue that grow by doubling.
pub const REMEMBERED_BYTES: usize = 2 * (size_of::<Key>() + size_of::<Remembered>() + 24);

/// Spans for which a batch keeps room; the largest requests have many times more.
const BATCH_KEPT: usize = 1 << 16;

/// Entries looked at in one hold of a shard's lock.
const SCAN_STEP: u32 = 4096;

/// How long traces wait, in milliseconds: section 3 of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits {
    /// Root seen: for stragglers.
    pub after_root_ms: u64,
    /// No root: after the first span.
    pub max_wait_ms: u64,
    /// A verdict holds this long.
    pub hindsight_ms: u64,
}

/// What the buffer is made with.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub waits: Waits,
    /// A trace with so many bytes that are not judged yet is judged at once: section 3 of the contract.
    pub piece_bytes: u32,
    /// Kept traces remembered a shard after they left the log.
    pub remembered_max: usize,
    /// Key of the hashes, since senders choose the identifiers.
    pub hash_seed: u64,
}

type KeyHasher = foldhash::quality::FixedState;

impl Settings {
    fn hasher(&self) -> KeyHasher {
        KeyHasher::with_seed(self.hash_seed)
    }
}

/// Which shard a key belongs to, and its hash there.
fn split(hash: u64) -> (usize, u32) {
    ((hash >> 32) as usize % SHARDS, hash as u32)
}

/// A span on its way into the index, and where it goes.
#[derive(Clone, Copy, Debug)]
pub struct Routed {
    pub span: Arriving,
    pub key: Key,
    shard: u8,
    hash: u32,
    /// Number of its [`Root`] in the batch, [`NO_ROOT`] if it is none.
    root: u32,
}

const NO_ROOT: u32 = u32::MAX;

/// The index. See the module.
#[derive(Debug)]
pub struct Buffer {
    shards: Vec<Mutex<Shard>>,
    hasher: KeyHasher,
    hindsight_ms: u64,
    piece_bytes: usize,
}

/// Spans of one request, put in the order of the shards. Used again for the next.
#[derive(Debug, Default)]
pub struct Batch {
    spans: Vec<Routed>,
    roots: Vec<Root>,
    /// Numbers of the spans in the order of the shards, and where each shard's begin.
    order: Vec<u32>,
    starts: [u32; SHARDS + 1],
}

impl Batch {
    pub fn clear(&mut self) {
        self.spans.clear();
        self.spans.shrink_to(BATCH_KEPT);
        self.roots.clear();
        self.roots.shrink_to(BATCH_KEPT);
        self.order.truncate(BATCH_KEPT);
        self.order.shrink_to(BATCH_KEPT);
    }

    pub fn len(&self) -> usize {
        self.spans.len()
    }

    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Takes a span in, with what is known of it if it has no parent or is named a root by the configuration.
    pub fn push(&mut self, mut routed: Routed, root: Option<Root>) {
        if let Some(root) = root {
            routed.root = self.roots.len() as u32;
            self.roots.push(root);
        }
        self.spans.push(routed);
    }

    /// Counting sort by shard; spans of one shard stay in the order of the request.
    fn sort(&mut self) {
        self.starts = [0; SHARDS + 1];
        for routed in &self.spans {
            self.starts[usize::from(routed.shard) + 1] += 1;
        }
        for shard in 0..SHARDS {
            self.starts[shard + 1] += self.starts[shard];
        }
        let mut next = self.starts;
        self.order.resize(self.spans.len(), 0);
        for (number, routed) in self.spans.iter().enumerate() {
            let place = &mut next[usize::from(routed.shard)];
            self.order[*place as usize] = number as u32;
            *place += 1;
        }
    }

    fn of_shard(&self, shard: usize) -> impl Iterator<Item = &Routed> {
        let numbers = self.starts[shard] as usize..self.starts[shard + 1] as usize;
        self.order[numbers].iter().map(|number| &self.spans[*number as usize])
    }
}

impl Buffer {
    pub fn new(settings: &Settings) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::new(Shard::new(settings))).collect();
        Self {
            shards,
            hasher: settings.hasher(),
            hindsight_ms: settings.waits.hindsight_ms,
            piece_bytes: settings.piece_bytes as usize,
        }
    }

    /// How long a verdict holds.
    pub fn hindsight_ms(&self) -> u64 {
        self.hindsight_ms
    }

    /// Bytes of spans that one judgement reads and one piece holds at most.
    pub fn piece_bytes(&self) -> usize {
        self.piece_bytes
    }

    /// Waits that begin from here on are these; those that run keep their length.
    pub fn set_waits(&self, waits: Waits) {
        (0..SHARDS).for_each(|shard| self.shard(shard).set_waits(waits));
    }

    /// Where a span goes.
    #[inline]
    pub fn route(&self, key: Key, span: Arriving) -> Routed {
        let (shard, hash) = split(self.hasher.hash_one(key));
        Routed { span, key, shard: shard as u8, hash, root: NO_ROOT }
    }

    /// Indexes the spans of one record whose body lies at `body` in the log. `entered` is called when no
    /// later record can overtake this one any more: the caller lets go of its own order lock there.
    pub fn insert(&self, batch: &mut Batch, body: Position, moment: Moment, entered: impl FnOnce()) -> Taken {
        batch.sort();
        let mut taken = Taken::default();
        let mut shard = self.shards[0].lock();
        entered();
        for number in 0..SHARDS {
            for routed in batch.of_shard(number) {
                let at = SpanRef::new(body.segment, body.offset + routed.span.at, routed.span.len);
                let root = batch.roots.get(routed.root as usize);
                taken += shard.insert(routed.key, routed.hash, (&routed.span, root), at, moment);
            }
            if let Some(next) = self.shards.get(number + 1) {
                let next = next.lock();
                drop(std::mem::replace(&mut shard, next));
            }
        }
        taken
    }

    /// A shard, locked.
    fn shard(&self, number: usize) -> MutexGuard<'_, Shard> {
        self.shards[number].lock()
    }

    pub fn take_due(&self, shard: usize, moment: Moment, through: Position, limit: usize) -> Vec<Candidate> {
        self.shard(shard).take_due(moment, through, limit)
    }

    pub fn take_all(&self, shard: usize, moment: Moment, through: Position) -> Vec<Candidate> {
        self.shard(shard).take_all(moment, through)
    }

    pub fn take_listed(
        &self,
        shard: usize,
        segment: u32,
        moment: Moment,
        through: Position,
    ) -> Vec<Candidate> {
        self.shard(shard).take_listed(segment, moment, through)
    }

    /// How long segment `segment` must still wait before it may retire.
    pub fn retirable_in_ms(&self, segment: u32, now: Now) -> u64 {
        (0..SHARDS).map(|shard| self.shard(shard).retirable_in_ms(segment, now)).max().unwrap_or(0)
    }

    /// Spans of a snapshot, newest first, from `from` or the newest on: as many as come to at most `bytes`, but one
    /// at least.
    pub fn stretch(
        &self,
        shard: usize,
        candidate: &Candidate,
        which: Which,
        from: Option<Place>,
        bytes: usize,
    ) -> Stretch {
        self.shard(shard).stretch(candidate, which, from, bytes)
    }

    /// The verdicts by which units of a stream have left.
    pub fn sent_units(&self, shard: usize, candidate: &Candidate) -> Vec<SentUnit> {
        self.shard(shard).sent_units(candidate)
    }

    /// Records verdicts of one shard.
    pub fn settle(
        &self,
        shard: usize,
        verdicts: impl Iterator<Item = (Candidate, Settlement, Option<Lesson>)>,
        moment: Moment,
        mut charge: impl FnMut(u32, usize),
    ) {
        let mut shard = self.shard(shard);
        for (candidate, settlement, lesson) in verdicts {
            let settled = shard.settle(&candidate, settlement, lesson, moment);
            if settled.bytes > 0 {
                charge(settled.segment, settled.bytes);
            }
        }
    }

    /// Lets go of a segment that is about to leave the log.
    pub fn retire(&self, segment: u32, mut charge: impl FnMut(u32, usize)) {
        for shard in 0..SHARDS {
            self.shard(shard).retire(segment, &mut charge);
        }
    }

    /// Remembers what an earlier life of the process has kept, all of it until [`Self::forget`].
    pub fn remember(&self, trace: Remembered) {
        let (shard, _) = split(self.hasher.hash_one(trace.key));
        self.shard(shard).remember(trace);
    }

    /// The log will not be read again before `low_water`: what was sent before it is bounded, and what is older than a day
    /// is forgotten.
    pub fn forget(&self, now_ms: u64, low_water: Position) {
        (0..SHARDS).for_each(|shard| self.shard(shard).forget_kept(now_ms, low_water));
    }

    /// The smallest position that is not judged yet. Meaningful while no judgement is under way.
    pub fn low_water(&self) -> Option<Position> {
        let mut least = None;
        self.scan(|shard, from, to| {
            let found = shard.low_water(from, to);
            least = match (least, found) {
                (Some(a), Some(b)) => Some(std::cmp::min::<Position>(a, b)),
                (a, b) => a.or(b),
            };
        });
        least
    }

    /// Every trace that a restart must know, live or remembered, in no order. The remembered first: one that a span recalls meanwhile is
    /// visited twice, not missed.
    pub fn kept(&self, mut visit: impl FnMut(Remembered)) {
        for shard in 0..SHARDS {
            self.shard(shard).remembered().cloned().for_each(&mut visit);
        }
        self.scan(|shard, from, to| shard.live_kept(from, to).for_each(&mut visit));
    }

    /// Looks at all entries, a few thousand in one hold of a lock.
    fn scan(&self, mut look: impl FnMut(&Shard, u32, u32)) {
        for number in 0..SHARDS {
            let mut from = 0;
            loop {
                let shard = self.shard(number);
                let to = shard.end().min(from + SCAN_STEP);
                if from >= to {
                    break;
                }
                look(&shard, from, to);
                from = to;
            }
        }
    }

    /// What is known of a trace whose spans are in the log.
    pub fn known(&self, key: Key) -> Option<Known> {
        let (shard, hash) = split(self.hasher.hash_one(key));
        self.shard(shard).known(&key, hash)
    }

    /// Traces with an entry, spans that can be reached, spans not judged yet.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for shard in 0..SHARDS {
            let shard = self.shard(shard);
            counts.traces += shard.traces() as u64;
            counts.spans += shard.spans() as u64;
            counts.unjudged += shard.unjudged();
        }
        counts
    }
}

/// How much the buffer holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub traces: u64,
    pub spans: u64,
    pub unjudged: u64,
}
