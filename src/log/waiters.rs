//! Who waits for the written frontier: one registration per request, one wake-up per batch.

use crate::trace::Position;
use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

/// The written frontier and those who wait for it.
#[derive(Debug)]
pub(super) struct Waiters {
    frontier: AtomicU64,
    /// Rises when all who wait are sent away.
    dismissals: AtomicU32,
    /// Nobody will move the frontier any more.
    ended: AtomicBool,
    /// Protects the list only; the frontier is read beside it.
    list: Mutex<List>,
}

#[derive(Debug, Default)]
struct List {
    waiting: Vec<Waiting>,
    next_ticket: u64,
}

#[derive(Debug)]
struct Waiting {
    end: u64,
    ticket: u64,
    waker: Waker,
}

/// The frontier was not reached and will not be soon; ask the log why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dismissed;

/// Resolves when the frontier reaches a position.
#[derive(Debug)]
pub(super) struct Wait<'a> {
    waiters: &'a Waiters,
    end: u64,
    dismissals: u32,
    ticket: Option<u64>,
}

impl Waiters {
    pub(super) fn new(frontier: Position) -> Self {
        Self {
            frontier: AtomicU64::new(frontier.to_u64()),
            dismissals: AtomicU32::new(0),
            ended: AtomicBool::new(false),
            list: Mutex::default(),
        }
    }

    pub(super) fn frontier(&self) -> Position {
        Position::from_u64(self.frontier.load(Ordering::Acquire))
    }

    pub(super) fn dismissals(&self) -> u32 {
        self.dismissals.load(Ordering::Acquire)
    }

    pub(super) fn wait(&self, end: Position) -> Wait<'_> {
        Wait { waiters: self, end: end.to_u64(), dismissals: self.dismissals(), ticket: None }
    }

    /// Moves the frontier and wakes those it has reached.
    pub(super) fn advance(&self, frontier: Position) {
        let frontier = frontier.to_u64();
        self.frontier.store(frontier, Ordering::Release);
        let reached: Vec<Waiting> = {
            let mut list = self.list.lock();
            list.waiting.extract_if(.., |waiting| waiting.end <= frontier).collect()
        };
        reached.into_iter().for_each(|waiting| waiting.waker.wake());
    }

    /// Sends everyone away, now and from now on.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.dismiss();
    }

    /// Sends everyone away who waits now.
    pub(super) fn dismiss(&self) {
        self.dismissals.fetch_add(1, Ordering::Release);
        let all = std::mem::take(&mut self.list.lock().waiting);
        all.into_iter().for_each(|waiting| waiting.waker.wake());
    }
}

impl Wait<'_> {
    fn outcome(&self) -> Option<Result<(), Dismissed>> {
        if self.waiters.frontier.load(Ordering::Acquire) >= self.end {
            return Some(Ok(()));
        }
        let dismissed =
            self.waiters.dismissals() != self.dismissals || self.waiters.ended.load(Ordering::Acquire);
        dismissed.then_some(Err(Dismissed))
    }
}

impl Future for Wait<'_> {
    type Output = Result<(), Dismissed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(outcome) = self.outcome() {
            return Poll::Ready(outcome);
        }
        let mut list = self.waiters.list.lock();
        if let Some(outcome) = self.outcome() {
            return Poll::Ready(outcome); // between the look and the lock
        }
        let known =
            self.ticket.and_then(|ticket| list.waiting.iter_mut().find(|entry| entry.ticket == ticket));
        if let Some(entry) = known {
            entry.waker.clone_from(context.waker());
            return Poll::Pending;
        }
        let ticket = list.next_ticket;
        list.next_ticket += 1;
        list.waiting.push(Waiting { end: self.end, ticket, waker: context.waker().clone() });
        drop(list);
        self.ticket = Some(ticket);
        Poll::Pending
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.waiters.list.lock().waiting.retain(|entry| entry.ticket != ticket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    const START: Position = Position::new(1, 0);

    #[test]
    fn only_those_whom_the_frontier_reached_are_woken() {
        let waiters = Waiters::new(START);
        let (mut near, mut far) = (waiters.wait(Position::new(1, 100)), waiters.wait(Position::new(2, 60)));
        assert!((&mut near).now_or_never().is_none() && (&mut far).now_or_never().is_none());
        waiters.advance(Position::new(1, 100));
        assert_eq!((&mut near).now_or_never(), Some(Ok(())));
        assert!((&mut far).now_or_never().is_none());
        assert_eq!(waiters.list.lock().waiting.len(), 1);
    }

    #[test]
    fn one_who_gives_up_waiting_leaves_nothing_behind() {
        let waiters = Waiters::new(START);
        let mut wait = waiters.wait(Position::new(1, 100));
        assert!((&mut wait).now_or_never().is_none() && (&mut wait).now_or_never().is_none());
        assert_eq!(waiters.list.lock().waiting.len(), 1);
        drop(wait);
        assert!(waiters.list.lock().waiting.is_empty());
    }

    #[test]
    fn who_comes_after_a_dismissal_waits_and_who_comes_after_the_end_does_not() {
        let waiters = Waiters::new(START);
        let mut before = waiters.wait(Position::new(1, 100));
        waiters.dismiss();
        assert_eq!((&mut before).now_or_never(), Some(Err(Dismissed)));
        assert!(waiters.wait(Position::new(1, 100)).now_or_never().is_none());
        waiters.end();
        assert_eq!(waiters.wait(Position::new(1, 100)).now_or_never(), Some(Err(Dismissed)));
        assert_eq!(waiters.wait(START).now_or_never(), Some(Ok(())));
    }
}
