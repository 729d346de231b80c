//! An instance that is turned by hand: the stages as [`Pipeline`](super::Pipeline) connects them, without
//! ports and without a single thread. Whoever holds it owns the clock, the disk and the order of things, so
//! that hours pass in a moment and every run is the same.
//!
//! Coarse: [`Simulation::receive`] and [`Simulation::turn`] do all there is to do. Fine: [`Simulation::begin`],
//! [`Simulation::write`], [`Simulation::judge`] and [`Simulation::keep`] are what the threads of an instance
//! do, one step each, in any order. Exporters are built over [`Simulation::outbox`] by who wants some.

use std::pin::pin;
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use futures::future::{Either, select};
use tokio::sync::watch;

use super::Settings;
use super::build::Core;
use super::engine::Engine;
use super::judge::Witness;
use super::keeper::LastState;
use super::logs::Writers;
use super::place::Place;
use super::reload::Reloads;
use crate::config::{Config, ConfigError, Loaded};
use crate::exporter::outbox::Outbox;
use crate::log::{Step, Writer};
use crate::receiver::{Accepted, Intake as _, Rejection};
use crate::telemetry::Telemetry;

/// Which of the two logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Log {
    Input,
    Outbox,
}

/// See the module. Dropped without [`Self::shutdown`], it has died as by `kill -9`.
pub struct Simulation {
    core: Core,
    telemetry: Telemetry,
    reloads: Arc<Reloads>,
    last_state: LastState,
    failure: watch::Receiver<Option<String>>,
    _place: Place,
}

impl Simulation {
    /// Opens the data directory, recovers and takes requests.
    pub fn build(config: &Config, settings: &Settings) -> anyhow::Result<Self> {
        let place = Place::open(settings, &config.data.path)?;
        let (failed, failure) = watch::channel(None);
        let core = Core::open(config, &place, settings, Writers::Hand, &failed)?;
        let telemetry = Telemetry::new();
        telemetry.register(core.engine.ledger.clone());
        telemetry.register(Arc::new(core.metrics()));
        let reloads = Arc::new(Reloads::new(config.clone().into(), core.engine.clock.arrival_ms()));
        telemetry.register(reloads.clone());
        core.engine.clock.start();
        Ok(Self { core, telemetry, reloads, last_state: LastState::default(), failure, _place: place })
    }

    /// Tells somebody of every verdict by which nothing leaves.
    pub fn tell(&mut self, witness: Arc<dyn Witness>) {
        self.core.judge_loop.judge.witness = Some(witness);
    }

    /// What a port does with a request, and what the input log does with its record.
    pub async fn receive(&self, tenant: &str, body: Bytes) -> Result<Accepted, Rejection> {
        let received = pin!(self.begin(tenant, body));
        match select(received, std::future::ready(())).await {
            Either::Left((answer, _)) => answer,
            Either::Right(((), received)) => {
                self.write(Log::Input);
                received.await
            }
        }
    }

    /// What an instance does when its file has changed.
    pub fn reload(&mut self, read: Result<Loaded, ConfigError>) -> Result<u64, ConfigError> {
        self.reloads.prepare(read.as_ref())?.apply(&self.core.engine);
        Ok(self.reloads.done(read?, self.core.engine.clock.arrival_ms()))
    }

