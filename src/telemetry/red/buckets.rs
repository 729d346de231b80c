//! Durations by powers of two of a second.

/// The first bound is 2^-13 s (122 µs), the last 2^7 s (128 s).
const FIRST: i32 = -13;
const LAST: i32 = 7;

/// Bounds, and what lies above the last.
pub(super) const COUNT: usize = (LAST - FIRST + 1) as usize + 1;

/// The first bucket whose bound is not below the duration.
#[inline]
pub(super) fn of(nanoseconds: u64) -> usize {
    let bits = (nanoseconds as f64 * 1e-9).to_bits();
    let exponent = (bits >> 52) as i32 - 1023;
    let above = i32::from(bits & ((1 << 52) - 1) != 0);
    (exponent + above - FIRST).clamp(0, COUNT as i32 - 1) as usize
}

/// Seconds; none of the bucket of what lies above the last.
pub(super) fn bound(bucket: usize) -> Option<f64> {
    (bucket + 1 < COUNT).then(|| f64::from(bucket as i32 + FIRST).exp2())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_lies_below_its_bound_and_above_the_one_before() {
        for nanoseconds in [1, 122_070, 122_071, 999_999, 1_000_000_000, 1_000_000_001, 128_000_000_000] {
            let (seconds, bucket) = (nanoseconds as f64 * 1e-9, of(nanoseconds));
            assert!(seconds <= bound(bucket).unwrap(), "{nanoseconds}");
            assert!(bucket == 0 || seconds > bound(bucket - 1).unwrap(), "{nanoseconds}");
        }
        assert_eq!((of(0), of(128_000_000_001), of(u64::MAX)), (0, COUNT - 1, COUNT - 1));
    }

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        assert_eq!(bound(of(1_000_000_000)), Some(1.0));
        assert_eq!(bound(of(500_000_000)), Some(0.5));
        assert_eq!(bound(COUNT - 1), None);
    }
}
