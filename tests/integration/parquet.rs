//! What is in the object store equals what was sent, for the parquet crate and for DuckDB.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};

use super::support::{
    KEEP_ALL, ObjectStore, Random, Sender, Setup, Tailwater, Trace, WITHIN, assert_row_is, attribute,
    eventually, files_below, full_spans, integer, read_with_duckdb, read_with_parquet_crate, request,
    rows_below, text, to_hex,
};

const UNUSUAL: &str = "ä–𝄞 e\u{301} עברית \u{0}\u{1} \u{feff}\u{fffd} \"quoted\" \\ \n\t \u{10ffff}";

async fn storing_in(store: &ObjectStore) -> Tailwater {
    Setup::of(KEEP_ALL).storing_in(store, "some/prefix").start().await
}

fn array(values: Vec<Value>) -> Value {
    let any = |value| AnyValue { value: Some(value) };
    Value::ArrayValue(ArrayValue { values: values.into_iter().map(any).collect() })
}

/// One attribute of every kind, and of the kinds within kinds.
fn of_every_kind() -> Vec<KeyValue> {
    let pairs = KeyValueList { values: vec![text("a", UNUSUAL), integer("b", -1)] };
    let deep = KeyValueList { values: vec![attribute("bytes", Value::BytesValue(vec![0, 255]))] };
    vec![
        text("text", "plain"),
        text("empty text", ""),
        text("", "no key"),
        text(UNUSUAL, UNUSUAL),
        text("long", &"0123456789".repeat(10_000)),
        integer("least", i64::MIN),
        integer("most", i64::MAX),
        attribute("yes", Value::BoolValue(true)),
        attribute("no", Value::BoolValue(false)),
        attribute("third", Value::DoubleValue(1.0 / 3.0)),
        attribute("whole", Value::DoubleValue(4.0)),
        attribute("tiny", Value::DoubleValue(5e-324)),
        attribute("not a number", Value::DoubleValue(f64::NAN)),
        attribute("infinite", Value::DoubleValue(f64::NEG_INFINITY)),
        attribute("bytes", Value::BytesValue((0..=255).collect())),
        attribute("no bytes", Value::BytesValue(Vec::new())),
        attribute(
            "array",
            array(vec![Value::IntValue(1), Value::DoubleValue(2.0), Value::StringValue("3".into())]),
        ),
        attribute("empty array", array(Vec::new())),
        attribute("pairs", Value::KvlistValue(pairs)),
        attribute("deep", array(vec![Value::KvlistValue(deep), Value::DoubleValue(f64::INFINITY)])),
        KeyValue { key: "nothing".to_owned(), value: None, ..KeyValue::default() },
        text("twice", "first"),
        text("twice", "last"),
    ]
}

/// Attributes that have columns of their own, as they should come and as they should not.
fn promoted(n: usize) -> Vec<KeyValue> {
    match n % 3 {
        0 => vec![text("http.request.method", "GET"), integer("http.response.status_code", 503)],
        1 => vec![text("http.method", "PUT"), integer("http.status_code", 204), text("db.system", "redis")],
        _ => vec![
            integer("http.route", 7),
            text("http.response.status_code", "200"),
            integer("http.status_code", 1 << 40),
            text("error.type", UNUSUAL),
        ],
    }
}

fn span(random: &mut Random, trace_id: [u8; 16], parent: Vec<u8>, n: usize) -> Span {
    let start = 1_750_000_000_123_456_789 + n as u64;
    let event = |name: &str| Event {
        time_unix_nano: start + 1,
        name: name.to_owned(),
        attributes: of_every_kind(),
        dropped_attributes_count: 3,
    };
    let link = Link {
        trace_id: random.trace_id().to_vec(),
        span_id: random.span_id().to_vec(),
        trace_state: "a=b".to_owned(),
        attributes: of_every_kind(),
        dropped_attributes_count: 4,
        flags: 0x301,
    };
    Span {
        trace_id: trace_id.to_vec(),
        span_id: random.span_id().to_vec(),
        trace_state: if n.is_multiple_of(2) { "vendor=1,other=2".to_owned() } else { String::new() },
        parent_span_id: parent,
        flags: 0x101,
        name: format!("{UNUSUAL} {n}"),
        kind: (n % 6) as i32,
        start_time_unix_nano: start,
        end_time_unix_nano: start + 1_000_000 * n as u64,
        attributes: of_every_kind().into_iter().chain(promoted(n)).collect(),
        dropped_attributes_count: 1,
        events: vec![event("one"), event(""), event(UNUSUAL)],
        dropped_events_count: 2,
        links: vec![link.clone(), link],
        dropped_links_count: 5,
        status: match n % 3 {
            0 => None,
            code => Some(Status { code: code as i32, message: UNUSUAL.to_owned() }),
        },
    }
}

