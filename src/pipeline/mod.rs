//! (in construction) The seam that the command line is written against.

use std::net::SocketAddr;
use std::time::Duration;

use crate::config::Config;
use crate::telemetry::{Balance, PolicyCounts};

/// Where a running instance listens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Addresses {
    pub grpc: Option<SocketAddr>,
    pub http: Option<SocketAddr>,
    pub telemetry: Option<SocketAddr>,
}

/// What an instance has done so far.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    pub balance: Balance,
    /// In the order of the configuration, `none` last.
    pub policies: Vec<(String, PolicyCounts)>,
    /// The learned thresholds of `slower_than`, one row for each operation.
    pub operations: Vec<Operation>,
    /// Name, spans delivered, spans that wait.
    pub exporters: Vec<(String, u64, u64)>,
}

/// A learned threshold.
#[derive(Clone, Debug)]
pub struct Operation {
    pub service: String,
    pub name: String,
    pub observations: u64,
    pub threshold: Option<Duration>,
}

/// A running instance.
#[derive(Debug)]
pub struct Pipeline {
    addresses: Addresses,
}

impl Pipeline {
    /// Opens every file, binds every port, recovers, and takes requests.
    pub async fn build(_config: Config) -> anyhow::Result<Self> {
        anyhow::bail!("the pipeline is in construction")
    }

    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    pub fn stats(&self) -> Stats {
        Stats::default()
    }

    /// Completes when the instance cannot go on.
    pub async fn failed(&self) -> anyhow::Error {
        std::future::pending().await
    }

    /// Stops accepting, syncs, ends. What is not judged or delivered waits for the next start.
    pub async fn shutdown(self, _deadline: Duration) -> anyhow::Result<()> {
        Ok(())
    }

    /// Stops accepting, judges everything, delivers everything, ends.
    pub async fn drain(self, _deadline: Duration) -> anyhow::Result<Stats> {
        Ok(Stats::default())
    }
}
