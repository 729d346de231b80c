//! Several exporters over one outbox, from life to life.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::otlp::{Exporter, Outcome, Request, Settings, Stop, Transport, Wait};
use super::outbox::tests::Bench;
use crate::log::SimDisk;
use crate::trace::Position;

const OK: Outcome = Outcome::Delivered { rejected: 0, message: String::new() };

/// A backend that remembers every piece it was sent, by its first bytes.
#[derive(Clone)]
struct Backend {
    answer: Arc<dyn Fn() -> (Duration, Outcome) + Send + Sync>,
    got: Arc<Mutex<Vec<u8>>>,
}

impl Backend {
    fn new(answer: impl Fn() -> (Duration, Outcome) + Send + Sync + 'static) -> Self {
        Self { answer: Arc::new(answer), got: Arc::default() }
    }

    fn good() -> Self {
        Self::new(|| (Duration::from_millis(1), OK))
    }

    fn dead() -> Self {
        Self::new(|| (Duration::from_millis(1), Outcome::Retry { wait: Wait::Backoff, error: "dead".into() }))
    }

    fn stuck() -> Self {
        Self::new(|| (Duration::from_secs(1_000_000), OK))
    }

    /// How often it took each piece.
    fn pieces(&self) -> BTreeMap<u8, usize> {
        let mut pieces = BTreeMap::new();
        self.got.lock().iter().for_each(|piece| *pieces.entry(*piece).or_default() += 1);
        pieces
    }

    fn took_once(&self, pieces: impl IntoIterator<Item = u8>) -> bool {
        self.pieces().into_iter().eq(pieces.into_iter().map(|piece| (piece, 1)))
    }
}

impl Transport for Backend {
    async fn send(&self, request: Request) -> Outcome {
        let (wait, outcome) = (self.answer)();
        tokio::time::sleep(wait).await;
        if matches!(outcome, Outcome::Delivered { .. }) {
            self.got.lock().extend(request.body.iter().map(|piece| piece[0]));
        }
        outcome
    }
}

/// One life of the process.
struct Life {
    bench: Bench,
    tasks: Vec<JoinHandle<bool>>,
    stop: watch::Sender<Stop>,
}

impl Life {
    fn start(disk: &SimDisk, exporters: &[(&str, &Backend)]) -> Self {
        let names: Vec<&str> = exporters.iter().map(|(name, _)| *name).collect();
        let bench = Bench::open(disk, &names);
        let (stop, stopped) = watch::channel(Stop::Run);
        let settings = Settings { batch_bytes: 100, ..Settings::default() };
        let start = |(name, backend): &(&str, &Backend)| {
            let tail = bench.outbox.tail(name).unwrap();
            tokio::spawn(Exporter::new((*backend).clone(), tail, settings, 7).run(stopped.clone()))
        };
        let tasks = exporters.iter().map(start).collect();
        Self { bench, tasks, stop }
    }

    /// Appends a piece of 50 bytes for each number.
    fn append(&mut self, pieces: impl IntoIterator<Item = u8>) {
        for piece in pieces {
            self.bench.append_otlp("", vec![(1, Bytes::from(vec![piece; 50]))]);
        }
    }

    fn pending(&self, exporter: &str) -> u64 {
        self.bench.outbox.subscription(exporter).unwrap().metrics.pending().spans
    }

