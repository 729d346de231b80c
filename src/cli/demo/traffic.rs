//! The traffic of a shop: requests through several services, some slow, some failing, a queue, and browsers
//! that hold a WebSocket connection for a while.
//!
//! Plain values: given the time, it says which spans have ended by then.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, SpanKind};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, status::StatusCode};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// One operation of one service, what it costs and whom it calls.
struct Operation {
    service: &'static str,
    name: &'static str,
    kind: SpanKind,
    /// Of its own work, in milliseconds.
    median_ms: f64,
    /// How far the slow ones are from the median: the logarithm's standard deviation.
    spread: f64,
    failures_per_mille: u32,
    attributes: &'static [(&'static str, &'static str)],
    calls: &'static [&'static Self],
}

const HTTP_GET: &[(&str, &str)] = &[("http.request.method", "GET"), ("url.scheme", "https")];
const HTTP_POST: &[(&str, &str)] = &[("http.request.method", "POST"), ("url.scheme", "https")];
const POSTGRES: &[(&str, &str)] = &[("db.system.name", "postgresql"), ("db.namespace", "shop")];
const REDIS: &[(&str, &str)] = &[("db.system.name", "redis")];
const GRPC: &[(&str, &str)] = &[("rpc.system", "grpc")];
const KAFKA: &[(&str, &str)] = &[("messaging.system", "kafka"), ("messaging.destination.name", "orders")];
const WEBSOCKET: &[(&str, &str)] = &[("network.protocol.name", "websocket")];

#[rustfmt::skip]
mod operations {
    use super::*;

    #[expect(clippy::too_many_arguments, reason = "a row of the table below")]
    const fn operation(
        service: &'static str, name: &'static str, kind: SpanKind, median_ms: f64, spread: f64,
        failures_per_mille: u32, attributes: &'static [(&'static str, &'static str)],
        calls: &'static [&'static Operation],
    ) -> Operation {
        Operation { service, name, kind, median_ms, spread, failures_per_mille, attributes, calls }
    }

    use SpanKind::{Client, Consumer, Producer, Server};

    static SELECT_PRODUCT: Operation = operation("catalog", "SELECT products", Client, 2.0, 0.5, 0, POSTGRES, &[]);
    static GET_PRODUCT: Operation = operation("catalog", "shop.Catalog/GetProduct", Server, 1.5, 0.3, 2, GRPC, &[&SELECT_PRODUCT]);
    static CALL_PRODUCT: Operation = operation("storefront", "shop.Catalog/GetProduct", Client, 0.4, 0.2, 0, GRPC, &[&GET_PRODUCT]);
    static RECOMMEND: Operation = operation("recommendation", "GET /recommendations", Server, 25.0, 0.6, 4, HTTP_GET, &[]);
    static PRODUCT_CACHE: Operation = operation("storefront", "GET product", Client, 0.3, 0.3, 0, REDIS, &[]);
    pub(super) static PRODUCT: Operation = operation("storefront", "GET /product/{id}", Server, 4.0, 0.4, 1, HTTP_GET,
        &[&PRODUCT_CACHE, &CALL_PRODUCT, &RECOMMEND]);

    static SCAN_INDEX: Operation = operation("search", "scan index", Client, 30.0, 0.8, 0, &[], &[]);
    static QUERY: Operation = operation("search", "shop.Search/Query", Server, 3.0, 0.3, 3, GRPC, &[&SCAN_INDEX]);
    pub(super) static SEARCH: Operation = operation("storefront", "GET /search", Server, 6.0, 0.4, 1, HTTP_GET, &[&QUERY]);

    static READ_CART: Operation = operation("cart", "HGETALL cart", Client, 0.5, 0.3, 0, REDIS, &[]);
    static CART: Operation = operation("cart", "shop.Cart/Get", Server, 1.0, 0.3, 1, GRPC, &[&READ_CART]);
    static INSERT_PAYMENT: Operation = operation("payment", "INSERT payments", Client, 4.0, 0.4, 1, POSTGRES, &[]);
    static CHARGE: Operation = operation("payment", "shop.Payment/Charge", Server, 120.0, 0.4, 20, GRPC, &[&INSERT_PAYMENT]);
    static UPDATE_STOCK: Operation = operation("fulfilment", "UPDATE stock", Client, 6.0, 0.5, 2, POSTGRES, &[]);
    static TAKE_ORDER: Operation = operation("fulfilment", "process orders", Consumer, 15.0, 0.5, 5, KAFKA, &[&UPDATE_STOCK]);
    static PUBLISH_ORDER: Operation = operation("checkout", "send orders", Producer, 2.0, 0.3, 0, KAFKA, &[&TAKE_ORDER]);
    static PLACE_ORDER: Operation = operation("checkout", "shop.Checkout/PlaceOrder", Server, 8.0, 0.3, 2, GRPC,
        &[&CART, &CHARGE, &PUBLISH_ORDER]);
    pub(super) static CHECKOUT: Operation = operation("storefront", "POST /checkout", Server, 5.0, 0.3, 1, HTTP_POST, &[&PLACE_ORDER]);

    pub(super) static HEALTH: Operation = operation("storefront", "GET /healthz", Server, 0.2, 0.1, 0, HTTP_GET, &[]);

    static READ_PRICE: Operation = operation("live-prices", "GET price", Client, 0.4, 0.4, 0, REDIS, &[]);
    pub(super) static MESSAGE: Operation = operation("live-prices", "message price.watch", Server, 1.0, 0.4, 3, WEBSOCKET, &[&READ_PRICE]);
}

