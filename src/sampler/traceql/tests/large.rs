//! Large traces, shaped and asked so that a careless evaluation takes minutes.

use std::time::Duration;

use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use tokio::time::Instant;

use super::policies;
use crate::sampler::testing::{attribute, unit_spans, unread};
use crate::sampler::{Slow, Unit};

/// What is built for debugging takes many times longer than what is shipped; so there it is asked less.
const IS_SHIPPED: bool = !cfg!(debug_assertions);
const SPANS: u64 = if IS_SHIPPED { 100_000 } else { 30_000 };

/// Promised are 2 s. What takes time in proportion to the square of the spans takes longer than either.
const LIMIT: Duration = Duration::from_secs(if IS_SHIPPED { 2 } else { 20 });

/// Number n has the id n, counted from 1.
fn trace(parent_of: impl Fn(u64) -> u64) -> Vec<u8> {
    let id = |number: u64| if number == 0 { vec![] } else { number.to_be_bytes().to_vec() };
    let span = |number: u64| Span {
        trace_id: vec![7; 16],
        span_id: id(number),
        parent_span_id: id(parent_of(number)),
        name: if number.is_multiple_of(2) { "a" } else { "b" }.to_owned(),
        start_time_unix_nano: 1 + number,
        end_time_unix_nano: 10_000 + 2 * number,
        attributes: vec![attribute("n", Any::IntValue((number % 1_000) as i64))],
        ..Span::default()
    };
    let scope_spans = vec![ScopeSpans { spans: (1..=SPANS).map(span).collect(), ..ScopeSpans::default() }];
    let resource_spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
    opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest { resource_spans }
        .encode_to_vec()
}

const CONDITIONS: [&str; 9] = [
    "{ name = `a` } >> { name = `b` } !<< { span.n = 5 }",
    "({ } !>> { name = `a` }) ~ ({ } &~ { name = `b` })",
    "{ } &>> { } &<< { } !~ { span.n < 0 }",
    "{ } | by(span:id) | by(span.n) | by(name) | { } >> { } | count() > 5",
    "{ } | by(span.n) | by(duration) | coalesce() | by(kind) | { name = `a` } !~ { } | avg(duration) < 0s",
    "{ childCount > 1 && parent.n >= 0 } | max(childCount) + count() < 0",
    "({ } >> { name = `a` } | count()) = ({ } << { name = `a` } | count()) + 0.5",
    "{ .a || event.b = 1 || link.c =~ `x.*` || .n = 1000 || instrumentation.d } > { }",
    "{ span.n * 2 + duration / 3 ^ 2 = childCount - parent.n } !>> { } | sum(span.n % 7) > 0 | min(.n) < 0",
];

#[test]
fn a_large_trace_is_answered_in_bounded_time_whatever_its_shape() {
    let shapes: [(&str, Vec<u8>); 5] = [
        ("a chain", trace(|number| number - 1)),
        ("a star", trace(|number| u64::from(number > 1))),
        ("a circle", trace(|number| number % SPANS + 1)),
        (
            "a comb",
            trace(|number| if number.is_multiple_of(2) { number - 1 } else { number.saturating_sub(2) }),
        ),
        ("siblings of an absent parent", trace(|_| u64::MAX)),
    ];
    let slow = Slow::new(&[]);
    let (shapes, step) = if IS_SHIPPED { (&shapes[..], 1) } else { (&shapes[..2], 2) };
    for (shape, body) in shapes {
        let spans = unit_spans(body);
        let unit = Unit { earliest_start: 1, latest_end: 1_000_000, ..unread(&spans) };
        for condition in CONDITIONS.into_iter().step_by(step) {
            let policies = policies(condition);
            let begin = Instant::now();
            policies.judge(&unit, &slow);
            let took = begin.elapsed();
            assert!(took < LIMIT, "{condition} of {shape}: {took:?}");
        }
    }
}
