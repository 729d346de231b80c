//! The admin endpoints: `/metrics`, `/healthz`, `/readyz`, `/status`, `/why`.

use axum::Json;
use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;
use serde::Deserialize;
use tokio::net::TcpListener;

use super::status::Status;
use super::{Readiness, Telemetry, openmetrics};
use crate::trace::TraceId;

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
        .route("/status", get(status))
        .route("/", get(|| async { Redirect::temporary("/status") }))
        .route("/why", get(why))
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

async fn metrics(State(shown): State<Shown>, headers: HeaderMap) -> Response {
    let accepted = headers.get_all(header::ACCEPT).iter();
    if accepted.filter_map(|value| value.to_str().ok()).any(|value| value.contains(openmetrics::MEDIA_TYPE)) {
        let text = shown.telemetry.collect().encode_openmetrics();
        return ([(header::CONTENT_TYPE, openmetrics::CONTENT_TYPE)], text).into_response();
    }
    match shown.telemetry.collect().encode() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn ready(State(shown): State<Shown>) -> Response {
    match shown.readiness.reason() {
        // A backend that takes nothing is no reason to send requests elsewhere: the outbox holds.
        None => {
            let remarks = shown.telemetry.remarks().into_iter().map(|remark| format!("{remark}\n"));
            format!("ready\n{}", remarks.collect::<String>()).into_response()
        }
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

/// `?format=json`.
#[derive(Debug, serde::Deserialize)]
struct Form {
    format: Option<String>,
}

/// A page, or JSON for who asks for it.
async fn status(State(shown): State<Shown>, Query(form): Query<Form>, headers: HeaderMap) -> Response {
    let early = || Status {
        version: env!("CARGO_PKG_VERSION"),
        unready: shown.readiness.reason(),
        ..Status::default()
    };
    let status = shown.telemetry.status().unwrap_or_else(early);
    let accepts = headers.get(header::ACCEPT).map(|value| value.as_bytes().starts_with(b"application/json"));
    match form.format.as_deref() {
        Some("json") => axum::Json(status).into_response(),
        None if accepts == Some(true) => axum::Json(status).into_response(),
        None | Some("html") => Html(status.page()).into_response(),
        Some(_) => (StatusCode::BAD_REQUEST, "expected format=json or format=html\n").into_response(),
    }
}

#[derive(Debug, Deserialize)]
struct Asked {
    trace: Option<String>,
    tenant: Option<String>,
}

async fn why(State(shown): State<Shown>, Query(asked): Query<Asked>) -> Response {
    let Some(trace) = asked.trace else {
        return (StatusCode::BAD_REQUEST, "expected /why?trace=ID\n").into_response();
    };
    let trace = match trace.parse::<TraceId>() {
        Ok(trace) => trace,
        Err(error) => return (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    };
    match shown.telemetry.witness() {
        Some(witness) => Json(witness.testify(trace, asked.tenant.as_deref())).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response(),
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
    async fn why_asks_for_a_trace_id_and_for_patience() {
        let router = router(Telemetry::new(), Readiness::new());
        let nothing = get(router.clone(), "/why").await;
        assert_eq!(nothing, (StatusCode::BAD_REQUEST, "expected /why?trace=ID\n".to_owned()));
        let (status, text) = get(router.clone(), "/why?trace=xyz").await;
        assert_eq!(
            (status, text.contains("expected up to 32 hexadecimal digits")),
            (StatusCode::BAD_REQUEST, true)
        );
        let ask = "/why?trace=4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(get(router, ask).await.0, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test]
    async fn an_unknown_path_is_not_found() {
        assert_eq!(get(router(Telemetry::new(), Readiness::new()), "/state").await.0, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn the_status_is_a_page_and_json_from_the_start() {
        let router = router(Telemetry::new(), Readiness::new());
        let (status, page) = get(router.clone(), "/status").await;
        assert_eq!(status, StatusCode::OK);
        assert!(page.contains("starting"), "{page}");
        let (status, json) = get(router.clone(), "/status?format=json").await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["unready"], "starting");
        assert_eq!(get(router, "/status?format=xml").await.0, StatusCode::BAD_REQUEST);
    }
}
