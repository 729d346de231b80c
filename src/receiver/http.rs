//! OTLP/HTTP: `POST /v1/traces`, protobuf and JSON, answered in the content type of the request.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use http_body::Body as _;
use http_body_util::BodyExt;
use prost::Message;
use tokio::time::timeout;
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, Cors, CorsLayer};

use super::answer::{self, Body};
use super::body::{self, Bounds};
use super::config;
use super::decompress::Encoding;
use super::metrics::Transport;
use super::{Accepted, Intake, MESSAGE_MAX, READ_TIMEOUT, Reception, Rejection, json};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Serves OTLP/HTTP, to browsers too if the configuration names their origins.
pub(super) fn service<I: Intake>(reception: Reception<I>, config: &config::Http) -> Cors<Service<I>> {
    let layer = CorsLayer::new()
        .allow_origin(origins(&config.cors))
        .allow_methods(AllowMethods::exact(Method::POST))
        .allow_headers(AllowHeaders::mirror_request())
        .max_age(std::time::Duration::from_secs(7200));
    tower::Layer::layer(&layer, Service { reception })
}

fn origins(config: &config::Cors) -> AllowOrigin {
    if config.allowed_origins.iter().any(|origin| origin == "*") {
        return AllowOrigin::any();
    }
    let patterns = config.allowed_origins.clone();
    AllowOrigin::predicate(move |origin, _| {
        patterns.iter().any(|pattern| matches(pattern.as_bytes(), origin.as_bytes()))
    })
}

/// Whether `text` is `pattern`, where `*` stands for any characters.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|skip| matches(rest, &text[skip..])),
        Some((first, rest)) => {
            text.split_first().is_some_and(|(byte, text)| byte == first && matches(rest, text))
        }
    }
}

/// Serves OTLP/HTTP.
#[derive(Clone, Debug)]
pub struct Service<I> {
    reception: Reception<I>,
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
        Box::pin(async move { Ok(respond(reception, request).await) })
    }
}

async fn respond<I, B>(reception: Reception<I>, request: Request<B>) -> Response<Body>
where
    I: Intake,
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let transport = transport(request.headers());
    let (parts, mut body) = request.into_parts();
    let mut received = 0;
    match export(&reception, &parts, &mut body, &mut received).await {
        Ok(accepted) => {
            reception.metrics.accepted(transport, accepted.rejected);
            success(transport, accepted)
        }
        Err(rejection) => {
            reception.metrics.refused(transport, &rejection, received);
            if rejection != Rejection::TooSlow {
                discard(body).await;
            }
            failure(transport, &rejection)
        }
    }
}

/// What is not said to be JSON is answered in protobuf.
fn transport(headers: &HeaderMap) -> Transport {
    if is(headers, &JSON) { Transport::HttpJson } else { Transport::HttpProtobuf }
}

/// Whether the content type is this one, whatever its parameters.
fn is(headers: &HeaderMap, expected: &HeaderValue) -> bool {
    let found = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let essence = found.split(|byte| *byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(expected.as_bytes())
}

async fn export<I, B>(
    reception: &Reception<I>,
    parts: &http::request::Parts,
    body: &mut B,
    received: &mut u64,
) -> Result<Accepted, Rejection>
where
    I: Intake,
    B: http_body::Body<Data = Bytes> + Send + Unpin,
    B::Error: Into<BoxError>,
{
    find(&parts.method, parts.uri.path())?;
    let tenant = reception.door.enter(&parts.headers)?;
    let json = is(&parts.headers, &JSON);
    if !json && !is(&parts.headers, &PROTOBUF) {
        return Err(Rejection::Unsupported(
            "expected Content-Type application/x-protobuf or application/json".into(),
        ));
    }
    let encoding = match parts.headers.get(header::CONTENT_ENCODING) {
        None => Encoding::Identity,
        Some(value) => Encoding::parse(value.as_bytes())?,
    };
    let announced = body.size_hint().exact().unwrap_or(0) as usize;
    let bounds = Bounds { announced, expected: |_: &[u8]| announced, limit: MESSAGE_MAX };
    let read = body::read(&reception.intake, body, bounds, received);
    let (mut room, mut message) = timeout(READ_TIMEOUT, read).await.unwrap_or(Err(Rejection::TooSlow))?;
    if encoding != Encoding::Identity {
        let mut inflated = reception.intake.admit(0)?;
        message = encoding.decompress(message, &mut inflated)?;
        room = inflated;
    }
    if json {
        let mut converted = reception.intake.admit(json::converted_len_max(message.len()))?;
        message = json::to_protobuf(&message)?;
        std::mem::swap(&mut room, &mut converted);
    }
    reception.intake.receive(room, tenant, message).await
}

/// Only one path is served; those that senders mistake for it are told so.
fn find(method: &Method, path: &str) -> Result<(), Rejection> {
    match path {
        "/v1/traces" if method == Method::POST => Ok(()),
        "/v1/traces" => Err(Rejection::Method),
        "/v1/metrics" => Err(Rejection::NotTraces { signal: "metrics" }),
        "/v1/logs" => Err(Rejection::NotTraces { signal: "logs" }),
        "/v1development/profiles" => Err(Rejection::NotTraces { signal: "profiles" }),
        other => Err(Rejection::UnknownPath(other.to_owned())),
    }
}

/// Reads on without keeping, because a sender that is cut off while it writes does not see why, and sends again.
async fn discard<B>(mut body: B)
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    let mut left = 4 * MESSAGE_MAX;
    let _ = timeout(READ_TIMEOUT, async {
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                break;
            }
        }
    })
    .await;
}

fn success(transport: Transport, accepted: Accepted) -> Response<Body> {
    let json = transport == Transport::HttpJson;
    let body = if json { answer::response_json(accepted) } else { answer::response(accepted) };
    typed(transport, body)
}

fn failure(transport: Transport, rejection: &Rejection) -> Response<Body> {
    let answer = rejection.answer();
    let body = match transport {
        Transport::HttpJson => answer::status_json(rejection),
        _ => answer::Status::from(rejection).encode_to_vec().into(),
    };
    let mut response = typed(transport, body);
    *response.status_mut() = answer.http;
    let headers = response.headers_mut();
    if let Some(after) = answer.retry_after {
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
    match rejection {
        Rejection::Method => headers.insert(header::ALLOW, HeaderValue::from_static("POST, OPTIONS")),
        Rejection::Unauthenticated => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
        }
        _ => None,
    };
    response
}

fn typed(transport: Transport, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::new(body));
    let content_type = if transport == Transport::HttpJson { JSON } else { PROTOBUF };
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}
