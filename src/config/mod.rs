//! The configuration: one screen of YAML, every key with a default, every mistake with its place.
//!
//! [`load`] is the only door. Behind it a file is read twice: once as the document it is, with the position
//! of every key ([`tree`]), and once into the types that the stages own. What neither can see alone (a wait
//! shorter than another, a name given twice) is checked last ([`check`]).

mod changes;
mod check;
mod expand;
mod memory;
mod mistake;
mod place;
mod sections;
mod tree;
mod unsupported;

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;

pub use changes::Document;
pub use check::{MEMORY_MIN, Warning};
pub use memory::available as available_memory;
pub use mistake::{ConfigError, Mistake};
pub use sections::{Buffer, Data, Exporters, Input, OnShutdown, Receivers, Sync, WhenFull};

use crate::sampler::{ConditionText, Keep, PolicyConfig, PolicyName, RandomnessSource};
use crate::telemetry::{self, logging};
pub(crate) use mistake::Source;
pub(crate) use tree::{Entry, Kind, Node};

/// Everything a user can say.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub receivers: Receivers,
    pub data: Data,
    pub buffer: Buffer,
    /// What shares are compared with.
    pub randomness: RandomnessSource,
    /// Asked in this order; the first that matches decides.
    pub policies: Vec<PolicyConfig>,
    pub exporters: Exporters,
    pub telemetry: telemetry::Config,
    pub log: logging::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            receivers: Receivers::default(),
            data: Data::default(),
            buffer: Buffer::default(),
            randomness: RandomnessSource::default(),
            policies: default_policies(),
            exporters: Exporters { parquet: Some(Default::default()), otlp: Vec::new() },
            telemetry: telemetry::Config::default(),
            log: logging::Config::default(),
        }
    }
}

/// Errors, traces slow for their own operation, and 5 % of the rest; health checks never.
fn default_policies() -> Vec<PolicyConfig> {
    let policy = |name: &str, condition: Option<&str>, slower_than: Option<&str>, keep: &str| PolicyConfig {
        name: PolicyName::try_from(name.to_owned()).expect("a name"),
        matches: condition.map(|text| ConditionText(text.to_owned())),
        unless: None,
        slower_than: slower_than.map(|text| text.to_owned().try_into().expect("a percentile")),
        keep: Keep::Share(keep.parse().expect("a share")),
        shadow: false,
    };
    vec![
        policy("errors", Some("{ status = error }"), None, "100%"),
        policy("health-checks", Some(r#"{ rootName =~ "GET /(healthz|readyz)" }"#), None, "0%"),
        policy("slow", None, Some("p95"), "100%"),
        policy("rest", None, None, "5%"),
    ]
}

/// A configuration and what should be said about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    pub warnings: Vec<Warning>,
    pub document: Document,
}

/// Reads a configuration; `path` is for messages only. `${NAME}` in a value is taken from the environment.
pub fn load(text: &str, path: &Path) -> Result<Config, ConfigError> {
    inspect(text, path).map(|loaded| loaded.config)
}

/// Reads a configuration and says what looks wrong but is allowed.
pub fn inspect(text: &str, path: &Path) -> Result<Loaded, ConfigError> {
    // A variable that is not UTF-8 cannot stand in a YAML file.
    let utf8 = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    inspect_with(text, path, std::env::vars_os().filter_map(utf8).collect())
}

/// The same in a given environment.
pub fn inspect_with(
    text: &str,
    path: &Path,
    environment: HashMap<String, String>,
) -> Result<Loaded, ConfigError> {
    let source = Source { text };
    let file = path.display().to_string();
    let (config, root) =
        parse(source, &environment).map_err(|mistakes| ConfigError { file: file.clone(), mistakes })?;
    let warnings = check::warnings(&config, source, &root);
    Ok(Loaded { config, warnings, document: Document { file, text: text.to_owned(), root } })
}

fn parse(source: Source<'_>, environment: &HashMap<String, String>) -> Result<(Config, Node), Vec<Mistake>> {
    let mut document: Node = read(source.text).map_err(|error| vec![source.mistake_of(&error)])?;
    let expanded = expand::expand(source, &mut document, environment).map_err(|mistake| vec![mistake])?;
    refuse_any(
        unsupported::find(&document).into_iter().map(|(at, text)| source.mistake(at, text)).collect(),
    )?;
    let config = match &document.kind {
        Kind::Empty => Config::default(),
        _ => read(&expanded.text).map_err(|error| vec![source.mistake_of_expanded(&expanded, &error)])?,
    };
    refuse_any(check::mistakes(&config, source, &document))?;
    Ok((config, document))
}

/// A YAML file that is none of ours, with the place of everything in it.
pub(crate) fn foreign(source: Source<'_>) -> Result<Node, Mistake> {
    read(source.text).map_err(|error| source.mistake_of(&error))
}

fn refuse_any(mistakes: Vec<Mistake>) -> Result<(), Vec<Mistake>> {
    if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
}

/// The only use of the YAML reader.
fn read<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, serde_saphyr::Error> {
    let options = serde_saphyr::options! { with_snippet: false, strict_booleans: true };
    serde_saphyr::from_str_with_options(text, options)
}

#[cfg(test)]
mod tests;
