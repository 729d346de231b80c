//! What a Parquet file is made of: the pieces of one tenant in one sealed outbox segment.

use std::fmt;
use std::io;

use bytes::Bytes;
use uuid::Uuid;

use crate::trace::{Position, Reason, Threshold, TraceId, WeightRule};

/// Where a piece lies and what it is sorted by. All that is held of a piece until its turn comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PieceKey {
    pub trace_id: TraceId,
    pub position: Position,
    /// Bytes to read there.
    pub len: u32,
}

/// The spans that one judgement sends out, and what it said of them.
#[derive(Clone, Debug)]
pub struct Piece {
    pub policy: String,
    pub reason: Reason,
    pub rule: WeightRule,
    pub threshold: Threshold,
    /// The root was seen.
    pub whole: bool,
    /// Nothing of it had left the log when it was judged.
    pub complete: bool,
    pub decided_at_ms: u64,
    /// So many spans, as its record counts them.
    pub spans: u32,
    /// An `ExportTraceServiceRequest`, its trace states as they leave.
    pub otlp: Bytes,
}

/// A sealed segment's pieces of one tenant.
pub trait Pieces {
    /// One piece, in whatever order it is asked for.
    fn read(&self, key: &PieceKey) -> io::Result<Piece>;
}

/// The segment an object is made from: all that its name and its metadata say.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    pub uuid: Uuid,
    pub opened_ms: u64,
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} ms", self.uuid, self.opened_ms)
    }
}
