//! Parquet of the workload stream: spans a second on one core, bytes a span.
//!
//! `cargo bench --bench parquet`

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a bench")]

mod workload;

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use tailwater::exporter::parquet::{Piece, PieceKey, Pieces, Segment, encode};
use tailwater::trace::{Position, Reason, Threshold, TraceId, WeightRule};
use uuid::Uuid;

/// Spans that a generator makes before it repeats itself under other trace IDs.
const DISTINCT: usize = 16_384;
const SEEDS: u64 = 4;
const ROUNDS: usize = 15;

/// Pieces in memory, numbered by their position's offset.
struct Memory(Vec<Piece>);

impl Pieces for Memory {
    fn read(&self, key: &PieceKey) -> io::Result<Piece> {
        Ok(self.0[key.position.offset as usize].clone())
    }
}

fn main() {
    let (pieces, keys) = pieces();
    let segment = Segment { uuid: Uuid::from_u128(1), opened_ms: 1_750_000_000_000 };
    let outbox: usize = pieces.0.iter().map(|piece| piece.otlp.len()).sum();
    let (mut best, mut rows, mut bytes) = (f64::MAX, 0, 0);
    for _ in 0..ROUNDS {
        let mut file = Vec::new();
        let began = cpu_seconds();
        let summary = encode(&pieces, keys.clone(), &segment, &mut file).unwrap();
        best = best.min(cpu_seconds() - began);
        (rows, bytes) = (summary.rows, file.len() as u64);
        if let Ok(path) = std::env::var("PARQUET_OUT") {
            std::fs::write(path, &file).unwrap();
        }
    }
    println!(
        "{rows} spans of {} pieces, {} B of outbox a span: {:.0} k spans/s, {:.0} ns and {:.1} B a span",
        pieces.0.len(),
        outbox / rows as usize,
        rows as f64 / best / 1e3,
        best * 1e9 / rows as f64,
        bytes as f64 / rows as f64,
    );
}

/// CPU time of this thread: what others do on the machine does not count.
fn cpu_seconds() -> f64 {
    let spent = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    spent.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

/// The stream cut into traces: one piece each, resources and scopes repeated as a piece has them.
fn pieces() -> (Memory, Vec<PieceKey>) {
    let mut traces: BTreeMap<Vec<u8>, ExportTraceServiceRequest> = BTreeMap::new();
    let streams = (0..SEEDS).flat_map(|seed| {
        let mut stream = workload::Generator::new(seed);
        std::iter::repeat_with(move || stream.request(512)).take(DISTINCT / 512)
    });
    for request in streams {
        let request = ExportTraceServiceRequest::decode(&*request).unwrap();
        for resource_spans in request.resource_spans {
            for scope_spans in &resource_spans.scope_spans {
                for span in &scope_spans.spans {
                    let piece = traces.entry(span.trace_id.clone()).or_default();
                    add(piece, &resource_spans, scope_spans, span.clone());
                }
            }
        }
    }
    let mut keys = Vec::new();
    let mut pieces = Vec::new();
    for (trace_id, request) in traces {
        let position = Position::new(1, pieces.len() as u32);
        let piece = piece(&request);
        let (trace_id, len) = (TraceId::valid(&trace_id).unwrap(), piece.otlp.len() as u32);
        keys.push(PieceKey { trace_id, position, len });
        pieces.push(piece);
    }
    (Memory(pieces), keys)
}

type ResourceSpans = opentelemetry_proto::tonic::trace::v1::ResourceSpans;
type ScopeSpans = opentelemetry_proto::tonic::trace::v1::ScopeSpans;
type Span = opentelemetry_proto::tonic::trace::v1::Span;

fn add(piece: &mut ExportTraceServiceRequest, of: &ResourceSpans, scope: &ScopeSpans, span: Span) {
    let all = &mut piece.resource_spans;
    let same =
        all.iter().position(|other| other.resource == of.resource && other.schema_url == of.schema_url);
    let resource_spans = match same {
        Some(at) => &mut all[at],
        None => {
            all.push(ResourceSpans {
                resource: of.resource.clone(),
                scope_spans: vec![],
                schema_url: of.schema_url.clone(),
            });
            all.last_mut().unwrap()
        }
    };
    let all = &mut resource_spans.scope_spans;
    match all.iter_mut().find(|other| other.scope == scope.scope && other.schema_url == scope.schema_url) {
        Some(same) => same.spans.push(span),
        None => all.push(ScopeSpans {
            scope: scope.scope.clone(),
            spans: vec![span],
            schema_url: scope.schema_url.clone(),
        }),
    }
}

fn piece(request: &ExportTraceServiceRequest) -> Piece {
    let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    Piece {
        policy: "rest".into(),
        reason: Reason::Root,
        rule: WeightRule::Threshold,
        threshold: Threshold(0),
        whole: true,
        complete: true,
        decided_at_ms: 1_750_000_000_000,
        spans: scopes.map(|scope| scope.spans.len() as u32).sum(),
        otlp: Bytes::from(request.encode_to_vec()),
    }
}
