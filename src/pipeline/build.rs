//! Wires an instance together, in the order in which it must come up: lock, state, outbox, what the last life
//! left, then the ports.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{info, warn};
use uuid::Uuid;

use super::alarm::Alarm;
use super::budget::Budget;
use super::clock::{Clock, SystemClock};
use super::disk::DiskBudget;
use super::engine::{Engine, Parts};
use super::health::Health;
use super::intake::Intake;
use super::judge::{Judge, JudgeTallies};
use super::keeper::{JudgeLoop, Judging, KeepLoop, KeeperTallies, Keeping};
use super::logs::{Failed, Opened, Writers, open_input};
use super::metrics::PipelineMetrics;
use super::past::Past;
use super::place::Place;
use super::recover::{self, Recovered, Start};
use super::reload::{self, Reloads};
use super::state::{Saved, Snapshot};
use super::status::StageStatus;
use super::{Addresses, LogThread, Pipeline, exporters, learned, why};
use crate::buffer::{self, Buffer};
use crate::config::{Config, Loaded, MEMORY_MIN, available_memory};
use crate::exporter::otlp::Stop as ExporterStop;
use crate::exporter::outbox::Outbox;
use crate::log::{self, Disk, Memory, Storage, Writer, segment};
use crate::receiver;
use crate::sampler::{Policies, RootCondition, Slow};
use crate::telemetry::metrics::Process;
use crate::telemetry::red::Red;
use crate::telemetry::status::History;
use crate::telemetry::{Ledger, Readiness, Telemetry, admin, ledger};
use crate::units::{ByteSize, MemoryLimit};

/// A segment of the memory log is at most this part of the budget.
const SEGMENT_SHARE: usize = 16;
/// Kept traces that are remembered after they left the log; at most this part of the memory budget.
const REMEMBERED_MAX: usize = 1 << 18;
const REMEMBERED_SHARE: usize = 16;
/// The time requests under way have when the ports close.
const GRACE: Duration = Duration::from_secs(5);

/// What a test or a simulation may replace.
#[derive(Debug)]
pub struct Settings {
    pub storage: Arc<dyn Storage>,
    pub clock: Arc<dyn Clock>,
    /// Of hashes and of the pauses between retries.
    pub seed: u64,
    /// Names the instance and the segments of the outbox.
    pub new_uuid: fn() -> Uuid,
    /// Bytes of spans that a piece holds at most.
    pub piece_bytes: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            storage: Arc::new(Disk),
            clock: Arc::new(SystemClock::default()),
            seed: Uuid::new_v4().as_u64_pair().0,
            new_uuid: Uuid::new_v4,
            piece_bytes: super::piece::PIECE_BYTES_MAX,
        }
    }
}

/// The stages, recovered and connected; no port is open, and nobody but the logs' writers has a thread.
pub(super) struct Core {
    pub(super) engine: Arc<Engine>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) intake: Intake,
    pub(super) judge_loop: JudgeLoop,
    pub(super) keep_loop: KeepLoop,
    /// From the judge to the keeper.
    pub(super) snapshots: (Sender<Snapshot>, Receiver<Snapshot>),
    pub(super) input_highest: u32,
    pub(super) input: Option<LogThread>,
    pub(super) outbox_thread: Option<LogThread>,
}

