//! Writes kept traces as Parquet to object storage: one object a sealed outbox segment and tenant.
//!
//! [`encode()`] makes a file of a segment's pieces, the same bytes every time; [`Store::upload`] puts it under the name that
//! follows from the segment's header, so that repeating either is harmless. Nothing else is written: no index, no manifest.

mod attributes;
mod chunk;
mod cloud;
mod columns;
mod config;
mod delta;
mod dictionary;
mod encode;
mod hybrid;
mod journal;
mod lists;
mod local;
pub mod lookup;
mod object;
mod restore;
mod row_group;
pub mod schema;
mod shared;
mod source;
mod span;
mod task;
mod texts;
mod upload;
mod value;
mod values;
mod wire;

pub use config::{Config, Roll, S3};
pub use encode::{EncodeError, Summary, encode};
pub use journal::Journal;
pub use local::encode_to;
pub use object::{Cloud, Target, TargetError, name};
pub use restore::{RestoreError, Restored, restore};
pub use source::{Piece, PieceKey, Pieces, Segment};
pub use task::{Contents, EXPORTER, Exporter, SCHEMA_VERSION};
pub use upload::{OpenError, Store, UploadError};

#[cfg(test)]
#[allow(unreachable_pub, dead_code, reason = "it is the integration tests' as well")]
#[path = "../../../tests/integration/support/object_store.rs"]
mod object_store;
#[cfg(test)]
mod tests;
