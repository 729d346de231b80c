//! Reads the fields of a condition: from a unit, from what the scan found, from a span's bytes.

use std::borrow::Cow;

use super::field::{Field, Scope};
use super::key::Key;
use super::predicate::Fields;
use super::table::SpanTable;
use super::value::Value;
use crate::otlp::{KeyValueView, Own, Seen, SpanFacts, SpanView, member};
use crate::sampler::unit::{Unit, UnitSpan};
use crate::trace::SpanId;

/// The bit of W3C's trace flags that says "sampled".
const SAMPLED: u32 = 1;

type Wanted<'t> = &'t mut dyn FnMut(&Value<'_>) -> bool;

/// What is the same for all spans of a unit.
pub(crate) struct OfUnit<'u> {
    pub(crate) unit: &'u Unit<'u>,
}

impl Fields for OfUnit<'_> {
    fn any(&self, field: &Field, test: Wanted<'_>) -> bool {
        match field {
            Field::RootName => {
                self.unit.spans.root().is_some_and(|root| test(&Value::Text(root.span.name())))
            }
            Field::RootService => self.unit.spans.root().is_some_and(|root| {
                let service = last(root.resource_spans.resource().attributes(), b"service.name");
                service.is_some_and(|service| test(&service))
            }),
            Field::TraceDuration => self.unit.trace_duration().is_some_and(|long| test(&duration(long))),
            _ => false,
        }
    }
}

/// One span that a scan is at: what it found, and the bytes while they are hot.
pub(crate) struct OfFacts<'f, 's> {
    pub(crate) facts: &'f SpanFacts<'s>,
    pub(crate) seen: &'f Seen<'f, 's>,
}

impl OfFacts<'_, '_> {
    /// None: the bytes have to be read.
    fn own_attribute(&self, scope: Scope, key: &Key) -> Option<Option<Value<'_>>> {
        match (scope, self.seen.own(key.as_bytes())) {
            (Scope::Span, Own::Absent) => Some(None),
            (Scope::Span, Own::Value(value)) => Some(Value::read(value)),
            // An attribute without a value is none: the next scope may have it.
            (Scope::Any, Own::Value(value)) => Value::read(value).map(Some),
            _ => None,
        }
    }
}

impl Fields for OfFacts<'_, '_> {
    #[inline]
    fn any(&self, field: &Field, test: Wanted<'_>) -> bool {
        let facts = self.facts;
        if let Field::Attribute { scope, key } = field
            && let Some(value) = self.own_attribute(*scope, key)
        {
            return value.is_some_and(|value| test(&value));
        }
        match field {
            Field::Status => test(&Value::Status(facts.status)),
            Field::Kind => test(&Value::Kind(facts.kind)),
            Field::Name => test(&Value::Text(String::from_utf8_lossy(facts.name))),
            Field::Duration => length(facts.start, facts.end).is_some_and(|long| test(&long)),
            Field::Parent => facts.parent.is_some() && test(&Value::Opaque),
            Field::ParentId => facts.parent.is_some_and(|SpanId(id)| hexadecimal(&id, test)),
            Field::SpanId => hexadecimal(&facts.span_id.0, test),
            Field::TraceId => hexadecimal(&facts.trace_id.0, test),
            Field::Sampled => test(&Value::Bool(facts.flags & SAMPLED != 0)),
            Field::TraceState(key) => state_member(facts.trace_state, key, test),
            field => OfBytes(&UnitSpan::of(facts)).any(field, test),
        }
    }
}

/// The resource and the scope of spans, and of their own nothing.
pub(crate) struct OfScope<'f, 's> {
    pub(crate) facts: &'f SpanFacts<'s>,
}

impl Fields for OfScope<'_, '_> {
    fn any(&self, field: &Field, test: Wanted<'_>) -> bool {
        OfBytes(&UnitSpan { span: SpanView::new(&[]), ..UnitSpan::of(self.facts) }).any(field, test)
    }
}

/// One span, from its bytes, among those of its unit.
#[derive(Clone, Copy)]
pub(crate) struct OfSpan<'t> {
    pub(crate) unit: &'t Unit<'t>,
    pub(crate) table: &'t SpanTable<'t>,
    pub(crate) number: u32,
}

impl Fields for OfSpan<'_> {
    fn any(&self, field: &Field, test: Wanted<'_>) -> bool {
        match field {
            Field::RootName | Field::RootService | Field::TraceDuration => {
                OfUnit { unit: self.unit }.any(field, test)
            }
            Field::ChildCount => test(&Value::Int(self.table.family().children(self.number).into())),
            Field::ParentAttribute { scope, key } => {
                let parent = self.table.family().parent(self.number);
                parent.is_some_and(|number| self.bytes(number).attribute(*scope, key, test))
            }
            field => self.bytes(self.number).any(field, test),
        }
    }
}

impl<'t> OfSpan<'t> {
    fn bytes(&self, number: u32) -> OfBytes<'t> {
        OfBytes(&self.table.spans[number as usize])
    }
}

/// One span for itself, from its bytes.
struct OfBytes<'s>(&'s UnitSpan<'s>);

