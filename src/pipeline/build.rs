//! Wires an instance together, in the order in which it must come up: lock, state, outbox, what the last life
//! left, then the ports.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{info, warn};
use uuid::Uuid;

use super::budget::Budget;
use super::clock::{Clock, SystemClock};
use super::disk::DiskBudget;
use super::engine::{Engine, Parts};
use super::intake::Intake;
use super::judge::{Judge, JudgeTallies};
use super::keeper::{Alarm, JudgeLoop, Judging, KeepLoop, KeeperTallies, Keeping};
use super::metrics::PipelineMetrics;
use super::past::Past;
use super::recover::{self, Recovered};
use super::reload::{self, Reloads};
use super::state::{self, Saved, Snapshot};
use super::status::StageStatus;
use super::{Addresses, Lock, LogThread, Pipeline, why};
use crate::buffer::{self, Buffer};
use crate::config::{self, Config, Loaded, MEMORY_MIN, available_memory};
use crate::exporter::otlp::Stop as ExporterStop;
use crate::exporter::outbox::{self, Outbox};
use crate::exporter::{otlp, parquet};
use crate::log::writer::Fatal;
use crate::log::{self, Disk, Memory, Storage, SyncMode, Writer, segment, storage};
use crate::proto::SegmentAttributes;
use crate::receiver;
use crate::sampler::{Policies, Slow};
use crate::telemetry::metrics::Process;
use crate::telemetry::red::Red;
use crate::telemetry::status::History;
use crate::telemetry::{Ledger, Readiness, Telemetry, admin, ledger};
use crate::units::{ByteSize, MemoryLimit};

/// Bytes of either log that may wait to be written.
const QUEUE_BYTES: usize = 64 << 20;
/// How long the logs' writers gather before they write. An acknowledgement waits for the first.
const INPUT_LINGER: Duration = Duration::from_micros(300);
const OUTBOX_LINGER: Duration = Duration::from_millis(5);
/// Room reserved on disk for the outbox's segment and the next one.
const OUTBOX_RESERVE: u64 = 4 << 20;
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
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            storage: Arc::new(Disk),
            clock: Arc::new(SystemClock::default()),
            seed: Uuid::new_v4().as_u64_pair().0,
        }
    }
}

/// The data directory: section 6 of the contract.
pub(super) struct Place {
    data: PathBuf,
    input: PathBuf,
    state: PathBuf,
    instance: Uuid,
    pub(super) lock: Lock,
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
    pub(super) outbox_thread: LogThread,
}

pub(super) async fn build(loaded: Loaded, settings: Settings) -> anyhow::Result<Pipeline> {
    let config = &loaded.config;
    let telemetry = Telemetry::new();
    let started_unix_seconds = settings.clock.arrival_ms() as f64 / 1e3;
    telemetry.register(Arc::new(Process { started_unix_seconds }));
    let readiness = Readiness::new();
    let (failed, failure) = watch::channel(None);
    let place = Place::open(&*settings.storage, &config.data.path)?;
    // The admin port answers while the rest comes up.
    let (receiving, stop) = watch::channel(());
    let mut receivers = JoinSet::new();
    let admin = serve_admin(config, &telemetry, &readiness, stop.clone(), &mut receivers).await?;
    readiness.unready("recovering");

    let core = Core::open(config, &place, &settings, &failed)?;
    let (exporting, exporter_stop) = watch::channel(ExporterStop::Run);
    let exporters =
        start_exporters(config, &settings.storage, &place, &core.outbox, &exporter_stop, settings.seed)?;
    let metrics = core.metrics();
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
    let bound = receiver::bind(&config.receivers.otlp).await?;
    let addresses =
        Addresses { grpc: bound.grpc_address(), http: bound.http_address(), telemetry: Some(admin) };
    engine.clock.start();
    let keeping = Keeping::start(keep_loop, snapshots, input_highest, Alarm(failed.clone()))?;
    let judging = Judging::start(judge_loop, Alarm(failed))?;
    let receiver_metrics = Arc::new(receiver::Metrics::default());
    receivers.spawn(bound.serve(intake.clone(), receiver_metrics.clone(), GRACE, stop.clone()));
    telemetry.register(engine.ledger.clone());
    if let Some(red) = &engine.red {
        telemetry.register(red.clone());
    }
    telemetry.register(receiver_metrics.clone());
    let metrics = Arc::new(metrics);
    telemetry.register(metrics.clone());
    let status = Arc::new(StageStatus {
        stages: metrics,
        receiver: receiver_metrics,
        readiness: readiness.clone(),
        instance: place.instance,
        history: History::default(),
    });
    telemetry.tell(status.clone());
    receivers.spawn(note_every_second(status, stop));
    let reloads = Arc::new(Reloads::new(loaded, engine.clock.arrival_ms()));
    telemetry.register(reloads.clone());
    telemetry.call(Arc::new(why::Memory { engine: engine.clone(), reloads: reloads.clone() }));
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

/// Rates need a past.
async fn note_every_second(status: Arc<StageStatus>, mut stop: watch::Receiver<()>) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = second.tick() => status.note(),
            _ = stop.changed() => return,
        }
    }
}

