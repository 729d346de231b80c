//! What is written reads back as what was sent: spans decoded by prost on one side, rows read by the parquet crate on the
//! other.

use std::collections::{BTreeMap, HashMap};
use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use prost::Message;
use uuid::Uuid;

use super::schema::{Promoted, RESOURCE, SPAN};
use super::*;
use crate::trace::{Position, Reason, Threshold, TraceId, WeightRule};

const SEGMENT: Segment = Segment { uuid: Uuid::from_u128(7), opened_ms: 1_750_000_000_000 };

struct Memory(Vec<Piece>);

impl Pieces for Memory {
    fn read(&self, key: &PieceKey) -> io::Result<Piece> {
        Ok(self.0[key.position.offset as usize].clone())
    }
}

fn span_count(request: &ExportTraceServiceRequest) -> u32 {
    let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    scopes.map(|scope| scope.spans.len() as u32).sum()
}

fn piece(request: &ExportTraceServiceRequest) -> Piece {
    Piece {
        policy: "errors".into(),
        reason: Reason::Root,
        rule: WeightRule::Threshold,
        threshold: Threshold(0),
        whole: true,
        complete: true,
        decided_at_ms: 1_750_000_000_123,
        spans: span_count(request),
        otlp: Bytes::from(request.encode_to_vec()),
    }
}

/// The file of these pieces, each of one trace.
fn file(pieces: Vec<Piece>) -> (Bytes, Summary) {
    let keys = pieces.iter().enumerate().map(|(n, piece)| {
        let request = ExportTraceServiceRequest::decode(piece.otlp.clone()).unwrap();
        let id = &request.resource_spans[0].scope_spans[0].spans[0].trace_id;
        let len = piece.otlp.len() as u32;
        PieceKey { trace_id: TraceId::valid(id).unwrap(), position: Position::new(1, n as u32), len }
    });
    let keys = keys.collect();
    encoded(keys, pieces)
}

fn encoded(keys: Vec<PieceKey>, pieces: Vec<Piece>) -> (Bytes, Summary) {
    let mut file = Vec::new();
    let summary = encode(&Memory(pieces), keys, &SEGMENT, &mut file).unwrap();
    assert_eq!(summary.bytes, file.len() as u64);
    (Bytes::from(file), summary)
}

fn rows(file: &Bytes) -> Vec<HashMap<String, Field>> {
    let reader = SerializedFileReader::new(file.clone()).unwrap();
    let row = |row: Row| row.into_columns().into_iter().collect();
    reader.get_row_iter(None).unwrap().map(|read| row(read.unwrap())).collect()
}

fn any(value: Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(any(value)), ..Default::default() }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

/// One of each kind of value, and lists of them.
fn every_kind() -> Vec<KeyValue> {
    let pairs = |pairs: Vec<KeyValue>| Value::KvlistValue(KeyValueList { values: pairs });
    let array =
        |values: Vec<Value>| Value::ArrayValue(ArrayValue { values: values.into_iter().map(any).collect() });
    let scalars = vec![
        Value::StringValue("quote \" and \\ and\nline".into()),
        Value::IntValue(i64::MAX),
        Value::DoubleValue(1.0),
        Value::DoubleValue(-1.5e-7),
        Value::BoolValue(false),
    ];
    vec![
        text("string", "snö 🌊 \u{0} \u{10ffff}"),
        text("string.empty", ""),
        text("", "the empty key"),
        attribute("int.min", Value::IntValue(i64::MIN)),
        attribute("double", Value::DoubleValue(0.1)),
        attribute("double.whole", Value::DoubleValue(5.0)),
        attribute("double.negative.zero", Value::DoubleValue(-0.0)),
        attribute("double.nan", Value::DoubleValue(f64::NAN)),
        attribute("double.infinite", Value::DoubleValue(f64::NEG_INFINITY)),
        attribute("bool", Value::BoolValue(true)),
        attribute("bytes", Value::BytesValue(vec![0, 255, 7])),
        attribute("array.empty", array(vec![])),
        attribute("array", array(scalars.clone())),
        attribute(
            "array.special",
            array(vec![Value::BytesValue(vec![1]), Value::DoubleValue(f64::INFINITY)]),
        ),
        attribute(
            "pairs",
            pairs(vec![attribute("a", array(scalars)), attribute("b", pairs(vec![text("c", "d")]))]),
        ),
        attribute("pairs.twice", pairs(vec![text("k", "1"), text("k", "2")])),
        KeyValue { key: "empty".into(), value: Some(AnyValue { value: None }), ..Default::default() },
    ]
}

