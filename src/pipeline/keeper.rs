//! The two threads behind the receivers. The judge judges what is due, lets segments retire and takes
//! snapshots between judgements; the keeper makes them durable and then deletes what they make dispensable.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, anyhow};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tracing::{debug, error, info, warn};

use super::alarm::Alarm;
use super::budget::Budget;
use super::disk::DiskBudget;
use super::engine::Engine;
use super::judge::Judge;
use super::past::Past;
use super::recover::Start;
use super::reload::Change;
use super::state::{Highest, Snapshot};
use crate::config::WhenFull;
use crate::exporter::outbox::Outbox;
use crate::log::Storage;
use crate::log::memory::SEGMENT_BYTES;

/// Between two looks at what is due.
const JUDGE_EVERY: Duration = Duration::from_millis(20);
/// Between two state files, in milliseconds.
const STATE_EVERY_MS: u64 = 10_000;
/// The same while the disk is full, because a state frees it; and in a young life, because it may be a short one.
const STATE_SOON_MS: u64 = 1_000;
/// So many segments of input, 512 MiB, are worth a state sooner: when they are deleted while the system has them in
/// memory, the next ones take their place there.
const STATE_SOON_SEGMENTS: u64 = 128;
/// But a state is no more than so small a part of what came since the last.
const STATE_SHARE: u64 = 32;
/// Between two state files during recovery, in segments that retire.
const STATE_EVERY_SEGMENTS: u64 = 16;
/// Between two looks at cursors and at the age of the outbox's segment.
const TICK: Duration = Duration::from_secs(1);
/// Between two looks for room during recovery.
const ROOM_EVERY: Duration = Duration::from_millis(500);

/// Counters of retirement and state, for telemetry.
#[derive(Debug, Default)]
pub(super) struct KeeperTallies {
    pub(super) segments_retired: AtomicU64,
    pub(super) states_written: AtomicU64,
    pub(super) state_failures: AtomicU64,
    pub(super) state_bytes: AtomicU64,
    /// Of the last state: segment number of the low-water.
    pub(super) low_water_segment: AtomicU64,
    /// Why the last state could not be kept, or the cursors; nothing if they were.
    pub(super) failure: Mutex<Option<String>>,
}

enum Order {
    /// Judge nothing any more.
    Stop(oneshot::Sender<()>),
    /// Judge everything, then nothing any more.
    Drain(oneshot::Sender<()>),
    /// Judge by other policies from now on.
    Reload(Box<Change>, oneshot::Sender<()>),
}

/// The judge's thread.
#[derive(Debug)]
pub(super) struct Judging {
    orders: Sender<Order>,
    ordered: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// When the last snapshot was taken, and what the input log had then. The first is due at once: what was recovered need
/// not be recovered again.
#[derive(Debug, Default)]
pub(super) struct LastState(Option<(u64, u32)>);

/// What the judge's thread works with.
#[derive(Debug)]
pub(super) struct JudgeLoop {
    pub(super) judge: Judge,
    pub(super) engine: Arc<Engine>,
    pub(super) budget: Arc<Budget>,
    pub(super) disk: Arc<DiskBudget>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) snapshots: Sender<Snapshot>,
    pub(super) tallies: Arc<KeeperTallies>,
    pub(super) hindsight_ms: u64,
    pub(super) input_highest: u32,
    /// An order waits: a long round of judgements ends early.
    pub(super) ordered: Arc<AtomicBool>,
    pub(super) when_full: WhenFull,
}

impl Judging {
    pub(super) fn start(judge_loop: JudgeLoop, alarm: Alarm) -> std::io::Result<Self> {
        let (orders, received) = mpsc::channel();
        let ordered = judge_loop.ordered.clone();
        let judge = move || {
            let _alarm = alarm;
            judge_loop.run(&received);
        };
        let thread = thread::Builder::new().name("judge".to_owned()).spawn(judge)?;
        Ok(Self { orders, ordered, thread: Some(thread) })
    }

    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        self.order(Order::Stop).await?;
        self.joined()
    }

    pub(super) async fn drain(&mut self) -> anyhow::Result<()> {
        self.order(Order::Drain).await?;
        self.joined()
    }

    /// Returns when the change is in force.
    pub(super) async fn reload(&self, change: Change) -> anyhow::Result<()> {
        self.order(|done| Order::Reload(Box::new(change), done)).await
    }

    async fn order(&self, order: impl FnOnce(oneshot::Sender<()>) -> Order) -> anyhow::Result<()> {
        let (done, when_done) = oneshot::channel();
        self.ordered.store(true, Relaxed);
        self.orders.send(order(done)).map_err(|_| died())?;
        when_done.await.map_err(|_| died())
    }

    fn joined(&mut self) -> anyhow::Result<()> {
        self.thread.take().map_or(Ok(()), |thread| thread.join().map_err(|_| died()))
    }
}

