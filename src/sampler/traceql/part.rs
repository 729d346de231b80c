//! What a part of the spans can prove.
//!
//! A unit that is too large is not read whole. What then needs all spans is false; but spans that relate as asked, or are
//! more than asked for, do so whatever else there is.

use super::ast::{Aggregate, Form};
use super::field::Reach;
use super::predicate::Predicate;
use super::query::{Scalar, ScalarFilter, SetExpr, Stage};
use super::value::Comparison;

/// Whether a result that is not empty would not be empty with more spans either.
pub(super) fn can_prove(stages: &[Stage]) -> bool {
    stages.iter().all(|stage| match stage {
        Stage::Select(set) => set_grows(set),
        Stage::Filter(filter) => stays_true(filter),
        Stage::By(_) | Stage::Coalesce => true,
    })
}

fn set_grows(set: &SetExpr) -> bool {
    match set {
        SetExpr::Spans(test) => is_about_one(test),
        SetExpr::Pipeline(stages) => can_prove(stages),
        SetExpr::All(sets) | SetExpr::Any(sets) => sets.iter().all(set_grows),
        SetExpr::Related { form: Form::Negated, .. } => false,
        SetExpr::Related { left, right, .. } => set_grows(left) && set_grows(right),
    }
}

/// A span does not become another by the spans around it.
fn is_about_one(test: &Predicate) -> bool {
    test.reach() < Reach::Relatives
}

/// Counts and greatest values only grow, least values only fall.
fn stays_true(filter: &ScalarFilter) -> bool {
    use Comparison::{Greater, GreaterOrEqual, Less, LessOrEqual};
    let upward = |scalar: &Scalar| match scalar {
        Scalar::Count => true,
        Scalar::Aggregate { aggregate: Aggregate::Max, of } => of.reach() < Reach::Relatives,
        _ => false,
    };
    let downward = |scalar: &Scalar| match scalar {
        Scalar::Aggregate { aggregate: Aggregate::Min, of } => of.reach() < Reach::Relatives,
        _ => false,
    };
    let (above, below) = match filter.op {
        Greater | GreaterOrEqual => (&filter.left, &filter.right),
        Less | LessOrEqual => (&filter.right, &filter.left),
        Comparison::Equal | Comparison::NotEqual => return false,
    };
    match (above.is_constant(), below.is_constant()) {
        (false, true) => upward(above),
        (true, false) => downward(below),
        _ => false,
    }
}
