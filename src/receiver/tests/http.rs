use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use reqwest::{Method, Response};
use serde_json::Value;

use super::*;
use crate::receiver::answer;
use crate::receiver::body::STEP;
use crate::receiver::config::{Cors, Http};
use crate::receiver::metrics::{Outcome, Transport};
use crate::receiver::rejection::Cause;

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

async fn post(running: &Running, content_type: &str, encoding: Option<&str>, body: Vec<u8>) -> Response {
    let mut request =
        client().post(running.url("/v1/traces")).header("content-type", content_type).body(body);
    if let Some(encoding) = encoding {
        request = request.header("content-encoding", encoding);
    }
    request.send().await.unwrap()
}

fn header<'r>(response: &'r Response, name: &str) -> &'r str {
    response.headers().get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
}

async fn status_of(response: Response) -> answer::Status {
    assert_eq!(header(&response, "content-type"), PROTOBUF);
    answer::Status::decode(response.bytes().await.unwrap()).unwrap()
}

#[tokio::test]
async fn a_protobuf_request_reaches_the_intake_as_it_came() {
    let running = receiver().await;
    let sent = encoded(&request(30));
    for content_type in [PROTOBUF, "application/x-protobuf; charset=utf-8"] {
        let answer = post(&running, content_type, None, sent.clone()).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(header(&answer, "content-type"), PROTOBUF);
        assert!(answer.bytes().await.unwrap().is_empty());
    }
    assert_eq!(running.intake.bodies(), [sent.clone(), sent]);
    assert_eq!(running.intake.used(), 0);
    assert_eq!(running.metrics.requested(Transport::HttpProtobuf, Outcome::Accepted), 2);
}

#[tokio::test]
async fn compressed_requests_are_accepted() {
    let running = receiver().await;
    let sent = encoded(&padded(5 << 20));
    let members = [gzip(&sent[..1000]), gzip(&sent[1000..])].concat();
    for (encoding, body) in
        [("gzip", gzip(&sent)), ("zstd", zstd(&sent)), ("identity", sent.clone()), ("GZIP", members)]
    {
        let answer = post(&running, PROTOBUF, Some(encoding), body).await;
        assert_eq!(answer.status(), 200, "{encoding}");
    }
    assert!(running.intake.bodies().iter().all(|body| *body == sent));
    assert_eq!(running.intake.used(), 0);
}

#[tokio::test]
async fn a_body_of_unannounced_length_is_charged_as_it_comes() {
    let running = run(Config::default(), FakeIntake::with_budget(1 << 20)).await;
    let stream = |chunks: usize| {
        let chunk = Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 10_000]));
        http_body_util::StreamBody::new(futures::stream::iter(
            vec![0; chunks]
                .into_iter()
                .map(move |_| http_body::Frame::data(chunk.as_ref().unwrap().clone()))
                .map(Ok::<_, std::io::Error>),
        ))
    };
    let client: hyper_util::client::legacy::Client<_, _> =
        hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    for (chunks, expected) in [(10, 200), (300, 503)] {
        let request = ::http::Request::post(running.url("/v1/traces")).header("content-type", PROTOBUF);
        let answer = client.request(request.body(Box::pin(stream(chunks))).unwrap()).await.unwrap();
        assert_eq!(answer.status(), expected);
    }
    assert_eq!(running.intake.bodies()[0].len(), 100_000);
    assert_eq!(running.intake.used(), 0);
}