fn span(n: u8, attributes: Vec<KeyValue>) -> Span {
    Span {
        trace_id: vec![1; 16],
        span_id: vec![n; 8],
        parent_span_id: if n == 1 { vec![] } else { vec![1; 8] },
        name: format!("span {n}"),
        kind: i32::from(n) % 7,
        start_time_unix_nano: 1_750_000_000_000_000_000 + u64::from(n),
        end_time_unix_nano: 1_750_000_000_000_001_000 + u64::from(n),
        attributes,
        flags: 0x301,
        ..Span::default()
    }
}

fn request(spans: Vec<Span>) -> ExportTraceServiceRequest {
    let scope_spans = vec![ScopeSpans { spans, ..Default::default() }];
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { scope_spans, ..Default::default() }] }
}

fn everything() -> ExportTraceServiceRequest {
    let event = |n: u64| Event {
        time_unix_nano: n,
        name: format!("event {n}"),
        attributes: if n == 2 { vec![] } else { every_kind() },
        dropped_attributes_count: n as u32,
    };
    let link = |n: u8| Link {
        trace_id: vec![n; 16],
        span_id: vec![n; 8],
        trace_state: "a=b".repeat(n.into()),
        attributes: if n == 2 { every_kind() } else { vec![] },
        dropped_attributes_count: 9,
        flags: 0x100,
    };
    let full = Span {
        trace_state: "vendor=x,ot=th:8".into(),
        events: vec![event(1), event(2), event(3)],
        links: vec![link(1), link(2)],
        status: Some(Status { code: 2, message: "went wrong".into() }),
        dropped_attributes_count: 1,
        dropped_events_count: 2,
        dropped_links_count: 3,
        ..span(2, every_kind())
    };
    let promoted = vec![
        text("http.request.method", "GET"),
        attribute("http.response.status_code", Value::IntValue(404)),
        text("http.route", ""),
        text("other", "stays"),
    ];
    let scope = |name: &str, attributes| InstrumentationScope {
        name: name.into(),
        version: "1".into(),
        attributes,
        dropped_attributes_count: 4,
    };
    let resource = |attributes| Resource { attributes, dropped_attributes_count: 5, ..Default::default() };
    let mut of_service = every_kind();
    of_service.push(text("service.name", "shop"));
    of_service.push(attribute("service.version", Value::IntValue(7)));
    ExportTraceServiceRequest {
        resource_spans: vec![
            ResourceSpans {
                resource: Some(resource(of_service)),
                scope_spans: vec![
                    ScopeSpans {
                        scope: Some(scope("a", every_kind())),
                        spans: vec![span(1, vec![]), full],
                        schema_url: "https://schema/scope".into(),
                    },
                    ScopeSpans { scope: None, spans: vec![span(3, promoted)], ..Default::default() },
                ],
                schema_url: "https://schema/resource".into(),
            },
            ResourceSpans {
                scope_spans: vec![ScopeSpans {
                    scope: Some(scope("b", vec![])),
                    spans: vec![span(4, every_kind())],
                    ..Default::default()
                }],
                ..Default::default()
            },
        ],
    }
}

/// A span with all that it came under, in one form whatever it came from.
#[derive(Debug, PartialEq)]
struct Sent {
    span: Span,
    scope: InstrumentationScope,
    scope_schema_url: String,
    resource: Resource,
    resource_schema_url: String,
}

