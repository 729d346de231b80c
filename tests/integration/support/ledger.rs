//! The ledger equation, in spans of one process life.

use std::fmt;

use super::Metrics;

/// accepted + recovered + upgraded = kept + dropped + buffered + duplicate + lost
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ledger {
    pub accepted: u64,
    pub recovered: u64,
    pub upgraded: u64,
    pub kept: u64,
    pub dropped: u64,
    pub buffered: u64,
    pub duplicate: u64,
    pub lost: u64,
}

impl Ledger {
    pub fn of(metrics: &Metrics) -> Self {
        assert!(metrics.has("tailwater_ledger_spans_total"), "no ledger in {metrics:#?}");
        let term = |term| metrics.sum("tailwater_ledger_spans_total", &[("term", term)]) as u64;
        Self {
            accepted: term("accepted"),
            recovered: term("recovered"),
            upgraded: term("upgraded"),
            kept: term("kept"),
            dropped: term("dropped"),
            buffered: metrics.sum("tailwater_ledger_buffered_spans", &[]) as u64,
            duplicate: term("duplicate"),
            lost: term("lost"),
        }
    }

    pub fn balances(&self) -> bool {
        self.accepted + self.recovered + self.upgraded
            == self.kept + self.dropped + self.buffered + self.duplicate + self.lost
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "accepted {} + recovered {} + upgraded {} = kept {} + dropped {} + buffered {} + duplicate {} + lost {}",
            self.accepted,
            self.recovered,
            self.upgraded,
            self.kept,
            self.dropped,
            self.buffered,
            self.duplicate,
            self.lost
        )
    }
}
