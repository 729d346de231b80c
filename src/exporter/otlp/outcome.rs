//! What a backend's answer means for the batch, one table for both transports.
//!
//! <https://opentelemetry.io/docs/specs/otlp/#failures>. Two deviations, because the spans are the last there are: a wrong
//! credential or address is waited for until somebody has mended it; and a server error is tried again, because what lies
//! before a backend answers so while it restarts. A batch that causes it is found by the [queue](super::queue).

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use serde_json::Value;
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
    /// Until somebody has mended the credentials or the address.
    Operator,
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
        let error = explain(status);
        // Only what has not come from the backend has a cause: the connection broke, whatever the code.
        if std::error::Error::source(status).is_some() {
            return Self::Retry { wait: Wait::Backoff, error };
        }
        let told = retry_info(status.details());
        match status.code() {
            Code::Ok => Self::Delivered { rejected: 0, message: String::new() },
            Code::Unauthenticated | Code::PermissionDenied | Code::NotFound | Code::Unimplemented => {
                Self::Retry { wait: Wait::Operator, error }
            }
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
            Code::AlreadyExists => Self::Refused { divisible: false, error },
        }
    }

    pub(super) fn of_http(status: StatusCode, headers: &HeaderMap, body: Bytes, now: SystemTime) -> Self {
        if status.is_success() {
            return Self::of_success(status, headers, body);
        }
        let error = format!("{status}{}", http_reason(headers, &body));
        match status {
            StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::PROXY_AUTHENTICATION_REQUIRED
            | StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::GONE => Self::Retry { wait: Wait::Operator, error },
            _ if status.is_redirection() => {
                let to = headers
                    .get(header::LOCATION)
                    .and_then(|value| value.to_str().ok())
                    .unwrap_or("elsewhere");
                let error = format!("{status}: it leads to {to}, which is not followed");
                Self::Retry { wait: Wait::Operator, error }
            }
            StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED => {
                Self::Refused { divisible: false, error }
            }
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                Self::Retry { wait: retry_after(headers, now).map_or(Wait::Backoff, Wait::Told), error }
            }
            _ if status.is_server_error() => {
                Self::Retry { wait: retry_after(headers, now).map_or(Wait::Backoff, Wait::Told), error }
            }
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
                Self::Refused { divisible: true, error }
            }
            _ => Self::Refused { divisible: false, error },
        }
    }
}

impl Outcome {
    /// An answer of 2xx. A page made for people comes from something else than a receiver.
    fn of_success(status: StatusCode, headers: &HeaderMap, body: Bytes) -> Self {
        let kind = content_type(headers);
        if kind.starts_with(b"text/html") && !body.is_empty() {
            let error = format!("{status}, but with a web page: there is no OTLP receiver at this address");
            return Self::Retry { wait: Wait::Operator, error };
        }
        if kind.starts_with(b"application/json") {
            let (rejected, message) = partial_success(&body);
            return Self::Delivered { rejected, message };
        }
        Self::of_response(body)
    }
}

/// `ExportTraceServiceResponse` of a backend that answers protobuf in JSON: rejected spans and why. A number of 64 bits is
/// a string there, and a number to those who do not know.
fn partial_success(json: &[u8]) -> (u64, String) {
    let answer: Value = serde_json::from_slice(json).unwrap_or_default();
    let partial = &answer["partialSuccess"];
    let rejected = match &partial["rejectedSpans"] {
        Value::String(text) => text.parse().unwrap_or(0),
        number => number.as_u64().unwrap_or(0),
    };
    (rejected, partial["errorMessage"].as_str().unwrap_or_default().to_owned())
}

/// A status in a few words; tonic's own tell the same thing three times.
fn explain(status: &Status) -> String {
    match std::error::Error::source(status) {
        Some(source) => with_causes(source),
        None => format!("{:?}{}", status.code(), after_colon(status.message())),
    }
}

