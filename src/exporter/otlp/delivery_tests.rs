//! From the outbox to real servers, which decode with generated types.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::response::IntoResponse;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tonic::codec::CompressionEncoding;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Code, Response, Status};

use super::outcome::tests::retry_details;
use super::*;
use crate::exporter::metrics::{Lost, Metrics};
use crate::exporter::outbox::tests::Bench;
use crate::log::SimDisk;

type Answer = Result<ExportTraceServiceResponse, Status>;

/// A backend; `answer` is asked for the nth request.
#[derive(Clone)]
struct Sink {
    received: Arc<Mutex<Vec<(HeaderMap, ExportTraceServiceRequest)>>>,
    answer: Arc<dyn Fn(usize) -> Answer + Send + Sync>,
    wait: Duration,
}

fn taken() -> Answer {
    Ok(ExportTraceServiceResponse::default())
}

impl Sink {
    fn new(answer: impl Fn(usize) -> Answer + Send + Sync + 'static) -> Self {
        Self { received: Arc::default(), answer: Arc::new(answer), wait: Duration::ZERO }
    }

    /// Names of all spans received, in order, repetitions included.
    fn names(&self) -> Vec<String> {
        let received = self.received.lock();
        let resources = received.iter().flat_map(|(_, request)| &request.resource_spans);
        let scopes = resources.flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| &scope.spans).map(|span| span.name.clone()).collect()
    }

    fn headers(&self, n: usize) -> HeaderMap {
        self.received.lock()[n].0.clone()
    }

    async fn serve(&self, at: SocketAddr, tls: Option<ServerTlsConfig>) -> (SocketAddr, JoinHandle<()>) {
        let incoming = TcpIncoming::bind(at).unwrap();
        let at = incoming.local_addr().unwrap();
        let service = TraceServiceServer::new(self.clone())
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Zstd);
        let mut server = Server::builder();
        if let Some(tls) = tls {
            server = server.tls_config(tls).unwrap();
        }
        let serving = server.add_service(service).serve_with_incoming(incoming);
        (at, tokio::spawn(async move { serving.await.unwrap() }))
    }
}

#[tonic::async_trait]
impl TraceService for Sink {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        tokio::time::sleep(self.wait).await;
        let n = {
            let mut received = self.received.lock();
            received.push((metadata.into_headers(), request));
            received.len() - 1
        };
        (self.answer)(n).map(Response::new)
    }
}

/// The same over HTTP: `answer` gives status and headers.
fn http_routes(
    sink: Sink,
    answer: impl Fn(usize) -> (StatusCode, HeaderMap) + Clone + Send + Sync + 'static,
) -> axum::Router {
    let handler = move |headers: HeaderMap, body: Bytes| async move {
        let body = match headers.get("content-encoding").map(|encoding| encoding.as_bytes()) {
            Some(b"gzip") => {
                let mut plain = Vec::new();
                std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&body[..]), &mut plain).unwrap();
                plain.into()
            }
            Some(b"zstd") => zstd::decode_all(&body[..]).unwrap().into(),
            _ => body,
        };
        let mut received = sink.received.lock();
        received.push((headers, ExportTraceServiceRequest::decode(body).unwrap()));
        answer(received.len() - 1).into_response()
    };
    axum::Router::new().route("/v1/traces", axum::routing::post(handler))
}

async fn serve_http(routes: axum::Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind(ANYWHERE).await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    at
}

async fn serve_https(routes: axum::Router, pki: &Pki) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind(ANYWHERE).await.unwrap();
    let at = listener.local_addr().unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(pki.https_server()));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let service = hyper_util::service::TowerToHyperService::new(routes.clone());
            let io = hyper_util::rt::TokioIo::new(stream);
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
        }
    });
    at
}

/// An outbox and an exporter with short waits.
struct Running {
    bench: Bench,
    stop: watch::Sender<Stop>,
    task: JoinHandle<bool>,
    metrics: Arc<Metrics>,
}

impl Running {
    fn start(config: &str) -> Self {
        let config: Config = serde_saphyr::from_str(config).unwrap();
        assert_eq!(config.check(), Ok(()));
        let bench = Bench::open(&SimDisk::new(1), &["a"]);
        let tail = bench.outbox.tail("a").unwrap();
        let metrics = tail.subscription().metrics.clone();
        let settings = Settings {
            batch_bytes: 1_000,
            batch_wait: Duration::from_millis(5),
            backoff: BackoffSettings {
                first: Duration::from_millis(10),
                max: Duration::from_millis(50),
                operator: Duration::from_millis(50),
            },
            ..Settings::default()
        };
        let (stop, stopped) = watch::channel(Stop::Run);
        let exporter = Exporter::new(Client::build(&config).unwrap(), tail, settings, 7);
        Self { bench, stop, task: tokio::spawn(exporter.run(stopped)), metrics }
    }