impl Sent {
    /// Absent is default, attributes are ordered, of equal keys the last stands, NaN is equal to itself.
    fn normal(mut self) -> String {
        let span = &mut self.span;
        span.status.get_or_insert_default();
        let events = span.events.iter_mut().map(|event| &mut event.attributes);
        let links = span.links.iter_mut().map(|link| &mut link.attributes);
        for attributes in events.chain(links).chain([
            &mut span.attributes,
            &mut self.scope.attributes,
            &mut self.resource.attributes,
        ]) {
            let last: BTreeMap<String, KeyValue> =
                attributes.drain(..).map(|kv| (kv.key.clone(), kv)).collect();
            attributes.extend(
                last.into_values().map(|kv| KeyValue { value: kv.value.or(Some(AnyValue::default())), ..kv }),
            );
        }
        format!("{self:#?}")
    }
}

fn sent(request: &ExportTraceServiceRequest) -> Vec<String> {
    let mut all = Vec::new();
    for resource_spans in &request.resource_spans {
        for scope_spans in &resource_spans.scope_spans {
            for span in &scope_spans.spans {
                all.push(Sent {
                    span: span.clone(),
                    scope: scope_spans.scope.clone().unwrap_or_default(),
                    scope_schema_url: scope_spans.schema_url.clone(),
                    resource: resource_spans.resource.clone().unwrap_or_default(),
                    resource_schema_url: resource_spans.schema_url.clone(),
                });
            }
        }
    }
    all.sort_by_key(|sent| (sent.span.trace_id.clone(), sent.span.start_time_unix_nano));
    all.into_iter().map(Sent::normal).collect()
}

fn string(field: &Field) -> String {
    match field {
        Field::Str(text) => text.clone(),
        Field::Null => String::new(),
        other => panic!("{other:?} is no text"),
    }
}

fn int(field: &Field) -> u32 {
    let Field::Int(number) = field else { panic!("{field:?} is no INT32") };
    *number as u32
}

fn long(field: &Field) -> u64 {
    let Field::Long(number) = field else { panic!("{field:?} is no INT64") };
    *number as u64
}

fn bytes(field: &Field) -> Vec<u8> {
    let text = string(field);
    (0..text.len() / 2).map(|n| u8::from_str_radix(&text[2 * n..2 * n + 2], 16).unwrap()).collect()
}

/// Rebuilds attributes as the schema's documentation says.
fn attributes(values: &Field, kinds: &Field) -> Vec<KeyValue> {
    let (Field::MapInternal(values), Field::MapInternal(kinds)) = (values, kinds) else { panic!("no maps") };
    let kinds: HashMap<String, String> =
        kinds.entries().iter().map(|(k, v)| (string(k), string(v))).collect();
    let value = |key: &str, value: &Field| match (value, kinds.get(key).map(String::as_str)) {
        (Field::Null, None) => None,
        (value, kind) => Some(parsed(&string(value), kind)),
    };
    let rebuilt = |(key, found): &(Field, Field)| {
        let key = string(key);
        KeyValue { value: Some(AnyValue { value: value(&key, found) }), key, ..Default::default() }
    };
    values.entries().iter().map(rebuilt).collect()
}

fn parsed(text: &str, kind: Option<&str>) -> Value {
    match kind {
        None => Value::StringValue(text.into()),
        Some("i") => Value::IntValue(text.parse().unwrap()),
        Some("d") => Value::DoubleValue(text.parse().unwrap()),
        Some("b") => Value::BoolValue(text.parse().unwrap()),
        Some("bytes") => Value::BytesValue(STANDARD.decode(text).unwrap()),
        Some("json") => plain(&serde_json::from_str(text).unwrap()).unwrap(),
        Some("otlp") => otlp(&serde_json::from_str(text).unwrap()).unwrap(),
        Some(other) => panic!("unknown kind {other}"),
    }
}

