//! The receiver's way into the engine: admission, storing, and the wait until it is safe to acknowledge.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use tracing::warn;

use super::budget::{self, Budget};
use super::disk::DiskBudget;
use super::engine::{Engine, Unstored};
use crate::log::WriteFailed;
use crate::log::record::record_len;
use crate::log::segment::SEGMENT_HEADER;
use crate::receiver::{self, Accepted, Rejection};
use crate::trace::{Position, TENANTS_MAX};

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
    /// That there is no room for more tenants is told once.
    tenants_told: Arc<AtomicBool>,
}

impl Intake {
    pub(super) fn new(engine: Arc<Engine>, budget: Arc<Budget>, disk: Arc<DiskBudget>) -> Self {
        Self { engine, budget, disk, closed: Arc::default(), tenants_told: Arc::default() }
    }

    /// Refuses what comes from now on.
    pub(super) fn close(&self) {
        self.closed.store(true, Relaxed);
    }

    /// A tenant that is refused is refused for good, so somebody should hear of it.
    fn tell(&self, unstored: &Unstored) {
        if matches!(unstored, Unstored::Tenants(_)) && !self.tenants_told.swap(true, Relaxed) {
            warn!("there are {TENANTS_MAX} tenants already: requests of others are refused until a restart");
        }
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

    async fn receive(&self, mut room: Room, tenant: &str, body: Bytes) -> Result<Accepted, Rejection> {
        let stored = self.engine.receive(tenant, &body, |bytes| room.0.grow(bytes));
        let stored = stored.map_err(|unstored| {
            self.tell(&unstored);
            rejection(unstored)
        })?;
        let record = record_len(tenant.len(), body.len());
        // The log has a copy and is charged for it.
        drop((room, body));
        if let (Some(end), Some(input)) = (stored.end, &self.engine.input) {
            self.disk.grew(on_disk(record, end));
            input.wait(end).await.map_err(unwritten)?;
        }
        Ok(Accepted { rejected: stored.rejected, reason: stored.fault })
    }
}

/// Bytes by which a record that ends at `end` makes the input log grow: the first of a segment brings its header.
fn on_disk(record: usize, end: Position) -> u64 {
    let first = end.offset as usize == SEGMENT_HEADER + record;
    (if first { SEGMENT_HEADER + record } else { record }) as u64
}

fn overloaded() -> Rejection {
    Rejection::Overloaded { retry_after: RETRY_MEMORY }
}

fn rejection(unstored: Unstored) -> Rejection {
    match unstored {
        Unstored::Malformed(malformed) => Rejection::Malformed(malformed.to_string()),
        Unstored::Tenants(error) => Rejection::Tenants(error.to_string()),
        Unstored::TooLarge(_) => Rejection::TooLarge,
        Unstored::NoRoom => overloaded(),
    }
}

fn unwritten(error: WriteFailed) -> Rejection {
    match error {
        WriteFailed::Stalled(_) => Rejection::DiskFull { retry_after: RETRY_DISK },
        WriteFailed::Closed(_) => Rejection::ShuttingDown,
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
    use prost::Message;

    use super::*;
    use crate::config::MEMORY_MIN;
    use crate::pipeline::testing::{engine, request};
    use crate::receiver::Intake as _;
    use crate::trace::TraceId;

    fn intake(limit: usize) -> Intake {
        let engine = Arc::new(engine(1_700_000_000_000));
        let budget = Arc::new(Budget::new(limit, engine.memory.clone()));
        Intake::new(engine, budget, Arc::new(DiskBudget::new(1 << 30)))
    }

    #[tokio::test]
    async fn a_request_of_which_the_index_has_no_room_is_refused() {
        let body = Bytes::from(request(TraceId([1; 16]), 1_000));
        let room_for_bytes = intake(4 * body.len());
        let room = room_for_bytes.admit(body.len()).unwrap();
        assert_eq!(room_for_bytes.receive(room, "", body.clone()).await.unwrap_err(), overloaded());
        assert_eq!((room_for_bytes.budget.used(), room_for_bytes.engine.buffer.counts().spans), (0, 0));
        let room_for_all = intake(20 * body.len());
        let room = room_for_all.admit(body.len()).unwrap();
        room_for_all.receive(room, "", body.clone()).await.unwrap();
        assert!(room_for_all.budget.used() > body.len() + 1_000 * 16);
    }

    /// A request of about so many bytes, with spans of half a kilobyte.
    fn large(bytes: usize) -> Bytes {
        let span = |n: usize| Span {
            trace_id: (n as u128 + 1).to_be_bytes().to_vec(),
            span_id: vec![1; 8],
            name: "x".repeat(460),
            ..Span::default()
        };
        let scope_spans =
            vec![ScopeSpans { spans: (0..bytes / 490).map(span).collect(), ..ScopeSpans::default() }];
        let resource_spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
        ExportTraceServiceRequest { resource_spans }.encode_to_vec().into()
    }

    #[tokio::test]
    async fn the_smallest_memory_takes_the_largest_request_again_and_again() {
        let body = large(15 << 20);
        assert!((15 << 20..16 << 20).contains(&body.len()));
        let intake = intake(MEMORY_MIN.as_u64() as usize);
        for _ in 0..5 {
            let sent = async || intake.receive(intake.admit(body.len())?, "", body.clone()).await;
            if sent().await.is_err() {
                // As the keeper does before the sender comes again.
                while intake.budget.excess() > 0 {
                    assert!(intake.engine.memory.retire_oldest().is_some(), "nothing is left to retire");
                }
                sent().await.unwrap();
            }
            assert!(!intake.budget.is_overdrawn());
        }
    }

    #[test]
    fn the_first_record_of_a_segment_brings_its_header() {
        assert_eq!(on_disk(100, Position::new(1, 148)), 148);
        assert_eq!(on_disk(100, Position::new(1, 248)), 100);
    }
}