    async fn delivered(&self, exporter: &str) {
        while self.pending(exporter) > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// kill -9: what is written stays, and nothing more is.
    async fn kill(self, disk: &SimDisk) {
        for task in self.tasks {
            task.abort();
            let _ = task.await;
        }
        self.bench.close();
        disk.kill();
    }

    async fn end(self) {
        drop(self.stop);
        for task in self.tasks {
            let _ = task.await;
        }
        self.bench.outbox.save_cursors().unwrap();
        self.bench.close();
    }
}

#[tokio::test(start_paused = true)]
async fn an_exporter_that_is_added_gets_what_is_kept_from_then_on() {
    let disk = SimDisk::new(1);
    let [a, b] = [(); 2].map(|()| Backend::good());
    let mut life = Life::start(&disk, &[("a", &a)]);
    life.append(0..10);
    life.delivered("a").await;
    life.end().await;
    let mut life = Life::start(&disk, &[("a", &a), ("b", &b)]);
    assert_eq!(life.pending("b"), 0);
    life.append(10..15);
    life.delivered("a").await;
    life.delivered("b").await;
    life.end().await;
    assert!(a.took_once(0..15) && b.took_once(10..15), "{:?} {:?}", a.pieces(), b.pieces());
}

#[tokio::test(start_paused = true)]
async fn an_exporter_that_is_removed_holds_nothing_back_and_is_new_when_it_comes_again() {
    let disk = SimDisk::new(2);
    let (a, dead) = (Backend::good(), Backend::dead());
    let mut life = Life::start(&disk, &[("a", &a), ("b", &dead)]);
    life.append(0..10);
    life.delivered("a").await;
    life.bench.outbox.log().seal();
    life.bench.outbox.sync().unwrap(); // the seal is written
    life.bench.outbox.tick(1_000).unwrap();
    life.bench.outbox.delete_settled(Position::MAX).unwrap();
    assert_eq!(life.bench.outbox.log().sealed().len(), 1, "the dead one needs it");
    life.end().await;
    let life = Life::start(&disk, &[("a", &a)]);
    life.bench.outbox.delete_settled(Position::MAX).unwrap();
    assert!(life.bench.outbox.log().sealed().is_empty());
    let files = disk.storage().list(Path::new("data")).unwrap();
    assert_eq!(files.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["cursor.a"]);
    life.end().await;
    let b = Backend::good();
    let mut life = Life::start(&disk, &[("a", &a), ("b", &b)]);
    life.append(10..12);
    life.delivered("b").await;
    life.end().await;
    assert!(b.took_once(10..12), "{:?}", b.pieces());
}

#[tokio::test(start_paused = true)]
async fn an_exporter_that_is_renamed_is_a_new_one() {
    let disk = SimDisk::new(3);
    let (dead, good) = (Backend::dead(), Backend::good());
    let mut life = Life::start(&disk, &[("old", &dead)]);
    life.append(0..4);
    life.end().await;
    let mut life = Life::start(&disk, &[("new", &good)]);
    life.append(4..6);
    life.delivered("new").await;
    life.end().await;
    assert!(good.took_once(4..6), "{:?}", good.pieces());
}

#[tokio::test(start_paused = true)]
async fn one_that_is_stuck_and_one_that_is_dead_delay_nobody_else() {
    let disk = SimDisk::new(4);
    let (stuck, dead) = (Backend::stuck(), Backend::dead());
    let [a, b] = [(); 2].map(|()| Backend::good());
    let all: [(&str, &Backend); 4] = [("a", &a), ("b", &b), ("dead", &dead), ("stuck", &stuck)];
    let mut life = Life::start(&disk, &all);
    life.append(0..100);
    life.delivered("a").await;
    life.delivered("b").await;
    assert!(a.took_once(0..100) && b.took_once(0..100));
    assert_eq!((life.pending("dead"), life.pending("stuck")), (100, 100));
    life.kill(&disk).await;
    let mended = Backend::good();
    let life = Life::start(&disk, &[("a", &a), ("b", &b), ("dead", &mended), ("stuck", &mended)]);
    life.delivered("dead").await;
    life.delivered("stuck").await;
    assert!(mended.pieces().into_iter().eq((0..100).map(|piece| (piece, 2))));
    assert!(a.took_once(0..100) && b.took_once(0..100), "nothing was sent again");
    life.end().await;
}

/// A batch holds two pieces and four are under way at once; nobody saves the cursor between.
#[tokio::test(start_paused = true)]
async fn a_killed_process_sends_again_at_most_what_was_under_way() {
    let (disk, backend) = (SimDisk::new(5), Backend::new(|| (Duration::from_millis(10), OK)));
    let again = || backend.pieces().values().map(|times| times - 1).sum::<usize>();
    for life in 0..6_u8 {
        let before = again();
        let mut running = Life::start(&disk, &[("a", &backend)]);
        running.append(40 * life..40 * (life + 1));
        tokio::time::sleep(Duration::from_millis(rand::random_range(1..150))).await;
        running.kill(&disk).await;
        assert!(again() - before <= 8, "{} pieces were sent again", again() - before);
    }
    let life = Life::start(&disk, &[("a", &backend)]);
    life.delivered("a").await;
    life.end().await;
    assert_eq!(backend.pieces().len(), 240);
}
