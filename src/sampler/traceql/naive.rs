//! Conditions evaluated the plain way, over decoded spans and the tree as it was parsed: what the compiled
//! ones must equal.

use opentelemetry_proto::tonic::common::v1::{
    AnyValue, InstrumentationScope, KeyValue, any_value::Value as Any,
};
use opentelemetry_proto::tonic::trace::v1::Status;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use proptest::prelude::*;
use proptest::sample::select;
use regex::Regex;

use super::field::{Field, Scope};
use super::parser::{self, Binary, Expr, Node};
use super::tests::policies;
use super::value::{Arithmetic, Comparison, Literal};
use crate::sampler::Slow;
use crate::sampler::testing::{SECOND_0, Trace, array, attribute, span, text};

#[derive(Clone, Debug, PartialEq)]
enum Plain {
    Bool(bool),
    Number(f64),
    Text(String),
    Status(i32),
    Kind(i32),
    List(Vec<Self>),
    Other,
}

/// One span with all that surrounds it.
struct Seen<'a> {
    trace: &'a Trace,
    within: &'a ResourceSpans,
}

fn plain(value: &AnyValue) -> Option<Plain> {
    Some(match value.value.as_ref()? {
        Any::StringValue(text) => Plain::Text(text.clone()),
        Any::BoolValue(value) => Plain::Bool(*value),
        Any::IntValue(value) => Plain::Number(*value as f64),
        Any::DoubleValue(value) => Plain::Number(*value),
        Any::ArrayValue(array) => {
            Plain::List(array.values.iter().map(|value| plain(value).unwrap_or(Plain::Other)).collect())
        }
        _ => Plain::Other,
    })
}

fn find(attributes: &[KeyValue], key: &str) -> Option<Plain> {
    attributes
        .iter()
        .rev()
        .find(|attribute| attribute.key == key)
        .and_then(|found| plain(found.value.as_ref()?))
}