use operations::{CHECKOUT, HEALTH, MESSAGE, PRODUCT, SEARCH};

/// How many of a hundred requests go where.
const MIX: [(u32, &Operation); 4] = [(55, &PRODUCT), (22, &SEARCH), (15, &CHECKOUT), (8, &HEALTH)];
/// One of a thousand requests meets a bad moment: everything it does takes this many times as long.
const STALL: f64 = 8.0;
const STALLS_PER_MILLE: u32 = 8;
/// Browsers that hold a connection at the same time, and for how long they do.
const CONNECTIONS: usize = 3;
const CONNECTION_MS: std::ops::Range<u64> = 3_000..20_000;

/// A WebSocket connection: its span ends with it, its messages are children of that span.
#[derive(Debug)]
struct Connection {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    opened: u64,
    closes: u64,
    messages: u64,
}

/// Spans by service, as each service would export them.
pub(super) type Batch = BTreeMap<&'static str, Vec<Span>>;

/// The shop. Times are Unix nanoseconds.
#[derive(Debug)]
pub(super) struct Shop {
    random: StdRng,
    connections: Vec<Connection>,
}

impl Shop {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed), connections: Vec::new() }
    }

    /// About so many spans that have ended by `now`; returns how many it made.
    pub(super) fn spans(&mut self, wanted: u64, now: u64, batch: &mut Batch) -> u64 {
        let mut made = self.live(now, batch);
        while made < wanted {
            let operation = self.pick();
            let trace_id = self.random.random();
            let pace = if self.random.random_ratio(STALLS_PER_MILLE, 1_000) { STALL } else { 1.0 };
            let mut trace = Trace { id: trace_id, pace, random: &mut self.random, batch, spans: 0 };
            trace.backdate(operation, now);
            made += trace.spans;
        }
        made
    }

    /// Closes every connection, so that their spans are sent too.
    pub(super) fn close(&mut self, now: u64, batch: &mut Batch) -> u64 {
        let connections = std::mem::take(&mut self.connections);
        connections.iter().for_each(|connection| push(batch, "live-prices", connection.span(now)));
        connections.len() as u64
    }

    fn pick(&mut self) -> &'static Operation {
        let mut ticket = self.random.random_range(0..100);
        for (weight, operation) in MIX {
            if ticket < weight {
                return operation;
            }
            ticket -= weight;
        }
        &PRODUCT
    }

    /// One message on each connection; connections end and others begin.
    fn live(&mut self, now: u64, batch: &mut Batch) -> u64 {
        let mut made = 0;
        while self.connections.len() < CONNECTIONS {
            let lasts = self.random.random_range(CONNECTION_MS) * 1_000_000;
            let (trace_id, span_id) = (self.random.random(), self.random.random());
            self.connections.push(Connection {
                trace_id,
                span_id,
                opened: now,
                closes: now + lasts,
                messages: 0,
            });
        }
        for connection in &mut self.connections {
            let id = connection.trace_id;
            let mut trace = Trace { id, pace: 1.0, random: &mut self.random, batch, spans: 0 };
            trace.call(&MESSAGE, &connection.span_id, now.saturating_sub(3_000_000));
            connection.messages += 1;
            made += trace.spans;
        }
        let ended: Vec<Connection> =
            self.connections.extract_if(.., |connection| connection.closes <= now).collect();
        for connection in &ended {
            push(batch, "live-prices", connection.span(now));
        }
        made + ended.len() as u64
    }
}

