//! A condition on a trace: what a query asks, arranged so that as little as possible is read.
//!
//! What the unit alone answers is asked once; what the scan answers is folded into bits while spans come in; bytes are
//! read only where both leave it open. Spansets that are only joined by `&&` and `||` need no more than a look at each
//! span; structure and aggregates need all spans of the unit: of a unit that is too large to be read whole they are false, unless
//! what was read proves them.

use super::error::QueryError;
use super::field::{Field, Reach};
use super::fold::Folds;
use super::predicate::{Predicate, Term};
use super::query::{self, Scalar, SetExpr, Stage, Stages};
use super::source::{OfSpan, OfUnit};
use super::table::{Asked, SpanTable};
use super::value::{Comparison, Literal};
use super::{ast, eval, parser, part};
use crate::sampler::unit::Unit;

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
    /// All spans have to be looked at together, unless the guard says no.
    Whole {
        guard: Option<Box<Self>>,
        /// Fewer spans cannot be enough.
        least: u64,
        stages: Stages,
    },
}

impl Condition {
    /// Reads a condition and takes its place among the folded ones.
    pub(crate) fn compile(text: &str, folds: &mut Folds) -> Result<Self, QueryError> {
        let stages = query::compile(text, &parser::parse(text)?)?;
        let mut asks_for_errors = false;
        query::each_test(&stages, &mut |test| asks_for_errors |= test.contains(&is_error_test));
        let (plan, asks_beyond_root) = match alone(stages) {
            Ok(set) => (Plan::of_set(&set, folds), asks_beyond_root(&set)),
            Err(stages) => (Plan::whole(stages, folds), true),
        };
        Ok(Self { plan, asks_for_errors, asks_beyond_root })
    }

    /// Whether the unit has what is asked for, if that is known before its bytes are read.
    pub(crate) fn known(&self, unit: &Unit<'_>) -> Option<bool> {
        self.plan.known(unit)
    }

    /// Whether the unit has what is asked for.
    pub(crate) fn holds(&self, asked: &Asked<'_>, folds: &Folds) -> bool {
        self.plan.holds(asked, folds)
    }

    /// The same of a unit for which it was false before these spans came: what any one span makes true, only they can.
    pub(crate) fn holds_now(&self, asked: &Asked<'_>, folds: &Folds) -> bool {
        let new = if self.plan.is_of_any_span() { asked.new_alone() } else { None };
        self.plan.holds(new.unwrap_or(asked), folds)
    }
}

/// The one stage that all depends on, if there is one: groups change nothing about whether there are spans, and what
/// passes one test after the other passes them together.
fn alone(mut stages: Stages) -> Result<SetExpr, Stages> {
    let mut tests = Vec::new();
    let mut selects = 0;
    for stage in &stages {
        match stage {
            Stage::Select(SetExpr::Spans(test)) => tests.push(test.clone()),
            Stage::Filter(_) => return Err(stages),
            Stage::Select(_) | Stage::By(_) | Stage::Coalesce => {}
        }
        selects += usize::from(matches!(stage, Stage::Select(_)));
    }
    if tests.len() == selects {
        return Ok(SetExpr::Spans(join(tests).unwrap_or(Predicate::Const(true))));
    }
    if selects > 1 {
        return Err(stages);
    }
    stages.retain(|stage| matches!(stage, Stage::Select(_)));
    match stages.pop() {
        Some(Stage::Select(SetExpr::Pipeline(inner))) => alone(inner),
        Some(Stage::Select(set)) => Ok(set),
        _ => Err(stages),
    }
}

/// `status = error`.
fn is_error_test(test: &Predicate) -> bool {
    let wanted = |term: &Term| matches!(term, Term::Literal(Literal::Status(2)));
    matches!(test, Predicate::Compare { op: Comparison::Equal, left, right } if wanted(left) || wanted(right))
}

