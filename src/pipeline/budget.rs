//! The memory budget: log, index and requests in flight together never exceed it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use crate::log::Memory;

/// Room that is kept free so that requests find some while a segment retires.
const RESERVE_SHARE: usize = 16;

/// See the module.
#[derive(Debug)]
pub(super) struct Budget {
    limit: usize,
    in_flight: AtomicUsize,
    /// The largest request that was refused and has not found room since.
    wanted: AtomicUsize,
    refusals: AtomicU64,
    log: Arc<Memory>,
}

/// Bytes charged for a request while it is in flight; given back when dropped.
#[derive(Debug)]
pub(super) struct Room {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub(super) fn new(limit: usize, log: Arc<Memory>) -> Self {
        let (in_flight, wanted) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { limit, in_flight, wanted, refusals: AtomicU64::new(0), log }
    }

    /// Requests that found no room so far.
    pub(super) fn refusals(&self) -> u64 {
        self.refusals.load(Relaxed)
    }

    /// Less is free than half of what is kept free for requests.
    pub(super) fn is_short(&self) -> bool {
        self.used() + self.limit / RESERVE_SHARE / 2 > self.limit
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes of requests that are being read or stored.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    /// What is charged now, all in all.
    pub(super) fn used(&self) -> usize {
        self.log.bytes() + self.in_flight()
    }

    /// How much must retire so that requests find room, and one that was refused finds it when it comes again.
    pub(super) fn excess(&self) -> usize {
        let reserve = (self.limit / RESERVE_SHARE).max(self.wanted.load(Relaxed));
        (self.used() + reserve).saturating_sub(self.limit)
    }

    fn refused(&self, bytes: usize) {
        self.refusals.fetch_add(1, Relaxed);
        // More does not fit beside the segment that is being filled, whatever retires.
        if bytes <= self.limit / 4 * 3 {
            self.wanted.fetch_max(bytes, Relaxed);
        }
    }

    fn took(&self, bytes: usize) {
        let wanted = self.wanted.load(Relaxed);
        if wanted != 0 && bytes >= wanted {
            self.wanted.store(0, Relaxed);
        }
    }

    /// More is charged than there is.
    pub(super) fn is_overdrawn(&self) -> bool {
        self.used() > self.limit
    }

    /// Charges bytes that are about to be read, or nothing if they do not fit.
    pub(super) fn take(self: &Arc<Self>, bytes: usize) -> Option<Room> {
        let mut room = Room { budget: self.clone(), bytes: 0 };
        room.grow(bytes).then_some(room)
    }
}

impl Room {
    /// Charges more bytes. False: they do not fit, and are not charged.
    #[must_use]
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let others = self.budget.in_flight.fetch_add(bytes, Relaxed);
        if self.budget.log.bytes() + others + bytes > self.budget.limit {
            self.budget.in_flight.fetch_sub(bytes, Relaxed);
            self.budget.refused(self.bytes + bytes);
            return false;
        }
        self.bytes += bytes;
        self.budget.took(self.bytes);
        true
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.budget.in_flight.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(limit: usize) -> Arc<Budget> {
        Arc::new(Budget::new(limit, Arc::new(Memory::new(1 << 20, 1))))
    }

    #[test]
    fn what_does_not_fit_is_not_charged() {
        let budget = budget(100);
        let mut room = budget.take(60).unwrap();
        assert!(budget.take(60).is_none());
        assert!(!room.grow(41));
        assert!(room.grow(40));
        assert_eq!(budget.used(), 100);
    }

    #[test]
    fn room_is_given_back() {
        let budget = budget(100);
        drop(budget.take(100));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn room_is_made_for_a_request_that_is_larger_than_the_reserve() {
        let log = Arc::new(Memory::new(1 << 20, 1));
        let budget = Arc::new(Budget::new(1600, log.clone()));
        log.append(&[0; 28], &[0; 1300], 0);
        assert_eq!(budget.excess(), 0, "the reserve is free");
        let mut room = budget.take(100).unwrap();
        assert!(!room.grow(200));
        drop(room);
        assert_eq!(budget.excess(), budget.used() + 300 - 1600);
        log.append(&[0; 28], &[0; 1000], 0);
        assert!(budget.take(1300).is_none(), "never fits beside a log: nothing is let go for it");
        assert_eq!(budget.excess(), budget.used() + 300 - 1600);
    }

    #[test]
    fn a_full_budget_asks_for_room_and_is_not_overdrawn() {
        let log = Arc::new(Memory::new(1 << 20, 1));
        log.append(&[0; 28], &[0; 800], 0);
        let budget = Arc::new(Budget::new(log.bytes(), log.clone()));
        assert!(budget.excess() > 0 && !budget.is_overdrawn());
        log.append(&[0; 28], &[0; 8], 0);
        assert!(budget.is_overdrawn());
    }

    #[test]
    fn the_log_counts_as_well() {
        let log = Arc::new(Memory::new(1 << 20, 1));
        let budget = Arc::new(Budget::new(1000, log.clone()));
        log.append(&[0; 28], &[0; 800], 0);
        assert!(budget.take(200).is_none());
        assert!(budget.take(50).is_some());
    }
}