fn hexadecimal(bytes: &[u8]) -> Plain {
    Plain::Text(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

impl Seen<'_> {
    fn span(&self) -> &Span {
        &self.within.scope_spans[0].spans[0]
    }

    fn scope(&self) -> &InstrumentationScope {
        self.within.scope_spans[0].scope.as_ref().unwrap()
    }

    fn field(&self, field: &Field) -> Vec<Plain> {
        let span = self.span();
        let texts = |text: &str| vec![Plain::Text(text.to_owned())];
        let root =
            self.trace.request.resource_spans.iter().find(|within| is_root(&within.scope_spans[0].spans[0]));
        match field {
            Field::RootName => root.map_or(vec![], |root| texts(&root.scope_spans[0].spans[0].name)),
            Field::RootService => {
                let attributes = root.map(|root| &root.resource.as_ref().unwrap().attributes[..]);
                find(attributes.unwrap_or_default(), "service.name").into_iter().collect()
            }
            Field::TraceDuration => {
                let all =
                    || self.trace.request.resource_spans.iter().map(|within| &within.scope_spans[0].spans[0]);
                let start = all().map(|span| span.start_time_unix_nano).filter(|start| *start > 0).min();
                let end = all().map(|span| span.end_time_unix_nano).max().unwrap();
                start.map_or(vec![], |start| vec![Plain::Number(end.saturating_sub(start) as f64)])
            }
            Field::TraceId => vec![hexadecimal(&span.trace_id)],
            Field::SpanId => vec![hexadecimal(&span.span_id)],
            Field::ParentId if is_root(span) => vec![],
            Field::ParentId => vec![hexadecimal(&span.parent_span_id)],
            Field::Parent if is_root(span) => vec![],
            Field::Parent => vec![Plain::Other],
            Field::Name => texts(&span.name),
            Field::Kind => vec![Plain::Kind(span.kind)],
            Field::Status => vec![Plain::Status(span.status.as_ref().map_or(0, |status| status.code))],
            Field::StatusMessage => texts(span.status.as_ref().map_or("", |status| &status.message)),
            Field::Duration if span.start_time_unix_nano == 0 => vec![],
            Field::Duration => {
                vec![Plain::Number(span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano) as f64)]
            }
            Field::Sampled => vec![Plain::Bool(span.flags % 2 == 1)],
            Field::TraceState(key) => {
                let members = span.trace_state.split(',').filter_map(|member| member.split_once('='));
                members
                    .filter(|(name, _)| **name == **key)
                    .take(1)
                    .flat_map(|(_, value)| texts(value))
                    .collect()
            }
            Field::EventName => span.events.iter().flat_map(|event| texts(&event.name)).collect(),
            Field::EventTimeSinceStart => {
                let since = |time: u64| time as i64 - span.start_time_unix_nano as i64;
                span.events.iter().map(|event| Plain::Number(since(event.time_unix_nano) as f64)).collect()
            }
            Field::LinkTraceId => span.links.iter().map(|link| hexadecimal(&link.trace_id)).collect(),
            Field::LinkSpanId => span.links.iter().map(|link| hexadecimal(&link.span_id)).collect(),
            Field::InstrumentationName => texts(&self.scope().name),
            Field::InstrumentationVersion => texts(&self.scope().version),
            Field::Attribute { scope, key } => self.attribute(*scope, key),
        }
    }

    fn attribute(&self, scope: Scope, key: &str) -> Vec<Plain> {
        let span = self.span();
        match scope {
            Scope::Span => find(&span.attributes, key).into_iter().collect(),
            Scope::Resource => {
                find(&self.within.resource.as_ref().unwrap().attributes, key).into_iter().collect()
            }
            Scope::Event => span.events.iter().filter_map(|event| find(&event.attributes, key)).collect(),
            Scope::Link => span.links.iter().filter_map(|link| find(&link.attributes, key)).collect(),
            Scope::Instrumentation => find(&self.scope().attributes, key).into_iter().collect(),
            Scope::Any => [Scope::Span, Scope::Resource, Scope::Event, Scope::Link, Scope::Instrumentation]
                .into_iter()
                .map(|scope| self.attribute(scope, key))
                .find(|values| !values.is_empty())
                .unwrap_or_default(),
        }
    }

    fn values(&self, node: &Node) -> Vec<Plain> {
        match &node.expr {
            Expr::Field(field) => self.field(field),
            Expr::Literal(literal) => vec![match literal {
                Literal::Nil => Plain::Other,
                Literal::Bool(value) => Plain::Bool(*value),
                Literal::Int(value) | Literal::Duration(value) => Plain::Number(*value as f64),
                Literal::Float(value) => Plain::Number(*value),
                Literal::Text(text) => Plain::Text(text.to_string()),
                Literal::Status(value) => Plain::Status(*value),
                Literal::Kind(value) => Plain::Kind(*value),
            }],
            Expr::Negative(node) => {
                let numbers = self.values(node).into_iter().filter_map(number);
                numbers.map(|number| Plain::Number(-number)).collect()
            }
            Expr::Binary { op: Binary::Arithmetic(op), left, right, .. } => {
                let pairs = pairs(self.values(left), &self.values(right));
                let numbers =
                    pairs.into_iter().filter_map(|(left, right)| Some((number(left)?, number(right)?)));
                numbers.map(|(left, right)| Plain::Number(calculate(*op, left, right))).collect()
            }
            _ => vec![Plain::Bool(self.holds(node))],
        }
    }

    fn holds(&self, node: &Node) -> bool {
        let is_nil = |node: &Node| node.expr == Expr::Literal(Literal::Nil);
        match &node.expr {
            Expr::And(nodes) => nodes.iter().all(|node| self.holds(node)),
            Expr::Or(nodes) => nodes.iter().any(|node| self.holds(node)),
            // An attribute that is absent or no boolean is neither true nor false.
            Expr::Not(inner) => match &inner.expr {
                Expr::Field(_) => self.values(inner).contains(&Plain::Bool(false)),
                Expr::Not(twice) => self.holds(twice),
                _ => !self.holds(inner),
            },
            Expr::Binary { op: Binary::Compare(op), left, right, .. } if is_nil(right) => {
                self.values(left).is_empty() == (*op == Comparison::Equal)
            }
            Expr::Binary { op: Binary::Compare(op), left, right, .. } => {
                pairs(self.values(left), &self.values(right))
                    .into_iter()
                    .any(|(left, right)| compare_any(*op, &left, &right))
            }
            Expr::Binary { op: Binary::Regex { negated }, left, right, .. } => {
                let Expr::Literal(Literal::Text(pattern)) = &right.expr else { unreachable!() };
                let regex = Regex::new(&format!("^(?:{pattern})$")).unwrap();
                let passes =
                    |value: &Plain| matches!(value, Plain::Text(text) if regex.is_match(text) != *negated);
                self.values(left).iter().any(|value| over(value, *negated, passes))
            }
            _ => self.values(node).contains(&Plain::Bool(true)),
        }
    }
}

