//! What was decided of a unit, and why.

use super::Threshold;

/// A policy's place in the configured list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyId(pub u16);

impl PolicyId {
    /// No policy matched: dropped, under the name `none`.
    pub const NONE: Self = Self(u16::MAX);
}

/// What the policies say of one unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The policy that decided, or [`PolicyId::NONE`].
    pub policy: PolicyId,
    pub kept: bool,
    /// The rejection threshold in force: what p is written as.
    pub threshold: Threshold,
}

/// How the spans of a kept unit are weighed and what threshold they leave with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WeightRule {
    /// Kept by its unit's first verdict: th_out = max(th_in, T), weight its adjusted count.
    #[default]
    Threshold,
    /// Kept for another reason: th is erased and the weight is 0.
    Zero,
    /// Randomness came from a keyed hash: no th is written, the weight is that of T times that of the th it came with.
    Hashed,
}

/// Why a judgement was made, or why a piece left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// `after_root` has passed since its root came.
    Root,
    /// `max_wait` has passed and no root came.
    Wait,
    /// A judged trace got more spans.
    Late,
    /// Memory was short: the oldest segment retired.
    Pressure,
    /// A piece was full.
    Full,
    /// The process drains.
    Drain,
    /// Not judged for itself: it leaves so that a kept unit can be read in its place.
    Context,
}

impl Reason {
    pub const ALL: [Self; 7] =
        [Self::Root, Self::Wait, Self::Late, Self::Pressure, Self::Full, Self::Drain, Self::Context];

    /// As written in metrics, Parquet and on the status page.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Wait => "wait",
            Self::Late => "late",
            Self::Pressure => "pressure",
            Self::Full => "full",
            Self::Drain => "drain",
            Self::Context => "context",
        }
    }

    /// Judged before it was due.
    pub const fn early(self) -> bool {
        matches!(self, Self::Pressure | Self::Full)
    }
}
