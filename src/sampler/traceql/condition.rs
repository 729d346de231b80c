//! A condition on a trace: what a query asks, arranged so that as little as possible is read.
//!
//! What the unit alone answers is asked once; what the scan answers is folded into bits while spans come
//! in; bytes are read only where both leave it open, and not at all if a bit says that no span can match.

use super::error::QueryError;
use super::field::{Field, Reach};
use super::parser;
use super::predicate::{self, Predicate};
use super::value::{Comparison, Literal};
use crate::sampler::traceql::source::{OfSpan, OfUnit};
use crate::sampler::unit::{Unit, UnitSpan};

/// Bits that can be folded.
pub const FOLDS_MAX: usize = u32::BITS as usize;

/// Tests that the scan answers; number n sets bit n.
#[derive(Debug, Default)]
pub(crate) struct Folds {
    pub(crate) tests: Vec<Fold>,
}

/// A test of what the scan finds in a span.
#[derive(Debug)]
pub(crate) enum Fold {
    /// `status = …`, the most common by far.
    StatusIs(i32),
    Predicate(Predicate),
}

impl Fold {
    fn of(test: Predicate) -> Self {
        match test {
            Predicate::Compare {
                op: Comparison::Equal,
                left: predicate::Term::Field(Field::Status),
                right: predicate::Term::Literal(Literal::Status(status)),
            } => Self::StatusIs(status),
            test => Self::Predicate(test),
        }
    }
}

impl Folds {
    /// The number of the bit; None if all are taken.
    fn add(&mut self, test: Predicate) -> Result<u8, Predicate> {
        if self.tests.len() == FOLDS_MAX {
            return Err(test);
        }
        self.tests.push(Fold::of(test));
        Ok((self.tests.len() - 1) as u8)
    }
}

/// A compiled condition.
#[derive(Debug)]
pub(crate) struct Condition {
    plan: Plan,
    /// The condition asks whether a status is `error`.
    pub(crate) asks_for_errors: bool,
    /// Spans other than roots can make it true.
    pub(crate) asks_beyond_root: bool,
}

#[derive(Debug)]
enum Plan {
    /// The same for all spans of a unit.
    Unit(Predicate),
    /// Some span has this bit.
    Bit {
        bit: u8,
    },
    /// The unit passes, and one span does.
    Spans {
        unit: Option<Predicate>,
        bit: Option<u8>,
        span: Predicate,
    },
    All(Vec<Self>),
    Any(Vec<Self>),
}

impl Condition {
    /// Reads a condition and takes its place among the folded ones.
    pub(crate) fn compile(text: &str, folds: &mut Folds) -> Result<Self, QueryError> {
        let test = predicate::compile(text, &parser::parse(text)?)?;
        Ok(Self {
            asks_for_errors: test.contains(&is_error_test),
            asks_beyond_root: test.reach() > Reach::Unit && !needs_root(&test),
            plan: Plan::of(test, folds),
        })
    }

    /// Whether the unit has what is asked for.
    pub(crate) fn holds(&self, unit: &Unit<'_>, folds: &Folds) -> bool {
        self.plan.holds(unit, folds)
    }
}

/// `status = error`.
fn is_error_test(test: &Predicate) -> bool {
    let wanted = |term: &predicate::Term| matches!(term, predicate::Term::Literal(Literal::Status(2)));
    matches!(test, Predicate::Compare { op: Comparison::Equal, left, right } if wanted(left) || wanted(right))
}

/// `parent = nil`, alone or as one of what must all hold.
fn needs_root(test: &Predicate) -> bool {
    match test {
        Predicate::Exists { field: Field::Parent | Field::ParentId, wanted: false } => true,
        Predicate::And(tests) => tests.iter().any(needs_root),
        _ => false,
    }
}

impl Plan {
    fn of(test: Predicate, folds: &mut Folds) -> Self {
        match test {
            test if test.reach() == Reach::Unit => Self::Unit(test),
            test if scan_answers(&test) => Self::bit(None, test, folds),
            // Of several alternatives each finds its own span.
            Predicate::Or(tests) => Self::Any(tests.into_iter().map(|test| Self::of(test, folds)).collect()),
            Predicate::And(tests) => Self::conjunction(tests, folds),
            span => Self::Spans { unit: None, bit: None, span },
        }
    }

    fn bit(unit: Option<Predicate>, test: Predicate, folds: &mut Folds) -> Self {
        match (folds.add(test), unit) {
            (Ok(bit), None) => Self::Bit { bit },
            (Ok(bit), Some(unit)) => Self::All(vec![Self::Unit(unit), Self::Bit { bit }]),
            (Err(span), unit) => Self::Spans { unit, bit: None, span },
        }
    }

    /// One span has to pass what is asked of spans; the unit has to pass the rest.
    fn conjunction(tests: Box<[Predicate]>, folds: &mut Folds) -> Self {
        let (unit, span): (Vec<_>, Vec<_>) = tests.into_iter().partition(|test| test.reach() == Reach::Unit);
        let (scan, bytes): (Vec<_>, Vec<_>) = span.into_iter().partition(scan_answers);
        let unit = join(unit);
        match (join(scan), join(bytes)) {
            (None, Some(span)) => Self::Spans { unit, bit: None, span },
            (Some(scan), None) => Self::bit(unit, scan, folds),
            (Some(scan), Some(bytes)) => match folds.add(scan) {
                Ok(bit) => Self::Spans { unit, bit: Some(bit), span: bytes },
                Err(scan) => Self::Spans { unit, bit: None, span: Predicate::And([scan, bytes].into()) },
            },
            (None, None) => Self::Unit(unit.unwrap_or(Predicate::Const(true))),
        }
    }

    fn holds(&self, unit: &Unit<'_>, folds: &Folds) -> bool {
        match self {
            Self::Unit(test) => test.holds(&OfUnit { unit }),
            Self::All(plans) => plans.iter().all(|plan| plan.holds(unit, folds)),
            Self::Any(plans) => plans.iter().any(|plan| plan.holds(unit, folds)),
            Self::Bit { bit } => match unit.bits {
                Some(bits) => bits & 1 << bit != 0,
                None => unit.spans.any(&mut |span| folds.holds(*bit, unit, span)),
            },
            Self::Spans { unit: of_unit, bit, span: test } => {
                let excluded = |bit: u8| unit.bits.is_some_and(|bits| bits & 1 << bit == 0);
                if bit.is_some_and(excluded)
                    || !of_unit.as_ref().is_none_or(|test| test.holds(&OfUnit { unit }))
                {
                    return false;
                }
                unit.spans.any(&mut |span| {
                    bit.is_none_or(|bit| folds.holds(bit, unit, span)) && test.holds(&OfSpan { unit, span })
                })
            }
        }
    }
}

impl Folds {
    /// The folded test, of a span that is read from its bytes.
    fn holds(&self, bit: u8, unit: &Unit<'_>, span: &UnitSpan<'_>) -> bool {
        match &self.tests[usize::from(bit)] {
            Fold::StatusIs(status) => span.span.status_code() == *status,
            Fold::Predicate(test) => test.holds(&OfSpan { unit, span }),
        }
    }
}

fn join(mut tests: Vec<Predicate>) -> Option<Predicate> {
    match tests.len() {
        0 | 1 => tests.pop(),
        _ => Some(Predicate::And(tests.into())),
    }
}

/// Whether it needs only what the scan finds in one span.
fn scan_answers(test: &Predicate) -> bool {
    test.reach() == Reach::Scan && !test.mentions_unit()
}
