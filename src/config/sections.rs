//! The sections that belong to no single stage. Defaults stand here and nowhere else.

use std::num::NonZeroU8;
use std::path::PathBuf;

use serde::Deserialize;

use crate::exporter::{otlp, parquet};
use crate::receiver;
use crate::sampler::ConditionText;
use crate::units::{ByteSize, HumanDuration, MemoryLimit};

/// `receivers`: where requests come from.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Receivers {
    pub otlp: receiver::Config,
}

/// `data`: what is on disk.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Data {
    /// One directory for each instance; it is locked while in use.
    pub path: PathBuf,
    /// Input log and outbox together.
    pub disk: ByteSize,
    pub sync: Sync,
    pub when_full: WhenFull,
    pub input: Input,
    /// Judged input is kept this long for `backtest`, within `disk`.
    pub input_keep: HumanDuration,
    pub on_shutdown: OnShutdown,
    /// What is not delivered by then stays on disk.
    pub drain_timeout: HumanDuration,
}

/// What SIGTERM asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnShutdown {
    /// End within seconds; the next start goes on.
    #[default]
    Resume,
    /// Judge and deliver everything first, for volumes that do not outlive the process.
    Drain,
}

/// When a request is safe to acknowledge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sync {
    /// Once written: survives the death of the process.
    #[default]
    None,
    /// Once synced: survives the loss of power.
    Always,
}

/// What gives way when `disk` is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// Senders: they are told to come back.
    #[default]
    Refuse,
    /// What waits longest for the slowest exporter: it is given up, and counted.
    LoseOldest,
}

/// Where accepted requests wait for their verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// In memory and in the input log.
    #[default]
    File,
    /// In memory only, for volumes that do not outlive the process.
    Memory,
}

impl Default for Data {
    fn default() -> Self {
        Self {
            path: PathBuf::from("./tailwater-data"),
            disk: ByteSize::gib(20),
            sync: Sync::default(),
            when_full: WhenFull::default(),
            input: Input::default(),
            input_keep: HumanDuration::from_secs(0),
            on_shutdown: OnShutdown::default(),
            drain_timeout: HumanDuration::from_secs(300),
        }
    }
}

/// `buffer`: how long spans are gathered, and in how much memory.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Buffer {
    /// Log, index and requests in flight.
    pub memory: MemoryLimit,
    /// After a root: wait this long for stragglers.
    pub after_root: HumanDuration,
    /// Without a root: judge this long after the first span.
    pub max_wait: HumanDuration,
    /// How long a verdict holds and its trace stays reachable, memory permitting.
    pub hindsight: HumanDuration,
    /// A TraceQL condition on a span: what counts as a root beside spans without a parent.
    pub root: Option<ConditionText>,
}

impl Default for Buffer {
    fn default() -> Self {
        const HALF: NonZeroU8 = NonZeroU8::new(50).expect("50 is not 0");
        Self {
            memory: MemoryLimit::Percent(HALF),
            after_root: HumanDuration::from_secs(10),
            max_wait: HumanDuration::from_secs(60),
            hindsight: HumanDuration::from_secs(300),
            root: None,
        }
    }
}

/// `exporters`: where kept traces go. A file that has this section names all of them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Exporters {
    pub parquet: Option<parquet::Config>,
    pub otlp: Vec<otlp::Config>,
}
