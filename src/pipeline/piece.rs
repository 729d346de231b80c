//! Makes pieces of what a judgement keeps: at most 16 MiB each, byte-identical spans once, trace states
//! spliced by the weight rule of their verdict.

use std::collections::HashSet;

use super::engine::{MESSAGE_BYTES_MAX, Request};
use super::evidence::Located;
use crate::buffer::{Sent, State};
use crate::log::record::RECORD_MAX;
use crate::otlp::{self, Outline, PieceSpan};
use crate::proto;
use crate::trace::{Position, Randomness, Reason, TraceId};

/// Bytes of spans in a piece.
pub(super) const PIECE_BYTES_MAX: u32 = MESSAGE_BYTES_MAX as u32;

/// The same in a record of what is more than a piece, or of more units than have records of their own: whatever is held
/// at once of such a trace, here and where it is read, is less for it.
pub(super) const PORTION_BYTES_MAX: usize = 4 << 20;

/// OTLP of a piece; a record has room for the rest.
const BODY_BYTES_MAX: usize = RECORD_MAX - (1 << 20);

/// What all pieces of one unit and weight rule have in common.
#[derive(Clone, Debug)]
pub(super) struct Parcel {
    pub(super) trace: TraceId,
    /// Judged as one unit with its root.
    pub(super) whole: bool,
    pub(super) complete: bool,
    pub(super) sent: Sent,
    pub(super) reason: Reason,
    pub(super) decided_at_ms: u64,
    /// Spans of the trace before this are accounted for once the piece is written.
    pub(super) through: Position,
    pub(super) state_after: State,
    pub(super) randomness: Randomness,
    /// Bytes of spans in a record.
    pub(super) bytes_max: usize,
}

/// The pieces, and what was counted on the way.
#[derive(Debug, Default)]
pub(super) struct Packed {
    pub(super) pieces: Vec<proto::Piece>,
    pub(super) spans: u64,
    pub(super) duplicates: u64,
    /// Spans whose `th` was above the randomness of their trace.
    pub(super) inconsistent: u64,
}

pub(super) fn pack(parcel: &Parcel, located: &[&Located]) -> Packed {
    let mut packed = Packed::default();
    let mut seen: HashSet<&[u8], foldhash::fast::RandomState> = HashSet::default();
    let mut spans: Vec<PieceSpan<'_>> = Vec::with_capacity(located.len());
    let mut bytes = 0;
    for one in located {
        if !seen.insert(one.message()) {
            packed.duplicates += 1;
            continue;
        }
        if bytes + one.len as usize > parcel.bytes_max && !spans.is_empty() {
            packed.close(parcel, &mut spans);
            bytes = 0;
        }
        bytes += one.len as usize;
        spans.push(packed.spliced(parcel, one));
    }
    packed.close(parcel, &mut spans);
    packed
}

