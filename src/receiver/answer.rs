//! Answers in the words of OTLP: `ExportTraceServiceResponse` and `google.rpc.Status`, in protobuf and in JSON.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use prost::Message;
use serde_json::json;

use super::{Accepted, Rejection};

const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// A short body: all its bytes at once, then perhaps trailers.
#[derive(Debug, Default)]
pub struct Body {
    data: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl Body {
    pub(super) fn new(data: Bytes) -> Self {
        Self { data: Some(data).filter(|data| !data.is_empty()), trailers: None }
    }

    pub(super) fn with_trailers(self, trailers: HeaderMap) -> Self {
        Self { trailers: Some(trailers), ..self }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = match self.data.take() {
            Some(data) => Some(Frame::data(data)),
            None => self.trailers.take().map(Frame::trailers),
        };
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.as_ref().map_or(0, |data| data.len() as u64))
    }
}

/// `google.rpc.Status`: <https://github.com/googleapis/googleapis/blob/master/google/rpc/status.proto>
#[derive(Clone, PartialEq, Message)]
pub(super) struct Status {
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
    #[prost(string, tag = "2")]
    pub(super) message: String,
    #[prost(message, repeated, tag = "3")]
    pub(super) details: Vec<Any>,
}

/// `google.protobuf.Any`
#[derive(Clone, PartialEq, Message)]
pub(super) struct Any {
    #[prost(string, tag = "1")]
    pub(super) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) value: Vec<u8>,
}

/// `google.rpc.RetryInfo`
#[derive(Clone, PartialEq, Message)]
pub(super) struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    pub(super) retry_delay: Option<ProtobufDuration>,
}

/// `google.protobuf.Duration`
#[derive(Clone, PartialEq, Message)]
pub(super) struct ProtobufDuration {
    #[prost(int64, tag = "1")]
    pub(super) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(super) nanos: i32,
}

impl From<&Rejection> for Status {
    fn from(rejection: &Rejection) -> Self {
        let answer = rejection.answer();
        let details = answer.retry_after.map(retry_info).into_iter().collect();
        Self { code: answer.code as i32, message: rejection.to_string(), details }
    }
}

fn retry_info(after: Duration) -> Any {
    let retry_delay =
        ProtobufDuration { seconds: after.as_secs() as i64, nanos: after.subsec_nanos() as i32 };
    Any { type_url: RETRY_INFO.into(), value: RetryInfo { retry_delay: Some(retry_delay) }.encode_to_vec() }
}

/// A rejection as JSON of `google.rpc.Status`.
pub(super) fn status_json(rejection: &Rejection) -> Bytes {
    let answer = rejection.answer();
    let mut status = json!({ "code": answer.code as i32, "message": rejection.to_string() });
    if let Some(after) = answer.retry_after {
        let delay = format!("{}s", after.as_secs_f64());
        status["details"] = json!([{ "@type": RETRY_INFO, "retryDelay": delay }]);
    }
    status.to_string().into()
}

/// A stored request as `ExportTraceServiceResponse`; empty if all of it was stored.
pub(super) fn response(accepted: Accepted) -> Bytes {
    if accepted.rejected == 0 && accepted.reason.is_none() {
        return Bytes::new();
    }
    let partial_success = ExportTracePartialSuccess {
        rejected_spans: i64::from(accepted.rejected),
        error_message: accepted.reason.unwrap_or_default(),
    };
    ExportTraceServiceResponse { partial_success: Some(partial_success) }.encode_to_vec().into()
}

/// The same as JSON.
pub(super) fn response_json(accepted: Accepted) -> Bytes {
    if accepted.rejected == 0 && accepted.reason.is_none() {
        return Bytes::from_static(b"{}");
    }
    let rejected = accepted.rejected.to_string();
    let reason = accepted.reason.unwrap_or_default();
    json!({ "partialSuccess": { "rejectedSpans": rejected, "errorMessage": reason } }).to_string().into()
}
