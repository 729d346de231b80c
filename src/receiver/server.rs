//! The listening loop: serves any tower service over HTTP/1.1 and HTTP/2, with bounds.
//!
//! A socket is bound before it is served, so that a taken port is known at start. Connections above the bound wait in
//! the kernel's queue. A connection that asks for nothing, and one that has gone quiet, are closed. Shutting down stops
//! accepting, lets requests under way end within the grace, and then drops what is left.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

/// Stops a server when its sender says anything or is dropped.
pub type Stop = watch::Receiver<()>;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Connections the kernel queues for us.
const BACKLOG: u32 = 4096;
/// The time after which accepting is tried again when file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a connection of HTTP/1.1 reads at once, which no request has admitted yet.
const READ_BUFFER_MAX: usize = 64 << 10;

/// The bounds of a server.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub connections_max: usize,
    /// Requests at a time on one HTTP/2 connection.
    pub streams_max: u32,
    /// The time for a TLS handshake, and then until the first request of a connection.
    pub header_timeout: Duration,
    /// A connection without a request for so long is closed; an HTTP/1.1 header that takes so long too.
    pub idle_timeout: Duration,
    /// The time that requests under way have to end when the server stops.
    pub grace: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connections_max: 8_192,
            streams_max: 256,
            header_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(300),
            grace: Duration::from_secs(5),
        }
    }
}

/// Counts of the connections of a server, or of several.
#[derive(Debug, Default)]
pub struct Connections {
    open: AtomicU64,
    accepted: AtomicU64,
    failed: AtomicU64,
}

impl Connections {
    /// Open now.
    pub fn open(&self) -> u64 {
        self.open.load(Relaxed)
    }

    /// Accepted since the process began.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Relaxed)
    }

    /// Ended by an error: a failed handshake, a broken protocol, a timeout.
    pub fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }
}

/// A socket that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("listen on {address}")]
    Listen { address: String, source: io::Error },
    #[error("receivers.otlp: grpc and http are both off, so nothing could be received")]
    Nothing,
    #[error("{what} {path}")]
    Tls { what: &'static str, path: String, source: BoxError },
}

/// A bound socket.
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Listener")
            .field("address", &self.address)
            .field("tls", &self.tls.is_some())
            .finish()
    }
}

impl Listener {
    /// Binds `host:port`; port 0 takes any free one.
    pub async fn bind(address: &str) -> Result<Self, BindError> {
        let failed = |source| BindError::Listen { address: address.to_owned(), source };
        let mut last = io::Error::new(io::ErrorKind::InvalidInput, "expected host:port");
        for resolved in lookup_host(address).await.map_err(failed)? {
            match Self::open(resolved) {
                Ok(listener) => return Ok(listener),
                Err(error) => last = error,
            }
        }
        Err(failed(last))
    }

    fn open(address: SocketAddr) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let socket = socket.listen(BACKLOG)?;
        Ok(Self { address: socket.local_addr()?, socket, tls: None })
    }

    pub fn with_tls(mut self, tls: Option<Arc<tokio_rustls::rustls::ServerConfig>>) -> Self {
        self.tls = tls.map(TlsAcceptor::from);
        self
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Serves until `stop`, then until all connections are closed or the grace is over.
pub async fn serve<S, B>(
    listener: Listener,
    service: S,
    settings: Settings,
    connections: Arc<Connections>,
    mut stop: Stop,
) where
    S: tower::Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let address = listener.address;
    let slots = Arc::new(Semaphore::new(settings.connections_max));
    let host =
        Arc::new(Host { service, protocols: protocols(&settings), settings, connections, tls: listener.tls });
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            _ = stop.changed() => break,
            Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
            (stream, slot) = accept(&listener.socket, &slots) => {
                tasks.spawn(host.clone().connection(stream, slot, stop.clone()));
            }
        }
    }
    drop(listener.socket);
    info!(%address, connections = tasks.len(), "stopped accepting");
    let closed = timeout(settings.grace, async { while tasks.join_next().await.is_some() {} }).await;
    if closed.is_err() {
        warn!(%address, connections = tasks.len(), "connections dropped at the end of the grace");
    }
}

async fn accept(socket: &TcpListener, slots: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    let slot = slots.clone().acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match socket.accept().await {
            Ok((stream, _)) => return (stream, slot),
            Err(error) if is_of_connection(&error) => {}
            Err(error) => {
                warn!(%error, "cannot accept connections");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The peer gave up before we accepted it.
fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

fn protocols(settings: &Settings) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.idle_timeout)
        .max_buf_size(READ_BUFFER_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.streams_max)
        // The largest frame HTTP/2 knows is 16 MiB - 1. Large ones save senders that use them a third of the transport's cost.
        .max_frame_size((4 << 20) - 1)
        // What a connection can have in flight that no request has admitted yet.
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .keep_alive_interval(Duration::from_secs(60))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

/// What the connections of a server share.
struct Host<S> {
    service: S,
    protocols: auto::Builder<TokioExecutor>,
    settings: Settings,
    connections: Arc<Connections>,
    tls: Option<TlsAcceptor>,
}

impl<S, B> Host<S>
where
    S: tower::Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    async fn connection(self: Arc<Self>, stream: TcpStream, _slot: OwnedSemaphorePermit, stop: Stop) {
        self.connections.accepted.fetch_add(1, Relaxed);
        let _open = Open::new(&self.connections.open);
        if let Err(error) = self.converse(stream, stop).await {
            self.connections.failed.fetch_add(1, Relaxed);
            debug!(error, "connection failed");
        }
    }

    async fn converse(&self, stream: TcpStream, stop: Stop) -> Result<(), BoxError> {
        stream.set_nodelay(true)?;
        match &self.tls {
            None => self.drive(stream, stop).await,
            Some(tls) => {
                let stream = timeout(self.settings.header_timeout, tls.accept(stream)).await??;
                self.drive(stream, stop).await
            }
        }
    }

    async fn drive<T>(&self, stream: T, mut stop: Stop) -> Result<(), BoxError>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let requests = Arc::new(AtomicU64::new(0));
        let service =
            Counted { inner: TowerToHyperService::new(self.service.clone()), requests: requests.clone() };
        let mut connection = pin!(self.protocols.serve_connection(TokioIo::new(stream), service));
        let Settings { header_timeout, idle_timeout, .. } = self.settings;
        let mut tick = interval_at(Instant::now() + header_timeout, idle_timeout);
        let mut seen = 0;
        let mut closing = false;
        loop {
            tokio::select! {
                biased;
                ended = connection.as_mut() => return ended,
                _ = stop.changed(), if !closing => {
                    closing = true;
                    connection.as_mut().graceful_shutdown();
                }
                _ = tick.tick(), if !closing => match requests.load(Relaxed) {
                    0 => return Err("no request in time".into()),
                    count if count == seen => {
                        closing = true;
                        connection.as_mut().graceful_shutdown();
                    }
                    count => seen = count,
                },
            }
        }
    }
}

/// Counts the requests of one connection, so that a quiet one is noticed.
#[derive(Clone)]
struct Counted<S> {
    inner: S,
    requests: Arc<AtomicU64>,
}

impl<S: hyper::service::Service<R>, R> hyper::service::Service<R> for Counted<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn call(&self, request: R) -> S::Future {
        self.requests.fetch_add(1, Relaxed);
        self.inner.call(request)
    }
}

/// One open connection.
struct Open<'a>(&'a AtomicU64);

impl<'a> Open<'a> {
    fn new(open: &'a AtomicU64) -> Self {
        open.fetch_add(1, Relaxed);
        Self(open)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
