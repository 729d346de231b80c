//! One number of many spans, and the key that puts a span into a group.
//!
//! As in Tempo: what is absent or no number is left out, and of nothing there is no sum, average or extreme. Of several
//! values of one span, as events and lists have them, each counts.

use super::ast::Aggregate;
use super::predicate::{Fields, Term};
use super::value::{Comparison, Value, compare};
use crate::otlp::ArrayView;

/// Gathers the values of an aggregate.
pub(super) struct Gathered {
    aggregate: Aggregate,
    count: u64,
    whole: i128,
    fraction: f64,
    has_float: bool,
    all_durations: bool,
    extreme: Option<Value<'static>>,
}

impl Gathered {
    pub(super) fn new(aggregate: Aggregate) -> Self {
        Self {
            aggregate,
            count: 0,
            whole: 0,
            fraction: 0.0,
            has_float: false,
            all_durations: true,
            extreme: None,
        }
    }

    /// What `term` is of one more span.
    pub(super) fn add(&mut self, term: &Term, from: &dyn Fields) {
        term.any(from, &mut |value| {
            match value {
                Value::Array(elements) => elements_of(elements).for_each(|value| self.add_value(value)),
                value => value.to_number().into_iter().for_each(|value| self.add_value(value)),
            }
            false
        });
    }

    fn add_value(&mut self, value: Value<'static>) {
        match &value {
            Value::Int(value) => {
                self.all_durations = false;
                self.whole += i128::from(*value);
            }
            Value::Duration(value) => self.whole += i128::from(*value),
            Value::Float(value) => {
                (self.has_float, self.all_durations) = (true, false);
                self.fraction += value;
            }
            _ => return,
        }
        self.count += 1;
        let beyond = match self.aggregate {
            Aggregate::Min => Comparison::Less,
            _ => Comparison::Greater,
        };
        if self.extreme.as_ref().is_none_or(|extreme| compare(beyond, &value, extreme)) {
            self.extreme = Some(value);
        }
    }

    /// None: there was no number.
    pub(super) fn result(self) -> Option<Value<'static>> {
        if self.count == 0 {
            return None;
        }
        let sum = self.whole as f64 + self.fraction;
        match self.aggregate {
            Aggregate::Min | Aggregate::Max => self.extreme,
            Aggregate::Avg if self.all_durations => whole(self.whole / i128::from(self.count), true),
            Aggregate::Avg => Some(Value::Float(sum / self.count as f64)),
            Aggregate::Sum if self.has_float => Some(Value::Float(sum)),
            Aggregate::Sum => whole(self.whole, self.all_durations).or(Some(Value::Float(sum))),
        }
    }
}

fn whole(sum: i128, duration: bool) -> Option<Value<'static>> {
    i64::try_from(sum).ok().map(if duration { Value::Duration } else { Value::Int })
}

fn elements_of(elements: &ArrayView<'_>) -> impl Iterator<Item = Value<'static>> {
    elements.iter().filter_map(|element| Value::read(element)?.to_number())
}

/// The values of a term as bytes that are the same only for the same values of the same types.
pub(super) fn group_key(term: &Term, from: &dyn Fields) -> Vec<u8> {
    let mut key = Vec::new();
    term.any(from, &mut |value| {
        put(value, &mut key);
        false
    });
    key
}

fn put(value: &Value<'_>, key: &mut Vec<u8>) {
    let (tag, bits) = match value {
        Value::Bool(value) => (1, i64::from(*value)),
        Value::Int(value) => (2, *value),
        Value::Float(value) => (3, value.to_bits() as i64),
        Value::Duration(value) => (4, *value),
        Value::Text(text) => (5, text.len() as i64),
        Value::Status(value) => (6, i64::from(*value)),
        Value::Kind(value) => (7, i64::from(*value)),
        Value::Array(elements) => (8, elements.iter().count() as i64),
        Value::Opaque => (9, 0),
    };
    key.push(tag);
    key.extend_from_slice(&bits.to_le_bytes());
    match value {
        Value::Text(text) => key.extend_from_slice(text.as_bytes()),
        // Deeper lists are read as one and the same: an array within an array is opaque.
        Value::Array(elements) => {
            for element in elements.iter() {
                match Value::read(element) {
                    Some(Value::Array(_)) | None => put(&Value::Opaque, key),
                    Some(element) => put(&element, key),
                }
            }
        }
        _ => {}
    }
}
