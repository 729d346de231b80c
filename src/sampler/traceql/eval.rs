//! Evaluates a condition over the spans that were read: sets of spans go through the stages of a pipeline.
//!
//! A set is an ascending list of numbers of the table, never empty. A spanset operator is applied to each set for itself;
//! a trace matches if a set comes out. Every stage takes time in proportion to the spans in its sets, whatever groups
//! they are in, but for searches in sorted lists.

use hashbrown::HashMap;

use super::aggregate::{Gathered, group_key};
use super::predicate::{Predicate, Term};
use super::query::{Scalar, ScalarFilter, SetExpr, Stage};
use super::source::OfSpan;
use super::table::SpanTable;
use super::value::{Value, calculate, compare};
use crate::sampler::unit::Unit;

type Set = Vec<u32>;

/// Whether the result is not empty.
pub(super) fn matches(stages: &[Stage], unit: &Unit<'_>, table: &SpanTable<'_>) -> bool {
    let all = table.distinct();
    !all.is_empty() && !Evaluation { unit, table }.pipeline(stages, all).is_empty()
}

struct Evaluation<'t> {
    unit: &'t Unit<'t>,
    table: &'t SpanTable<'t>,
}

impl Evaluation<'_> {
    fn pipeline(&self, stages: &[Stage], input: &[u32]) -> Vec<Set> {
        let Some((first, later)) = stages.split_first() else { return vec![input.to_vec()] };
        let mut sets = self.stage(first, &[input]);
        for stage in later {
            if sets.is_empty() {
                break;
            }
            sets = self.stage(stage, &sets);
        }
        sets
    }

    fn stage<S: AsRef<[u32]>>(&self, stage: &Stage, sets: &[S]) -> Vec<Set> {
        let sets = sets.iter().map(AsRef::as_ref);
        match stage {
            Stage::Select(expr) => sets.flat_map(|set| self.select(expr, set)).collect(),
            Stage::Filter(filter) => {
                sets.filter(|set| self.passes(filter, set)).map(<[u32]>::to_vec).collect()
            }
            Stage::By(key) => sets.flat_map(|set| self.groups(key, set)).collect(),
            Stage::Coalesce => non_empty(joined(sets)),
        }
    }

    fn select(&self, expr: &SetExpr, input: &[u32]) -> Vec<Set> {
        match expr {
            SetExpr::Spans(test) => {
                non_empty(input.iter().copied().filter(|span| self.holds(test, *span)).collect())
            }
            SetExpr::Pipeline(stages) => self.pipeline(stages, input),
            SetExpr::All(sides) => {
                let mut found = Vec::new();
                for side in sides {
                    let sets = self.select(side, input);
                    if sets.is_empty() {
                        return Vec::new();
                    }
                    found.extend(sets);
                }
                non_empty(joined(found.iter().map(Vec::as_slice)))
            }
            SetExpr::Any(sides) => {
                let found: Vec<Set> = sides.iter().flat_map(|side| self.select(side, input)).collect();
                non_empty(joined(found.iter().map(Vec::as_slice)))
            }
            SetExpr::Related { relation, form, left, right } => {
                let right = self.one(right, input);
                if right.is_empty() {
                    return Vec::new();
                }
                let left = self.one(left, input);
                non_empty(self.table.family().related(*relation, *form, &left, &right))
            }
        }
    }

    /// The spans of a side that cannot be several sets; empty if there are none.
    fn one(&self, expr: &SetExpr, input: &[u32]) -> Set {
        self.select(expr, input).pop().unwrap_or_default()
    }

    fn groups(&self, key: &Term, set: &[u32]) -> Vec<Set> {
        let mut groups: HashMap<Vec<u8>, Set, foldhash::fast::RandomState> = HashMap::default();
        for &span in set {
            groups.entry(group_key(key, &self.fields(span))).or_default().push(span);
        }
        groups.into_values().collect()
    }

    fn passes(&self, filter: &ScalarFilter, set: &[u32]) -> bool {
        let Some(left) = self.scalar(&filter.left, set) else { return false };
        let Some(right) = self.scalar(&filter.right, set) else { return false };
        compare(filter.op, &left, &right)
    }

    fn scalar(&self, scalar: &Scalar, set: &[u32]) -> Option<Value<'static>> {
        match scalar {
            Scalar::Number(literal) => literal.value().to_number(),
            Scalar::Count => Some(Value::Int(set.len() as i64)),
            Scalar::Aggregate { aggregate, of } => {
                let mut gathered = Gathered::new(*aggregate);
                set.iter().for_each(|span| gathered.add(of, &self.fields(*span)));
                gathered.result()
            }
            Scalar::Arithmetic { op, left, right } => {
                calculate(*op, &self.scalar(left, set)?, &self.scalar(right, set)?)
            }
            Scalar::Pipeline { stages, scalar } => {
                let selected = self.pipeline(stages, set).pop().unwrap_or_default();
                self.scalar(scalar, &selected)
            }
        }
    }

    fn holds(&self, test: &Predicate, span: u32) -> bool {
        test.holds(&self.fields(span))
    }

    fn fields(&self, number: u32) -> OfSpan<'_> {
        OfSpan { unit: self.unit, table: self.table, number }
    }
}

fn joined<'s>(sets: impl Iterator<Item = &'s [u32]>) -> Set {
    let mut spans: Set = sets.flatten().copied().collect();
    spans.sort_unstable();
    spans.dedup();
    spans
}

fn non_empty(set: Set) -> Vec<Set> {
    if set.is_empty() { Vec::new() } else { vec![set] }
}
