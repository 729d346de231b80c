//! Conditions and traces that are made up: few names and values, so that they meet often.

use opentelemetry_proto::tonic::common::v1::{
    AnyValue, InstrumentationScope, KeyValue, any_value::Value as Any,
};
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use proptest::prelude::*;
use proptest::sample::select;

use crate::sampler::testing::{SECOND_0, Trace, array, attribute, span, text};

fn number_test() -> impl Strategy<Value = String> {
    let fields = [
        "span.n",
        ".n",
        "event.n",
        "resource.n",
        "span.f",
        "span.list",
        "link.n",
        "span.n + 1",
        "-span.n",
        "childCount",
        "parent.n",
        "event.n + link.n",
    ];
    let literals = ["1", "2", "-1", "2.5", "0.5 + .5", "span.n * 2", ".f"];
    (select(fields.to_vec()), comparison(), select(literals.to_vec())).prop_map(join)
}

fn duration_test() -> impl Strategy<Value = String> {
    let fields = ["duration", "traceDuration", "event:timeSinceStart", "span:duration - 5ms"];
    (select(fields.to_vec()), comparison(), select(vec!["10ms", "5ms", "0s", "20ms", "traceDuration"]))
        .prop_map(join)
}

fn text_test() -> impl Strategy<Value = String> {
    let fields = [
        "name",
        "rootName",
        "rootServiceName",
        "statusMessage",
        "span.s",
        ".s",
        "resource.service.name",
        "event:name",
        "event.s",
        "instrumentation:name",
        "instrumentation:version",
        "instrumentation.s",
        "tracestate.k",
        "span.list",
        "span:parentID",
        "span:id",
        "link:spanID",
        "parent.span.s",
        "parent.resource.service.name",
    ];
    let values = ["\"a\"", "\"b\"", "\"\"", "\"0101010101010101\"", "\"1.2\""];
    let compared = (select(fields.to_vec()), comparison(), select(values.to_vec())).prop_map(join);
    let patterns = ["\"a|c\"", "\".*\"", "\"0[12]*\"", "\"\""];
    let matched =
        (select(fields.to_vec()), select(vec!["=~", "!~"]), select(patterns.to_vec())).prop_map(join);
    prop_oneof![compared, matched, Just("name = rootName".to_owned()), Just("span.s != rootName".to_owned())]
}

fn other_test() -> impl Strategy<Value = String> {
    let tests = [
        "status = error",
        "status = ok",
        "status != unset",
        "kind = server",
        "kind != client",
        "span:sampled = true",
        "!span:sampled",
        "parent = nil",
        "parent != nil",
        "span:parentID = nil",
        "span.n = nil",
        ".s != nil",
        "event.n != nil",
        "span.b",
        "!span.b",
        "span.b = false",
        "span.raw != nil",
        "span.raw = 1",
        "true",
        "false",
        "(status = error) = (kind = server)",
        "event.n = nil",
        "tracestate.k = nil",
        "parent.n = nil",
        "span:childCount = 0",
    ];
    select(tests.to_vec()).prop_map(str::to_owned)
}

fn comparison() -> impl Strategy<Value = &'static str> {
    select(vec!["=", "!=", "<", "<=", ">", ">="])
}

fn join((left, op, right): (&str, &str, &str)) -> String {
    format!("{left} {op} {right}")
}

pub(super) fn expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![number_test(), duration_test(), text_test(), other_test()];
    leaf.prop_recursive(4, 16, 3, |inner| {
        let joined = (prop::collection::vec(inner.clone(), 2..4), select(vec![" && ", " || "]));
        prop_oneof![
            joined.clone().prop_map(|(parts, op)| format!("({})", parts.join(op))),
            joined.prop_map(|(parts, op)| parts.join(op)),
            inner.prop_map(|inner| format!("!({inner})")),
        ]
    })
}

fn simple_expression() -> impl Strategy<Value = String> {
    let leaf = || prop_oneof![number_test(), duration_test(), text_test(), other_test()];
    prop_oneof![
        2 => Just(String::new()),
        4 => leaf(),
        2 => (leaf(), select(vec![" && ", " || "]), leaf()).prop_map(|(left, op, right)| format!("{left}{op}{right}")),
        1 => leaf().prop_map(|test| format!("!({test})")),
    ]
}

fn scalar() -> impl Strategy<Value = String> {
    let aggregates = [
        "count()",
        "count()",
        "sum(span.n)",
        "sum(.n + 1)",
        "avg(span.n)",
        "max(event.n)",
        "min(span.list)",
        "max(duration)",
        "min(event:timeSinceStart)",
        "max(childCount)",
        "sum(parent.n)",
        "({ span.n > 0 } | count())",
        "({ kind = server } >> { } | max(duration))",
        "({ } | by(name) | count() > 1 | coalesce() | count())",
        "(count() + 1)",
    ];
    let aggregate = || select(aggregates.to_vec());
    prop_oneof![
        3 => aggregate().prop_map(str::to_owned),
        1 => (aggregate(), select(vec!["+", "-", "*"]), aggregate()).prop_map(join),
    ]
}

fn scalar_filter() -> impl Strategy<Value = String> {
    let numbers =
        ["1", "2", "0", "5ms", "1.5", "-1", "count()", "2 * count()", "({ status = error } | count())"];
    (scalar(), comparison(), select(numbers.to_vec()))
        .prop_map(|(scalar, op, number)| format!("{scalar} {op} {number}"))
}

