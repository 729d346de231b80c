//! Conditions evaluated the plain way, over decoded spans and the tree as it was parsed: what the compiled
//! ones must equal. Relations between spans are asked pair by pair and answered by walking.

use opentelemetry_proto::tonic::common::v1::{
    AnyValue, InstrumentationScope, KeyValue, any_value::Value as Any,
};
use opentelemetry_proto::tonic::trace::v1::Status;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message;
use regex::Regex;

use super::ast::{
    Aggregate, Binary, Expr, Form, Node, Pipeline, Relation, ScalarExpr, ScalarNode, SetExpr, SetNode, Stage,
};
use super::field::{Field, Scope};
use super::key::Key;
use super::parser;
use super::tests::policies;
use super::value::{Arithmetic, Comparison, Literal};
use crate::sampler::Slow;
use crate::sampler::testing::{SECOND_0, Trace, array, attribute, span, text};

#[derive(Clone, Debug, PartialEq)]
enum Plain {
    Bool(bool),
    /// With whether it was written with a fraction.
    Number(f64, bool),
    Text(String),
    Status(i32),
    Kind(i32),
    List(Vec<Self>),
    Other,
}

/// One span with all that surrounds it.
#[derive(Clone, Copy)]
struct Seen<'a> {
    trace: &'a Trace,
    within: &'a ResourceSpans,
}

/// The spans of a trace, of those that are the same only the first.
struct World<'a> {
    spans: Vec<Seen<'a>>,
}

impl<'a> World<'a> {
    fn of(trace: &'a Trace) -> Self {
        let mut spans: Vec<Seen<'a>> = Vec::new();
        for within in &trace.request.resource_spans {
            let seen = Seen { trace, within };
            let same = |known: &Seen<'_>| known.span().encode_to_vec() == seen.span().encode_to_vec();
            if !spans.iter().any(same) {
                spans.push(seen);
            }
        }
        Self { spans }
    }

    fn matches(&self, pipeline: &Pipeline) -> bool {
        !self.pipeline(pipeline, vec![(0..self.spans.len()).collect()]).is_empty()
    }

    fn pipeline(&self, pipeline: &Pipeline, mut sets: Vec<Vec<usize>>) -> Vec<Vec<usize>> {
        for stage in &pipeline.stages {
            sets = match stage {
                Stage::Set(node) => sets.iter().flat_map(|set| self.select(node, set)).collect(),
                Stage::Filter(filter) => {
                    let passes = |set: &Vec<usize>| {
                        let sides = (self.scalar(&filter.left, set), self.scalar(&filter.right, set));
                        let (Some(left), Some(right)) = sides else { return false };
                        compare(filter.op, &Plain::Number(left, true), &Plain::Number(right, true))
                    };
                    sets.into_iter().filter(passes).collect()
                }
                Stage::By { key, .. } => sets.iter().flat_map(|set| self.groups(key, set)).collect(),
                Stage::Coalesce => vec![sets.concat()],
            };
            sets.retain(|set| !set.is_empty());
        }
        sets
    }

    fn groups(&self, key: &Node, set: &[usize]) -> Vec<Vec<usize>> {
        let key_of = |span: usize| format!("{:?}", self.spans[span].values(key));
        let firsts = set
            .iter()
            .filter(|span| set.iter().find(|other| key_of(**other) == key_of(**span)) == Some(span));
        firsts
            .map(|first| set.iter().copied().filter(|span| key_of(*span) == key_of(*first)).collect())
            .collect()
    }

