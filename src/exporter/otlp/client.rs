//! One request to a backend, over gRPC or HTTP: bytes go out as the outbox has them.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use parking_lot::Mutex;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use super::config::{Compression, Config, Protocol};
use super::outcome::Outcome;
use super::queue::Request;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Finds connections that a firewall has forgotten.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);
const USER_AGENT: &str = concat!("tailwater/", env!("CARGO_PKG_VERSION"));
const EXPORT: PathAndQuery =
    PathAndQuery::from_static("/opentelemetry.proto.collector.trace.v1.TraceService/Export");

/// Sends one request and says what became of it; never earlier than its fate is known or its time is over.
pub trait Transport: Clone + Send + Sync + 'static {
    fn send(&self, request: Request) -> impl Future<Output = Outcome> + Send;
}

/// The backend of one configuration. Connects when it is used, and again whenever the connection breaks.
#[derive(Clone, Debug)]
pub struct Client {
    wire: Wire,
    headers: HeaderMap,
    tenant_header: Option<HeaderName>,
    compression: Compression,
    timeout: Duration,
}

#[derive(Clone, Debug)]
enum Wire {
    Grpc(Box<Connection>),
    Http { client: reqwest::Client, url: Arc<str> },
}

impl Client {
    /// Reads the TLS files; opens no connection. Must be called in a tokio runtime.
    pub fn build(config: &Config) -> Result<Self> {
        use_ring();
        let tenant_header = config.tenant_header.as_ref().map(|key| header_name(key.as_str())).transpose()?;
        let wire = match config.protocol() {
            Protocol::Grpc => Wire::Grpc(Connection::new(grpc_endpoint(config)?, config.compression).into()),
            Protocol::Http => {
                Wire::Http { client: http_client(config)?, url: config.endpoint.traces_url().into() }
            }
        };
        let headers = config
            .headers
            .iter()
            .map(|(key, text)| Ok((header_name(key.as_str())?, text.value().clone())))
            .collect::<Result<_>>()?;
        let timeout = config.timeout.get();
        Ok(Self { wire, headers, tenant_header, compression: config.compression, timeout })
    }

    /// What goes with a request beside its body.
    fn headers(&self, tenant: &str) -> HeaderMap {
        let mut headers = self.headers.clone();
        let value = HeaderValue::from_str(tenant).ok().filter(|value| !value.is_empty());
        if let (Some(name), Some(value)) = (&self.tenant_header, value) {
            headers.insert(name, value);
        }
        headers
    }
}

impl Transport for Client {
    async fn send(&self, request: Request) -> Outcome {
        let headers = self.headers(&request.tenant);
        match &self.wire {
            Wire::Grpc(connection) => {
                let (age, client) = connection.client();
                let sent = send_grpc(client, headers, request.body);
                tokio::time::timeout(self.timeout, sent).await.unwrap_or_else(|_| {
                    connection.give_up(age);
                    Outcome::timed_out(self.timeout)
                })
            }
            Wire::Http { client, url } => {
                let sent = send_http(client, url, headers, self.compression, request.body);
                tokio::time::timeout(self.timeout, sent)
                    .await
                    .unwrap_or_else(|_| Outcome::timed_out(self.timeout))
            }
        }
    }
}

/// The connection of a gRPC client.
///
/// One that has not answered in time is not used again: it may lead to a machine that is gone, which TCP takes a
/// quarter of an hour to notice. (HTTP/1 closes such a connection itself.)
#[derive(Clone, Debug)]
struct Connection {
    endpoint: Endpoint,
    compression: Compression,
    /// With how many were given up before it. Held to clone or replace it.
    current: Arc<Mutex<(u64, Channel)>>,
}

impl Connection {
    fn new(endpoint: Endpoint, compression: Compression) -> Self {
        let current = Arc::new(Mutex::new((0, endpoint.connect_lazy())));
        Self { endpoint, compression, current }
    }

    fn client(&self) -> (u64, tonic::client::Grpc<Channel>) {
        let (age, channel) = self.current.lock().clone();
        let client = tonic::client::Grpc::new(channel)
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Zstd);
        let client = match self.compression {
            Compression::None => client,
            Compression::Gzip => client.send_compressed(CompressionEncoding::Gzip),
            Compression::Zstd => client.send_compressed(CompressionEncoding::Zstd),
        };
        (age, client)
    }

    /// Requests that fail together give up one connection.
    fn give_up(&self, age: u64) {
        let mut current = self.current.lock();
        if current.0 == age {
            *current = (age + 1, self.endpoint.connect_lazy());
        }
    }
}

/// The TLS of this program is ring's, unless the process has chosen another.
fn use_ring() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Fails if another thread has just done so, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

fn header_name(key: &str) -> Result<HeaderName> {
    HeaderName::try_from(key).with_context(|| format!("header {key}"))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("read {}", path.display()))
}

/// PEM. Without a certificate in it nobody would be trusted, and nothing would say why.
fn authorities(path: &Path) -> Result<Vec<u8>> {
    let pem = read(path)?;
    let begin = b"-----BEGIN CERTIFICATE-----";
    if !pem.windows(begin.len()).any(|window| window == begin) {
        return Err(anyhow!("{} holds no certificate in PEM", path.display()));
    }
    Ok(pem)
}

