//! OTLP on the wire: scanned, read in place, spliced, written; never decoded.
//!
//! - [`scan()`] checks a request once and finds its spans: all that ingest needs.
//! - [`view`] reads values in place: what conditions and Parquet need.
//! - [`tracestate`] reads and edits `th` and `rv`, and says what a kept span weighs.
//! - [`piece()`] writes the spans that leave, by copying.
//!
//! All of it is held against prost, by tests here and by the fuzz target in `tests/fuzz`.

mod check;
pub mod encode;
mod keys;
mod lossy;
mod outline;
pub mod scan;
mod schema;
pub mod tracestate;
mod value;
pub mod view;
mod wire;

pub use encode::{PieceSpan, piece};
pub use keys::{Keys, Own, Seen};
pub use lossy::in_utf8;
pub use outline::Outline;
pub use scan::{Malformed, Scanned, SpanFacts, SpanFault, scan, scan_for};
pub use tracestate::{OtState, Outgoing, ThEdit, member, ot, outgoing, splice, weight};
pub use view::{
    ArrayView, EventView, KeyValueView, KvListView, LinkView, Located, ResourceSpansView, ResourceView,
    ScopeSpansView, ScopeView, SpanView, ValueView, locate, request, trace_state,
};

#[cfg(test)]
#[path = "../../benches/workload.rs"]
mod workload;

#[cfg(test)]
mod differential;
