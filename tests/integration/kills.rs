//! kill -9 at any moment under load: nothing acknowledged of a kept trace is missing afterwards, nothing is in Parquet
//! more often than it was sent, and a backend gets again what was under way, nothing else.
//!
//! `TAILWATER_LONG=1` makes it a hundred rounds, `TAILWATER_SEED` other moments and other traffic.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::support::{
    Backend, ERRORS_AND_HALF, Fault, HALF, ObjectStore, Random, Sender, Setup, SpanKey, Tailwater, Trace,
    WITHIN, counts_below, eventually, request_of,
};

/// In the suite, and with `TAILWATER_LONG` set. Each round kills once, or twice.
const ROUNDS: (usize, usize) = (12, 100);
const SENDERS: u64 = 4;
/// Requests that a kill may bring to the backend again: those without an answer, and those that were answered before
/// an earlier one was, or before the cursor was noted. An exporter holds about six batches.
const AGAIN_MAX: usize = 6;

/// What was sent, and which of it must be there in the end.
#[derive(Debug, Default)]
struct Truth {
    attempts: HashMap<SpanKey, usize>,
    acknowledged: HashSet<SpanKey>,
    traces: Vec<Trace>,
}

impl Truth {
    fn absorb(&mut self, other: Self) {
        self.attempts.extend(other.attempts);
        self.acknowledged.extend(other.acknowledged);
        self.traces.extend(other.traces);
    }

    fn spans_of(&self, which: impl Fn(&Trace) -> bool) -> impl Iterator<Item = SpanKey> {
        self.traces.iter().filter(move |trace| which(trace)).flat_map(Trace::keys)
    }

    /// Of traces that policies keep, those with an error and half of the rest, every acknowledged span is there; of
    /// all others none.
    fn assert_nothing_missing(&self, found: &HashMap<SpanKey, usize>, what: &str) {
        let is_kept = |trace: &Trace| trace.failed || trace.randomness() >= HALF;
        let expected: Vec<_> =
            self.spans_of(is_kept).filter(|span| self.acknowledged.contains(span)).collect();
        let missing = expected.iter().filter(|span| !found.contains_key(*span)).count();
        let of = expected.len();
        assert_eq!(missing, 0, "of {of} acknowledged spans of kept traces {missing} are not in {what}");
        let unwanted = self.spans_of(|trace| !is_kept(trace)).filter(|span| found.contains_key(span)).count();
        assert_eq!(unwanted, 0, "spans of dropped traces in {what}");
        assert!(
            found.keys().all(|span| self.attempts.contains_key(span)),
            "spans in {what} that nobody sent"
        );
    }
}

/// Twenty traces at a time, until told to stop. Some come in one request, with one span that failed. Of the others the
/// root comes in the next request, behind a kill perhaps: then what is kept of one with an error depends on the
/// moment, unless each of its spans failed.
async fn send_until(stop: Arc<AtomicBool>, mut sender: Sender, seed: u64) -> Truth {
    let mut random = Random(seed);
    let mut traces: Vec<Trace> = Vec::new();
    let mut roots = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let mut now = std::mem::take(&mut roots);
        for _ in 0..20 {
            let mut trace = Trace::new(&mut random);
            trace.failed = random.one_in(10);
            if random.one_in(3) {
                now.extend(trace.build());
            } else {
                let status = trace.build().find_map(|(_, span)| span.status);
                let mut spans: Vec<_> = trace.build().collect();
                spans.iter_mut().for_each(|(_, span)| span.status = status.clone());
                roots.push(spans.remove(0));
                now.extend(spans);
            }
            traces.push(trace);
        }
        sender.deliver(&request_of(now)).await;
        sleep(Duration::from_millis(2)).await;
    }
    sender.deliver(&request_of(roots)).await;
    Truth { attempts: sender.attempts, acknowledged: sender.acknowledged, traces }
}

/// A process with a store and a backend that take their time, and how it died.
struct Ordeal {
    tailwater: Tailwater,
    backend: Backend,
    store: ObjectStore,
    random: Random,
    /// How many requests the backend had had at each kill.
    deaths: Vec<usize>,
    in_recovery: usize,
    in_uploads: usize,
    in_drains: usize,
    pauses: usize,
    longest_start: Duration,
}

impl Ordeal {
    async fn begin(seed: u64) -> Self {
        let (backend, store) = (Backend::start().await, ObjectStore::slow(Duration::from_millis(300)).await);
        backend.fault(Fault::Slow(Duration::from_millis(50)));
        let setup = Setup::of(ERRORS_AND_HALF).forwarding(&backend).storing_in(&store, "crash");
        Self {
            tailwater: setup.start().await,
            backend,
            store,
            random: Random(seed),
            deaths: Vec::new(),
            in_recovery: 0,
            in_uploads: 0,
            in_drains: 0,
            pauses: 0,
            longest_start: Duration::ZERO,
        }
    }

    /// So long at most.
    fn moment(&mut self, most: Duration) -> Duration {
        Duration::from_micros(self.random.below(most.as_micros() as u64))
    }

    async fn round(&mut self, number: usize) {
        let life = Duration::from_millis(200) + self.moment(Duration::from_millis(2_500));
        sleep(life).await;
        match number % 4 {
            1 => {
                eventually("an upload", WITHIN, async || (self.store.uploads() > 0).then_some(())).await;
            }
            3 => self.pause().await,
            _ => {}
        }
        self.kill().await;
        if number.is_multiple_of(3) {
            self.kill_in_recovery().await;
        }
        let began = Instant::now();
        self.tailwater.start().await;
        self.longest_start = self.longest_start.max(began.elapsed());
    }