fn grpc_endpoint(config: &Config) -> Result<Endpoint> {
    let endpoint = Endpoint::from_shared(config.endpoint.as_str().to_owned())?
        .user_agent(USER_AGENT)?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_keepalive(Some(TCP_KEEPALIVE))
        .http2_adaptive_window(true);
    if config.endpoint.is_tls() { Ok(endpoint.tls_config(grpc_tls(config)?)?) } else { Ok(endpoint) }
}

fn grpc_tls(config: &Config) -> Result<ClientTlsConfig> {
    let mut tls = match &config.tls.ca_file {
        Some(path) => {
            ClientTlsConfig::new().ca_certificate(tonic::transport::Certificate::from_pem(authorities(path)?))
        }
        None => ClientTlsConfig::new().with_native_roots(),
    };
    if let (Some(cert), Some(key)) = (&config.tls.cert_file, &config.tls.key_file) {
        tls = tls.identity(tonic::transport::Identity::from_pem(read(cert)?, read(key)?));
    }
    Ok(tls)
}

fn http_client(config: &Config) -> Result<reqwest::Client> {
    let mut builder = reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_keepalive(TCP_KEEPALIVE)
        .http1_only()
        .redirect(reqwest::redirect::Policy::none());
    if let Some(path) = &config.tls.ca_file {
        let authorities = reqwest::Certificate::from_pem_bundle(&authorities(path)?)
            .with_context(|| format!("read certificates of {}", path.display()))?;
        builder = builder.tls_certs_only(authorities);
    }
    if let (Some(cert), Some(key)) = (&config.tls.cert_file, &config.tls.key_file) {
        let identity = [read(cert)?, b"\n".to_vec(), read(key)?].concat();
        builder =
            builder.identity(reqwest::Identity::from_pem(&identity).context("read cert_file and key_file")?);
    }
    builder.build().context("set up the HTTP client")
}

async fn send_grpc(
    mut client: tonic::client::Grpc<Channel>,
    headers: HeaderMap,
    body: Vec<Bytes>,
) -> Outcome {
    if let Err(error) = client.ready().await {
        return Outcome::unreachable(&error);
    }
    let request = tonic::Request::from_parts(MetadataMap::from_headers(headers), Default::default(), body);
    match client.unary(request, EXPORT, RawCodec).await {
        Ok(response) => Outcome::of_response(response.into_inner()),
        Err(status) => Outcome::of_status(&status),
    }
}

async fn send_http(
    client: &reqwest::Client,
    url: &str,
    mut headers: HeaderMap,
    compression: Compression,
    body: Vec<Bytes>,
) -> Outcome {
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    let body = match compress(compression, body).await {
        Ok((encoding, body)) => {
            headers.extend(encoding.map(|encoding| (header::CONTENT_ENCODING, encoding)));
            body
        }
        Err(error) => return Outcome::Refused { divisible: false, error: format!("{error:#}") },
    };
    let response = match client.post(url).headers(headers).body(body).send().await {
        Ok(response) => response,
        Err(error) => return Outcome::unreachable(&error),
    };
    let (status, headers) = (response.status(), response.headers().clone());
    match read_answer(response).await {
        Ok(body) => Outcome::of_http(status, &headers, body, SystemTime::now()),
        Err(error) => Outcome::unreachable(&error),
    }
}

/// As much of the answer as is ever looked at.
async fn read_answer(mut response: reqwest::Response) -> reqwest::Result<Bytes> {
    const ANSWER_MAX: usize = 64 << 10;
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk[..chunk.len().min(ANSWER_MAX - body.len())]);
        if body.len() == ANSWER_MAX {
            break;
        }
    }
    Ok(body.freeze())
}

type Encode = fn(&[Bytes]) -> std::io::Result<Vec<u8>>;

/// Off the I/O workers: a batch takes tens of milliseconds.
async fn compress(how: Compression, body: Vec<Bytes>) -> Result<(Option<HeaderValue>, Bytes)> {
    let (name, encode): (_, Encode) = match how {
        Compression::None => return Ok((None, body.concat().into())),
        Compression::Gzip => ("gzip", gzip),
        Compression::Zstd => ("zstd", zstd),
    };
    let encoded = tokio::task::spawn_blocking(move || encode(&body)).await.map_err(|error| anyhow!(error))?;
    Ok((Some(HeaderValue::from_static(name)), encoded.context("compress a request")?.into()))
}

fn gzip(body: &[Bytes]) -> std::io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    body.iter().try_for_each(|chunk| encoder.write_all(chunk))?;
    encoder.finish()
}

fn zstd(body: &[Bytes]) -> std::io::Result<Vec<u8>> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1)?;
    body.iter().try_for_each(|chunk| encoder.write_all(chunk))?;
    encoder.finish()
}

/// Bytes in, bytes out.
#[derive(Clone, Copy, Debug, Default)]
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Vec<Bytes>;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Vec<Bytes>;
    type Error = tonic::Status;

    fn encode(&mut self, item: Vec<Bytes>, out: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        out.reserve(item.iter().map(Bytes::len).sum());
        item.into_iter().for_each(|chunk| out.put(chunk));
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = tonic::Status;

    fn decode(&mut self, input: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, tonic::Status> {
        Ok(Some(input.copy_to_bytes(input.remaining())))
    }
}
