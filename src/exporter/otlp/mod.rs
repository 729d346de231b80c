//! Sends every kept piece to one OTLP backend, over gRPC or HTTP.
//!
//! Promises:
//!
//! - At least once: the cursor passes a piece when the backend has answered for it and for all before it. A process that
//!   is killed has noted that: the next one repeats what was under way, and what was settled behind it.
//! - Nothing is given up but what the backend refuses for good; that is counted, and logged once a batch. Wrong
//!   credentials and a wrong address are no such refusal: they are tried again every half a minute.
//! - Memory is bounded, about six batches and one piece; a slow backend delays only itself.
//! - Bytes out are the bytes of the outbox. A batch holds whole pieces of one tenant.
//!
//! [`queue`] decides everything; the loop below waits, [`client`] sends, [`feed`] reads.

mod backoff;
mod by_hand;
mod client;
mod config;
#[cfg(test)]
mod delivery_tests;
mod feed;
mod outcome;
mod queue;
mod split;

use std::future::Future;
use std::pin::Pin;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use backoff::Settings as BackoffSettings;
pub use by_hand::ByHand;
pub use client::{Client, Transport};
pub use config::{Compression, Config, Endpoint, HeaderKey, HeaderText, Invalid, Name, Protocol, TlsConfig};
pub use outcome::{Outcome, Wait};
pub use queue::{Request, Settings};

use crate::exporter::outbox::Tail;
use feed::Feed;
use queue::{Event, Queue};

/// What an exporter shall do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stop {
    #[default]
    Run,
    /// Begin nothing new, and wait for what is under way.
    Finish { deadline: Instant },
    /// Deliver all that is written when this is said.
    Drain { deadline: Instant },
}

impl Stop {
    fn is_over(self, now: Instant) -> bool {
        match self {
            Self::Run => false,
            Self::Finish { deadline } | Self::Drain { deadline } => now >= deadline,
        }
    }

    fn deadline(self) -> Option<Instant> {
        match self {
            Self::Run => None,
            Self::Finish { deadline } | Self::Drain { deadline } => Some(deadline),
        }
    }
}

type Flight = Pin<Box<dyn Future<Output = (u64, Outcome)> + Send>>;

/// One backend's exporter: a task.
#[derive(Debug)]
pub struct Exporter<T = Client> {
    transport: T,
    queue: Queue,
    feed: Feed,
    flights: FuturesUnordered<Flight>,
    /// The cursor on its way to the disk.
    note: Option<JoinHandle<()>>,
    random: StdRng,
}

impl Exporter<Client> {
    /// Reads the TLS files; connects when there is something to send.
    pub fn build(config: &Config, tail: Tail, seed: u64) -> anyhow::Result<Self> {
        Ok(Self::new(Client::build(config)?, tail, Settings::default(), seed))
    }
}