fn asks_beyond_root(set: &SetExpr) -> bool {
    match set {
        SetExpr::Spans(test) => test.reach() > Reach::Unit && !needs_root(test),
        SetExpr::All(sets) | SetExpr::Any(sets) => sets.iter().any(asks_beyond_root),
        SetExpr::Pipeline(_) | SetExpr::Related { .. } => true,
    }
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
    fn of_set(set: &SetExpr, folds: &mut Folds) -> Self {
        match set {
            SetExpr::Spans(test) => Self::of_test(test.clone(), folds),
            SetExpr::All(sets) => Self::All(sets.iter().map(|set| Self::of_set(set, folds)).collect()),
            SetExpr::Any(sets) => Self::Any(sets.iter().map(|set| Self::of_set(set, folds)).collect()),
            SetExpr::Pipeline(stages) => match alone(stages.clone()) {
                Ok(set) => Self::of_set(&set, folds),
                Err(stages) => Self::whole(stages, folds),
            },
            related @ SetExpr::Related { .. } => Self::whole(vec![Stage::Select(related.clone())], folds),
        }
    }

    fn whole(stages: Stages, folds: &mut Folds) -> Self {
        let guard = guard(&stages, folds).map(Box::new);
        let least = stages.iter().map(least).max().unwrap_or_default();
        Self::Whole { guard, least, stages }
    }

    fn of_test(test: Predicate, folds: &mut Folds) -> Self {
        match test {
            test if test.reach() == Reach::Unit => Self::Unit(test),
            test if test.is_of_scan() => Self::bit(None, test, folds),
            // Of several alternatives each finds its own span.
            Predicate::Or(tests) => {
                Self::Any(tests.into_iter().map(|test| Self::of_test(test, folds)).collect())
            }
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
        let (scan, bytes): (Vec<_>, Vec<_>) = span.into_iter().partition(Predicate::is_of_scan);
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

    /// True if and only if it is true of one span, whatever there is beside it.
    fn is_of_any_span(&self) -> bool {
        match self {
            Self::Bit { .. } => true,
            Self::Spans { unit: None, span, .. } => span.reach() < Reach::Relatives && !span.mentions_unit(),
            Self::Any(plans) => plans.iter().all(Self::is_of_any_span),
            Self::Unit(_) | Self::Spans { .. } | Self::All(_) | Self::Whole { .. } => false,
        }
    }

    fn known(&self, unit: &Unit<'_>) -> Option<bool> {
        match self {
            Self::Unit(test) => Some(test.holds(&OfUnit { unit })),
            Self::Bit { bit } => unit.bits.map(|bits| bits & 1 << bit != 0),
            Self::Spans { unit: of_unit, bit, .. } => {
                let excluded = bit.is_some_and(|bit| unit.bits.is_some_and(|bits| bits & 1 << bit == 0));
                let passes = || of_unit.as_ref().is_none_or(|test| test.holds(&OfUnit { unit }));
                (excluded || !passes()).then_some(false)
            }
            Self::All(plans) => decided(plans, unit, false),
            Self::Any(plans) => decided(plans, unit, true),
            Self::Whole { least, .. } if unit.spans.at_most() < *least => Some(false),
            Self::Whole { guard, .. } => guard.as_ref()?.known(unit).filter(|known| !known),
        }
    }

    fn holds(&self, asked: &Asked<'_>, folds: &Folds) -> bool {
        if let Some(known) = self.known(asked.unit) {
            return known;
        }
        let any = |test: &dyn Fn(&OfSpan<'_>) -> bool| any_span(asked.unit, asked.table(), test);
        match self {
            Self::Unit(_) => false,
            Self::Bit { bit } => any(&|span| folds.holds(*bit, span)),
            Self::Spans { span: test, .. } if test.reach() == Reach::Relatives && !asked.table().complete => {
                false
            }
            Self::Spans { bit, span: test, .. } => {
                any(&|span| bit.is_none_or(|bit| folds.holds(bit, span)) && test.holds(span))
            }
            Self::All(plans) => plans.iter().all(|plan| plan.holds(asked, folds)),
            Self::Any(plans) => plans.iter().any(|plan| plan.holds(asked, folds)),
            Self::Whole { stages, .. } => {
                let table = asked.table();
                (table.complete || part::can_prove(stages)) && eval::matches(stages, asked.unit, table)
            }
        }
    }
}

/// What plans together say of a unit whose bytes were not read; one that says `decisive` is enough.
fn decided(plans: &[Plan], unit: &Unit<'_>, decisive: bool) -> Option<bool> {
    let mut all_known = true;
    for plan in plans {
        match plan.known(unit) {
            Some(known) if known == decisive => return Some(decisive),
            Some(_) => {}
            None => all_known = false,
        }
    }
    all_known.then_some(!decisive)
}

fn any_span(unit: &Unit<'_>, table: &SpanTable<'_>, test: &dyn Fn(&OfSpan<'_>) -> bool) -> bool {
    table.numbers().any(|number| test(&OfSpan { unit, table, number }))
}

/// How many spans it takes at least: a set that is counted has no others than those of the unit.
fn least(stage: &Stage) -> u64 {
    use Comparison::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual};
    let Stage::Filter(filter) = stage else { return 0 };
    let (number, over) = match (&filter.left, &filter.right, filter.op) {
        (Scalar::Count, Scalar::Number(number), Greater) | (Scalar::Number(number), Scalar::Count, Less) => {
            (number, 1)
        }
        (Scalar::Count, Scalar::Number(number), GreaterOrEqual | Equal)
        | (Scalar::Number(number), Scalar::Count, LessOrEqual | Equal) => (number, 0),
        _ => return 0,
    };
    if let Literal::Int(number) = number {
        u64::try_from(number.saturating_add(over)).unwrap_or(0)
    } else {
        0
    }
}

/// What must hold at least: there are spans for every `{ … }` that has to find one.
fn guard(stages: &Stages, folds: &mut Folds) -> Option<Plan> {
    let selects = stages.iter().filter_map(|stage| match stage {
        Stage::Select(set) => Some(set),
        Stage::Filter(_) | Stage::By(_) | Stage::Coalesce => None,
    });
    all_of(selects.filter_map(|set| guard_of_set(set, folds)).collect())
}

fn guard_of_set(set: &SetExpr, folds: &mut Folds) -> Option<Plan> {
    match set {
        SetExpr::Spans(Predicate::Const(true)) => None,
        SetExpr::Spans(test) => Some(Plan::of_test(test.clone(), folds)),
        SetExpr::Pipeline(stages) => guard(stages, folds),
        SetExpr::All(sets) => all_of(sets.iter().filter_map(|set| guard_of_set(set, folds)).collect()),
        SetExpr::Any(sets) => {
            let guards: Option<Vec<_>> = sets.iter().map(|set| guard_of_set(set, folds)).collect();
            guards.map(Plan::Any)
        }
        SetExpr::Related { form: ast::Form::Negated, right, .. } => guard_of_set(right, folds),
        SetExpr::Related { left, right, .. } => {
            all_of([left, right].into_iter().filter_map(|side| guard_of_set(side, folds)).collect())
        }
    }
}

fn all_of(mut plans: Vec<Plan>) -> Option<Plan> {
    match plans.len() {
        0 | 1 => plans.pop(),
        _ => Some(Plan::All(plans)),
    }
}

fn join(mut tests: Vec<Predicate>) -> Option<Predicate> {
    match tests.len() {
        0 | 1 => tests.pop(),
        _ => Some(Predicate::And(tests.into())),
    }
}
