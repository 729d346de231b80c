//! OTLP on the wire: scanned, read in place, spliced, written; never decoded.

mod check;
pub mod scan;
mod schema;
pub mod tracestate;
mod wire;

pub use scan::{Malformed, Scanned, SpanFacts, SpanFault, scan};
pub use tracestate::{OtState, Outgoing, ThEdit, member, ot, outgoing, splice, weight};

#[cfg(test)]
#[path = "../../benches/workload.rs"]
mod workload;