pub(super) async fn build(loaded: Loaded, settings: Settings) -> anyhow::Result<Pipeline> {
    let config = &loaded.config;
    let telemetry = Telemetry::new();
    let started_unix_seconds = settings.clock.arrival_ms() as f64 / 1e3;
    telemetry.register(Arc::new(Process { started_unix_seconds }));
    let readiness = Readiness::new();
    let (failed, failure) = watch::channel(None);
    let place = Place::open(&settings, &config.data.path)?;
    // The admin port answers while the rest comes up.
    let alarm = |what| Alarm::new(&failed, what);
    let (running, end) = watch::channel(());
    let mut admin_tasks = JoinSet::new();
    let admin =
        serve_admin(config, &telemetry, &readiness, end.clone(), alarm("admin port"), &mut admin_tasks)
            .await?;
    readiness.unready("recovering");

    let shared = Arc::new((loaded, place, settings, failed.clone()));
    let opening = shared.clone();
    let opened = blocking(move || {
        let (loaded, place, settings, failed) = &*opening;
        Opened::open(&loaded.config, place, settings, Writers::Threads, failed)
    });
    let opened = opened.await?;
    // They run while the rest recovers: on a full disk it is they who make room.
    let (exporting, exporter_stop) = watch::channel(ExporterStop::Run);
    let exporters = exporters::start(&shared.0.config, &shared.1, &shared.2, &opened.outbox, &exporter_stop)?;
    let (start, halt) = Start::waiting();
    let recovering = shared.clone();
    let core = blocking(move || {
        let (loaded, place, settings, failed) = &*recovering;
        Core::recover(&loaded.config, place, settings, failed, opened, &start)
    });
    let core = core.await?;
    drop(halt);
    let (loaded, place, ..) = Arc::into_inner(shared).context("recovery has ended")?;
    let metrics = core.metrics();
    let health = core.health(&readiness);
    let Core {
        engine,
        outbox,
        intake,
        judge_loop,
        keep_loop,
        snapshots,
        input_highest,
        input,
        outbox_thread,
    } = core;
    let bound = receiver::bind(&loaded.config.receivers.otlp).await?;
    let addresses =
        Addresses { grpc: bound.grpc_address(), http: bound.http_address(), telemetry: Some(admin) };
    engine.clock.start();
    let keeping = Keeping::start(keep_loop, snapshots, input_highest, alarm("keeper"))?;
    let judging = Judging::start(judge_loop, alarm("judge"))?;
    let (receiving, stop) = watch::channel(());
    let mut receivers = JoinSet::new();
    receivers.spawn(alarm("watch over its health").over(stop.clone(), health.watch(stop.clone())));
    let receiver_metrics = Arc::new(receiver::Metrics::default());
    let serving = bound.serve(intake.clone(), receiver_metrics.clone(), GRACE, stop.clone());
    receivers.spawn(alarm("receiver").over(stop, serving));
    let status = Arc::new(StageStatus {
        stages: Arc::new(metrics),
        receiver: receiver_metrics,
        readiness: readiness.clone(),
        instance: place.instance,
        history: History::default(),
    });
    let reloads = Arc::new(Reloads::new(loaded, engine.clock.arrival_ms()));
    tell_all(&telemetry, &engine, &status, &reloads);
    admin_tasks.spawn(alarm("status").over(end, note_every_second(status)));
    readiness.ready();
    Ok(Pipeline {
        addresses,
        reloads,
        ledger: engine.ledger.clone(),
        engine,
        outbox,
        readiness,
        intake,
        receiving,
        receivers,
        admin: admin_tasks,
        _running: running,
        judging,
        keeping,
        exporting,
        exporters,
        input,
        outbox_thread,
        failure,
        _lock: place.lock,
    })
}

/// From here on what happens is on the admin port.
fn tell_all(telemetry: &Telemetry, engine: &Arc<Engine>, status: &Arc<StageStatus>, reloads: &Arc<Reloads>) {
    telemetry.register(engine.ledger.clone());
    if let Some(red) = &engine.red {
        telemetry.register(red.clone());
    }
    telemetry.register(status.receiver.clone());
    telemetry.register(status.stages.clone());
    telemetry.tell(status.clone());
    telemetry.register(reloads.clone());
    telemetry.call(Arc::new(why::Memory { engine: engine.clone(), reloads: reloads.clone() }));
}

/// Rates need a past.
async fn note_every_second(status: Arc<StageStatus>) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    loop {
        second.tick().await;
        status.note();
    }
}

/// Runs what blocks where it keeps nobody from answering.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await?
}

impl Core {
    /// Opens both logs and takes up what the last life left, without exporters.
    pub(super) fn open(
        config: &Config,
        place: &Place,
        settings: &Settings,
        writers: Writers,
        failed: &Failed,
    ) -> anyhow::Result<Self> {
        let opened = Opened::open(config, place, settings, writers, failed)?;
        Self::recover(config, place, settings, failed, opened, &Start::default())
    }

