//! Randomness of a trace and the thresholds it is compared with.
//!
//! OTEP 235 and W3C trace context level 2: 56 bits each; a trace is kept if R >= T.

/// 56 random bits of a trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Randomness(pub u64);

/// Rejection threshold, 0 (keep all) to 2^56 (keep nothing).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Threshold(pub u64);

/// A share as typed, an exact decimal: 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share;

/// A share that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a share such as 5% or 0.1%")]
pub struct ShareError;
impl Randomness {
    pub fn of_trace_id(t: super::TraceId) -> Self {
        let mut b = [0u8; 8];
        b.copy_from_slice(&t.0[8..]);
        Self(u64::from_be_bytes(b) & ((1 << 56) - 1))
    }
}
