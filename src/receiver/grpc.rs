//! OTLP/gRPC: `TraceService/Export`, its message taken as the bytes that came.
//!
//! One message of one method needs a prefix of five bytes and no codec: a message that came in one frame goes on without
//! having been copied.

use std::cmp::Ordering;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use prost::Message;
use tokio::time::timeout;

use super::answer::{self, Body};
use super::body::{self, Bounds};
use super::decompress::Encoding;
use super::metrics::Transport;
use super::{Accepted, Intake, MESSAGE_MAX, READ_TIMEOUT, Reception, Rejection};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// Bytes before a message.
const PREFIX: usize = 5;
const ENCODINGS: HeaderValue = HeaderValue::from_static("gzip,zstd,identity");
const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");

/// Serves OTLP/gRPC.
#[derive(Clone, Debug)]
pub struct Service<I> {
    reception: Reception<I>,
}

impl<I: Intake> Service<I> {
    pub(super) fn new(reception: Reception<I>) -> Self {
        Self { reception }
    }
}

impl<I, B> tower::Service<Request<B>> for Service<I>
where
    I: Intake,
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let reception = self.reception.clone();
        Box::pin(async move { Ok(answer(reception, request).await) })
    }
}

async fn answer<I, B>(reception: Reception<I>, request: Request<B>) -> Response<Body>
where
    I: Intake,
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    if !is_grpc(request.headers()) {
        return not_grpc();
    }
    let mut received = 0;
    match export(&reception, request, &mut received).await {
        Ok(accepted) => {
            reception.metrics.accepted(Transport::Grpc, accepted.rejected);
            success(accepted)
        }
        Err(rejection) => {
            reception.metrics.refused(Transport::Grpc, &rejection, received);
            failure(&rejection)
        }
    }
}

async fn export<I, B>(
    reception: &Reception<I>,
    request: Request<B>,
    received: &mut u64,
) -> Result<Accepted, Rejection>
where
    I: Intake,
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let (parts, mut body) = request.into_parts();
    find(parts.uri.path())?;
    let tenant = reception.door.enter(&parts.headers)?;
    let encoding = match parts.headers.get("grpc-encoding") {
        None => Encoding::Identity,
        Some(value) => Encoding::parse(value.as_bytes())?,
    };
    let bounds = Bounds { announced: 0, expected: framed_len, limit: PREFIX + MESSAGE_MAX };
    let read = body::read(&reception.intake, &mut body, bounds, received);
    let (mut room, framed) = timeout(READ_TIMEOUT, read).await.unwrap_or(Err(Rejection::TooSlow))?;
    let (compressed, mut message) = unframed(&framed)?;
    if compressed {
        if encoding == Encoding::Identity {
            return Err(Rejection::Malformed(
                "the message is compressed, but no grpc-encoding says how".into(),
            ));
        }
        let mut inflated = reception.intake.admit(0)?;
        message = encoding.decompress(message, &mut inflated)?;
        room = inflated;
    }
    drop(framed);
    reception.intake.receive(room, tenant, message).await
}

/// Bytes of a message with its prefix, once the prefix is there.
fn framed_len(first: &[u8]) -> usize {
    match first.first_chunk::<PREFIX>() {
        Some([_, length @ ..]) => PREFIX + u32::from_be_bytes(*length) as usize,
        None => 0,
    }
}

/// The one message of a request, and whether it is compressed. The prefix: one byte, and four of length.
fn unframed(framed: &Bytes) -> Result<(bool, Bytes), Rejection> {
    let malformed = |what: String| Err(Rejection::Malformed(what));
    let Some([flag, length @ ..]) = framed.first_chunk::<PREFIX>() else {
        return malformed("the request has no message".into());
    };
    let (length, found) = (u32::from_be_bytes(*length) as usize, framed.len() - PREFIX);
    if *flag > 1 {
        return malformed(format!("expected a message that begins with 0 or 1, found {flag}"));
    }
    match found.cmp(&length) {
        Ordering::Less => malformed(format!("the message announces {length} bytes, found {found}")),
        Ordering::Greater => malformed("the request has more than one message".into()),
        Ordering::Equal => Ok((*flag == 1, framed.slice(PREFIX..))),
    }
}

/// Only one method is served; those that senders mistake for it are told so.
fn find(path: &str) -> Result<(), Rejection> {
    if path == EXPORT {
        return Ok(());
    }
    let signals = [("metrics", ".metrics."), ("logs", ".logs."), ("profiles", ".profiles.")];
    for (signal, package) in signals {
        if path.starts_with("/opentelemetry.proto.collector") && path.contains(package) {
            return Err(Rejection::NotTraces { signal });
        }
    }
    Err(Rejection::UnknownPath(path.to_owned()))
}

fn success(accepted: Accepted) -> Response<Body> {
    let message = answer::response(accepted);
    let mut framed = BytesMut::with_capacity(PREFIX + message.len());
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put(message);
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let mut response = Response::new(Body::new(framed.freeze()).with_trailers(trailers));
    response.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
    response.headers_mut().insert("grpc-accept-encoding", ENCODINGS);
    response
}

fn failure(rejection: &Rejection) -> Response<Body> {
    let status = answer::Status::from(rejection);
    let details = if status.details.is_empty() { Bytes::new() } else { status.encode_to_vec().into() };
    let status = tonic::Status::with_details(rejection.answer().code, status.message, details);
    let mut response: Response<Body> = status.into_http();
    response.headers_mut().insert("grpc-accept-encoding", ENCODINGS);
    response
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// What one sees who sends OTLP/HTTP to this port.
fn not_grpc() -> Response<Body> {
    let words = "this port receives OTLP over gRPC; OTLP over HTTP is received at the address of receivers.otlp.http\n";
    let mut response = Response::new(Body::new(Bytes::from_static(words.as_bytes())));
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response
}