fn plain(json: &serde_json::Value) -> Option<Value> {
    use serde_json::Value as Json;
    Some(match json {
        Json::Null => return None,
        Json::Bool(value) => Value::BoolValue(*value),
        Json::Number(number) if number.is_i64() => Value::IntValue(number.as_i64()?),
        Json::Number(number) => Value::DoubleValue(number.as_f64()?),
        Json::String(text) => Value::StringValue(text.clone()),
        Json::Array(values) => Value::ArrayValue(ArrayValue {
            values: values.iter().map(|value| AnyValue { value: plain(value) }).collect(),
        }),
        Json::Object(pairs) => Value::KvlistValue(KeyValueList {
            values: pairs
                .iter()
                .map(|(key, value)| KeyValue {
                    key: key.clone(),
                    value: Some(AnyValue { value: plain(value) }),
                    ..Default::default()
                })
                .collect(),
        }),
    })
}

fn otlp(json: &serde_json::Value) -> Option<Value> {
    let (kind, value) = json.as_object()?.iter().next()?;
    let list = || value["values"].as_array().cloned().unwrap_or_default();
    Some(match kind.as_str() {
        "stringValue" => Value::StringValue(value.as_str()?.into()),
        "doubleValue" => match value.as_str() {
            Some("Infinity") => Value::DoubleValue(f64::INFINITY),
            Some(_) => Value::DoubleValue(f64::NAN),
            None => Value::DoubleValue(value.as_f64()?),
        },
        "bytesValue" => Value::BytesValue(STANDARD.decode(value.as_str()?).unwrap()),
        "arrayValue" => Value::ArrayValue(ArrayValue {
            values: list().iter().map(|value| AnyValue { value: otlp(value) }).collect(),
        }),
        "kvlistValue" => Value::KvlistValue(KeyValueList {
            values: list()
                .iter()
                .map(|pair| KeyValue {
                    key: pair["key"].as_str().unwrap().into(),
                    value: Some(AnyValue { value: otlp(&pair["value"]) }),
                    ..Default::default()
                })
                .collect(),
        }),
        other => panic!("unexpected {other}"),
    })
}

fn with_promoted(
    row: &HashMap<String, Field>,
    table: &[Promoted],
    mut found: Vec<KeyValue>,
) -> Vec<KeyValue> {
    for Promoted { column, name, old_names, .. } in table {
        let is_copy = found.iter().any(|kv| kv.key == *name || old_names.contains(&kv.key.as_str()));
        match &row[*column] {
            Field::Str(value) if !is_copy => found.push(text(name, value)),
            Field::Int(value) if !is_copy => found.push(attribute(name, Value::IntValue((*value).into()))),
            _ => {}
        }
    }
    found
}

fn elements(list: &Field) -> Vec<HashMap<String, Field>> {
    let Field::ListInternal(list) = list else { panic!("{list:?} is no list") };
    let fields = |element: &Field| match element {
        Field::Group(row) => row.clone().into_columns().into_iter().collect(),
        other => panic!("{other:?} is no struct"),
    };
    list.elements().iter().map(fields).collect()
}

fn number_of(name: &str, names: &[&str]) -> i32 {
    names.iter().position(|known| *known == name).map_or_else(|| name.parse().unwrap(), |n| n as i32)
}

