//! The books: where every span of this process life is.
//!
//! ```text
//! accepted + recovered + upgraded = kept + dropped + buffered + duplicate + lost
//! ```
//!
//! Exact, in spans. Every term is counted where it happens, none is derived from the others, so a balance
//! says something. Terms are read one by one: a balance is exact while nothing moves.
//!
//! Books go by the names of policies: a reload takes over those of policies that stay and keeps those of policies
//! that go, so that no total is ever lowered.
//!
//! Beside the equation: spans rejected by partial success and bytes that could not be read back. The receiver
//! counts what it refuses, and each exporter keeps a book of its own.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::{MappedRwLockReadGuard, Mutex, RwLock, RwLockReadGuard};
use serde::Serialize;

use super::metrics::{Families, Source};
use crate::trace::PolicyId;

/// Counts by cause. Causes are names of enum variants, so there are few.
#[derive(Debug, Default)]
pub struct Tally {
    counts: Mutex<Vec<(&'static str, u64)>>,
}

/// Causes that are shown before they happen: spans that waited in memory alone when the process ended, and
/// bytes of a log that nobody can read, and spans that are not OTLP.
pub const STOPPED: &str = "stopped";
pub const INVALID: &str = "invalid";
pub const CORRUPT: &str = "corrupt";
/// Cause of lost bytes: the end of a log, cut off in the middle of a write.
pub const TORN: &str = "torn";

impl Tally {
    fn of_causes(causes: &[&'static str]) -> Self {
        Self { counts: Mutex::new(causes.iter().map(|cause| (*cause, 0)).collect()) }
    }

    pub fn add(&self, cause: &'static str, n: u64) {
        let mut counts = self.counts.lock();
        match counts.iter_mut().find(|(known, _)| *known == cause) {
            Some((_, count)) => *count += n,
            None => counts.push((cause, n)),
        }
    }

    pub fn total(&self) -> u64 {
        self.counts.lock().iter().map(|(_, count)| count).sum()
    }

    pub fn of(&self, cause: &str) -> u64 {
        self.counts.lock().iter().find(|(known, _)| *known == cause).map_or(0, |(_, count)| *count)
    }

    pub fn all(&self) -> Vec<(&'static str, u64)> {
        self.counts.lock().clone()
    }
}

/// What one policy has decided, in spans and in judged units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PolicyCounts {
    pub kept: u64,
    pub dropped: u64,
    pub kept_units: u64,
    pub dropped_units: u64,
}

/// Books of policies that are gone kept under their own names.
const REMOVED_MAX: usize = 1_000;
/// The name under which the oldest of them are added up beyond that.
const REMOVED: &str = "(removed)";

#[derive(Debug, Default)]
struct PolicyBook {
    name: String,
    kept: AtomicU64,
    dropped: AtomicU64,
    kept_units: AtomicU64,
    dropped_units: AtomicU64,
}

impl PolicyBook {
    fn of(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    fn counts(&self) -> PolicyCounts {
        PolicyCounts {
            kept: self.kept.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            kept_units: self.kept_units.load(Relaxed),
            dropped_units: self.dropped_units.load(Relaxed),
        }
    }

    fn add(&self, other: &Self) {
        let counts = other.counts();
        self.kept.fetch_add(counts.kept, Relaxed);
        self.dropped.fetch_add(counts.dropped, Relaxed);
        self.kept_units.fetch_add(counts.kept_units, Relaxed);
        self.dropped_units.fetch_add(counts.dropped_units, Relaxed);
    }
}

/// The books of policies, by name.
#[derive(Debug)]
struct PolicyBooks {
    /// In the order of their identities.
    in_force: Vec<PolicyBook>,
    /// Of units that no policy matched.
    none: PolicyBook,
    /// Of policies that a reload has removed, the last removed first.
    removed: Vec<PolicyBook>,
    /// Of those removed before them.
    older: Option<PolicyBook>,
}

impl PolicyBooks {
    fn begin(&mut self, names: &[String]) {
        let mut known: Vec<_> = self.in_force.drain(..).chain(self.removed.drain(..)).collect();
        let mut book = |name: &String| {
            let at = known.iter().position(|book| book.name == *name);
            at.map_or_else(|| PolicyBook::of(name), |at| known.remove(at))
        };
        self.in_force = names.iter().map(&mut book).collect();
        for oldest in known.drain(REMOVED_MAX.min(known.len())..) {
            self.older.get_or_insert_with(|| PolicyBook::of(REMOVED)).add(&oldest);
        }
        self.removed = known;
    }

