//! Messages that live on disk: bodies of outbox records, attributes of outbox segments, the state file.
//!
//! Generated from `proto/*.proto`, with what ties them to the words of `trace`.

use bytes::Bytes;

use crate::trace;

#[allow(missing_docs, unreachable_pub, clippy::all)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/tailwater.v1.rs"));
}

pub use generated::*;

/// Version of the state file that this program writes, and the newest that it reads.
pub const STATE_FORMAT_VERSION: u32 = 1;

impl Piece {
    /// The trace, or `None` in a record that this program has not written.
    pub fn trace(&self) -> Option<trace::TraceId> {
        trace::TraceId::valid(&self.trace_id)
    }

    /// The snapshot of the judgement: spans at or before it need not be judged again.
    pub fn through(&self) -> trace::Position {
        trace::Position::new(self.through_segment, self.through_offset)
    }
}

impl From<trace::TraceId> for TraceKey {
    fn from(id: trace::TraceId) -> Self {
        let both = u128::from_be_bytes(id.0);
        Self { high: (both >> 64) as u64, low: both as u64 }
    }
}

impl From<TraceKey> for trace::TraceId {
    fn from(key: TraceKey) -> Self {
        Self((u128::from(key.high) << 64 | u128::from(key.low)).to_be_bytes())
    }
}

/// As [`Piece::trace_id`] has it.
impl From<trace::TraceId> for Bytes {
    fn from(id: trace::TraceId) -> Self {
        Self::copy_from_slice(&id.0)
    }
}

impl From<trace::Position> for Position {
    fn from(position: trace::Position) -> Self {
        Self { segment: position.segment, offset: position.offset }
    }
}

impl From<Position> for trace::Position {
    fn from(position: Position) -> Self {
        Self::new(position.segment, position.offset)
    }
}

/// Two enums of the same variants, both ways.
macro_rules! same {
    ($ours:path, $theirs:ident, [$($variant:ident),*]) => {
        impl From<$ours> for $theirs {
            fn from(value: $ours) -> Self {
                match value { $(<$ours>::$variant => Self::$variant),* }
            }
        }
        impl From<$theirs> for $ours {
            fn from(value: $theirs) -> Self {
                match value { $($theirs::$variant => Self::$variant),* }
            }
        }
    };
}

same!(trace::WeightRule, WeightRule, [Threshold, Zero, Hashed]);
same!(trace::Reason, Reason, [Root, Wait, Late, Pressure, Full, Drain, Context]);

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn a_trace_id_survives_its_two_integers() {
        let id = trace::TraceId(*b"0123456789abcdef");
        assert_eq!(trace::TraceId::from(TraceKey::from(id)), id);
    }

    #[test]
    fn a_piece_is_read_without_copying_its_spans() {
        let piece = Piece { otlp: Bytes::from(vec![7; 1000]), ..Default::default() };
        let record = Bytes::from(piece.encode_to_vec());
        let read = Piece::decode(record.clone()).unwrap();
        assert!(record.as_ptr_range().contains(&read.otlp.as_ptr()));
    }

    #[test]
    fn parts_of_a_state_file_merge() {
        let first = State { format_version: 1, live: vec![LiveEntry::default()], ..Default::default() };
        let second = State { live: vec![LiveEntry::default()], ..Default::default() };
        let file = [first.encode_to_vec(), second.encode_to_vec()].concat();
        let read = State::decode(file.as_slice()).unwrap();
        assert_eq!((read.format_version, read.live.len()), (1, 2));
    }
}
