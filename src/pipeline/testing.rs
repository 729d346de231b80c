//! An engine for unit tests, and what to feed it.

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use uuid::Uuid;

use super::clock::Clock;
use super::engine::{Engine, Parts};
use crate::buffer::{self, Buffer, Waits};
use crate::log::Memory;
use crate::sampler::{Policies, Slow};
use crate::telemetry::Ledger;
use crate::trace::TraceId;

/// Its first segment.
pub(super) const FIRST: u32 = 7;

/// A clock that stands.
#[derive(Debug)]
struct At(u64);

impl Clock for At {
    fn arrival_ms(&self) -> u64 {
        self.0
    }

    fn elapsed_ms(&self) -> u64 {
        0
    }

    fn start(&self) {}
}

/// An engine that begins at [`FIRST`], without an input log.
pub(super) fn engine(now_ms: u64) -> Engine {
    let waits = Waits { after_root_ms: 10_000, max_wait_ms: 60_000, hindsight_ms: 300_000 };
    let settings = buffer::Settings { waits, piece_bytes: 1 << 24, remembered_max: 10, hash_seed: 1 };
    let policies = Policies::compile(&crate::config::Config::default().policies, 0).unwrap();
    Engine::new(Parts {
        memory: Arc::new(Memory::new(1 << 20, FIRST)),
        buffer: Buffer::new(&settings),
        slow: Slow::new(&policies.percentiles()),
        ledger: Arc::new(Ledger::new(policies.names())),
        policies,
        roots: None,
        clock: Arc::new(At(now_ms)),
        input: None,
        max_wait_ms: waits.max_wait_ms,
        hash_key: None,
        instance: Uuid::nil(),
    })
}

/// A request with so many root spans of a trace.
pub(super) fn request(trace: TraceId, spans: usize) -> Vec<u8> {
    let span = |number: u64| Span {
        trace_id: trace.0.to_vec(),
        span_id: number.to_be_bytes().to_vec(),
        ..Span::default()
    };
    let spans = (1..=spans as u64).map(span).collect();
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    let resource_spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}
