//! Looks a trace up without touching it: for people who ask what became of it.

use super::deadlines::Tick;
use super::entry::{Key, Summary};
use super::kept::Remembered;
use super::refs::{self, SpanRef};
use super::shard::{Known, Now, Shard};
use super::{Buffer, split};
use std::hash::BuildHasher;

/// What the index knows of a trace.
#[derive(Clone, Debug)]
pub enum Seen {
    /// A span of it is in the log.
    Live(Box<Live>),
    /// It was kept, and its spans have left the log.
    Remembered(Remembered),
}

/// A trace with a span in the log.
#[derive(Clone, Debug)]
pub struct Live {
    pub known: Known,
    pub summary: Summary,
    /// First root by position, while it is reachable.
    pub root: Option<SpanRef>,
    /// Its spans in the log.
    pub spans: u32,
    /// Nothing of it has left the log.
    pub complete: bool,
    /// How long what waits will wait still.
    pub due_in_ms: u64,
}

impl Buffer {
    pub fn look_up(&self, key: Key, now: Now) -> Option<Seen> {
        let (shard, hash) = split(self.hasher.hash_one(key));
        self.shard(shard).look_up(&key, hash, now.tick)
    }
}

impl Shard {
    fn look_up(&self, key: &Key, hash: u32, now: Tick) -> Option<Seen> {
        let Some(known) = self.known(key, hash) else {
            return self.kept.get(key).cloned().map(Seen::Remembered);
        };
        let entry = self.find(key, hash).and_then(|slot| self.entries.get(slot))?;
        let (mut spans, mut number) = (0, entry.head);
        while let Some(span) = self.refs.get(number) {
            spans += 1;
            number = span.previous;
        }
        Some(Seen::Live(Box::new(Live {
            known,
            summary: entry.summary,
            root: self.refs.get(entry.root).copied(),
            spans,
            complete: number == refs::NONE,
            due_in_ms: entry.due.ms_since(now),
        })))
    }
}
