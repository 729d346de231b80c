//! An exporter without its loop and its connection, for simulations: whoever holds it reads, sends and says
//! what became of it, one step at a time.

use std::io;

use tokio::time::Instant;

use super::outcome::Outcome;
use super::queue::{Queue, Request, Settings};
use crate::exporter::outbox::{Subscription, Tail};

/// See the module.
#[derive(Debug)]
pub struct ByHand {
    tail: Tail,
    queue: Queue,
    batch_bytes: usize,
}

impl ByHand {
    pub fn new(tail: Tail, settings: Settings) -> Self {
        let queue = Queue::new(settings, tail.subscription().metrics.clone());
        Self { tail, queue, batch_bytes: settings.batch_bytes }
    }

    /// Reads what there is room for. Returns how many pieces those were.
    pub fn read(&mut self, now: Instant) -> io::Result<usize> {
        if !self.queue.wants() {
            return Ok(0);
        }
        let parcels = self.tail.read(self.batch_bytes)?;
        let read = parcels.len();
        parcels.into_iter().for_each(|parcel| self.queue.push(parcel, now));
        let (subscription, position) = (self.tail.subscription(), self.tail.position());
        if self.queue.is_empty() && position > subscription.cursor.position() {
            subscription.advance(position);
        }
        Ok(read)
    }

    /// A request that may start now.
    pub fn next(&mut self, now: Instant) -> Option<Request> {
        self.queue.next(now)
    }

    /// What became of a request. `random` is in 0..1.
    pub fn settle(&mut self, id: u64, outcome: Outcome, now: Instant, random: f64) {
        self.queue.settle(id, outcome, now, random);
        if let Some(position) = self.queue.reached() {
            self.subscription().advance(position);
        }
    }

    /// Nothing more comes soon: batches need not fill.
    pub fn flush(&mut self) {
        self.queue.flush();
    }

    /// Nothing that was read waits for its fate.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub fn subscription(&self) -> &Subscription {
        self.tail.subscription()
    }
}
