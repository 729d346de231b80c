//! Takes a changed configuration in while everything runs: policies and waits, all of it or nothing.
//!
//! The file was read and checked before; what is refused here is a key that only a restart can change. The
//! policies are compiled beside those in force and exchanged between two judgements, so that every verdict is
//! counted in the book of the policy that made it. Traces that wait are judged by the policies in force when they
//! are due; what was folded while their spans came is not used then, because it says nothing about the new ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use super::engine::{Engine, InForce};
use crate::buffer::{Generation, Waits};
use crate::config::{Buffer, ConfigError, Loaded};
use crate::sampler::{Policies, PolicyConfig};
use crate::telemetry::{Families, Source};

/// What a reload changes, ready to be put in force.
#[derive(Debug)]
pub(super) struct Change {
    in_force: InForce,
    waits: Waits,
}

impl Change {
    pub(super) fn apply(self, engine: &Engine) {
        engine.reload(self.in_force, self.waits);
    }
}

/// The configuration in force, and how its changes went.
#[derive(Debug)]
pub(super) struct Reloads {
    in_force: Mutex<Loaded>,
    /// Held from the look at what is in force until something else is.
    one_at_a_time: tokio::sync::Mutex<()>,
    generation: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
    /// Unix milliseconds.
    loaded_ms: AtomicU64,
}

impl Reloads {
    /// What the process starts with is its first load.
    pub(super) fn new(in_force: Loaded, now_ms: u64) -> Self {
        Self {
            in_force: Mutex::new(in_force),
            one_at_a_time: tokio::sync::Mutex::default(),
            generation: AtomicU64::default(),
            accepted: AtomicU64::default(),
            refused: AtomicU64::default(),
            loaded_ms: AtomicU64::new(now_ms),
        }
    }

    /// Something of the policy of this name, if there is one in force.
    pub(super) fn policy<T>(&self, name: &str, of: impl FnOnce(&PolicyConfig) -> T) -> Option<T> {
        let in_force = self.in_force.lock();
        in_force.config.policies.iter().find(|policy| policy.name.as_str() == name).map(of)
    }

    /// What the file asks to change. `read` says why if it cannot be used; then nothing changes.
    pub(super) fn prepare(&self, read: Result<&Loaded, &ConfigError>) -> Result<Change, ConfigError> {
        let prepared = read.map_err(ConfigError::clone).and_then(|new| self.change(new));
        if prepared.is_err() {
            self.refused.fetch_add(1, Relaxed);
        }
        prepared
    }

    fn change(&self, new: &Loaded) -> Result<Change, ConfigError> {
        new.changes_without_restart(&self.in_force.lock())?;
        let generation = generation(self.generation.load(Relaxed) + 1);
        let policies = Policies::compile(&new.config.policies, u32::from(generation.0))
            .expect("a file that was read has policies that compile");
        Ok(Change { in_force: InForce { policies, generation }, waits: waits(&new.config.buffer) })
    }

    /// The change is in force. Returns the number of its load.
    pub(super) fn done(&self, new: Loaded, now_ms: u64) -> u64 {
        *self.in_force.lock() = new;
        self.accepted.fetch_add(1, Relaxed);
        self.loaded_ms.store(now_ms, Relaxed);
        self.generation.fetch_add(1, Relaxed) + 1
    }
}

pub(super) fn waits(buffer: &Buffer) -> Waits {
    Waits {
        after_root_ms: buffer.after_root.as_millis(),
        max_wait_ms: buffer.max_wait.as_millis(),
        hindsight_ms: buffer.hindsight.as_millis(),
    }
}

/// Folded bits tell their generation by 16 bits, of which one value means several.
fn generation(load: u64) -> Generation {
    Generation((load % u64::from(Generation::MIXED.0)) as u16)
}

impl Source for Reloads {
    fn collect(&self, out: &mut Families) {
        let help = "Changed configuration files, by what became of them.";
        for (outcome, tally) in [("accepted", &self.accepted), ("refused", &self.refused)] {
            let labels = [("outcome", outcome)];
            out.counter("tailwater_config_reloads_total", help, &labels, tally.load(Relaxed));
        }
        let generation = self.generation.load(Relaxed) as f64;
        let help = "Number of the configuration in force; the one of the start is 0.";
        out.gauge("tailwater_config_generation", help, &[], generation);
        let loaded = self.loaded_ms.load(Relaxed) as f64 / 1e3;
        let help = "When the configuration in force was loaded, in Unix seconds.";
        out.gauge("tailwater_config_last_load_timestamp_seconds", help, &[], loaded);
    }
}