fn died() -> anyhow::Error {
    anyhow!("the judge has died")
}

impl JudgeLoop {
    fn run(self, orders: &Receiver<Order>) {
        let mut last_state = LastState::default();
        loop {
            let order = orders.recv_timeout(JUDGE_EVERY);
            if order.is_ok() {
                self.ordered.store(false, Relaxed);
            }
            match order {
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
                Ok(Order::Stop(done)) => {
                    let _ = done.send(());
                    return;
                }
                Ok(Order::Drain(done)) => {
                    self.drain();
                    let _ = done.send(());
                    return;
                }
                Ok(Order::Reload(change, done)) => {
                    change.apply(&self.engine);
                    let _ = done.send(());
                }
            }
            self.turn(&mut last_state);
        }
    }

    /// One look at everything: what is due is judged, segments retire, thresholds are published, and a
    /// snapshot is taken when it is due.
    pub(super) fn turn(&self, last_state: &mut LastState) {
        if self.disk_has_room() {
            self.judge.judge_due(|| {
                self.relieve_if_overdrawn();
                !self.ordered.load(Relaxed) && self.disk_has_room()
            });
            self.relieve();
        }
        self.engine.slow.publish(self.engine.clock.arrival_ms());
        self.judge.tallies.alert();
        if self.state_is_due(last_state) {
            self.snapshot();
        }
    }

    fn state_is_due(&self, last: &mut LastState) -> bool {
        let (now_ms, segment) = (self.engine.clock.elapsed_ms(), self.engine.frontier().segment);
        let is_due = last.0.is_none_or(|(last_ms, last_segment)| {
            let has_grown = u64::from(segment.saturating_sub(last_segment)) >= self.segments_worth_a_state();
            // No life loses more than half of what it did, however soon it ends: lives that all end soon get on.
            let age_ms = last_ms.clamp(STATE_SOON_MS, STATE_EVERY_MS);
            let every_ms = if self.disk.refuses() || has_grown { STATE_SOON_MS } else { age_ms };
            now_ms >= last_ms.saturating_add(every_ms)
        });
        if is_due {
            last.0 = Some((now_ms, segment));
        }
        is_due
    }

    fn segments_worth_a_state(&self) -> u64 {
        let state_bytes = self.tallies.state_bytes.load(Relaxed);
        (STATE_SHARE * state_bytes / SEGMENT_BYTES as u64).max(STATE_SOON_SEGMENTS)
    }

    /// Judges everything that waits.
    pub(super) fn drain(&self) {
        self.judge.judge_all(|| self.relieve_if_overdrawn());
    }

    /// What has left is remembered, which costs memory: many verdicts at once may want more than is kept free.
    fn relieve_if_overdrawn(&self) {
        if self.budget.is_overdrawn() {
            self.relieve();
        }
    }

    /// Whether verdicts fit. Where room is short, what can be delivered is sealed, so that it can be deleted then.
    fn disk_has_room(&self) -> bool {
        if self.disk.look(&self.outbox) {
            match self.disk.refuses() {
                true => {
                    warn!("disk budget is used up, senders are refused");
                    self.outbox.log().seal();
                }
                false => info!("disk budget has room again"),
            }
        }
        if self.disk.stops() {
            self.outbox.log().seal();
        }
        if self.disk.refuses() && self.when_full == WhenFull::LoseOldest {
            self.lose_oldest();
        }
        !self.disk.stops()
    }

    /// Gives up what waits longest, until requests will fit once the next state has let it go.
    fn lose_oldest(&self) {
        while !self.disk.has_room_without(&self.outbox, self.outbox.settled_bytes()) {
            match self.outbox.lose_oldest() {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return warn!(%error, "the outbox's oldest segment cannot be given up"),
            }
        }
    }

