//! When traces are due: waits have constant lengths, so each is a queue in the order of arrival.

use std::collections::VecDeque;

/// A moment of the monotonic clock, in steps of 10 ms, modulo 2^32 (497 days).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tick(pub u32);

/// Milliseconds in a [`Tick`].
pub const TICK_MS: u64 = 10;

/// A queue that is so many times larger than what is in it, and more, gives memory back.
const SHRINK_FACTOR: usize = 4;
const SHRINK_MIN: usize = 1024;

impl Tick {
    pub fn from_ms(ms: u64) -> Self {
        Self((ms / TICK_MS) as u32)
    }

    /// The first tick that is at least `ms` later.
    #[must_use]
    pub fn after(self, ms: u64) -> Self {
        Self(self.0.wrapping_add(ms.div_ceil(TICK_MS) as u32))
    }

    /// Whether `self` has come at `now`.
    pub fn reached(self, now: Self) -> bool {
        now.0.wrapping_sub(self.0) as i32 >= 0
    }

    /// The later of two.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        if self.reached(other) { other } else { self }
    }

    /// Milliseconds from `earlier` to `self`, 0 if it is not earlier.
    pub fn ms_since(self, earlier: Self) -> u64 {
        u64::from((self.0.wrapping_sub(earlier.0) as i32).max(0) as u32) * TICK_MS
    }
}

/// Slots in the order in which they are due. An item whose slot has another deadline by now is stale.
///
/// A wait that changes begins a new queue; what was pushed under the old one stays where it is.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    queue: VecDeque<(Tick, u32)>,
    /// Of earlier waits; each goes when it is empty.
    earlier: Vec<VecDeque<(Tick, u32)>>,
}

impl Deadlines {
    /// `due` must not lie before what was pushed last; if it does, it is put off to that.
    pub(super) fn push(&mut self, due: Tick, slot: u32) -> Tick {
        let due = self.queue.back().map_or(due, |(last, _)| due.max(*last));
        self.queue.push_back((due, slot));
        due
    }

    pub(super) fn pop_due(&mut self, now: Tick) -> Option<(Tick, u32)> {
        let earlier = self.earlier.iter_mut().find_map(|queue| pop(queue, now));
        if earlier.is_none() && !self.earlier.is_empty() {
            self.earlier.retain(|queue| !queue.is_empty());
        }
        earlier.or_else(|| pop(&mut self.queue, now))
    }

    /// From here on the wait has another length.
    pub(super) fn begin(&mut self) {
        if !self.queue.is_empty() {
            self.earlier.push(std::mem::take(&mut self.queue));
        }
    }

    /// Gives back what a burst has left.
    pub(super) fn shrink(&mut self) {
        if self.queue.capacity() > SHRINK_FACTOR * (self.queue.len() + SHRINK_MIN) {
            self.queue.shrink_to(2 * self.queue.len());
        }
    }
}

fn pop(queue: &mut VecDeque<(Tick, u32)>, now: Tick) -> Option<(Tick, u32)> {
    let (due, _) = *queue.front()?;
    due.reached(now).then(|| queue.pop_front())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_compared_across_the_wrap() {
        let late = Tick(u32::MAX - 1);
        assert!(late.reached(Tick(3)));
        assert!(!Tick(3).reached(late));
        assert_eq!(late.after(50), Tick(3));
        assert_eq!(Tick(3).ms_since(late), 50);
    }

    #[test]
    fn nothing_is_due_before_its_time() {
        let mut queue = Deadlines::default();
        queue.push(Tick(5), 1);
        queue.push(Tick(7), 2);
        assert_eq!(queue.pop_due(Tick(4)), None);
        assert_eq!(queue.pop_due(Tick(6)), Some((Tick(5), 1)));
        assert_eq!(queue.pop_due(Tick(6)), None);
    }

    #[test]
    fn a_queue_gives_back_what_a_burst_has_left() {
        let mut queue = Deadlines::default();
        (0..100_000).for_each(|slot| _ = queue.push(Tick(5), slot));
        queue.shrink();
        assert!(queue.queue.capacity() >= 100_000, "it is full");
        while queue.pop_due(Tick(5)).is_some() {}
        queue.shrink();
        assert_eq!(queue.queue.capacity(), 0);
    }

    #[test]
    fn a_deadline_before_the_last_is_put_off() {
        let mut queue = Deadlines::default();
        queue.push(Tick(9), 1);
        assert_eq!(queue.push(Tick(8), 2), Tick(9));
    }

    #[test]
    fn a_shorter_wait_overtakes_what_was_pushed_under_the_longer() {
        let mut queue = Deadlines::default();
        queue.push(Tick(60), 1);
        queue.begin();
        assert_eq!(queue.push(Tick(20), 2), Tick(20));
        queue.begin();
        queue.begin();
        assert_eq!(queue.push(Tick(90), 3), Tick(90));
        assert_eq!(queue.pop_due(Tick(20)), Some((Tick(20), 2)));
        assert_eq!(queue.pop_due(Tick(20)), None);
        assert_eq!(queue.pop_due(Tick(90)), Some((Tick(60), 1)));
        assert_eq!(queue.pop_due(Tick(90)), Some((Tick(90), 3)));
        assert!(queue.pop_due(Tick(90)).is_none() && queue.earlier.is_empty());
    }
}
