use std::time::Duration;

use bytes::{BufMut, Bytes};
use http_body_util::{BodyExt, Full};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;

use super::*;
use crate::receiver::answer;
use crate::receiver::metrics::{Outcome, Transport};
use crate::receiver::rejection::Cause;

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

async fn channel(running: &Running) -> Channel {
    Channel::from_shared(format!("http://{}", running.grpc)).unwrap().connect().await.unwrap()
}

async fn sender(running: &Running) -> TraceServiceClient<Channel> {
    TraceServiceClient::new(channel(running).await).max_encoding_message_size(usize::MAX)
}

/// Posts bytes as they are, and reads the status wherever it stands.
async fn post_raw(running: &Running, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> (Code, String) {
    let mut request = ::http::Request::post(format!("http://{}{path}", running.grpc))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .http2_only(true)
        .build_http();
    let response = client.request(request.body(Full::new(Bytes::from(body))).unwrap()).await.unwrap();
    let headers = response.headers().clone();
    let trailers = response.into_body().collect().await.unwrap().trailers().cloned().unwrap_or_default();
    let status =
        tonic::Status::from_header_map(&headers).or(tonic::Status::from_header_map(&trailers)).unwrap();
    (status.code(), status.message().to_owned())
}

/// A message behind its five bytes.
fn framed(compressed: u8, message: &[u8]) -> Vec<u8> {
    let mut framed = vec![compressed];
    framed.put_u32(message.len() as u32);
    framed.extend_from_slice(message);
    framed
}

#[tokio::test]
async fn a_request_reaches_the_intake_as_it_came() {
    let running = receiver().await;
    let sent = request(3);
    let answer = sender(&running).await.export(sent.clone()).await.unwrap().into_inner();
    assert_eq!(answer, ExportTraceServiceResponse::default());
    assert_eq!(running.intake.bodies(), [encoded(&sent)]);
    assert_eq!(running.intake.tenants(), [""]);
    assert_eq!(running.intake.used(), 0, "room is given back");
    assert_eq!(running.metrics.requested(Transport::Grpc, Outcome::Accepted), 1);
}

#[tokio::test]
async fn compressed_requests_are_accepted_and_charged_as_what_they_become() {
    let running = receiver().await;
    let sent = padded(3 << 20);
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let mut sender = sender(&running).await.send_compressed(encoding).accept_compressed(encoding);
        sender.export(sent.clone()).await.unwrap();
    }
    assert_eq!(running.intake.bodies(), [encoded(&sent), encoded(&sent)]);
    assert!(running.intake.peak() >= 3 << 20);
}

#[tokio::test]
async fn large_requests_are_accepted() {
    let running = receiver().await;
    let sent = padded((16 << 20) - 4096);
    sender(&running).await.export(sent.clone()).await.unwrap();
    assert_eq!(running.intake.bodies()[0].len(), sent.encoded_len());
}

#[tokio::test]
async fn many_requests_share_a_connection() {
    let running = receiver().await;
    let sender = sender(&running).await;
    let sends = (0..300).map(|n| {
        let mut sender = sender.clone();
        async move { sender.export(request(n % 7)).await }
    });
    for sent in futures::future::join_all(sends).await {
        sent.unwrap();
    }
    assert_eq!(running.intake.bodies().len(), 300);
    assert_eq!(running.metrics.connections.accepted(), 1);
}

#[tokio::test]
async fn what_is_too_large_is_never_sent_again() {
    let running = receiver().await;
    let sent = padded(20 << 20);
    let mut plain = sender(&running).await;
    let mut zipped = sender(&running).await.send_compressed(CompressionEncoding::Gzip);
    let mut zstd = sender(&running).await.send_compressed(CompressionEncoding::Zstd);
    for sender in [&mut plain, &mut zipped, &mut zstd] {
        let status = sender.export(sent.clone()).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(status.message().contains("16 MiB"), "{status:?}");
    }
    assert_eq!(running.intake.bodies().len(), 0);
    assert_eq!(running.intake.used(), 0);
    assert_eq!(running.metrics.requested(Transport::Grpc, Outcome::Refused(Cause::TooLarge)), 3);
}

