//! Sends every kept piece to one OTLP backend, over gRPC or HTTP.
//!
//! Promises:
//!
//! - At least once: the cursor passes a piece when the backend has answered for it and for all before it.
//! - Nothing is given up but what the backend refuses for good; that is counted, and logged once a batch. Wrong
//!   credentials are no such refusal: they are tried again every half a minute.
//! - Memory is bounded, about six batches and one piece; a slow backend delays only itself.
//! - Bytes out are the bytes of the outbox. A batch holds whole pieces of one tenant.
//!
//! [`queue`] decides everything; the loop below waits, [`client`] sends, [`feed`] reads.

mod backoff;
mod client;
mod config;
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
use tokio::time::Instant;

pub use backoff::Settings as BackoffSettings;
pub use client::{Client, Transport};
pub use config::{
    Compression, Config, Endpoint, HeaderKey, HeaderText, Invalid, Name, Protocol, Timeout, TlsConfig,
};
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
        }
        events.into_iter().for_each(|event| self.tell(event));
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