/// A pipeline that gives one spanset at most.
fn one_spanset(first: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let keys =
        ["name", "resource.service.name", "span.n", "kind", "event.s", "span.n > 1", ".list", "rootName"];
    let later = prop_oneof![
        scalar_filter(),
        scalar_filter(),
        simple_expression().prop_map(|expression| format!("{{ {expression} }}")),
        Just("{ } > { }".to_owned()),
        Just("{ name = `a` } !~ { }".to_owned()),
    ];
    let key = prop::option::weighted(0.3, select(keys.to_vec()));
    (first, key, prop::collection::vec(later, 0..3)).prop_map(|(first, key, later)| {
        let mut stages = vec![first];
        stages.extend(key.map(|key| format!("by({key})")));
        stages.extend(later);
        stages.extend(key.map(|_| "coalesce()".to_owned()));
        stages.join(" | ")
    })
}

fn spansets() -> impl Strategy<Value = String> {
    let filter = simple_expression().prop_map(|expression| format!("{{ {expression} }}"));
    let operators = [
        "&&", "||", ">", ">>", "<", "<<", "~", "!>", "!>>", "!<", "!<<", "!~", "&>", "&>>", "&<", "&<<", "&~",
    ];
    filter.prop_recursive(3, 8, 2, move |inner| {
        let operator = select(operators.to_vec());
        prop_oneof![
            3 => (inner.clone(), operator.clone(), inner.clone()).prop_map(|(left, op, right)| format!("{left} {op} {right}")),
            2 => (inner.clone(), operator, inner.clone()).prop_map(|(left, op, right)| format!("({left} {op} {right})")),
            1 => one_spanset(inner).prop_map(|pipeline| format!("({pipeline})")),
        ]
    })
}

pub(in crate::sampler::traceql) fn query() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => spansets(),
        3 => one_spanset(spansets()),
        1 => scalar_filter(),
        1 => (scalar_filter(), spansets()).prop_map(|(filter, spans)| format!("by(name) | {filter} | {spans}")),
    ]
}

fn any_value() -> impl Strategy<Value = Any> {
    prop_oneof![
        select(vec!["a", "b", ""]).prop_map(text),
        (-1_i64..4).prop_map(Any::IntValue),
        select(vec![0.5, 1.0, 2.5]).prop_map(Any::DoubleValue),
        any::<bool>().prop_map(Any::BoolValue),
        prop::collection::vec(0_i64..3, 0..3).prop_map(|values| array(values.into_iter().map(Any::IntValue))),
        select(vec!["a", "b"]).prop_map(|value| array([text(value), text("c")])),
        Just(Any::BytesValue(vec![1, 2])),
    ]
}

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    let keys = select(vec!["n", "f", "s", "b", "list", "raw"]);
    let one = (keys, prop::option::weighted(0.95, any_value())).prop_map(|(key, value)| KeyValue {
        value: Some(AnyValue { value }),
        ..attribute(key, Any::IntValue(0))
    });
    prop::collection::vec(one, 0..4)
}

fn any_span() -> impl Strategy<Value = (Vec<KeyValue>, InstrumentationScope, Span)> {
    let plain = (
        (1_u8..6, 0_u8..8),
        select(vec!["a", "b", "c"]),
        0_i32..6,
        0_i32..3,
        0_u32..4,
        select(vec!["", "k=a", "x=1,k=b"]),
    );
    let times = (select(vec![0, SECOND_0, SECOND_0 + 5_000_000]), select(vec![0, 5_000_000, 10_000_000]));
    let scope = (select(vec!["", "a"]), select(vec!["", "1.2"]), attributes());
    let children = (prop::option::of(attributes()), prop::option::of(attributes()));
    (plain, times, attributes(), attributes(), scope, children).prop_map(
        |(plain, times, own, mut resource, scope, children)| {
            let ((number, parent), name, kind, status, flags, trace_state) = plain;
            let mut span = Span {
                kind,
                flags,
                trace_state: trace_state.to_owned(),
                status: (status > 0).then(|| Status { code: status, message: name.to_owned() }),
                start_time_unix_nano: times.0,
                end_time_unix_nano: SECOND_0 + times.1,
                attributes: own,
                parent_span_id: vec![parent; if parent == 0 { 0 } else { 8 }],
                ..span(number, name)
            };
            let time_unix_nano = SECOND_0 + 7_000_000;
            span.events.extend(children.0.into_iter().flat_map(|attributes| {
                let event = Event { time_unix_nano, name: "a".to_owned(), attributes, ..Event::default() };
                [Event { name: "b".to_owned(), time_unix_nano: SECOND_0, ..Event::default() }, event]
            }));
            span.links.extend(children.1.map(|attributes| Link {
                trace_id: vec![9; 16],
                span_id: vec![1; 8],
                attributes,
                ..Link::default()
            }));
            resource.push(attribute("service.name", text(name)));
            let (scope_name, version, attributes) = scope;
            let (name, version) = (scope_name.to_owned(), version.to_owned());
            (
                resource,
                InstrumentationScope { name, version, attributes, ..InstrumentationScope::default() },
                span,
            )
        },
    )
}

/// Spans that differ, some of which were sent twice.
pub(super) fn any_trace() -> impl Strategy<Value = Trace> {
    let spans = prop::collection::vec((any_span(), prop::bool::weighted(0.1)), 1..7);
    spans.prop_map(|spans| {
        spans.into_iter().enumerate().fold(
            Trace::default(),
            |trace, (number, ((resource, scope, mut span), twice))| {
                span.dropped_links_count = number as u32 + 1;
                let again = twice.then(|| (resource.clone(), scope.clone(), span.clone()));
                let trace = trace.within(resource, scope, span);
                again
                    .into_iter()
                    .fold(trace, |trace, (resource, scope, span)| trace.within(resource, scope, span))
            },
        )
    })
}
