//! The receiver on port 0, through real clients, before an intake that remembers.

mod grpc;
mod http;
mod json;
mod server;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span};
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Accepted, Config, Intake, Metrics, Rejection};

/// An intake with a budget of bytes; it remembers what it was given.
#[derive(Clone, Default)]
pub(super) struct FakeIntake(Arc<Remembered>);

#[derive(Default)]
struct Remembered {
    budget: AtomicUsize,
    used: AtomicUsize,
    peak: AtomicUsize,
    answer: Mutex<Option<Result<Accepted, Rejection>>>,
    requests: Mutex<Vec<(String, Bytes)>>,
}

pub(super) struct FakeRoom {
    intake: FakeIntake,
    bytes: usize,
}

impl super::Room for FakeRoom {
    fn grow(&mut self, bytes: usize) -> Result<(), Rejection> {
        let remembered = &self.intake.0;
        let used = remembered.used.fetch_add(bytes, SeqCst) + bytes;
        self.bytes += bytes;
        if used > remembered.budget.load(SeqCst) {
            return Err(Rejection::Overloaded { retry_after: Duration::from_millis(2500) });
        }
        remembered.peak.fetch_max(used, SeqCst);
        Ok(())
    }
}

impl Drop for FakeRoom {
    fn drop(&mut self) {
        self.intake.0.used.fetch_sub(self.bytes, SeqCst);
    }
}

impl Intake for FakeIntake {
    type Room = FakeRoom;

    fn admit(&self, bytes: usize) -> Result<FakeRoom, Rejection> {
        let mut room = FakeRoom { intake: self.clone(), bytes: 0 };
        super::Room::grow(&mut room, bytes)?;
        Ok(room)
    }

    async fn receive(&self, room: FakeRoom, tenant: &str, body: Bytes) -> Result<Accepted, Rejection> {
        assert!(room.bytes >= body.len(), "{} bytes stored in a room of {}", body.len(), room.bytes);
        self.0.requests.lock().push((tenant.to_owned(), body));
        self.0.answer.lock().clone().unwrap_or(Ok(Accepted::default()))
    }
}

impl FakeIntake {
    fn with_budget(bytes: usize) -> Self {
        let intake = Self::default();
        intake.0.budget.store(bytes, SeqCst);
        intake
    }

    fn will_answer(&self, answer: Result<Accepted, Rejection>) {
        *self.0.answer.lock() = Some(answer);
    }

    fn bodies(&self) -> Vec<Bytes> {
        self.0.requests.lock().iter().map(|(_, body)| body.clone()).collect()
    }

    fn tenants(&self) -> Vec<String> {
        self.0.requests.lock().iter().map(|(tenant, _)| tenant.clone()).collect()
    }

    fn used(&self) -> usize {
        self.0.used.load(SeqCst)
    }

    fn peak(&self) -> usize {
        self.0.peak.load(SeqCst)
    }
}

/// A receiver that runs until it is dropped.
struct Running {
    grpc: SocketAddr,
    http: SocketAddr,
    intake: FakeIntake,
    metrics: Arc<Metrics>,
    stop: watch::Sender<()>,
    task: JoinHandle<()>,
}

/// Listens on free ports, whatever the configuration says.
async fn run(mut config: Config, intake: FakeIntake) -> Running {
    config.grpc.get_or_insert_default().listen = "127.0.0.1:0".into();
    config.http.get_or_insert_default().listen = "127.0.0.1:0".into();
    let bound = super::bind(&config).await.unwrap();
    let (grpc, http) = (bound.grpc_address().unwrap(), bound.http_address().unwrap());
    let metrics = Arc::new(Metrics::default());
    let (stop, stopped) = watch::channel(());
    let task = tokio::spawn(bound.serve(intake.clone(), metrics.clone(), Duration::from_secs(2), stopped));
    Running { grpc, http, intake, metrics, stop, task }
}

async fn receiver() -> Running {
    run(Config::default(), FakeIntake::with_budget(1 << 30)).await
}

impl Running {
    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }
}

/// reqwest wants to know who does its TLS, even when nobody does.
fn client() -> reqwest::Client {
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

fn pair(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), key_strindex: 0 }
}

/// A request with so many spans, each about 300 bytes, with values of every kind.
fn request(spans: usize) -> ExportTraceServiceRequest {
    use any_value::Value;
    let nested = vec![pair("inner", Value::StringValue("ü".into())), pair("zero", Value::IntValue(0))];
    let values = [Value::BoolValue(false), Value::StringValue(String::new()), Value::DoubleValue(-0.5)];
    let values = values.map(|value| AnyValue { value: Some(value) }).to_vec();
    let attributes = vec![
        pair("string", Value::StringValue("line\nbreak \"quoted\" \u{1F600}".into())),
        pair("bool", Value::BoolValue(true)),
        pair("int", Value::IntValue(i64::MIN)),
        pair("double", Value::DoubleValue(f64::NEG_INFINITY)),
        pair("bytes", Value::BytesValue(vec![0, 251, 255])),
        pair("array", Value::ArrayValue(ArrayValue { values })),
        pair("kvlist", Value::KvlistValue(KeyValueList { values: nested })),
        KeyValue { key: "empty".into(), value: Some(AnyValue { value: None }), key_strindex: 0 },
        KeyValue { key: "none".into(), value: None, key_strindex: 0 },
    ];
    let span = |n: usize| Span {
        trace_id: (n as u128 + 1).to_be_bytes().to_vec(),
        span_id: (n as u64 + 1).to_be_bytes().to_vec(),
        parent_span_id: if n == 0 { vec![] } else { vec![1; 8] },
        trace_state: "ot=th:8".into(),
        flags: 0x101,
        name: format!("GET /{n}"),
        kind: span::SpanKind::Server as i32,
        start_time_unix_nano: u64::MAX,
        end_time_unix_nano: 1_700_000_000_000_000_001,
        attributes: attributes.clone(),
        dropped_attributes_count: 1,
        events: vec![span::Event { time_unix_nano: 5, name: "event".into(), ..Default::default() }],
        dropped_events_count: 2,
        links: vec![span::Link {
            trace_id: vec![2; 16],
            span_id: vec![3; 8],
            flags: 1,
            ..Default::default()
        }],
        dropped_links_count: 3,
        status: Some(Status { message: "broken".into(), code: 2 }),
    };
    let scope = InstrumentationScope { name: "scope".into(), version: "1".into(), ..Default::default() };
    let scope_spans = ScopeSpans {
        scope: Some(scope),
        spans: (0..spans).map(span).collect(),
        schema_url: "https://opentelemetry.io/schemas/1.37.0".into(),
    };
    let resource = Resource {
        attributes: vec![pair("service.name", Value::StringValue("shop".into()))],
        ..Default::default()
    };
    let resource_spans =
        ResourceSpans { resource: Some(resource), scope_spans: vec![scope_spans], schema_url: String::new() };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }
}

/// A request of about so many bytes, which compresses to next to nothing.
fn padded(bytes: usize) -> ExportTraceServiceRequest {
    let mut request = request(1);
    request.resource_spans[0].scope_spans[0].spans[0].name = "x".repeat(bytes);
    request
}

fn encoded(request: &ExportTraceServiceRequest) -> Vec<u8> {
    request.encode_to_vec()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ::zstd::encode_all(bytes, 1).unwrap()
}
