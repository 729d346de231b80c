//! Runs an input through an instance that is turned by hand.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anyhow::Context;
use tokio::runtime::Runtime;

use super::input::{Arrival, Kind, Source};
use super::tally::{Outcome, Read, Tally};
use crate::config::{self, Config, Exporters, Input};
use crate::exporter::outbox::Tail;
use crate::log::{Disk, File, Open, Storage};
use crate::pipeline::{Clock, Settings, Simulation};
use crate::units::ByteSize;

const EXPORTER: &str = "backtest";
/// Milliseconds between two looks at what is due. The pieces of a sample come whole, so there it need not be fine.
const STEP_MS: u64 = 250;
const STEP_OF_SAMPLE_MS: u64 = 1_000;
/// How long a request waits for memory before it is given up, as a patient sender would.
const PATIENCE_MS: u64 = 600_000;
const RETRY_MS: u64 = 1_000;
/// What is read of the outbox at once.
const READ_BYTES: usize = 16 << 20;

/// Runs the whole input under the policies, waits and memory of a configuration. `progress` is told how many bytes of
/// the input have been read.
pub fn run(config: &Config, source: &Source, mut progress: impl FnMut(u64)) -> anyhow::Result<Outcome> {
    let scratch = Scratch::new()?;
    let mut arrivals = source.open()?;
    let Some(first) = arrivals.next()? else {
        let (path, kind) = (source.path().display(), source.kind());
        match arrivals.lost_bytes() {
            0 => anyhow::bail!("there is nothing in {path}"),
            lost => anyhow::bail!("nothing in {path} can be read: {lost} bytes that are no {kind}"),
        }
    };
    let step_ms = if source.kind() == Kind::Parquet { STEP_OF_SAMPLE_MS } else { STEP_MS };
    let mut replay = Replay::build(config, &scratch.0, first.at_ms, step_ms)?;
    let mut next = Some(first);
    while let Some(arrival) = next {
        replay.receive(arrival)?;
        progress(arrivals.bytes_read());
        next = arrivals.next()?;
    }
    replay.read.lost_bytes = arrivals.lost_bytes();
    replay.finish(config.buffer.max_wait.as_millis() + config.buffer.after_root.as_millis())
}

struct Replay {
    simulation: Simulation,
    tail: Tail,
    clock: Arc<HandClock>,
    runtime: Runtime,
    tally: Tally,
    step_ms: u64,
    read: Read,
}

impl Replay {
    fn build(config: &Config, scratch: &Path, first_ms: u64, step_ms: u64) -> anyhow::Result<Self> {
        let config = of_replay(config, scratch)?;
        let clock = Arc::new(HandClock { began_ms: first_ms, now_ms: AtomicU64::new(first_ms) });
        let settings =
            Settings { storage: Arc::new(Hasty(Disk)), clock: clock.clone(), seed: 1, ..Settings::default() };
        let mut simulation = Simulation::build(&config, &settings)?;
        let names = config.policies.iter().map(|policy| policy.name.as_str().to_owned());
        let tally = Tally::new(names);
        simulation.tell(tally.drops());
        let tail = simulation.outbox().tail(EXPORTER).context("the outbox has a reader")?;
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let read = Read { first_ms, last_ms: first_ms, ..Read::default() };
        Ok(Self { simulation, tail, clock, runtime, tally, step_ms, read })
    }

    fn receive(&mut self, arrival: Arrival) -> anyhow::Result<()> {
        self.advance(arrival.at_ms)?;
        self.read.requests += 1;
        self.read.last_ms = self.read.last_ms.max(arrival.at_ms);
        if let Some((trace, weight)) = arrival.weight {
            self.tally.weigh(&arrival.tenant, trace, weight);
        }
        let give_up_ms = self.clock.arrival_ms() + PATIENCE_MS;
        loop {
            let received = self.simulation.receive(&arrival.tenant, arrival.body.clone());
            match self.runtime.block_on(received) {
                Ok(accepted) => {
                    self.read.rejected += u64::from(accepted.rejected);
                    return Ok(());
                }
                Err(rejection) => {
                    let later = rejection.answer().retry_after.is_some();
                    if !later || self.clock.arrival_ms() >= give_up_ms {
                        self.read.refused += 1;
                        return Ok(());
                    }
                    self.read.waits += 1;
                    self.advance(self.clock.arrival_ms() + RETRY_MS)?;
                }
            }
        }
    }