    /// Takes up what the last life left.
    fn recover(
        config: &Config,
        place: &Place,
        settings: &Settings,
        failed: &Failed,
        opened: Opened,
        start: &Start,
    ) -> anyhow::Result<Self> {
        let storage = &settings.storage;
        let Opened { mut saved, outbox, outbox_thread, mut recovered, writers } = opened;
        recover::kept_since(storage, &place.data, &mut saved, &mut recovered, start)
            .context("read the outbox")?;
        let first = segment::next_number(&**storage, &place.input, saved.input_segment)
            .with_context(|| format!("read {}", place.input.display()))?;
        let (input, input_thread) = open_input(config, storage, place, first, writers, failed)?;
        let memory_limit = memory_limit(config)?;
        let engine = engine(config, place, memory_limit, first, input, settings)?;
        let budget = Arc::new(Budget::new(memory_limit, engine.memory.clone()));
        let disk = DiskBudget::new(config.data.disk.0).below(storage.clone(), &place.data);
        let disk = Arc::new(disk);
        let tallies = Arc::new(KeeperTallies::default());
        let snapshots = mpsc::channel::<Snapshot>();
        let judge_loop = JudgeLoop {
            judge: Judge::new(engine.clone(), outbox.clone(), Arc::new(JudgeTallies::default())),
            engine: engine.clone(),
            budget: budget.clone(),
            disk: disk.clone(),
            outbox: outbox.clone(),
            snapshots: snapshots.0.clone(),
            tallies: tallies.clone(),
            hindsight_ms: config.buffer.hindsight.as_millis(),
            input_highest: first,
            ordered: Arc::default(),
            when_full: config.data.when_full,
        };
        let keep_ms = config.data.input_keep.as_millis();
        let past = Past::open(storage.clone(), &place.data, keep_ms, engine.clock.arrival_ms());
        let keep_loop = KeepLoop {
            past: Arc::new(past.context("read past input")?),
            disk: disk.clone(),
            storage: storage.clone(),
            outbox: outbox.clone(),
            engine: engine.clone(),
            input_dir: place.input.clone(),
            state_path: place.state.clone(),
            tallies,
        };
        take_up(&engine, &saved);
        disk.grew(input_bytes(&**storage, &place.input)?);
        let relieve = || judge_loop.relieve_at_start(start, &keep_loop);
        let Saved { low_water, input: extents, .. } = &saved;
        recovered.lost_segments =
            recover::missing_segments(&**storage, &place.input, place.instance, *low_water)
                .context("read the input log")?;
        recover::replay(&engine, storage, &place.input, *low_water, extents, &mut recovered, relieve)
            .context("read the input log")?;
        engine.replayed(first);
        engine.buffer.forget(engine.clock.arrival_ms(), *low_water);
        tell(&recovered);
        engine.ledger.lost_bytes(ledger::CORRUPT, recovered.lost_bytes);
        engine.ledger.lost_bytes(ledger::TORN, recovered.torn_bytes);
        engine.ledger.lost_segments(recovered.lost_segments);

        let intake = Intake::new(engine.clone(), budget, disk);
        Ok(Self {
            engine,
            outbox,
            intake,
            judge_loop,
            keep_loop,
            snapshots,
            input_highest: first,
            input: input_thread,
            outbox_thread,
        })
    }

    fn health(&self, readiness: &Readiness) -> Health {
        let JudgeLoop { engine, budget, disk, outbox, .. } = &self.judge_loop;
        Health {
            engine: engine.clone(),
            outbox: outbox.clone(),
            budget: budget.clone(),
            disk: disk.clone(),
            readiness: readiness.clone(),
        }
    }

    pub(super) fn metrics(&self) -> PipelineMetrics {
        let JudgeLoop { judge, engine, budget, disk, outbox, tallies, .. } = &self.judge_loop;
        PipelineMetrics {
            engine: engine.clone(),
            budget: budget.clone(),
            disk: disk.clone(),
            outbox: outbox.clone(),
            judge: judge.tallies.clone(),
            keeper: tallies.clone(),
            past: self.keep_loop.past.clone(),
        }
    }
}