impl Core {
    /// Opens both logs and takes up what the last life left.
    pub(super) fn open(
        config: &Config,
        place: &Place,
        settings: &Settings,
        failed: &watch::Sender<Option<String>>,
    ) -> anyhow::Result<Self> {
        let storage = &settings.storage;
        let mut saved = read_state(&**storage, &place.state)?;
        let (outbox, outbox_thread) = open_outbox(config, storage, place, &saved, fatal(failed))?;
        let mut recovered = Recovered::default();
        recover::kept_since(storage, &place.data, &mut saved, &mut recovered).context("read the outbox")?;
        let first = segment::next_number(&**storage, &place.input, saved.input_segment)
            .with_context(|| format!("read {}", place.input.display()))?;
        let (input, input_thread) = open_input(config, storage, place, first, fatal(failed))?;
        let memory_limit = memory_limit(config)?;
        let engine =
            engine(config, place, memory_limit, first, input, settings.clock.clone(), settings.seed)?;
        let budget = Arc::new(Budget::new(memory_limit, engine.memory.clone()));
        let disk = Arc::new(DiskBudget::new(config.data.disk.0));
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
        };
        take_up(&engine, &saved);
        disk.grew(input_bytes(&**storage, &place.input)?);
        let relieve = || judge_loop.relieve_at_start();
        recover::replay(&engine, storage, &place.input, saved.low_water, &mut recovered, relieve)
            .context("read the input log")?;
        engine.replayed(first);
        engine.buffer.recovered();
        tell(&recovered);
        engine.ledger.lost_bytes(ledger::CORRUPT, recovered.lost_bytes);

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

impl Place {
    pub(super) fn open(storage: &dyn Storage, data: &Path) -> anyhow::Result<Self> {
        let at = || data.display();
        storage.create_dir_all(data).with_context(|| format!("create {}", at()))?;
        let locked = storage.try_lock(&data.join("lock")).with_context(|| format!("lock {}", at()))?;
        let Some(lock) = locked else {
            bail!("{} is in use by another process; every instance needs a data directory of its own", at())
        };
        let id = data.join("id");
        let known = storage::read_all(storage, &id).with_context(|| format!("read {}", id.display()))?;
        let known = known.and_then(|text| Uuid::try_parse_ascii(text.trim_ascii()).ok());
        let instance = match known {
            Some(instance) => instance,
            None => {
                let instance = Uuid::new_v4();
                storage::write_new(storage, &id, format!("{instance}\n").as_bytes())
                    .with_context(|| format!("write {}", id.display()))?;
                instance
            }
        };
        let place = |name| data.join(name);
        Ok(Self {
            data: data.to_owned(),
            input: place("input"),
            state: place("state"),
            instance,
            lock: Lock(lock),
        })
    }
}

/// A failed fsync: what was acknowledged can no longer be promised, so the process must end.
fn fatal(failed: &watch::Sender<Option<String>>) -> Fatal {
    let failed = failed.clone();
    Box::new(move |reason| _ = failed.send_replace(Some(format!("a log cannot be synced: {reason}"))))
}

async fn serve_admin(
    config: &Config,
    telemetry: &Telemetry,
    readiness: &Readiness,
    mut stop: watch::Receiver<()>,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<std::net::SocketAddr> {
    let listen = &config.telemetry.listen;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("listen on {listen}"))?;
    let address = listener.local_addr()?;
    let (telemetry, readiness) = (telemetry.clone(), readiness.clone());
    tasks.spawn(async move {
        let stopped = async move { _ = stop.changed().await };
        if let Err(error) = admin::serve(listener, telemetry, readiness, stopped).await {
            warn!(%error, "admin port failed");
        }
    });
    Ok(address)
}

fn read_state(storage: &dyn Storage, path: &Path) -> anyhow::Result<Saved> {
    let mut damaged = false;
    let saved = state::read(storage, path, &mut damaged)?;
    if damaged {
        warn!(path = %path.display(), "state is damaged: what was kept is read from the outbox alone");
    }
    Ok(saved.unwrap_or_default())
}

fn open_outbox(
    config: &Config,
    storage: &Arc<dyn Storage>,
    place: &Place,
    saved: &Saved,
    fatal: Fatal,
) -> anyhow::Result<(Arc<Outbox>, LogThread)> {
    let parquet = config.exporters.parquet.as_ref();
    let roll = parquet.map(|parquet| parquet.roll).unwrap_or_default();
    let url = parquet.map(|parquet| parquet.url.clone()).unwrap_or_default();
    let settings = outbox::Settings {
        data: place.data.clone(),
        roll_age_ms: roll.age.as_millis(),
        roll_bytes: roll.size.0,
        queue_bytes: QUEUE_BYTES,
        reserve_bytes: OUTBOX_RESERVE,
        attributes: SegmentAttributes { parquet_url: url, schema_version: parquet::SCHEMA_VERSION },
        highest_known: saved.outbox_segment,
        new_uuid: Uuid::new_v4,
    };
    let names = parquet.map(|_| parquet::EXPORTER.to_owned()).into_iter();
    let names: Vec<String> =
        names.chain(config.exporters.otlp.iter().map(|otlp| otlp.name.to_string())).collect();
    let (outbox, write_loop, found) =
        Outbox::open(storage.clone(), settings, &names, fatal).context("open the outbox")?;
    if found.cut_bytes > 0 {
        info!(bytes = found.cut_bytes, "cut what was not written whole off the outbox");
    }
    Ok((Arc::new(outbox), write_loop.lingering(OUTBOX_LINGER).spawn("outbox")?))
}

fn open_input(
    config: &Config,
    storage: &Arc<dyn Storage>,
    place: &Place,
    first_segment: u32,
    fatal: Fatal,
) -> anyhow::Result<(Option<Arc<Writer>>, Option<LogThread>)> {
    if config.data.input == config::Input::Memory {
        return Ok((None, None));
    }
    let always = config.data.sync == config::Sync::Always;
    let settings = log::Settings {
        dir: place.input.clone(),
        first_segment,
        sync: if always { SyncMode::Always } else { SyncMode::None },
        queue_bytes: QUEUE_BYTES,
        reserve_bytes: 0,
        sync_names: always,
    };
    let (writer, write_loop) =
        Writer::build(storage.clone(), settings, fatal).context("open the input log")?;
    Ok((Some(Arc::new(writer)), Some(write_loop.lingering(INPUT_LINGER).spawn("input")?)))
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
    clock: Arc<dyn Clock>,
    seed: u64,
) -> anyhow::Result<Arc<Engine>> {
    let policies = Policies::compile(&config.policies, 0)?;
    let segment_bytes = log::memory::SEGMENT_BYTES.min(memory_limit / SEGMENT_SHARE);
    let remembered = REMEMBERED_MAX.min(memory_limit / REMEMBERED_SHARE / buffer::REMEMBERED_BYTES);
    let waits = reload::waits(&config.buffer);
    let buffer = Buffer::new(&buffer::Settings {
        waits,
        piece_bytes: super::piece::PIECE_BYTES_MAX as u32,
        remembered_max: remembered.div_ceil(buffer::SHARDS),
        hash_seed: seed,
    });
    let engine = Engine::new(Parts {
        memory: Arc::new(Memory::new(segment_bytes, first_segment)),
        buffer,
        slow: Slow::new(&policies.percentiles()),
        ledger: Arc::new(Ledger::new(policies.names())),
        policies,
        clock,
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
    for trace in &saved.kept {
        if let Ok(tenant) = engine.tenant(&trace.tenant) {
            engine.buffer.remember(trace.clone().remembered(tenant));
        }
    }
    engine.slow.restore(&saved.slow(|tenant| engine.tenant(tenant).ok()));
}

fn input_bytes(storage: &dyn Storage, dir: &Path) -> anyhow::Result<u64> {
    Ok(segment::numbers(storage, dir)?.iter().map(|(_, bytes)| bytes).sum())
}

fn tell(recovered: &Recovered) {
    let Recovered { spans, skipped, lost_bytes, torn_bytes } = *recovered;
    if lost_bytes > 0 {
        warn!(lost_bytes, "part of the logs cannot be read and is lost");
    }
    if spans + skipped + torn_bytes > 0 {
        info!(spans, already_sent = skipped, torn_bytes, "recovered");
    }
}

fn start_exporters(
    config: &Config,
    storage: &Arc<dyn Storage>,
    place: &Place,
    outbox: &Arc<Outbox>,
    stop: &watch::Receiver<ExporterStop>,
    seed: u64,
) -> anyhow::Result<JoinSet<(String, bool)>> {
    let mut tasks = JoinSet::new();
    if let Some(parquet) = &config.exporters.parquet {
        let exporter = parquet::Exporter::build(outbox.clone(), storage.clone(), &place.data, parquet);
        if let Some(exporter) = exporter.context("prepare the Parquet exporter")? {
            let stop = stop.clone();
            tasks.spawn(async move { (parquet::EXPORTER.to_owned(), exporter.run(stop).await) });
        }
    }
    for (number, otlp) in config.exporters.otlp.iter().enumerate() {
        let name = otlp.name.to_string();
        let tail = outbox.tail(&name).with_context(|| format!("exporter {name} has no cursor"))?;
        let exporter = otlp::Exporter::build(otlp, tail, seed.wrapping_add(number as u64))
            .with_context(|| format!("prepare exporter {name}"))?;
        let stop = stop.clone();
        tasks.spawn(async move { (name, exporter.run(stop).await) });
    }
    Ok(tasks)
}
