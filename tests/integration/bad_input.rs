//! Bad input is answered as OTLP says, and harms nobody else.

use std::io::{Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use reqwest::{Response, StatusCode};
use tonic::Code;

use super::support::{
    Backend, KEEP_ALL, Random, Sender, Setup, Tailwater, Trace, WITHIN, eventually, http_client, request,
    request_of,
};

const MESSAGE_BYTES_MAX: usize = 16 << 20;
const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

/// A process under test, a sender that does nothing wrong, and where the good spans go.
struct Bench {
    tailwater: Tailwater,
    backend: Backend,
    random: Random,
    good: usize,
}

impl Bench {
    async fn start(seed: u64) -> Self {
        let backend = Backend::start().await;
        let tailwater = Setup::of(KEEP_ALL).forwarding(&backend).start().await;
        Self { tailwater, backend, random: Random(seed), good: 0 }
    }

    async fn post(&self, kind: &str, encoding: Option<&str>, body: impl Into<Bytes>) -> Response {
        let url = format!("{}/v1/traces", self.tailwater.http());
        let request = http_client().post(url).header("content-type", kind).body(body.into());
        let request = match encoding {
            Some(encoding) => request.header("content-encoding", encoding),
            None => request,
        };
        request.send().await.unwrap()
    }

    /// A good request is accepted whole.
    async fn others_are_unharmed(&mut self) {
        let traces = [Trace::new(&mut self.random)];
        let answer = Sender::to(&self.tailwater).send(&request(&traces)).await.unwrap();
        assert_eq!(answer.rejected_spans, 0);
        self.good += 3;
    }

    /// Every good span, and no other, is at the backend.
    async fn only_the_good_arrived(&self) {
        let ledger = self.tailwater.judged().await;
        assert_eq!(ledger.accepted as usize, self.good, "{ledger}");
        self.backend.has(self.good).await;
    }

    fn body(&mut self) -> Vec<u8> {
        request(&[Trace::new(&mut self.random)]).encode_to_vec()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_request_is_refused_whole() {
    let mut bench = Bench::start(1).await;
    let body = bench.body();
    for length in [1, body.len() / 2, body.len() - 1] {
        let answer = bench.post(PROTOBUF, None, body[..length].to_vec()).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{length} of {} bytes", body.len());
    }
    bench.others_are_unharmed().await;
    bench.only_the_good_arrived().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flipped_bits_never_end_the_process_and_what_is_accepted_can_be_decoded() {
    let mut bench = Bench::start(2).await;
    let mut accepted = 0;
    for _ in 0..300 {
        let mut body = bench.body();
        let at = bench.random.below(body.len() as u64 * 8) as usize;
        body[at / 8] ^= 1 << (at % 8);
        let answer = bench.post(PROTOBUF, None, body).await;
        assert!([StatusCode::OK, StatusCode::BAD_REQUEST].contains(&answer.status()), "{}", answer.status());
        accepted += usize::from(answer.status() == StatusCode::OK);
    }
    assert!(accepted > 0, "most flips hit a value");
    bench.others_are_unharmed().await;
    let ledger = bench.tailwater.judged().await;
    let kept = ledger.kept as usize;
    // The backend decodes with generated code: a batch it cannot read would never arrive.
    eventually("what was kept is at the backend", WITHIN, async || {
        (bench.backend.spans().len() >= kept).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_too_large_is_told_so_in_a_way_that_nobody_retries() {
    let mut bench = Bench::start(3).await;
    let mut trace = Trace::new(&mut bench.random);
    trace.root_name = "x".repeat(MESSAGE_BYTES_MAX);
    let large = request(&[trace]);
    let answer = bench.post(PROTOBUF, None, large.encode_to_vec()).await;
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let status = Sender::to(&bench.tailwater).send(&large).await.unwrap_err();
    let retried_by_sdks = [
        Code::Cancelled,
        Code::DeadlineExceeded,
        Code::Aborted,
        Code::OutOfRange,
        Code::Unavailable,
        Code::DataLoss,
        Code::ResourceExhausted,
    ];
    assert!(!retried_by_sdks.contains(&status.code()), "{status}");
    bench.others_are_unharmed().await;
    bench.only_the_good_arrived().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_content_type_is_answered_415_and_a_wrong_encoding_refused() {
    let mut bench = Bench::start(4).await;
    let body = bench.body();
    let answer = bench.post("text/plain", None, body.clone()).await;
    assert_eq!(answer.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let answer = bench.post(PROTOBUF, Some("br"), body.clone()).await;
    assert!(answer.status().is_client_error(), "{}", answer.status());
    let answer = bench.post(PROTOBUF, Some("gzip"), body.clone()).await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "not gzip");
    let answer = bench.post(JSON, None, body).await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "not JSON");
    bench.others_are_unharmed().await;
    bench.only_the_good_arrived().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compression_bomb_is_refused_in_bounded_memory() {
    let mut bench = Bench::start(5).await;
    let before = bench.tailwater.resident();
    let gzip = gzip_of_zeroes(2 << 30);
    let zstd = zstd::stream::encode_all(std::io::repeat(0).take(2 << 30), 1).unwrap();
    for (encoding, bomb) in [("gzip", gzip), ("zstd", zstd)] {
        for _ in 0..4 {
            let answer = bench.post(PROTOBUF, Some(encoding), bomb.clone()).await;
            assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE, "{encoding}");
        }
    }
    let grown = bench.tailwater.resident().saturating_sub(before);
    assert!(grown < 200 << 20, "{grown} bytes more than before");
    bench.others_are_unharmed().await;
    bench.only_the_good_arrived().await;
}

fn gzip_of_zeroes(length: usize) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let zeroes = vec![0; 1 << 20];
    for _ in 0..length >> 20 {
        encoder.write_all(&zeroes).unwrap();
    }
    encoder.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_with_wrong_ids_are_rejected_and_counted_and_the_rest_is_stored() {
    let mut bench = Bench::start(6).await;
    let faults: [fn(&mut Span); 5] = [
        |span| span.trace_id.truncate(15),
        |span| span.trace_id.clear(),
        |span| span.trace_id.fill(0),
        |span| span.span_id.push(1),
        |span| span.span_id.fill(0),
    ];
    for spoil in faults {
        let mut spans: Vec<_> = Trace::new(&mut bench.random).build().collect();
        spoil(&mut spans[1].1);
        let body = request_of(spans).encode_to_vec();
        let answer = bench.post(PROTOBUF, None, body).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let answer = ExportTraceServiceResponse::decode(answer.bytes().await.unwrap()).unwrap();
        let partial = answer.partial_success.unwrap();
        assert_eq!(partial.rejected_spans, 1);
        assert!(partial.error_message.contains("_id"), "{}", partial.error_message);
        bench.good += 2;
    }
    bench.others_are_unharmed().await;
    bench.only_the_good_arrived().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_utf8_is_accepted_and_passed_on_as_the_replacement_character() {
    let mut bench = Bench::start(7).await;
    let trace = Trace::new(&mut bench.random).named("GET /????");
    let mut body = request(&[trace]).encode_to_vec();
    let at = body.windows(4).position(|window| window == b"????").unwrap();
    body[at..at + 4].copy_from_slice(&[0xff, b'a', 0xc3, b'b']);
    let answer = bench.post(PROTOBUF, None, body).await;
    assert_eq!(answer.status(), StatusCode::OK);
    bench.good += 3;
    bench.only_the_good_arrived().await;
    let spans = bench.backend.spans();
    assert!(spans.iter().any(|full| full.span.name == "GET /\u{fffd}a\u{fffd}b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn json_that_is_not_otlp_is_refused() {
    let mut bench = Bench::start(8).await;
    for body in [
        "",
        "[]",
        "{\"resourceSpans\": 7}",
        "{\"resourceSpans\": [",
        "{\"resourceSpans\":[{\"scopeSpans\":[{\"spans\":[7]}]}]}",
    ] {
        let answer = bench.post(JSON, None, body).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{body:?}");
        assert_eq!(answer.headers()["content-type"], JSON);
    }
    let deep = format!("{{\"resourceSpans\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(bench.post(JSON, None, deep).await.status(), StatusCode::BAD_REQUEST);
    bench.others_are_unharmed().await;
    bench.only_the_good_arrived().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_request_is_accepted_and_an_unknown_path_is_not_found() {
    let mut bench = Bench::start(9).await;
    let empty = ExportTraceServiceRequest::default();
    assert_eq!(bench.post(PROTOBUF, None, empty.encode_to_vec()).await.status(), StatusCode::OK);
    Sender::to(&bench.tailwater).send(&empty).await.unwrap();
    let url = format!("{}/v2/traces", bench.tailwater.http());
    assert_eq!(http_client().post(url).send().await.unwrap().status(), StatusCode::NOT_FOUND);
    bench.others_are_unharmed().await;
    bench.only_the_good_arrived().await;
}

/// One service name for each request, as a sender with a mistake has.
#[tokio::test(flavor = "multi_thread")]
async fn more_services_than_are_told_apart_harm_neither_judgements_nor_metrics() {
    let setup = Setup {
        policies: "\n  - { name: slow, slower_than: p95, keep: 100% }".to_owned(),
        ..Setup::default()
    };
    let mut tailwater = setup.start().await;
    let (mut sender, mut random) = (Sender::to(&tailwater), Random(9));
    let mut all = request(&(0..1_100).map(|_| Trace::new(&mut random)).collect::<Vec<_>>());
    let groups = all.resource_spans.drain(..).flat_map(|group| {
        let spans = group.scope_spans[0].spans.clone();
        spans.into_iter().map(move |span| (group.clone(), span))
    });
    let groups: Vec<_> = groups
        .enumerate()
        .map(|(n, (mut group, span))| {
            group.resource.as_mut().unwrap().attributes[0].value =
                Some(AnyValue { value: Some(Value::StringValue(format!("service-{n}"))) });
            group.scope_spans[0].spans = vec![span];
            group
        })
        .collect();
    sender.deliver(&ExportTraceServiceRequest { resource_spans: groups }).await;
    let ledger = tailwater.judged().await;
    assert_eq!(ledger.accepted, 3_300);
    assert!(tailwater.terminate().await.success());
    tailwater.start().await;
    sender.deliver(&request(&[Trace::new(&mut random)])).await;
    assert_eq!(tailwater.judged().await.dropped, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_logs_are_told_where_traces_go() {
    let mut bench = Bench::start(10).await;
    for path in ["metrics", "logs"] {
        let url = format!("{}/v1/{path}", bench.tailwater.http());
        let answer = http_client().post(url).header("content-type", PROTOBUF).send().await.unwrap();
        assert!(answer.status().is_client_error() || answer.status() == StatusCode::NOT_IMPLEMENTED);
        let text = String::from_utf8_lossy(&answer.bytes().await.unwrap()).into_owned();
        assert!(text.contains("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"), "{text}");
    }
    bench.others_are_unharmed().await;
    bench.only_the_good_arrived().await;
}