    /// Lets segments retire while memory is short, or while nothing in them can be asked for any more.
    pub(super) fn relieve(&self) {
        while let Some((oldest, outlived)) = self.oldest_in_the_way() {
            let unwritten = self.engine.frontier().segment <= oldest;
            let early = self.engine.buffer.retirable_in_ms(oldest, self.engine.clock.now()) > 0;
            if unwritten || early {
                return;
            }
            self.retire(oldest);
            if outlived {
                self.engine.memory.shrink();
            }
        }
    }

    /// The oldest segment, if it should go, and whether for its age. Nobody may hold it then: its memory is used again.
    fn oldest_in_the_way(&self) -> Option<(u32, bool)> {
        let oldest = self.engine.memory.oldest().filter(|_| self.engine.memory.len() > 1)?;
        let idle_ms = self.engine.clock.arrival_ms().saturating_sub(oldest.last_arrival_ms());
        let outlived = idle_ms > self.hindsight_ms + self.engine.max_wait_ms.load(Relaxed);
        (outlived || self.budget.excess() > 0).then_some((oldest.number, outlived))
    }

    /// While a log is read again: what a former life held fits, unless it had more memory. Then there is
    /// nobody to refuse, and the oldest segments are judged at once; a state now and then, so that a recovery that
    /// does not come to its end is not all in vain. False: recovery is to end.
    pub(super) fn relieve_at_start(&self, start: &Start, keep_loop: &KeepLoop) -> bool {
        while self.budget.is_overdrawn() && self.engine.memory.len() > 1 {
            let Some(oldest) = self.engine.memory.oldest().map(|oldest| oldest.number) else { break };
            if !self.wait_for_room(start, keep_loop) {
                return false;
            }
            self.retire(oldest);
            if self.tallies.segments_retired.load(Relaxed).is_multiple_of(STATE_EVERY_SEGMENTS) {
                self.keep_at_start(keep_loop);
            }
        }
        !start.is_halted()
    }

    /// Waits until the disk takes verdicts: exporters deliver meanwhile, and a state of what is read so far lets go
    /// what they are past.
    fn wait_for_room(&self, start: &Start, keep_loop: &KeepLoop) -> bool {
        while start.exporters_run && !(self.disk_has_room() && self.outbox.log().stalled().is_none()) {
            if start.is_halted() {
                return false;
            }
            self.keep_at_start(keep_loop);
            thread::sleep(ROOM_EVERY);
        }
        true
    }

    fn keep_at_start(&self, keep_loop: &KeepLoop) {
        if let Err(error) = keep_loop.keep(&self.state_now()) {
            debug!(error = format!("{error:#}"), "state cannot be kept");
        }
    }

    fn retire(&self, segment: u32) {
        self.judge.judge_segment(segment);
        self.engine.buffer.retire(segment, |later, bytes| self.engine.memory.charge(later, bytes));
        if let Some(retired) = self.engine.memory.retire_oldest() {
            self.engine.memory.recycle(retired);
        }
        self.tallies.segments_retired.fetch_add(1, Relaxed);
    }

    /// Between two judgements: the outbox's end first, then the low-water, then the entries.
    pub(super) fn snapshot(&self) {
        let _ = self.snapshots.send(self.state_now());
    }

    fn state_now(&self) -> Snapshot {
        let covered = self.outbox.log().appended();
        let low_water = self.engine.low_water();
        self.engine.buffer.forget(self.engine.clock.arrival_ms(), low_water);
        if let Some(red) = &self.engine.red {
            red.tidy(self.engine.clock.arrival_ms());
        }
        let highest = Highest { input: self.input_highest, outbox: self.outbox.log().highest() };
        Snapshot::take(&self.engine, covered, low_water, highest, &self.outbox.known())
    }
}

/// The keeper's thread.
#[derive(Debug)]
pub(super) struct Keeping {
    snapshots: Sender<Snapshot>,
    thread: JoinHandle<()>,
    outbox: Arc<Outbox>,
    input_highest: u32,
}

