//! A field of one span, to tell units apart by.

use std::fmt;
use std::hash::{Hash, Hasher};

use super::ast::{Expr, Node, Pipeline, SetExpr, Stage};
use super::field::{Field, Reach};
use super::parser;
use super::predicate::Fields;
use super::source::OfSpan;
use super::table::SpanTable;
use super::value::Value;
use crate::otlp::ValueView;
use crate::sampler::unit::Unit;

/// An attribute or an intrinsic of one span, spelled as in a condition.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct SpanField {
    text: Box<str>,
    field: Field,
}

impl fmt::Display for SpanField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for SpanField {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let expected = "expected a field of one span such as resource.service.name or name";
        let pipeline = parser::parse(&format!("{{ {text} }}"));
        let pipeline = pipeline.map_err(|error| format!("{}; {expected}", error.message))?;
        match only_field(pipeline) {
            Some(field) if matches!(field.reach(), Reach::Scan | Reach::Bytes) => {
                Ok(Self { text: text.trim().into(), field })
            }
            Some(_) => Err(format!("found `{text}`, which is of a trace; {expected}")),
            None => Err(format!("found `{text}`, {expected}")),
        }
    }
}

/// The field of `{ field }`.
fn only_field(pipeline: Pipeline) -> Option<Field> {
    let [Stage::Set(set)]: [Stage; 1] = pipeline.stages.try_into().ok()? else { return None };
    match set.expr {
        SetExpr::Spans(Node { expr: Expr::Field(field), .. }) => Some(field),
        _ => None,
    }
}

impl SpanField {
    /// Feeds what the unit's root has there; what is absent is a key like any other.
    pub(crate) fn feed(&self, unit: &Unit<'_>, hasher: &mut impl Hasher) {
        if let Some(root) = unit.spans.root() {
            let table = SpanTable::of_one(root);
            OfSpan { unit, table: &table, number: 0 }.any(&self.field, &mut |value| {
                feed(value, hasher);
                false
            });
        }
        // Between this field and the next.
        hasher.write_u8(u8::MAX);
    }
}

fn feed(value: &Value<'_>, hasher: &mut impl Hasher) {
    match value {
        Value::Bool(value) => (0u8, value).hash(hasher),
        Value::Int(value) => (1u8, value).hash(hasher),
        Value::Float(value) => (2u8, value.to_bits()).hash(hasher),
        Value::Duration(value) => (3u8, value).hash(hasher),
        Value::Text(value) => (4u8, value).hash(hasher),
        Value::Status(value) => (5u8, value).hash(hasher),
        Value::Kind(value) => (6u8, value).hash(hasher),
        Value::Array(elements) => {
            hasher.write_u8(7);
            elements.iter().filter(|element| !matches!(element, ValueView::Array(_))).for_each(|element| {
                if let Some(element) = Value::read(element) {
                    feed(&element, hasher);
                }
            });
        }
        Value::Opaque => hasher.write_u8(8),
    }
}