    /// Those in force first, `none` last.
    fn all(&self) -> impl Iterator<Item = &PolicyBook> {
        self.in_force.iter().chain(&self.removed).chain(&self.older).chain([&self.none])
    }
}

/// The books of one process life. Verbs add; nothing is ever lowered but what is buffered.
#[derive(Debug)]
pub struct Ledger {
    accepted: AtomicU64,
    recovered: AtomicU64,
    upgraded: AtomicU64,
    gathered: AtomicU64,
    taken: AtomicU64,
    duplicate: AtomicU64,
    lost: Tally,
    /// Written by a reload alone.
    policies: RwLock<PolicyBooks>,
    rejected: Tally,
    lost_bytes: Tally,
    lost_segments: AtomicU64,
}

/// The terms of the equation at one moment, in spans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Balance {
    pub accepted: u64,
    pub recovered: u64,
    pub upgraded: u64,
    pub kept: u64,
    pub dropped: u64,
    pub buffered: u64,
    pub duplicate: u64,
    pub lost: u64,
}

impl Balance {
    /// What came in less what is accounted for; 0 when the books balance.
    pub fn difference(&self) -> i128 {
        let came = [self.accepted, self.recovered, self.upgraded];
        let went = [self.kept, self.dropped, self.buffered, self.duplicate, self.lost];
        let sum = |terms: &[u64]| terms.iter().map(|&term| i128::from(term)).sum::<i128>();
        sum(&came) - sum(&went)
    }

    pub fn balances(&self) -> bool {
        self.difference() == 0
    }
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "accepted {} + recovered {} + upgraded {} = kept {} + dropped {} + buffered {} + duplicate {} + lost {} \
             (difference {})",
            self.accepted,
            self.recovered,
            self.upgraded,
            self.kept,
            self.dropped,
            self.buffered,
            self.duplicate,
            self.lost,
            self.difference()
        )
    }
}

impl Ledger {
    /// Books for policies with these names, in the order of their identities.
    pub fn new(names: &[String]) -> Self {
        let policies = PolicyBooks {
            in_force: names.iter().map(|name| PolicyBook::of(name)).collect(),
            none: PolicyBook::of("none"),
            removed: Vec::new(),
            older: None,
        };
        Self {
            accepted: AtomicU64::default(),
            recovered: AtomicU64::default(),
            upgraded: AtomicU64::default(),
            gathered: AtomicU64::default(),
            taken: AtomicU64::default(),
            duplicate: AtomicU64::default(),
            lost: Tally::of_causes(&[STOPPED]),
            policies: RwLock::new(policies),
            rejected: Tally::of_causes(&[INVALID]),
            lost_bytes: Tally::of_causes(&[CORRUPT, TORN]),
            lost_segments: AtomicU64::default(),
        }
    }

    /// Other policies are in force: one that has the name of an earlier one goes on in its book, and the books of
    /// those that are gone stay. Verdicts by the identities of the old ones must be counted before.
    pub fn begin(&self, names: &[String]) {
        self.policies.write().begin(names);
    }

    /// Spans of a request that this process accepts; before they can be judged.
    pub fn accepted(&self, spans: u64) {
        self.accepted.fetch_add(spans, Relaxed);
    }

    /// Spans read back from the input log and not skipped.
    pub fn recovered(&self, spans: u64) {
        self.recovered.fetch_add(spans, Relaxed);
    }

    /// Spans that wait for their first judgement.
    pub fn buffered(&self, spans: u64) {
        self.gathered.fetch_add(spans, Relaxed);
    }

    /// Buffered spans that a judgement has taken: none of them waits any more.
    pub fn unbuffered(&self, spans: u64) {
        self.taken.fetch_add(spans, Relaxed);
    }

    /// Spans dropped earlier that leave now; they are counted [`Self::kept`] as well.
    pub fn upgraded(&self, spans: u64) {
        self.upgraded.fetch_add(spans, Relaxed);
    }

    /// Spans that leave.
    pub fn kept(&self, policy: PolicyId, spans: u64) {
        self.book(policy).kept.fetch_add(spans, Relaxed);
    }

    /// Spans whose first verdict is a drop.
    pub fn dropped(&self, policy: PolicyId, spans: u64) {
        self.book(policy).dropped.fetch_add(spans, Relaxed);
    }

