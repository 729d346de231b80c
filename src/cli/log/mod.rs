//! `tailwater log`: what is in a data directory, whether or not an instance runs on it.

mod dump;
mod show;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};

use super::Failure;
use crate::log::{Disk, Storage};
use crate::pipeline::survey::Survey;
use crate::trace::{TraceId, TraceIdError};

const EXAMPLES: &str = "\
Examples:
  tailwater log ls tailwater-data                        what is there: segments, cursors, what waits for whom
  tailwater log verify tailwater-data                    only what is wrong; exit code 1 if anything is
  tailwater log dump tailwater-data | jq .               kept traces that still lie in the outbox, as OTLP JSON
  tailwater log dump tailwater-data --requests           what was received and may not be judged yet
  tailwater log dump tailwater-data --trace 4bf92f3577b34da6a3ce929d0e0e4736

At 3 a.m.:
  Is anything lost?         tailwater log verify DATA_DIR; in the metrics: tailwater_log_lost_bytes_total
  Who does not deliver?     tailwater log ls DATA_DIR: the exporter with the most that waits
  May I delete something?   Never a file by hand. Remove the exporter from the configuration and restart: what waits
                            for it is given up, and segments that nobody waits for are deleted.

All of it reads only, takes no lock, and works beside a running instance and on damaged files.";

/// Look into a data directory: list, check, print.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(super) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the segments of both logs, the exporters' cursors and what waits for them, and the state.
    Ls {
        /// The data directory (`data.path`).
        data_dir: PathBuf,
    },
    /// Read and check every byte; print what is wrong. Exit code 1 if anything is.
    Verify {
        /// The data directory (`data.path`).
        data_dir: PathBuf,
    },
    /// Print traces as OTLP JSON, one ExportTraceServiceRequest a line.
    ///
    /// Kept traces come from the outbox, where they lie until every exporter has delivered them. A line that cannot
    /// be printed is told on standard error and left out.
    Dump {
        /// The data directory (`data.path`).
        data_dir: PathBuf,
        /// Print the requests of the input log instead of kept traces.
        #[arg(long)]
        requests: bool,
        /// Only spans of this trace.
        #[arg(long, value_name = "TRACE_ID", value_parser = parse_trace)]
        trace: Option<TraceId>,
    },
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let storage: Arc<dyn Storage> = Arc::new(Disk);
    match &options.command {
        Command::Ls { data_dir } => show::list(&survey(&storage, data_dir)?, data_dir),
        Command::Verify { data_dir } => show::verify(&survey(&storage, data_dir)?),
        Command::Dump { data_dir, requests, trace } => {
            is_data(data_dir)?;
            dump::run(&storage, data_dir, *requests, *trace)
        }
    }
}

fn survey(storage: &Arc<dyn Storage>, data_dir: &Path) -> Result<Survey, Failure> {
    is_data(data_dir)?;
    Ok(Survey::take(storage, data_dir)?)
}

/// Refuses what no instance has ever used.
pub(super) fn is_data(data_dir: &Path) -> Result<(), Failure> {
    let known = ["input", "outbox", "state", "id"].iter().any(|name| data_dir.join(name).exists());
    let path = data_dir.display();
    let expected = "expected the folder that data.path names";
    if known { Ok(()) } else { Err(Failure::Usage(format!("{path} is no data directory, {expected}"))) }
}

fn parse_trace(text: &str) -> Result<TraceId, String> {
    text.parse().map_err(|error: TraceIdError| error.to_string())
}
