//! Replaces what is not UTF-8 in strings, at any depth of a message, by U+FFFD.

use super::check::Checker;
use super::schema::{
    any_value, entity_ref, event, key_value, link, list, request, resource, resource_spans, scope,
    scope_spans, span, status,
};
use super::wire::{DEPTH_MAX, Fields, put_bytes};

/// A message that holds strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Request,
    ResourceSpans,
    Resource,
    EntityRef,
    ScopeSpans,
    Scope,
    Span,
    Status,
    Event,
    Link,
    KeyValue,
    AnyValue,
    Array,
    KeyValues,
}

enum Content {
    Text,
    Message(Kind),
    Other,
}

/// What stands in the fields under `key`.
fn content(kind: Kind, key: u32) -> Content {
    match (kind, key) {
        (Kind::ResourceSpans, resource_spans::SCHEMA_URL)
        | (Kind::ScopeSpans, scope_spans::SCHEMA_URL)
        | (Kind::EntityRef, entity_ref::SCHEMA_URL | entity_ref::TYPE)
        | (Kind::EntityRef, entity_ref::ID_KEY | entity_ref::DESCRIPTION_KEY)
        | (Kind::Scope, scope::NAME | scope::VERSION)
        | (Kind::Span, span::TRACE_STATE | span::NAME)
        | (Kind::Status, status::MESSAGE)
        | (Kind::Event, event::NAME)
        | (Kind::Link, link::TRACE_STATE)
        | (Kind::KeyValue, key_value::KEY)
        | (Kind::AnyValue, any_value::STRING) => Content::Text,
        (Kind::Request, request::RESOURCE_SPANS) => Content::Message(Kind::ResourceSpans),
        (Kind::ResourceSpans, resource_spans::RESOURCE) => Content::Message(Kind::Resource),
        (Kind::ResourceSpans, resource_spans::SCOPE_SPANS) => Content::Message(Kind::ScopeSpans),
        (Kind::Resource, resource::ENTITY_REF) => Content::Message(Kind::EntityRef),
        (Kind::ScopeSpans, scope_spans::SCOPE) => Content::Message(Kind::Scope),
        (Kind::ScopeSpans, scope_spans::SPAN) => Content::Message(Kind::Span),
        (Kind::Span, span::STATUS) => Content::Message(Kind::Status),
        (Kind::Span, span::EVENT) => Content::Message(Kind::Event),
        (Kind::Span, span::LINK) => Content::Message(Kind::Link),
        (Kind::Resource, resource::ATTRIBUTE)
        | (Kind::Scope, scope::ATTRIBUTE)
        | (Kind::Span, span::ATTRIBUTE)
        | (Kind::Event, event::ATTRIBUTE)
        | (Kind::Link, link::ATTRIBUTE)
        | (Kind::KeyValues, list::ITEM) => Content::Message(Kind::KeyValue),
        (Kind::KeyValue, key_value::VALUE) | (Kind::Array, list::ITEM) => Content::Message(Kind::AnyValue),
        (Kind::AnyValue, any_value::ARRAY) => Content::Message(Kind::Array),
        (Kind::AnyValue, any_value::KEY_VALUES) => Content::Message(Kind::KeyValues),
        _ => Content::Other,
    }
}

/// Whether a string in a message that a scan has accepted is not UTF-8. Quick where all is well.
pub(super) fn is_needed(kind: Kind, message: &[u8]) -> bool {
    let mut checker = <Checker>::default();
    if kind == Kind::Span {
        return checker.span(message).is_err() || checker.strings_replaced > 0;
    }
    let checked = Fields::new(message).try_for_each(|field| match content(kind, field.key) {
        Content::Text => {
            checker.text(field.bytes());
            Ok(())
        }
        Content::Message(Kind::Resource) => checker.resource(field.bytes()),
        Content::Message(Kind::Scope) => checker.scope(field.bytes()),
        Content::Message(_) | Content::Other => Ok(()),
    });
    checked.is_err() || checker.strings_replaced > 0
}

/// A request, with U+FFFD in place of what is not UTF-8, for those who decode it.
pub fn in_utf8(body: &[u8]) -> Vec<u8> {
    replace(Kind::Request, body)
}

/// The message, with U+FFFD in place of what is not UTF-8; else byte by byte as it was.
pub(super) fn replace(kind: Kind, message: &[u8]) -> Vec<u8> {
    replace_within(kind, message, DEPTH_MAX)
}

fn replace_within(kind: Kind, message: &[u8], room: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 64);
    let mut read = 0;
    for field in Fields::new(message) {
        read += field.raw.len();
        match content(kind, field.key) {
            Content::Text if std::str::from_utf8(field.bytes()).is_err() => {
                put_bytes(field.key, String::from_utf8_lossy(field.bytes()).as_bytes(), &mut out);
            }
            Content::Message(kind) if room > 0 => {
                let inner = replace_within(kind, field.bytes(), room - 1);
                if inner == field.bytes() {
                    out.extend_from_slice(field.raw);
                } else {
                    put_bytes(field.key, &inner, &mut out);
                }
            }
            _ => out.extend_from_slice(field.raw),
        }
    }
    out.extend_from_slice(&message[read..]);
    out
}