fn rebuilt(row: &HashMap<String, Field>) -> String {
    let kinds = ["UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"];
    let event = |event: HashMap<String, Field>| Event {
        time_unix_nano: long(&event["time_unix_nano"]),
        name: string(&event["name"]),
        attributes: attributes(&event["attributes"], &event["attribute_types"]),
        dropped_attributes_count: int(&event["dropped_attributes_count"]),
    };
    let link = |link: HashMap<String, Field>| Link {
        trace_id: bytes(&link["trace_id"]),
        span_id: bytes(&link["span_id"]),
        trace_state: string(&link["trace_state"]),
        attributes: attributes(&link["attributes"], &link["attribute_types"]),
        dropped_attributes_count: int(&link["dropped_attributes_count"]),
        flags: int(&link["flags"]),
    };
    let span = Span {
        trace_id: bytes(&row["trace_id"]),
        span_id: bytes(&row["span_id"]),
        parent_span_id: bytes(&row["parent_span_id"]),
        trace_state: string(&row["trace_state"]),
        flags: int(&row["flags"]),
        name: string(&row["name"]),
        kind: number_of(&string(&row["kind"]), &kinds),
        start_time_unix_nano: long(&row["start_time_unix_nano"]),
        end_time_unix_nano: long(&row["end_time_unix_nano"]),
        attributes: with_promoted(row, SPAN, attributes(&row["attributes"], &row["attributes_types"])),
        dropped_attributes_count: int(&row["dropped_attributes_count"]),
        events: elements(&row["events"]).into_iter().map(event).collect(),
        dropped_events_count: int(&row["dropped_events_count"]),
        links: elements(&row["links"]).into_iter().map(link).collect(),
        dropped_links_count: int(&row["dropped_links_count"]),
        status: Some(Status {
            message: string(&row["status_message"]),
            code: number_of(&string(&row["status_code"]), &["UNSET", "OK", "ERROR"]),
        }),
    };
    let resource = attributes(&row["resource_attributes"], &row["resource_attributes_types"]);
    Sent {
        span,
        scope: InstrumentationScope {
            name: string(&row["scope_name"]),
            version: string(&row["scope_version"]),
            attributes: attributes(&row["scope_attributes"], &row["scope_attributes_types"]),
            dropped_attributes_count: int(&row["scope_dropped_attributes_count"]),
        },
        scope_schema_url: string(&row["scope_schema_url"]),
        resource: Resource {
            attributes: with_promoted(row, RESOURCE, resource),
            dropped_attributes_count: int(&row["resource_dropped_attributes_count"]),
            ..Default::default()
        },
        resource_schema_url: string(&row["resource_schema_url"]),
    }
    .normal()
}

fn assert_reads_back(request: &ExportTraceServiceRequest) -> Vec<HashMap<String, Field>> {
    let (file, _) = file(vec![piece(request)]);
    let rows = rows(&file);
    let sent = sent(request);
    assert_eq!(rows.len(), sent.len());
    for (row, sent) in rows.iter().zip(sent) {
        let rebuilt = rebuilt(row);
        for (rebuilt, sent) in rebuilt.lines().zip(sent.lines()) {
            assert_eq!(rebuilt, sent);
        }
        assert_eq!(rebuilt, sent);
    }
    rows
}

/// The same through the product's own reader.
fn assert_restores(request: &ExportTraceServiceRequest) {
    let (file, _) = file(vec![piece(request)]);
    let stored = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(stored.path(), &file).unwrap();
    let restored = |restored: Result<Restored, RestoreError>| {
        let Restored { resource, resource_schema_url, scope, scope_schema_url, span, weight, decided_ms } =
            restored.unwrap();
        assert_eq!(decided_ms, 1_750_000_000_123);
        assert!(weight >= 1.0);
        Sent { span, scope, scope_schema_url, resource, resource_schema_url }.normal()
    };
    let found: Vec<String> = restore(stored.path()).unwrap().map(restored).collect();
    for (found, sent) in found.iter().zip(sent(request)) {
        assert_eq!(*found, sent);
    }
    assert_eq!(found.len(), sent(request).len());
}

#[test]
fn a_file_is_restored_to_what_was_sent() {
    assert_restores(&everything());
}

#[test]
fn a_file_of_somebody_else_is_no_source_of_spans() {
    let stored = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(stored.path(), "PAR1 and then nothing").unwrap();
    assert!(matches!(restore(stored.path()), Err(RestoreError::Parquet(_))));
}

#[test]
fn everything_that_a_span_can_say_reads_back() {
    let rows = assert_reads_back(&everything());
    assert_eq!(string(&rows[1]["service_name"]), "shop");
    assert_eq!(string(&rows[2]["http_request_method"]), "GET");
    assert_eq!(int(&rows[2]["http_response_status_code"]), 404);
}

#[test]
fn numbers_of_every_size_read_back() {
    let sizes = (0..=64u32).map(|bits| u64::MAX.checked_shr(64 - bits).unwrap_or(0));
    let spans = sizes.flat_map(|size| (0..5u32).map(move |turn| (size, size.rotate_left(13 * turn))));
    let spans = spans.map(|(size, other)| Span {
        start_time_unix_nano: size,
        end_time_unix_nano: other,
        flags: other as u32,
        dropped_attributes_count: size as u32,
        dropped_events_count: (other >> 32) as u32,
        events: vec![Event { time_unix_nano: other, ..Event::default() }; size as usize % 3],
        ..span(2, vec![attribute("n", Value::IntValue(other as i64))])
    });
    assert_reads_back(&request(spans.collect()));
}

