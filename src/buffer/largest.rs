//! Which traces take most of the log: for people, on request.

use super::entry::Key;
use super::life::State;
use super::shard::Shard;
use super::{Buffer, SHARDS};

/// A trace and its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Large {
    pub key: Key,
    pub state: State,
    /// Of all its spans that came since it is in memory.
    pub bytes: u64,
}

impl Buffer {
    /// The `count` largest, largest first. Looks at every trace, shard by shard.
    pub fn largest(&self, count: usize) -> Vec<Large> {
        let mut largest: Vec<Large> =
            (0..SHARDS).flat_map(|shard| self.shard(shard).largest(count)).collect();
        keep_largest(&mut largest, count);
        largest
    }
}

impl Shard {
    fn largest(&self, count: usize) -> Vec<Large> {
        let mut largest = Vec::with_capacity(2 * count);
        for slot in 0..self.entries.end() {
            let Some(entry) = self.entries.get(slot) else { continue };
            largest.push(Large {
                key: entry.key,
                state: entry.state,
                bytes: u64::from(entry.bytes) + u64::from(entry.unjudged_bytes),
            });
            if largest.len() == 2 * count {
                keep_largest(&mut largest, count);
            }
        }
        largest
    }
}

fn keep_largest(traces: &mut Vec<Large>, count: usize) {
    traces.sort_unstable_by_key(|trace| std::cmp::Reverse(trace.bytes));
    traces.truncate(count);
}
