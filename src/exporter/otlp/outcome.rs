//! What a backend's answer means for the batch, one table for both transports.
//!
//! <https://opentelemetry.io/docs/specs/otlp/#failures>. One deviation: a wrong or expired credential is waited for,
//! not answered by throwing spans away.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use tonic::{Code, Status};

/// The fate of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The backend has the spans, but for `rejected` of them.
    Delivered { rejected: u64, message: String },
    /// Later the same request may succeed.
    Retry { wait: Wait, error: String },
    /// It never will. `divisible`: less of it might, because the fault lies in what was sent.
    Refused { divisible: bool, error: String },
}

/// How long to wait before the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Exponential.
    Backoff,
    /// As the backend says.
    Told(Duration),
    /// Until somebody has mended the credentials.
    Credentials,
}

impl Outcome {
    pub(super) fn unreachable(error: &dyn std::error::Error) -> Self {
        Self::Retry { wait: Wait::Backoff, error: with_causes(error) }
    }

    pub(super) fn timed_out(after: Duration) -> Self {
        Self::Retry { wait: Wait::Backoff, error: format!("no answer within {after:?}") }
    }

    /// A successful answer's body.
    pub(super) fn of_response(body: Bytes) -> Self {
        // An answer that cannot be read is a success still: the status says that the spans were taken.
        let response = ExportTraceServiceResponse::decode(body).unwrap_or_default();
        let partial = response.partial_success.unwrap_or_default();
        let rejected = u64::try_from(partial.rejected_spans).unwrap_or(0);
        Self::Delivered { rejected, message: partial.error_message }
    }

    pub(super) fn of_status(status: &Status) -> Self {
        let error = with_causes(status);
        // Only what has not come from the backend has a cause: the connection broke, whatever the code.
        if std::error::Error::source(status).is_some() {
            return Self::Retry { wait: Wait::Backoff, error };
        }
        let told = retry_info(status.details());
        match status.code() {
            Code::Ok => Self::Delivered { rejected: 0, message: String::new() },
            Code::Unauthenticated | Code::PermissionDenied => Self::Retry { wait: Wait::Credentials, error },
            Code::ResourceExhausted if told.is_none() => Self::Refused { divisible: true, error },
            Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss
            | Code::ResourceExhausted
            | Code::Unknown => Self::Retry { wait: told.map_or(Wait::Backoff, Wait::Told), error },
            Code::InvalidArgument | Code::FailedPrecondition | Code::Internal => {
                Self::Refused { divisible: true, error }
            }
            Code::NotFound | Code::AlreadyExists | Code::Unimplemented => {
                Self::Refused { divisible: false, error }
            }
        }
    }

    pub(super) fn of_http(status: StatusCode, headers: &HeaderMap, body: Bytes, now: SystemTime) -> Self {
        if status.is_success() {
            return Self::of_response(body);
        }
        let error = format!("{status}{}", http_reason(headers, &body));
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Self::Retry { wait: Wait::Credentials, error }
            }
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => {
                Self::Retry { wait: retry_after(headers, now).map_or(Wait::Backoff, Wait::Told), error }
            }
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
                Self::Refused { divisible: true, error }
            }
            _ => Self::Refused { divisible: false, error },
        }
    }
}

/// `error: its cause: the cause's cause`; the outermost message alone says little of a connection.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// `google.rpc.Status`, as far as it is needed.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    delay: Option<Delay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, prost::Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

fn retry_info(details: &[u8]) -> Option<Duration> {
    let status = RpcStatus::decode(details).ok()?;
    let any = status.details.iter().find(|any| any.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(any.value.as_slice()).ok()?.delay.unwrap_or_default();
    let nanos = u32::try_from(delay.nanos).unwrap_or(0).min(999_999_999);
    Some(Duration::new(u64::try_from(delay.seconds).unwrap_or(0), nanos))
}

/// Seconds or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at: SystemTime = chrono::DateTime::parse_from_rfc2822(text).ok()?.into();
    Some(at.duration_since(now).unwrap_or_default())
}

/// What a body of an error says: `google.rpc.Status`, or text.
fn http_reason(headers: &HeaderMap, body: &Bytes) -> String {
    const SHOWN_MAX: usize = 200;
    let kind = headers.get(header::CONTENT_TYPE).map_or(&b""[..], http::HeaderValue::as_bytes);
    let text = match RpcStatus::decode(body.clone()) {
        Ok(status) if kind.starts_with(b"application/x-protobuf") => status.message,
        _ => String::from_utf8_lossy(body).into_owned(),
    };
    let shown: String = text.trim().chars().filter(|c| !c.is_control()).take(SHOWN_MAX).collect();
    if shown.is_empty() { shown } else { format!(": {shown}") }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Details of a status that ask to come back after `delay`.
    pub(crate) fn retry_details(delay: Duration) -> Bytes {
        let delay = Delay { seconds: delay.as_secs() as i64, nanos: delay.subsec_nanos() as i32 };
        let value = RetryInfo { delay: Some(delay) }.encode_to_vec();
        let any = Any { type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(), value };
        RpcStatus { message: String::new(), details: vec![any] }.encode_to_vec().into()
    }

    fn http(status: u16, headers: &[(header::HeaderName, &str)]) -> Outcome {
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        Outcome::of_http(StatusCode::from_u16(status).unwrap(), &headers, Bytes::from("why"), now)
    }

    #[test]
    fn codes_are_retried_as_the_specification_says() {
        for code in (1..=16).map(Code::from) {
            let retried = matches!(Outcome::of_status(&Status::new(code, "")), Outcome::Retry { .. });
            // UNKNOWN is what a broken connection looks like; the credentials are our deviation.
            assert_eq!(retried, [1, 2, 4, 7, 10, 11, 14, 15, 16].contains(&(code as i32)), "{code:?}");
        }
    }

    #[test]
    fn an_exhausted_backend_is_asked_again_only_if_it_says_when() {
        let exhausted =
            |details| Outcome::of_status(&Status::with_details(Code::ResourceExhausted, "", details));
        assert!(matches!(exhausted(Bytes::new()), Outcome::Refused { divisible: true, .. }));
        let told = Duration::from_millis(1500);
        assert!(
            matches!(exhausted(retry_details(told)), Outcome::Retry { wait: Wait::Told(wait), .. } if wait == told)
        );
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let wait = |value| match http(503, &[(header::RETRY_AFTER, value)]) {
            Outcome::Retry { wait, .. } => wait,
            other => panic!("{other:?}"),
        };
        assert_eq!(wait("7"), Wait::Told(Duration::from_secs(7)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:40 GMT"), Wait::Told(Duration::from_secs(3)));
        assert_eq!(wait("soon"), Wait::Backoff);
    }

    #[test]
    fn an_http_refusal_says_why() {
        let Outcome::Refused { divisible: true, error } = http(400, &[]) else { panic!("not refused") };
        assert_eq!(error, "400 Bad Request: why");
        assert!(matches!(http(404, &[]), Outcome::Refused { divisible: false, .. }));
        assert!(matches!(http(401, &[]), Outcome::Retry { wait: Wait::Credentials, .. }));
    }
}
