//! Traces whose truth is known, and spans as they arrive.

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};

use super::Random;

pub type SpanKey = ([u8; 16], [u8; 8]);

pub const MILLISECOND: u64 = 1_000_000;
/// When the first trace of a test starts: some day, never compared with the clock.
const FIRST_START: u64 = 1_750_000_000_000_000_000;

/// A span with all that stands above it.
#[derive(Clone, Debug, PartialEq)]
pub struct FullSpan {
    pub resource: Arc<Resource>,
    pub resource_schema_url: String,
    pub scope: Arc<InstrumentationScope>,
    pub scope_schema_url: String,
    pub span: Span,
}

impl FullSpan {
    pub fn key(&self) -> SpanKey {
        key_of(&self.span)
    }
}

pub fn key_of(span: &Span) -> SpanKey {
    (span.trace_id.as_slice().try_into().unwrap(), span.span_id.as_slice().try_into().unwrap())
}

/// Every span of a request, with all that stands above it.
pub fn full_spans(request: ExportTraceServiceRequest) -> impl Iterator<Item = FullSpan> {
    request.resource_spans.into_iter().flat_map(|above| {
        let (resource, resource_schema_url) =
            (Arc::new(above.resource.unwrap_or_default()), above.schema_url);
        above.scope_spans.into_iter().flat_map(move |group| {
            let (resource, resource_schema_url) = (resource.clone(), resource_schema_url.clone());
            let (scope, scope_schema_url) = (Arc::new(group.scope.unwrap_or_default()), group.schema_url);
            group.spans.into_iter().map(move |span| FullSpan {
                resource: resource.clone(),
                resource_schema_url: resource_schema_url.clone(),
                scope: scope.clone(),
                scope_schema_url: scope_schema_url.clone(),
                span,
            })
        })
    })
}

/// The keys of all spans of a request.
pub fn keys_of(request: &ExportTraceServiceRequest) -> impl Iterator<Item = SpanKey> {
    let groups = request.resource_spans.iter().flat_map(|above| &above.scope_spans);
    groups.flat_map(|group| &group.spans).map(key_of)
}

/// Randomness from which a share of half keeps.
pub const HALF: u64 = 1 << 55;

/// The 56 bits that a share is compared with: those of the trace ID.
pub fn randomness(trace_id: &[u8; 16]) -> u64 {
    u64::from_be_bytes(trace_id[8..].try_into().unwrap()) & ((1 << 56) - 1)
}

/// A trace through the services `frontend` and `backend`: a root, and children that end before it.
#[derive(Clone, Debug)]
pub struct Trace {
    pub id: [u8; 16],
    pub root_name: String,
    pub duration: u64,
    pub failed: bool,
    pub trace_state: String,
    pub spans: usize,
    seed: u64,
}

impl Trace {
    /// A trace of three spans that takes 10 ms.
    pub fn new(random: &mut Random) -> Self {
        Self {
            id: random.trace_id(),
            root_name: "GET /cart".to_owned(),
            duration: 10 * MILLISECOND,
            failed: false,
            trace_state: String::new(),
            spans: 3,
            seed: random.next(),
        }
    }

    /// So many of them.
    pub fn some(count: usize, random: &mut Random) -> Vec<Self> {
        (0..count).map(|_| Self::new(random)).collect()
    }

    pub fn named(self, root_name: &str) -> Self {
        Self { root_name: root_name.to_owned(), ..self }
    }

    /// One of its children has the status error.
    pub fn failed(self) -> Self {
        Self { failed: true, ..self }
    }

    pub fn randomness(&self) -> u64 {
        randomness(&self.id)
    }

    pub fn keys(&self) -> Vec<SpanKey> {
        self.build().map(|(_, span)| key_of(&span)).collect()
    }

    /// Its spans, root first, each with the name of its service.
    pub fn build(&self) -> impl Iterator<Item = (&'static str, Span)> {
        let mut random = Random(self.seed);
        let ids: Vec<_> = (0..self.spans).map(|_| random.span_id()).collect();
        let start = FIRST_START + self.seed % 1_000 * MILLISECOND;
        (0..self.spans).map(move |n| {
            let root = n == 0;
            let service = if n % 2 == 0 { "frontend" } else { "backend" };
            let failed = self.failed && n == 1.min(self.spans - 1);
            let span = Span {
                trace_id: self.id.to_vec(),
                span_id: ids[n].to_vec(),
                parent_span_id: if root { Vec::new() } else { ids[0].to_vec() },
                trace_state: self.trace_state.clone(),
                name: if root { self.root_name.clone() } else { format!("step {n}") },
                kind: if root { SpanKind::Server } else { SpanKind::Client } as i32,
                start_time_unix_nano: start + n as u64,
                end_time_unix_nano: if root { start + self.duration } else { start + self.duration / 2 },
                attributes: vec![
                    text("app.request.id", &format!("{:016x}", random.next())),
                    integer("n", n as i64),
                ],
                status: failed
                    .then(|| Status { code: StatusCode::Error as i32, message: "it broke".to_owned() }),
                flags: 0x101,
                ..Span::default()
            };
            (service, span)
        })
    }
}

/// One request that holds all these traces.
pub fn request(traces: &[Trace]) -> ExportTraceServiceRequest {
    request_of(traces.iter().flat_map(Trace::build))
}

/// One request of these spans, gathered by service.
pub fn request_of(spans: impl IntoIterator<Item = (&'static str, Span)>) -> ExportTraceServiceRequest {
    let mut services: Vec<(&str, Vec<Span>)> = Vec::new();
    for (service, span) in spans {
        match services.iter_mut().find(|(known, _)| *known == service) {
            Some((_, spans)) => spans.push(span),
            None => services.push((service, vec![span])),
        }
    }
    let resource_spans = services.into_iter().map(|(service, spans)| service_spans(service, spans)).collect();
    ExportTraceServiceRequest { resource_spans }
}

fn service_spans(service: &str, spans: Vec<Span>) -> ResourceSpans {
    let resource = Resource { attributes: vec![text("service.name", service)], ..Resource::default() };
    let scope = InstrumentationScope {
        name: "tailwater.test".to_owned(),
        version: "1.2.3".to_owned(),
        ..InstrumentationScope::default()
    };
    ResourceSpans {
        resource: Some(resource),
        scope_spans: vec![ScopeSpans { scope: Some(scope), spans, schema_url: String::new() }],
        schema_url: String::new(),
    }
}

pub fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

pub fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

pub fn integer(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}
