//! What plays the backend: OTLP over gRPC and HTTP, decoded by generated code, with faults.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::codec::CompressionEncoding;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};

use super::{FullSpan, SpanKey, WITHIN, eventually, full_spans};

const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// What is wrong with the backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    #[default]
    None,
    /// Every request is answered with this code (HTTP: 503 for `Unavailable`, else 400).
    Answers(Code),
    /// Every answer takes this long; what was sent is there before it.
    Slow(Duration),
    /// This many spans of every request are rejected by partial success.
    Rejects(i64),
}

#[derive(Debug, Default)]
struct Received {
    /// The spans of each request that was not refused.
    batches: Vec<Vec<FullSpan>>,
    requests: usize,
    headers: Vec<HashMap<String, String>>,
    fault: Fault,
}

/// A server for both transports that remembers what it got.
#[derive(Debug)]
pub struct Backend {
    received: Arc<Mutex<Received>>,
    grpc: SocketAddr,
    http: SocketAddr,
    servers: Vec<JoinHandle<()>>,
}

impl Backend {
    pub async fn start() -> Self {
        let received = Arc::default();
        let (grpc, http) = (free_address(), free_address());
        let mut backend = Self { received, grpc, http, servers: Vec::new() };
        backend.up().await;
        backend
    }

    /// Listens, again after [`Self::down`] at the same addresses.
    pub async fn up(&mut self) {
        let grpc = TcpListener::bind(self.grpc).await.unwrap();
        let http = TcpListener::bind(self.http).await.unwrap();
        let service = TraceServiceServer::new(Service(self.received.clone()))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Zstd);
        let server = tonic::transport::Server::builder().add_service(service);
        self.servers.push(tokio::spawn(async move {
            server.serve_with_incoming(TcpIncoming::from(grpc)).await.unwrap();
        }));
        let routes = Router::new()
            .route("/v1/traces", post(export_http))
            .layer(axum::extract::DefaultBodyLimit::max(MESSAGE_BYTES_MAX))
            .with_state(self.received.clone());
        self.servers.push(tokio::spawn(serve_http(http, routes)));
    }

    /// Closes every connection and refuses new ones.
    pub async fn down(&mut self) {
        for server in self.servers.drain(..) {
            server.abort();
            let _ = server.await;
        }
    }

    pub fn fault(&self, fault: Fault) {
        self.received.lock().unwrap().fault = fault;
    }

    pub fn grpc(&self) -> String {
        format!("http://{}", self.grpc)
    }

    pub fn http(&self) -> String {
        format!("http://{}", self.http)
    }

    pub fn requests(&self) -> usize {
        self.received.lock().unwrap().requests
    }

    /// Every span that came, as often as it came.
    pub fn spans(&self) -> Vec<FullSpan> {
        self.received.lock().unwrap().batches.iter().flatten().cloned().collect()
    }

    /// Headers of every request that came.
    pub fn headers(&self) -> Vec<HashMap<String, String>> {
        self.received.lock().unwrap().headers.clone()
    }

    /// How often each span came.
    pub fn counts(&self) -> HashMap<SpanKey, usize> {
        let mut counts = HashMap::new();
        for span in self.received.lock().unwrap().batches.iter().flatten() {
            *counts.entry(span.key()).or_default() += 1;
        }
        counts
    }

    /// Bytes of the spans that came, and of those that had come before.
    pub fn bytes(&self) -> (usize, usize) {
        let (mut came, mut again, mut known) = (0, 0, HashSet::new());
        for span in self.received.lock().unwrap().batches.iter().flatten() {
            let bytes = span.span.encoded_len();
            came += bytes;
            again += if known.insert(span.key()) { 0 } else { bytes };
        }
        (came, again)
    }

    pub fn distinct(&self) -> usize {
        self.counts().len()
    }

    /// Waits until it has so many spans; it has no others.
    pub async fn has(&self, spans: usize) {
        let what = format!("{spans} spans are at the backend");
        eventually(&what, WITHIN, async || (self.distinct() >= spans).then_some(())).await;
        assert_eq!(self.distinct(), spans);
    }

    /// How many requests were not refused.
    pub fn taken(&self) -> usize {
        self.received.lock().unwrap().batches.len()
    }

    /// The spans of each of them, in the order in which they came.
    pub fn batches(&self) -> Vec<Vec<SpanKey>> {
        let received = self.received.lock().unwrap();
        received.batches.iter().map(|batch| batch.iter().map(FullSpan::key).collect()).collect()
    }

    /// Forgets what it got.
    pub fn clear(&self) {
        let mut received = self.received.lock().unwrap();
        received.batches.clear();
        received.headers.clear();
        received.requests = 0;
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.servers.iter().for_each(JoinHandle::abort);
    }
}

