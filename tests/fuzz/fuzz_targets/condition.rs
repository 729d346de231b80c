//! Feeds any text to the compiler of conditions; what it takes is asked about a trace.
//!
//! `cargo fuzz run --fuzz-dir tests/fuzz -s none condition` (works on stable)

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use tailwater::otlp;
use tailwater::sampler::{ConditionText, Keep, Policies, PolicyConfig, QueryError, Slow, Unit, UnitSpan};
use tailwater::trace::{Randomness, Share, TraceId};

fuzz_target!(|text: &str| {
    let config = PolicyConfig {
        name: "asked".to_owned().try_into().expect("a name that may be used"),
        matches: Some(ConditionText(text.to_owned())),
        unless: None,
        slower_than: None,
        keep: Keep::Share(Share::EVERYTHING),
        shadow: false,
    };
    match Policies::compile(&[config], 1) {
        Ok(policies) => ask(&policies),
        Err(error) => {
            assert!(text.is_char_boundary(error.offset), "{error}");
            QueryError::pointer(text, error.offset);
        }
    }
});

/// Folded bits and bytes must agree.
fn ask(policies: &Policies) {
    static BODY: OnceLock<Vec<u8>> = OnceLock::new();
    let body = BODY.get_or_init(trace);
    let mut bits = 0;
    let mut folding = policies.folding();
    otlp::scan_for(policies.keys(), body, |facts, seen| bits |= folding.fold(facts, seen)).expect("a request");
    let mut spans = Vec::new();
    for resource_spans in otlp::request(body) {
        for scope_spans in resource_spans.scope_spans() {
            spans.extend(scope_spans.spans().map(|span| UnitSpan { span, resource_spans, scope_spans }));
        }
    }
    let unit = Unit {
        bits: Some(bits),
        randomness: Randomness::of_trace(TraceId([7; 16])),
        operation: None,
        duration: None,
        earliest_start: 1,
        latest_end: 2_000,
        spans: &spans,
        dropped_by: None,
        again: false,
        now_ms: 0,
    };
    let slow = Slow::new(&[]);
    let by_bytes = policies.judge(&Unit { bits: None, ..unit }, &slow);
    assert_eq!(policies.judge(&unit, &slow), by_bytes);
}

/// Spans below, beside and around each other.
fn trace() -> Vec<u8> {
    let attribute = |key: &str, value| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    };
    let span = |number: u8, parent: u8| Span {
        trace_id: vec![7; 16],
        span_id: vec![number; 8],
        parent_span_id: vec![parent; if parent == 0 { 0 } else { 8 }],
        name: ["a", "b"][usize::from(number % 2)].to_owned(),
        kind: i32::from(number % 6),
        start_time_unix_nano: 1 + u64::from(number),
        end_time_unix_nano: 1_000 * u64::from(number),
        attributes: vec![
            attribute("a", Value::IntValue(number.into())),
            attribute("b", Value::StringValue("b".to_owned())),
        ],
        events: vec![
            Event { attributes: vec![attribute("a", Value::DoubleValue(0.5))], ..Event::default() };
            2
        ],
        links: vec![Link::default()],
        ..Span::default()
    };
    let places = [(1, 0), (2, 1), (3, 2), (4, 2), (5, 6), (6, 5), (7, 7), (2, 1), (8, 99)];
    let spans = places.into_iter().map(|(number, parent)| span(number, parent)).collect();
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    let resource_spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}
