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
        assert!(metrics.has("tailwater_receiver_accepted_spans_total"), "no ledger in {metrics:#?}");
        let sum = |name| metrics.sum(name, &[]) as u64;
        Self {
            accepted: sum("tailwater_receiver_accepted_spans_total"),
            recovered: sum("tailwater_pipeline_recovered_spans_total"),
            upgraded: sum("tailwater_buffer_upgraded_spans_total"),
            kept: sum("tailwater_sampler_kept_spans_total"),
            dropped: sum("tailwater_sampler_dropped_spans_total"),
            buffered: sum("tailwater_buffer_unjudged_spans"),
            duplicate: sum("tailwater_buffer_duplicate_spans_total"),
            lost: sum("tailwater_pipeline_lost_spans_total"),
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