    /// One unit judged for the first time.
    pub fn judged(&self, policy: PolicyId, kept: bool) {
        let book = self.book(policy);
        let units = if kept { &book.kept_units } else { &book.dropped_units };
        units.fetch_add(1, Relaxed);
    }

    /// Spans byte-identical to another that the same judgement saw.
    pub fn duplicate(&self, spans: u64) {
        self.duplicate.fetch_add(spans, Relaxed);
    }

    /// Accepted spans that nobody will see.
    pub fn lost(&self, cause: &'static str, spans: u64) {
        self.lost.add(cause, spans);
    }

    /// Spans of an accepted request that were not stored, and whose sender was told so.
    pub fn rejected(&self, cause: &'static str, spans: u64) {
        self.rejected.add(cause, spans);
    }

    /// Bytes of a log that could not be read back.
    pub fn lost_bytes(&self, cause: &'static str, bytes: u64) {
        self.lost_bytes.add(cause, bytes);
    }

    /// Files of the input log that are gone, whatever they held.
    pub fn lost_segments(&self, files: u64) {
        self.lost_segments.fetch_add(files, Relaxed);
    }

    pub fn balance(&self) -> Balance {
        // What is taken is read before what is gathered: the difference is never below 0.
        let taken = self.taken.load(Relaxed);
        let policies = self.policies.read();
        let sum = |term: fn(&PolicyBook) -> &AtomicU64| {
            policies.all().map(|book| term(book).load(Relaxed)).sum::<u64>()
        };
        Balance {
            kept: sum(|book| &book.kept),
            dropped: sum(|book| &book.dropped),
            duplicate: self.duplicate.load(Relaxed),
            lost: self.lost.total(),
            buffered: self.gathered.load(Relaxed).saturating_sub(taken),
            upgraded: self.upgraded.load(Relaxed),
            recovered: self.recovered.load(Relaxed),
            accepted: self.accepted.load(Relaxed),
        }
    }

    /// Policies by name with what they have decided: those in force, those that a reload has removed, `none`.
    pub fn by_policy(&self) -> Vec<(String, PolicyCounts)> {
        self.policies.read().all().map(|book| (book.name.clone(), book.counts())).collect()
    }

    pub fn rejected_by_cause(&self) -> Vec<(&'static str, u64)> {
        self.rejected.all()
    }

    pub fn lost_bytes_by_cause(&self) -> Vec<(&'static str, u64)> {
        self.lost_bytes.all()
    }

    /// A verdict under an older configuration may name a policy that is gone: it counts as none.
    fn book(&self, policy: PolicyId) -> MappedRwLockReadGuard<'_, PolicyBook> {
        RwLockReadGuard::map(self.policies.read(), |books| {
            books.in_force.get(usize::from(policy.0)).unwrap_or(&books.none)
        })
    }
}

impl Source for Ledger {
    fn collect(&self, out: &mut Families) {
        let balance = self.balance();
        out.counter("tailwater_receiver_accepted_spans_total", "Spans accepted.", &[], balance.accepted);
        out.counter(
            "tailwater_pipeline_recovered_spans_total",
            "Spans read back from the input log at start.",
            &[],
            balance.recovered,
        );
        out.counter(
            "tailwater_buffer_upgraded_spans_total",
            "Spans dropped earlier that left later.",
            &[],
            balance.upgraded,
        );
        out.counter(
            "tailwater_buffer_duplicate_spans_total",
            "Spans byte-identical to another that the same judgement saw.",
            &[],
            balance.duplicate,
        );
        out.gauge(
            "tailwater_buffer_unjudged_spans",
            "Spans that wait for their first judgement.",
            &[],
            balance.buffered as f64,
        );
        self.collect_policies(out);
        self.collect_causes(out);
    }
}

impl Ledger {
    fn collect_policies(&self, out: &mut Families) {
        for (name, counts) in self.by_policy() {
            let name = name.as_str();
            let label = [("policy", name)];
            out.counter("tailwater_sampler_kept_spans_total", "Spans that leave.", &label, counts.kept);
            out.counter(
                "tailwater_sampler_dropped_spans_total",
                "Spans whose first verdict was a drop.",
                &label,
                counts.dropped,
            );
            for (verdict, units) in [("kept", counts.kept_units), ("dropped", counts.dropped_units)] {
                let labels = [("policy", name), ("verdict", verdict)];
                let help =
                    "Traces and units by their first verdict; those kept later, after a drop, once more.";
                out.counter("tailwater_sampler_judged_units_total", help, &labels, units);
            }
        }
    }

