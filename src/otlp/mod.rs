//! OTLP on the wire: scanned, read in place, spliced, written; never decoded.

mod check;
pub mod encode;
mod lossy;
pub mod scan;
mod schema;
pub mod tracestate;
mod value;
pub mod view;
mod wire;

pub use encode::{PieceSpan, piece};
pub use scan::{Malformed, Scanned, SpanFacts, SpanFault, scan};
pub use tracestate::{OtState, Outgoing, ThEdit, member, ot, outgoing, splice, weight};
pub use view::{
    ArrayView, EventView, KeyValueView, KvListView, LinkView, Located, ResourceSpansView, ResourceView,
    ScopeSpansView, ScopeView, SpanView, ValueView, locate, request,
};

#[cfg(test)]
#[path = "../../benches/workload.rs"]
mod workload;

#[cfg(test)]
mod differential;