impl Packed {
    fn spliced<'a>(&mut self, parcel: &Parcel, one: &'a Located) -> PieceSpan<'a> {
        let sent = &parcel.sent;
        let trace_state = otlp::trace_state(one.message());
        let out = otlp::outgoing(trace_state, sent.rule, sent.threshold, parcel.randomness);
        self.inconsistent += u64::from(out.inconsistent);
        let Request { body, utf8, outline, .. } = &one.request;
        let outline = Outline::new(outline);
        PieceSpan { body, at: one.at, len: one.len, edit: out.edit, utf8: *utf8, outline }
    }

    fn close(&mut self, parcel: &Parcel, spans: &mut Vec<PieceSpan<'_>>) {
        if !spans.is_empty() {
            self.encode(parcel, spans);
        }
        spans.clear();
    }

    /// What spans bring of their own resources counts as well: beyond what a log takes they leave in halves. Not sooner,
    /// because a resource that all of them share would be repeated.
    fn encode(&mut self, parcel: &Parcel, spans: &[PieceSpan<'_>]) {
        // It takes what it needs at once.
        let mut body = Vec::new();
        otlp::piece(spans, &mut body);
        if body.len() > BODY_BYTES_MAX && spans.len() > 1 {
            drop(body);
            let (first, second) = spans.split_at(spans.len() / 2);
            self.encode(parcel, first);
            return self.encode(parcel, second);
        }
        let Parcel { sent, through, .. } = parcel;
        self.spans += spans.len() as u64;
        self.pieces.push(proto::Piece {
            trace_id: parcel.trace.into(),
            whole: parcel.whole,
            complete: parcel.complete,
            policy: sent.policy.to_string(),
            threshold: sent.threshold.0,
            weight_rule: proto::WeightRule::from(sent.rule).into(),
            reason: proto::Reason::from(parcel.reason).into(),
            decided_at_ms: parcel.decided_at_ms,
            through_segment: through.segment,
            through_offset: through.offset,
            state_after: state_to_proto(parcel.state_after).into(),
            spans: spans.len() as u32,
            randomness: parcel.randomness.0,
            otlp: body.into(),
        });
    }
}

/// What is written of a state.
pub(super) fn state_to_proto(state: State) -> proto::TraceState {
    match state {
        State::Open => proto::TraceState::Unspecified,
        State::Kept => proto::TraceState::Kept,
        State::Dropped => proto::TraceState::Dropped,
        State::Stream => proto::TraceState::Stream,
    }
}

/// What was written of a trace that has left something, or is a stream.
pub(super) fn state_from_proto(state: proto::TraceState) -> State {
    match state {
        proto::TraceState::Kept | proto::TraceState::Unspecified => State::Kept,
        proto::TraceState::Dropped => State::Dropped,
        proto::TraceState::Stream => State::Stream,
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
    use opentelemetry_proto::tonic::resource::v1::Resource;
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
    use prost::Message;

    use super::*;
    use crate::trace::{Threshold, WeightRule};

    const TRACE: TraceId = TraceId([1; 16]);

    /// A request of one span whose resource has `bytes` of its own.
    fn located(n: u8, bytes: usize) -> Located {
        let value = Some(AnyValue { value: Some(Value::StringValue(n.to_string().repeat(bytes))) });
        let attributes = vec![KeyValue { key: "k".to_owned(), value, ..KeyValue::default() }];
        let resource = Some(Resource { attributes, ..Resource::default() });
        let span = Span { trace_id: TRACE.0.to_vec(), span_id: vec![n; 8], ..Span::default() };
        let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
        let resource_spans = vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }];
        let body = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
        let mut place = (0, 0);
        otlp::scan(&body, |span| place = (span.at, span.len)).unwrap();
        let request = Request { at: 0, body: body.into(), utf8: true, outline: [].into() };
        Located { request, at: place.0, len: place.1 }
    }

    #[test]
    fn spans_with_large_resources_of_their_own_leave_in_pieces_that_a_log_takes() {
        let located: Vec<Located> = (0..40).map(|n| located(10 + n, 1 << 20)).collect();
        let parcel = Parcel {
            trace: TRACE,
            whole: true,
            complete: true,
            sent: Sent { policy: "p".into(), threshold: Threshold(0), rule: WeightRule::Threshold },
            reason: Reason::Root,
            decided_at_ms: 0,
            through: Position::default(),
            state_after: State::Kept,
            randomness: Randomness::of_trace(TRACE),
            bytes_max: PIECE_BYTES_MAX as usize,
        };
        let packed = pack(&parcel, &located.iter().collect::<Vec<_>>());
        assert!(packed.pieces.iter().all(|piece| piece.encoded_len() < RECORD_MAX - 1_000));
        assert_eq!(packed.pieces.iter().map(|piece| piece.spans).sum::<u32>(), 40);
        assert_eq!((packed.pieces.len(), packed.spans), (2, 40));
    }
}
