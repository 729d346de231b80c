//! An instance that is turned by hand: the stages as [`Pipeline`](super::Pipeline) connects them, without
//! ports, exporters and threads that judge. Whoever holds it owns the clock and the disk, so that hours pass
//! in a moment and every run is the same.

use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use tokio::sync::watch;

use super::build::Core;
use super::engine::Engine;
use super::judge::Witness;
use super::keeper::STATE_FIRST_MS;
use super::place::Place;
use super::reload::Reloads;
use super::{Settings, joined};
use crate::config::{Config, ConfigError, Loaded};
use crate::exporter::outbox::Outbox;
use crate::receiver::{Accepted, Intake as _, Rejection};
use crate::telemetry::Telemetry;

/// See the module. Dropped without [`Self::shutdown`], it has died as by `kill -9`.
pub struct Simulation {
    core: Core,
    telemetry: Telemetry,
    reloads: Arc<Reloads>,
    state_due_ms: u64,
    failure: watch::Receiver<Option<String>>,
    _place: Place,
}

impl Simulation {
    /// Opens the data directory, recovers and takes requests.
    pub fn build(config: &Config, settings: &Settings) -> anyhow::Result<Self> {
        let place = Place::open(&*settings.storage, &config.data.path)?;
        let (failed, failure) = watch::channel(None);
        let core = Core::open(config, &place, settings, &failed)?;
        let telemetry = Telemetry::new();
        telemetry.register(core.engine.ledger.clone());
        telemetry.register(Arc::new(core.metrics()));
        let reloads = Arc::new(Reloads::new(config.clone().into(), core.engine.clock.arrival_ms()));
        telemetry.register(reloads.clone());
        core.engine.clock.start();
        Ok(Self { core, telemetry, reloads, state_due_ms: STATE_FIRST_MS, failure, _place: place })
    }

    /// Tells somebody of every verdict by which nothing leaves.
    pub fn tell(&mut self, witness: Arc<dyn Witness>) {
        self.core.judge_loop.judge.witness = Some(witness);
    }

    /// What a port does with a request.
    pub async fn receive(&self, tenant: &str, body: Bytes) -> Result<Accepted, Rejection> {
        let room = self.core.intake.admit(body.len())?;
        self.core.intake.receive(room, tenant, body).await
    }

    /// What an instance does when its file has changed.
    pub fn reload(&mut self, read: Result<Loaded, ConfigError>) -> Result<u64, ConfigError> {
        self.reloads.prepare(read.as_ref())?.apply(&self.core.engine);
        Ok(self.reloads.done(read?, self.core.engine.clock.arrival_ms()))
    }

    /// What the threads of an instance do many times a second: what is due is judged, segments retire, and
    /// a state that is due is kept. What was judged can be read from the outbox when this returns.
    pub fn turn(&mut self) -> anyhow::Result<()> {
        self.core.judge_loop.turn(&mut self.state_due_ms);
        self.keep()
    }

    /// Judges everything that waits and seals the outbox, as a drain does before the exporters finish.
    pub fn drain(&mut self) -> anyhow::Result<()> {
        self.core.intake.close();
        self.core.judge_loop.judge.judge_all();
        self.core.outbox.log().seal();
        self.core.outbox.sync().context("sync the outbox").map(drop)
    }

    /// Ends in the orderly way: what is not judged or delivered waits for the next start.
    pub fn shutdown(self) -> anyhow::Result<()> {
        let Core { engine, outbox, judge_loop, keep_loop, snapshots, input, outbox_thread, .. } = self.core;
        if let Some(writer) = &engine.input {
            writer.sync_all().context("sync the input log")?;
        }
        judge_loop.snapshot();
        snapshots.1.try_iter().try_for_each(|snapshot| keep_loop.keep(&snapshot))?;
        if let Some(writer) = &engine.input {
            writer.close();
        }
        outbox.log().close();
        input.map_or(Ok(()), joined).context("close the input log")?;
        joined(outbox_thread).context("close the outbox")
    }

    /// The engine, to look into.
    pub fn engine(&self) -> &Engine {
        &self.core.engine
    }

    /// Where an exporter would read.
    pub fn outbox(&self) -> &Outbox {
        &self.core.outbox
    }

    /// What `/metrics` would show.
    pub fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// What would have ended the process.
    pub fn failure(&self) -> Option<String> {
        self.failure.borrow().clone()
    }

    fn keep(&self) -> anyhow::Result<()> {
        let Core { snapshots, keep_loop, outbox, .. } = &self.core;
        snapshots.1.try_iter().try_for_each(|snapshot| keep_loop.keep(&snapshot))?;
        outbox.tick(self.core.engine.clock.arrival_ms()).context("save the cursors")?;
        if outbox.log().written() < outbox.log().appended() {
            outbox.sync().context("sync the outbox")?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Simulation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Simulation").field("engine", &self.core.engine).finish_non_exhaustive()
    }
}
