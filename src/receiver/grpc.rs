//! OTLP/gRPC: `TraceService/Export` with a codec that takes the message's bytes as they are.
//!
//! tonic reads the framing and decompresses, bounded while it runs. The frames of the wire are charged before they are
//! buffered; a decompressed message is charged before anything waits, so that at most one per worker thread is not yet.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use prost::Message;
use tokio::time::timeout;
use tonic::Code;
use tonic::codec::{CompressionEncoding, DecodeBuf, Decoder, Streaming};

use super::admission::{Account, Charged, SharedAccount};
use super::answer::{self, Body};
use super::metrics::Transport;
use super::{Accepted, Intake, MESSAGE_MAX, READ_TIMEOUT, Reception, Rejection};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
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
    let account = Account::shared(reception.intake.clone());
    match export(&reception, request, &account).await {
        Ok(accepted) => {
            reception.metrics.accepted(Transport::Grpc, accepted.rejected);
            success(accepted)
        }
        Err(rejection) => {
            reception.metrics.refused(Transport::Grpc, &rejection, account.lock().received());
            failure(&rejection)
        }
    }
}

async fn export<I, B>(
    reception: &Reception<I>,
    request: Request<B>,
    account: &SharedAccount<I>,
) -> Result<Accepted, Rejection>
where
    I: Intake,
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let (parts, body) = request.into_parts();
    find(parts.uri.path())?;
    let tenant = reception.door.enter(&parts.headers)?;
    let encoding = encoding(&parts.headers)?;
    let body = Charged::new(body, account.clone());
    let message =
        timeout(READ_TIMEOUT, read(body, encoding, account)).await.unwrap_or(Err(Rejection::TooSlow))?;
    let room = account.lock().take_room()?;
    reception.intake.receive(room, tenant, message).await
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

fn encoding(headers: &HeaderMap) -> Result<Option<CompressionEncoding>, Rejection> {
    match headers.get("grpc-encoding").map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(None),
        Some(b"gzip") => Ok(Some(CompressionEncoding::Gzip)),
        Some(b"zstd") => Ok(Some(CompressionEncoding::Zstd)),
        Some(other) => Err(Rejection::Unsupported(format!(
            "expected grpc-encoding gzip, zstd or identity, found {}",
            other.escape_ascii()
        ))),
    }
}

/// The one message of a request.
async fn read<I, B>(
    body: Charged<B, I>,
    encoding: Option<CompressionEncoding>,
    account: &SharedAccount<I>,
) -> Result<Bytes, Rejection>
where
    I: Intake,
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let decoder = Raw { account: account.clone(), apart: encoding.is_some() };
    let mut messages = Streaming::new_request(decoder, body, encoding, Some(MESSAGE_MAX));
    let refused = |status| account.lock().take_refused().unwrap_or_else(|| reworded(&status));
    let Some(message) = messages.message().await.map_err(refused)? else {
        return Err(Rejection::Malformed("the request has no message".into()));
    };
    // The end of the stream is waited for: an answer before it would reset the stream.
    match messages.message().await.map_err(refused)? {
        None => Ok(message),
        Some(_) => Err(Rejection::Malformed("the request has more than one message".into())),
    }
}

/// tonic's own statuses, in ours. It answers a message too large with OUT_OF_RANGE, which senders retry for ever.
fn reworded(status: &tonic::Status) -> Rejection {
    match status.code() {
        Code::OutOfRange | Code::ResourceExhausted => Rejection::TooLarge,
        Code::Unimplemented => Rejection::Unsupported(status.message().to_owned()),
        _ => Rejection::Malformed(status.message().to_owned()),
    }
}

/// Takes a message out of the decode buffer without looking into it, and without copying it.
struct Raw<I: Intake> {
    account: SharedAccount<I>,
    /// The message does not live in the bytes that came over the wire, because those are compressed.
    apart: bool,
}

impl<I: Intake> Decoder for Raw<I> {
    type Item = Bytes;
    type Error = tonic::Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, tonic::Status> {
        let length = buffer.remaining();
        if self.apart {
            let charged = self.account.lock().charge_message(length);
            charged.map_err(|refused| tonic::Status::unavailable(refused.to_string()))?;
        }
        Ok(Some(buffer.copy_to_bytes(length)))
    }
}

fn success(accepted: Accepted) -> Response<Body> {
    let message = answer::response(accepted);
    let mut framed = BytesMut::with_capacity(5 + message.len());
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
