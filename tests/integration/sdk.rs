//! Unmodified OpenTelemetry SDKs: what they send arrives whole.
//!
//! The programs are in `tests/sdk`, installed by `tests/install`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde::Deserialize;

use super::support::{Backend, ERRORS_AND_HALF, FullSpan, HALF, Setup, hex, randomness};

const TRACES: usize = 40;

/// What a program prints.
#[derive(Debug, Deserialize)]
struct Sent {
    traces: Vec<SentTrace>,
}

#[derive(Debug, Deserialize)]
struct SentTrace {
    trace_id: String,
    error: bool,
    spans: HashMap<String, String>,
}

impl SentTrace {
    fn is_kept(&self) -> bool {
        self.error || randomness(&hex(&self.trace_id).try_into().unwrap()) >= HALF
    }
}

#[derive(Clone, Copy, Debug)]
struct Sdk {
    name: &'static str,
    command: &'static [&'static str],
    /// The SDK's own name of itself, in its resource.
    language: &'static str,
    protocols: &'static [&'static str],
}

const PYTHON: Sdk = Sdk {
    name: "python",
    command: &["target/sdk/python/bin/python", "tests/sdk/python/send.py"],
    language: "python",
    protocols: &["grpc", "http/protobuf"],
};
const NODE: Sdk = Sdk {
    name: "node",
    command: &["node", "target/sdk/node/send.js"],
    language: "nodejs",
    protocols: &["grpc", "http/protobuf", "http/json"],
};
const GO: Sdk = Sdk {
    name: "go",
    command: &["target/sdk/go/send"],
    language: "go",
    protocols: &["grpc", "http/protobuf"],
};
const JAVA: Sdk = Sdk {
    name: "java",
    command: &["java", "-cp", "target/sdk/java/classes:target/sdk/java/lib/*", "Send"],
    language: "java",
    protocols: &["grpc", "http/protobuf"],
};