    /// A piece with one span of each name.
    fn append(&mut self, tenant: &str, names: &[&str]) {
        let span = |name: &&str| Span { name: (*name).to_owned(), ..Default::default() };
        let scope = ScopeSpans { spans: names.iter().map(span).collect(), ..Default::default() };
        let resource_spans = vec![ResourceSpans { scope_spans: vec![scope], ..Default::default() }];
        let otlp = ExportTraceServiceRequest { resource_spans }.encode_to_vec().into();
        self.bench.append_otlp(tenant, vec![(names.len() as u32, otlp)]);
    }

    async fn drain(self) -> Arc<Metrics> {
        self.stop.send(Stop::Drain { deadline: Instant::now() + Duration::from_secs(20) }).unwrap();
        assert!(self.task.await.unwrap(), "not drained: {:?}", self.metrics);
        self.bench.close();
        assert_eq!(self.metrics.pending().spans, 0);
        self.metrics
    }
}

const ANYWHERE: &str = "127.0.0.1:0";

async fn grpc(sink: &Sink) -> SocketAddr {
    sink.serve(ANYWHERE.parse().unwrap(), None).await.0
}

#[tokio::test]
async fn spans_arrive_once_and_in_order() {
    let sink = Sink::new(|_| taken());
    let mut running = Running::start(&format!("{{ name: a, endpoint: 'http://{}' }}", grpc(&sink).await));
    running.append("", &["one", "two"]);
    running.append("", &["three"]);
    assert_eq!(running.drain().await.delivered(), 3);
    assert_eq!(sink.names(), ["one", "two", "three"]);
    assert!(sink.headers(0)["user-agent"].to_str().unwrap().starts_with("tailwater/"));
}

#[tokio::test]
async fn a_backend_that_starts_late_gets_everything() {
    let sink = Sink::new(|_| taken());
    let (at, server) = sink.serve(ANYWHERE.parse().unwrap(), None).await;
    server.abort();
    _ = server.await;
    let mut running = Running::start(&format!("{{ name: a, endpoint: 'http://{at}' }}"));
    running.append("", &["one"]);
    while !running.metrics.is_down() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(running.metrics.last_error().unwrap().contains("refused"), "{:?}", running.metrics.last_error());
    sink.serve(at, None).await;
    let metrics = running.drain().await;
    assert!(metrics.delivered() == 1 && metrics.retries() > 0 && !metrics.is_down());
    assert_eq!(sink.names(), ["one"]);
}

#[tokio::test]
async fn a_backend_that_says_when_is_asked_then() {
    let told = Duration::from_millis(300);
    let sink = Sink::new(move |n| match n {
        0 => Err(Status::with_details(Code::Unavailable, "busy", retry_details(told))),
        1 => Err(Status::with_details(Code::ResourceExhausted, "busy", retry_details(told))),
        _ => taken(),
    });
    let mut running = Running::start(&format!("{{ name: a, endpoint: 'http://{}' }}", grpc(&sink).await));
    let begin = Instant::now();
    running.append("", &["one"]);
    assert_eq!(running.drain().await.delivered(), 1);
    assert!(begin.elapsed() >= 2 * told);
    assert_eq!(sink.names().len(), 3);
}

#[tokio::test]
async fn a_request_without_an_answer_in_time_is_sent_again() {
    let mut sink = Sink::new(|_| taken());
    sink.wait = Duration::from_secs(60);
    let (at, server) = sink.serve(ANYWHERE.parse().unwrap(), None).await;
    let mut running = Running::start(&format!("{{ name: a, endpoint: 'http://{at}', timeout: 100ms }}"));
    running.append("", &["one"]);
    while !running.metrics.is_down() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(running.metrics.last_error().as_deref(), Some("no answer within 100ms"));
    server.abort();
    _ = server.await;
    sink.wait = Duration::ZERO;
    sink.serve(at, None).await;
    assert_eq!(running.drain().await.delivered(), 1);
}

#[tokio::test]
async fn partial_success_is_counted_and_not_repeated() {
    let sink = Sink::new(|_| {
        let partial = ExportTracePartialSuccess { rejected_spans: 2, error_message: "too old".to_owned() };
        Ok(ExportTraceServiceResponse { partial_success: Some(partial) })
    });
    let mut running = Running::start(&format!("{{ name: a, endpoint: 'http://{}' }}", grpc(&sink).await));
    running.append("", &["one", "two", "three"]);
    let metrics = running.drain().await;
    assert_eq!((metrics.delivered(), metrics.lost(Lost::Rejected)), (1, 2));
    assert_eq!(metrics.last_error().as_deref(), Some("too old"));
    assert_eq!(sink.names().len(), 3);
}

