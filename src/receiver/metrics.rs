//! What the receiver counts. Plain atomics, read by telemetry.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::rejection::{Cause, Rejection};
use super::server::Connections;

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Grpc,
    HttpProtobuf,
    HttpJson,
}

impl Transport {
    pub const ALL: [Self; 3] = [Self::Grpc, Self::HttpProtobuf, Self::HttpJson];

    pub fn label(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::HttpProtobuf => "http_protobuf",
            Self::HttpJson => "http_json",
        }
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Accepted,
    /// Accepted but for some spans.
    Partial,
    Refused(Cause),
}

const OUTCOMES: usize = 2 + Cause::ALL.len();

impl Outcome {
    fn index(self) -> usize {
        match self {
            Self::Accepted => 0,
            Self::Partial => 1,
            Self::Refused(cause) => 2 + cause as usize,
        }
    }

    fn all() -> impl Iterator<Item = Self> {
        [Self::Accepted, Self::Partial].into_iter().chain(Cause::ALL.map(Self::Refused))
    }

    pub fn label(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Partial => "partial",
            Self::Refused(cause) => cause.label(),
        }
    }
}

/// The counters of one receiver, since the process began.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: [[AtomicU64; OUTCOMES]; Transport::ALL.len()],
    refused_bytes: [AtomicU64; Cause::ALL.len()],
    /// Connections of both ports.
    pub connections: Arc<Connections>,
}

impl Metrics {
    pub(super) fn accepted(&self, transport: Transport, rejected_spans: u32) {
        let outcome = if rejected_spans == 0 { Outcome::Accepted } else { Outcome::Partial };
        self.requests[transport as usize][outcome.index()].fetch_add(1, Relaxed);
    }

    pub(super) fn refused(&self, transport: Transport, rejection: &Rejection, bytes: u64) {
        let cause = rejection.cause();
        self.requests[transport as usize][Outcome::Refused(cause).index()].fetch_add(1, Relaxed);
        self.refused_bytes[cause as usize].fetch_add(bytes, Relaxed);
    }

    /// Requests by transport and outcome: `tailwater_receiver_requests_total`.
    pub fn requests(&self) -> impl Iterator<Item = (Transport, Outcome, u64)> {
        Transport::ALL.into_iter().flat_map(move |transport| {
            Outcome::all().map(move |outcome| (transport, outcome, self.requested(transport, outcome)))
        })
    }

    /// Requests of one transport that ended so.
    pub fn requested(&self, transport: Transport, outcome: Outcome) -> u64 {
        self.requests[transport as usize][outcome.index()].load(Relaxed)
    }

    /// Refused requests by cause, over all transports: `tailwater_receiver_refused_requests_total`.
    pub fn refused_requests(&self) -> impl Iterator<Item = (Cause, u64)> {
        Cause::ALL.into_iter().map(move |cause| {
            let outcome = Outcome::Refused(cause);
            (cause, Transport::ALL.into_iter().map(|transport| self.requested(transport, outcome)).sum())
        })
    }

    /// Wire bytes of refused requests as far as they were read or announced, of each at most what would have been read: `tailwater_receiver_refused_bytes_total`.
    pub fn refused_bytes(&self) -> impl Iterator<Item = (Cause, u64)> {
        Cause::ALL.into_iter().map(move |cause| (cause, self.refused_bytes[cause as usize].load(Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_index_their_own_counter() {
        for (index, cause) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, index);
        }
        for (index, transport) in Transport::ALL.into_iter().enumerate() {
            assert_eq!(transport as usize, index);
        }
    }

    #[test]
    fn requests_are_counted_by_transport_and_outcome() {
        let metrics = Metrics::default();
        metrics.accepted(Transport::Grpc, 0);
        metrics.accepted(Transport::HttpJson, 2);
        metrics.refused(Transport::Grpc, &Rejection::TooLarge, 17);
        metrics.refused(Transport::HttpProtobuf, &Rejection::TooLarge, 3);
        let counted: Vec<_> = metrics.requests().filter(|(.., count)| *count > 0).collect();
        assert_eq!(
            counted,
            [
                (Transport::Grpc, Outcome::Accepted, 1),
                (Transport::Grpc, Outcome::Refused(Cause::TooLarge), 1),
                (Transport::HttpProtobuf, Outcome::Refused(Cause::TooLarge), 1),
                (Transport::HttpJson, Outcome::Partial, 1),
            ]
        );
        assert!(metrics.refused_requests().any(|refused| refused == (Cause::TooLarge, 2)));
        assert!(metrics.refused_bytes().any(|refused| refused == (Cause::TooLarge, 20)));
    }
}
