//! Takes requests in: OTLP over gRPC and over HTTP, protobuf and JSON.
//!
//! Promises:
//!
//! - Bytes of the wire are admitted by the [`Intake`] before they are buffered, and what they decompress to before
//!   anything waits; what is refused is not kept.
//! - A request reaches the intake as one OTLP protobuf message of at most [`MESSAGE_MAX`] bytes, uninterpreted.
//! - Every refusal is a [`Rejection`], and one table says what both transports answer.
//! - Connections, streams, the time for a header and the time for a body are bounded.
//!
//! Reading order: [`rejection`] (the table), [`grpc`] and [`http`] (the transports), [`server`] (the listening loop).

pub mod config;
pub mod grpc;
pub mod http;
pub mod metrics;
pub mod rejection;
pub mod server;

mod answer;
mod body;
mod decompress;
mod door;
mod json;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use config::Config;
pub(crate) use json::to_protobuf as json_to_protobuf;
pub use metrics::Metrics;
pub use rejection::{Cause, Rejection};

use door::Door;
use server::{BindError, Connections, Listener, Stop};

/// The largest request, in bytes after decompression.
pub const MESSAGE_MAX: usize = 16 << 20;

/// The time a sender has for a request's body, once its header is read.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// What stands behind the receiver. A request's fate is decided there.
pub trait Intake: Clone + Send + Sync + 'static {
    type Room: Room;

    /// Room for bytes that are about to be read.
    fn admit(&self, bytes: usize) -> Result<Self::Room, Rejection>;

    /// Stores a request; returns when it is safe to acknowledge it.
    ///
    /// `body` is an `ExportTraceServiceRequest` that nobody has looked into yet; `room` covers its length.
    fn receive(
        &self,
        room: Self::Room,
        tenant: &str,
        body: Bytes,
    ) -> impl Future<Output = Result<Accepted, Rejection>> + Send;
}

/// Admitted bytes; given back on drop.
pub trait Room: Send + 'static {
    /// Admits so many bytes more.
    fn grow(&mut self, bytes: usize) -> Result<(), Rejection>;
}

/// A stored request. Some of its spans may have been rejected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Spans that were not stored.
    pub rejected: u32,
    /// Why the first of them was not.
    pub reason: Option<String>,
}

/// What the transports share.
#[derive(Clone, Debug)]
struct Reception<I> {
    intake: I,
    door: Arc<Door>,
    metrics: Arc<Metrics>,
}

/// The sockets of a receiver, bound and not yet served.
#[derive(Debug)]
pub struct Bound {
    grpc: Option<Listener>,
    http: Option<Listener>,
    config: Config,
}

/// Binds what the configuration names, so that a taken port or an unreadable certificate is known at start.
pub async fn bind(config: &Config) -> Result<Bound, BindError> {
    let grpc = match &config.grpc {
        Some(grpc) => Some(listen(&grpc.listen, grpc.tls.as_ref()).await?),
        None => None,
    };
    let http = match &config.http {
        Some(http) => Some(listen(&http.listen, http.tls.as_ref()).await?),
        None => None,
    };
    if grpc.is_none() && http.is_none() {
        return Err(BindError::Nothing);
    }
    Ok(Bound { grpc, http, config: config.clone() })
}

async fn listen(address: &str, tls: Option<&config::Tls>) -> Result<Listener, BindError> {
    let tls = tls.map(tls::server_config).transpose()?;
    Ok(Listener::bind(address).await?.with_tls(tls))
}

impl Bound {
    /// Where gRPC is listened for.
    pub fn grpc_address(&self) -> Option<std::net::SocketAddr> {
        self.grpc.as_ref().map(Listener::address)
    }

    /// Where HTTP is listened for.
    pub fn http_address(&self) -> Option<std::net::SocketAddr> {
        self.http.as_ref().map(Listener::address)
    }

    /// Serves until `stop`; then requests under way have `grace` to end.
    pub async fn serve<I: Intake>(self, intake: I, metrics: Arc<Metrics>, grace: Duration, stop: Stop) {
        let door = Arc::new(Door::new(&self.config));
        let connections: Arc<Connections> = metrics.connections.clone();
        let settings = server::Settings { grace, ..server::Settings::default() };
        let reception = Reception { intake, door, metrics };
        let grpc = async {
            if let Some(listener) = self.grpc {
                let service = grpc::Service::new(reception.clone());
                server::serve(listener, service, settings, connections.clone(), stop.clone()).await;
            }
        };
        let http = async {
            if let (Some(listener), Some(config)) = (self.http, &self.config.http) {
                let service = http::service(reception.clone(), config);
                server::serve(listener, service, settings, connections.clone(), stop.clone()).await;
            }
        };
        tokio::join!(grpc, http);
    }
}

#[cfg(test)]
mod tests;