#[tokio::test(flavor = "multi_thread")]
async fn traces_of_the_python_sdk_arrive_whole() {
    traces_arrive_whole(PYTHON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn traces_of_the_node_sdk_arrive_whole() {
    traces_arrive_whole(NODE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn traces_of_the_go_sdk_arrive_whole() {
    traces_arrive_whole(GO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn traces_of_the_java_sdk_arrive_whole() {
    traces_arrive_whole(JAVA).await;
}

/// Over every protocol, with and without gzip.
async fn traces_arrive_whole(sdk: Sdk) {
    let backend = Backend::start().await;
    let tailwater = Setup::of(ERRORS_AND_HALF).forwarding(&backend).start().await;
    for &protocol in sdk.protocols {
        for compression in ["none", "gzip"] {
            let endpoint = if protocol == "grpc" { tailwater.grpc() } else { tailwater.http() };
            let sent = run(sdk, protocol, compression, &endpoint).await;
            let kept: Vec<_> = sent.traces.iter().filter(|trace| trace.is_kept()).collect();
            let expected = kept.len() * 3;
            backend.has(expected).await;
            let spans = backend.spans();
            kept.iter().for_each(|trace| check(sdk, trace, &spans));
            backend.clear();
        }
    }
    let ledger = tailwater.judged().await;
    assert_eq!(ledger.accepted, (TRACES * 3 * 2 * sdk.protocols.len()) as u64);
}

/// Runs the program and returns what it says it has sent; it must have had no failure.
async fn run(sdk: Sdk, protocol: &str, compression: &str, endpoint: &str) -> Sent {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let in_root = |word: &str| {
        if word.contains('/') && !word.contains(':') { root.join(word) } else { PathBuf::from(word) }
    };
    let program = in_root(sdk.command[0]);
    let installed = program.components().count() == 1 || program.exists();
    assert!(installed, "{} is not there: run tests/install", program.display());
    let mut command = Command::new(program);
    command
        .args(&sdk.command[1..])
        .arg(TRACES.to_string())
        .current_dir(root)
        .env("OTEL_SERVICE_NAME", format!("sdk-{}", sdk.name))
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        .stdin(Stdio::null());
    // Python's does not know the value `none`.
    if compression != "none" {
        command.env("OTEL_EXPORTER_OTLP_COMPRESSION", compression);
    }
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} over {protocol}, {compression}: {errors}", sdk.name);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The three spans of one trace are there with everything they were sent with.
fn check(sdk: Sdk, sent: &SentTrace, spans: &[FullSpan]) {
    let trace_id = hex(&sent.trace_id);
    let of_trace: Vec<_> = spans.iter().filter(|full| full.span.trace_id == trace_id).collect();
    assert_eq!(of_trace.len(), 3, "trace {}", sent.trace_id);
    let named = |name: &str| {
        let id = hex(&sent.spans[name]);
        *of_trace.iter().find(|full| full.span.name == name && full.span.span_id == id).unwrap()
    };
    let (root, select, publish) = (named("GET /orders/{id}"), named("SELECT orders"), named("publish"));
    for full in [root, select, publish] {
        check_above(sdk, full);
    }
    check_root(root);
    assert_eq!(select.span.parent_span_id, root.span.span_id);
    assert_eq!(publish.span.parent_span_id, root.span.span_id);
    check_select(sent, select);
    assert_eq!(publish.span.kind(), SpanKind::Producer);
    assert_eq!(publish.span.links.len(), 1);
    let link = &publish.span.links[0];
    assert_eq!(link.trace_id, (1..=16).collect::<Vec<u8>>());
    assert_eq!(link.span_id, (1..=8).collect::<Vec<u8>>());
    assert_eq!(value(&link.attributes, "why"), &Value::StringValue("batch".to_owned()));
}

fn check_above(sdk: Sdk, full: &FullSpan) {
    let resource = &full.resource.attributes;
    assert_eq!(value(resource, "service.name"), &Value::StringValue(format!("sdk-{}", sdk.name)));
    assert_eq!(value(resource, "telemetry.sdk.language"), &Value::StringValue(sdk.language.to_owned()));
    assert_eq!((full.scope.name.as_str(), full.scope.version.as_str()), ("tailwater.test", "1.2.3"));
    assert_eq!(full.scope_schema_url, "https://opentelemetry.io/schemas/1.28.0");
}

fn check_root(root: &FullSpan) {
    let attributes = &root.span.attributes;
    assert_eq!(root.span.kind(), SpanKind::Server);
    assert!(root.span.parent_span_id.is_empty());
    assert!(root.span.end_time_unix_nano >= root.span.start_time_unix_nano);
    assert!(matches!(value(attributes, "n"), Value::IntValue(0..40)));
    assert_eq!(value(attributes, "text"), &Value::StringValue("grüße 𝄞".to_owned()));
    assert_eq!(value(attributes, "yes"), &Value::BoolValue(true));
    assert_eq!(value(attributes, "answer"), &Value::IntValue(-42));
    assert_eq!(value(attributes, "ratio"), &Value::DoubleValue(0.25));
    let texts = ["a", "b"].map(|text| Value::StringValue(text.to_owned()));
    assert_eq!(array(attributes, "texts"), texts);
    assert_eq!(array(attributes, "numbers"), [1, 2, 3].map(Value::IntValue));
}

fn check_select(sent: &SentTrace, select: &FullSpan) {
    let span = &select.span;
    assert_eq!(span.kind(), SpanKind::Client);
    assert_eq!(span.events[0].name, "row");
    assert_eq!(value(&span.events[0].attributes, "count"), &Value::IntValue(7));
    let status = span.status.clone().unwrap_or_default();
    assert_eq!((status.code == 2, status.message == "deadlock"), (sent.error, sent.error));
    assert_eq!(span.events.len(), if sent.error { 2 } else { 1 });
    if sent.error {
        assert_eq!(span.events[1].name, "exception");
        assert_eq!(
            value(&span.events[1].attributes, "exception.message"),
            &Value::StringValue("deadlock".to_owned())
        );
    }
}

fn value<'a>(attributes: &'a [KeyValue], key: &str) -> &'a Value {
    let attribute = attributes.iter().find(|attribute| attribute.key == key);
    let value = attribute.unwrap_or_else(|| panic!("no {key} in {attributes:?}")).value.as_ref();
    value.and_then(|value| value.value.as_ref()).unwrap()
}

fn array(attributes: &[KeyValue], key: &str) -> Vec<Value> {
    let Value::ArrayValue(array) = value(attributes, key) else { panic!("{key} is not an array") };
    array.values.iter().map(|AnyValue { value }| value.clone().unwrap()).collect()
}
