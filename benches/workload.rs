//! OTLP trace requests that look like the traffic of a shop's services, for benches, tests and load generators.
//!
//! A request has about 690 bytes a span. Spans of about 200 traces come interleaved, 8 a trace on average, children
//! before their root; 1 % of the traces hold an error. Everything follows from the seed. The first 16,384 spans of a
//! request size are built with prost; from then on requests are copies of those with other trace IDs, at the speed of
//! a copy.

#![allow(
    unreachable_pub,
    dead_code,
    unused_imports,
    reason = "included by path wherever requests are needed"
)]

use std::collections::HashMap;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;

/// Spans of one round: the requests of a round hold every span of their traces.
const ROUND_SPANS: usize = 16_384;
const LIVE_TRACES: usize = 200;
const SERVICES: u64 = 40;
const FIRST_START: u64 = 1_750_000_000_000_000_000;

/// An endless, deterministic stream of requests.
#[derive(Debug)]
pub struct Generator {
    seed: u64,
    rounds: HashMap<usize, Round>,
}

impl Generator {
    pub fn new(seed: u64) -> Self {
        Self { seed, rounds: HashMap::new() }
    }

    /// The next encoded `ExportTraceServiceRequest`, of `spans` spans (at least one).
    pub fn request(&mut self, spans: usize) -> Vec<u8> {
        let spans = spans.max(1);
        let seed = self.seed;
        self.rounds.entry(spans).or_insert_with(|| Round::new(seed, spans)).request()
    }
}

/// SplitMix64.
#[derive(Debug)]
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, bound: u64) -> u64 {
        ((self.next() as u128 * bound as u128) >> 64) as u64
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

#[derive(Debug)]
struct Trace {
    id: [u8; 16],
    root: [u8; 8],
    spans_left: u64,
    start: u64,
    duration: u64,
    failed: bool,
    trace_state: &'static str,
}

/// An encoded request and where its trace IDs stand.
#[derive(Debug)]
struct Template {
    bytes: Vec<u8>,
    trace_ids: Vec<usize>,
}

impl Template {
    fn new(request: &ExportTraceServiceRequest) -> Self {
        let bytes = request.encode_to_vec();
        let mut trace_ids = Vec::new();
        let mut from = 0;
        for span in spans_of(request) {
            let found = bytes[from..].windows(16).position(|window| window == span.trace_id);
            from += found.expect("an encoded request holds its trace ids in order");
            trace_ids.push(from);
            from += 16;
        }
        Self { bytes, trace_ids }
    }

    /// A copy whose traces are others: the last eight bytes of every trace ID (the random ones) are changed alike.
    fn copy(&self, turn: u64) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let change = Rng(turn).next();
        for &at in &self.trace_ids {
            for (byte, mask) in bytes[at + 8..at + 16].iter_mut().zip(change.to_le_bytes()) {
                *byte ^= mask;
            }
        }
        bytes
    }
}

fn spans_of(request: &ExportTraceServiceRequest) -> impl Iterator<Item = &Span> {
    let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    scopes.flat_map(|scope| &scope.spans)
}

/// All requests of one size; repeated with other trace IDs when they are used up.
#[derive(Debug)]
struct Round {
    rng: Rng,
    spans_per_request: usize,
    planned: usize,
    live: Vec<Trace>,
    templates: Vec<Template>,
    next: usize,
    turn: u64,
}

impl Round {
    fn new(seed: u64, spans_per_request: usize) -> Self {
        let rng = Rng(seed ^ (spans_per_request as u64) << 40);
        let (live, templates) = (Vec::new(), Vec::new());
        Self { rng, spans_per_request, planned: 0, live, templates, next: 0, turn: 0 }
    }

    fn request(&mut self) -> Vec<u8> {
        if self.turn == 0 {
            let template = Template::new(&self.build());
            let bytes = template.bytes.clone();
            self.templates.push(template);
            self.turn = u64::from(self.planned == self.size() && self.live.is_empty());
            return bytes;
        }
        let bytes = self.templates[self.next].copy(self.turn);
        self.next = (self.next + 1) % self.templates.len();
        self.turn += u64::from(self.next == 0);
        bytes
    }

    fn size(&self) -> usize {
        ROUND_SPANS.next_multiple_of(self.spans_per_request)
    }

