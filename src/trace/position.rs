//! Places in a log.

/// Where a record begins in a log: the total order of all that the log accepted.
///
/// Segment numbers begin at 1 and are never reused, so the default lies before everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub segment: u32,
    /// Bytes from the start of the segment, its header included.
    pub offset: u32,
}

impl Position {
    /// Past everything that a log can hold.
    pub const MAX: Self = Self { segment: u32::MAX, offset: u32::MAX };

    pub const fn new(segment: u32, offset: u32) -> Self {
        Self { segment, offset }
    }

    /// One integer of the same order, for atomics and files.
    pub const fn to_u64(self) -> u64 {
        (self.segment as u64) << 32 | self.offset as u64
    }

    pub const fn from_u64(value: u64) -> Self {
        Self { segment: (value >> 32) as u32, offset: value as u32 }
    }
}
