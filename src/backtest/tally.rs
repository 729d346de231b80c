//! Counts what is kept and dropped, by policy and by trace.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::FixedState;
use parking_lot::Mutex;

use super::compare::Fate;
use crate::exporter::outbox::Parcel;
use crate::pipeline::Witness;
use crate::trace::{PolicyId, TraceId};

/// Thresholds are parts of this.
const EVERYTHING: f64 = (1u64 << 56) as f64;

/// Trace and tenant in one number.
pub(super) type Key = u128;

pub(super) fn key(tenant: &str, trace: TraceId) -> Key {
    let of_tenant = if tenant.is_empty() { 0 } else { FixedState::default().hash_one(tenant) };
    u128::from_be_bytes(trace.0) ^ (u128::from(of_tenant) << 32)
}

/// How much: estimates, where the input is itself a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Amount {
    pub traces: f64,
    pub spans: f64,
    pub bytes: f64,
}

impl Amount {
    pub(super) fn add(&mut self, other: Self) {
        self.traces += other.traces;
        self.spans += other.spans;
        self.bytes += other.bytes;
    }

    /// As much in a day as this in so many milliseconds.
    pub(super) fn per_day(self, ms: u64) -> Self {
        let days = ms.max(1_000) as f64 / 86_400_000.0;
        Self { traces: self.traces / days, spans: self.spans / days, bytes: self.bytes / days }
    }
}

/// What came of a policy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicyOutcome {
    pub name: String,
    /// Traces of the input that it decided.
    pub matched: u64,
    pub kept: Amount,
}

/// What was read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Read {
    pub requests: u64,
    pub spans: u64,
    /// Spans that are not OTLP.
    pub rejected: u64,
    /// Requests that could not be judged: too large, not OTLP, or beyond memory however long they waited.
    pub refused: u64,
    /// Times a request had to wait for memory, as its sender would have.
    pub waits: u64,
    /// Bytes of the input that cannot be read.
    pub lost_bytes: u64,
    /// Arrival of the first and of the last request, Unix milliseconds.
    pub first_ms: u64,
    pub last_ms: u64,
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    pub read: Read,
    /// In the order of the configuration, `none` last.
    pub policies: Vec<PolicyOutcome>,
    pub(super) fates: HashMap<Key, Fate>,
}

impl Outcome {
    pub fn kept(&self) -> Amount {
        let mut all = Amount::default();
        self.policies.iter().for_each(|policy| all.add(policy.kept));
        all
    }

    /// Traces of the input.
    pub fn traces(&self) -> u64 {
        self.fates.len() as u64
    }
}

/// Takes down drops between two turns.
#[derive(Debug, Default)]
pub(super) struct Drops(Mutex<Vec<(Key, PolicyId)>>);

