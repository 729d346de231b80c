//! The words every stage speaks: identities, positions, verdicts, randomness.
//!
//! Plain values. Nothing here depends on another folder, waits, locks or reads a clock.

mod id;
mod keyed;
mod position;
mod randomness;
mod tenant;
mod verdict;

pub use id::{SpanId, TraceId, TraceIdError};
pub use keyed::HashKey;
pub use position::Position;
pub use randomness::{EncodedThreshold, Randomness, Share, ShareError, Threshold};
pub use tenant::{TENANTS_MAX, TenantId, Tenants, TooManyTenants};
pub use verdict::{Decision, PolicyId, Reason, WeightRule};
