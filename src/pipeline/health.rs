//! Watches for what nobody reports of himself: a log that cannot be written, senders that are refused for long.
//!
//! Changes of state are logged; what lasts longer than [`PATIENCE`] turns `/readyz` false, with the reason.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};

use super::budget::Budget;
use super::disk::DiskBudget;
use super::engine::Engine;
use crate::exporter::outbox::Outbox;
use crate::telemetry::Readiness;

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Senders are refused so long before an orchestrator is told.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug)]
pub(super) struct Health {
    pub(super) engine: Arc<Engine>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) budget: Arc<Budget>,
    pub(super) disk: Arc<DiskBudget>,
    pub(super) readiness: Readiness,
}

/// What one look remembers for the next.
#[derive(Debug, Default)]
struct Seen {
    refusals: u64,
    accepted: u64,
    memory: bool,
    input: Stall,
    outbox: Stall,
    trouble: Trouble,
}

impl Health {
    /// Looks every second until `stop` changes.
    pub(super) async fn watch(self, mut stop: watch::Receiver<()>) {
        let mut seen = Seen::default();
        let mut every = interval(LOOK_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = every.tick() => {}
                _ = stop.changed() => return,
            }
            self.look(&mut seen, Instant::now());
        }
    }

    fn look(&self, seen: &mut Seen, now: Instant) {
        let input = self.engine.input.as_ref().and_then(|input| input.stalled());
        let outbox = self.outbox.log().stalled();
        seen.input.look("input", input.as_deref());
        seen.outbox.look("outbox", outbox.as_deref());
        seen.memory = self.refuses_for_memory(seen);
        let stalled =
            |log: &str, error: Option<String>| Some(format!("the {log} cannot be written: {}", error?));
        let reason = stalled("input log", input)
            .or_else(|| stalled("outbox", outbox))
            .or_else(|| self.disk.refuses().then(|| "no disk is left for the logs".to_owned()))
            .or_else(|| seen.memory.then(|| "no memory is left for requests".to_owned()));
        self.readiness.trouble(seen.trouble.look(reason, now));
    }

    /// Every request that came since the last look was refused; or none came, and there is still no room.
    fn refuses_for_memory(&self, seen: &mut Seen) -> bool {
        let (refusals, accepted) = (self.budget.refusals(), self.engine.ledger.balance().accepted);
        let refused = refusals != std::mem::replace(&mut seen.refusals, refusals);
        let stored = accepted != std::mem::replace(&mut seen.accepted, accepted);
        !stored && (refused || seen.memory && self.budget.is_short())
    }
}

/// Whether a log can be written, as it was told last.
#[derive(Debug, Default)]
struct Stall(bool);

impl Stall {
    fn look(&mut self, log: &'static str, error: Option<&str>) {
        match error {
            Some(error) if !self.0 => warn!(log, error, "log cannot be written, it is tried again"),
            None if self.0 => info!(log, "log is written again"),
            _ => {}
        }
        self.0 = error.is_some();
    }
}

/// Why senders are refused, and since when.
#[derive(Debug, Default)]
struct Trouble(Option<Instant>);

impl Trouble {
    /// The reason, once it has lasted.
    fn look(&mut self, reason: Option<String>, now: Instant) -> Option<String> {
        let Some(reason) = reason else {
            self.0 = None;
            return None;
        };
        let lasted = now - *self.0.get_or_insert(now);
        (lasted > PATIENCE).then(|| format!("senders are refused for {} s: {reason}", lasted.as_secs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lasts_is_trouble_and_it_ends_at_once() {
        let (mut trouble, now) = (Trouble::default(), Instant::now());
        let full = || Some("full".to_owned());
        assert_eq!(trouble.look(full(), now), None);
        assert_eq!(trouble.look(full(), now + PATIENCE), None);
        let told = trouble.look(full(), now + PATIENCE + LOOK_EVERY);
        assert_eq!(told.as_deref(), Some("senders are refused for 31 s: full"));
        assert_eq!(trouble.look(None, now + 2 * PATIENCE), None);
        assert_eq!(trouble.look(full(), now + 3 * PATIENCE), None);
    }
}
