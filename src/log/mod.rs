//! The segmented log: what was accepted (input) and what was kept (outbox), in memory and on disk.
//!
//! One format serves both. A segment is a header and then records; a [`Position`](crate::trace::Position)
//! is a segment's number and an offset in it, and is the same in memory and in the file.
//!
//! - A record is found whole or not at all: its checksum covers all of it, and its magic finds the next
//!   one when a length cannot be trusted.
//! - What [`Writer::wait`] has confirmed survives the end of the process; with [`SyncMode::Always`] also
//!   the loss of power.
//! - A number is never used twice, so a position names one record for ever.
//!
//! Reading order: `record`, `segment`, `memory`, `writer`, `write_loop`, `reader`, `grouped`, `group_reader`; `storage` is the only
//! way to a disk, `sim` its double for tests.

pub mod group_reader;
pub mod grouped;
#[cfg(test)]
pub(crate) mod hooked;
#[cfg(test)]
mod measure;
pub mod memory;
pub mod reader;
pub mod record;
pub mod segment;
pub mod sim;
pub mod storage;
mod waiters;
pub mod write_loop;
pub mod writer;

pub use group_reader::{Group, GroupItem, GroupReader};
pub use grouped::{AppendError, Appended, Found, GroupLog, GroupRecord, GroupSettings};
pub use memory::{AppendedRecord, Memory, Segment, StoredRecord};
pub use reader::{ReadItem, ReadRecord, Reader};
pub use record::{Damage, Head, Parsed, Record, RecordTooLarge};
pub use segment::{HeaderFault, SegmentHeader, SegmentInfo, Segments};
pub use sim::SimDisk;
pub use storage::{Disk, File, Open, Storage};
pub use write_loop::{Step, WriteLoop};
pub use writer::{Fatal, Settings, SyncMode, WriteFailed, Writer};
