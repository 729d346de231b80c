//! What policies would have kept of traffic that is over.
//!
//! The code that judges is that of a running instance ([`Simulation`](crate::pipeline::Simulation)): requests of the
//! input come at the times at which they came, on a clock that follows them, and what is kept goes to an outbox of
//! which nothing is sent. Two runs, of old and new policies, are compared trace by trace.

mod compare;
mod input;
mod replay;
mod report;
mod tally;

pub use compare::{Change, Fate, compare};
pub use input::{Kind, Source};
pub use replay::run;
pub use report::Report;
pub use tally::{Amount, Outcome, PolicyOutcome, Read};
