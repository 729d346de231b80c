//! Tests that are asked of every span while it is scanned, each for one bit.
//!
//! This is the one place where a condition costs something for every span that comes in. So the tests that conditions
//! mostly consist of are compared as they lie on the wire; attributes are read where the scan has seen the key; what
//! the resource and the scope answer is asked once a scope; the rest goes the general way.

use regex::Regex;

use super::field::Field;
use super::predicate::{Predicate, Term};
use super::source::{OfFacts, OfScope, OfSpan};
use super::value::{Comparison, Literal};
use crate::otlp::{Keys, ScopeSpansView, Seen, SpanFacts};

/// Bits that can be folded.
pub const FOLDS_MAX: usize = u32::BITS as usize;

/// What an invalid byte is read as, so a name that has it may be equal to other bytes.
const REPLACEMENT: char = '\u{fffd}';

/// Tests that the scan answers; number n sets bit n.
#[derive(Debug, Default)]
pub(crate) struct Folds {
    folds: Vec<Fold>,
    keys: Keys,
    /// Tests that are asked once a scope.
    of_scope: Vec<Predicate>,
}

/// Asks the tests of one span after the other.
#[derive(Debug)]
pub struct Folding<'f, 's> {
    folds: &'f Folds,
    scope: Option<ScopeSpansView<'s>>,
    /// The tests that are true of the scope.
    of_scope: u32,
}

/// A span that is at hand.
struct Asked<'a, 's> {
    span: &'a SpanFacts<'s>,
    seen: &'a Seen<'a, 's>,
    /// The tests that are true of its scope.
    of_scope: u32,
}

#[derive(Debug)]
struct Fold {
    quick: Quick,
    test: Predicate,
    /// The test in words, by which the same test is known again.
    words: String,
}

/// A test of what lies on the wire.
#[derive(Debug)]
enum Quick {
    Const(bool),
    Status(i32),
    Kind(i32),
    Name(Box<[u8]>),
    /// And no line end after it.
    NameBegins(Box<[u8]>),
    NameMatches(Regex),
    Duration {
        op: Comparison,
        nanos: i64,
    },
    HasParent(bool),
    /// A test of attributes: without any of the keys a span has the answer of its scope.
    Attributes {
        keys: u32,
        of_scope: u32,
        test: Predicate,
    },
    All(Box<[Self]>),
    Any(Box<[Self]>),
    Not(Box<Self>),
    General(Predicate),
}

impl Folds {
    /// The number of the test's bit; None if all are taken.
    pub(crate) fn add(&mut self, test: Predicate) -> Result<u8, Predicate> {
        let words = format!("{test:?}");
        if let Some(bit) = self.folds.iter().position(|fold| fold.words == words) {
            return Ok(bit as u8);
        }
        if self.folds.len() == FOLDS_MAX {
            return Err(test);
        }
        let quick = self.quick(&test);
        self.folds.push(Fold { quick, test, words });
        Ok((self.folds.len() - 1) as u8)
    }

    /// What a scan has to look out for.
    pub(crate) fn keys(&self) -> &Keys {
        &self.keys
    }

    pub(crate) fn folding(&self) -> Folding<'_, '_> {
        Folding { folds: self, scope: None, of_scope: 0 }
    }

    /// The folded test, of a span that is read from its bytes.
    pub(super) fn holds(&self, bit: u8, span: &OfSpan<'_>) -> bool {
        self.folds[usize::from(bit)].test.holds(span)
    }

    fn quick(&mut self, test: &Predicate) -> Quick {
        let mut all = |tests: &[Predicate]| tests.iter().map(|test| self.quick(test)).collect();
        match test {
            Predicate::Const(value) => Quick::Const(*value),
            Predicate::And(tests) => Quick::All(all(tests)),
            Predicate::Or(tests) => Quick::Any(all(tests)),
            Predicate::Not(test) => Quick::Not(Box::new(self.quick(test))),
            leaf if leaf.is_of_attributes() => self.attributes(leaf),
            leaf => Quick::of(leaf),
        }
    }

