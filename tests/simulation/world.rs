//! One run: an instance that is turned by hand, its senders, its backends and its disk, and the seed that
//! decides what happens next. Here is how lives begin and end; [`super::events`] has what happens in them.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hasher};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tailwater::config::Config;
use tailwater::exporter::otlp::{self, ByHand};
use tailwater::exporter::parquet;
use tailwater::log::StoredRecord;
use tailwater::pipeline::{HandClock, Settings, Simulation};
use tailwater::receiver::{Accepted, Rejection};
use tailwater::trace::Position;
use tokio::time::Instant;
use uuid::Uuid;

use crate::backend::{ObjectStore, Sink};
use crate::count::Counts;
use crate::damage::Expected;
use crate::disk::{Fuse, Rig};
use crate::learned::Learned;
use crate::model::{Group, Model, Stored};
use crate::objects::Upload;
use crate::pieces::Pieces;
use crate::plan::{self, Plan, SINKS};
use crate::plant::{self, Plant};
use crate::random::Random;
use crate::traffic::{Request, Traffic, Waits};
use crate::young::Watch;

/// Unix milliseconds at the beginning of a run: half an hour before a full hour.
pub const BEGIN_MS: u64 = 1_700_000_000_000;

/// What words of a path an end may wait for.
const FUSES: [&str; 7] = ["data", "data", "input", "outbox", "state", "cursor", "parquet"];

thread_local! {
    static UUIDS: Cell<u128> = const { Cell::new(0) };
}

pub fn next_uuid() -> Uuid {
    Uuid::from_u128(UUIDS.replace(UUIDS.get() + 1))
}

type Answer = Pin<Box<dyn Future<Output = Result<Accepted, Rejection>>>>;

/// A request that is not answered yet.
pub struct Pending {
    pub request: Request,
    pub answer: Answer,
    pub received_ms: u64,
}

/// From one start of the process to its end.
pub struct Life {
    pub instance: Simulation,
    pub parquet: parquet::Exporter,
    pub upload: Option<Upload>,
    pub pending: Vec<Pending>,
    pub watch: Watch,
    /// Spans that the run itself has put into the outbox.
    pub appended: u64,
    /// By a planted fault: stored, and not indexed yet.
    pub unindexed: Option<StoredRecord>,
    /// Turns left until it is.
    pub unindexed_for: u32,
}

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Kill,
    Power,
}

pub struct World {
    pub plan: Plan,
    pub config: Config,
    pub random: Random,
    pub rig: Rig,
    pub now_ms: Arc<AtomicU64>,
    pub begin: Instant,
    pub traffic: Traffic,
    pub sinks: Vec<Sink>,
    pub store: ObjectStore,
    pub groups: Vec<Group>,
    /// Requests to be sent again, and when.
    pub again: Vec<(u64, Request)>,
    pub life: Option<Life>,
    pub counts: Counts,
    /// The smallest and the largest share that was in force, in percent.
    pub shares: (u64, u64),
    /// What each cursor's file surely says.
    pub saved: BTreeMap<String, Position>,
    /// The last input segment in use at the end of a life.
    pub floor: u32,
    /// The disk misbehaves at present, so that an instance need not start.
    pub disk_is_ill: bool,
    /// Waits in force, and whether they were ever others.
    pub waits: Waits,
    pub waits_changed: bool,
    pub pieces: Pieces,
    pub learned: Learned,
    /// What damage makes the next start say.
    pub expected: Option<Expected>,
    pub state_damaged: bool,
    story: DefaultHasher,
    tell: bool,
}

/// The last segment of which something lies before a position.
pub fn in_use(before: Position) -> u32 {
    before.segment - u32::from(before.offset == 0 && before.segment > 0)
}

/// How a run came out.
#[derive(Debug)]
pub struct Outcome {
    pub counts: Counts,
    /// A hash of everything that happened.
    pub story: u64,
    pub verdict: Result<(), String>,
}

/// Runs a seed to its end.
pub fn run(seed: u64, plant: Option<Plant>, tell: bool) -> Outcome {
    let mut world = World::new(seed, plant, tell);
    let verdict = world.play();
    if let Err(wrong) = &verdict {
        world.note(format_args!("WRONG: {wrong}"));
    }
    world.counts.operations = world.rig.operations();
    world.counts.torn_writes = world.rig.torn_writes();
    world.count_refused();
    world.counts.objects = world.store.objects.len() as u64;
    world.counts.repeated_uploads = world.store.repeated;
    Outcome { counts: world.counts, story: world.story.finish(), verdict }
}

