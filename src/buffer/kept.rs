//! The kept memory: what was kept and has left the log, so that what still comes of it follows.

use std::collections::{HashMap, VecDeque};

use super::departed::{Sent, SentUnit};
use super::entry::Key;
use super::life::{self, State};
use crate::trace::Position;

/// How long a kept trace is remembered after it left the log.
pub const REMEMBERED_MS: u64 = 24 * 3600 * 1000;

/// A trace of which something was sent, or that is a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    pub key: Key,
    /// Of what has left the log [`State::Kept`] or [`State::Stream`]; while a log is read again a dropped trace
    /// too, if something of it was sent.
    pub state: State,
    /// By which verdict last. None: a stream that has kept nothing.
    pub sent: Option<Sent>,
    /// Of a stream that is in the log.
    pub units: Box<[SentUnit]>,
    /// When the verdict was made: arrival clock, Unix milliseconds.
    pub judged_ms: u64,
    /// Spans of it before this need not be judged again; matters while a log is read again.
    pub through: Position,
}

/// Least recently kept goes first: at the bound, and after a day.
#[derive(Debug)]
pub(super) struct KeptMemory {
    traces: HashMap<Key, Remembered, foldhash::fast::RandomState>,
    order: VecDeque<(u64, Key)>,
    max: usize,
    /// Where the log may be read from again: what was sent beyond it must be known, whatever the bound. None: it is
    /// being read.
    low_water: Option<Position>,
}

impl KeptMemory {
    pub(super) fn new(max: usize) -> Self {
        Self { traces: HashMap::default(), order: VecDeque::new(), max, low_water: None }
    }

    pub(super) fn remember(&mut self, trace: Remembered) {
        self.order.push_back((trace.judged_ms, trace.key));
        self.traces.insert(trace.key, trace);
        self.shrink();
    }

    /// Should the log be read again, then from `low_water` on: what was sent before it is bounded, and forgotten if that
    /// left nothing but drops. So is what is older than a day.
    pub(super) fn forget(&mut self, now_ms: u64, low_water: Position) {
        let was_read = self.low_water.replace(low_water).is_none();
        if was_read {
            self.order.make_contiguous().sort_unstable_by_key(|(at, _)| *at);
        }
        self.traces.retain(|_, trace| {
            trace.through > low_water || life::on_forgotten(trace.state, trace.sent.is_some())
        });
        while self.order.front().is_some_and(|(at, _)| now_ms.saturating_sub(*at) >= REMEMBERED_MS) {
            self.forget_oldest();
        }
        self.shrink();
        if was_read {
            self.traces.shrink_to(self.max);
        }
    }

    fn shrink(&mut self) {
        let Some(low_water) = self.low_water else { return };
        while self.traces.len() > self.max || self.order.len() > 2 * self.max {
            let oldest = self.order.front().and_then(|(_, key)| self.traces.get(key));
            if oldest.is_some_and(|oldest| oldest.through > low_water) {
                return;
            }
            self.forget_oldest();
        }
    }

    /// Takes a trace out: it is live again.
    pub(super) fn recall(&mut self, key: &Key, now_ms: u64) -> Option<Remembered> {
        if self.traces.is_empty() {
            return None;
        }
        let trace = self.traces.remove(key)?;
        (now_ms.saturating_sub(trace.judged_ms) < REMEMBERED_MS).then_some(trace)
    }

    /// Looks without taking it out.
    pub(super) fn get(&self, key: &Key) -> Option<&Remembered> {
        self.traces.get(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Remembered> {
        self.traces.values()
    }

    /// An item of the order whose trace was recalled, or kept again later, stands for nothing.
    fn forget_oldest(&mut self) {
        let Some((at, key)) = self.order.pop_front() else { return };
        if self.traces.get(&key).is_some_and(|trace| trace.judged_ms == at) {
            self.traces.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{TenantId, Threshold, TraceId, WeightRule};

    /// The end of what was sent.
    const BEHIND: Position = Position { segment: 7, offset: 100 };

    fn kept(n: u8, judged_ms: u64) -> Remembered {
        Remembered {
            key: Key { trace: TraceId([n; 16]), tenant: TenantId(0) },
            state: State::Kept,
            sent: Some(Sent { policy: "p".into(), threshold: Threshold(0), rule: WeightRule::Threshold }),
            units: Box::default(),
            judged_ms,
            through: BEHIND,
        }
    }

    #[test]
    fn the_oldest_goes_at_the_bound() {
        let mut memory = KeptMemory::new(2);
        memory.forget(10, BEHIND);
        (1..=3).for_each(|n| memory.remember(kept(n, u64::from(n))));
        assert_eq!(memory.recall(&kept(1, 0).key, 5), None);
        assert_eq!(memory.recall(&kept(3, 0).key, 5), Some(kept(3, 3)));
    }

    #[test]
    fn nothing_is_forgotten_before_the_log_has_been_read() {
        let mut memory = KeptMemory::new(2);
        (1..=9).rev().for_each(|n| memory.remember(kept(n, u64::from(n))));
        assert_eq!(memory.iter().count(), 9);
        memory.forget(10, BEHIND);
        let mut left: Vec<u64> = memory.iter().map(|trace| trace.judged_ms).collect();
        left.sort_unstable();
        assert_eq!(left, [8, 9]);
    }

    #[test]
    fn what_may_be_read_again_is_known_until_the_low_water_has_passed_it() {
        let mut memory = KeptMemory::new(2);
        (1..=8).for_each(|n| memory.remember(kept(n, u64::from(n))));
        memory.remember(Remembered { state: State::Dropped, ..kept(9, 9) });
        memory.forget(10, Position { offset: 99, ..BEHIND });
        memory.remember(kept(10, 10));
        assert_eq!(memory.iter().count(), 10);
        memory.forget(10, BEHIND);
        let mut left: Vec<u64> = memory.iter().map(|trace| trace.judged_ms).collect();
        left.sort_unstable();
        assert_eq!(left, [8, 10]);
    }

    #[test]
    fn what_was_dropped_is_known_only_until_the_log_has_been_read() {
        let mut memory = KeptMemory::new(10);
        memory.remember(Remembered { state: State::Dropped, ..kept(1, 1) });
        memory.remember(Remembered { state: State::Stream, sent: None, ..kept(2, 2) });
        memory.remember(Remembered { state: State::Stream, ..kept(3, 3) });
        assert_eq!(memory.iter().count(), 3);
        memory.forget(10, BEHIND);
        let left: Vec<Key> = memory.iter().map(|trace| trace.key).collect();
        assert_eq!(left, [kept(3, 0).key]);
    }

    #[test]
    fn nothing_is_remembered_longer_than_a_day() {
        let mut memory = KeptMemory::new(10);
        memory.remember(kept(1, 1000));
        memory.remember(kept(2, 2000));
        memory.forget(1000 + REMEMBERED_MS, BEHIND);
        assert_eq!(memory.iter().count(), 1);
        assert_eq!(memory.recall(&kept(2, 0).key, 2000 + REMEMBERED_MS), None);
    }

    #[test]
    fn what_was_kept_again_is_not_forgotten_by_its_older_mark() {
        let mut memory = KeptMemory::new(2);
        memory.forget(10, BEHIND);
        memory.remember(kept(1, 1));
        memory.remember(kept(1, 2));
        memory.remember(kept(2, 3));
        memory.remember(kept(3, 4));
        assert_eq!(memory.iter().count(), 2);
        assert!(memory.recall(&kept(3, 0).key, 5).is_some());
    }
}