/// An address of this machine that is free now and that no client socket will take: below the ephemeral ports.
pub fn free_address() -> SocketAddr {
    let first = 20_000 + (uuid::Uuid::new_v4().as_u128() % 10_000) as u16;
    let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let port = (first..32_000).find(free).expect("a free port");
    SocketAddr::from(([127, 0, 0, 1], port))
}

async fn take(received: &Mutex<Received>, request: ExportTraceServiceRequest) -> Result<i64, Code> {
    let fault = received.lock().unwrap().fault;
    if let Fault::Answers(code) = fault {
        return Err(code);
    }
    received.lock().unwrap().batches.push(full_spans(request).collect());
    match fault {
        Fault::Slow(time) => tokio::time::sleep(time).await,
        Fault::Rejects(spans) => return Ok(spans),
        Fault::None | Fault::Answers(_) => {}
    }
    Ok(0)
}

fn response(rejected_spans: i64) -> ExportTraceServiceResponse {
    let error_message = "as the test asked".to_owned();
    let partial = ExportTracePartialSuccess { rejected_spans, error_message };
    ExportTraceServiceResponse { partial_success: (rejected_spans > 0).then_some(partial) }
}

fn note(received: &Mutex<Received>, headers: &http::HeaderMap) {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    let mut received = received.lock().unwrap();
    received.requests += 1;
    received.headers.push(headers);
}

#[derive(Debug)]
struct Service(Arc<Mutex<Received>>);

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        note(&self.0, &request.metadata().clone().into_headers());
        match take(&self.0, request.into_inner()).await {
            Ok(rejected) => Ok(Response::new(response(rejected))),
            Err(code) => Err(Status::new(code, "as the test asked")),
        }
    }
}

/// Serves each connection in a task of its own that ends with this one.
async fn serve_http(listener: TcpListener, routes: Router) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let service = hyper_util::service::TowerToHyperService::new(routes.clone());
        connections.spawn(async move {
            let builder = hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
            let _ = builder.serve_connection(hyper_util::rt::TokioIo::new(stream), service).await;
        });
    }
}

async fn export_http(
    State(received): State<Arc<Mutex<Received>>>,
    headers: http::HeaderMap,
    body: Bytes,
) -> (StatusCode, [(&'static str, &'static str); 1], Vec<u8>) {
    note(&received, &headers);
    let json =
        headers.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let body = inflate(&headers, &body);
    let request: ExportTraceServiceRequest = match json {
        true => serde_json::from_slice(&body).unwrap(),
        false => Message::decode(&*body).unwrap(),
    };
    let kind = if json { "application/json" } else { "application/x-protobuf" };
    let (status, answer) = match take(&received, request).await {
        Ok(rejected) => (StatusCode::OK, Some(response(rejected))),
        Err(Code::Unavailable) => (StatusCode::SERVICE_UNAVAILABLE, None),
        Err(_) => (StatusCode::BAD_REQUEST, None),
    };
    let answer = answer.map_or_else(Vec::new, |answer| match json {
        true => serde_json::to_vec(&answer).unwrap(),
        false => answer.encode_to_vec(),
    });
    (status, [("content-type", kind)], answer)
}

fn inflate(headers: &http::HeaderMap, body: &[u8]) -> Vec<u8> {
    use std::io::Read;
    let mut inflated = Vec::new();
    match headers.get("content-encoding").map(|encoding| encoding.as_bytes()) {
        Some(b"gzip") => _ = flate2::read::GzDecoder::new(body).read_to_end(&mut inflated).unwrap(),
        Some(b"zstd") => inflated = zstd::stream::decode_all(body).unwrap(),
        _ => inflated.extend_from_slice(body),
    }
    inflated
}