    fn build(&mut self) -> ExportTraceServiceRequest {
        let resources = (self.spans_per_request / 128).clamp(1, 4);
        let first_service = self.rng.below(SERVICES);
        let mut resource_spans = Vec::new();
        for number in 0..resources {
            let service = (first_service + 7 * number as u64) % SERVICES;
            let spans = share(self.spans_per_request, resources, number);
            resource_spans.push(self.resource_spans(service, spans));
        }
        ExportTraceServiceRequest { resource_spans }
    }

    fn resource_spans(&mut self, service: u64, spans: usize) -> ResourceSpans {
        let scopes = if spans < 16 { 1 } else { 2 + service as usize % 2 };
        let mut scope_spans = Vec::new();
        for number in 0..scopes {
            let (name, version) = SCOPES[(service as usize + number) % SCOPES.len()];
            scope_spans.push(ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: name.to_owned(),
                    version: version.to_owned(),
                    ..Default::default()
                }),
                spans: (0..share(spans, scopes, number)).map(|_| self.span(service)).collect(),
                schema_url: "https://opentelemetry.io/schemas/1.28.0".to_owned(),
            });
        }
        ResourceSpans { resource: Some(resource(service)), scope_spans, schema_url: String::new() }
    }

    /// Begins traces until as many are live as should be, or all of the round have begun.
    fn fill(&mut self) {
        while self.live.len() < LIVE_TRACES && self.planned < self.size() {
            let young = self.planned < LIVE_TRACES;
            let spans = (1 + self.rng.below(15)).min((self.size() - self.planned) as u64);
            // the first ones begin in the middle of their lives, so that not all end together
            let spans_left = if young { 1 + self.rng.below(spans) } else { spans };
            self.planned += spans_left as usize;
            let mut id = [0; 16];
            id[..8].copy_from_slice(&self.rng.next().to_be_bytes());
            id[8..].copy_from_slice(&self.rng.next().to_be_bytes());
            self.live.push(Trace {
                id,
                root: self.rng.next().to_be_bytes(),
                spans_left,
                start: FIRST_START + 1_000_000 * self.planned as u64,
                duration: 200_000 + (-self.rng.unit().max(1e-9).ln() * 4e7) as u64,
                failed: self.rng.one_in(100),
                trace_state: if self.rng.one_in(8) { "vendor=00f067aa0ba902b7" } else { "" },
            });
        }
    }

    fn span(&mut self, service: u64) -> Span {
        self.fill();
        let rng = &mut self.rng;
        let at = rng.below(self.live.len() as u64) as usize;
        let trace = &mut self.live[at];
        trace.spans_left -= 1;
        let root = trace.spans_left == 0;
        let failed = trace.failed && (root || rng.one_in(4));
        let begin = if root { 0 } else { rng.below(trace.duration) };
        let end = if root { trace.duration } else { begin + rng.below(trace.duration - begin) };
        let kind = if root { 2 } else { rng.pick(&[2, 3, 3, 3, 3, 3, 1, 1]) };
        let database = kind == 3 && rng.below(5) < 3;
        let (name, attributes) = match kind {
            1 => internal(rng),
            3 if database => query(rng),
            _ => http(rng, service, kind, failed),
        };
        let end_time = trace.start + end;
        let span = Span {
            trace_id: trace.id.to_vec(),
            span_id: if root { trace.root } else { rng.next().to_be_bytes() }.to_vec(),
            trace_state: trace.trace_state.to_owned(),
            parent_span_id: if root { Vec::new() } else { trace.root.to_vec() },
            flags: 0x101,
            name,
            kind,
            start_time_unix_nano: trace.start + begin,
            end_time_unix_nano: end_time,
            attributes,
            events: events(rng, failed, end_time),
            links: links(rng),
            status: Some(status(failed)),
            ..Default::default()
        };
        if root {
            self.live.swap_remove(at);
        }
        span
    }
}

/// How many of `total` fall to part `number` of `parts`.
fn share(total: usize, parts: usize, number: usize) -> usize {
    total / parts + usize::from(number < total % parts)
}