/// A trace of nine spans over two resources of two scopes each, with everything that OTLP has.
fn rich(random: &mut Random) -> ExportTraceServiceRequest {
    let trace_id = random.trace_id();
    let root = span(random, trace_id, Vec::new(), 0);
    let parent = root.span_id.clone();
    let mut spans: Vec<_> = (1..9).map(|n| span(random, trace_id, parent.clone(), n)).collect();
    spans.insert(0, root);
    let mut groups = spans.chunks(3).map(<[Span]>::to_vec);
    let scope_spans = |name: &str, spans: Vec<Span>| ScopeSpans {
        scope: Some(InstrumentationScope {
            name: name.to_owned(),
            version: "1.0".to_owned(),
            attributes: of_every_kind(),
            dropped_attributes_count: 6,
        }),
        spans,
        schema_url: format!("https://example.test/{name}"),
    };
    let resource = |name: &str| Resource {
        attributes: [vec![text("service.name", name), integer("k8s.pod.name", 1)], of_every_kind()].concat(),
        dropped_attributes_count: 7,
        ..Resource::default()
    };
    let one = vec![scope_spans("a", groups.next().unwrap()), scope_spans("b", groups.next().unwrap())];
    let two = vec![scope_spans("a", groups.next().unwrap())];
    let resource_spans = |name: &str, scope_spans| ResourceSpans {
        resource: Some(resource(name)),
        scope_spans,
        schema_url: format!("https://example.test/{name}"),
    };
    ExportTraceServiceRequest {
        resource_spans: vec![resource_spans("one", one), resource_spans(UNUSUAL, two)],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_store_holds_equals_what_was_sent() {
    let store = ObjectStore::start().await;
    let mut tailwater = storing_in(&store).await;
    let mut sender = Sender::to(&tailwater);
    let mut random = Random(1);
    let requests: Vec<_> = (0..5).map(|_| rich(&mut random)).collect();
    for request in &requests {
        sender.deliver(request).await;
    }
    tailwater.judged().await;
    tailwater.drain().await;
    let by_crate = read_with_parquet_crate(&store.files());
    let by_duckdb = read_with_duckdb(&store.files());
    let sent: Vec<_> = requests.into_iter().flat_map(full_spans).collect();
    for table in [&by_crate, &by_duckdb] {
        assert_eq!(table.len(), sent.len());
        for full in &sent {
            assert_row_is(&table[&(to_hex(&full.span.trace_id), to_hex(&full.span.span_id))], full);
        }
    }
    assert_eq!(by_crate, by_duckdb);
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_named_by_day_and_hour_and_hold_a_trace_once() {
    let store = ObjectStore::start().await;
    let mut tailwater = storing_in(&store).await;
    let mut sender = Sender::to(&tailwater);
    let mut random = Random(2);
    for _ in 0..30 {
        let traces = Trace::some(100, &mut random);
        sender.deliver(&request(&traces)).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let appears = async || (!rows_below(&store.files()).is_empty()).then_some(());
    eventually("the first object appears while traffic goes on", WITHIN, appears).await;
    tailwater.judged().await;
    tailwater.drain().await;
    let rows = rows_below(&store.files());
    assert_eq!(rows.len(), 9_000);
    let objects: Vec<_> = files_below(&store.files())
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "parquet"))
        .map(|path| path.strip_prefix(store.files()).unwrap().display().to_string())
        .collect();
    assert!(objects.len() > 1, "rolled by age: {objects:?}");
    let name =
        regex::Regex::new(r"^some/prefix/date=\d{4}-\d\d-\d\d/hour=\d\d/[^/]*-[0-9a-f-]{36}\.parquet$")
            .unwrap();
    assert!(objects.iter().all(|object| name.is_match(object)), "{objects:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_store_a_local_folder_holds_the_same() {
    let setup = Setup::of(KEEP_ALL);
    let mut tailwater = setup.start().await;
    let sent = rich(&mut Random(3));
    Sender::to(&tailwater).deliver(&sent).await;
    tailwater.judged().await;
    tailwater.drain().await;
    let table = read_with_parquet_crate(&tailwater.parquet());
    for full in full_spans(sent) {
        assert_row_is(&table[&(to_hex(&full.span.trace_id), to_hex(&full.span.span_id))], &full);
    }
}
