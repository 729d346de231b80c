//! Why a request is refused, and what both transports say then.

use std::time::Duration;

use http::StatusCode;
use tonic::Code;

use super::MESSAGE_MAX;

/// Names the variable that sends traces, and only traces, here.
const TRACES_ONLY: &str = "set OTEL_EXPORTER_OTLP_TRACES_ENDPOINT instead of OTEL_EXPORTER_OTLP_ENDPOINT, \
    or OTEL_METRICS_EXPORTER and OTEL_LOGS_EXPORTER to none";

/// Why a request was refused. One variant per thing the *sender* should do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Sending it again will not help.
    #[error("request is not valid OTLP: {0}")]
    Malformed(String),
    /// Send smaller batches.
    #[error("request is larger than {} MiB after decompression: send fewer spans in a batch", MESSAGE_MAX >> 20)]
    TooLarge,
    /// Send another content type or encoding.
    #[error("{0}")]
    Unsupported(String),
    /// Send metrics and logs elsewhere.
    #[error("this endpoint receives traces, not {signal}: {TRACES_ONLY}")]
    NotTraces { signal: &'static str },
    /// Send to another path.
    #[error("nothing is served at {0}")]
    UnknownPath(String),
    /// Send with another method.
    #[error("expected POST")]
    Method,
    /// Send a valid token.
    #[error("expected a valid bearer token")]
    Unauthenticated,
    /// Send with a tenant that is known, or configure fewer.
    #[error("tenant refused: {0}")]
    Tenants(String),
    /// Send it again: its body did not come in time.
    #[error("request body did not arrive in time")]
    TooSlow,
    /// Send it again, later.
    #[error("memory is full, retry after {retry_after:?}")]
    Overloaded { retry_after: Duration },
    /// Send it again, later.
    #[error("disk is full, retry after {retry_after:?}")]
    DiskFull { retry_after: Duration },
    /// Send it again, to another instance.
    #[error("shutting down")]
    ShuttingDown,
}

/// The label of a [`Rejection`] in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    Malformed,
    TooLarge,
    Unsupported,
    NotTraces,
    UnknownPath,
    Method,
    Unauthenticated,
    Tenants,
    TooSlow,
    Memory,
    Disk,
    ShuttingDown,
}

impl Cause {
    pub const ALL: [Self; 12] = [
        Self::Malformed,
        Self::TooLarge,
        Self::Unsupported,
        Self::NotTraces,
        Self::UnknownPath,
        Self::Method,
        Self::Unauthenticated,
        Self::Tenants,
        Self::TooSlow,
        Self::Memory,
        Self::Disk,
        Self::ShuttingDown,
    ];

    pub fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::Unsupported => "unsupported",
            Self::NotTraces => "not_traces",
            Self::UnknownPath => "unknown_path",
            Self::Method => "method",
            Self::Unauthenticated => "unauthenticated",
            Self::Tenants => "tenants",
            Self::TooSlow => "too_slow",
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::ShuttingDown => "shutting_down",
        }
    }
}

/// What both transports answer to a rejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub code: Code,
    pub http: StatusCode,
    /// Set if the sender should try again.
    pub retry_after: Option<Duration>,
}

impl Rejection {
    /// The statuses of both transports, in one table so that they cannot disagree.
    ///
    /// Senders retry CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE and DATA_LOSS, and 429, 502, 503 and 504;
    /// only what may succeed later is answered so. <https://opentelemetry.io/docs/specs/otlp/#failures>
    pub fn answer(&self) -> Answer {
        let never = |code, http| Answer { code, http, retry_after: None };
        let later = |after| Answer {
            code: Code::Unavailable,
            http: StatusCode::SERVICE_UNAVAILABLE,
            retry_after: Some(after),
        };
        match self {
            Self::Malformed(_) | Self::Tenants(_) => never(Code::InvalidArgument, StatusCode::BAD_REQUEST),
            Self::TooLarge => never(Code::InvalidArgument, StatusCode::PAYLOAD_TOO_LARGE),
            Self::Unsupported(_) => never(Code::Unimplemented, StatusCode::UNSUPPORTED_MEDIA_TYPE),
            Self::NotTraces { .. } | Self::UnknownPath(_) => {
                never(Code::Unimplemented, StatusCode::NOT_FOUND)
            }
            Self::Method => never(Code::Unimplemented, StatusCode::METHOD_NOT_ALLOWED),
            Self::Unauthenticated => never(Code::Unauthenticated, StatusCode::UNAUTHORIZED),
            Self::TooSlow | Self::ShuttingDown => later(Duration::from_secs(1)),
            Self::Overloaded { retry_after } | Self::DiskFull { retry_after } => later(*retry_after),
        }
    }

    /// The label this is counted under.
    pub fn cause(&self) -> Cause {
        match self {
            Self::Malformed(_) => Cause::Malformed,
            Self::TooLarge => Cause::TooLarge,
            Self::Unsupported(_) => Cause::Unsupported,
            Self::NotTraces { .. } => Cause::NotTraces,
            Self::UnknownPath(_) => Cause::UnknownPath,
            Self::Method => Cause::Method,
            Self::Unauthenticated => Cause::Unauthenticated,
            Self::Tenants(_) => Cause::Tenants,
            Self::TooSlow => Cause::TooSlow,
            Self::Overloaded { .. } => Cause::Memory,
            Self::DiskFull { .. } => Cause::Disk,
            Self::ShuttingDown => Cause::ShuttingDown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What OTLP senders retry, by the specification.
    const RETRIED: [Code; 6] = [
        Code::Cancelled,
        Code::DeadlineExceeded,
        Code::Aborted,
        Code::OutOfRange,
        Code::Unavailable,
        Code::DataLoss,
    ];

    fn one_of_each() -> [Rejection; 12] {
        let retry_after = Duration::from_millis(1500);
        [
            Rejection::Malformed("length 9 exceeds its message".into()),
            Rejection::TooLarge,
            Rejection::Unsupported("content encoding br".into()),
            Rejection::NotTraces { signal: "metrics" },
            Rejection::UnknownPath("/".into()),
            Rejection::Method,
            Rejection::Unauthenticated,
            Rejection::Tenants("more than 1000 tenants".into()),
            Rejection::TooSlow,
            Rejection::Overloaded { retry_after },
            Rejection::DiskFull { retry_after },
            Rejection::ShuttingDown,
        ]
    }

    #[test]
    fn every_rejection_has_its_own_cause() {
        assert_eq!(one_of_each().map(|rejection| rejection.cause()), Cause::ALL);
    }

    #[test]
    fn both_transports_agree_on_what_is_retried() {
        for rejection in one_of_each() {
            let Answer { code, http, retry_after } = rejection.answer();
            assert_eq!(RETRIED.contains(&code), retry_after.is_some(), "{rejection:?}");
            assert_eq!([429, 502, 503, 504].contains(&http.as_u16()), retry_after.is_some(), "{rejection:?}");
        }
    }

    #[test]
    fn every_rejection_says_a_sentence() {
        for rejection in one_of_each() {
            assert!(rejection.to_string().len() > 10, "{rejection:?}");
        }
        let metrics = Rejection::NotTraces { signal: "metrics" }.to_string();
        assert!(metrics.contains("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"), "{metrics}");
    }
}
