//! Reads a file back into the spans that it stands for.
//!
//! The reverse of [`super::schema`]: promoted columns become attributes again where the map beside them has none of
//! their names. Rows come in the order of the file: all of a piece together.

use std::fs::File;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use parquet::errors::ParquetError;
use parquet::file::reader::SerializedFileReader;
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use serde_json::Value as Json;

use super::schema::{self, Promoted};

/// A row that is none of ours, or a file that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("cannot be read: {0}")]
    Io(#[from] std::io::Error),
    #[error("is no Parquet that can be read: {0}")]
    Parquet(#[from] ParquetError),
    #[error("the column {column} {fault}")]
    Column { column: String, fault: &'static str },
}

/// A span, all that stood above it, and what was written beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct Restored {
    pub resource: Resource,
    pub resource_schema_url: String,
    pub scope: InstrumentationScope,
    pub scope_schema_url: String,
    pub span: Span,
    /// How many spans of all traffic it stands for.
    pub weight: f64,
    /// When it was judged, Unix milliseconds.
    pub decided_ms: u64,
}

/// The spans of a file, row by row.
pub fn restore(path: &Path) -> Result<impl Iterator<Item = Result<Restored, RestoreError>>, RestoreError> {
    let reader = SerializedFileReader::new(File::open(path)?)?;
    let rows = RowIter::from_file_into(Box::new(reader));
    Ok(rows.map(|row| restored(&Columns::of(&row?))))
}

fn restored(row: &Columns<'_>) -> Result<Restored, RestoreError> {
    Ok(Restored {
        resource: Resource {
            attributes: row.attributes(
                "resource_attributes",
                "resource_attributes_types",
                schema::RESOURCE,
            )?,
            dropped_attributes_count: row.count("resource_dropped_attributes_count")?,
            ..Resource::default()
        },
        resource_schema_url: row.text("resource_schema_url")?.to_owned(),
        scope: InstrumentationScope {
            name: row.text("scope_name")?.to_owned(),
            version: row.text("scope_version")?.to_owned(),
            attributes: row.attributes("scope_attributes", "scope_attributes_types", &[])?,
            dropped_attributes_count: row.count("scope_dropped_attributes_count")?,
        },
        scope_schema_url: row.text("scope_schema_url")?.to_owned(),
        span: span(row)?,
        weight: match row.field("sampling_weight")? {
            Field::Double(weight) => *weight,
            _ => return row.wrong("sampling_weight", "is no number"),
        },
        decided_ms: (row.integer("decision_time")? / 1_000).max(0) as u64,
    })
}

fn span(row: &Columns<'_>) -> Result<Span, RestoreError> {
    Ok(Span {
        trace_id: row.id("trace_id")?,
        span_id: row.id("span_id")?,
        parent_span_id: row.id("parent_span_id")?,
        trace_state: row.text("trace_state")?.to_owned(),
        flags: row.count("flags")?,
        name: row.text("name")?.to_owned(),
        kind: row.named("kind", "SPAN_KIND_", |name| SpanKind::from_str_name(name).map(i32::from))?,
        start_time_unix_nano: row.integer("start_time_unix_nano")? as u64,
        end_time_unix_nano: row.integer("end_time_unix_nano")? as u64,
        attributes: row.attributes("attributes", "attributes_types", schema::SPAN)?,
        dropped_attributes_count: row.count("dropped_attributes_count")?,
        events: row.listed("events", |event| {
            Ok(Event {
                time_unix_nano: event.integer("time_unix_nano")? as u64,
                name: event.text("name")?.to_owned(),
                attributes: event.attributes("attributes", "attribute_types", &[])?,
                dropped_attributes_count: event.count("dropped_attributes_count")?,
            })
        })?,
        dropped_events_count: row.count("dropped_events_count")?,
        links: row.listed("links", |link| {
            Ok(Link {
                trace_id: link.id("trace_id")?,
                span_id: link.id("span_id")?,
                trace_state: link.text("trace_state")?.to_owned(),
                attributes: link.attributes("attributes", "attribute_types", &[])?,
                dropped_attributes_count: link.count("dropped_attributes_count")?,
                flags: link.count("flags")?,
            })
        })?,
        dropped_links_count: row.count("dropped_links_count")?,
        status: Some(Status {
            message: row.text("status_message")?.to_owned(),
            code: row.named("status_code", "STATUS_CODE_", |name| {
                StatusCode::from_str_name(name).map(i32::from)
            })?,
        }),
    })
}

/// The fields of a row or of an element of a list, by name.
struct Columns<'a>(Vec<(&'a str, &'a Field)>);

impl<'a> Columns<'a> {
    fn of(row: &'a Row) -> Self {
        Self(row.get_column_iter().map(|(name, field)| (name.as_str(), field)).collect())
    }

    fn wrong<T>(&self, column: &str, fault: &'static str) -> Result<T, RestoreError> {
        Err(RestoreError::Column { column: column.to_owned(), fault })
    }

    fn get(&self, column: &str) -> Option<&'a Field> {
        self.0.iter().find(|(name, _)| *name == column).map(|(_, field)| *field)
    }

    fn field(&self, column: &str) -> Result<&'a Field, RestoreError> {
        match self.get(column) {
            Some(field) => Ok(field),
            None => self.wrong(column, "is missing: this was not written by Tailwater"),
        }
    }

    /// Empty if there is none.
    fn text(&self, column: &str) -> Result<&'a str, RestoreError> {
        match self.field(column)? {
            Field::Str(text) => Ok(text),
            Field::Null => Ok(""),
            _ => self.wrong(column, "is no text"),
        }
    }

    fn integer(&self, column: &str) -> Result<i64, RestoreError> {
        match self.field(column)? {
            Field::Long(value) | Field::TimestampMicros(value) => Ok(*value),
            Field::Int(value) => Ok(i64::from(*value)),
            _ => self.wrong(column, "is no integer"),
        }
    }

    /// An unsigned number in a signed column of the same width.
    fn count(&self, column: &str) -> Result<u32, RestoreError> {
        self.integer(column).map(|value| value as u32)
    }

    fn id(&self, column: &str) -> Result<Vec<u8>, RestoreError> {
        let text = self.text(column)?;
        let byte = |at| text.get(at..at + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(byte).collect();
        bytes.map_or_else(|| self.wrong(column, "is no identifier"), Ok)
    }

    /// The name of a constant without its prefix, or its number.
    fn named(
        &self,
        column: &str,
        prefix: &str,
        known: impl Fn(&str) -> Option<i32>,
    ) -> Result<i32, RestoreError> {
        let text = self.text(column)?;
        let number = known(&format!("{prefix}{text}")).or_else(|| text.parse().ok());
        number.map_or_else(|| self.wrong(column, "is no known name"), Ok)
    }

    fn listed<T>(
        &self,
        column: &str,
        element: impl Fn(&Columns<'_>) -> Result<T, RestoreError>,
    ) -> Result<Vec<T>, RestoreError> {
        let Field::ListInternal(list) = self.field(column)? else {
            return self.wrong(column, "is no list");
        };
        let group = |field: &Field| match field {
            Field::Group(row) => element(&Columns::of(row)),
            _ => self.wrong(column, "is no list of groups"),
        };
        list.elements().iter().map(group).collect()
    }

    fn map(&self, column: &str) -> Result<Vec<(&'a str, Option<&'a str>)>, RestoreError> {
        let Field::MapInternal(map) = self.field(column)? else { return self.wrong(column, "is no map") };
        let pair = |(key, value): &'a (Field, Field)| match (key, value) {
            (Field::Str(key), Field::Str(value)) => Ok((key.as_str(), Some(value.as_str()))),
            (Field::Str(key), Field::Null) => Ok((key.as_str(), None)),
            _ => self.wrong(column, "is no map of texts"),
        };
        map.entries().iter().map(pair).collect()
    }

    fn attributes(
        &self,
        values: &str,
        kinds: &str,
        promoted: &[Promoted],
    ) -> Result<Vec<KeyValue>, RestoreError> {
        let (stored, kinds) = (self.map(values)?, self.map(kinds)?);
        let mut attributes = Vec::with_capacity(stored.len() + promoted.len());
        for (key, text) in &stored {
            let kind = kinds.iter().find(|(name, _)| name == key).and_then(|(_, kind)| *kind);
            let value = match text {
                Some(text) => match value(kind, text) {
                    Some(value) => Some(value),
                    None => return self.wrong(values, "has a value that cannot be read"),
                },
                None => None,
            };
            attributes.push(attribute(key, value));
        }
        for column in promoted {
            let in_map = |name: &&str| stored.iter().any(|(key, _)| key == name);
            if column.old_names.iter().any(&in_map) || in_map(&column.name) {
                continue;
            }
            match self.get(column.column) {
                Some(Field::Str(text)) => {
                    attributes.push(attribute(column.name, Some(Value::StringValue(text.clone()))));
                }
                Some(Field::Int(number)) => {
                    attributes.push(attribute(column.name, Some(Value::IntValue(i64::from(*number)))));
                }
                _ => {}
            }
        }
        Ok(attributes)
    }
}