/// What the keeper's thread works with.
#[derive(Debug)]
pub(super) struct KeepLoop {
    pub(super) disk: Arc<DiskBudget>,
    pub(super) storage: Arc<dyn Storage>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) engine: Arc<Engine>,
    pub(super) past: Arc<Past>,
    pub(super) input_dir: PathBuf,
    pub(super) state_path: PathBuf,
    pub(super) tallies: Arc<KeeperTallies>,
}

impl Keeping {
    pub(super) fn start(
        keep_loop: KeepLoop,
        (snapshots, received): (Sender<Snapshot>, Receiver<Snapshot>),
        input_highest: u32,
        alarm: Alarm,
    ) -> std::io::Result<Self> {
        let outbox = keep_loop.outbox.clone();
        let keeper = move || {
            let _alarm = alarm;
            keep_loop.run(&received);
        };
        let thread = thread::Builder::new().name("keeper".to_owned()).spawn(keeper)?;
        Ok(Self { snapshots, thread, outbox, input_highest })
    }

    /// A last state, when nothing is received or judged any more.
    pub(super) fn finish(self, engine: &Engine) -> anyhow::Result<()> {
        let covered = self.outbox.log().appended();
        let highest = Highest { input: self.input_highest, outbox: self.outbox.log().highest() };
        let low_water = engine.low_water();
        let _ =
            self.snapshots.send(Snapshot::take(engine, covered, low_water, highest, &self.outbox.known()));
        drop(self.snapshots);
        self.thread.join().map_err(|_| anyhow!("the keeper has died"))
    }
}

impl KeepLoop {
    fn run(self, snapshots: &Receiver<Snapshot>) {
        // Whether it was a state that failed.
        let mut fails = None;
        loop {
            let (of_state, kept) = match snapshots.recv_timeout(TICK) {
                // On a slow disk they wait, and the newest says all.
                Ok(snapshot) => (true, self.keep(&snapshots.try_iter().last().unwrap_or(snapshot))),
                Err(RecvTimeoutError::Timeout) => {
                    let ticked = self.outbox.tick(self.engine.clock.arrival_ms()).context("save the cursors");
                    (false, ticked.and_then(|()| self.trim()))
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            // Nothing is deleted after a failure; the next one tries again.
            match kept {
                Err(failure) => {
                    let failure = format!("{failure:#}");
                    if fails.is_none() {
                        error!(error = failure, "state cannot be kept");
                    }
                    fails = Some(of_state || fails == Some(true));
                    self.tallies.state_failures.fetch_add(1, Relaxed);
                    *self.tallies.failure.lock() = Some(failure);
                }
                // Cursors that can be saved make no state.
                Ok(()) if of_state || fails == Some(false) => {
                    if fails.take().is_some() {
                        info!("state is kept again");
                        *self.tallies.failure.lock() = None;
                    }
                }
                Ok(()) => {}
            }
        }
    }

    /// Nothing is deleted before what replaces it is synced.
    pub(super) fn keep(&self, snapshot: &Snapshot) -> anyhow::Result<()> {
        self.outbox.sync().context("sync the outbox")?;
        self.outbox.tick(self.engine.clock.arrival_ms()).context("save the cursors")?;
        let written = snapshot.write(&*self.storage, &self.state_path);
        let bytes = written.with_context(|| format!("write the state {}", self.state_path.display()))?;
        self.tallies.states_written.fetch_add(1, Relaxed);
        self.tallies.state_bytes.store(bytes as u64, Relaxed);
        self.tallies.low_water_segment.store(u64::from(snapshot.low_water.segment), Relaxed);
        let now_ms = self.engine.clock.arrival_ms();
        let mut freed = 0;
        let taken = self.past.take_below(&self.input_dir, snapshot.low_water.segment, now_ms, &mut freed);
        self.disk.shrank(freed);
        taken.context("delete input segments")?;
        self.trim()?;
        self.outbox.delete_settled(snapshot.outbox_covered).context("delete outbox segments")
    }

    /// Past input gives way to the logs.
    fn trim(&self) -> anyhow::Result<()> {
        let available = self.storage.available(&self.input_dir);
        let spare = self.disk.spare(&self.outbox, self.past.bytes(), available);
        self.past.trim(self.engine.clock.arrival_ms(), spare).context("delete past input")
    }
}
