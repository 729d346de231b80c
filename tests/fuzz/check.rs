//! What has to hold of any bytes: scan and views say what prost says, and what leaves can be decoded.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

use super::otlp::{
    KeyValueView, Outline, PieceSpan, ResourceSpansView, ScopeSpansView, SpanFacts, SpanFault, SpanView,
    ThEdit, ValueView, locate, piece, request, scan,
};

/// Panics if the bytes are not read as they should be; says what they were.
pub fn check(body: &[u8]) -> Outcome {
    read_all(body);
    let mut facts = Vec::new();
    let scanned = scan(body, |span| facts.push(*span));
    match (ExportTraceServiceRequest::decode(body), scanned) {
        (Ok(decoded), Ok(scanned)) => {
            let accepted = compare(body, &decoded, &facts);
            assert_eq!(scanned.spans as usize, accepted);
            assert_eq!(scanned.strings_replaced, 0, "prost found every string to be UTF-8");
            let all: usize = places(decoded.clone()).count();
            assert_eq!(scanned.rejected as usize, all - accepted);
            assert_eq!(scanned.first_rejection.is_some(), scanned.rejected > 0);
            assert!(
                !matches!(scanned.first_rejection, Some(SpanFault::Broken(_))),
                "prost found no broken span"
            );
            let kept = places(decoded).filter(|place| is_identified(&place.scope_spans[0].spans[0]));
            assert_eq!(sorted(places(leaving(body, &facts, true))), sorted(kept), "what leaves is what came");
            Outcome::Accepted
        }
        (Ok(_), Err(malformed)) => panic!("prost accepts what the scan refuses: {malformed}"),
        (Err(error), Ok(scanned)) => {
            assert!(scanned.rejected > 0 || scanned.strings_replaced > 0, "only prost refuses: {error}");
            let utf8 = scanned.strings_replaced == 0;
            assert_eq!(places(leaving(body, &facts, utf8)).count(), facts.len(), "what is left of it leaves");
            Outcome::Mended
        }
        (Err(_), Err(malformed)) => {
            assert!(malformed.offset <= body.len());
            Outcome::Refused
        }
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// By prost too, but for wrong identifiers.
    Accepted,
    /// Prost refuses it; without its bad spans, and with U+FFFD in its strings, it is well.
    Mended,
    Refused,
}

/// The request that leaves with these spans. It must be one that anyone can decode.
fn leaving(body: &[u8], facts: &[SpanFacts<'_>], utf8: bool) -> ExportTraceServiceRequest {
    let edit = ThEdit::Keep;
    let words = Outline::note(body);
    let outline = Outline::new(&words);
    let spans: Vec<_> = facts
        .iter()
        .map(|span| PieceSpan { body, at: span.at, len: span.len, edit, utf8, outline })
        .collect();
    let mut out = Vec::new();
    piece(&spans, &mut out);
    ExportTraceServiceRequest::decode(out.as_slice()).expect("what leaves can be decoded")
}

/// Each span with its resource and scope.
fn places(request: ExportTraceServiceRequest) -> impl Iterator<Item = ResourceSpans> {
    request.resource_spans.into_iter().flat_map(|mut resource| {
        let scopes = std::mem::take(&mut resource.scope_spans);
        scopes.into_iter().flat_map(move |mut scope| {
            let resource = resource.clone();
            let spans = std::mem::take(&mut scope.spans);
            spans.into_iter().map(move |span| {
                let scope_spans = vec![ScopeSpans { spans: vec![span], ..scope.clone() }];
                ResourceSpans { scope_spans, ..resource.clone() }
            })
        })
    })
}

/// In an order that does not depend on grouping; encoded, because NaN equals nothing.
fn sorted(places: impl Iterator<Item = ResourceSpans>) -> Vec<Vec<u8>> {
    let mut encoded: Vec<_> = places.map(|place| place.encode_to_vec()).collect();
    encoded.sort();
    encoded
}

fn is_identified(span: &Span) -> bool {
    let valid = |id: &[u8], len| id.len() == len && id.iter().any(|&byte| byte != 0);
    valid(&span.trace_id, 16) && valid(&span.span_id, 8) && matches!(span.parent_span_id.len(), 0 | 8)
}

/// Compares what a scan and the views say with what prost says; returns how many spans can be stored.
fn compare(body: &[u8], decoded: &ExportTraceServiceRequest, facts: &[SpanFacts<'_>]) -> usize {
    let mut facts = facts.iter();
    let mut accepted = 0;
    let resources: Vec<_> = request(body).collect();
    assert_eq!(resources.len(), decoded.resource_spans.len());
    for (view, resource) in resources.iter().zip(&decoded.resource_spans) {
        compare_resource(view, resource);
        let scopes: Vec<_> = view.scope_spans().collect();
        assert_eq!(scopes.len(), resource.scope_spans.len());
        for (view, scope) in scopes.iter().zip(&resource.scope_spans) {
            compare_scope(view, scope);
            let spans: Vec<_> = view.spans().collect();
            assert_eq!(spans.len(), scope.spans.len());
            for (view, span) in spans.iter().zip(&scope.spans) {
                compare_span(view, span);
                if is_identified(span) {
                    let facts = facts.next().expect("a span that can be stored is visited");
                    compare_facts(facts, view, span);
                    let located = locate(body, facts.at).expect("a visited span is found again");
                    compare_resource(&located.resource_spans, resource);
                    compare_scope(&located.scope_spans, scope);
                    accepted += 1;
                }
            }
        }
    }
    assert!(facts.next().is_none(), "no span is visited that prost does not find");
    accepted
}

fn compare_resource(view: &ResourceSpansView<'_>, decoded: &ResourceSpans) {
    let resource = decoded.resource.clone().unwrap_or_default();
    compare_attributes(view.resource().attributes(), &resource.attributes);
    assert_eq!(view.resource().dropped_attributes(), resource.dropped_attributes_count);
    assert_eq!(view.schema_url(), decoded.schema_url);
}

fn compare_scope(view: &ScopeSpansView<'_>, decoded: &ScopeSpans) {
    let scope = decoded.scope.clone().unwrap_or_default();
    assert_eq!(view.scope().name(), scope.name);
    assert_eq!(view.scope().version(), scope.version);
    compare_attributes(view.scope().attributes(), &scope.attributes);
    assert_eq!(view.scope().dropped_attributes(), scope.dropped_attributes_count);
    assert_eq!(view.schema_url(), decoded.schema_url);
}

fn compare_facts(facts: &SpanFacts<'_>, view: &SpanView<'_>, span: &Span) {
    assert_eq!(facts.trace_id.0, *span.trace_id);
    assert_eq!(facts.span_id.0, *span.span_id);
    let parent = facts.parent.map_or([0; 8], |parent| parent.0);
    assert!(parent == *span.parent_span_id || parent == [0; 8] && facts.parent.is_none());
    assert_eq!(facts.parent, view.parent());
    assert_eq!((facts.start, facts.end), (span.start_time_unix_nano, span.end_time_unix_nano));
    assert_eq!((facts.kind, facts.flags), (span.kind, span.flags));
    assert_eq!(facts.status, span.status.as_ref().map_or(0, |status| status.code));
    assert_eq!(facts.name, span.name.as_bytes());
    assert_eq!(facts.trace_state, span.trace_state.as_bytes());
    assert_eq!(facts.len as usize, view.as_bytes().len());
    assert_eq!((view.trace_id(), view.span_id()), (facts.trace_id, facts.span_id));
}

fn compare_span(view: &SpanView<'_>, span: &Span) {
    assert_eq!(view.trace_state(), span.trace_state);
    assert_eq!(view.name(), span.name);
    assert_eq!((view.kind(), view.flags()), (span.kind, span.flags));
    assert_eq!((view.start(), view.end()), (span.start_time_unix_nano, span.end_time_unix_nano));
    let status = span.status.clone().unwrap_or_default();
    assert_eq!(view.status_code(), status.code);
    assert_eq!(view.status_message(), status.message);
    assert_eq!(view.dropped_attributes(), span.dropped_attributes_count);
    assert_eq!(view.dropped_events(), span.dropped_events_count);
    assert_eq!(view.dropped_links(), span.dropped_links_count);
    compare_attributes(view.attributes(), &span.attributes);
    assert_eq!(view.events().count(), span.events.len());
    for (view, event) in view.events().zip(&span.events) {
        assert_eq!(view.time(), event.time_unix_nano);
        assert_eq!(view.name(), event.name);
        assert_eq!(view.dropped_attributes(), event.dropped_attributes_count);
        compare_attributes(view.attributes(), &event.attributes);
    }
    assert_eq!(view.links().count(), span.links.len());
    for (view, link) in view.links().zip(&span.links) {
        assert_eq!((view.trace_id(), view.span_id()), (&*link.trace_id, &*link.span_id));
        assert_eq!(view.trace_state(), link.trace_state);
        assert_eq!(view.flags(), link.flags);
        assert_eq!(view.dropped_attributes(), link.dropped_attributes_count);
        compare_attributes(view.attributes(), &link.attributes);
    }
}

fn compare_attributes<'a>(views: impl Iterator<Item = KeyValueView<'a>>, decoded: &[KeyValue]) {
    let views: Vec<_> = views.collect();
    assert_eq!(views.len(), decoded.len());
    for (view, pair) in views.iter().zip(decoded) {
        assert_eq!(view.key(), pair.key);
        compare_value(view.value(), pair.value.as_ref());
    }
}

fn compare_value(view: ValueView<'_>, decoded: Option<&AnyValue>) {
    match (view, decoded.and_then(|any| any.value.as_ref())) {
        (ValueView::Empty, None | Some(Value::StringValueStrindex(_))) => {}
        (ValueView::String(text), Some(Value::StringValue(expected))) => {
            assert_eq!(text, expected.as_bytes())
        }
        (ValueView::Bool(value), Some(Value::BoolValue(expected))) => assert_eq!(value, *expected),
        (ValueView::Int(value), Some(Value::IntValue(expected))) => assert_eq!(value, *expected),
        (ValueView::Double(value), Some(Value::DoubleValue(expected))) => {
            assert_eq!(value.to_bits(), expected.to_bits());
        }
        (ValueView::Bytes(bytes), Some(Value::BytesValue(expected))) => assert_eq!(bytes, expected),
        (ValueView::Array(array), Some(Value::ArrayValue(expected))) => {
            assert_eq!(array.iter().count(), expected.values.len());
            array.iter().zip(&expected.values).for_each(|(view, value)| compare_value(view, Some(value)));
        }
        (ValueView::KvList(pairs), Some(Value::KvlistValue(expected))) => {
            compare_attributes(pairs.iter(), &expected.values);
        }
        (view, expected) => panic!("{view:?} is not {expected:?}"),
    }
}

/// Reads all that views offer: whatever the bytes are, none of it panics.
fn read_all(body: &[u8]) {
    for resource in request(body) {
        read_attributes(resource.resource().attributes());
        for scope in resource.scope_spans() {
            read_attributes(scope.scope().attributes());
            for span in scope.spans() {
                let _ = (span.parent(), span.status_code(), span.status_message());
                read_attributes(span.attributes());
                span.events().for_each(|event| read_attributes(event.attributes()));
                span.links().for_each(|link| read_attributes(link.attributes()));
            }
        }
    }
}

fn read_attributes<'a>(attributes: impl Iterator<Item = KeyValueView<'a>>) {
    for attribute in attributes {
        let _ = (attribute.key(), attribute.value().to_text());
    }
}
