//! Whole rows of Parquet as JSON, as the parquet crate and as DuckDB read them, and the spans they stand for.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use serde_json::Value as Json;

use super::{FullSpan, files_below, hex};

/// Rows by trace and span ID.
pub type Table = BTreeMap<(String, String), Json>;

/// Every row below a folder as the parquet crate reads it. A span that stands there twice is an error.
pub fn read_with_parquet_crate(folder: &Path) -> Table {
    let mut rows = Vec::new();
    for path in files_below(folder).iter().filter(|path| path.extension().is_some_and(|e| e == "parquet")) {
        let reader = SerializedFileReader::new(File::open(path).unwrap()).unwrap();
        rows.extend(reader.get_row_iter(None).unwrap().map(|row| json(&Field::Group(row.unwrap()))));
    }
    table(rows)
}

/// The same, as DuckDB reads it.
pub fn read_with_duckdb(folder: &Path) -> Table {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/sdk/python/bin/python");
    assert!(python.exists(), "{} is not there: run tests/install", python.display());
    let script = root.join("tests/integration/read_parquet.py");
    let output = Command::new(python).arg(script).arg(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    table(text.lines().map(|line| serde_json::from_str(line).unwrap()))
}

fn table(rows: impl IntoIterator<Item = Json>) -> Table {
    let mut table = Table::new();
    for row in rows {
        let text = |name: &str| row[name].as_str().unwrap().to_owned();
        let key = (text("trace_id"), text("span_id"));
        assert!(table.insert(key.clone(), row).is_none(), "twice in Parquet: {key:?}");
    }
    table
}

fn json(field: &Field) -> Json {
    match field {
        Field::Null => Json::Null,
        Field::Bool(value) => Json::from(*value),
        Field::Int(value) => Json::from(*value),
        Field::Long(value) | Field::TimestampMicros(value) => Json::from(*value),
        Field::Double(value) => Json::from(*value),
        Field::Str(value) => Json::from(value.as_str()),
        Field::Group(row) => row.get_column_iter().map(|(name, field)| (name.clone(), json(field))).collect(),
        Field::ListInternal(list) => list.elements().iter().map(json).collect(),
        Field::MapInternal(map) => {
            let text = |key: &Field| json(key).as_str().unwrap().to_owned();
            map.entries().iter().map(|(key, value)| (text(key), json(value))).collect()
        }
        other => panic!("a column of an unexpected kind: {other:?}"),
    }
}

/// Columns that are attributes of the span, or of the resource, and the names they may come from.
const PROMOTED_OF_SPAN: [(&str, &[&str]); 11] = [
    ("http_request_method", &["http.request.method", "http.method"]),
    ("http_response_status_code", &["http.response.status_code", "http.status_code"]),
    ("http_route", &["http.route"]),
    ("url_path", &["url.path"]),
    ("server_address", &["server.address", "net.peer.name", "net.host.name"]),
    ("rpc_service", &["rpc.service"]),
    ("rpc_method", &["rpc.method"]),
    ("db_system_name", &["db.system.name", "db.system"]),
    ("messaging_system", &["messaging.system"]),
    ("messaging_destination_name", &["messaging.destination.name", "messaging.destination"]),
    ("error_type", &["error.type"]),
];
const PROMOTED_OF_RESOURCE: [(&str, &[&str]); 6] = [
    ("service_name", &["service.name"]),
    ("service_namespace", &["service.namespace"]),
    ("service_version", &["service.version"]),
    ("deployment_environment_name", &["deployment.environment.name", "deployment.environment"]),
    ("k8s_namespace_name", &["k8s.namespace.name"]),
    ("k8s_pod_name", &["k8s.pod.name"]),
];

type Attributes = BTreeMap<String, Option<Value>>;

/// Asserts that a row says all that was sent of a span.
pub fn assert_row_is(row: &Json, sent: &FullSpan) {
    let FullSpan { resource, resource_schema_url, scope, scope_schema_url, span } = sent;
    let text = |name: &str| row[name].as_str().unwrap_or_else(|| panic!("{name} in {row}"));
    let integer = |name: &str| row[name].as_i64().unwrap_or_else(|| panic!("{name} in {row}"));
    assert_eq!(hex(text("trace_id")), span.trace_id);
    assert_eq!(hex(text("span_id")), span.span_id);
    assert_eq!(row["parent_span_id"].as_str().map(hex).unwrap_or_default(), span.parent_span_id);
    assert_eq!(text("name"), span.name);
    assert_eq!(text("kind"), span.kind().as_str_name().trim_start_matches("SPAN_KIND_"));
    let status = span.status.clone().unwrap_or_default();
    assert_eq!(text("status_code"), status.code().as_str_name().trim_start_matches("STATUS_CODE_"));
    assert_eq!(text("status_message"), status.message);
    assert_eq!(text("trace_state"), span.trace_state);
    assert_eq!(integer("start_time_unix_nano"), span.start_time_unix_nano as i64);
    assert_eq!(integer("end_time_unix_nano"), span.end_time_unix_nano as i64);
    assert_eq!(integer("start_time"), (span.start_time_unix_nano / 1_000) as i64);
    assert_eq!(integer("flags"), i64::from(span.flags));
    assert_eq!(integer("dropped_attributes_count"), i64::from(span.dropped_attributes_count));
    assert_eq!(integer("dropped_events_count"), i64::from(span.dropped_events_count));
    assert_eq!(integer("dropped_links_count"), i64::from(span.dropped_links_count));
    assert_same(stored(row, "attributes", "attributes_types", &PROMOTED_OF_SPAN), &span.attributes);
    let of_resource = stored(row, "resource_attributes", "resource_attributes_types", &PROMOTED_OF_RESOURCE);
    assert_same(of_resource, &resource.attributes);
    assert_eq!(text("resource_schema_url"), resource_schema_url);
    assert_eq!((text("scope_name"), text("scope_version")), (scope.name.as_str(), scope.version.as_str()));
    assert_same(stored(row, "scope_attributes", "scope_attributes_types", &[]), &scope.attributes);
    assert_eq!(text("scope_schema_url"), scope_schema_url);
    assert_events(row, sent);
    assert_links(row, sent);
}

fn assert_events(row: &Json, sent: &FullSpan) {
    let events = row["events"].as_array().unwrap();
    assert_eq!(events.len(), sent.span.events.len());
    for (stored_event, event) in events.iter().zip(&sent.span.events) {
        assert_eq!(stored_event["name"], event.name);
        assert_eq!(stored_event["time_unix_nano"], event.time_unix_nano as i64);
        assert_eq!(stored_event["dropped_attributes_count"], event.dropped_attributes_count);
        assert_same(stored(stored_event, "attributes", "attribute_types", &[]), &event.attributes);
    }
}

fn assert_links(row: &Json, sent: &FullSpan) {
    let links = row["links"].as_array().unwrap();
    assert_eq!(links.len(), sent.span.links.len());
    for (stored_link, link) in links.iter().zip(&sent.span.links) {
        assert_eq!(hex(stored_link["trace_id"].as_str().unwrap()), link.trace_id);
        assert_eq!(hex(stored_link["span_id"].as_str().unwrap()), link.span_id);
        assert_eq!(stored_link["trace_state"], link.trace_state);
        assert_eq!(stored_link["flags"], link.flags);
        assert_eq!(stored_link["dropped_attributes_count"], link.dropped_attributes_count);
        assert_same(stored(stored_link, "attributes", "attribute_types", &[]), &link.attributes);
    }
}

/// The attributes that a map and the columns promoted from it stand for.
fn stored(row: &Json, values: &str, kinds: &str, promoted: &[(&str, &[&str])]) -> Attributes {
    let (values, kinds) = (row[values].as_object().unwrap(), row[kinds].as_object().unwrap());
    let mut attributes = Attributes::new();
    for (key, value) in values {
        let kind = kinds.get(key).and_then(Json::as_str);
        attributes.insert(key.clone(), value.as_str().map(|text| value_of(kind, text)));
    }
    for (column, names) in promoted {
        if names.iter().any(|name| values.contains_key(*name)) {
            continue;
        }
        let value = match &row[*column] {
            Json::String(text) => Value::StringValue(text.clone()),
            Json::Number(number) => Value::IntValue(number.as_i64().unwrap()),
            _ => continue,
        };
        attributes.insert(names[0].to_owned(), Some(value));
    }
    attributes
}

fn value_of(kind: Option<&str>, text: &str) -> Value {
    match kind {
        None => Value::StringValue(text.to_owned()),
        Some("i") => Value::IntValue(text.parse().unwrap()),
        Some("d") => Value::DoubleValue(text.parse().unwrap()),
        Some("b") => Value::BoolValue(text.parse().unwrap()),
        Some("bytes") => Value::BytesValue(STANDARD.decode(text).unwrap()),
        Some("json") => plain(&serde_json::from_str(text).unwrap()).unwrap(),
        Some("otlp") => otlp(&serde_json::from_str(text).unwrap()).unwrap(),
        Some(other) => panic!("a kind of value that nobody knows: {other}"),
    }
}

fn plain(json: &Json) -> Option<Value> {
    let any = |json: &Json| AnyValue { value: plain(json) };
    Some(match json {
        Json::Null => return None,
        Json::Bool(value) => Value::BoolValue(*value),
        Json::Number(number) => match number.as_i64() {
            Some(integer) => Value::IntValue(integer),
            None => Value::DoubleValue(number.as_f64().unwrap()),
        },
        Json::String(text) => Value::StringValue(text.clone()),
        Json::Array(values) => Value::ArrayValue(ArrayValue { values: values.iter().map(any).collect() }),
        Json::Object(pairs) => {
            let pair = |(key, value): (&String, &Json)| KeyValue {
                key: key.clone(),
                value: Some(any(value)),
                ..KeyValue::default()
            };
            Value::KvlistValue(KeyValueList { values: pairs.iter().map(pair).collect() })
        }
    })
}

/// An AnyValue of OTLP/JSON. opentelemetry-proto's serde does not know `NaN` and `Infinity`.
fn otlp(json: &Json) -> Option<Value> {
    let (kind, value) = json.as_object().unwrap().iter().next()?;
    let values = || value["values"].as_array().into_iter().flatten();
    let any = |json: &Json| AnyValue { value: otlp(json) };
    let text = || value.as_str().unwrap();
    Some(match kind.as_str() {
        "stringValue" => Value::StringValue(text().to_owned()),
        "boolValue" => Value::BoolValue(value.as_bool().unwrap()),
        "intValue" => Value::IntValue(text().parse().unwrap()),
        // Rust reads `Infinity` and `NaN` as protobuf writes them.
        "doubleValue" => Value::DoubleValue(value.as_f64().unwrap_or_else(|| text().parse().unwrap())),
        "bytesValue" => Value::BytesValue(STANDARD.decode(text()).unwrap()),
        "arrayValue" => Value::ArrayValue(ArrayValue { values: values().map(any).collect() }),
        "kvlistValue" => {
            let pair = |pair: &Json| KeyValue {
                key: pair["key"].as_str().unwrap().to_owned(),
                value: pair.get("value").map(any),
                ..KeyValue::default()
            };
            Value::KvlistValue(KeyValueList { values: values().map(pair).collect() })
        }
        other => panic!("no kind of AnyValue: {other}"),
    })
}

/// Of a key that was sent twice the last stands. NaN equals NaN here.
fn assert_same(stored: Attributes, sent: &[KeyValue]) {
    let value = |attribute: &KeyValue| attribute.value.clone().and_then(|any| any.value);
    let sent: Attributes = sent.iter().map(|attribute| (attribute.key.clone(), value(attribute))).collect();
    assert_eq!(format!("{stored:#?}"), format!("{sent:#?}"));
}