#[tokio::test]
async fn a_final_refusal_is_counted_and_the_next_piece_arrives() {
    let sink = Sink::new(|n| if n == 0 { Err(Status::invalid_argument("no")) } else { taken() });
    let mut running = Running::start(&format!("{{ name: a, endpoint: 'http://{}' }}", grpc(&sink).await));
    running.append("", &["bad"]);
    while running.metrics.batches() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    running.append("", &["good", "good"]);
    let metrics = running.drain().await;
    assert_eq!((metrics.delivered(), metrics.lost(Lost::Rejected)), (2, 1));
    assert_eq!(sink.names(), ["bad", "good", "good"]);
}

#[tokio::test]
async fn wrong_credentials_are_waited_for() {
    let sink = Sink::new(|n| if n < 2 { Err(Status::unauthenticated("token")) } else { taken() });
    let mut running = Running::start(&format!("{{ name: a, endpoint: 'http://{}' }}", grpc(&sink).await));
    running.append("", &["one"]);
    let metrics = running.drain().await;
    assert_eq!((metrics.delivered(), metrics.lost(Lost::Rejected), metrics.retries()), (1, 0, 2));
}

#[tokio::test]
async fn a_wrong_address_is_waited_for_and_a_passing_server_error_loses_nothing() {
    let sink = Sink::new(|_| taken());
    let answers = [StatusCode::NOT_FOUND, StatusCode::INTERNAL_SERVER_ERROR, StatusCode::FOUND];
    let routes = http_routes(sink.clone(), move |n| {
        (answers.get(n).copied().unwrap_or(StatusCode::OK), HeaderMap::new())
    });
    let at = serve_http(routes).await;
    let mut running = Running::start(&format!("{{ name: a, endpoint: 'http://{at}', protocol: http }}"));
    running.append("", &["one", "two"]);
    let metrics = running.drain().await;
    assert_eq!((metrics.delivered(), metrics.lost(Lost::Rejected), metrics.retries()), (2, 0, 3));
}

#[tokio::test]
async fn authorities_that_are_none_are_refused_at_once() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "no certificate").unwrap();
    for endpoint in ["https://tempo:4317", "https://tempo:4318"] {
        let config =
            format!("{{ name: a, endpoint: '{endpoint}', tls: {{ ca_file: {} }} }}", file.path().display());
        let error = Client::build(&serde_saphyr::from_str(&config).unwrap()).unwrap_err();
        assert!(format!("{error:#}").contains("holds no certificate in PEM"), "{error:#}");
    }
}

#[tokio::test]
async fn headers_tenant_and_compression_go_with_a_request() {
    for compression in ["gzip", "zstd"] {
        let sink = Sink::new(|_| taken());
        let mut running = Running::start(&format!(
            "{{ name: a, endpoint: 'http://{}', compression: {compression}, tenant_header: X-Scope-OrgID, \
             headers: {{ Authorization: Bearer abc }} }}",
            grpc(&sink).await
        ));
        running.append("red", &["one"]);
        assert_eq!(running.drain().await.delivered(), 1);
        let headers = sink.headers(0);
        assert_eq!(headers["authorization"], "Bearer abc");
        assert_eq!(headers["x-scope-orgid"], "red");
        assert_eq!(headers["grpc-encoding"], compression);
    }
}

#[tokio::test]
async fn http_honours_retry_after_and_carries_the_same() {
    for compression in ["none", "gzip", "zstd"] {
        let sink = Sink::new(|_| taken());
        let routes = http_routes(sink.clone(), |n| match n {
            0 => (
                StatusCode::SERVICE_UNAVAILABLE,
                HeaderMap::from_iter([("retry-after".parse().unwrap(), 1.into())]),
            ),
            _ => (StatusCode::OK, HeaderMap::new()),
        });
        let at = serve_http(routes).await;
        let mut running = Running::start(&format!(
            "{{ name: a, endpoint: 'http://{at}', protocol: http, compression: {compression}, \
             tenant_header: X-Scope-OrgID, headers: {{ Authorization: Bearer abc }} }}"
        ));
        let begin = Instant::now();
        running.append("red", &["one", "two"]);
        assert_eq!(running.drain().await.delivered(), 2);
        assert!(begin.elapsed() >= Duration::from_secs(1));
        assert_eq!(sink.names(), ["one", "two", "one", "two"]);
        let headers = sink.headers(1);
        assert_eq!(
            (&headers["authorization"], &headers["x-scope-orgid"]),
            (&"Bearer abc".parse().unwrap(), &"red".parse().unwrap())
        );
        assert_eq!(headers["content-type"], "application/x-protobuf");
    }
}

