//! The receiver's way into the engine: admission, storing, and the wait until it is safe to acknowledge.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;

use super::budget::{self, Budget};
use super::disk::DiskBudget;
use super::engine::{Engine, Unstored};
use crate::log::WriteFailed;
use crate::log::record::RECORD_HEADER;
use crate::receiver::{self, Accepted, Rejection};

/// When a refused sender should come back: segments retire many times a second.
const RETRY_MEMORY: Duration = Duration::from_secs(1);
/// An exporter may need longer.
const RETRY_DISK: Duration = Duration::from_secs(5);

/// See the module. Clones lead to the same engine.
#[derive(Clone, Debug)]
pub(super) struct Intake {
    engine: Arc<Engine>,
    budget: Arc<Budget>,
    disk: Arc<DiskBudget>,
    closed: Arc<AtomicBool>,
}

impl Intake {
    pub(super) fn new(engine: Arc<Engine>, budget: Arc<Budget>, disk: Arc<DiskBudget>) -> Self {
        Self { engine, budget, disk, closed: Arc::default() }
    }

    /// Refuses what comes from now on.
    pub(super) fn close(&self) {
        self.closed.store(true, Relaxed);
    }
}

/// Bytes of a request in the memory budget.
#[derive(Debug)]
pub(super) struct Room(budget::Room);

impl receiver::Room for Room {
    fn grow(&mut self, bytes: usize) -> Result<(), Rejection> {
        if self.0.grow(bytes) { Ok(()) } else { Err(overloaded()) }
    }
}

impl receiver::Intake for Intake {
    type Room = Room;

    fn admit(&self, bytes: usize) -> Result<Room, Rejection> {
        if self.closed.load(Relaxed) {
            return Err(Rejection::ShuttingDown);
        }
        if self.disk.refuses() || self.engine.input.as_ref().is_some_and(|input| input.stalled().is_some()) {
            return Err(Rejection::DiskFull { retry_after: RETRY_DISK });
        }
        if self.engine.input.as_ref().is_some_and(|input| !input.has_room(bytes)) {
            return Err(overloaded());
        }
        self.budget.take(bytes).map(Room).ok_or_else(overloaded)
    }

    async fn receive(&self, room: Room, tenant: &str, body: Bytes) -> Result<Accepted, Rejection> {
        let stored = self.engine.receive(tenant, &body).map_err(rejection)?;
        let bytes = RECORD_HEADER + tenant.len() + body.len();
        // The log has a copy and is charged for it.
        drop((room, body));
        if let (Some(end), Some(input)) = (stored.end, &self.engine.input) {
            self.disk.grew(bytes as u64);
            input.wait(end).await.map_err(unwritten)?;
        }
        Ok(Accepted { rejected: stored.rejected, reason: stored.fault })
    }
}

fn overloaded() -> Rejection {
    Rejection::Overloaded { retry_after: RETRY_MEMORY }
}

fn rejection(unstored: Unstored) -> Rejection {
    match unstored {
        Unstored::Malformed(malformed) => Rejection::Malformed(malformed.to_string()),
        Unstored::Tenants(error) => Rejection::Tenants(error.to_string()),
        Unstored::TooLarge(_) => Rejection::TooLarge,
    }
}

fn unwritten(error: WriteFailed) -> Rejection {
    match error {
        WriteFailed::Stalled(_) => Rejection::DiskFull { retry_after: RETRY_DISK },
        WriteFailed::Closed(_) => Rejection::ShuttingDown,
    }
}
