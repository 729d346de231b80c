//! The command line: what can be asked of the program, and its help.
//!
//! Exit codes: 0 done, 1 failed, 2 the arguments or the configuration are wrong.

mod backtest;
mod check;
mod convert;
mod demo;
mod instance;
mod log;
mod print;
mod reload;
mod watch;
mod why;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::config::{self, Config, ConfigError};
use crate::telemetry::logging::{self, Format};
use crate::units::HumanDuration;
use reload::Follower;

const EXAMPLES: &str = "\
Examples:
  tailwater                           run on the defaults: OTLP on 4317 and 4318, Parquet in ./tailwater-data/traces
  tailwater --config tailwater.yaml   run on a file
  tailwater check tailwater.yaml      find mistakes in a file without starting
  tailwater convert --from collector otel.yaml > tailwater.yaml
                                      move over from tail_sampling (or, --from refinery, from Refinery's rules)
  tailwater backtest --config new.yaml --against tailwater.yaml ./tailwater-data
                                      what new policies would have kept, and what changes hands
  tailwater demo                      see it work: a shop's traffic, sampled before your eyes
  tailwater why 4bf92f3577b34da6a3ce929d0e0e4736
                                      say what became of a trace, and why
  tailwater drain                     judge and deliver all that a stopped instance left, then exit
  tailwater log ls ./tailwater-data   what is on disk, and what waits for whom; beside a running instance too

Ports (all of them on 127.0.0.1 unless configured):
  4317  OTLP/gRPC                     OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4317
  4318  OTLP/HTTP, protobuf and JSON  OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318
  8888  /status, /metrics, /healthz, /readyz, /why?trace=ID

Environment:
  Values of the configuration file may name variables: ${NAME}, or ${NAME:-default}.
  Credentials of S3, GCS and Azure are taken from their usual variables, such as AWS_ACCESS_KEY_ID.

Signals:
  SIGTERM and SIGINT end the process within seconds; the next start resumes where it stopped. A second one, half a
  second later or more, ends it at once.
  SIGHUP reads the file again, as every change of it does: policies, buffer.after_root and buffer.max_wait are in
  force within two seconds. A file with a mistake, or with another key changed, changes nothing: see the log.";

/// Tail sampling for OpenTelemetry traces.
///
/// Holds the spans of every trace until the trace is complete, then keeps every error, every trace that is slow
/// for its own operation, and a share of the rest. Kept traces become Parquet on S3-compatible storage and are
/// forwarded by OTLP to Tempo or any other backend.
#[derive(Debug, Parser)]
#[command(name = "tailwater", version, after_long_help = EXAMPLES, args_conflicts_with_subcommands = false)]
pub struct Arguments {
    /// The configuration file; without one, the defaults.
    #[arg(long, short, value_name = "FILE", global = true)]
    config: Option<PathBuf>,

    /// How logs are written, instead of what the configuration says.
    #[arg(long, value_enum, value_name = "FORMAT", global = true)]
    log_format: Option<Format>,

    /// What is logged: error, warn, info, debug, trace, or directives such as info,tailwater::exporter=debug.
    #[arg(long, value_name = "LEVEL", global = true)]
    log_level: Option<String>,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Find mistakes in a configuration file without starting.
    Check {
        /// The file, instead of --config.
        file: Option<PathBuf>,
    },
    /// Write a configuration from that of a Collector's tail_sampling processor or of Refinery.
    ///
    /// What cannot be said is named in the written file and on standard error, with line and reason.
    #[command(after_help = "Example: tailwater convert --from refinery rules.yaml --output tailwater.yaml")]
    Convert(convert::Options),
    /// Judge traffic that is over by the policies of --config, and say what they would keep.
    ///
    /// INPUT is a data directory, whose input log has all traffic of its last data.input_keep; or a folder of kept
    /// Parquet, where weights stand for what is missing; or a file of OTLP JSON lines, as a Collector's file exporter
    /// writes them (plain, gzip or zstd).
    #[command(
        after_help = "Example: tailwater backtest --config new.yaml --against tailwater.yaml ./tailwater-data"
    )]
    Backtest(backtest::Options),
    /// Run a real instance in a temporary folder, send it a shop's traffic and show what it keeps.
    Demo(demo::Options),
    /// Judge and deliver everything a stopped instance has left in its data directory, then exit.
    ///
    /// Before a volume is thrown away. Policies and exporters are those of --config.
    Drain {
        /// The data directory, instead of the configured one.
        data_dir: Option<PathBuf>,
        /// Give up after this long.
        #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_duration)]
        timeout: HumanDuration,
    },
    /// Say what became of a trace: kept, dropped or never seen, by which policy, and why.
    ///
    /// Asks the running instance, then reads the outbox and the Parquet objects of the last hours. Works without a
    /// running instance; then only what was kept is known.
    Why(why::Options),
    /// Look into a data directory: what is in the logs, whether it can be read, as OTLP JSON.
    Log(log::Options),
    /// Print the completions of a shell, to be sourced by it.
    Completions { shell: Shell },
    /// Print the manual page, for man -l -.
    Man,
}