async fn serve_admin(
    config: &Config,
    telemetry: &Telemetry,
    readiness: &Readiness,
    end: watch::Receiver<()>,
    alarm: Alarm,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<std::net::SocketAddr> {
    let listen = &config.telemetry.listen;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("listen on {listen}"))?;
    let address = listener.local_addr()?;
    info!(%address, "serving /status, /metrics, /healthz, /readyz");
    let (telemetry, readiness) = (telemetry.clone(), readiness.clone());
    let serving = async move {
        // Until the process ends: a drain that takes its time can be watched.
        let never = std::future::pending();
        if let Err(error) = admin::serve(listener, telemetry, readiness, never).await {
            warn!(%error, "admin port failed");
        }
    };
    tasks.spawn(alarm.over(end, serving));
    Ok(address)
}

fn memory_limit(config: &Config) -> anyhow::Result<usize> {
    let available = available_memory().context("find out how much memory there is")?;
    let limit = ByteSize(config.buffer.memory.of(available));
    // What is given in bytes was checked with the file.
    if matches!(config.buffer.memory, MemoryLimit::Percent(_)) && limit < MEMORY_MIN {
        bail!(
            "buffer.memory is {} here, which is {limit}: expected at least {MEMORY_MIN}",
            config.buffer.memory
        );
    }
    Ok(limit.as_u64() as usize)
}

fn engine(
    config: &Config,
    place: &Place,
    memory_limit: usize,
    first_segment: u32,
    input: Option<Arc<Writer>>,
    settings: &Settings,
) -> anyhow::Result<Arc<Engine>> {
    let policies = Policies::compile(&config.policies, 0)?;
    let roots = config.buffer.root.as_ref().map(RootCondition::compile).transpose()?;
    let segment_bytes = log::memory::SEGMENT_BYTES.min(memory_limit / SEGMENT_SHARE);
    let remembered = REMEMBERED_MAX.min(memory_limit / REMEMBERED_SHARE / buffer::REMEMBERED_BYTES);
    let waits = reload::waits(&config.buffer);
    let buffer = Buffer::new(&buffer::Settings {
        waits,
        piece_bytes: settings.piece_bytes,
        remembered_max: remembered.div_ceil(buffer::SHARDS),
        hash_seed: settings.seed,
    });
    let engine = Engine::new(Parts {
        memory: Arc::new(Memory::new(segment_bytes, first_segment)),
        buffer,
        slow: Slow::new(&policies.percentiles()),
        ledger: Arc::new(Ledger::new(policies.names())),
        policies,
        roots,
        clock: settings.clock.clone(),
        input,
        max_wait_ms: waits.max_wait_ms,
        hash_key: config.randomness.hash_key(),
        instance: place.instance,
    });
    let red = config.telemetry.red;
    if !red.enabled {
        return Ok(Arc::new(engine));
    }
    info!(
        max_series = red.max_series,
        memory_mib = red.bytes_max() >> 20,
        "RED metrics of all traffic are counted"
    );
    Ok(Arc::new(engine.counting(Arc::new(Red::new(&red)))))
}

/// What the last life knew: kept traces and learned durations.
fn take_up(engine: &Engine, saved: &Saved) {
    // Tenants are numbered in the order of their names: a start repeats itself.
    let names: BTreeSet<&Arc<str>> =
        saved.tenants.iter().chain(saved.kept.iter().map(|trace| &trace.tenant)).collect();
    names.into_iter().for_each(|name| _ = engine.tenant(name));
    for trace in &saved.kept {
        if let Ok(tenant) = engine.tenant(&trace.tenant) {
            engine.buffer.remember(trace.clone().remembered(tenant));
        }
    }
    learned::take_up(engine, saved);
}

fn input_bytes(storage: &dyn Storage, dir: &Path) -> anyhow::Result<u64> {
    Ok(segment::numbers(storage, dir)?.iter().map(|(_, bytes)| bytes).sum())
}

fn tell(recovered: &Recovered) {
    let Recovered { spans, skipped, lost_bytes, lost_segments, torn_bytes } = *recovered;
    if lost_segments > 0 {
        warn!(lost_segments, "files of the input log are gone");
    }
    if lost_bytes > 0 {
        warn!(lost_bytes, "part of the logs cannot be read and is lost");
    }
    if spans + skipped + torn_bytes > 0 {
        info!(spans, already_sent = skipped, torn_bytes, "recovered");
    }
}
