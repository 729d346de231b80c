//! The section `telemetry.red`.

use serde::Deserialize;

/// RED metrics of all traffic, on request: they may be many series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub enabled: bool,
    /// Combinations of tenant, service, span name and kind that have series of their own.
    pub max_series: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { enabled: false, max_series: 2_000 }
    }
}
