//! References to spans in the log: 16 bytes each, chained newest first within a trace.
//!
//! The references of a shard are a ring in the order of the log, so that those of a retired segment
//! are at its front. The ring grows by fixed chunks: what is charged for a reference is what it takes.

use std::collections::VecDeque;

use super::departed::Mark;
use crate::trace::Position;

/// No reference: the end of a chain.
pub(super) const NONE: u32 = u32::MAX;

/// Spans are shorter than this; the bits above name the unit of a stream that a span left by.
const LEN_BITS: u32 = 24;

/// Where a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanRef {
    pub segment: u32,
    /// Of the span message, in the segment.
    pub offset: u32,
    /// Length in the low 24 bits, its [`Mark`] above.
    packed: u32,
    /// The next older span of the trace.
    pub(super) previous: u32,
}

impl SpanRef {
    pub fn new(segment: u32, offset: u32, len: u32) -> Self {
        debug_assert!(len >> LEN_BITS == 0, "spans are shorter than a message may be");
        Self { segment, offset, packed: len, previous: NONE }
    }

    /// The same, chained to the next older span of its trace.
    pub(super) fn chained(self, previous: u32) -> Self {
        Self { previous, ..self }
    }

    pub fn len(&self) -> u32 {
        self.packed & ((1 << LEN_BITS) - 1)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn position(&self) -> Position {
        Position::new(self.segment, self.offset)
    }

    /// How it has left.
    pub fn mark(&self) -> Mark {
        Mark::from_bits((self.packed >> LEN_BITS) as u8)
    }

    /// The same, known to have left.
    pub(super) fn alone(mut self) -> Self {
        self.set_mark(Mark::Alone);
        self
    }

    fn set_mark(&mut self, mark: Mark) {
        self.packed = u32::from(mark.to_bits()) << LEN_BITS | self.len();
    }
}

const CHUNK: usize = 1024;

/// A queue of references addressed by a number that counts up for ever, modulo 2^32.
#[derive(Debug, Default)]
pub(super) struct Ring {
    chunks: VecDeque<Box<[SpanRef]>>,
    /// One chunk kept for the next growth, so that a steady ring allocates nothing.
    spare: Option<Box<[SpanRef]>>,
    /// Number of the first reference of the first chunk.
    base: u32,
    /// References at the front of the first chunk that have gone.
    gone: usize,
    len: usize,
}

impl Ring {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn push(&mut self, reference: SpanRef) -> u32 {
        let at = self.gone + self.len;
        if at == self.chunks.len() * CHUNK {
            let chunk = self.spare.take().unwrap_or_else(|| vec![SpanRef::new(0, 0, 0); CHUNK].into());
            self.chunks.push_back(chunk);
        }
        self.chunks[at / CHUNK][at % CHUNK] = reference;
        self.len += 1;
        match self.base.wrapping_add(at as u32) {
            NONE => self.push(reference), // the place stays nameless
            number => number,
        }
    }

    pub(super) fn get(&self, number: u32) -> Option<&SpanRef> {
        let at = number.wrapping_sub(self.base) as usize;
        let live = number != NONE && at >= self.gone && at < self.gone + self.len;
        live.then(|| &self.chunks[at / CHUNK][at % CHUNK])
    }

    /// Notes how a span has left.
    pub(super) fn mark(&mut self, number: u32, mark: Mark) {
        if self.get(number).is_some() {
            let at = number.wrapping_sub(self.base) as usize;
            self.chunks[at / CHUNK][at % CHUNK].set_mark(mark);
        }
    }

    /// Lets go of the references into segments up to `segment`.
    pub(super) fn retire(&mut self, segment: u32) {
        while self.len > 0 && self.chunks[0][self.gone].segment <= segment {
            self.gone += 1;
            self.len -= 1;
            if self.gone == CHUNK {
                self.spare = self.chunks.pop_front();
                self.base = self.base.wrapping_add(CHUNK as u32);
                self.gone = 0;
            }
        }
    }

    #[cfg(test)]
    pub(super) fn in_order(&self) -> bool {
        let all = self.chunks.iter().flat_map(|chunk| chunk.iter()).skip(self.gone).take(self.len);
        all.is_sorted_by_key(SpanRef::position)
    }

    /// The first number whose span lies at or after `end`, given that few do.
    pub(super) fn first_from(&self, end: Position) -> u32 {
        let mut at = self.gone + self.len;
        while at > self.gone && self.chunks[(at - 1) / CHUNK][(at - 1) % CHUNK].position() >= end {
            at -= 1;
        }
        self.base.wrapping_add(at as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_takes_sixteen_bytes() {
        assert_eq!(size_of::<SpanRef>(), 16);
    }

    #[test]
    fn a_mark_leaves_the_length_alone() {
        let mut ring = Ring::default();
        let number = ring.push(SpanRef::new(1, 0, (1 << LEN_BITS) - 1));
        for mark in [Mark::Alone, Mark::from_bits(7), Mark::None] {
            ring.mark(number, mark);
            let span = ring.get(number).unwrap();
            assert_eq!((span.mark(), span.len()), (mark, (1 << LEN_BITS) - 1));
        }
    }

    #[test]
    fn numbers_stay_while_the_front_retires() {
        let mut ring = Ring::default();
        let numbers: Vec<u32> = (0..5000).map(|n| ring.push(SpanRef::new(n / 1000, n, 7))).collect();
        ring.retire(2);
        assert_eq!(ring.len(), 2000);
        assert!(numbers[..3000].iter().all(|n| ring.get(*n).is_none()));
        assert_eq!(ring.get(numbers[3000]).map(|r| r.offset), Some(3000));
        assert_eq!(ring.get(NONE), None);
        assert_eq!(ring.push(SpanRef::new(5, 0, 7)), 5000);
    }

    #[test]
    fn no_reference_has_the_number_that_means_none() {
        let mut ring = Ring { base: NONE - (CHUNK as u32 - 1), ..Ring::default() };
        let numbers: Vec<u32> = (0..2000).map(|n| ring.push(SpanRef::new(1, n, 7))).collect();
        assert!(!numbers.contains(&NONE));
        let found: Vec<u32> = numbers.iter().filter_map(|n| ring.get(*n)).map(|r| r.offset).collect();
        assert_eq!(found, (0..2000).collect::<Vec<_>>());
        ring.retire(1);
        assert_eq!(ring.len(), 0);
    }

    #[test]
    fn the_ring_knows_what_lies_beyond_a_position() {
        let mut ring = Ring::default();
        for n in 0..10 {
            ring.push(SpanRef::new(1, n * 10, 7));
        }
        assert_eq!(ring.first_from(Position::new(1, 75)), 8);
        assert_eq!(ring.first_from(Position::new(2, 0)), 10);
        assert_eq!(ring.first_from(Position::new(0, 0)), 0);
    }
}
