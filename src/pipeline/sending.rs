//! Sends out what a judgement keeps: groups of pieces into the outbox, at most 16 MiB of spans in memory at a
//! time, with the books beside.

use std::sync::atomic::Ordering::Relaxed;

use super::evidence::{Finder, Located};
use super::judge::Judge;
use super::piece::{self, PORTION_BYTES_MAX, Packed, Parcel};
use super::red;
use crate::buffer::{Candidate, Now, Place, Sent, State, Stretch, Which};
use crate::exporter::outbox::Kept;
use crate::proto::Piece;
use crate::trace::{PolicyId, Position, Reason, WeightRule};

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
            bytes_max: self.engine.buffer.piece_bytes(),
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
        let is_giant = from.len() > 1 || candidate.reason == Reason::Full;
        let bytes_max = self.record_bytes(is_giant);
        let parcel = Parcel { complete: stretch.complete, bytes_max, ..self.parcel(candidate, sent, now) };
        let mut untaken = 0;
        for at in (0..from.len()).rev() {
            let newer = at.checked_sub(1).map(|newer| self.stretch(shard, candidate, from[newer]));
            // A crash between two groups must find again what the second would have had.
            let through = newer.as_ref().and_then(first_position).unwrap_or(candidate.through);
            let parcel = Parcel { through, ..parcel.clone() };
            untaken += self.send_stretch(candidate, &stretch, &parcel, policy, now);
            stretch = newer.unwrap_or_default();
        }
        self.engine.ledger.unbuffered(u64::from(candidate.unjudged).saturating_sub(untaken));
    }

    /// Bytes of spans in a record: of more units than have records of their own, or of a trace that is more than a piece, if
    /// `is_large`.
    pub(super) fn record_bytes(&self, is_large: bool) -> usize {
        let piece_bytes = self.engine.buffer.piece_bytes();
        if is_large { piece_bytes.min(PORTION_BYTES_MAX) } else { piece_bytes }
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
        self.engine.buffer.stretch(shard, candidate, Which::Unsent, from, self.engine.buffer.piece_bytes())
    }

    fn send_stretch(
        &self,
        candidate: &Candidate,
        stretch: &Stretch,
        parcel: &Parcel,
        policy: PolicyId,
        now: Now,
    ) -> u64 {
        let mut finder = Finder::new(&self.engine);
        let oldest_first = stretch.members.iter().rev();
        let located: Vec<(Position, Located)> = oldest_first
            .filter_map(|member| Some((member.span.position(), finder.find(member.span)?)))
            .collect();
        let old = located.partition_point(|(position, _)| *position < candidate.first_unjudged);
        let spans: Vec<&Located> = located.iter().map(|(_, located)| located).collect();
        let mut shipment = Shipment { upgraded: old as u64, ..Shipment::default() };
        if parcel.sent.rule == WeightRule::Zero {
            shipment.pack(parcel, &spans, policy);
        } else {
            let weightless = Sent { rule: WeightRule::Zero, ..parcel.sent.clone() };
            let (old, new) = spans.split_at(old);
            shipment.pack(&Parcel { sent: weightless, ..parcel.clone() }, old, policy);
            shipment.pack(parcel, new, policy);
        }
        self.ship(candidate, &shipment, now)
    }

    /// Puts a shipment into the outbox as one group, and then counts it. Returns how many of its spans still wait:
    /// all new ones, if the outbox takes nothing any more.
    pub(super) fn ship(&self, candidate: &Candidate, shipment: &Shipment, now: Now) -> u64 {
        if shipment.pieces.is_empty() {
            return 0;
        }
        let tenant = self.engine.tenant_name(candidate.key.tenant);
        let group: Vec<Kept<'_>> =
            shipment.pieces.iter().map(|piece| Kept { tenant: &tenant, piece }).collect();
        // It is closed when its disk has failed: the process ends, and the next one judges again.
        if let Err(error) = self.outbox.append_group(&group, now.ms) {
            tracing::error!(%error, "outbox takes nothing any more");
            return shipment.new_spans();
        }
        let ledger = &self.engine.ledger;
        shipment.kept.iter().for_each(|(policy, spans)| ledger.kept(*policy, *spans));
        ledger.upgraded(shipment.upgraded);
        ledger.duplicate(shipment.duplicates);
        self.tallies.inconsistent.fetch_add(shipment.inconsistent, Relaxed);
        if let Some(red) = &self.engine.red {
            red::examples(red, &tenant, &shipment.pieces, now.ms);
        }
        0
    }
}

/// Pieces that leave as one group, and what they count once they have.
#[derive(Debug, Default)]
pub(super) struct Shipment {
    pieces: Vec<Piece>,
    /// Spans, by policy.
    kept: Vec<(PolicyId, u64)>,
    /// Spans that an earlier judgement dropped.
    pub(super) upgraded: u64,
    duplicates: u64,
    inconsistent: u64,
}

impl Shipment {
    /// Adds the spans of one unit and weight rule.
    pub(super) fn pack(&mut self, parcel: &Parcel, spans: &[&Located], policy: PolicyId) {
        let Packed { pieces, spans, duplicates, inconsistent } = piece::pack(parcel, spans);
        self.pieces.extend(pieces);
        self.kept.push((policy, spans));
        self.duplicates += duplicates;
        self.inconsistent += inconsistent;
    }

    /// Spans that have waited until now.
    fn new_spans(&self) -> u64 {
        let all: u64 = self.kept.iter().map(|(_, spans)| spans).sum();
        (all + self.duplicates).saturating_sub(self.upgraded)
    }
}

fn first_position(stretch: &Stretch) -> Option<Position> {
    stretch.members.last().map(|oldest| oldest.span.position())
}