const SCOPES: [(&str, &str); 6] = [
    ("io.opentelemetry.netty-4.1", "2.11.0-alpha"),
    ("io.opentelemetry.jdbc", "2.11.0-alpha"),
    ("@opentelemetry/instrumentation-undici", "0.12.0"),
    ("go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp", "0.61.0"),
    ("opentelemetry.instrumentation.psycopg", "0.54b1"),
    ("basket", "3.8.1"),
];
const OPERATIONS: [(&str, &str); 10] = [
    ("GET", "/shop/{country}/products/{sku}"),
    ("GET", "/shop/{country}/search"),
    ("POST", "/basket/{basket}/lines"),
    ("GET", "/basket/{basket}"),
    ("POST", "/checkout"),
    ("POST", "/payments/{payment}/capture"),
    ("GET", "/customers/{customer}/orders"),
    ("PUT", "/customers/{customer}/address"),
    ("GET", "/stock/{warehouse}/levels"),
    ("GET", "/healthz"),
];
const AGENTS: [&str; 3] = [
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15",
    "Go-http-client/2.0",
    "axios/1.7.9",
];

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

fn int(key: &str, value: u64) -> KeyValue {
    attribute(key, Value::IntValue(value as i64))
}

fn list(key: &str, values: &[&str]) -> KeyValue {
    let values = values.iter().map(|&value| AnyValue { value: Some(Value::StringValue(value.to_owned())) });
    attribute(key, Value::ArrayValue(ArrayValue { values: values.collect() }))
}

fn resource(service: u64) -> Resource {
    let identity = service.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let attributes = vec![
        text("service.name", format!("shop-{service:02}")),
        text("service.version", "2025.7.1"),
        text("service.namespace", "shop"),
        text("service.instance.id", format!("{identity:016x}-{service:04x}")),
        text("deployment.environment.name", "production"),
        text("telemetry.sdk.language", "go"),
        text("telemetry.sdk.name", "opentelemetry"),
        text("telemetry.sdk.version", "1.36.0"),
        text("host.name", format!("ip-10-2-{service}-80.eu-central-1.compute.internal")),
        text("k8s.pod.name", format!("shop-{service:02}-6c9d7f5b8-q{service:03}z")),
        text("k8s.namespace.name", "shop-production"),
        text("k8s.node.name", format!("node-{}", service % 7)),
        text("container.id", format!("{identity:016x}{:016x}", identity.rotate_left(17)).repeat(2)),
        int("process.pid", 1 + service),
        list("process.command_args", &["/usr/local/bin/shop", "--config", "/etc/shop/production.toml"]),
    ];
    Resource { attributes, ..Default::default() }
}

fn http(rng: &mut Rng, service: u64, kind: i32, failed: bool) -> (String, Vec<KeyValue>) {
    let (method, route) = OPERATIONS[((service + rng.below(4)) % 10) as usize];
    let mut attributes = vec![
        text("http.request.method", method),
        text("url.scheme", "https"),
        text("url.path", format!("{route}/{}", rng.below(1_000_000))),
        text("http.route", route),
        int("http.response.status_code", if failed { 503 } else { 200 }),
        text("server.address", "shop.example.internal"),
        int("server.port", 8443),
        text("network.protocol.version", "2"),
        text("network.peer.address", format!("10.2.{}.{}", rng.below(255), rng.below(255))),
        int("network.peer.port", 32_768 + rng.below(28_000)),
        text("user_agent.original", rng.pick(&AGENTS)),
        int("thread.id", rng.below(400)),
        text("url.query", format!("expand=lines,prices&locale=de-AT&session={:016x}", rng.next())),
        text("client.address", format!("203.0.{}.{}", rng.below(255), rng.below(255))),
    ];
    if kind == 2 {
        attributes.push(text("enduser.id", format!("{:016x}", rng.next())));
    }
    if rng.one_in(3) {
        attributes.push(attribute("shop.cache.hit", Value::BoolValue(true)));
    }
    (format!("{method} {route}"), attributes)
}

fn query(rng: &mut Rng) -> (String, Vec<KeyValue>) {
    let statement = "SELECT id, sku, quantity, price FROM basket_lines WHERE basket_id = $1 AND removed_at IS NULL \
                     ORDER BY added_at DESC LIMIT $2";
    let attributes = vec![
        text("db.system.name", rng.pick(&["postgresql", "redis", "mysql"])),
        text("db.namespace", "shop"),
        text("db.operation.name", "SELECT"),
        text("db.collection.name", "basket_lines"),
        text("db.query.text", statement),
        text("server.address", "basket.cluster-c8x2.eu-central-1.rds.example.com"),
        int("server.port", 5432),
        int("db.response.returned_rows", rng.below(200)),
        text("thread.name", format!("db-pool-{}", rng.below(64))),
        int("thread.id", rng.below(400)),
        text("shop.request.id", identifier(rng)),
        attribute("shop.pool.wait_ms", Value::DoubleValue(rng.unit() * 10.0)),
        text("network.peer.address", format!("10.2.9.{}", rng.below(255))),
    ];
    ("SELECT shop.basket_lines".to_owned(), attributes)
}