#[tokio::test]
async fn a_sender_that_announces_much_and_says_nothing_holds_no_room() {
    use tokio::io::AsyncWriteExt;
    let running = run(Config::default(), FakeIntake::with_budget(16 << 20)).await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        let mut socket = tokio::net::TcpStream::connect(running.http).await.unwrap();
        let head = format!(
            "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: {PROTOBUF}\r\ncontent-length: 16000000\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        socket.write_all(&[b' '; 1000]).await.unwrap();
        silent.push(socket);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(running.intake.used() <= 100 * STEP, "{} bytes are held", running.intake.used());
    let sent = encoded(&padded(2 << 20));
    assert_eq!(post(&running, PROTOBUF, None, sent.clone()).await.status(), 200);
    assert_eq!(running.intake.bodies(), [sent]);
    assert!(running.intake.peak() <= 16 << 20);
    // What would not fit even now is refused, and none of it kept.
    let running = run(Config::default(), FakeIntake::with_budget(8 << 20)).await;
    assert_eq!(post(&running, PROTOBUF, None, vec![b' '; 15 << 20]).await.status(), 503);
    assert_eq!(running.intake.peak(), 0);
}

#[tokio::test]
async fn json_is_stored_as_protobuf_and_answered_in_json() {
    let running = receiver().await;
    let mut sent = request(2);
    sent.resource_spans[0].scope_spans[0].spans.iter_mut().for_each(|span| span.attributes.truncate(3));
    let text = serde_json::to_vec(&sent).unwrap();
    for (content_type, encoding, body) in [
        (JSON, None, text.clone()),
        ("application/json; charset=utf-8", Some("gzip"), gzip(&text)),
        ("Application/JSON", Some("zstd"), zstd(&text)),
    ] {
        let answer = post(&running, content_type, encoding, body).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(header(&answer, "content-type"), JSON);
        assert_eq!(answer.text().await.unwrap(), "{}");
    }
    for body in running.intake.bodies() {
        assert_eq!(ExportTraceServiceRequest::decode(body).unwrap(), sent);
    }
    assert_eq!(running.metrics.requested(Transport::HttpJson, Outcome::Accepted), 3);
}

#[tokio::test]
async fn rejected_spans_are_a_partial_success_in_either_language() {
    let running = receiver().await;
    let accepted = Accepted { rejected: 2, reason: Some("bad span".into()) };
    running.intake.will_answer(Ok(accepted));
    let answer = post(&running, PROTOBUF, None, vec![]).await;
    let answer = ExportTraceServiceResponse::decode(answer.bytes().await.unwrap()).unwrap();
    let partial = answer.partial_success.unwrap();
    assert_eq!((partial.rejected_spans, partial.error_message.as_str()), (2, "bad span"));
    let answer = post(&running, JSON, None, b"{}".to_vec()).await;
    let answer: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    assert_eq!(
        answer,
        serde_json::json!({ "partialSuccess": { "rejectedSpans": "2", "errorMessage": "bad span" } })
    );
}

#[tokio::test]
async fn what_is_too_large_is_answered_413_and_the_connection_lives() {
    let running = receiver().await;
    let sent = encoded(&padded(20 << 20));
    for (encoding, body) in [(None, sent.clone()), (Some("gzip"), gzip(&sent)), (Some("zstd"), zstd(&sent))] {
        let answer = post(&running, PROTOBUF, encoding, body).await;
        assert_eq!(answer.status(), 413, "{encoding:?}");
        assert!(status_of(answer).await.message.contains("16 MiB"));
    }
    let text = format!("{{\"pad\":\"{}\"}}", "x".repeat(17 << 20));
    assert_eq!(post(&running, JSON, Some("gzip"), gzip(text.as_bytes())).await.status(), 413);
    assert_eq!(running.intake.used(), 0);
}

#[tokio::test]
async fn bombs_stay_within_the_budget() {
    let budget = 8 << 20;
    let running = run(Config::default(), FakeIntake::with_budget(budget)).await;
    let zeros = vec![0; 200 << 20];
    for (encoding, bomb) in [("gzip", gzip(&zeros)), ("zstd", zstd(&zeros))] {
        let sends = (0..16).map(|_| post(&running, PROTOBUF, Some(encoding), bomb.clone()));
        for answer in futures::future::join_all(sends).await {
            assert_eq!(answer.status(), 503, "{encoding}");
        }
    }
    assert!(running.intake.peak() <= budget);
    assert_eq!(running.intake.used(), 0);
}

#[tokio::test]
async fn broken_bodies_are_refused_for_good() {
    let running = receiver().await;
    let good = encoded(&request(1));
    let (zipped, zstd) = (gzip(&good), zstd(&good));
    let broken = [
        (PROTOBUF, Some("gzip"), good.clone()),
        (PROTOBUF, Some("gzip"), zipped[..zipped.len() - 9].to_vec()),
        (PROTOBUF, Some("gzip"), vec![]),
        (PROTOBUF, Some("zstd"), good.clone()),
        (PROTOBUF, Some("zstd"), zstd[..zstd.len() / 2].to_vec()),
        (JSON, None, good),
        (JSON, None, b"{\"resourceSpans\":[".to_vec()),
    ];
    for (content_type, encoding, body) in broken {
        let answer = post(&running, content_type, encoding, body).await;
        assert_eq!(answer.status(), 400, "{content_type} {encoding:?}");
        assert!(header(&answer, "retry-after").is_empty());
    }
    assert_eq!(running.intake.bodies().len(), 0);
    assert_eq!(running.metrics.requested(Transport::HttpProtobuf, Outcome::Refused(Cause::Malformed)), 5);
}

#[tokio::test]
async fn other_types_and_encodings_are_answered_415() {
    let running = receiver().await;
    for (content_type, encoding) in
        [("text/plain", None), ("", None), (PROTOBUF, Some("br")), (JSON, Some("gzip, gzip"))]
    {
        assert_eq!(post(&running, content_type, encoding, vec![]).await.status(), 415, "{content_type}");
    }
}

#[tokio::test]
async fn senders_are_told_when_to_come_back() {
    let running = run(Config::default(), FakeIntake::with_budget(1000)).await;
    let answer = post(&running, PROTOBUF, None, vec![0; 2000]).await;
    assert_eq!(answer.status(), 503);
    assert_eq!(header(&answer, "retry-after"), "3");
    let status = status_of(answer).await;
    let delay = answer::RetryInfo::decode(&*status.details[0].value).unwrap().retry_delay.unwrap();
    assert_eq!((status.code, delay.seconds, delay.nanos), (14, 2, 500_000_000));
    let answer = post(&running, JSON, None, vec![b' '; 2000]).await;
    assert_eq!(answer.status(), 503);
    let status: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    assert_eq!(status["code"], 14);
    assert_eq!(status["details"][0]["retryDelay"], "2.5s");
}

#[tokio::test]
async fn other_paths_and_methods_are_told_where_traces_go() {
    let running = receiver().await;
    for signal in ["metrics", "logs"] {
        let url = running.url(&format!("/v1/{signal}"));
        let answer = client().post(url).header("content-type", JSON).body("{}").send().await.unwrap();
        assert_eq!(answer.status(), 404);
        let text = answer.text().await.unwrap();
        assert!(text.contains(signal) && text.contains("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"), "{text}");
    }
    let get = |path: &str| client().get(running.url(path)).send();
    assert_eq!(get("/").await.unwrap().status(), 404);
    let answer = get("/v1/traces").await.unwrap();
    assert_eq!(answer.status(), 405);
    assert!(header(&answer, "allow").contains("POST"));
}

#[tokio::test]
async fn browsers_of_allowed_origins_may_send() {
    let cors = Cors { allowed_origins: vec!["https://shop.example".into(), "https://*.shop.example".into()] };
    let config = Config { http: Some(Http { cors, ..Http::default() }), ..Config::default() };
    let running = run(config, FakeIntake::with_budget(1 << 20)).await;
    let preflight = async |origin: &str| {
        client()
            .request(Method::OPTIONS, running.url("/v1/traces"))
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "content-type,x-team")
            .send()
            .await
            .unwrap()
    };
    for origin in ["https://shop.example", "https://eu.shop.example"] {
        let answer = preflight(origin).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(header(&answer, "access-control-allow-origin"), origin);
        assert_eq!(header(&answer, "access-control-allow-methods"), "POST");
        assert_eq!(header(&answer, "access-control-allow-headers"), "content-type,x-team");
    }
    assert_eq!(header(&preflight("https://evil.example").await, "access-control-allow-origin"), "");
    let sent = client()
        .post(running.url("/v1/traces"))
        .header("origin", "https://shop.example")
        .header("content-type", JSON)
        .body("{}");
    let answer = sent.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(header(&answer, "access-control-allow-origin"), "https://shop.example");
}

