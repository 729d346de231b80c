//! What pieces say of the verdicts by which they left: every one is looked at once, when its segment is exported.

use std::collections::{BTreeMap, BTreeSet};

use tailwater::exporter::outbox;
use tailwater::log::{GroupItem, GroupReader, SegmentInfo};
use tailwater::proto::{Piece, Reason, TraceState, WeightRule};
use tailwater::trace::{Randomness, Threshold};
use uuid::Uuid;

use crate::plan;
use crate::traffic::name_of;
use crate::wire;
use crate::world::{BEGIN_MS, World};

/// The policy whose share reloads change.
const REST: &str = "rest";
const MINUTE_MS: u64 = 60_000;

/// A verdict by which spans leave.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Verdict {
    policy: String,
    threshold: u64,
}

/// What was seen so far.
#[derive(Debug, Default)]
pub struct Pieces {
    segments: BTreeSet<Uuid>,
    /// By which verdict a trace was kept as one, and when.
    kept: BTreeMap<usize, (u64, Verdict)>,
    left_by: BTreeSet<(usize, Verdict)>,
    /// Traces that the last policy has kept, by minute.
    by_minute: BTreeMap<u64, BTreeSet<usize>>,
    /// Spans that were judged, and starts, by minute.
    pub judged: BTreeMap<u64, u64>,
    pub starts: BTreeMap<u64, u64>,
    /// When which share was put in force.
    pub in_force: Vec<(u64, u64)>,
    pub full: u64,
}

impl World {
    /// A sealed segment is about to be exported. Read from the disk as it is, whatever is misread of it.
    pub fn learn_of_pieces(&mut self, segment: &SegmentInfo) -> Result<(), String> {
        if !self.pieces.segments.insert(segment.uuid) {
            return Ok(());
        }
        let mut groups = GroupReader::segment(self.rig.disk.storage(), segment);
        while let Ok(Some(item)) = groups.next() {
            let GroupItem::Group(group) = item else { continue };
            for piece in group.records.iter().filter_map(outbox::read_piece) {
                self.learn_of_piece(&piece)?;
            }
        }
        Ok(())
    }

    fn learn_of_piece(&mut self, piece: &Piece) -> Result<(), String> {
        let first = wire::read(&piece.otlp).and_then(|spans| spans.first().copied());
        let (number, _) = name_of(first.ok_or("a piece without spans")?.id);
        let trace = &self.traffic.traces[number];
        if trace.synthetic || trace.damaged || trace.excused {
            return Ok(());
        }
        let randomness = Randomness(piece.randomness);
        if randomness != trace.randomness {
            return Err(format!("trace {number} left with the randomness of another"));
        }
        let by_threshold = piece.weight_rule() == WeightRule::Threshold;
        if by_threshold && !Threshold(piece.threshold).keeps(randomness) {
            return Err(format!("trace {number} left by a threshold that does not keep it"));
        }
        self.pieces.full += u64::from(piece.reason() == Reason::Full);
        let verdict = Verdict { policy: piece.policy.clone(), threshold: piece.threshold };
        let decided_ms = piece.decided_at_ms.saturating_sub(BEGIN_MS);
        if piece.state_after() == TraceState::Kept {
            self.check_kept(number, decided_ms, &verdict)?;
        }
        let is_new = self.pieces.left_by.insert((number, verdict.clone()));
        let at_first = is_new && by_threshold && piece.reason() != Reason::Context;
        if at_first && verdict.policy == REST {
            self.check_share(number, decided_ms, verdict.threshold)?;
            self.pieces.by_minute.entry(decided_ms / MINUTE_MS).or_default().insert(number);
        }
        Ok(())
    }

    /// While a verdict holds, what comes of its trace leaves by it.
    fn check_kept(&mut self, number: usize, decided_ms: u64, verdict: &Verdict) -> Result<(), String> {
        let forgotten = self.plan.pressure || self.state_damaged;
        if let Some((since_ms, kept)) = self.pieces.kept.get(&number) {
            let holds = decided_ms < since_ms + self.plan.waits.hindsight_ms;
            if holds && kept != verdict && !forgotten {
                return Err(format!(
                    "trace {number} was kept by {kept:?} at {since_ms} and by {verdict:?} at {decided_ms}"
                ));
            }
            if holds {
                return Ok(());
            }
        }
        self.pieces.kept.insert(number, (decided_ms, verdict.clone()));
        Ok(())
    }

    /// A new verdict is made by the policies that are in force.
    fn check_share(&self, number: usize, decided_ms: u64, threshold: u64) -> Result<(), String> {
        if self.plan.lose_oldest || self.state_damaged {
            return Ok(()); // what it follows may be lost
        }
        let changes = &self.pieces.in_force;
        let until = |at: usize| changes.get(at + 1).map_or(u64::MAX, |(next_ms, _)| *next_ms);
        let in_force =
            (0..changes.len()).filter(|at| changes[*at].0 <= decided_ms && decided_ms <= until(*at));
        let thresholds: Vec<u64> = in_force.map(|at| plan::threshold(changes[at].1).0).collect();
        let fits =
            |share: &u64| if self.plan.at_most.is_some() { threshold >= *share } else { threshold == *share };
        match thresholds.iter().any(fits) {
            true => Ok(()),
            false => Err(format!(
                "trace {number} was kept at {decided_ms} by threshold {threshold:x}, in force: {thresholds:x?}"
            )),
        }
    }

    /// A budget holds in each minute of a life, but for what came before there was a rate.
    pub fn check_budget(&mut self) -> Result<(), String> {
        let Some(most) = self.plan.at_most else { return Ok(()) };
        for (minute, kept) in &self.pieces.by_minute {
            let of = |counts: &BTreeMap<u64, u64>| counts.get(minute).copied().unwrap_or_default();
            let (judged, lives) = (of(&self.pieces.judged), of(&self.pieces.starts));
            // The p of the n-th unit of a minute is `most` / n.
            let expected = most as f64 * (1.0 + (judged as f64 / most as f64).max(1.0).ln());
            let bound = (lives + 2) as f64 * (2.0 * expected + 6.0);
            if kept.len() as f64 > bound {
                return Err(format!(
                    "{} traces of {judged} spans were kept in minute {minute}, at most {most} are to be",
                    kept.len()
                ));
            }
            self.counts.bounded += kept.len() as u64;
        }
        Ok(())
    }
}