fn internal(rng: &mut Rng) -> (String, Vec<KeyValue>) {
    let attributes = vec![
        text("code.function.name", "example.com/shop/basket/pricing.(*Engine).Price"),
        text("code.file.path", "/src/shop/basket/pricing/engine.go"),
        int("code.line.number", 214),
        text("shop.tenant", format!("tenant-{}", rng.below(50))),
        text("shop.feature_flag", "pricing-engine-2"),
        attribute("shop.basket.value", Value::DoubleValue(rng.unit() * 1000.0)),
        int("shop.basket.lines", rng.below(30)),
        text("shop.currency", "EUR"),
        text("thread.name", format!("worker-{}", rng.below(64))),
        int("thread.id", rng.below(400)),
        list("shop.promotions", &["SUMMER", "STAFF10", "FREESHIP"]),
        text("shop.request.id", identifier(rng)),
        text("shop.order.id", format!("{:016x}{:016x}", rng.next(), rng.next())),
    ];
    ("pricing.Engine/Price".to_owned(), attributes)
}

fn identifier(rng: &mut Rng) -> String {
    let (high, low) = (rng.next(), rng.next());
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high as u32,
        high >> 48,
        high >> 32 & 0xfff,
        low >> 48,
        low >> 16
    )
}

fn events(rng: &mut Rng, failed: bool, time_unix_nano: u64) -> Vec<Event> {
    if failed {
        let stack = "\n\tat example.com/shop/client.(*Client).Call(client.go:91)".repeat(8);
        let attributes = vec![
            text("exception.type", "*net.OpError"),
            text("exception.message", "read tcp 10.2.0.7:443: i/o timeout"),
            text("exception.stacktrace", stack),
        ];
        let name = "exception".to_owned();
        return vec![Event { time_unix_nano, name, attributes, ..Default::default() }];
    }
    if !rng.one_in(4) {
        return Vec::new();
    }
    let attributes = vec![
        text("rpc.message.type", "SENT"),
        int("rpc.message.id", 1),
        int("rpc.message.size", rng.below(4000)),
    ];
    vec![Event { time_unix_nano, name: "message".to_owned(), attributes, ..Default::default() }]
}

fn links(rng: &mut Rng) -> Vec<Link> {
    if !rng.one_in(20) {
        return Vec::new();
    }
    vec![Link {
        trace_id: [rng.next().to_be_bytes(), rng.next().to_be_bytes()].concat(),
        span_id: rng.next().to_be_bytes().to_vec(),
        attributes: vec![text("messaging.operation.name", "process")],
        ..Default::default()
    }]
}

fn status(failed: bool) -> Status {
    let message = if failed { "read timed out" } else { "" };
    Status { message: message.to_owned(), code: if failed { 2 } else { 0 } }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn requests_have_their_spans_at_about_690_bytes_and_repeat_with_other_traces() {
        let mut generator = Generator::new(1);
        let mut bytes = 0;
        let mut roots = HashSet::new();
        let mut traces = HashSet::new();
        let requests = 2 * ROUND_SPANS / 512;
        for _ in 0..requests {
            let encoded = generator.request(512);
            bytes += encoded.len();
            let request = ExportTraceServiceRequest::decode(encoded.as_slice()).unwrap();
            assert_eq!(spans_of(&request).count(), 512);
            for span in spans_of(&request) {
                traces.insert(span.trace_id.clone());
                if span.parent_span_id.is_empty() {
                    assert!(roots.insert(span.trace_id.clone()), "one root a trace");
                }
            }
        }
        assert_eq!(traces, roots, "every trace has its root within the round");
        let spans_per_trace = 2.0 * ROUND_SPANS as f64 / traces.len() as f64;
        assert!((7.0..9.0).contains(&spans_per_trace), "{spans_per_trace}");
        let bytes_per_span = bytes / (requests * 512);
        assert!((670..710).contains(&bytes_per_span), "{bytes_per_span}");
    }
}
