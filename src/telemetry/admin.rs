//! The admin endpoints: `/metrics`, `/healthz`, `/readyz`.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use super::{Readiness, Telemetry};

#[derive(Clone, Debug)]
struct Shown {
    telemetry: Telemetry,
    readiness: Readiness,
}

/// The routes of the admin port.
pub fn router(telemetry: Telemetry, readiness: Readiness) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(Shown { telemetry, readiness })
}

/// Serves the admin port until `until` completes.
pub async fn serve(
    listener: TcpListener,
    telemetry: Telemetry,
    readiness: Readiness,
    until: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, router(telemetry, readiness)).with_graceful_shutdown(until).await
}

async fn metrics(State(shown): State<Shown>) -> Response {
    match shown.telemetry.collect().encode() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn ready(State(shown): State<Shown>) -> Response {
    match shown.readiness.reason() {
        None => "ready\n".into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::body::Body;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::super::Ledger;
    use super::*;

    async fn get(router: Router, path: &str) -> (StatusCode, String) {
        let request = axum::http::Request::get(path).body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readyz_gives_the_reason_until_ready() {
        let readiness = Readiness::new();
        let router = router(Telemetry::new(), readiness.clone());
        readiness.unready("recovering 3 segments");
        let expected = (StatusCode::SERVICE_UNAVAILABLE, "recovering 3 segments\n".to_owned());
        assert_eq!(get(router.clone(), "/readyz").await, expected);
        readiness.ready();
        assert_eq!(get(router.clone(), "/readyz").await.0, StatusCode::OK);
        assert_eq!(get(router, "/healthz").await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn metrics_show_the_ledger() {
        let telemetry = Telemetry::new();
        let ledger = Arc::new(Ledger::new(&["errors".to_owned()]));
        telemetry.register(ledger.clone());
        ledger.accepted(42);
        let (status, text) = get(router(telemetry, Readiness::new()), "/metrics").await;
        assert_eq!(status, StatusCode::OK);
        assert!(text.contains("tailwater_receiver_accepted_spans_total 42"), "{text}");
        assert!(text.contains("tailwater_sampler_kept_spans_total{policy=\"errors\"} 0"), "{text}");
    }

    #[tokio::test]
    async fn an_unknown_path_is_not_found() {
        assert_eq!(get(router(Telemetry::new(), Readiness::new()), "/status").await.0, StatusCode::NOT_FOUND);
    }
}