#[test]
fn an_old_name_fills_the_column_and_stays_in_the_map() {
    let old = vec![text("http.method", "GET"), attribute("http.status_code", Value::IntValue(500))];
    let both = vec![text("db.system", "old"), text("db.system.name", "new")];
    let rows = assert_reads_back(&request(vec![span(1, old), span(2, both)]));
    assert_eq!(string(&rows[0]["http_request_method"]), "GET");
    assert_eq!(int(&rows[0]["http_response_status_code"]), 500);
    assert_eq!(string(&rows[1]["db_system_name"]), "new");
}

#[test]
fn a_promoted_attribute_of_another_kind_stays_in_the_map_as_it_came() {
    let odd = vec![
        text("http.response.status_code", "404"),
        attribute("http.route", Value::IntValue(5)),
        KeyValue { key: "url.path".into(), ..Default::default() },
    ];
    let huge = vec![attribute("http.response.status_code", Value::IntValue(1 << 40))];
    let rows = assert_reads_back(&request(vec![span(1, odd), span(2, huge)]));
    assert_eq!(int(&rows[0]["http_response_status_code"]), 404);
    assert_eq!(string(&rows[0]["http_route"]), "5");
    assert_eq!(rows[0]["url_path"], Field::Null);
    assert_eq!(rows[1]["http_response_status_code"], Field::Null);
}

#[test]
fn of_a_key_that_stands_twice_the_last_wins_and_the_others_are_counted() {
    let twice = vec![
        text("k", "1"),
        text("http.route", "/a"),
        text("k", "2"),
        text("http.route", "/b"),
        text("k", "3"),
    ];
    let (file, summary) = file(vec![piece(&request(vec![span(1, twice.clone())]))]);
    assert_eq!(summary.duplicate_keys, 3);
    assert_eq!(string(&rows(&file)[0]["http_route"]), "/b");
    assert_reads_back(&request(vec![span(1, twice)]));
}

#[test]
fn rows_are_in_the_order_of_trace_and_start_whatever_the_order_of_pieces() {
    let of_trace = |trace: u8, n: u8| Span { trace_id: vec![trace; 16], ..span(n, vec![]) };
    let pieces = [(9, 4), (1, 8), (9, 2), (5, 1), (1, 3)];
    let (file, summary) =
        file(pieces.iter().map(|&(trace, n)| piece(&request(vec![of_trace(trace, n)]))).collect());
    assert_eq!(summary.rows, 5);
    let found: Vec<_> =
        rows(&file).iter().map(|row| (bytes(&row["trace_id"])[0], bytes(&row["span_id"])[0])).collect();
    assert_eq!(found, [(1, 3), (1, 8), (5, 1), (9, 2), (9, 4)]);
}

#[test]
fn columns_of_the_trace_describe_the_piece() {
    let error = Span { status: Some(Status { code: 2, ..Default::default() }), ..span(3, vec![]) };
    let mut request = request(vec![span(2, vec![]), span(1, vec![]), error]);
    request.resource_spans[0].resource =
        Some(Resource { attributes: vec![text("service.name", "front")], ..Default::default() });
    let (file, _) = file(vec![piece(&request)]);
    for row in rows(&file) {
        assert_eq!(string(&row["root_service_name"]), "front");
        assert_eq!(string(&row["root_name"]), "span 1");
        assert_eq!((int(&row["trace_span_count"]), int(&row["trace_error_count"])), (3, 1));
        assert_eq!(long(&row["trace_duration_nano"]), 1_002);
        assert_eq!(row["is_root"], Field::Bool(string(&row["name"]) == "span 1"));
        assert_eq!((string(&row["policy"]), string(&row["reason"])), ("errors".into(), "root".into()));
        assert_eq!(row["decision_time"], Field::TimestampMicros(1_750_000_000_123_000));
        assert_eq!(row["is_late"], Field::Bool(false));
    }
}

