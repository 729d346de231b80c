//! The section `telemetry.red`.

use serde::Deserialize;

use super::exemplars::Exemplar;
use super::names::NAME_BYTES_MAX;
use super::stripe::Counts;
use super::{STRIPES_MAX, buckets};

/// RED metrics of all traffic, on request: they may be many series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub enabled: bool,
    /// Combinations of tenant, service, span name and kind that have series of their own.
    pub max_series: u32,
}

impl Config {
    /// Of memory at most: counts for each stripe, names and exemplars.
    pub fn bytes_max(&self) -> u64 {
        let counts = STRIPES_MAX * size_of::<Counts>();
        let names = 3 * NAME_BYTES_MAX + 2 * (STRIPES_MAX + 1) * 16;
        let exemplars = buckets::COUNT * size_of::<Exemplar>() * 2;
        u64::from(self.max_series) * (counts + names + exemplars) as u64
    }
}

impl Default for Config {
    fn default() -> Self {
        Self { enabled: false, max_series: 2_000 }
    }
}