/// See [`super::Pipeline::reload`]; `apply` puts the change in force and returns when it is.
pub(super) async fn reload(
    reloads: &Reloads,
    engine: &Arc<Engine>,
    read: Result<Loaded, ConfigError>,
    apply: impl AsyncFnOnce(Change) -> anyhow::Result<()>,
) -> Result<u64, Refused> {
    let _alone = reloads.one_at_a_time.lock().await;
    let change = reloads.prepare(read.as_ref())?;
    apply(change).await.map_err(Refused::Ending)?;
    let new = read.map_err(Refused::Config)?;
    Ok(reloads.done(new, engine.clock.arrival_ms()))
}

/// Why the old configuration stays in force.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The instance ends.
    #[error("{0:#}")]
    Ending(anyhow::Error),
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;
    use crate::pipeline::testing::engine;
    use crate::sampler::testing::{Trace, span};

    const POLICIES: &str = "policies: [{ name: slow, slower_than: p99, keep: 100% }]\n";

    fn read(text: &str) -> Result<Loaded, ConfigError> {
        config::inspect(text, Path::new("t.yaml"))
    }

    fn offer(reloads: &Reloads, engine: &Engine, text: &str) -> Result<u64, ConfigError> {
        let read = read(text);
        reloads.prepare(read.as_ref())?.apply(engine);
        Ok(reloads.done(read?, 7_000))
    }

    fn shown(reloads: &Reloads) -> String {
        let mut families = Families::default();
        reloads.collect(&mut families);
        String::from_utf8(families.encode().unwrap()).unwrap()
    }

    #[test]
    fn a_change_of_policies_and_waits_is_in_force_and_counted() {
        let (reloads, engine) = (Reloads::new(read("").unwrap(), 5_000), engine(0));
        let text = format!("{POLICIES}buffer: {{ after_root: 1s, max_wait: 2s }}\n");
        assert_eq!(offer(&reloads, &engine, &text).unwrap(), 1);
        let in_force = engine.policies.load();
        assert_eq!(
            (in_force.policies.names(), in_force.generation),
            (&["slow".to_owned()][..], Generation(1))
        );
        assert_eq!(engine.max_wait_ms.load(Relaxed), 2_000);
        let shown = shown(&reloads);
        for line in [
            "tailwater_config_reloads_total{outcome=\"accepted\"} 1",
            "tailwater_config_generation 1",
            "tailwater_config_last_load_timestamp_seconds 7",
        ] {
            assert!(shown.contains(line), "{line} in {shown}");
        }
    }

    #[test]
    fn what_is_refused_changes_nothing() {
        let (reloads, engine) = (Reloads::new(read("").unwrap(), 5_000), engine(0));
        for text in ["policies: [", "policies: []", "data: { disk: 30GiB }", "bufer: {}"] {
            offer(&reloads, &engine, text).unwrap_err();
        }
        assert_eq!(engine.policies.load().generation, Generation(0));
        let shown = shown(&reloads);
        for line in [
            "tailwater_config_reloads_total{outcome=\"refused\"} 4",
            "tailwater_config_generation 0",
            "tailwater_config_last_load_timestamp_seconds 5",
        ] {
            assert!(shown.contains(line), "{line} in {shown}");
        }
    }

    #[test]
    fn the_next_change_is_compared_with_what_is_in_force() {
        let (reloads, engine) = (Reloads::new(read("").unwrap(), 0), engine(0));
        offer(&reloads, &engine, "buffer: { max_wait: 20s }").unwrap();
        let refused = offer(&reloads, &engine, "buffer: { max_wait: 30s, memory: 40% }").unwrap_err();
        assert_eq!(refused.to_string(), "t.yaml:1:34: buffer.memory needs a restart");
        offer(&reloads, &engine, "buffer: { max_wait: 30s }").unwrap();
        assert_eq!(engine.policies.load().generation, Generation(2));
    }

    #[test]
    fn a_budget_goes_on_when_another_policy_changes() {
        let (reloads, engine) = (Reloads::new(read("").unwrap(), 0), engine(0));
        let policies = "policies: [{ name: a, keep: 1/s }, { name: rest, keep: 5% }]";
        offer(&reloads, &engine, policies).unwrap();
        let trace = Trace::of([span(1, "op")]);
        (0..100).for_each(|_| _ = trace.judge_at(&engine.policies.load().policies, 0, false));
        offer(&reloads, &engine, &policies.replace("5%", "6%")).unwrap();
        let in_force = engine.policies.load();
        let (name, keep) = in_force.policies.current_keeps(0).next().unwrap();
        assert!(name == "a" && keep.probability < 0.02, "{keep:?}");
    }

    #[test]
    fn no_generation_is_that_of_mixed_bits() {
        assert_eq!(generation(65_534), Generation(65_534));
        assert_eq!(generation(65_535), Generation(0));
    }
}
