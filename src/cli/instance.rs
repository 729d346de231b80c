//! A process's life around its pipeline: build, tell, run until a signal, end within a deadline.

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use super::Failure;
use super::reload::{self, Follower};
use crate::config::{Config, Loaded, OnShutdown, available_memory};
use crate::pipeline::{Addresses, Pipeline};
use crate::receiver;
use crate::telemetry::{logging, panics};

/// What a thread still does after the end is given so long.
const LAST_BLOCKS: Duration = Duration::from_millis(500);
/// Signals that come so soon after one another are one.
const ECHO: Duration = Duration::from_millis(500);
/// What is not done by then is left to the next start.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(10);

pub(super) fn start_logging(config: &logging::Config) -> Result<(), Failure> {
    logging::start(config).map_err(|error| Failure::Usage(format!("--log-level: {error}")))?;
    panics::tell();
    Ok(())
}

/// One worker for each core.
pub(super) fn runtime() -> Result<Runtime, Failure> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let built =
        Builder::new_multi_thread().worker_threads(cores).thread_name("tailwater").enable_all().build();
    Ok(built?)
}

/// Says what is in force, before anything can go wrong with it.
pub(super) fn announce(loaded: &Loaded, file: &str) {
    for warning in &loaded.warnings {
        warn!(file, line = warning.line(), "{}", warning.message());
    }
    let config = &loaded.config;
    let memory = available_memory().map(|bytes| config.buffer.memory.of(bytes) >> 20);
    info!(
        version = env!("CARGO_PKG_VERSION"),
        config = file,
        data = %config.data.path.display(),
        disk = %config.data.disk,
        memory_mib = memory,
        "tailwater starts"
    );
    for policy in &config.policies {
        let keep = &policy.keep;
        let shadow = policy.shadow;
        let condition = policy.matches.as_ref().map_or("everything", |text| text.0.as_str());
        match policy.slower_than.as_ref() {
            Some(percentile) => {
                info!(name = policy.name.as_str(), matches = condition, slower_than = %percentile, %keep, shadow, "policy")
            }
            None => info!(name = policy.name.as_str(), matches = condition, %keep, shadow, "policy"),
        }
    }
    if let Some(parquet) = &config.exporters.parquet {
        info!(url = %parquet.url, "kept traces go to parquet");
    }
    for otlp in &config.exporters.otlp {
        info!(name = %otlp.name, endpoint = %otlp.endpoint, "kept traces go to otlp");
    }
}

fn tell_addresses(addresses: &Addresses) {
    if let Some(address) = addresses.grpc {
        info!(%address, "listening for OTLP/gRPC");
    }
    if let Some(address) = addresses.http {
        info!(%address, "listening for OTLP/HTTP");
    }
}

/// Runs to the end of `work`. What blocks a thread then, such as a disk that does not answer, keeps nobody here.
fn run(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = runtime()?;
    let done = runtime.block_on(work);
    runtime.shutdown_timeout(LAST_BLOCKS);
    done
}

/// Runs until a signal asks for the end.
pub(super) fn serve(loaded: Loaded, follower: Option<Follower>) -> Result<(), Failure> {
    run(async {
        let mut signals = Signals::listen()?;
        let data = &loaded.config.data;
        let (on_shutdown, drain_timeout) = (data.on_shutdown, data.drain_timeout.get());
        let pipeline = tokio::select! {
            built = Pipeline::build(loaded) => built?,
            name = signals.end() => {
                info!(signal = name, "stopped before it was ready; the next start goes on");
                return Ok(());
            }
        };
        tell_addresses(&pipeline.addresses());
        tokio::select! {
            name = signals.end() => info!(signal = name, "shutting down"),
            error = pipeline.failed() => return Err(Failure::Other(error)),
            failure = reload::follow(follower, &pipeline) => return Err(failure),
        }
        let end = async {
            match on_shutdown {
                OnShutdown::Resume => pipeline.shutdown(SHUTDOWN_DEADLINE).await,
                OnShutdown::Drain => pipeline.drain(drain_timeout).await.map(drop),
            }
        };
        tokio::select! {
            done = end => done?,
            name = signals.end_again() => {
                return Err(anyhow::anyhow!("{name} again: left at once; the next start goes on").into());
            }
        }
        info!("stopped");
        Ok(())
    })
}

/// Recovers what is there, judges it, delivers it. The ports that senders know stay closed.
pub(super) fn drain(mut config: Config, deadline: Duration) -> Result<(), Failure> {
    config.receivers.otlp = receiver::Config { http: None, ..receiver::Config::default() };
    if let Some(grpc) = &mut config.receivers.otlp.grpc {
        grpc.listen = "127.0.0.1:0".to_owned();
    }
    run(async {
        let mut signals = Signals::listen()?;
        info!(data = %config.data.path.display(), "draining");
        give_way(&mut config.telemetry.listen);
        let drained = async { Pipeline::build(config).await?.drain(deadline).await };
        let stats = tokio::select! {
            done = drained => done?,
            name = signals.end() => return Err(anyhow::anyhow!("{name} before everything was delivered").into()),
        };
        let pending: u64 = stats.exporters.iter().map(|(_, _, pending)| pending).sum();
        if pending > 0 {
            return Err(
                anyhow::anyhow!("{pending} spans could not be delivered in time; they stay on disk").into()
            );
        }
        info!(kept = stats.balance.kept, dropped = stats.balance.dropped, "drained");
        Ok(())
    })
}

/// Beside an instance that runs on another directory, draining is watched at a port of its own.
fn give_way(listen: &mut String) {
    if let Err(error) = std::net::TcpListener::bind(listen.as_str()) {
        warn!(%listen, %error, "telemetry is served elsewhere");
        *listen = "127.0.0.1:0".to_owned();
    }
}

/// The signals that end the process. SIGHUP is taken so that a closed terminal does not end it.
pub(super) struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    _hang_up: tokio::signal::unix::Signal,
}

impl Signals {
    pub(super) fn listen() -> Result<Self, Failure> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            _hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// The name of the next one that is no echo: supervisors send one to a process and, at once, to its group.
    async fn end_again(&mut self) -> &'static str {
        let echoes = Instant::now() + ECHO;
        while timeout_at(echoes, self.end()).await.is_ok() {}
        self.end().await
    }

    /// The name of the next signal that asks for the end.
    pub(super) async fn end(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_given_way_to_and_a_free_one_is_kept() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut listen = taken.local_addr().unwrap().to_string();
        give_way(&mut listen);
        assert_eq!(listen, "127.0.0.1:0");
        give_way(&mut listen);
        assert_eq!(listen, "127.0.0.1:0");
    }
}