    fn select(&self, node: &SetNode, input: &[usize]) -> Vec<Vec<usize>> {
        let found: Vec<usize> = match &node.expr {
            SetExpr::Spans(node) => {
                input.iter().copied().filter(|span| self.spans[*span].holds(node)).collect()
            }
            SetExpr::Pipeline(pipeline) => return self.pipeline(pipeline, vec![input.to_vec()]),
            SetExpr::And(nodes) | SetExpr::Or(nodes) => {
                let sides: Vec<_> = nodes.iter().map(|node| self.select(node, input)).collect();
                if matches!(node.expr, SetExpr::And(_)) && sides.iter().any(Vec::is_empty) {
                    return vec![];
                }
                let mut found = sides.concat().concat();
                found.sort_unstable();
                found.dedup();
                found
            }
            SetExpr::Related { relation, form, left, right, .. } => {
                let (left, right) = (self.select(left, input).concat(), self.select(right, input).concat());
                let related = |left: usize, right: usize| self.related(*relation, left, right);
                let on_the_right =
                    |span: &usize| left.iter().any(|left| related(*left, *span)) == (*form != Form::Negated);
                let on_the_left = |span: &usize| {
                    *form == Form::Union
                        && left.contains(span)
                        && right.iter().any(|right| related(*span, *right))
                };
                let found = |span: &usize| (right.contains(span) && on_the_right(span)) || on_the_left(span);
                input.iter().copied().filter(found).collect()
            }
        };
        if found.is_empty() { vec![] } else { vec![found] }
    }

    fn scalar(&self, node: &ScalarNode, set: &[usize]) -> Option<f64> {
        Some(match &node.expr {
            ScalarExpr::Number(Literal::Int(value) | Literal::Duration(value)) => *value as f64,
            ScalarExpr::Number(Literal::Float(value)) => *value,
            ScalarExpr::Number(_) => return None,
            ScalarExpr::Count => set.len() as f64,
            ScalarExpr::Aggregate { aggregate, of } => {
                let values =
                    set.iter().flat_map(|span| self.spans[*span].values(of)).flat_map(|value| match value {
                        Plain::List(values) => values,
                        value => vec![value],
                    });
                let numbers: Vec<f64> = values.filter_map(number).collect();
                let (sum, count) = (numbers.iter().sum::<f64>(), numbers.len() as f64);
                match aggregate {
                    _ if numbers.is_empty() => return None,
                    Aggregate::Sum => sum,
                    Aggregate::Avg => sum / count,
                    Aggregate::Min => numbers.into_iter().fold(f64::INFINITY, f64::min),
                    Aggregate::Max => numbers.into_iter().fold(f64::NEG_INFINITY, f64::max),
                }
            }
            ScalarExpr::Arithmetic { op, left, right } => {
                calculate(*op, self.scalar(left, set)?, self.scalar(right, set)?)
            }
            ScalarExpr::Pipeline { pipeline, scalar } => {
                let sets = self.pipeline(pipeline, vec![set.to_vec()]);
                assert!(sets.len() < 2, "one spanset, because the others were joined");
                self.scalar(scalar, &sets.concat())?
            }
        })
    }

    fn related(&self, relation: Relation, left: usize, right: usize) -> bool {
        let (one, other) = (self.spans[left], self.spans[right]);
        match relation {
            Relation::Child => other.above().is_some_and(|above| above == one.id()),
            Relation::Parent => self.related(Relation::Child, right, left),
            Relation::Descendant => {
                std::iter::successors(other.above(), |id| self.above_id(id)).any(|id| id == one.id())
            }
            Relation::Ancestor => self.related(Relation::Descendant, right, left),
            Relation::Sibling => left != right && one.above().is_some() && one.above() == other.above(),
        }
    }

    /// What lies above an id, unless it lies above itself.
    fn above_id(&self, id: &[u8]) -> Option<&'a [u8]> {
        let named =
            |id: &[u8]| self.spans.iter().filter(|span| span.id() == id).find_map(|span| span.above());
        let mut above = named(id);
        for _ in 0..self.spans.len() {
            if above == Some(id) {
                return None;
            }
            above = above.and_then(named);
        }
        named(id)
    }
}