impl Connection {
    fn span(&self, now: u64) -> Span {
        let mut attributes: Vec<KeyValue> = WEBSOCKET.iter().map(|(key, value)| text(key, value)).collect();
        attributes.push(integer("messaging.batch.message_count", self.messages as i64));
        Span {
            trace_id: self.trace_id.to_vec(),
            span_id: self.span_id.to_vec(),
            name: "GET /live".to_owned(),
            kind: SpanKind::Server.into(),
            start_time_unix_nano: self.opened,
            end_time_unix_nano: now,
            attributes,
            ..Span::default()
        }
    }
}

/// A trace in the making.
struct Trace<'a> {
    id: [u8; 16],
    pace: f64,
    random: &'a mut StdRng,
    batch: &'a mut Batch,
    spans: u64,
}

impl Trace<'_> {
    /// Makes the trace so that it ends now: nothing is known before it has run, so it runs first and is moved.
    fn backdate(&mut self, operation: &'static Operation, now: u64) {
        let before: BTreeMap<&str, usize> =
            self.batch.iter().map(|(name, spans)| (*name, spans.len())).collect();
        let end = self.call(operation, &[], 0).end;
        let shift = now.saturating_sub(end);
        for (service, spans) in self.batch.iter_mut() {
            let mine = before.get(service).copied().unwrap_or_default();
            for span in &mut spans[mine..] {
                span.start_time_unix_nano += shift;
                span.end_time_unix_nano += shift;
                span.events.iter_mut().for_each(|event| event.time_unix_nano += shift);
            }
        }
    }

    /// Runs an operation and all that it calls, one after the other.
    fn call(&mut self, operation: &'static Operation, parent: &[u8], start: u64) -> Outcome {
        let span_id: [u8; 8] = self.random.random();
        let own = self.duration(operation);
        let mut at = start + own / 2;
        let mut failed = self.random.random_ratio(operation.failures_per_mille, 1_000);
        for called in operation.calls {
            let outcome = self.call(called, &span_id, at);
            // What reads from a queue is not waited for, and its failure is its own.
            if called.kind != SpanKind::Consumer {
                at = outcome.end;
                failed |= outcome.failed;
            }
        }
        let end = at + own / 2;
        let span = span(operation, self.id, span_id, parent, start..end, failed);
        push(self.batch, operation.service, span);
        self.spans += 1;
        Outcome { end, failed }
    }

    /// Nanoseconds of an operation's own work: log-normal around its median.
    fn duration(&mut self, operation: &Operation) -> u64 {
        let (u, v): (f64, f64) = (self.random.random_range(f64::EPSILON..1.0), self.random.random());
        let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
        (operation.median_ms * (operation.spread * normal).exp() * self.pace * 1e6) as u64
    }
}

struct Outcome {
    end: u64,
    failed: bool,
}

