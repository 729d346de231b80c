//! Builds the stages, connects them, recovers, drains: the only folder that knows them all.
//!
//! ```text
//! receiver -> intake -> engine (scan, log, index) -> judge -> outbox -> exporters
//!                          |                           |
//!                       input log                 state, deletion (keeper)
//! ```
//!
//! Threads: the runtime's workers receive and send; one judge; one keeper; one writer for each log. What
//! ends a process comes to [`Pipeline::failed`]; a shutdown goes through the stages in the order of the flow.

mod alarm;
mod budget;
mod build;
mod clock;
#[cfg(test)]
mod damage_tests;
mod disk;
#[cfg(test)]
mod disk_tests;
mod engine;
mod evidence;
mod exporters;
mod forest;
mod health;
mod intake;
mod judge;
mod keeper;
mod learned;
mod logs;
mod metrics;
mod operations;
mod past;
mod piece;
mod place;
#[cfg(test)]
mod progress_tests;
mod recover;
mod red;
mod reload;
#[cfg(test)]
mod restart_tests;
mod sending;
mod simulation;
mod state;
mod status;
mod stream;
#[cfg(test)]
mod stream_tests;
pub mod survey;
#[cfg(test)]
mod testing;
pub mod waiting;
mod why;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

pub use build::Settings;
pub use clock::{Clock, HandClock, SystemClock};
pub use engine::{Engine, MESSAGE_BYTES_MAX, Parts, Stored, Unstored};
pub use judge::Witness;
pub use place::check_place;
pub use reload::Refused;
pub use simulation::{Log, Simulation};

use crate::config::{ConfigError, Loaded};
use crate::exporter::otlp::Stop as ExporterStop;
use crate::exporter::outbox::Outbox;
use crate::log::WriteFailed;
use crate::telemetry::ledger::{self, Balance, PolicyCounts};
use crate::telemetry::{Ledger, Readiness};
use keeper::{Judging, Keeping};

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

type LogThread = JoinHandle<Result<(), WriteFailed>>;

/// The data directory is ours while this exists.
struct Lock(#[expect(dead_code, reason = "dropped")] Box<dyn Send + Sync>);

impl std::fmt::Debug for Lock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lock")
    }
}

/// A running instance.
#[derive(Debug)]
pub struct Pipeline {
    addresses: Addresses,
    engine: Arc<Engine>,
    reloads: Arc<reload::Reloads>,
    outbox: Arc<Outbox>,
    ledger: Arc<Ledger>,
    readiness: Readiness,
    intake: intake::Intake,
    /// Dropped: the ports close.
    receiving: watch::Sender<()>,
    receivers: JoinSet<()>,
    /// Metrics and health, until everything else is done.
    admin: JoinSet<()>,
    /// While it is there, what is in `admin` has to go on.
    _running: watch::Sender<()>,
    judging: Judging,
    keeping: Keeping,
    exporting: watch::Sender<ExporterStop>,
    exporters: exporters::Exporters,
    input: Option<LogThread>,
    outbox_thread: Option<LogThread>,
    failure: watch::Receiver<Option<String>>,
    /// Held until everything else is gone.
    _lock: Lock,
}

impl Pipeline {
    /// Opens every file, recovers, binds every port, and takes requests.
    pub async fn build(config: impl Into<Loaded>) -> anyhow::Result<Self> {
        build::build(config.into(), Settings::default()).await
    }

    /// Puts the policies and waits of a changed file in force, and nothing of it if anything in it is refused.
    /// Returns the number of the load.
    pub async fn reload(&self, read: Result<Loaded, ConfigError>) -> Result<u64, Refused> {
        let apply = async |change| self.judging.reload(change).await;
        reload::reload(&self.reloads, &self.engine, read, apply).await
    }

    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    pub fn stats(&self) -> Stats {
        let policies = self.ledger.by_policy();
        let exporters = self.outbox.subscriptions().map(|exporter| {
            let metrics = &exporter.metrics;
            (exporter.cursor.exporter().to_owned(), metrics.delivered(), metrics.pending().spans)
        });
        let operations = self.engine.slow.known().into_iter().map(|known| Operation {
            service: known.service,
            name: known.name.unwrap_or_else(|| "(other)".to_owned()),
            observations: known.observations,
            threshold: known.thresholds.first().map(|(_, ns)| Duration::from_nanos(*ns)),
        });
        Stats {
            balance: self.ledger.balance(),
            policies,
            operations: operations.collect(),
            exporters: exporters.collect(),
        }
    }