    async fn kill(&mut self) {
        self.in_uploads += usize::from(self.store.uploads() > 0);
        self.tailwater.kill();
        // What was on its way to the backend comes, or does not, before the next life begins.
        sleep(Duration::from_millis(100)).await;
        self.deaths.push(self.backend.taken());
    }

    /// From the admin port, which is open during recovery, to the ports of senders.
    async fn kill_in_recovery(&mut self) {
        let (begun, ready) =
            (self.tailwater.said("serving /status"), self.tailwater.said("listening for OTLP/gRPC"));
        drop(self.tailwater.launch());
        let deadline = Instant::now() + WITHIN;
        while self.tailwater.said("serving /status") == begun {
            assert!(Instant::now() < deadline, "it does not begin to recover");
            sleep(Duration::from_millis(1)).await;
        }
        let moment = self.moment(self.longest_start / 2);
        sleep(moment).await;
        self.kill().await;
        self.in_recovery += usize::from(self.tailwater.said("listening for OTLP/gRPC") == ready);
    }

    /// It stands still for a while, as a machine does that has other things to do, and dies soon after.
    async fn pause(&mut self) {
        self.tailwater.signal("STOP");
        let (still, after) =
            (self.moment(Duration::from_millis(1_500)), self.moment(Duration::from_millis(500)));
        sleep(still).await;
        self.tailwater.signal("CONT");
        sleep(after).await;
        self.pauses += 1;
    }

    /// Kills drains of what is left; the last one ends.
    async fn drain(&mut self, kills: usize) {
        self.kill().await;
        for _ in 0..kills {
            let moment = self.moment(self.longest_start + Duration::from_millis(500));
            self.tailwater.launch_drain();
            sleep(moment).await;
            self.in_drains += usize::from(self.tailwater.runs());
            self.kill().await;
        }
        self.tailwater.drain().await;
    }

    /// Spans that were sent once came to the backend again only behind a kill that their request was close to.
    /// Returns how many came again, and how many requests before the kill at most.
    fn assert_again_what_was_under_way(&self, truth: &Truth) -> (usize, usize) {
        let mut seen: HashMap<SpanKey, usize> = HashMap::new();
        let (mut again, mut most) = (0, 0);
        for (n, batch) in self.backend.batches().iter().enumerate() {
            for span in batch.iter().filter(|span| truth.attempts[*span] == 1) {
                let Some(before) = seen.insert(*span, n) else { continue };
                let death = self.deaths.iter().find(|death| (before + 1..=n).contains(*death));
                let death = *death.expect("a span came twice in one life");
                assert!(death - before <= AGAIN_MAX, "request {before} again after a kill at {death}");
                (again, most) = (again + 1, most.max(death - before));
            }
        }
        (again, most)
    }
}

fn seed() -> u64 {
    std::env::var("TAILWATER_SEED").map_or(7, |seed| seed.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_under_load_lose_nothing_acknowledged_and_repeat_nothing() {
    let (seed, long) = (seed(), std::env::var_os("TAILWATER_LONG").is_some());
    let rounds = if long { ROUNDS.1 } else { ROUNDS.0 };
    let mut ordeal = Ordeal::begin(seed).await;
    let stop = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = (0..SENDERS)
        .map(|n| tokio::spawn(send_until(stop.clone(), Sender::to(&ordeal.tailwater), seed << 8 | n)))
        .collect();
    for number in 0..rounds {
        ordeal.round(number).await;
        if number % 10 == 9 {
            let (start, mib) = (ordeal.longest_start, ordeal.tailwater.data_bytes() >> 20);
            println!("{} rounds, {mib} MiB of data, starts took {start:?} at most", number + 1);
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut truth = Truth::default();
    for sender in senders {
        truth.absorb(sender.await.unwrap());
    }
    ordeal.tailwater.assert_ledger().await;
    ordeal.drain(rounds / 10 + 1).await;

    let rows = counts_below(&ordeal.store.files());
    let (again, most) = ordeal.assert_again_what_was_under_way(&truth);
    println!(
        "seed {seed}: {} kills, {} of them in recovery, {} in uploads, {} in drains, {} after a pause; {} spans sent, \
         {} more than once, {} acknowledged; {} in Parquet, {} at the backend, {again} spans again after a \
         kill, of its last {most} requests",
        ordeal.deaths.len(),
        ordeal.in_recovery,
        ordeal.in_uploads,
        ordeal.in_drains,
        ordeal.pauses,
        truth.attempts.len(),
        truth.attempts.values().filter(|attempts| **attempts > 1).count(),
        truth.acknowledged.len(),
        rows.len(),
        ordeal.backend.distinct(),
    );
    truth.assert_nothing_missing(&ordeal.backend.counts(), "the backend");
    truth.assert_nothing_missing(&rows, "Parquet");
    let too_often = rows.iter().filter(|(span, times)| *times > &truth.attempts[*span]).count();
    assert_eq!(too_often, 0, "spans in Parquet more often than they were sent");
    assert!(ordeal.in_uploads > 0 && ordeal.in_recovery > 0, "no kill came where it hurts");
}