fn span(
    operation: &Operation,
    trace_id: [u8; 16],
    span_id: [u8; 8],
    parent: &[u8],
    time: std::ops::Range<u64>,
    failed: bool,
) -> Span {
    let mut attributes: Vec<KeyValue> =
        operation.attributes.iter().map(|(key, value)| text(key, value)).collect();
    if operation.name.contains(" /") {
        attributes.push(text("http.route", operation.name.split(' ').nth(1).unwrap_or_default()));
        attributes.push(integer("http.response.status_code", if failed { 500 } else { 200 }));
    }
    let failure = Event {
        time_unix_nano: time.end,
        name: "exception".to_owned(),
        attributes: vec![
            text("exception.type", "TimeoutError"),
            text("exception.message", "deadline exceeded"),
        ],
        ..Event::default()
    };
    Span {
        trace_id: trace_id.to_vec(),
        span_id: span_id.to_vec(),
        parent_span_id: parent.to_vec(),
        name: operation.name.to_owned(),
        kind: operation.kind.into(),
        start_time_unix_nano: time.start,
        end_time_unix_nano: time.end,
        attributes,
        events: if failed { vec![failure] } else { Vec::new() },
        status: failed
            .then(|| Status { message: "deadline exceeded".to_owned(), code: StatusCode::Error.into() }),
        ..Span::default()
    }
}

fn push(batch: &mut Batch, service: &'static str, span: Span) {
    batch.entry(service).or_default().push(span);
}

/// The spans of one service as its SDK would wrap them.
pub(super) fn resource_spans(service: &str, spans: Vec<Span>) -> ResourceSpans {
    let attributes = vec![
        text("service.name", service),
        text("service.version", "1.4.2"),
        text("deployment.environment.name", "demo"),
        text("telemetry.sdk.language", "rust"),
    ];
    let scope = InstrumentationScope { name: "shop".to_owned(), ..InstrumentationScope::default() };
    let scope_spans = ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() };
    ResourceSpans {
        resource: Some(Resource { attributes, ..Resource::default() }),
        scope_spans: vec![scope_spans],
        ..ResourceSpans::default()
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, any_value::Value::StringValue(value.to_owned()))
}

fn integer(key: &str, value: i64) -> KeyValue {
    attribute(key, any_value::Value::IntValue(value))
}

fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    const NOW: u64 = 1_700_000_000_000_000_000;

    fn batch(spans: u64) -> Vec<Span> {
        let (mut shop, mut batch) = (Shop::new(7), Batch::new());
        let made = shop.spans(spans, NOW, &mut batch);
        let spans: Vec<Span> = batch.into_values().flatten().collect();
        assert_eq!(spans.len() as u64, made);
        spans
    }

    #[test]
    fn spans_have_ended_and_parents_are_in_their_trace() {
        let spans = batch(2_000);
        let ids: HashSet<(&[u8], &[u8])> =
            spans.iter().map(|span| (span.trace_id.as_slice(), span.span_id.as_slice())).collect();
        for span in spans.iter().filter(|span| !span.name.starts_with("message")) {
            let parent = (span.trace_id.as_slice(), span.parent_span_id.as_slice());
            assert!(span.parent_span_id.is_empty() || span.name == "GET price" || ids.contains(&parent));
            assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
        }
    }

    #[test]
    fn some_traces_fail_and_most_do_not() {
        let spans = batch(20_000);
        let mut traces: HashMap<&[u8], bool> = HashMap::new();
        for span in &spans {
            *traces.entry(&span.trace_id).or_default() |= span.status.is_some();
        }
        let failed = traces.values().filter(|failed| **failed).count();
        assert!(
            failed * 100 > traces.len() / 2 && failed * 10 < traces.len(),
            "{failed} of {}",
            traces.len()
        );
    }

    #[test]
    fn a_connection_outlives_its_messages() {
        let (mut shop, mut batch) = (Shop::new(7), Batch::new());
        for tick in 0..300 {
            shop.spans(0, NOW + tick * 100_000_000, &mut batch);
        }
        let live = &batch["live-prices"];
        let connection = live.iter().find(|span| span.name == "GET /live").unwrap();
        let messages = live.iter().filter(|span| span.parent_span_id == connection.span_id).count();
        assert!(messages > 20, "{messages}");
    }
}
