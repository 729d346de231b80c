//! `tailwater backtest`: what policies would have kept of traffic that is over.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Failure, read};
use crate::backtest::{Report, Source, run as replay};
use crate::config::{self, Config};
use crate::telemetry::logging;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// A data directory (its input log), a folder of kept Parquet, or a file of OTLP JSON lines.
    input: PathBuf,
    /// Compare with the policies of this file, and show what changes hands.
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// For programs.
    #[arg(long)]
    json: bool,
}

/// `new`: the file of --config.
pub(super) fn run(options: &Options, new: Option<&Path>) -> Result<(), Failure> {
    let Some(new) = new else {
        let expected = "expected tailwater backtest --config NEW [--against OLD] INPUT";
        return Err(Failure::Usage(format!("backtest: no policies given, {expected}")));
    };
    let log = logging::Config { level: "error".to_owned(), ..logging::Config::default() };
    super::instance::start_logging(&log)?;
    let new_config = checked(new)?;
    let old_config = options.against.as_deref().map(checked).transpose()?;
    let source = Source::detect(&options.input)?;
    let old_name = options.against.as_deref().map(|file| file.display().to_string());
    let new_name = new.display().to_string();
    let bar = progress(&source);
    let old = match (&old_config, &old_name) {
        (Some(config), Some(name)) => Some((name.as_str(), judged(config, &source, &bar, name)?)),
        _ => None,
    };
    let outcome = judged(&new_config, &source, &bar, &new_name)?;
    bar.finish_and_clear();
    let learns = new_config.policies.iter().any(|policy| policy.slower_than.is_some());
    let old = old.as_ref().map(|(name, outcome)| (*name, outcome));
    let report = Report::new(&source, (&new_name, &outcome), old, learns);
    let mut out = std::io::stdout().lock();
    match options.json {
        true => writeln!(out, "{:#}", report.to_json())?,
        false => write!(out, "{report}")?,
    }
    Ok(())
}

fn checked(file: &Path) -> Result<Config, Failure> {
    let config::Loaded { config, .. } = read(file)?;
    Ok(config)
}

fn judged(
    config: &Config,
    source: &Source,
    bar: &ProgressBar,
    name: &str,
) -> Result<crate::backtest::Outcome, Failure> {
    bar.set_position(0);
    bar.set_message(name.to_owned());
    Ok(replay(config, source, |bytes| bar.set_position(bytes))?)
}

/// On a terminal alone.
fn progress(source: &Source) -> ProgressBar {
    let target = match std::io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr_with_hz(5),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(Some(source.bytes()), target);
    let template = "{msg}  {bar:40} {bytes}/{total_bytes}  {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