#[test]
fn weights_follow_the_pieces_rule() {
    let request = request(vec![Span { trace_state: "ot=th:8".into(), ..span(1, vec![]) }, span(2, vec![])]);
    let weights = |rule, threshold| {
        let (file, _) = file(vec![Piece { rule, threshold, ..piece(&request) }]);
        rows(&file).iter().map(|row| row["sampling_weight"].clone()).collect::<Vec<_>>()
    };
    let doubles = |a, b| vec![Field::Double(a), Field::Double(b)];
    assert_eq!(weights(WeightRule::Threshold, Threshold(0)), doubles(2.0, 1.0));
    assert_eq!(weights(WeightRule::Zero, Threshold(0)), doubles(0.0, 0.0));
    assert_eq!(weights(WeightRule::Hashed, Threshold(3 << 54)), doubles(8.0, 4.0));
}

/// Spans of many traces, with attributes that no other has.
fn many(traces: u32, value_bytes: usize) -> Vec<Piece> {
    let one = |n: u32| {
        let mut trace_id = vec![7; 12];
        trace_id.extend(n.wrapping_mul(2_654_435_761).to_be_bytes());
        let value = format!("{n:0value_bytes$}");
        let spans = (1..4).map(|s| Span {
            trace_id: trace_id.clone(),
            ..span(
                s,
                if n.is_multiple_of(5) { vec![] } else { vec![text("k", &value), text("url.path", &value)] },
            )
        });
        piece(&request(spans.collect()))
    };
    (0..traces).map(one).collect()
}

#[test]
fn the_same_segment_makes_the_same_bytes() {
    assert_eq!(file(many(500, 20)).0, file(many(500, 20)).0);
}

#[test]
fn many_pages_and_row_groups_read_back() {
    let pieces = many(8_000, 300);
    let mut expected: Vec<String> = Vec::new();
    let mut sorted = pieces.clone();
    let request = |piece: &Piece| ExportTraceServiceRequest::decode(piece.otlp.clone()).unwrap();
    sorted.sort_by_key(|piece| request(piece).resource_spans[0].scope_spans[0].spans[0].trace_id.clone());
    for piece in &sorted {
        expected.extend(sent(&request(piece)));
    }
    let (file, _) = file(pieces);
    let reader = SerializedFileReader::new(file.clone()).unwrap();
    assert_eq!(reader.metadata().num_row_groups(), 2);
    let found: Vec<String> = rows(&file).iter().map(rebuilt).collect();
    assert!(found == expected);
}

#[test]
fn a_trace_is_found_by_bloom_filter_bounds_and_one_page_index() {
    use parquet::file::metadata::{PageIndexPolicy, ParquetMetaDataReader};
    let (file, _) = file(many(8_000, 3));
    let properties =
        parquet::file::properties::ReaderProperties::builder().set_read_bloom_filter(true).build();
    let options = parquet::file::serialized_reader::ReadOptionsBuilder::new()
        .with_reader_properties(properties)
        .build();
    let reader = SerializedFileReader::new_with_options(file.clone(), options).unwrap();
    let ids: Vec<String> = rows(&file).iter().map(|row| string(&row["trace_id"])).collect();
    let mut found = 0;
    for n in 0..reader.metadata().num_row_groups() {
        let filter = reader.get_row_group(n).unwrap();
        let filter = filter.get_column_bloom_filter(0).unwrap();
        found += ids.iter().filter(|id| filter.check(id.as_str())).count();
        let absent = (0..10_000).filter(|n| filter.check(format!("{n:032x}").as_str())).count();
        assert!(absent < 200, "{absent} of 10,000 absent");
    }
    assert!(found >= ids.len());
    let metadata = ParquetMetaDataReader::new()
        .with_page_index_policy(PageIndexPolicy::Required)
        .parse_and_finish(&file)
        .unwrap();
    assert!(metadata.page_index().is_some());
    let last_row_group_end = metadata.row_groups().last().unwrap().columns().last().unwrap().byte_range();
    let filter = metadata.row_group(0).column(0).bloom_filter_offset().unwrap() as u64;
    assert!(filter >= last_row_group_end.0 + last_row_group_end.1, "filters stand at the end");
}