impl<T: Transport> Exporter<T> {
    pub fn new(transport: T, tail: Tail, settings: Settings, seed: u64) -> Self {
        let metrics = tail.subscription().metrics.clone();
        Self {
            transport,
            queue: Queue::new(settings, metrics),
            feed: Feed::new(tail, settings.batch_bytes),
            flights: FuturesUnordered::new(),
            note: None,
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// Runs until `stop` says otherwise; a dropped sender means to end at once.
    ///
    /// Returns true if nothing that was asked for is left. The cursor is advanced, not saved: that is the outbox's.
    pub async fn run(mut self, mut stop: watch::Receiver<Stop>) -> bool {
        loop {
            let (now, phase) = (Instant::now(), *stop.borrow_and_update());
            if let Some(done) = self.is_done(phase, now) {
                return done;
            }
            if !matches!(phase, Stop::Finish { .. }) {
                self.launch(now);
            }
            let reads = !matches!(phase, Stop::Finish { .. }) && self.queue.wants();
            let due = self.queue.due().filter(|_| !matches!(phase, Stop::Finish { .. }));
            tokio::select! {
                biased;
                changed = stop.changed() => match changed {
                    Ok(()) => self.feed.look_again(),
                    Err(_) => return false,
                },
                Some((id, outcome)) = self.flights.next() => self.settle(id, outcome),
                parcels = self.feed.next(), if reads => {
                    let now = Instant::now();
                    parcels.into_iter().for_each(|parcel| self.queue.push(parcel, now));
                }
                () = sleep_until(due.into_iter().chain(phase.deadline()).min()) => {}
            }
        }
    }

    /// Whether to return, and with what.
    fn is_done(&mut self, phase: Stop, now: Instant) -> Option<bool> {
        if self.queue.is_empty() {
            self.advance_past_all();
        }
        let all_read = self.feed.is_exhausted();
        if all_read && matches!(phase, Stop::Drain { .. }) {
            self.queue.flush();
        }
        let done = match phase {
            Stop::Run => false,
            Stop::Finish { .. } => self.flights.is_empty(),
            Stop::Drain { .. } => all_read && self.queue.is_empty(),
        };
        (done || phase.is_over(now)).then_some(done)
    }

    fn launch(&mut self, now: Instant) {
        while let Some(request) = self.queue.next(now) {
            let (id, transport) = (request.id, self.transport.clone());
            self.flights.push(Box::pin(async move { (id, transport.send(request).await) }));
        }
    }

    fn settle(&mut self, id: u64, outcome: Outcome) {
        let events = self.queue.settle(id, outcome, Instant::now(), self.random.random());
        if let Some(position) = self.queue.reached() {
            self.feed.subscription().advance(position);
            self.note();
        }
        events.into_iter().for_each(|event| self.tell(event));
    }

    /// Beside the loop. One that is under way takes what has come since with it; at worst the next second's saving does.
    fn note(&mut self) {
        if self.note.as_ref().is_some_and(|note| !note.is_finished()) {
            return;
        }
        let cursor = self.feed.subscription().cursor.clone();
        self.note = Some(tokio::task::spawn_blocking(move || {
            let mut noted = None;
            while noted != Some(cursor.position()) {
                noted = Some(cursor.position());
                // The keeper saves every second, and says when it cannot.
                let _ = cursor.note();
            }
        }));
    }

    /// Past what holds no piece, such as the end of a sealed segment.
    fn advance_past_all(&self) {
        let position = self.feed.position();
        if position > self.feed.subscription().cursor.position() {
            self.feed.subscription().advance(position);
        }
    }

    fn tell(&self, event: Event) {
        let exporter = self.feed.subscription().cursor.exporter();
        match event {
            Event::Down { error } => {
                tracing::warn!(exporter, error, "backend takes nothing, spans wait in the outbox");
            }
            Event::Up { after } => tracing::info!(exporter, ?after, "backend takes spans again"),
            Event::Rejected { trace, spans, error } => {
                tracing::warn!(exporter, %trace, spans, error, "backend refused spans for good");
            }
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::exporter::metrics::{Lost, Metrics};
    use crate::exporter::outbox::tests::Bench;
    use crate::log::SimDisk;

    const OK: Outcome = Outcome::Delivered { rejected: 0, message: String::new() };

    fn unavailable() -> Outcome {
        Outcome::Retry { wait: Wait::Backoff, error: "unavailable".to_owned() }
    }

    /// A backend that answers the nth request as it is told, after a while.
    #[derive(Clone)]
    struct Backend {
        answer: Arc<dyn Fn(usize) -> (Duration, Outcome) + Send + Sync>,
        requests: Arc<AtomicUsize>,
        at_once: Arc<AtomicUsize>,
        at_once_max: Arc<AtomicUsize>,
    }

    impl Backend {
        fn new(answer: impl Fn(usize) -> (Duration, Outcome) + Send + Sync + 'static) -> Self {
            let [requests, at_once, at_once_max] = [(); 3].map(|()| Arc::default());
            Self { answer: Arc::new(answer), requests, at_once, at_once_max }
        }

        fn requests(&self) -> usize {
            self.requests.load(Ordering::Relaxed)
        }
    }

    impl Transport for Backend {
        async fn send(&self, _: Request) -> Outcome {
            let (wait, outcome) = (self.answer)(self.requests.fetch_add(1, Ordering::Relaxed));
            let at_once = self.at_once.fetch_add(1, Ordering::Relaxed) + 1;
            self.at_once_max.fetch_max(at_once, Ordering::Relaxed);
            tokio::time::sleep(wait).await;
            self.at_once.fetch_sub(1, Ordering::Relaxed);
            outcome
        }
    }

    /// An outbox, the exporter of a backend, and the word that ends it.
    struct Running {
        bench: Bench,
        stop: watch::Sender<Stop>,
        task: JoinHandle<bool>,
        metrics: Arc<Metrics>,
    }

    impl Running {
        fn start(backend: &Backend) -> Self {
            let bench = Bench::open(&SimDisk::new(1), &["a"]);
            let tail = bench.outbox.tail("a").unwrap();
            let metrics = tail.subscription().metrics.clone();
            let settings = Settings { batch_bytes: 100, ..Settings::default() };
            let (stop, stopped) = watch::channel(Stop::Run);
            let task = tokio::spawn(Exporter::new(backend.clone(), tail, settings, 7).run(stopped));
            Self { bench, stop, task, metrics }
        }

        async fn delivered(&self, spans: u64) {
            while self.metrics.delivered() < spans {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }

        async fn end(self, stop: impl FnOnce(Instant) -> Stop) -> (bool, Bench) {
            self.stop.send(stop(Instant::now() + Duration::from_secs(5))).unwrap();
            (self.task.await.unwrap(), self.bench)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_backend_that_is_down_for_ten_minutes_gets_everything_when_it_is_back() {
        let begin = Instant::now();
        let back = begin + Duration::from_secs(600);
        let backend = Backend::new(move |_| {
            (Duration::from_millis(1), if Instant::now() < back { unavailable() } else { OK })
        });
        let mut running = Running::start(&backend);
        (0..50).for_each(|_| running.bench.append("", &[5, 5]));
        running.delivered(500).await;
        assert!(Instant::now() < back + Duration::from_secs(11));
        assert!(backend.requests() < 150, "{}", backend.requests());
        assert!(!running.metrics.is_down());
        let (done, bench) = running.end(|deadline| Stop::Drain { deadline }).await;
        assert!(done);
        let cursor = &bench.outbox.subscription("a").unwrap().cursor;
        assert_eq!(cursor.position(), bench.outbox.log().written());
        bench.close();
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_backend_gets_four_requests_at_once_and_memory_stays_bounded() {
        let backend = Backend::new(|_| (Duration::from_secs(1), OK));
        let mut running = Running::start(&backend);
        (0..100).for_each(|_| running.bench.append("", &[10]));
        tokio::time::sleep(Duration::from_millis(10_500)).await;
        assert_eq!((running.metrics.delivered(), running.metrics.pending().spans), (400, 600));
        assert_eq!(backend.at_once_max.load(Ordering::Relaxed), 4);
        running.delivered(1000).await;
        running.end(|deadline| Stop::Finish { deadline }).await.1.close();
    }

    #[tokio::test(start_paused = true)]
    async fn finishing_waits_for_what_is_under_way_and_begins_nothing() {
        let backend = Backend::new(|_| (Duration::from_secs(1), OK));
        let mut running = Running::start(&backend);
        (0..10).for_each(|_| running.bench.append("", &[10]));
        tokio::time::sleep(Duration::from_millis(500)).await;
        let metrics = running.metrics.clone();
        let (done, bench) = running.end(|deadline| Stop::Finish { deadline }).await;
        assert!(done);
        assert_eq!((metrics.delivered(), metrics.pending().spans, backend.requests()), (40, 60, 4));
        bench.close();
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_ends_what_does_not_end_itself() {
        let backend = Backend::new(|_| (Duration::from_secs(3_600), OK));
        let mut running = Running::start(&backend);
        running.bench.append("", &[10]);
        tokio::time::sleep(Duration::from_millis(500)).await;
        let begin = Instant::now();
        let (done, bench) = running.end(|deadline| Stop::Finish { deadline }).await;
        assert!(!done);
        assert!(begin.elapsed() < Duration::from_secs(6));
        bench.close();
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_delivers_all_that_is_written_without_waiting_for_full_batches() {
        let backend = Backend::new(|_| (Duration::from_millis(1), OK));
        let mut running = Running::start(&backend);
        tokio::time::sleep(Duration::from_millis(10)).await;
        running.bench.append("", &[1]);
        let (metrics, begin) = (running.metrics.clone(), Instant::now());
        let (done, bench) = running.end(|deadline| Stop::Drain { deadline }).await;
        assert!(done);
        assert_eq!(metrics.delivered(), 1);
        assert!(begin.elapsed() < Duration::from_millis(100));
        bench.close();
    }

    #[tokio::test(start_paused = true)]
    async fn kept_is_delivered_or_pending_or_lost_whatever_the_backend_does() {
        let backend = Backend::new(|n| {
            let outcome = match n % 4 {
                0 => unavailable(),
                1 => Outcome::Delivered { rejected: 2, message: "two".to_owned() },
                2 => Outcome::Refused { divisible: true, error: "bad".to_owned() },
                _ => OK,
            };
            (Duration::from_millis(10), outcome)
        });
        let mut running = Running::start(&backend);
        (0..40).for_each(|n| running.bench.append(["", "t"][n % 2], &[3, 1, 2]));
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let metrics = &running.metrics;
            let known = metrics.delivered() + metrics.lost(Lost::Rejected);
            assert_eq!(known + metrics.pending().spans, 240);
        }
        let metrics = running.metrics.clone();
        let minute = |_| Stop::Drain { deadline: Instant::now() + Duration::from_secs(600) };
        let (done, bench) = running.end(minute).await;
        assert!(done);
        assert_eq!(metrics.delivered() + metrics.lost(Lost::Rejected), 240);
        assert!(metrics.lost(Lost::Rejected) > 0);
        bench.close();
    }

    #[tokio::test(start_paused = true)]
    async fn segments_without_pieces_left_do_not_hold_the_cursor() {
        let backend = Backend::new(|_| (Duration::from_millis(1), OK));
        let mut running = Running::start(&backend);
        running.bench.append("", &[1]);
        running.delivered(1).await;
        running.bench.outbox.log().seal();
        let covered = running.bench.outbox.sync().unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        running.bench.outbox.tick(1_000).unwrap();
        running.bench.outbox.delete_settled(covered).unwrap();
        assert!(running.bench.outbox.log().sealed().is_empty());
        running.end(|deadline| Stop::Finish { deadline }).await.1.close();
    }
}