fn parse_duration(text: &str) -> Result<HumanDuration, crate::units::UnitError> {
    text.parse()
}

/// Why the process ends without having done what was asked.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The user has to change something first.
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl Failure {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) | Self::Config(_) => ExitCode::from(2),
            Self::Other(_) => ExitCode::FAILURE,
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Other(error.into())
    }
}

impl Arguments {
    /// Does what was asked.
    pub fn run(mut self) -> ExitCode {
        let done = match self.command.take() {
            None => self.serve(),
            Some(Command::Check { file }) => check::run(file.or(self.config).as_deref()),
            Some(Command::Backtest(options)) => backtest::run(&options, self.config.as_deref()),
            Some(Command::Convert(options)) => convert::run(&options),
            Some(Command::Demo(options)) => demo::run(&options),
            Some(Command::Drain { data_dir, timeout }) => self.drain(data_dir, timeout),
            Some(Command::Why(options)) => self.load().and_then(|loaded| why::run(&options, &loaded.config)),
            Some(Command::Log(options)) => log::run(&options),
            Some(Command::Completions { shell }) => print::completions(Self::command(), shell),
            Some(Command::Man) => print::man(Self::command()),
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                if logging::is_json() {
                    tracing::error!(error = %failure, "ends");
                } else {
                    say(format_args!("tailwater: {failure}"));
                }
                failure.exit_code()
            }
        }
    }

    fn serve(self) -> Result<(), Failure> {
        let loaded = self.load()?;
        instance::start_logging(&loaded.config.log)?;
        instance::announce(&loaded, &self.file_name());
        let follower = self.config.as_deref().map(|file| Follower::new(file, &loaded));
        instance::serve(loaded, follower)
    }

    fn drain(self, data_dir: Option<PathBuf>, timeout: HumanDuration) -> Result<(), Failure> {
        let mut loaded = self.load()?;
        if let Some(path) = data_dir {
            loaded.config.data.path = path;
        }
        // A path that is misspelt must not end as "drained", with the volume thrown away after it.
        log::is_data(&loaded.config.data.path)?;
        instance::start_logging(&loaded.config.log)?;
        instance::drain(loaded.config, timeout.get())
    }

    /// The configuration, with what the command line says instead.
    fn load(&self) -> Result<config::Loaded, Failure> {
        let mut loaded = match &self.config {
            Some(file) => read(file)?,
            None => Config::default().into(),
        };
        let log = &mut loaded.config.log;
        if let Some(format) = self.log_format {
            log.format = format;
        }
        if let Some(level) = &self.log_level {
            log.level.clone_from(level);
        }
        Ok(loaded)
    }

    fn file_name(&self) -> String {
        self.config
            .as_deref()
            .map_or_else(|| "built-in defaults".to_owned(), |file| file.display().to_string())
    }
}

fn read(file: &Path) -> Result<config::Loaded, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::Usage(format!("read {}: {error}", file.display())))?;
    Ok(config::inspect(&text, file)?)
}

/// A line to the person at the terminal, before or beside the logs. A closed terminal is not our failure.
fn say(line: fmt::Arguments<'_>) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn options_stand_before_or_behind_the_command() {
        for line in ["tailwater --config a.yaml check", "tailwater check --config a.yaml"] {
            let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(arguments.config.as_deref(), Some(Path::new("a.yaml")), "{line}");
        }
    }

    #[test]
    fn help_teaches_by_example() {
        let help = Arguments::command().render_long_help().to_string();
        for word in ["Examples:", "4317", "4318", "8888", "${NAME}", "SIGTERM", "demo"] {
            assert!(help.contains(word), "{word}");
        }
    }

    #[test]
    fn draining_a_misspelt_path_is_refused_and_makes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().join("misspelt"), folder.path().to_owned()] {
            let arguments = Arguments::try_parse_from(["tailwater"]).unwrap();
            let refused = arguments.drain(Some(path.clone()), HumanDuration::from_secs(1)).unwrap_err();
            assert!(
                matches!(&refused, Failure::Usage(said) if said.contains("is no data directory")),
                "{refused}"
            );
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_wrong_duration_is_explained() {
        let line = ["tailwater", "drain", "--timeout", "5 parsecs"];
        let error = Arguments::try_parse_from(line).unwrap_err().to_string();
        assert!(error.contains("expected a duration with its unit"), "{error}");
    }
}
