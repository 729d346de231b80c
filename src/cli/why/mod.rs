//! `tailwater why TRACE`: what became of a trace, and by what.
//!
//! Asks the running instance, then reads what was kept: the outbox in the data directory, then the Parquet objects of the
//! last hours. If no instance answers, its input log says what waits for the next start. Nothing is changed and no lock is taken, so it works beside a running instance and without one.

mod left;
mod report;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use chrono::{TimeDelta, Utc};

use super::{Failure, instance, parse_duration};
use crate::config::Config;
use crate::exporter::parquet::{Store, Target, lookup};
use crate::log::{Disk, Storage};
use crate::pipeline::waiting;
use crate::telemetry::why::Testimony;
use crate::trace::TraceId;
use crate::units::HumanDuration;
use left::Left;
use report::{Instance, Looked, Report};

/// An instance that is there answers at once.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Options {
    /// Its ID: 32 hexadecimal digits. Zeros that a shorter one begins with may be left away.
    trace: TraceId,

    /// Of this tenant only.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,

    /// Where the running instance serves telemetry, instead of telemetry.listen.
    #[arg(long, value_name = "URL", value_parser = parse_url)]
    url: Option<String>,

    /// How far back Parquet objects are looked into.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse_duration)]
    last: HumanDuration,

    /// The answer as JSON.
    #[arg(long)]
    json: bool,
}

fn parse_url(text: &str) -> Result<String, String> {
    let url =
        url::Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    url.map(|_| text.to_owned()).ok_or_else(|| "expected a URL such as http://127.0.0.1:8888".to_owned())
}

pub(super) fn run(options: &Options, config: &Config) -> Result<(), Failure> {
    let report = instance::runtime()?.block_on(report(options, config));
    let mut out = std::io::stdout().lock();
    if options.json {
        serde_json::to_writer_pretty(&mut out, &report).context("write the answer")?;
        return Ok(writeln!(out)?);
    }
    Ok(write!(out, "{report}")?)
}

async fn report(options: &Options, config: &Config) -> Report {
    let url = options.url.clone().unwrap_or_else(|| reachable(&config.telemetry.listen));
    let asked = ask(&url, options).await;
    let (mut left, mut looked) = (Vec::new(), Looked::default());
    looked.outbox = config.data.path.join("outbox");
    let (data, trace, tenant) = (config.data.path.clone(), options.trace, options.tenant.clone());
    let read = tokio::task::spawn_blocking(move || left::in_outbox(&data, trace, tenant.as_deref())).await;
    match read.map_err(std::io::Error::other).flatten() {
        Ok(found) => left.extend(found),
        Err(error) => looked.failures.push(format!("the outbox cannot be read: {error}")),
    }
    let waits = if asked.is_err() { in_input(options, config, &mut looked).await } else { Vec::new() };
    match in_parquet(options, config, &mut looked).await {
        Ok(found) => left.extend(found),
        Err(error) => looked.failures.push(format!("Parquet cannot be read: {error:#}")),
    }
    Report::new(options.trace, Instance::new(url, asked), waits, left, looked)
}

/// What a stopped instance has left to be judged.
async fn in_input(options: &Options, config: &Config, looked: &mut Looked) -> Vec<waiting::Waiting> {
    looked.input = Some(config.data.path.join("input"));
    let (data, trace, tenant) = (config.data.path.clone(), options.trace, options.tenant.clone());
    let disk: Arc<dyn Storage> = Arc::new(Disk);
    let read =
        tokio::task::spawn_blocking(move || waiting::find(&disk, &data, trace, tenant.as_deref())).await;
    read.map_err(anyhow::Error::from).flatten().unwrap_or_else(|error| {
        looked.failures.push(format!("the input log cannot be read: {error:#}"));
        Vec::new()
    })
}

/// Where this machine reaches a port that listens on every address.
fn reachable(listen: &str) -> String {
    let address = listen.strip_prefix("0.0.0.0:").map(|port| format!("127.0.0.1:{port}"));
    let address = address.or_else(|| listen.strip_prefix("[::]:").map(|port| format!("[::1]:{port}")));
    format!("http://{}", address.unwrap_or_else(|| listen.to_owned()))
}

async fn ask(url: &str, options: &Options) -> anyhow::Result<Testimony> {
    // The program may have chosen a provider already; either is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build()?;
    let mut at =
        url::Url::parse(url).context("expected a URL such as http://127.0.0.1:8888")?.join("/why")?;
    at.query_pairs_mut().append_pair("trace", &options.trace.to_string());
    if let Some(tenant) = &options.tenant {
        at.query_pairs_mut().append_pair("tenant", tenant);
    }
    let answer = client.get(at).send().await.map_err(|error| anyhow!(root_cause(&error)))?;
    let (status, text) = (answer.status(), answer.text().await?);
    if !status.is_success() {
        return Err(anyhow!("{status}: {}", text.trim()));
    }
    serde_json::from_str(&text).context("this is no tailwater")
}

/// Such as "connection refused", without the story around it.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

async fn in_parquet(options: &Options, config: &Config, looked: &mut Looked) -> anyhow::Result<Vec<Left>> {
    let Some(parquet) = &config.exporters.parquet else { return Ok(Vec::new()) };
    let hours = TimeDelta::from_std(options.last.get()).context("--last")?;
    let since = Utc::now().checked_sub_signed(hours).context("--last reaches too far back")?;
    if matches!(Target::parse(&parquet.url), Ok(Target::Folder(folder)) if !folder.exists()) {
        // A store makes its folder; looking must not.
        looked.parquet = Some(parquet.url.clone());
        return Ok(Vec::new());
    }
    let store = Arc::new(Store::open(parquet)?);
    let found = lookup::find(&store, options.trace, options.tenant.as_deref(), since).await?;
    looked.parquet = Some(parquet.url.clone());
    looked.objects = found.objects;
    looked.failures.extend(found.unreadable);
    Ok(found.stored.into_iter().map(|stored| Left::of_rows(options.trace, stored)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_one() {
        assert_eq!(parse_url("http://tailwater:8888"), Ok("http://tailwater:8888".to_owned()));
        for wrong in ["tailwater", "localhost:8888", "ftp://tailwater", "http://"] {
            assert!(parse_url(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn looking_makes_no_folder() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.telemetry.listen = "127.0.0.1:1".to_owned();
        config.data.path = folder.path().join("data");
        let traces = folder.path().join("traces");
        config.exporters.parquet.as_mut().unwrap().url = format!("file:{}", traces.display());
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736".parse().unwrap();
        let options =
            Options { trace, tenant: None, url: None, last: HumanDuration::from_secs(60), json: false };
        report(&options, &config).await;
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_port_on_every_address_is_reached_on_this_machine() {
        assert_eq!(reachable("0.0.0.0:8888"), "http://127.0.0.1:8888");
        assert_eq!(reachable("[::]:8888"), "http://[::1]:8888");
        assert_eq!(reachable("tailwater:8888"), "http://tailwater:8888");
    }
}