impl Fields for OfBytes<'_> {
    fn any(&self, field: &Field, test: Wanted<'_>) -> bool {
        let UnitSpan { span, scope_spans, .. } = self.0;
        match field {
            Field::Status => test(&Value::Status(span.status_code())),
            Field::Kind => test(&Value::Kind(span.kind())),
            Field::Name => test(&Value::Text(span.name())),
            Field::Duration => length(span.start(), span.end()).is_some_and(|long| test(&long)),
            Field::Parent => span.parent().is_some() && test(&Value::Opaque),
            Field::ParentId => span.parent().is_some_and(|SpanId(id)| hexadecimal(&id, test)),
            Field::SpanId => hexadecimal(&span.span_id().0, test),
            Field::TraceId => hexadecimal(&span.trace_id().0, test),
            Field::Sampled => test(&Value::Bool(span.flags() & SAMPLED != 0)),
            Field::TraceState(key) => state_member(span.trace_state_bytes(), key, test),
            Field::StatusMessage => test(&Value::Text(span.status_message())),
            Field::Attribute { scope, key } => self.attribute(*scope, key, test),
            Field::EventName => span.events().any(|event| test(&Value::Text(event.name()))),
            Field::EventTimeSinceStart => {
                let start = span.start();
                span.events().any(|event| test(&Value::Duration(difference(event.time(), start))))
            }
            Field::LinkTraceId => span.links().any(|link| hexadecimal(link.trace_id(), test)),
            Field::LinkSpanId => span.links().any(|link| hexadecimal(link.span_id(), test)),
            Field::InstrumentationName => test(&Value::Text(scope_spans.scope().name())),
            Field::InstrumentationVersion => test(&Value::Text(scope_spans.scope().version())),
            Field::RootName
            | Field::RootService
            | Field::TraceDuration
            | Field::ChildCount
            | Field::ParentAttribute { .. } => false,
        }
    }
}

impl OfBytes<'_> {
    fn attribute(&self, scope: Scope, key: &Key, test: Wanted<'_>) -> bool {
        let UnitSpan { span, resource_spans, scope_spans } = self.0;
        let within_span = matches!(scope, Scope::Span | Scope::Event | Scope::Link);
        if within_span && !key.may_be_in(span.as_bytes()) {
            return false;
        }
        let name = key.as_bytes();
        match scope {
            Scope::Span => last(span.attributes(), name).is_some_and(|value| test(&value)),
            Scope::Resource => {
                let resource = resource_spans.resource();
                resource.as_bytes().is_none_or(|message| key.may_be_in(message))
                    && last(resource.attributes(), name).is_some_and(|value| test(&value))
            }
            Scope::Event => {
                span.events().filter_map(|event| last(event.attributes(), name)).any(|value| test(&value))
            }
            Scope::Link => {
                span.links().filter_map(|link| last(link.attributes(), name)).any(|value| test(&value))
            }
            Scope::Instrumentation => {
                last(scope_spans.scope().attributes(), name).is_some_and(|value| test(&value))
            }
            Scope::Any => self.first_scope(key, test),
        }
    }

    /// The nearest scope that has the attribute speaks for it.
    fn first_scope(&self, key: &Key, test: Wanted<'_>) -> bool {
        for scope in [Scope::Span, Scope::Resource, Scope::Event, Scope::Link, Scope::Instrumentation] {
            let mut present = false;
            let found = self.attribute(scope, key, &mut |value| {
                present = true;
                test(value)
            });
            if present {
                return found;
            }
        }
        false
    }
}

/// The attribute of that key; of several the last.
fn last<'a>(attributes: impl Iterator<Item = KeyValueView<'a>>, key: &[u8]) -> Option<Value<'a>> {
    let found = attributes.filter(|attribute| attribute.key_bytes() == key).last()?;
    Value::read(found.value())
}

/// From start to end; an end before the start is no time, and without a start there is none.
fn length(start: u64, end: u64) -> Option<Value<'static>> {
    (start != 0).then(|| duration(end.saturating_sub(start)))
}

fn duration(nanos: u64) -> Value<'static> {
    Value::Duration(i64::try_from(nanos).unwrap_or(i64::MAX))
}

fn difference(time: u64, start: u64) -> i64 {
    let signed = i128::from(time) - i128::from(start);
    signed.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

fn state_member(trace_state: &[u8], key: &str, test: Wanted<'_>) -> bool {
    member(trace_state, key.as_bytes())
        .is_some_and(|value| test(&Value::Text(String::from_utf8_lossy(value))))
}

/// Shows an identifier of up to 16 bytes as lower-case digits; a longer one is none.
fn hexadecimal(id: &[u8], test: Wanted<'_>) -> bool {
    let mut digits = [0; 32];
    let Some(digits) = digits.get_mut(..id.len() * 2) else { return false };
    for (pair, byte) in digits.chunks_exact_mut(2).zip(id) {
        pair[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
        pair[1] = b"0123456789abcdef"[usize::from(byte & 0xf)];
    }
    test(&Value::Text(Cow::Borrowed(std::str::from_utf8(digits).unwrap_or_default())))
}