fn attribute(key: &str, value: Option<Value>) -> KeyValue {
    KeyValue { key: key.to_owned(), value: value.map(any), ..KeyValue::default() }
}

fn any(value: Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

/// By the kinds of the module `value`.
fn value(kind: Option<&str>, text: &str) -> Option<Value> {
    Some(match kind {
        None => Value::StringValue(text.to_owned()),
        Some("i") => Value::IntValue(text.parse().ok()?),
        Some("d") => Value::DoubleValue(text.parse().ok()?),
        Some("b") => Value::BoolValue(text.parse().ok()?),
        Some("bytes") => Value::BytesValue(STANDARD.decode(text).ok()?),
        Some("json") => plain(&serde_json::from_str(text).ok()?)?,
        Some("otlp") => otlp(&serde_json::from_str(text).ok()?)?,
        Some(_) => return None,
    })
}

/// A number without point and exponent is an integer. None: an empty value.
fn plain(json: &Json) -> Option<Value> {
    let element = |json: &Json| AnyValue { value: plain(json) };
    Some(match json {
        Json::Null => return None,
        Json::Bool(value) => Value::BoolValue(*value),
        Json::Number(number) => match number.as_i64() {
            Some(integer) => Value::IntValue(integer),
            None => Value::DoubleValue(number.as_f64()?),
        },
        Json::String(text) => Value::StringValue(text.clone()),
        Json::Array(values) => Value::ArrayValue(ArrayValue { values: values.iter().map(element).collect() }),
        Json::Object(pairs) => {
            let pair = |(key, value): (&String, &Json)| attribute(key, plain(value));
            Value::KvlistValue(KeyValueList { values: pairs.iter().map(pair).collect() })
        }
    })
}

/// An AnyValue of OTLP/JSON.
fn otlp(json: &Json) -> Option<Value> {
    let (kind, value) = json.as_object()?.iter().next()?;
    let values = || value["values"].as_array().into_iter().flatten();
    let text = || value.as_str();
    Some(match kind.as_str() {
        "stringValue" => Value::StringValue(text()?.to_owned()),
        "boolValue" => Value::BoolValue(value.as_bool()?),
        "intValue" => Value::IntValue(text()?.parse().ok()?),
        "doubleValue" => Value::DoubleValue(value.as_f64().or_else(|| text()?.parse().ok())?),
        "bytesValue" => Value::BytesValue(STANDARD.decode(text()?).ok()?),
        "arrayValue" => {
            let element = |json: &Json| AnyValue { value: otlp(json) };
            Value::ArrayValue(ArrayValue { values: values().map(element).collect() })
        }
        "kvlistValue" => {
            let pair = |pair: &Json| Some(attribute(pair["key"].as_str()?, pair.get("value").and_then(otlp)));
            Value::KvlistValue(KeyValueList { values: values().filter_map(pair).collect() })
        }
        _ => return None,
    })
}