    /// Lets time pass until then. Where nothing waits, at once.
    fn advance(&mut self, to_ms: u64) -> anyhow::Result<()> {
        while self.clock.arrival_ms() < to_ms {
            let now = self.clock.arrival_ms();
            let waiting = self.simulation.engine().ledger.balance().buffered > 0;
            let next = if waiting { to_ms.min(now + self.step_ms) } else { to_ms };
            self.clock.now_ms.store(next, Relaxed);
            self.simulation.turn()?;
            self.collect()?;
        }
        Ok(())
    }

    fn collect(&mut self) -> anyhow::Result<()> {
        self.tally.take_drops();
        loop {
            let parcels = self.tail.read(READ_BYTES)?;
            let Some(last) = parcels.last() else { break };
            parcels.iter().for_each(|parcel| self.tally.kept(parcel));
            self.tail.subscription().advance(last.end);
        }
        match self.simulation.failure() {
            Some(failure) => anyhow::bail!("{failure}"),
            None => Ok(()),
        }
    }

    /// Judges what still waits, when it is due.
    fn finish(mut self, longest_wait_ms: u64) -> anyhow::Result<Outcome> {
        self.advance(self.clock.arrival_ms() + longest_wait_ms + self.step_ms)?;
        self.simulation.drain()?;
        self.collect()?;
        self.read.spans = self.simulation.engine().ledger.balance().accepted;
        let outcome = self.tally.outcome(self.read);
        drop(self.tail);
        self.simulation.shutdown()?;
        Ok(outcome)
    }
}

/// The configuration with what a replay needs instead: nothing is sent, and disk is no concern.
fn of_replay(config: &Config, scratch: &Path) -> anyhow::Result<Config> {
    let nowhere =
        format!("exporters: {{ otlp: [{{ name: {EXPORTER}, endpoint: \"http://127.0.0.1:1\" }}] }}");
    let exporters: Exporters = config::load(&nowhere, Path::new("backtest"))?.exporters;
    let mut config = Config { exporters, ..config.clone() };
    config.data.path = scratch.to_owned();
    config.data.disk = ByteSize::gib(1 << 14);
    config.data.input = Input::Memory;
    Ok(config)
}

/// A folder that goes with the run.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("tailwater-backtest-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[derive(Debug)]
struct HandClock {
    began_ms: u64,
    now_ms: AtomicU64,
}

impl Clock for HandClock {
    fn arrival_ms(&self) -> u64 {
        self.now_ms.load(Relaxed)
    }

    fn elapsed_ms(&self) -> u64 {
        self.arrival_ms() - self.began_ms
    }

    fn start(&self) {}
}

/// A disk on which nothing has to survive.
#[derive(Debug)]
struct Hasty(Disk);

#[derive(Debug)]
struct HastyFile(Arc<dyn File>);

impl Storage for Hasty {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(HastyFile(self.0.open(path, how)?)))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<(String, u64)>> {
        self.0.list(dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.0.exists(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(dir)
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        self.0.try_lock(path)
    }

    fn available(&self, path: &Path) -> Option<u64> {
        self.0.available(path)
    }

    fn writable(&self, dir: &Path) -> io::Result<()> {
        self.0.writable(dir)
    }
}

impl File for HastyFile {
    fn write_at(&self, offset: u64, parts: &[io::IoSlice<'_>]) -> io::Result<()> {
        self.0.write_at(offset, parts)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, into)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.0.allocate(len)
    }
}
