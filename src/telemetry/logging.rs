//! Logs: changes of state on standard error, as text or as JSON lines.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use serde::Deserialize;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use super::notices::{NOTICES, Remember};

/// The `log` section of the configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub format: Format,
    /// A level, or directives such as `info,tailwater::exporter=debug`.
    pub level: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    #[default]
    Text,
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self { format: Format::Text, level: "info".to_owned() }
    }
}

impl Config {
    /// The filter of `level`; libraries below are heard from `warn` on unless named.
    pub fn filter(&self) -> Result<EnvFilter, ParseError> {
        // A word alone would be the name of a target: a misspelt level would be the end of all logs.
        for word in self.level.split(',').filter(|directive| !directive.contains(['=', '['])) {
            EnvFilter::builder().parse(format!("tailwater={}", word.trim()))?;
        }
        // What a peer can cause as often as it likes is not warned of; exporters tell of TLS by themselves.
        let libraries = "h2=error,hyper=warn,hyper_util=warn,tower=warn,rustls=warn,rustls_platform_verifier=off,\
                         object_store=warn,reqwest=warn";
        EnvFilter::builder().parse(format!("{libraries},{}", self.level))
    }
}

/// Whether logs are JSON lines by now, so that whatever else is said must be one too.
pub fn is_json() -> bool {
    JSON.load(Relaxed)
}

static JSON: AtomicBool = AtomicBool::new(false);

/// Starts logging for the whole process. Does nothing if a subscriber is already there.
pub fn start(config: &Config) -> Result<(), ParseError> {
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match config.format {
        Format::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    let logs = tracing_subscriber::registry().with(config.filter()?).with(lines).with(Remember(&NOTICES));
    JSON.store(config.format == Format::Json, Relaxed);
    // A second call finds the subscriber of the first, which is as good.
    let _ = logs.try_init();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_and_directives_are_filters() {
        for level in ["warn", "info,tailwater::exporter=debug"] {
            assert!(Config { level: level.to_owned(), ..Config::default() }.filter().is_ok(), "{level}");
        }
    }

    #[test]
    fn a_misspelt_level_is_refused() {
        for level in ["tailwater=loud", "loud", "inof,tailwater::exporter=debug"] {
            assert!(Config { level: level.to_owned(), ..Config::default() }.filter().is_err(), "{level}");
        }
    }
}
