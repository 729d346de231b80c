//! The memory budget: log, index and requests in flight together never exceed it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::engine::MESSAGE_BYTES_MAX;
use crate::log::Memory;

/// Room that is kept free so that requests find some while a segment retires.
const RESERVE_SHARE: usize = 16;

/// See the module.
#[derive(Debug)]
pub(super) struct Budget {
    limit: usize,
    in_flight: AtomicUsize,
    /// Room that a refused request will need when it comes again.
    wanted: AtomicUsize,
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
        Self { limit, in_flight: AtomicUsize::new(0), wanted: AtomicUsize::new(0), log }
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

    /// How much must retire so that requests find room.
    pub(super) fn excess(&self) -> usize {
        let room = (self.limit / RESERVE_SHARE).max(self.wanted.load(Relaxed));
        (self.used() + room).saturating_sub(self.limit)
    }

    /// Nothing more can be made free now, or need be: the log may grow again.
    pub(super) fn relieved(&self) {
        self.wanted.store(0, Relaxed);
    }

    /// Room for a request of at least `bytes`: how large it is in the end is not known while it is read.
    fn want(&self, bytes: usize) {
        self.wanted.fetch_max((2 * bytes).min(MESSAGE_BYTES_MAX).min(self.limit), Relaxed);
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
            self.budget.want(self.bytes + bytes);
            return false;
        }
        self.bytes += bytes;
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
    fn the_log_counts_as_well() {
        let log = Arc::new(Memory::new(1 << 20, 1));
        let budget = Arc::new(Budget::new(1000, log.clone()));
        log.append(&[0; 28], &[0; 800], 0);
        assert!(budget.take(200).is_none());
        assert!(budget.take(50).is_some());
    }

    #[test]
    fn a_request_that_was_refused_finds_room_when_it_comes_again() {
        let log = Arc::new(Memory::new(400, 1));
        let budget = Arc::new(Budget::new(1000, log.clone()));
        (0..3).for_each(|_| _ = log.append(&[0; 28], &[0; 200], 0));
        assert_eq!(budget.excess(), 0);
        assert!(budget.take(400).is_none());
        while budget.excess() > 0 && log.retire_oldest().is_some() {}
        budget.relieved();
        assert!(budget.take(400).is_some());
        assert_eq!(budget.excess(), 0, "what was wanted is not kept free for ever");
    }
}
