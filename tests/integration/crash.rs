//! kill -9 at any moment: nothing acknowledged of a kept trace is missing afterwards, nothing is in Parquet more
//! often than it was sent.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::support::{
    Backend, ObjectStore, Random, Sender, Setup, SpanKey, Tailwater, Trace, eventually, request, request_of,
    rows_below,
};

/// In the suite, and with `TAILWATER_LONG` set.
const KILLS: (usize, usize) = (15, 100);
const POLICIES: &str = r#"
  - { name: errors, match: "{ status = error }", keep: 100% }
  - { name: half, keep: 50% }
"#;
/// Randomness from which `keep: 50%` keeps.
const HALF: u64 = 1 << 55;

/// What was sent, and which of it must be there in the end.
#[derive(Debug, Default)]
struct Truth {
    attempts: HashMap<SpanKey, usize>,
    acknowledged: HashSet<SpanKey>,
    traces: Vec<Trace>,
}

impl Truth {
    fn absorb(&mut self, other: Self) {
        for (key, attempts) in other.attempts {
            *self.attempts.entry(key).or_default() += attempts;
        }
        self.acknowledged.extend(other.acknowledged);
        self.traces.extend(other.traces);
    }

    /// Acknowledged spans of traces that policies keep: those with an error, and half of the rest.
    fn expected(&self) -> HashSet<SpanKey> {
        let kept = self.traces.iter().filter(|trace| trace.failed || trace.randomness() >= HALF);
        kept.flat_map(Trace::keys).filter(|key| self.acknowledged.contains(key)).collect()
    }

    /// Spans of traces that no policy keeps.
    fn unwanted(&self) -> HashSet<SpanKey> {
        let dropped = self.traces.iter().filter(|trace| !trace.failed && trace.randomness() < HALF);
        dropped.flat_map(Trace::keys).collect()
    }
}

/// Sends traces until told to stop: children first, the root in a later request, each delivered like an SDK does.
async fn send_until(stop: Arc<AtomicBool>, mut sender: Sender, seed: u64) -> Truth {
    let mut random = Random(seed);
    let mut traces: Vec<Trace> = Vec::new();
    let mut roots = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let mut batch: Vec<_> = (0..20).map(|_| Trace::new(&mut random)).collect();
        batch.iter_mut().for_each(|trace| trace.failed = random.one_in(10));
        let (now, later): (Vec<_>, Vec<_>) =
            batch.iter().flat_map(Trace::build).partition(|(_, span)| !span.parent_span_id.is_empty());
        sender.deliver(&request_of(now.into_iter().chain(std::mem::replace(&mut roots, later)))).await;
        traces.extend(batch);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    sender.deliver(&request_of(roots)).await;
    Truth { attempts: sender.attempts, acknowledged: sender.acknowledged, traces }
}

fn assert_nothing_missing(truth: &Truth, found: &HashMap<SpanKey, usize>, what: &str) {
    let expected = truth.expected();
    let missing = expected.iter().filter(|key| !found.contains_key(*key)).count();
    assert_eq!(
        missing,
        0,
        "of {} acknowledged spans of kept traces {missing} are not in {what}",
        expected.len()
    );
    let unwanted = truth.unwanted().iter().filter(|key| found.contains_key(*key)).count();
    assert_eq!(unwanted, 0, "spans of dropped traces in {what}");
    assert!(found.keys().all(|key| truth.attempts.contains_key(key)), "spans in {what} that nobody sent");
}

fn counts_below(folder: &Path) -> HashMap<SpanKey, usize> {
    let mut counts = HashMap::new();
    for row in rows_below(folder) {
        *counts.entry(row.key()).or_default() += 1;
    }
    counts
}

/// With objects in a store that takes its time, so that kills come in the middle of uploads.
async fn storing(backend: &Backend, store: &ObjectStore) -> Tailwater {
    let setup = Setup {
        policies: POLICIES.to_owned(),
        parquet_url: Some("s3://traces/crash".to_owned()),
        parquet_keys: vec![format!("s3: {{ endpoint: \"{}\", region: us-east-1 }}", store.endpoint())],
        environment: ObjectStore::environment(),
        ..Setup::default()
    };
    setup.forward_to("backend", &format!("endpoint: \"{}\"", backend.grpc())).start().await
}

async fn setup(backend: &Backend) -> Tailwater {
    let setup = Setup { policies: POLICIES.to_owned(), ..Setup::default() };
    setup.forward_to("backend", &format!("endpoint: \"{}\"", backend.grpc())).start().await
}

