//! Makes pieces of what a judgement keeps: at most 16 MiB each, byte-identical spans once, trace states
//! spliced by the weight rule of the verdict.

use std::collections::HashSet;

use super::engine::{MESSAGE_BYTES_MAX, Request};
use super::judge::Located;
use crate::buffer::{Candidate, Sent};
use crate::otlp::{self, Outline, PieceSpan};
use crate::proto;
use crate::trace::Randomness;

/// Bytes of spans in a piece.
pub(super) const PIECE_BYTES_MAX: usize = MESSAGE_BYTES_MAX;

/// What all pieces of one judgement have in common.
#[derive(Debug)]
pub(super) struct Parcel<'a> {
    pub(super) candidate: &'a Candidate,
    pub(super) sent: &'a Sent,
    pub(super) complete: bool,
    pub(super) decided_at_ms: u64,
    pub(super) randomness: Randomness,
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

pub(super) fn pack(parcel: &Parcel<'_>, located: &[Located]) -> Packed {
    let mut packed = Packed::default();
    let mut seen: HashSet<&[u8], foldhash::fast::RandomState> = HashSet::default();
    let mut spans: Vec<PieceSpan<'_>> = Vec::with_capacity(located.len());
    let mut bytes = 0;
    for one in located {
        if !seen.insert(one.message()) {
            packed.duplicates += 1;
            continue;
        }
        if bytes + one.len as usize > PIECE_BYTES_MAX && !spans.is_empty() {
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
    fn spliced<'a>(&mut self, parcel: &Parcel<'_>, one: &'a Located) -> PieceSpan<'a> {
        let sent = parcel.sent;
        let trace_state = otlp::trace_state(one.message());
        let out = otlp::outgoing(trace_state, sent.rule, sent.threshold, parcel.randomness);
        self.inconsistent += u64::from(out.inconsistent);
        let Request { body, utf8, outline, .. } = &one.request;
        let outline = Outline::new(outline);
        PieceSpan { body, at: one.at, len: one.len, edit: out.edit, utf8: *utf8, outline }
    }

    fn close(&mut self, parcel: &Parcel<'_>, spans: &mut Vec<PieceSpan<'_>>) {
        if spans.is_empty() {
            return;
        }
        let mut body = Vec::with_capacity(spans.iter().map(|span| span.len as usize + 256).sum());
        otlp::piece(spans, &mut body);
        let Parcel { candidate, sent, complete, decided_at_ms, randomness } = parcel;
        self.spans += spans.len() as u64;
        self.pieces.push(proto::Piece {
            trace_id: candidate.key.trace.0.to_vec().into(),
            whole: candidate.root_seen,
            complete: *complete,
            policy: sent.policy.to_string(),
            threshold: sent.threshold.0,
            weight_rule: proto::WeightRule::from(sent.rule).into(),
            reason: proto::Reason::from(candidate.reason).into(),
            decided_at_ms: *decided_at_ms,
            through_segment: candidate.through.segment,
            through_offset: candidate.through.offset,
            state_after: proto::TraceState::Kept.into(),
            spans: spans.len() as u32,
            randomness: randomness.0,
            otlp: body.into(),
        });
        spans.clear();
    }
}
