//! Tests that are asked of every span while it is scanned, each for one bit.
//!
//! This is the one place where a condition costs something for every span that comes in. So the tests that conditions
//! mostly consist of are compared as they lie on the wire; the rest goes the general way.

use regex::Regex;

use super::field::Field;
use super::predicate::{Predicate, Term};
use super::source::{OfFacts, OfSpan};
use super::value::{Comparison, Literal};
use crate::otlp::SpanFacts;

/// Bits that can be folded.
pub const FOLDS_MAX: usize = u32::BITS as usize;

/// What an invalid byte is read as, so a name that has it may be equal to other bytes.
const REPLACEMENT: char = '\u{fffd}';

/// Tests that the scan answers; number n sets bit n.
#[derive(Debug, Default)]
pub(crate) struct Folds {
    folds: Vec<Fold>,
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
        self.folds.push(Fold { quick: Quick::of(&test), test, words });
        Ok((self.folds.len() - 1) as u8)
    }

    /// A bit for each test that is true of the span.
    #[inline]
    pub(crate) fn bits(&self, span: &SpanFacts<'_>) -> u32 {
        let mut bits = 0;
        for (bit, fold) in self.folds.iter().enumerate() {
            bits |= u32::from(fold.quick.holds(span)) << bit;
        }
        bits
    }

    /// The folded test, of a span that is read from its bytes.
    pub(super) fn holds(&self, bit: u8, span: &OfSpan<'_>) -> bool {
        self.folds[usize::from(bit)].test.holds(span)
    }
}

impl Quick {
    fn of(test: &Predicate) -> Self {
        let all = |tests: &[Predicate]| tests.iter().map(Self::of).collect();
        match test {
            Predicate::Const(value) => Self::Const(*value),
            Predicate::And(tests) => Self::All(all(tests)),
            Predicate::Or(tests) => Self::Any(all(tests)),
            Predicate::Not(test) => Self::Not(Box::new(Self::of(test))),
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
    fn holds(&self, span: &SpanFacts<'_>) -> bool {
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
            _ => self.holds_in_parts(span),
        }
    }

    fn holds_in_parts(&self, span: &SpanFacts<'_>) -> bool {
        match self {
            Self::All(tests) => tests.iter().all(|test| test.holds(span)),
            Self::Any(tests) => tests.iter().any(|test| test.holds(span)),
            Self::Not(test) => !test.holds(span),
            Self::NameBegins(begin) => {
                span.name.strip_prefix(&**begin).is_some_and(|rest| !rest.contains(&b'\n'))
            }
            Self::NameMatches(regex) => regex.is_match(&String::from_utf8_lossy(span.name)),
            Self::General(test) => test.holds(&OfFacts { facts: span }),
            simple => simple.holds(span),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::traceql::predicate::Compiler;
    use crate::sampler::traceql::{ast, parser};
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
            let quick = Quick::of(&test);
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
                };
                assert_eq!(
                    quick.holds(&facts),
                    test.holds(&OfFacts { facts: &facts }),
                    "{condition} {name:?}"
                );
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
}
