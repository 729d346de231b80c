//! Decides which units to keep.
//!
//! A policy is a condition and a share; they are asked in the order of the configuration and the first
//! that matches decides. What a condition needs is looked at in the order of its cost: bits folded while
//! the spans came in, what the unit's root says, and last the bytes of the spans.
//!
//! Nothing here waits or reads a clock; randomness is the trace's own, so a share gives the same verdict on
//! every instance, after a restart and in a replay. A budget is a share that follows the traffic: it remembers the
//! last minute.

mod budget;
mod config;
mod policy;
mod root;
pub mod slow;
#[cfg(test)]
pub(crate) mod testing;
mod traceql;
mod uniformity;
mod unit;

pub use budget::{BudgetSnapshot, Formula, KEYS_MAX, KeySnapshot, Measure, MeterSnapshot, Rate, RateError};
pub use config::{ConditionText, Keep, PolicyConfig, PolicyName, RandomnessSource};
pub use policy::{CompileError, CurrentKeep, Policies, Shadow, Warning};
pub use root::{RootCondition, RootError, Roots};
pub use slow::{Learned, Operation, OperationKey, OperationName, Percentile, Slow};
pub use traceql::{FOLDS_MAX, Folding, QueryError, SpanField};
pub use uniformity::Uniformity;
pub use unit::{ReadSpans, Size, Spans, Unit, UnitSpan};