#[test]
fn text_that_is_not_utf8_is_written_with_replacement_characters() {
    let good = request(vec![span(1, vec![text("kkk", "vvv"), text("http.route", "rrr")])]);
    let mut piece = piece(&good);
    let mut otlp = piece.otlp.to_vec();
    for old in [b"kkk", b"vvv", b"rrr"] {
        let at = otlp.windows(3).position(|bytes| bytes == old).unwrap();
        otlp[at + 1] = 0xff;
    }
    piece.otlp = Bytes::from(otlp);
    let key = PieceKey { trace_id: TraceId([1; 16]), position: Position::new(1, 0), len: 0 };
    let row = &rows(&encoded(vec![key], vec![piece]).0)[0];
    assert_eq!(string(&row["http_route"]), "r\u{fffd}r");
    let Field::MapInternal(map) = &row["attributes"] else { panic!("no map") };
    assert_eq!(map.entries(), [(Field::Str("k\u{fffd}k".into()), Field::Str("v\u{fffd}v".into()))]);
}

#[test]
fn a_row_group_of_large_spans_ends_before_its_rows_do() {
    let large = "x".repeat(8 << 20);
    let pieces: Vec<_> = (1..=20u8)
        .map(|n| {
            piece(&request(vec![Span { trace_id: vec![n; 16], ..span(n, vec![text("large", &large)]) }]))
        })
        .collect();
    let (file, summary) = file(pieces);
    assert_eq!(summary.rows, 20);
    let reader = SerializedFileReader::new(file).unwrap();
    assert!(reader.metadata().row_groups().iter().all(|group| group.num_rows() <= 9));
}

#[test]
fn pieces_of_one_trace_are_sorted_together_up_to_a_bound() {
    let large = "x".repeat(6 << 20);
    let pieces = [5u8, 1, 4, 2].map(|n| piece(&request(vec![span(n, vec![text("large", &large)])])));
    let (file, _) = file(pieces.to_vec());
    let order: Vec<u8> = rows(&file).iter().map(|row| bytes(&row["span_id"])[0]).collect();
    assert_eq!(order, [1, 5, 2, 4], "two pieces fit the bound, sorted; then the next two");
}

#[test]
fn many_small_spans_count_by_what_they_take_when_they_are_read() {
    // Less than 2 MiB each on the wire.
    let pieces = [3u8, 1, 2].map(|n| piece(&request(vec![span(n, vec![]); 25_000])));
    let (file, _) = file(pieces.to_vec());
    let mut order: Vec<u8> = rows(&file).iter().map(|row| bytes(&row["span_id"])[0]).collect();
    order.dedup();
    assert_eq!(order, [1, 3, 2], "two pieces fit the bound, sorted; then the next");
}

#[test]
fn nothing_makes_a_file_without_rows() {
    let (file, summary) = file(vec![]);
    assert_eq!((summary.rows, rows(&file).len()), (0, 0));
}

#[test]
fn a_file_on_disk_is_made_again_over_what_an_attempt_left() {
    use crate::log::{Disk, Open, Storage};
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("encoding.parquet");
    std::fs::write(&path, vec![1; 1 << 20]).unwrap();
    let keys = vec![PieceKey { trace_id: TraceId([1; 16]), position: Position::new(1, 0), len: 0 }];
    let pieces = Memory(vec![piece(&request(vec![span(1, vec![])]))]);
    let (_, summary) = encode_to(&Disk, &path, &pieces, keys.clone(), &SEGMENT).unwrap();
    let written = Bytes::from(std::fs::read(&path).unwrap());
    assert_eq!(summary.bytes, written.len() as u64);
    assert_eq!(written, encoded(keys, pieces.0).0);
    assert_eq!(Disk.open(&path, Open::Read).unwrap().len().unwrap(), summary.bytes);
}
