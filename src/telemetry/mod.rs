//! Tells what the process does: the ledger, metrics on request, the admin endpoints, logs.
//!
//! Stages own plain counters and never wait for telemetry. Whoever wants to be seen on `/metrics` is a
//! [`Source`]: it is asked when somebody looks and costs nothing in between.

pub mod admin;
pub mod ledger;
pub mod logging;
pub mod metrics;
pub mod notices;
mod openmetrics;
pub mod panics;
pub mod readiness;
pub mod red;
mod stages;
pub mod status;
pub mod why;

pub use ledger::{Balance, Ledger, PolicyCounts};
pub use metrics::{Families, Source, Telemetry};
pub use notices::Notice;
pub use readiness::Readiness;

use serde::Deserialize;

/// The `telemetry` section of the configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `host:port` of `/metrics`, `/healthz`, `/readyz`, `/status` and `/why`.
    pub listen: String,
    pub red: red::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self { listen: "127.0.0.1:8888".to_owned(), red: red::Config::default() }
    }
}