#[tokio::test]
async fn without_configuration_no_origin_is_allowed() {
    let running = receiver().await;
    let request = client().post(running.url("/v1/traces")).header("origin", "https://shop.example");
    let answer = request.header("content-type", JSON).body("{}").send().await.unwrap();
    assert_eq!(header(&answer, "access-control-allow-origin"), "");
}

#[tokio::test]
async fn what_a_header_announces_is_counted_only_as_far_as_it_would_be_read() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let running = receiver().await;
    for _ in 0..3 {
        let mut socket = tokio::net::TcpStream::connect(running.http).await.unwrap();
        let head = format!(
            "POST /v1/traces HTTP/1.1\r\nhost: t\r\ncontent-type: {JSON}\r\ncontent-length: {}\r\n\r\n",
            u64::MAX - 2
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        socket.shutdown().await.unwrap();
        let _ = socket.read_to_end(&mut Vec::new()).await;
    }
    assert_eq!(running.metrics.requested(Transport::HttpJson, Outcome::Refused(Cause::TooLarge)), 3);
    let (_, bytes) = running.metrics.refused_bytes().find(|(cause, _)| *cause == Cause::TooLarge).unwrap();
    assert_eq!(bytes, 3 * crate::receiver::MESSAGE_MAX as u64);
}