    fn collect_causes(&self, out: &mut Families) {
        let tallies: [(&str, &str, &Tally); 3] = [
            (
                "tailwater_pipeline_lost_spans_total",
                "Accepted spans that nobody will see, by cause.",
                &self.lost,
            ),
            ("tailwater_receiver_rejected_spans_total", "Spans rejected by partial success.", &self.rejected),
            (
                "tailwater_log_lost_bytes_total",
                "Bytes of a log that could not be read back.",
                &self.lost_bytes,
            ),
        ];
        let help = "Files of the input log that were gone at start, whatever they held.";
        out.counter("tailwater_log_lost_segments_total", help, &[], self.lost_segments.load(Relaxed));
        for (name, help, tally) in tallies {
            out.tally(name, help, "cause", &tally.all());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        Ledger::new(&["errors".to_owned(), "rest".to_owned()])
    }

    #[test]
    fn books_balance_from_acceptance_to_verdict() {
        let ledger = ledger();
        ledger.accepted(10);
        ledger.buffered(10);
        assert!(ledger.balance().balances(), "{}", ledger.balance());
        ledger.unbuffered(10);
        ledger.kept(PolicyId(0), 4);
        ledger.dropped(PolicyId(1), 5);
        ledger.duplicate(1);
        assert!(ledger.balance().balances(), "{}", ledger.balance());
    }

    #[test]
    fn an_upgraded_span_is_kept_and_stays_dropped() {
        let ledger = ledger();
        ledger.recovered(3);
        ledger.dropped(PolicyId(1), 3);
        ledger.upgraded(3);
        ledger.kept(PolicyId(0), 3);
        let balance = ledger.balance();
        assert_eq!((balance.kept, balance.dropped, balance.upgraded), (3, 3, 3));
        assert!(balance.balances(), "{balance}");
    }

    #[test]
    fn a_span_that_vanishes_shows() {
        let ledger = ledger();
        ledger.accepted(2);
        ledger.buffered(2);
        ledger.unbuffered(2);
        ledger.kept(PolicyId(0), 1);
        assert_eq!(ledger.balance().difference(), 1);
        ledger.lost(STOPPED, 1);
        assert!(ledger.balance().balances());
    }

    #[test]
    fn an_unknown_policy_counts_as_none() {
        let ledger = ledger();
        ledger.dropped(PolicyId::NONE, 7);
        ledger.dropped(PolicyId(2), 1);
        let none = ledger.by_policy().pop().unwrap();
        assert_eq!((none.0.as_str(), none.1.dropped), ("none", 8));
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn kept_by(ledger: &Ledger) -> Vec<(String, u64)> {
        ledger.by_policy().into_iter().map(|(name, counts)| (name, counts.kept)).collect()
    }

    fn expected(rows: &[(&str, u64)]) -> Vec<(String, u64)> {
        rows.iter().map(|&(name, kept)| (name.to_owned(), kept)).collect()
    }

    #[test]
    fn a_reload_lowers_no_total() {
        let ledger = ledger();
        ledger.accepted(10);
        ledger.kept(PolicyId(0), 3);
        ledger.kept(PolicyId(1), 7);
        ledger.begin(&names(&["slow", "rest"]));
        ledger.accepted(2);
        ledger.kept(PolicyId(0), 1);
        ledger.kept(PolicyId(1), 1);
        assert_eq!(kept_by(&ledger), expected(&[("slow", 1), ("rest", 8), ("errors", 3), ("none", 0)]));
        ledger.begin(&names(&["errors"]));
        ledger.kept(PolicyId(0), 1);
        ledger.accepted(1);
        assert_eq!(kept_by(&ledger), expected(&[("errors", 4), ("slow", 1), ("rest", 8), ("none", 0)]));
        assert!(ledger.balance().balances(), "{}", ledger.balance());
    }

    #[test]
    fn books_of_removed_policies_are_bounded_and_add_up() {
        let ledger = Ledger::new(&names(&["p"]));
        let rounds = REMOVED_MAX as u64 + 10;
        for round in 0..rounds {
            ledger.kept(PolicyId(0), 1);
            ledger.begin(&[format!("p{round}")]);
        }
        assert_eq!(ledger.balance().kept, rounds);
        let rows = kept_by(&ledger);
        assert_eq!(rows.len(), REMOVED_MAX + 3);
        assert!(rows.contains(&(REMOVED.to_owned(), 10)), "{rows:?}");
    }
}
