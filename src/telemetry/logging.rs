//! Logs: changes of state on standard error, as text or as JSON lines.

use std::io::IsTerminal;

use serde::Deserialize;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

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
        let libraries =
            "h2=warn,hyper=warn,hyper_util=warn,tower=warn,rustls=warn,object_store=warn,reqwest=warn";
        EnvFilter::builder().parse(format!("{libraries},{}", self.level))
    }
}

/// Starts logging for the whole process. Does nothing if a subscriber is already there.
pub fn start(config: &Config) -> Result<(), ParseError> {
    let filter = config.filter()?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second call finds the subscriber of the first, which is as good.
    let _ = match config.format {
        Format::Text => logs.with_ansi(std::io::stderr().is_terminal()).try_init(),
        Format::Json => logs.json().flatten_event(true).try_init(),
    };
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
