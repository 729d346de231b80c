//! Reads the outbox beside the loop: on a thread that may wait for the disk.

use std::io;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::exporter::metrics::Obstacle;
use crate::exporter::outbox::{Parcel, Subscription, Tail};
use crate::trace::Position;

/// After a disk has failed to read.
const AGAIN: Duration = Duration::from_secs(1);

type Reading = JoinHandle<(Tail, io::Result<Vec<Parcel>>)>;

/// The end of the outbox that one exporter reads.
#[derive(Debug)]
pub(super) struct Feed {
    subscription: Subscription,
    read_bytes: usize,
    /// Of tail and read under way there is one.
    tail: Option<Tail>,
    reading: Option<Reading>,
    /// Behind everything that `next` has given.
    position: Position,
    exhausted: bool,
    failing: bool,
    /// The end may have moved since the read that is under way began.
    recheck: bool,
}

impl Feed {
    pub(super) fn new(tail: Tail, read_bytes: usize) -> Self {
        Self {
            subscription: tail.subscription().clone(),
            read_bytes,
            position: tail.position(),
            tail: Some(tail),
            reading: None,
            exhausted: false,
            failing: false,
            recheck: false,
        }
    }

    pub(super) fn subscription(&self) -> &Subscription {
        &self.subscription
    }

    pub(super) fn position(&self) -> Position {
        self.position
    }

    /// All that was written has been given.
    pub(super) fn is_exhausted(&self) -> bool {
        self.exhausted
    }

    /// What was written until now counts as the end, whatever was known of it.
    pub(super) fn look_again(&mut self) {
        self.exhausted = false;
        self.recheck = self.reading.is_some();
    }

    /// The next pieces; waits for some, but says once that there are none. May be dropped at any await.
    pub(super) async fn next(&mut self) -> Vec<Parcel> {
        loop {
            if self.failing {
                tokio::time::sleep(AGAIN).await;
                self.failing = false;
            }
            if let Some(tail) = &mut self.tail {
                if self.exhausted && !tail.changed().await {
                    std::future::pending().await
                }
                self.begin();
            }
            if let Some(parcels) = self.finish().await {
                return parcels;
            }
        }
    }

    fn begin(&mut self) {
        self.exhausted = false;
        let bytes = self.read_bytes;
        self.reading = self.tail.take().map(|mut tail| {
            tokio::task::spawn_blocking(move || {
                let read = tail.read(bytes);
                (tail, read)
            })
        });
    }

    async fn finish(&mut self) -> Option<Vec<Parcel>> {
        let handle = self.reading.as_mut()?;
        let (tail, read) = match handle.await {
            Ok(done) => done,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        self.position = tail.position();
        self.tail = Some(tail);
        self.reading = None;
        match read {
            Ok(parcels) => {
                self.subscription.metrics.disk_works();
                self.exhausted = parcels.is_empty() && !std::mem::take(&mut self.recheck);
                Some(parcels)
            }
            Err(error) => {
                let exporter = self.subscription.cursor.exporter();
                let text = format!("read the outbox: {error}");
                if self.subscription.metrics.failed(Obstacle::Disk, &text) {
                    tracing::error!(exporter, %error, "cannot read the outbox, trying again");
                }
                self.failing = true;
                None
            }
        }
    }
}
