//! `tailwater demo`: a real instance, a shop's traffic through real OTLP, and a table of what is kept.
//!
//! Nothing here is special to the demo but its short waits: the pipeline is the one that serves.

mod sender;
mod table;
mod traffic;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Failure;
use super::instance::{Signals, runtime};
use crate::config::Config;
use crate::pipeline::{Pipeline, Stats};
use crate::telemetry::logging;
use crate::units::{ByteSize, HumanDuration, MemoryLimit};
use sender::Sender;
use table::View;

const DRAIN_DEADLINE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Options {
    /// How long traffic is sent.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,

    /// How much of it. Traces have about eight spans.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(10..=200_000))]
    spans_per_second: u64,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    // Only what goes wrong: the table has the terminal.
    let log = logging::Config { level: "warn".to_owned(), ..logging::Config::default() };
    super::instance::start_logging(&log)?;
    let folder = std::env::temp_dir().join(format!("tailwater-demo-{}", uuid::Uuid::now_v7()));
    std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    runtime()?.block_on(demonstrate(options, &folder))
}

async fn demonstrate(options: &Options, folder: &Path) -> Result<(), Failure> {
    let config = demo_config(folder);
    let mut signals = Signals::listen()?;
    let pipeline = Pipeline::build(config).await?;
    let mut screen = Screen::new(options);
    let addresses = pipeline.addresses();
    screen.introduce(&format!(
        "A shop sends {} spans a second to this instance: OTLP/gRPC {}, metrics http://{}/metrics\n",
        options.spans_per_second,
        addresses.grpc.context("the demo listens for gRPC")?,
        addresses.telemetry.context("the demo serves metrics")?,
    ))?;
    let target = format!("http://{}", addresses.grpc.context("the demo listens for gRPC")?);
    let mut sender = Sender::connect(target, options.spans_per_second).await?;
    let until = Instant::now() + Duration::from_secs(options.seconds);
    let mut ticks = interval(Duration::from_millis(100));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while Instant::now() < until {
        tokio::select! {
            _ = ticks.tick() => {
                sender.send_due().await?;
                screen.show(&pipeline.stats(), sender.sent())?;
            }
            _ = signals.end() => break,
            error = pipeline.failed() => return Err(Failure::Other(error)),
        }
    }
    sender.finish().await?;
    let stats = pipeline.drain(DRAIN_DEADLINE).await?;
    screen.conclude(&stats, sender.sent(), folder)
}

/// The defaults, but for free ports, a folder of its own and waits that suit an audience.
fn demo_config(folder: &Path) -> Config {
    let mut config = Config::default();
    let any_port = || "127.0.0.1:0".to_owned();
    if let Some(grpc) = &mut config.receivers.otlp.grpc {
        grpc.listen = any_port();
    }
    if let Some(http) = &mut config.receivers.otlp.http {
        http.listen = any_port();
    }
    config.telemetry.listen = any_port();
    config.data.path = folder.join("data");
    config.data.disk = ByteSize::gib(2);
    config.buffer.memory = MemoryLimit::Bytes(ByteSize::mib(256));
    config.buffer.after_root = HumanDuration::from_secs(2);
    config.buffer.max_wait = HumanDuration::from_secs(6);
    if let Some(parquet) = &mut config.exporters.parquet {
        let url = format!("file:{}", traces_in(folder).display());
        parquet.url = url;
    }
    config
}

fn traces_in(folder: &Path) -> PathBuf {
    folder.join("traces")
}

/// Where the table is drawn: over itself on a terminal, every five seconds elsewhere.
struct Screen {
    options: Options,
    started: Instant,
    terminal: bool,
    lines_above: usize,
    next: Instant,
}

impl Screen {
    fn new(options: &Options) -> Self {
        let now = Instant::now();
        let terminal = std::io::stdout().is_terminal();
        Self { options: options.clone(), started: now, terminal, lines_above: 0, next: now }
    }

    fn introduce(&self, text: &str) -> Result<(), Failure> {
        Ok(writeln!(std::io::stdout(), "{text}")?)
    }

    fn show(&mut self, stats: &Stats, sent: u64) -> Result<(), Failure> {
        let now = Instant::now();
        if now < self.next {
            return Ok(());
        }
        self.next = now + Duration::from_millis(if self.terminal { 500 } else { 5_000 });
        self.draw(stats, sent)
    }

    fn draw(&mut self, stats: &Stats, sent: u64) -> Result<(), Failure> {
        let seconds = self.started.elapsed().as_secs().min(self.options.seconds);
        let text = View { seconds, of: self.options.seconds, sent, stats }.to_string();
        let mut out = std::io::stdout().lock();
        if self.terminal && self.lines_above > 0 {
            // Up to the table's first line, and clear from there.
            write!(out, "\x1b[{}A\x1b[J", self.lines_above)?;
        }
        writeln!(out, "{text}")?;
        out.flush()?;
        self.lines_above = text.lines().count() + usize::from(text.ends_with('\n'));
        Ok(())
    }

    fn conclude(mut self, stats: &Stats, sent: u64, folder: &Path) -> Result<(), Failure> {
        self.draw(stats, sent)?;
        let traces = traces_in(folder);
        let glob = traces.join("**/*.parquet");
        let mut out = std::io::stdout().lock();
        writeln!(
            out,
            "\nEverything is judged and delivered. The kept traces are in\n  {}",
            traces.display()
        )?;
        writeln!(out, "\nLook at them with DuckDB:\n  duckdb -c \"{}\"", table::query(&glob))?;
        writeln!(out, "\nThe folder is yours to delete: rm -r {}", folder.display())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_judges_as_the_defaults_do() {
        let config = demo_config(Path::new("/tmp/x"));
        assert_eq!(config.policies, Config::default().policies);
        assert!(config.buffer.after_root < config.buffer.max_wait);
    }
}