fn plain(value: &AnyValue) -> Option<Plain> {
    Some(match value.value.as_ref()? {
        Any::StringValue(text) => Plain::Text(text.clone()),
        Any::BoolValue(value) => Plain::Bool(*value),
        Any::IntValue(value) => Plain::Number(*value as f64, false),
        Any::DoubleValue(value) => Plain::Number(*value, true),
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

impl<'a> Seen<'a> {
    fn span(&self) -> &'a Span {
        &self.within.scope_spans[0].spans[0]
    }

    fn id(&self) -> &'a [u8] {
        &self.span().span_id
    }

    /// The id that it names as its parent, if that is another.
    fn above(&self) -> Option<&'a [u8]> {
        let parent = &self.span().parent_span_id[..];
        (!is_root(self.span()) && parent != self.id()).then_some(parent)
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
                start.map_or(vec![], |start| vec![Plain::Number(end.saturating_sub(start) as f64, false)])
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
                let long = span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano);
                vec![Plain::Number(long as f64, false)]
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
                let number = |event: &Event| Plain::Number(since(event.time_unix_nano) as f64, false);
                span.events.iter().map(number).collect()
            }
            Field::LinkTraceId => span.links.iter().map(|link| hexadecimal(&link.trace_id)).collect(),
            Field::LinkSpanId => span.links.iter().map(|link| hexadecimal(&link.span_id)).collect(),
            Field::InstrumentationName => texts(&self.scope().name),
            Field::InstrumentationVersion => texts(&self.scope().version),
            Field::Attribute { scope, key } => self.attribute(*scope, key),
            Field::ChildCount => {
                let world = World::of(self.trace);
                let children = world.spans.iter().filter(|span| span.above() == Some(self.id())).count();
                vec![Plain::Number(children as f64, false)]
            }
            Field::ParentAttribute { scope, key } => {
                let world = World::of(self.trace);
                let parent = world.spans.iter().find(|span| self.above() == Some(span.id()));
                parent.map_or(vec![], |parent| parent.attribute(*scope, key))
            }
        }
    }

    fn attribute(&self, scope: Scope, key: &Key) -> Vec<Plain> {
        let span = self.span();
        let name = std::str::from_utf8(key.as_bytes()).unwrap();
        match scope {
            Scope::Span => find(&span.attributes, name).into_iter().collect(),
            Scope::Resource => {
                find(&self.within.resource.as_ref().unwrap().attributes, name).into_iter().collect()
            }
            Scope::Event => span.events.iter().filter_map(|event| find(&event.attributes, name)).collect(),
            Scope::Link => span.links.iter().filter_map(|link| find(&link.attributes, name)).collect(),
            Scope::Instrumentation => find(&self.scope().attributes, name).into_iter().collect(),
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
                Literal::Int(value) | Literal::Duration(value) => Plain::Number(*value as f64, false),
                Literal::Float(value) => Plain::Number(*value, true),
                Literal::Text(text) => Plain::Text(text.to_string()),
                Literal::Status(value) => Plain::Status(*value),
                Literal::Kind(value) => Plain::Kind(*value),
            }],
            Expr::Negative(node) => {
                let numbers = self.values(node).into_iter().filter_map(number);
                numbers.map(|number| Plain::Number(-number, true)).collect()
            }
            Expr::Binary { op: Binary::Arithmetic(op), left, right, .. } => {
                let pairs = pairs(self.values(left), &self.values(right));
                let numbers =
                    pairs.into_iter().filter_map(|(left, right)| Some((number(left)?, number(right)?)));
                numbers.map(|(left, right)| Plain::Number(calculate(*op, left, right), true)).collect()
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
    if let Plain::Number(number, _) = value { Some(number) } else { None }
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
        (Plain::Number(left, _), Plain::Number(right, _)) => left.partial_cmp(right).unwrap(),
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
    World::of(trace).matches(&parser::parse(condition).unwrap())
}

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

pub(super) fn query() -> impl Strategy<Value = String> {
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
fn any_trace() -> impl Strategy<Value = Trace> {
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

    #[test]
    fn structure_and_aggregates_give_the_answer_of_decoded_spans(
        condition in query(),
        traces in prop::collection::vec(any_trace(), 1..6),
    ) {
        let policies = policies(&condition);
        for trace in traces {
            let kept = trace.judge(&policies, &Slow::new(&[]), None).kept;
            prop_assert_eq!(kept, naive(&condition, &trace), "{} of {:#?}", condition, trace);
        }
    }
}
