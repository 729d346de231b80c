//! Conditions evaluated the plain way, over decoded spans and the tree as it was parsed: what the compiled
//! ones must equal. Relations between spans are asked pair by pair and answered by walking.

mod made_up;

use opentelemetry_proto::tonic::common::v1::{
    AnyValue, InstrumentationScope, KeyValue, any_value::Value as Any,
};
use opentelemetry_proto::tonic::trace::v1::span::Event;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use proptest::prelude::*;
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
use crate::sampler::testing::Trace;

pub(super) use made_up::query;
use made_up::{any_trace, expression};

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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(2_000)))]
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