impl World {
    fn new(seed: u64, plant: Option<Plant>, tell: bool) -> Self {
        UUIDS.set(u128::from(seed) << 32 | 1);
        let mut random = Random::new(seed);
        let plan = Plan::draw(&mut random);
        let mut world = Self {
            config: plan.config(),
            rig: Rig::new(seed, plant),
            now_ms: Arc::default(),
            begin: Instant::now(),
            traffic: Traffic::default(),
            sinks: SINKS.into_iter().map(Sink::new).collect(),
            store: ObjectStore::default(),
            groups: Vec::new(),
            again: Vec::new(),
            life: None,
            counts: Counts::default(),
            shares: (plan.share, plan.share),
            saved: BTreeMap::new(),
            floor: 0,
            disk_is_ill: false,
            waits: plan.waits,
            waits_changed: false,
            pieces: Pieces::default(),
            learned: Learned::default(),
            expected: None,
            state_damaged: false,
            story: DefaultHasher::new(),
            tell,
            random,
            plan,
        };
        world.sinks[..2].iter_mut().for_each(|sink| sink.since_ms = Some(0));
        let plan = format!("{:?}", world.plan);
        world.note(format_args!("{plan}"));
        world
    }

    /// Part of what happened; printed where somebody wants to know.
    pub fn note(&mut self, what: std::fmt::Arguments<'_>) {
        let mut line = String::new();
        _ = write!(line, "{:>8} {what}", self.now());
        self.story.write(line.as_bytes());
        if self.tell {
            eprintln!("{line}");
        }
    }

    pub fn now(&self) -> u64 {
        self.now_ms.load(Relaxed)
    }

    /// The clock of the exporters.
    pub fn instant(&self) -> Instant {
        self.begin + Duration::from_millis(self.now())
    }

    fn play(&mut self) -> Result<(), String> {
        for _ in 0..self.plan.events {
            if self.life.is_none() {
                self.start(true)?;
            }
            self.event()?;
            self.counts.events += 1;
            self.hold_or_end()?;
        }
        let least = 2_u64.saturating_sub(self.counts.crashes());
        for _ in 0..least {
            self.end(End::Kill)?;
            self.start(false)?;
        }
        self.settle()?;
        self.counts.spans_that_must_leave = self.model().check()?;
        self.check_budget()?;
        self.check_run()
    }

    /// After every event: what must hold holds, and a life that is over ends.
    pub fn hold_or_end(&mut self) -> Result<(), String> {
        let Some(life) = &self.life else { return Ok(()) };
        let failed = life.instance.failure().is_some();
        if failed || self.rig.is_blown() {
            self.counts.failed_syncs += u64::from(failed);
            let end = self.draw_end();
            return self.end(end);
        }
        self.check()
    }

    fn draw_end(&mut self) -> End {
        if self.plan.power && self.random.percent(60) { End::Power } else { End::Kill }
    }

    pub fn crash(&mut self) -> Result<(), String> {
        let end = self.draw_end();
        self.end(end)
    }

    /// The process is gone, and of the disk what was not synced, if power was lost.
    fn end(&mut self, end: End) -> Result<(), String> {
        self.note(format_args!("end of life by {end:?} after {} operations", self.rig.operations()));
        self.counts.ended(end);
        match end {
            End::Kill => self.rig.disk.kill(),
            End::Power => self.rig.disk.crash(),
        }
        if end == End::Power && self.plan.excuses() {
            let begun = |trace: &&mut crate::traffic::Trace| trace.spans.iter().any(|span| span.sends > 0);
            self.traffic.traces.iter_mut().filter(begun).for_each(|trace| trace.excused = true);
        }
        if self.rig.plant == Some(Plant::TornBelieved) {
            plant::complete_torn_records(&self.rig.disk);
        }
        self.leave();
        if end == End::Power && self.plan.excuses() {
            self.floor = 0; // the files of whole segments may be gone
        }
        self.groups_are(Stored::Perhaps);
        Ok(())
    }

    /// Of those of which nothing was known.
    pub fn groups_are(&mut self, stored: Stored) {
        let waiting = self.groups.iter_mut().filter(|group| group.stored == Stored::Waits);
        waiting.for_each(|group| group.stored = stored);
    }

    /// Whoever was connected notices.
    fn leave(&mut self) {
        let Some(life) = self.life.take() else { return };
        self.remember_cursors(&life);
        let written = life.instance.engine().input.as_ref().map(|input| input.written());
        let began = written.filter(|written| written.offset > 0).map_or(0, |written| written.segment);
        self.floor = self.floor.max(began);
        for Pending { request, .. } in life.pending {
            if self.random.percent(80) {
                self.again.push((self.now() + 10 * self.random.between(0, 300), request));
            }
        }
        self.sinks.iter_mut().for_each(|sink| sink.end_of_life(&mut self.random));
    }

    fn remember_cursors(&mut self, life: &Life) {
        for subscription in life.instance.outbox().subscriptions() {
            let saved = subscription.cursor.saved();
            self.saved.insert(subscription.cursor.exporter().to_owned(), saved);
        }
    }