    /// What a port does with a request. The answer comes when the input log has been written.
    pub fn begin(
        &self,
        tenant: &str,
        body: Bytes,
    ) -> impl Future<Output = Result<Accepted, Rejection>> + Send + 'static {
        let (intake, tenant) = (self.core.intake.clone(), tenant.to_owned());
        async move {
            let room = intake.admit(body.len())?;
            intake.receive(room, &tenant, body).await
        }
    }

    /// One step of the thread that writes a log.
    pub fn write(&self, log: Log) -> Step {
        match (log, &self.core.engine.input) {
            (Log::Input, Some(writer)) => writer.step(),
            (Log::Input, None) => Step::Idle,
            (Log::Outbox, _) => self.core.outbox.log().writer().step(),
        }
    }

    /// One look of the judge's thread: what is due is judged, segments retire, a snapshot is taken when a
    /// state is due. Verdicts wait to be written.
    pub fn judge(&mut self) {
        self.core.judge_loop.turn(&mut self.last_state);
    }

    /// One look of the keeper's thread: the newest snapshot is made durable, and what it makes dispensable is
    /// deleted. True: there was one.
    pub fn keep(&self) -> anyhow::Result<bool> {
        let Core { snapshots, keep_loop, outbox, .. } = &self.core;
        match snapshots.1.try_iter().last() {
            Some(snapshot) => keep_loop.keep(&snapshot).map(|()| true),
            None => {
                outbox.tick(self.core.engine.clock.arrival_ms()).context("save the cursors").map(|()| false)
            }
        }
    }

    /// What the threads of an instance do many times a second. What was judged can be read from the outbox
    /// when this returns.
    pub fn turn(&mut self) -> anyhow::Result<()> {
        self.judge();
        self.keep()?;
        let log = self.core.outbox.log();
        if log.written() < log.appended() {
            self.core.outbox.sync().context("sync the outbox")?;
        }
        Ok(())
    }

    /// Judges everything that waits and seals the outbox, as a drain does before the exporters finish.
    pub fn drain(&mut self) -> anyhow::Result<()> {
        self.core.intake.close();
        self.core.judge_loop.drain();
        self.core.outbox.log().seal();
        self.core.outbox.sync().context("sync the outbox").map(drop)
    }

    /// Ends in the orderly way: what is not judged or delivered waits for the next start.
    pub fn shutdown(self) -> anyhow::Result<()> {
        let Core { engine, outbox, judge_loop, keep_loop, snapshots, .. } = self.core;
        let input = engine.input.as_deref();
        input.map_or(Ok(()), |writer| writer.sync_all().map(drop)).context("sync the input log")?;
        judge_loop.snapshot();
        snapshots.1.try_iter().try_for_each(|snapshot| keep_loop.keep(&snapshot))?;
        input.map_or(Ok(()), Writer::finish).context("close the input log")?;
        outbox.log().writer().finish().context("close the outbox")
    }

    /// The engine, to look into.
    pub fn engine(&self) -> &Engine {
        &self.core.engine
    }

    /// Where an exporter reads.
    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.core.outbox
    }

    /// Bytes that are charged for log, index and requests under way, and how many they may be.
    pub fn memory(&self) -> (usize, usize) {
        let budget = &self.core.judge_loop.budget;
        (budget.used(), budget.limit())
    }

    /// What `/metrics` would show.
    pub fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// What would have ended the process.
    pub fn failure(&self) -> Option<String> {
        self.failure.borrow().clone()
    }
}

impl std::fmt::Debug for Simulation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Simulation").field("engine", &self.core.engine).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use super::*;
    use crate::log::SimDisk;
    use crate::pipeline::Clock;
    use crate::pipeline::testing::request;
    use crate::trace::TraceId;
    use crate::units::{ByteSize, MemoryLimit};

    #[derive(Debug, Default)]
    struct ByHand(AtomicU64);

    impl Clock for ByHand {
        fn arrival_ms(&self) -> u64 {
            1_700_000_000_000 + self.0.load(Relaxed)
        }

        fn elapsed_ms(&self) -> u64 {
            self.0.load(Relaxed)
        }

        fn start(&self) {}
    }

    /// An instance whose memory is full of traces that will all be kept.
    async fn full(clock: &Arc<ByHand>) -> Simulation {
        let text = "data: { path: data }\npolicies: [{ name: all, keep: 100% }]\nexporters: { otlp: [{ name: a, endpoint: \
                    \"http://127.0.0.1:1\" }] }\n";
        let mut config = crate::config::load(text, "t.yaml".as_ref()).unwrap();
        config.buffer.memory = MemoryLimit::Bytes(ByteSize::kib(256));
        let storage = SimDisk::new(1).storage();
        let settings = Settings { storage, clock: clock.clone(), seed: 1, ..Settings::default() };
        let instance = Simulation::build(&config, &settings).unwrap();
        for number in 1_u128.. {
            let body = request(TraceId(number.to_be_bytes()), 1);
            if instance.receive("", body.into()).await.is_err() {
                break;
            }
        }
        instance
    }

    #[tokio::test]
    async fn what_many_verdicts_at_once_leave_behind_fits_the_memory_budget() {
        for drains in [false, true] {
            let clock = Arc::new(ByHand::default());
            let mut instance = full(&clock).await;
            let traces = instance.engine().buffer.counts().traces;
            clock.0.fetch_add(60_000, Relaxed);
            if drains {
                instance.drain().unwrap()
            } else {
                instance.turn().unwrap()
            }
            assert_eq!(instance.engine().ledger.balance().kept, traces);
            let (used, limit) = instance.memory();
            assert!(used <= limit, "{used} bytes of {limit}, drains: {drains}");
        }
    }
}