    fn attributes(&mut self, test: &Predicate) -> Quick {
        if self.of_scope.len() == FOLDS_MAX {
            return Quick::General(test.clone());
        }
        let mut keys = 0;
        test.each_field(&mut |field| {
            keys |= field.key_in_span().map_or(0, |key| self.keys.add(key.as_bytes()));
        });
        self.of_scope.push(test.clone());
        Quick::Attributes { keys, of_scope: 1 << (self.of_scope.len() - 1), test: test.clone() }
    }
}

impl<'s> Folding<'_, 's> {
    /// A bit for each test that is true of the span.
    #[inline]
    pub fn fold(&mut self, span: &SpanFacts<'s>, seen: &Seen<'_, 's>) -> u32 {
        if !self.folds.of_scope.is_empty() {
            self.enter(span);
        }
        let asked = Asked { span, seen, of_scope: self.of_scope };
        let mut bits = 0;
        for (bit, fold) in self.folds.folds.iter().enumerate() {
            bits |= u32::from(fold.quick.holds(&asked)) << bit;
        }
        bits
    }

    #[inline]
    fn enter(&mut self, span: &SpanFacts<'s>) {
        let bytes = span.scope_spans.as_bytes();
        if self.scope.is_none_or(|scope| !std::ptr::eq(scope.as_bytes(), bytes)) {
            self.scope = Some(span.scope_spans);
            let holds = |test: &Predicate| u32::from(test.holds(&OfScope { facts: span }));
            let tests = self.folds.of_scope.iter().enumerate();
            self.of_scope = tests.fold(0, |bits, (bit, test)| bits | holds(test) << bit);
        }
    }
}

impl Quick {
    /// Of a test that is not put together from others.
    fn of(test: &Predicate) -> Self {
        match test {
            Predicate::Exists { field: Field::Parent | Field::ParentId, wanted } => Self::HasParent(*wanted),
            Predicate::Compare { op, left: Term::Field(field), right: Term::Literal(literal) } => {
                Self::comparison(*op, field, literal).unwrap_or_else(|| Self::General(test.clone()))
            }
            Predicate::Regex { term: Term::Field(Field::Name), regex, negated } => {
                let matches = Self::pattern(regex);
                if *negated { Self::Not(Box::new(matches)) } else { matches }
            }
            test => Self::General(test.clone()),
        }
    }

    fn comparison(op: Comparison, field: &Field, literal: &Literal) -> Option<Self> {
        let equality = match (field, literal) {
            (Field::Status, Literal::Status(status)) => Self::Status(*status),
            (Field::Kind, Literal::Kind(kind)) => Self::Kind(*kind),
            (Field::Name, Literal::Text(name)) if !name.contains(REPLACEMENT) => {
                Self::Name(name.as_bytes().into())
            }
            (Field::Duration, Literal::Duration(nanos) | Literal::Int(nanos)) => {
                return Some(Self::Duration { op, nanos: *nanos });
            }
            _ => return None,
        };
        match op {
            Comparison::Equal => Some(equality),
            Comparison::NotEqual => Some(Self::Not(Box::new(equality))),
            _ => None,
        }
    }

    /// A pattern of plain words, with an open end perhaps, is compared without a regular expression.
    fn pattern(regex: &Regex) -> Self {
        let plain = |text: &str| text.chars().all(|c| c.is_alphanumeric() || "/_-: ,".contains(c));
        let pattern = regex.as_str().strip_prefix("^(?:").and_then(|rest| rest.strip_suffix(")$"));
        let name = |text: &str| Self::Name(text.as_bytes().into());
        match pattern {
            Some(text) if plain(text) => name(text),
            Some(texts) if texts.split('|').all(plain) => Self::Any(texts.split('|').map(name).collect()),
            Some(pattern) => match pattern.strip_suffix(".*").filter(|begin| plain(begin)) {
                Some(begin) => Self::NameBegins(begin.as_bytes().into()),
                None => Self::NameMatches(regex.clone()),
            },
            None => Self::NameMatches(regex.clone()),
        }
    }