/// Asks its reader for the widest window there is: 128 MiB.
fn wide_zstd(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = ::zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn bombs_stay_within_the_budget() {
    let budget = 8 << 20;
    let running = run(Config::default(), FakeIntake::with_budget(budget)).await;
    let zeros = vec![0; 15 << 20];
    for (encoding, bomb) in [("gzip", gzip(&zeros)), ("zstd", zstd(&zeros)), ("zstd", wide_zstd(&zeros))] {
        let (header, bomb) = ([("grpc-encoding", encoding)], framed(1, &bomb));
        let sends = (0..64).map(|_| post_raw(&running, EXPORT, &header, bomb.clone()));
        for (code, message) in futures::future::join_all(sends).await {
            assert_eq!(code, Code::Unavailable, "{encoding}: {message}");
        }
    }
    assert!(running.intake.peak() <= budget);
    let running = receiver().await;
    let header = [("grpc-encoding", "zstd")];
    let (code, message) =
        post_raw(&running, EXPORT, &header, framed(1, &wide_zstd(&vec![0; 500 << 20]))).await;
    assert_eq!(code, Code::InvalidArgument, "{message}");
    assert!(running.intake.peak() <= 20 << 20);
    assert_eq!(running.intake.used(), 0);
}

#[tokio::test]
async fn broken_requests_are_refused_for_good() {
    let running = receiver().await;
    let good = encoded(&request(1));
    let zipped = gzip(&good);
    let cut = framed(0, &good)[..good.len() - 1].to_vec();
    let twice = [framed(0, &good), framed(0, &good)].concat();
    let gzip_header = [("grpc-encoding", "gzip")];
    let zstd_header = [("grpc-encoding", "zstd")];
    let broken: [(&str, &[_], Vec<u8>); 9] = [
        ("nothing", &[], vec![]),
        ("half a prefix", &[], vec![0, 0]),
        ("cut", &[], cut),
        ("two messages", &[], twice),
        ("an unknown flag", &[], framed(7, &good)),
        ("compressed, it does not say how", &[], framed(1, &zipped)),
        ("not gzip", &gzip_header, framed(1, &good)),
        ("half a gzip", &gzip_header, framed(1, &zipped[..zipped.len() / 2])),
        ("not zstd", &zstd_header, framed(1, &good)),
    ];
    for (what, headers, body) in broken {
        let (code, message) = post_raw(&running, EXPORT, headers, body).await;
        assert_eq!(code, Code::InvalidArgument, "{what}: {message}");
        assert!(!message.is_empty(), "{what}");
    }
    assert_eq!(running.intake.bodies().len(), 0);
    assert_eq!(running.intake.used(), 0);
}

#[tokio::test]
async fn an_encoding_we_do_not_know_is_refused() {
    let running = receiver().await;
    let body = framed(1, &encoded(&request(1)));
    let (code, message) = post_raw(&running, EXPORT, &[("grpc-encoding", "snappy")], body).await;
    assert_eq!(code, Code::Unimplemented);
    assert!(message.contains("snappy"), "{message}");
}

#[tokio::test]
async fn senders_are_told_when_to_come_back() {
    let running = run(Config::default(), FakeIntake::with_budget(1000)).await;
    let status = sender(&running).await.export(request(10)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let details = answer::Status::decode(status.details()).unwrap();
    assert_eq!(details.code, Code::Unavailable as i32);
    assert_eq!(details.message, status.message());
    assert_eq!(details.details[0].type_url, "type.googleapis.com/google.rpc.RetryInfo");
    let delay = answer::RetryInfo::decode(&*details.details[0].value).unwrap().retry_delay.unwrap();
    assert_eq!((delay.seconds, delay.nanos), (2, 500_000_000));
    assert_eq!(running.intake.used(), 0);
    let refused = running.metrics.refused_bytes().find(|(cause, _)| *cause == Cause::Memory).unwrap();
    assert!(refused.1 > 1000);
}

#[tokio::test]
async fn rejected_spans_are_a_partial_success() {
    let running = receiver().await;
    let accepted = Accepted { rejected: 2, reason: Some("trace_id has 15 bytes, expected 16".into()) };
    running.intake.will_answer(Ok(accepted));
    let answer = sender(&running).await.export(request(3)).await.unwrap().into_inner();
    let partial = answer.partial_success.unwrap();
    assert_eq!(partial.rejected_spans, 2);
    assert_eq!(partial.error_message, "trace_id has 15 bytes, expected 16");
    assert_eq!(running.metrics.requested(Transport::Grpc, Outcome::Partial), 1);
}

#[tokio::test]
async fn the_intake_has_the_last_word() {
    let running = receiver().await;
    running.intake.will_answer(Err(Rejection::Malformed("length 9 exceeds its message at byte 4".into())));
    let status = sender(&running).await.export(request(1)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("byte 4"));
    running.intake.will_answer(Err(Rejection::ShuttingDown));
    let status = sender(&running).await.export(request(1)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test]
async fn metrics_and_logs_are_told_where_traces_go() {
    let running = receiver().await;
    for signal in ["metrics", "logs"] {
        let mut grpc = tonic::client::Grpc::new(channel(&running).await);
        grpc.ready().await.unwrap();
        let path = format!(
            "/opentelemetry.proto.collector.{signal}.v1.{}Service/Export",
            if signal == "metrics" { "Metrics" } else { "Logs" }
        );
        let codec =
            tonic_prost::ProstCodec::<ExportTraceServiceRequest, ExportTraceServiceResponse>::default();
        let path = path.parse().unwrap();
        let status = grpc.unary(tonic::Request::new(request(1)), path, codec).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
        assert!(status.message().contains(signal), "{status:?}");
        assert!(status.message().contains("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"), "{status:?}");
    }
    let (code, _) = post_raw(&running, "/grpc.health.v1.Health/Check", &[], framed(0, &[])).await;
    assert_eq!(code, Code::Unimplemented);
}

#[tokio::test]
async fn http_on_the_grpc_port_is_told_so() {
    let running = receiver().await;
    let url = format!("http://{}/v1/traces", running.grpc);
    let answer =
        client().post(url).header("content-type", "application/json").body("{}").send().await.unwrap();
    assert_eq!(answer.status(), 415);
    assert!(answer.text().await.unwrap().contains("receivers.otlp.http"));
}

#[tokio::test]
async fn the_tenant_and_the_token_are_read_from_metadata() {
    let token = "secret".to_owned().try_into().unwrap();
    let config = Config {
        auth: Some(crate::receiver::config::Auth { bearer_tokens: vec![token].try_into().unwrap() }),
        tenant_header: Some("X-Scope-OrgID".to_owned().try_into().unwrap()),
        ..Config::default()
    };
    let running = run(config, FakeIntake::with_budget(1 << 20)).await;
    let status = sender(&running).await.export(request(1)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    let mut message = tonic::Request::new(request(1));
    message.metadata_mut().insert("authorization", "Bearer secret".parse().unwrap());
    message.metadata_mut().insert("x-scope-orgid", "team-a".parse().unwrap());
    sender(&running).await.export(message).await.unwrap();
    assert_eq!(running.intake.tenants(), ["team-a"]);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stalls_is_given_up() {
    let stalled = http_body_util::StreamBody::new(futures::stream::pending::<
        Result<http_body::Frame<Bytes>, std::convert::Infallible>,
    >());
    let reception = crate::receiver::Reception {
        intake: FakeIntake::with_budget(1 << 20),
        door: Arc::new(crate::receiver::door::Door::new(&Config::default())),
        metrics: Arc::default(),
    };
    let service = crate::receiver::grpc::Service::new(reception);
    let request =
        ::http::Request::post(EXPORT).header("content-type", "application/grpc").body(stalled).unwrap();
    let began = tokio::time::Instant::now();
    let response = tower::ServiceExt::oneshot(service, request).await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(30));
    let status = tonic::Status::from_header_map(response.headers()).unwrap();
    assert_eq!(status.code(), Code::Unavailable);
}
