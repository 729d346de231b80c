//! Sends out what a judgement keeps: groups of pieces into the outbox, at most 16 MiB of spans in memory at a
//! time, with the books beside.

use super::evidence::Located;
use super::judge::Judge;
use super::piece::{self, PIECE_BYTES_MAX, Packed, Parcel};
use super::red;
use crate::buffer::{Candidate, Now, Place, Sent, State, Stretch, Which};
use crate::exporter::outbox::Kept;
use crate::proto::Piece;
use crate::trace::{PolicyId, Position, WeightRule};

impl Judge {
    /// What all pieces of a judgement have in common.
    pub(super) fn parcel(&self, candidate: &Candidate, sent: &Sent, now: Now) -> Parcel {
        Parcel {
            trace: candidate.key.trace,
            whole: candidate.root_seen,
            complete: true,
            sent: sent.clone(),
            reason: candidate.reason,
            decided_at_ms: now.ms,
            through: candidate.through,
            state_after: State::Kept,
            randomness: self.engine.randomness(candidate.key.trace, &candidate.summary),
        }
    }

    /// Sends all that has not left, oldest first. Spans that an earlier judgement dropped weigh nothing.
    pub(super) fn send_all(
        &self,
        shard: usize,
        candidate: &Candidate,
        sent: &Sent,
        policy: PolicyId,
        now: Now,
    ) {
        let (from, mut stretch) = self.oldest(shard, candidate);
        let parcel = Parcel { complete: stretch.complete, ..self.parcel(candidate, sent, now) };
        for at in (0..from.len()).rev() {
            let newer = at.checked_sub(1).map(|newer| self.stretch(shard, candidate, from[newer]));
            // A crash between two groups must find again what the second would have had.
            let through = newer.as_ref().and_then(first_position).unwrap_or(candidate.through);
            self.send_stretch(candidate, &stretch, &Parcel { through, ..parcel.clone() }, policy, now);
            stretch = newer.unwrap_or_default();
        }
        self.engine.ledger.unbuffered(u64::from(candidate.unjudged));
    }

    /// Where each stretch begins, the newest first, and the oldest of them.
    fn oldest(&self, shard: usize, candidate: &Candidate) -> (Vec<Option<Place>>, Stretch) {
        let mut from = vec![None];
        let mut stretch = self.stretch(shard, candidate, None);
        while let Some(next) = stretch.next {
            from.push(Some(next));
            stretch = self.stretch(shard, candidate, Some(next));
        }
        (from, stretch)
    }

    fn stretch(&self, shard: usize, candidate: &Candidate, from: Option<Place>) -> Stretch {
        self.engine.buffer.stretch(shard, candidate, Which::Unsent, from, PIECE_BYTES_MAX)
    }

    fn send_stretch(
        &self,
        candidate: &Candidate,
        stretch: &Stretch,
        parcel: &Parcel,
        policy: PolicyId,
        now: Now,
    ) {
        let is_old = |located: &(Position, Located)| located.0 < candidate.first_unjudged;
        let oldest_first = stretch.members.iter().rev();
        let located: Vec<(Position, Located)> = oldest_first
            .filter_map(|member| Some((member.span.position(), Located::of(&self.engine, member.span)?)))
            .collect();
        let old = located.partition_point(is_old);
        self.engine.ledger.upgraded(old as u64);
        let spans: Vec<&Located> = located.iter().map(|(_, located)| located).collect();
        let mut pieces = Vec::new();
        if parcel.sent.rule == WeightRule::Zero {
            self.pack(parcel, &spans, policy, &mut pieces);
        } else {
            let weightless = Sent { rule: WeightRule::Zero, ..parcel.sent.clone() };
            let (old, new) = spans.split_at(old);
            self.pack(&Parcel { sent: weightless, ..parcel.clone() }, old, policy, &mut pieces);
            self.pack(parcel, new, policy, &mut pieces);
        }
        self.append(candidate, &pieces, now);
    }

    /// Makes pieces of the spans of one unit and weight rule, and counts them.
    pub(super) fn pack(
        &self,
        parcel: &Parcel,
        spans: &[&Located],
        policy: PolicyId,
        pieces: &mut Vec<Piece>,
    ) {
        let Packed { pieces: packed, spans, duplicates, inconsistent } = piece::pack(parcel, spans);
        self.engine.ledger.kept(policy, spans);
        self.engine.ledger.duplicate(duplicates);
        self.tallies.inconsistent(inconsistent);
        pieces.extend(packed);
    }

    /// Puts pieces into the outbox as one group.
    pub(super) fn append(&self, candidate: &Candidate, pieces: &[Piece], now: Now) {
        if pieces.is_empty() {
            return;
        }
        let tenant = self.engine.tenant_name(candidate.key.tenant);
        if let Some(red) = &self.engine.red {
            red::examples(red, &tenant, pieces, now.ms);
        }
        let group: Vec<Kept<'_>> = pieces.iter().map(|piece| Kept { tenant: &tenant, piece }).collect();
        // It is closed when its disk has failed: the process ends, and the next one judges again.
        if let Err(error) = self.outbox.append_group(&group, now.ms) {
            tracing::error!(%error, "outbox takes nothing any more");
        }
    }
}

fn first_position(stretch: &Stretch) -> Option<Position> {
    stretch.members.last().map(|oldest| oldest.span.position())
}
