//! Counts durations in buckets that are at most 1 % wide.
//!
//! Log-linear: below 128 ns a bucket is a nanosecond, above each power of two is cut into 128 equal
//! buckets, so a bucket's upper edge is at most 1/128 above any value in it. Powers of two get their
//! counters when the first value falls into them: an operation whose durations span a factor of a
//! thousand takes 5 KiB, and no sketch more than [`BYTES_MAX`].

use std::mem::size_of;

const SUB_BITS: u32 = 7;
const SUB: usize = 1 << SUB_BITS;
/// Durations above 2^48 ns (78 hours) count as this long.
const DURATION_MAX: u64 = (1 << 48) - 1;
const OCTAVES: usize = (48 - SUB_BITS as usize) + 1;

/// Memory of one sketch at most: 22 KiB.
pub const BYTES_MAX: usize = size_of::<Sketch>() + OCTAVES * SUB * size_of::<u32>();

/// A bucket's number, growing with the durations in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bucket(pub u16);

impl Bucket {
    #[inline]
    pub fn of(duration_ns: u64) -> Self {
        let value = duration_ns.min(DURATION_MAX);
        let shift = (u64::BITS - value.leading_zeros()).saturating_sub(SUB_BITS + 1);
        let octave = if value < SUB as u64 { 0 } else { shift as usize + 1 };
        let sub = (value >> shift) as usize & (SUB - 1);
        Self((octave * SUB + sub) as u16)
    }

    /// The largest duration that falls into it, in nanoseconds.
    pub fn upper_edge(self) -> u64 {
        let (octave, sub) = (usize::from(self.0) / SUB, (usize::from(self.0) % SUB) as u64);
        match octave {
            0 => sub,
            _ => ((sub + SUB as u64 + 1) << (octave - 1)) - 1,
        }
    }
}

/// How often each bucket was hit.
#[derive(Clone, Debug)]
pub struct Sketch {
    octaves: [Option<Box<[u32; SUB]>>; OCTAVES],
    count: u64,
}

impl Default for Sketch {
    fn default() -> Self {
        Self { octaves: [const { None }; OCTAVES], count: 0 }
    }
}

impl Sketch {
    pub fn count(&self) -> u64 {
        self.count
    }

    #[inline]
    pub fn add(&mut self, bucket: Bucket, times: u32) {
        let (octave, sub) = (usize::from(bucket.0) / SUB, usize::from(bucket.0) % SUB);
        let Some(octave) = self.octaves.get_mut(octave) else { return };
        let counter = &mut octave.get_or_insert_with(|| Box::new([0; SUB]))[sub];
        *counter = counter.saturating_add(times);
        self.count += u64::from(times);
    }

    /// Takes one observation back; false if the bucket has none.
    pub fn remove(&mut self, bucket: Bucket) -> bool {
        let (octave, sub) = (usize::from(bucket.0) / SUB, usize::from(bucket.0) % SUB);
        let Some(Some(octave)) = self.octaves.get_mut(octave) else { return false };
        let found = octave[sub] > 0;
        octave[sub] -= u32::from(found);
        self.count -= u64::from(found);
        found
    }

    /// The buckets that were hit and how often, lowest first.
    pub fn buckets(&self) -> impl Iterator<Item = (Bucket, u32)> + '_ {
        let octaves = self.octaves.iter().enumerate();
        octaves.filter_map(|(octave, counts)| Some((octave, counts.as_ref()?))).flat_map(
            |(octave, counts)| {
                let hit = counts.iter().enumerate().filter(|(_, times)| **times > 0);
                hit.map(move |(sub, times)| (Bucket((octave * SUB + sub) as u16), *times))
            },
        )
    }

    fn octave(&self, octave: usize) -> &[u32] {
        self.octaves[octave].as_ref().map_or(&[], |counts| &counts[..])
    }
}

/// Upper edges of the buckets in which the observations of these ranks lie, over both sketches.
///
/// `ranks` count from 1 and rise; what no bucket reaches is the longest duration there is.
pub(super) fn upper_edges(sketches: [&Sketch; 2], ranks: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut ranks = ranks.peekable();
    let mut edges = Vec::new();
    let mut seen = 0;
    for octave in 0..OCTAVES {
        let counts = sketches.map(|sketch| sketch.octave(octave));
        for sub in 0..counts[0].len().max(counts[1].len()) {
            seen += counts
                .iter()
                .filter_map(|counts| counts.get(sub))
                .map(|&times| u64::from(times))
                .sum::<u64>();
            while ranks.next_if(|&rank| rank <= seen).is_some() {
                edges.push(Bucket((octave * SUB + sub) as u16).upper_edge());
            }
        }
    }
    edges.extend(ranks.map(|_| u64::MAX));
    edges
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_upper_edge_is_within_one_percent_of_every_value_below_it(value in 0..=DURATION_MAX) {
            let edge = Bucket::of(value).upper_edge();
            prop_assert!(edge >= value);
            prop_assert!((edge - value) as f64 <= value as f64 / 100.0, "{value} {edge}");
            prop_assert_eq!(Bucket::of(edge), Bucket::of(value));
            prop_assert!(edge == DURATION_MAX || Bucket::of(edge + 1).0 == Bucket::of(value).0 + 1);
        }
    }

    #[test]
    fn the_longest_durations_share_the_last_bucket() {
        assert_eq!(Bucket::of(u64::MAX), Bucket::of(DURATION_MAX));
        assert_eq!(usize::from(Bucket::of(u64::MAX).0), OCTAVES * SUB - 1);
    }

    #[test]
    fn what_is_removed_was_never_there() {
        let mut sketch = Sketch::default();
        sketch.add(Bucket::of(5_000), 1);
        assert!(sketch.remove(Bucket::of(5_000)));
        assert!(!sketch.remove(Bucket::of(5_000)));
        assert!(!sketch.remove(Bucket::of(1 << 40)));
        assert_eq!((sketch.count(), sketch.buckets().count()), (0, 0));
    }

    #[test]
    fn ranks_are_found_over_both_windows() {
        let (mut old, mut new) = (Sketch::default(), Sketch::default());
        (0..50).for_each(|value| old.add(Bucket::of(value), 1));
        (50..100).for_each(|value| new.add(Bucket::of(value), 1));
        assert_eq!(upper_edges([&old, &new], [1, 50, 95, 101].into_iter()), [0, 49, 94, u64::MAX]);
    }
}