impl Witness for Drops {
    fn dropped(&self, tenant: &str, trace: TraceId, policy: PolicyId) {
        self.0.lock().push((key(tenant, trace), policy));
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Tally {
    names: Vec<String>,
    kept: Vec<Amount>,
    fates: HashMap<Key, Fate>,
    /// Of the traces of a sample: for how many of the original traffic each stands.
    weights: HashMap<Key, f64>,
    drops: Arc<Drops>,
}

impl Tally {
    pub(super) fn new(names: impl IntoIterator<Item = String>) -> Self {
        let mut names: Vec<String> = names.into_iter().collect();
        names.push("none".to_owned());
        let kept = vec![Amount::default(); names.len()];
        Self { names, kept, fates: HashMap::new(), weights: HashMap::new(), drops: Arc::default() }
    }

    pub(super) fn drops(&self) -> Arc<Drops> {
        self.drops.clone()
    }

    /// A trace of the input is itself one of a sample.
    pub(super) fn weigh(&mut self, tenant: &str, trace: TraceId, weight: f64) {
        let known = self.weights.entry(key(tenant, trace)).or_insert(weight);
        *known = known.max(weight);
    }

    /// Takes up the drops since the last time. A later keep overrules, an earlier one stands.
    pub(super) fn take_drops(&mut self) {
        let none = self.names.len() - 1;
        for (key, policy) in self.drops.0.lock().drain(..) {
            let policy = usize::from(policy.0).min(none) as u16;
            let fate = self.fates.entry(key).or_insert(Fate { policy, kept: false });
            if !fate.kept {
                fate.policy = policy;
            }
        }
    }

    /// A piece that would have left.
    ///
    /// In a sample it stands for more. Of traces that the sample has at probability p and the policy keeps at
    /// q, all that it keeps are there if q <= p; else there are q / p as many.
    pub(super) fn kept(&mut self, parcel: &Parcel) {
        let piece = &parcel.piece;
        let Ok(id) = <[u8; 16]>::try_from(&piece.trace_id[..]) else { return };
        let key = key(&parcel.tenant, TraceId(id));
        let policy = self.names.iter().position(|name| *name == piece.policy).unwrap_or(self.names.len() - 1);
        let probability = 1.0 - piece.threshold as f64 / EVERYTHING;
        let times = (self.weights.get(&key).copied().unwrap_or(1.0) * probability).max(1.0);
        let first = self.fates.get(&key).is_none_or(|fate| !fate.kept);
        if first {
            self.fates.insert(key, Fate { policy: policy as u16, kept: true });
        }
        self.kept[policy].add(Amount {
            traces: if first { times } else { 0.0 },
            spans: times * f64::from(piece.spans),
            bytes: times * piece.otlp.len() as f64,
        });
    }

    pub(super) fn outcome(self, read: Read) -> Outcome {
        let mut matched = vec![0; self.names.len()];
        for fate in self.fates.values() {
            matched[usize::from(fate.policy)] += 1;
        }
        let rows = self.names.into_iter().zip(matched).zip(self.kept);
        let policies = rows.map(|((name, matched), kept)| PolicyOutcome { name, matched, kept }).collect();
        Outcome { read, policies, fates: self.fates }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Piece;
    use crate::trace::Position;

    fn parcel(trace: u8, policy: &str, keep: f64) -> Parcel {
        let threshold = ((1.0 - keep) * EVERYTHING) as u64;
        let piece = Piece {
            trace_id: vec![trace; 16].into(),
            policy: policy.to_owned(),
            threshold,
            spans: 3,
            otlp: vec![0; 100].into(),
            ..Piece::default()
        };
        Parcel { at: Position::default(), end: Position::default(), tenant: "".into(), piece }
    }

    fn tally() -> Tally {
        Tally::new(["errors".to_owned(), "rest".to_owned()])
    }

    #[test]
    fn a_trace_counts_once_however_many_pieces_it_leaves_in() {
        let mut tally = tally();
        tally.kept(&parcel(1, "errors", 1.0));
        tally.kept(&parcel(1, "errors", 1.0));
        tally.drops().dropped("", TraceId([1; 16]), PolicyId(1));
        tally.drops().dropped("", TraceId([2; 16]), PolicyId(1));
        tally.take_drops();
        let outcome = tally.outcome(Read::default());
        assert_eq!(outcome.kept(), Amount { traces: 1.0, spans: 6.0, bytes: 200.0 });
        let matched: Vec<u64> = outcome.policies.iter().map(|policy| policy.matched).collect();
        assert_eq!(matched, [1, 1, 0]);
    }

    #[test]
    fn a_late_keep_overrules_a_drop() {
        let mut tally = tally();
        tally.drops().dropped("", TraceId([1; 16]), PolicyId(1));
        tally.take_drops();
        tally.kept(&parcel(1, "errors", 1.0));
        let outcome = tally.outcome(Read::default());
        assert_eq!((outcome.policies[0].matched, outcome.policies[1].matched), (1, 0));
    }

    #[test]
    fn a_trace_of_a_sample_stands_for_those_that_only_the_new_share_keeps() {
        let kept_at = |weight: f64, keep: f64| {
            let mut tally = tally();
            tally.weigh("", TraceId([1; 16]), weight);
            tally.kept(&parcel(1, "rest", keep));
            tally.outcome(Read::default()).kept().traces
        };
        assert!((kept_at(20.0, 0.05) - 1.0).abs() < 1e-9, "all that is kept is in the sample");
        assert!((kept_at(20.0, 0.01) - 1.0).abs() < 1e-9);
        assert!((kept_at(20.0, 0.10) - 2.0).abs() < 1e-9, "half of it is not");
        assert!((kept_at(20.0, 1.00) - 20.0).abs() < 1e-9);
        assert!((kept_at(0.0, 1.00) - 1.0).abs() < 1e-9, "it was kept, whatever it stands for");
    }

    #[test]
    fn a_day_is_as_long_as_the_input_says() {
        let hour = Amount { traces: 1.0, spans: 2.0, bytes: 3.0 }.per_day(3_600_000);
        assert_eq!((hour.traces, hour.spans, hour.bytes), (24.0, 48.0, 72.0));
    }
}