    /// The process ends as it should: nothing is lost, even if power is lost next.
    pub fn shutdown(&mut self) -> Result<(), String> {
        let Some(mut life) = self.life.take() else { return Ok(()) };
        self.collect_answers(&mut life);
        self.remember_cursors(&life);
        let Life { instance, pending, .. } = life;
        let ended = instance.shutdown();
        self.note(format_args!("orderly end: {}", ended.is_ok()));
        for Pending { request, .. } in pending {
            self.again.push((self.now() + 10, request));
        }
        self.sinks.iter_mut().for_each(|sink| sink.end_of_life(&mut self.random));
        if self.rig.is_blown() || (ended.is_err() && self.disk_is_ill) {
            return self.crash();
        }
        ended.map_err(|error| format!("an orderly end failed: {error:#}"))?;
        self.groups_are(Stored::Surely);
        self.counts.orderly += 1;
        if self.random.percent(50) {
            self.rig.disk.kill()
        } else {
            self.rig.disk.crash()
        }
        Ok(())
    }

    /// Starts the process, again and again if it ends while it recovers.
    pub fn start(&mut self, fused: bool) -> Result<(), String> {
        self.damage();
        self.move_exporters();
        let known_exporters = self.known_exporters();
        for attempt in 0_u32.. {
            self.read_learned();
            let fuse = (fused && attempt < 3).then(|| self.draw_fuse()).flatten();
            self.rig.arm(fuse);
            match self.build() {
                Ok(life) if !self.rig.is_blown() => {
                    let balance = life.instance.engine().ledger.balance();
                    let low_water = life.instance.engine().buffer.low_water();
                    self.life = Some(life);
                    self.note(format_args!("start, {fuse:?}, low-water {low_water:?}, {balance}"));
                    self.counts.lives += 1;
                    self.count_recovered();
                    self.check_damage_told()?;
                    self.check_moved(known_exporters.as_deref())?;
                    self.check_learned_restored()?;
                    return self.check_start();
                }
                Ok(life) => drop(life),
                Err(_) if self.rig.is_blown() => {}
                Err(error) if self.disk_is_ill => {
                    self.note(format_args!("no start on an ill disk: {error:#}"));
                    self.counts.refused_starts += 1;
                    self.expected = None;
                    self.heal();
                    self.rig.disk.kill();
                    continue;
                }
                Err(error) => return Err(format!("it does not start: {error:#}")),
            }
            self.counts.crashes_in_recovery += 1;
            self.expected = None;
            self.crash()?;
        }
        unreachable!("the fourth attempt has no fuse")
    }

    fn draw_fuse(&mut self) -> Option<Fuse> {
        let on = self.random.pick(&FUSES);
        let after = match (on, self.random.below(4)) {
            (_, 0) => self.random.below(12),
            ("data" | "input" | "outbox", _) => self.random.below(250),
            _ => self.random.below(30),
        };
        Some(Fuse { on, after })
    }

    fn build(&mut self) -> anyhow::Result<Life> {
        if self.tell {
            crate::tell::disk(&self.rig.disk);
        }
        let storage = Arc::new(self.rig.clone());
        let mut settings = Settings {
            storage: storage.clone(),
            clock: HandClock::new(BEGIN_MS, &self.now_ms),
            seed: 7,
            new_uuid: next_uuid,
            ..Settings::default()
        };
        settings.piece_bytes = self.plan.piece_bytes.unwrap_or(settings.piece_bytes);
        self.begin_config();
        let instance = Simulation::build(&self.config, &settings)?;
        let outbox = instance.outbox().clone();
        let to = parquet::Config::default();
        let parquet = parquet::Exporter::build(outbox.clone(), storage, Path::new("data"), &to)?
            .expect("it is configured");
        let settings = otlp::Settings { batch_bytes: 4 << 10, in_flight: 3, ..Default::default() };
        for sink in &mut self.sinks {
            sink.exporter = outbox.tail(sink.name).map(|tail| ByHand::new(tail, settings));
        }
        let watch = Watch::begin(&instance, &self.traffic, self.waits, self.now_ms.load(Relaxed));
        Ok(Life {
            instance,
            parquet,
            upload: None,
            pending: Vec::new(),
            watch,
            appended: 0,
            unindexed: None,
            unindexed_for: 0,
        })
    }

    /// What ails the disk goes away.
    pub fn heal(&mut self) {
        self.rig.heal();
        self.disk_is_ill = false;
    }

    /// What the file says is in force: reloads were of the process alone.
    fn begin_config(&mut self) {
        let now = self.now();
        self.waits = self.plan.waits;
        self.pieces.in_force.push((now, self.plan.share));
        *self.pieces.starts.entry(now / 60_000).or_default() += 1;
        if self.rig.plant == Some(Plant::BudgetForgotten) {
            let unbounded = Plan { at_most: None, ..self.plan.clone() };
            self.config.policies = unbounded.policies(self.plan.share);
        }
    }

    fn model(&self) -> Model<'_> {
        Model {
            plan: &self.plan,
            traffic: &self.traffic,
            sinks: &self.sinks,
            store: &self.store,
            groups: &self.groups,
            surely: plan::threshold(if self.plan.at_most.is_some() { 0 } else { self.shares.0 }),
            at_most: plan::threshold(self.shares.1),
            reloaded: self.counts.reloads > 0,
            waits_changed: self.waits_changed,
            may_repeat: self.state_damaged,
        }
    }
}