    /// Completes when the instance cannot go on.
    pub async fn failed(&self) -> anyhow::Error {
        let mut failure = self.failure.clone();
        let reason = failure.wait_for(Option::is_some).await.map(|reason| reason.clone());
        match reason {
            Ok(reason) => anyhow!(reason.unwrap_or_default()),
            Err(_) => std::future::pending().await,
        }
    }

    /// Stops accepting, syncs, ends. What is not judged or delivered waits for the next start.
    pub async fn shutdown(mut self, within: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + within;
        self.close_ports(deadline).await;
        timeout_at(deadline, self.judging.stop()).await.map_err(|_| judge_waits())??;
        self.lose_what_memory_held();
        let half = Instant::now() + within / 2;
        self.end_exporters(ExporterStop::Finish { deadline: half }, deadline).await;
        self.close_logs().await
    }

    /// Stops accepting, judges everything, delivers everything, ends.
    pub async fn drain(mut self, within: Duration) -> anyhow::Result<Stats> {
        let deadline = Instant::now() + within;
        self.close_ports(deadline).await;
        timeout_at(deadline, self.judging.drain()).await.map_err(|_| judge_waits())??;
        let outbox = self.outbox.clone();
        let sync = move || {
            outbox.log().seal();
            outbox.sync()
        };
        tokio::task::spawn_blocking(sync).await?.context("sync the outbox")?;
        self.end_exporters(ExporterStop::Drain { deadline }, deadline).await;
        let stats = self.stats();
        self.close_logs().await?;
        Ok(stats)
    }

    /// Without an input log nobody will judge what waits.
    fn lose_what_memory_held(&self) {
        let waiting = self.ledger.balance().buffered;
        if self.engine.input.is_none() && waiting > 0 {
            warn!(
                spans = waiting,
                "lost: they waited in memory alone (data.input: memory); drain would have judged them"
            );
            self.ledger.lost(ledger::STOPPED, waiting);
            self.ledger.unbuffered(waiting);
        }
    }

    /// Requests under way may end.
    async fn close_ports(&mut self, deadline: Instant) {
        self.readiness.unready("shutting down");
        self.intake.close();
        let (closed, _) = watch::channel(());
        drop(std::mem::replace(&mut self.receiving, closed));
        let closing = async { while self.receivers.join_next().await.is_some() {} };
        if timeout_at(deadline, closing).await.is_err() {
            warn!("requests did not end in time");
            self.receivers.abort_all();
        }
    }

    async fn end_exporters(&mut self, how: ExporterStop, deadline: Instant) {
        self.exporting.send_replace(how);
        let ending = async {
            while let Some(ended) = self.exporters.join_next().await {
                match ended {
                    Ok((_, true)) => {}
                    Ok((exporter, false)) => info!(exporter, "spans wait for the next start"),
                    Err(error) => warn!(%error, "an exporter ended badly"),
                }
            }
        };
        if timeout_at(deadline + Duration::from_secs(1), ending).await.is_err() {
            self.exporters.abort_all();
        }
    }

    /// A last state, then the logs.
    async fn close_logs(self) -> anyhow::Result<()> {
        let Self { keeping, engine, outbox, input, outbox_thread, mut admin, .. } = self;
        let closed = tokio::task::spawn_blocking(move || {
            if let Some(writer) = &engine.input {
                writer.sync_all().context("sync the input log")?;
            }
            keeping.finish(&engine)?;
            if let Some(writer) = &engine.input {
                writer.close();
            }
            outbox.log().close();
            joined(input).context("close the input log")?;
            joined(outbox_thread).context("close the outbox")
        });
        let closed = closed.await?;
        admin.shutdown().await;
        closed
    }
}

/// The outbox takes no verdict. What is not judged is in the input log: the next start goes on from the last state.
fn judge_waits() -> anyhow::Error {
    anyhow!("the outbox takes nothing; what is not judged waits for the next start")
}

fn joined(thread: Option<LogThread>) -> anyhow::Result<()> {
    let Some(thread) = thread else { return Ok(()) };
    match thread.join() {
        Ok(ended) => Ok(ended?),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