#[tokio::test]
async fn an_http_refusal_is_final() {
    let sink = Sink::new(|_| taken());
    let routes = http_routes(sink.clone(), |_| (StatusCode::BAD_REQUEST, HeaderMap::new()));
    let at = serve_http(routes).await;
    let mut running = Running::start(&format!("{{ name: a, endpoint: 'http://{at}', protocol: http }}"));
    running.append("", &["one"]);
    let metrics = running.drain().await;
    assert_eq!((metrics.delivered(), metrics.lost(Lost::Rejected)), (0, 1));
    assert_eq!(metrics.last_error().as_deref(), Some("400 Bad Request"));
}

/// A certificate authority in files of a folder, and a certificate for localhost of it for both ends.
struct Pki {
    dir: tempfile::TempDir,
}

impl Pki {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let write = |name: &str, content: String| std::fs::write(dir.path().join(name), content).unwrap();
        write("ca.pem", ca.self_signed(&ca_key).unwrap().pem());
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        write("cert.pem", params.signed_by(&key, &issuer).unwrap().pem());
        write("key.pem", key.serialize_pem());
        Self { dir }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn server(&self) -> ServerTlsConfig {
        let read = |name: &str| std::fs::read(self.path().join(name)).unwrap();
        ServerTlsConfig::new()
            .identity(Identity::from_pem(read("cert.pem"), read("key.pem")))
            .client_ca_root(tonic::transport::Certificate::from_pem(read("ca.pem")))
    }

    /// Asks for a client's certificate, as the other.
    fn https_server(&self) -> rustls::ServerConfig {
        use rustls::pki_types::pem::PemObject;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let certificate = |name: &str| CertificateDer::from_pem_file(self.path().join(name)).unwrap();
        let mut authorities = rustls::RootCertStore::empty();
        authorities.add(certificate("ca.pem")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients =
            rustls::server::WebPkiClientVerifier::builder_with_provider(authorities.into(), provider.clone());
        rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients.build().unwrap())
            .with_single_cert(
                vec![certificate("cert.pem")],
                PrivateKeyDer::from_pem_file(self.path().join("key.pem")).unwrap(),
            )
            .unwrap()
    }
}

#[tokio::test]
async fn tls_proves_both_ends() {
    let pki = Pki::new();
    let sink = Sink::new(|_| taken());
    let (grpc, _) = sink.serve(ANYWHERE.parse().unwrap(), Some(pki.server())).await;
    let http = serve_https(http_routes(sink.clone(), |_| (StatusCode::OK, HeaderMap::new())), &pki).await;
    let dir = pki.path().display();
    for (protocol, port) in [("grpc", grpc.port()), ("http", http.port())] {
        let mut running = Running::start(&format!(
            "{{ name: a, endpoint: 'https://localhost:{port}', protocol: {protocol}, tls: {{ \
             ca_file: {dir}/ca.pem, cert_file: {dir}/cert.pem, key_file: {dir}/key.pem }} }}"
        ));
        running.append("", &[protocol]);
        assert_eq!(running.drain().await.delivered(), 1);
    }
    assert_eq!(sink.names(), ["grpc", "http"]);
}

#[tokio::test]
async fn a_server_that_nobody_vouches_for_gets_nothing() {
    let (pki, stranger) = (Pki::new(), Pki::new());
    let sink = Sink::new(|_| taken());
    let (grpc, _) = sink.serve(ANYWHERE.parse().unwrap(), Some(pki.server())).await;
    let http = serve_https(http_routes(sink.clone(), |_| (StatusCode::OK, HeaderMap::new())), &pki).await;
    let dir = stranger.path().display();
    for (protocol, port) in [("grpc", grpc.port()), ("http", http.port())] {
        let mut running = Running::start(&format!(
            "{{ name: a, endpoint: 'https://localhost:{port}', protocol: {protocol}, \
             tls: {{ ca_file: {dir}/ca.pem }} }}"
        ));
        running.append("", &["one"]);
        while !running.metrics.is_down() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let error = running.metrics.last_error().unwrap();
        assert!(error.to_lowercase().contains("certificate"), "{error}");
    }
    assert!(sink.names().is_empty());
}