/// Stops the senders, lets everything be judged, and drains.
async fn finish(mut tailwater: Tailwater) -> Tailwater {
    tailwater.judged().await;
    tailwater.drain().await;
    tailwater
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_under_load_lose_nothing_acknowledged_and_repeat_nothing() {
    let backend = Backend::start().await;
    let store = ObjectStore::slow(Duration::from_millis(300)).await;
    let mut tailwater = storing(&backend, &store).await;
    let stop = Arc::new(AtomicBool::new(false));
    let sending: Vec<_> = (0..4)
        .map(|seed| tokio::spawn(send_until(stop.clone(), Sender::to(&tailwater), 100 + seed)))
        .collect();
    let mut random = Random(7);
    let kills = if std::env::var_os("TAILWATER_LONG").is_some() { KILLS.1 } else { KILLS.0 };
    for kill in 0..kills {
        if kill % 8 == 7 {
            // Lives that are all shorter than `after_root` judge nothing: what is recovered would only grow.
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(200 + random.below(2_500))).await;
        tailwater.kill();
        if kill % 3 == 0 {
            // While it starts: anywhere from the lock to the ports.
            drop(tailwater.launch());
            tokio::time::sleep(Duration::from_millis(random.below(400))).await;
            tailwater.kill();
        }
        tailwater.start().await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.store(true, Ordering::Relaxed);
    let mut truth = Truth::default();
    for sender in sending {
        truth.absorb(sender.await.unwrap());
    }
    tailwater.assert_ledger().await;
    let tailwater = finish(tailwater).await;

    assert_nothing_missing(&truth, &backend.counts(), "the backend");
    let rows = counts_below(&store.files());
    assert_nothing_missing(&truth, &rows, "Parquet");
    println!(
        "{kills} kills and {} in recovery: {} spans acknowledged, {} rows, {} at the backend of which {} twice or more",
        kills.div_ceil(3),
        truth.acknowledged.len(),
        rows.len(),
        backend.distinct(),
        backend.counts().values().filter(|times| **times > 1).count()
    );
    drop(tailwater);
    let too_often = rows.iter().filter(|(key, times)| *times > &truth.attempts[*key]).count();
    assert_eq!(too_often, 0, "spans in Parquet more often than they were sent");
}

/// The books of each life balance when senders rest before and after the kill.
#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_balances_in_each_life() {
    let backend = Backend::start().await;
    let mut tailwater = setup(&backend).await;
    let (mut sender, mut random) = (Sender::to(&tailwater), Random(8));
    let mut sent = 0;
    for _ in 0..4 {
        let traces: Vec<_> = (0..50).map(|_| Trace::new(&mut random)).collect();
        sender.deliver(&request(&traces)).await;
        sent += 150;
        let ledger = tailwater.assert_ledger().await;
        assert_eq!(ledger.accepted, 150);
        assert!(ledger.recovered <= sent, "{ledger}");
        tokio::time::sleep(Duration::from_millis(random.below(1_500))).await;
        tailwater.kill();
        tailwater.start().await;
        tailwater.assert_ledger().await;
    }
    finish(tailwater).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_yet_judged_at_the_kill_is_judged_after_it() {
    let backend = Backend::start().await;
    let mut tailwater = setup(&backend).await;
    let mut sender = Sender::to(&tailwater);
    let mut random = Random(9);
    let failed: Vec<_> = (0..100).map(|_| Trace::new(&mut random).failed()).collect();
    sender.deliver(&request(&failed)).await;
    tailwater.kill();
    tailwater.start().await;
    eventually("the errors are at the backend", Duration::from_secs(30), async || {
        (backend.distinct() == 300).then_some(())
    })
    .await;
    let ledger = tailwater.judged().await;
    assert_eq!((ledger.accepted, ledger.recovered, ledger.kept), (0, 300, 300));
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_within_seconds_and_the_next_start_goes_on() {
    let backend = Backend::start().await;
    let mut tailwater = setup(&backend).await;
    let mut sender = Sender::to(&tailwater);
    let mut random = Random(10);
    let failed: Vec<_> = (0..100).map(|_| Trace::new(&mut random).failed()).collect();
    sender.deliver(&request(&failed)).await;
    let began = tokio::time::Instant::now();
    assert!(tailwater.terminate().await.success());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    tailwater.start().await;
    eventually("the errors are at the backend", Duration::from_secs(30), async || {
        (backend.distinct() == 300).then_some(())
    })
    .await;
    tailwater.judged().await;
}

/// A life in which nothing comes remembers how far the life before it was.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_judged_is_not_recovered_after_an_idle_life() {
    let mut tailwater = Setup::default().start().await;
    let mut sender = Sender::to(&tailwater);
    let mut random = Random(12);
    let traces: Vec<_> = (0..100).map(|_| Trace::new(&mut random)).collect();
    sender.deliver(&request(&traces)).await;
    tailwater.judged().await;
    tailwater.drain().await;
    for _ in 0..2 {
        tailwater.start().await;
        let ledger = tailwater.assert_ledger().await;
        assert_eq!(ledger.recovered, 0, "{ledger}");
        assert!(tailwater.terminate().await.success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_judges_and_delivers_what_is_not_due_yet() {
    let backend = Backend::start().await;
    let setup = Setup { after_root: "30s", max_wait: "60s", ..Setup::default() };
    let mut tailwater =
        setup.forward_to("backend", &format!("endpoint: \"{}\"", backend.grpc())).start().await;
    let mut sender = Sender::to(&tailwater);
    let mut random = Random(11);
    let failed: Vec<_> = (0..100).map(|_| Trace::new(&mut random).failed()).collect();
    sender.deliver(&request(&failed)).await;
    tailwater.drain().await;
    assert_eq!(backend.distinct(), 300);
    assert_eq!(counts_below(&tailwater.parquet()).len(), 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_may_ask_for_a_drain() {
    let backend = Backend::start().await;
    let setup = Setup { after_root: "30s", max_wait: "60s", on_shutdown: "drain", ..Setup::default() };
    let mut tailwater =
        setup.forward_to("backend", &format!("endpoint: \"{}\"", backend.grpc())).start().await;
    let mut sender = Sender::to(&tailwater);
    let mut random = Random(12);
    let failed: Vec<_> = (0..100).map(|_| Trace::new(&mut random).failed()).collect();
    sender.deliver(&request(&failed)).await;
    assert!(tailwater.terminate().await.success());
    assert_eq!(backend.distinct(), 300);
    assert_eq!(counts_below(&tailwater.parquet()).len(), 300);
}