fn is_root(span: &Span) -> bool {
    span.parent_span_id.iter().all(|byte| *byte == 0)
}

fn number(value: Plain) -> Option<f64> {
    if let Plain::Number(number) = value { Some(number) } else { None }
}

fn pairs(left: Vec<Plain>, right: &[Plain]) -> Vec<(Plain, Plain)> {
    left.into_iter().flat_map(|left| right.iter().map(move |right| (left.clone(), right.clone()))).collect()
}

fn over(value: &Plain, all: bool, passes: impl Fn(&Plain) -> bool) -> bool {
    match value {
        Plain::List(elements) if all => elements.iter().all(passes),
        Plain::List(elements) => elements.iter().any(passes),
        value => passes(value),
    }
}

fn compare_any(op: Comparison, left: &Plain, right: &Plain) -> bool {
    let all = op == Comparison::NotEqual;
    match (left, right) {
        (Plain::List(_), Plain::List(_)) => false,
        (left, Plain::List(_)) => over(right, all, |right| compare(op, left, right)),
        (left, right) => over(left, all, |left| compare(op, left, right)),
    }
}

fn calculate(op: Arithmetic, left: f64, right: f64) -> f64 {
    match op {
        Arithmetic::Add => left + right,
        Arithmetic::Subtract => left - right,
        Arithmetic::Multiply => left * right,
        _ => unreachable!("not generated, because integers and floats differ"),
    }
}

fn compare(op: Comparison, left: &Plain, right: &Plain) -> bool {
    let ordering = match (left, right) {
        (Plain::Number(left), Plain::Number(right)) => left.partial_cmp(right).unwrap(),
        (Plain::Text(left), Plain::Text(right)) => left.cmp(right),
        (Plain::Bool(left), Plain::Bool(right)) if op.is_equality() => left.cmp(right),
        (Plain::Status(left), Plain::Status(right)) | (Plain::Kind(left), Plain::Kind(right)) => {
            left.cmp(right)
        }
        _ => return false,
    };
    match op {
        Comparison::Equal => ordering.is_eq(),
        Comparison::NotEqual => ordering.is_ne(),
        Comparison::Less => ordering.is_lt(),
        Comparison::LessOrEqual => ordering.is_le(),
        Comparison::Greater => ordering.is_gt(),
        Comparison::GreaterOrEqual => ordering.is_ge(),
    }
}

fn naive(condition: &str, trace: &Trace) -> bool {
    let node = parser::parse(condition).unwrap();
    trace.request.resource_spans.iter().any(|within| Seen { trace, within }.holds(&node))
}

fn number_test() -> impl Strategy<Value = String> {
    let fields =
        ["span.n", ".n", "event.n", "resource.n", "span.f", "span.list", "link.n", "span.n + 1", "-span.n"];
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
    ];
    select(tests.to_vec()).prop_map(str::to_owned)
}

fn comparison() -> impl Strategy<Value = &'static str> {
    select(vec!["=", "!=", "<", "<=", ">", ">="])
}

fn join((left, op, right): (&str, &str, &str)) -> String {
    format!("{left} {op} {right}")
}

fn expression() -> impl Strategy<Value = String> {
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
        1_u8..4,
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
            let (number, name, kind, status, flags, trace_state) = plain;
            let mut span = Span {
                kind,
                flags,
                trace_state: trace_state.to_owned(),
                status: (status > 0).then(|| Status { code: status, message: name.to_owned() }),
                start_time_unix_nano: times.0,
                end_time_unix_nano: SECOND_0 + times.1,
                attributes: own,
                ..span(number, name)
            };
            use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
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

fn any_trace() -> impl Strategy<Value = Trace> {
    prop::collection::vec(any_span(), 1..4).prop_map(|spans| {
        spans
            .into_iter()
            .fold(Trace::default(), |trace, (resource, scope, span)| trace.within(resource, scope, span))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    /// [`Trace::judge`] compares folded bits with bytes, this compares both with the plain evaluation.
    #[test]
    fn folded_bits_and_bytes_and_decoded_spans_give_the_same_answer(
        expression in expression(),
        traces in prop::collection::vec(any_trace(), 1..6),
    ) {
        let condition = format!("{{ {expression} }}");
        let policies = policies(&condition);
        for trace in traces {
            let kept = trace.judge(&policies, &Slow::new(&[]), None).kept;
            prop_assert_eq!(kept, naive(&condition, &trace), "{} of {:#?}", condition, trace);
        }
    }
}