    #[inline]
    fn holds(&self, asked: &Asked<'_, '_>) -> bool {
        let span = asked.span;
        match self {
            Self::Const(value) => *value,
            Self::Status(status) => span.status == *status,
            Self::Kind(kind) => span.kind == *kind,
            Self::Name(name) => span.name == &**name,
            Self::Duration { op, nanos } => {
                let long = i64::try_from(span.end.saturating_sub(span.start)).unwrap_or(i64::MAX);
                span.start != 0 && op.accepts(long.cmp(nanos))
            }
            Self::HasParent(wanted) => span.parent.is_some() == *wanted,
            Self::Attributes { keys, of_scope, .. } if !asked.seen.may_have(*keys) => {
                asked.of_scope & of_scope != 0
            }
            _ => self.holds_in_parts(asked),
        }
    }

    fn holds_in_parts(&self, asked: &Asked<'_, '_>) -> bool {
        let span = asked.span;
        match self {
            Self::All(tests) => tests.iter().all(|test| test.holds(asked)),
            Self::Any(tests) => tests.iter().any(|test| test.holds(asked)),
            Self::Not(test) => !test.holds(asked),
            Self::NameBegins(begin) => {
                span.name.strip_prefix(&**begin).is_some_and(|rest| !rest.contains(&b'\n'))
            }
            Self::NameMatches(regex) => regex.is_match(&String::from_utf8_lossy(span.name)),
            Self::General(test) | Self::Attributes { test, .. } => {
                test.holds(&OfFacts { facts: span, seen: asked.seen })
            }
            simple => simple.holds(asked),
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, any_value::Value as Any};
    use opentelemetry_proto::tonic::resource::v1::Resource;
    use opentelemetry_proto::tonic::trace::v1::span::Event;
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
    use prost::Message;

    use super::*;
    use crate::otlp::{ResourceSpansView, scan_for};
    use crate::sampler::testing::{attribute, span, text, unread};
    use crate::sampler::traceql::predicate::Compiler;
    use crate::sampler::traceql::table::SpanTable;
    use crate::sampler::traceql::{ast, parser};
    use crate::sampler::unit::UnitSpan;
    use crate::trace::{SpanId, TraceId};

    fn test(condition: &str) -> Predicate {
        let pipeline = parser::parse(condition).unwrap();
        let [ast::Stage::Set(node)] = &pipeline.stages[..] else {
            panic!("{condition} is no single spanset")
        };
        let ast::SetExpr::Spans(node) = &node.expr else { panic!("{condition} is no single spanset") };
        Compiler { text: condition }.test(node).unwrap()
    }

    #[test]
    fn what_is_compared_on_the_wire_is_what_the_general_way_gives() {
        let names: [&[u8]; 9] = [
            b"",
            b"GET",
            b"GET /a",
            b"GET /a\n",
            b"POST",
            b"a|b",
            b"caf\xff",
            "caf\u{fffd}".as_bytes(),
            b"a.*",
        ];
        for condition in [
            "{ name = `GET` || name != `POST` }",
            "{ name =~ `GET` }",
            "{ name =~ `GET.*` }",
            "{ name !~ `GET /.*` }",
            "{ name =~ `GET|POST` }",
            "{ name !~ `GET|` }",
            "{ name =~ `a\\|b` }",
            "{ name =~ `caf.` }",
            "{ name = `caf\u{fffd}` }",
            "{ name =~ `a.*` && !(name = `a|b`) }",
            "{ parent = nil && duration >= 10 && kind != client }",
            "{ !(span:parentID != nil) && duration < 1us && status != error }",
        ] {
            let test = test(condition);
            let quick = Folds::default().quick(&test);
            for (n, name) in names.into_iter().enumerate() {
                let facts = SpanFacts {
                    at: 0,
                    len: 0,
                    trace_id: TraceId([1; 16]),
                    span_id: SpanId([1; 8]),
                    parent: n.is_multiple_of(2).then_some(SpanId([2; 8])),
                    start: n as u64 % 3 * 5,
                    end: 15,
                    kind: n as i32 % 4,
                    status: n as i32 % 3,
                    flags: 0,
                    name,
                    trace_state: &[],
                    message: &[],
                    resource_spans: ResourceSpansView::new(&[]),
                    scope_spans: ScopeSpansView::new(&[]),
                };
                let seen = &Seen::NOTHING;
                let asked = Asked { span: &facts, seen, of_scope: 0 };
                let general = test.holds(&OfFacts { facts: &facts, seen });
                assert_eq!(quick.holds(&asked), general, "{condition} {name:?}");
            }
        }
    }

    #[test]
    fn a_test_that_is_asked_twice_takes_one_bit() {
        let mut folds = Folds::default();
        assert_eq!(folds.add(test("{ status = error }")).unwrap(), 0);
        assert_eq!(folds.add(test("{ name =~ `a.b` }")).unwrap(), 1);
        assert_eq!(folds.add(test("{ status = error }")).unwrap(), 0);
        assert_eq!(folds.add(test("{ name =~ `a.c` }")).unwrap(), 2);
    }

    fn request(spans_first: bool) -> Vec<u8> {
        let span = |n: u8| Span {
            kind: i32::from(n % 4),
            attributes: match n % 3 {
                0 => vec![attribute("a", Any::IntValue(i64::from(n))), attribute("b", text("x"))],
                1 => vec![attribute("r", Any::IntValue(7)), attribute("c", Any::BoolValue(true))],
                _ => vec![],
            },
            events: (n % 4 == 2)
                .then(|| Event { attributes: vec![attribute("a", Any::IntValue(1))], ..Event::default() })
                .into_iter()
                .collect(),
            ..span(n, "GET")
        };
        let scope = |n: u8| InstrumentationScope {
            name: format!("scope-{n}"),
            attributes: vec![attribute("i", Any::IntValue(i64::from(n)))],
            ..InstrumentationScope::default()
        };
        let scope_spans = |n: u8| ScopeSpans {
            scope: Some(scope(n)),
            spans: (1..7).map(|m| span(10 * n + m)).collect(),
            ..ScopeSpans::default()
        };
        let mut body = Vec::new();
        for n in [0, 2] {
            let resource = Resource {
                attributes: vec![attribute("r", Any::IntValue(i64::from(n))), attribute("env", text("prod"))],
                ..Resource::default()
            };
            let of_resource = ResourceSpans { resource: Some(resource), ..ResourceSpans::default() };
            let scope_spans = vec![scope_spans(n), scope_spans(n + 1)];
            let of_spans = ResourceSpans { scope_spans, ..ResourceSpans::default() };
            let mut parts = [of_resource.encode_to_vec(), of_spans.encode_to_vec()];
            if spans_first {
                parts.reverse();
            }
            prost::encoding::bytes::encode(1, &parts.concat(), &mut body);
        }
        body
    }

    #[test]
    fn attributes_that_a_scan_sees_are_those_of_the_bytes() {
        for condition in [
            "{ span.a = 3 }",
            "{ span.a != nil }",
            "{ span.a = nil && kind = server }",
            "{ .a > 0 }",
            "{ .a = nil }",
            "{ .r = 2 || .r = 7 }",
            "{ resource.r = 2 }",
            "{ resource.env = `prod` && span.c }",
            "{ !(resource.env =~ `pro.`) || event.a = 1 }",
            "{ instrumentation.i = 2 && .i != 3 }",
            "{ instrumentation:name = `scope-1` && span.b = `x` }",
            "{ span.a + resource.r = 4 }",
            "{ (span.a = nil) = (resource.r = 2) }",
            "{ link.a = nil && .none = nil }",
        ] {
            let mut folds = Folds::default();
            let test = test(condition);
            assert!(test.is_of_scan(), "{condition}");
            let bit = folds.add(test).unwrap();
            let mut seen = [0, 0];
            for body in [request(false), request(true)] {
                let mut folding = folds.folding();
                scan_for(folds.keys(), &body, |facts, attributes| {
                    let spans = vec![UnitSpan::of(facts)];
                    let unit = unread(&spans);
                    let table = SpanTable::of_one(spans[0]);
                    let read = folds.holds(bit, &OfSpan { unit: &unit, table: &table, number: 0 });
                    assert_eq!(
                        folding.fold(facts, attributes) != 0,
                        read,
                        "{condition} of span {}",
                        facts.span_id
                    );
                    seen[usize::from(read)] += 1;
                })
                .unwrap();
            }
            assert_eq!(seen[0] + seen[1], 48);
        }
    }
}