/// What is usually meant by what TLS says.
fn hint(text: &str) -> &'static str {
    if text.contains("CaUsedAsEndEntity") {
        " (the backend shows an authority's certificate as its own: make one with basicConstraints=CA:FALSE)"
    } else if text.contains("InvalidContentType") {
        " (the backend does not speak TLS there: http:// instead of https://?)"
    } else {
        ""
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
    text.push_str(hint(&text));
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

fn content_type(headers: &HeaderMap) -> &[u8] {
    headers.get(header::CONTENT_TYPE).map_or(&b""[..], http::HeaderValue::as_bytes)
}

/// What a body of an error says: `google.rpc.Status`, or text.
fn http_reason(headers: &HeaderMap, body: &Bytes) -> String {
    let text = match RpcStatus::decode(body.clone()) {
        Ok(status) if content_type(headers).starts_with(b"application/x-protobuf") => status.message,
        _ => String::from_utf8_lossy(body).into_owned(),
    };
    after_colon(&text)
}

/// As much of a backend's words as is shown; nothing if it has none.
fn after_colon(text: &str) -> String {
    const SHOWN_MAX: usize = 200;
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
            // UNKNOWN is what a broken connection looks like; credentials (7, 16) and addresses (5, 12) are our deviation.
            assert_eq!(retried, [1, 2, 4, 5, 7, 10, 11, 12, 14, 15, 16].contains(&(code as i32)), "{code:?}");
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
        assert!(matches!(http(501, &[]), Outcome::Refused { divisible: false, .. }));
    }

    #[test]
    fn credentials_and_addresses_are_waited_for_and_server_errors_tried_again() {
        for status in [301, 302, 308, 401, 403, 404, 405, 407, 410] {
            assert!(matches!(http(status, &[]), Outcome::Retry { wait: Wait::Operator, .. }), "{status}");
        }
        for status in [408, 429, 500, 502, 503, 504, 520] {
            assert!(matches!(http(status, &[]), Outcome::Retry { wait: Wait::Backoff, .. }), "{status}");
        }
        let Outcome::Retry { error, .. } = http(302, &[(header::LOCATION, "https://elsewhere/")]) else {
            panic!("not waited for")
        };
        assert_eq!(error, "302 Found: it leads to https://elsewhere/, which is not followed");
    }

    #[test]
    fn a_web_page_is_no_delivery_and_partial_success_is_read_in_either_encoding() {
        let answer = |kind: &str, body: &'static str| {
            let headers = [(header::CONTENT_TYPE, kind.parse().unwrap())].into_iter().collect();
            Outcome::of_http(
                StatusCode::OK,
                &headers,
                Bytes::from_static(body.as_bytes()),
                SystemTime::UNIX_EPOCH,
            )
        };
        let page = answer("text/html; charset=utf-8", "<html>log in</html>");
        assert!(matches!(page, Outcome::Retry { wait: Wait::Operator, .. }), "{page:?}");
        for count in ["2", "\"2\""] {
            let body =
                format!("{{\"partialSuccess\":{{\"rejectedSpans\":{count},\"errorMessage\":\"no\"}}}}");
            let partial = answer("application/json", body.leak());
            assert_eq!(partial, Outcome::Delivered { rejected: 2, message: "no".to_owned() });
        }
        let whole = Outcome::Delivered { rejected: 0, message: String::new() };
        for (kind, body) in
            [("text/html", ""), ("application/json", "{}"), ("application/json", "?"), ("text/plain", "ok")]
        {
            assert_eq!(answer(kind, body), whole, "{kind} {body}");
        }
    }

    #[test]
    fn an_error_is_told_once() {
        let refused = Status::invalid_argument("no such tenant");
        assert_eq!(explain(&refused), "InvalidArgument: no such tenant");
        assert_eq!(explain(&Status::new(Code::Internal, "")), "Internal");
        assert_eq!(explain(&Status::internal("a\x1b[31m\nb")), "Internal: a[31mb");
    }
}
