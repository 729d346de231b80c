//! A condition with its types checked, ready to be evaluated.
//!
//! Aggregates and groups must ask something of a span, as in Tempo; what relates two spansets must not be given the
//! several that `by()` makes.

use super::ast::{self, Aggregate, Form, Relation, ScalarExpr, ScalarNode, SetNode};
use super::error::QueryError;
use super::predicate::{Compiler, Predicate, Term};
use super::value::{Arithmetic, Comparison, Literal, Type};

/// Stages that follow each other; the first begins with all spans.
pub(crate) type Stages = Vec<Stage>;

#[derive(Clone, Debug)]
pub(crate) enum Stage {
    Select(SetExpr),
    Filter(ScalarFilter),
    By(Term),
    Coalesce,
}

#[derive(Clone, Debug)]
pub(crate) enum SetExpr {
    Spans(Predicate),
    Pipeline(Stages),
    All(Vec<Self>),
    Any(Vec<Self>),
    Related { relation: Relation, form: Form, left: Box<Self>, right: Box<Self> },
}

#[derive(Clone, Debug)]
pub(crate) struct ScalarFilter {
    pub(crate) op: Comparison,
    pub(crate) left: Scalar,
    pub(crate) right: Scalar,
}

/// A number of a spanset.
#[derive(Clone, Debug)]
pub(crate) enum Scalar {
    Number(Literal),
    Count,
    Aggregate { aggregate: Aggregate, of: Term },
    Arithmetic { op: Arithmetic, left: Box<Self>, right: Box<Self> },
    Pipeline { stages: Stages, scalar: Box<Self> },
}

/// Checks a parsed condition.
pub(crate) fn compile(text: &str, pipeline: &ast::Pipeline) -> Result<Stages, QueryError> {
    QueryCompiler { expressions: Compiler { text } }.stages(pipeline)
}

struct QueryCompiler<'a> {
    expressions: Compiler<'a>,
}

impl QueryCompiler<'_> {
    fn stages(&self, pipeline: &ast::Pipeline) -> Result<Stages, QueryError> {
        pipeline.stages.iter().map(|stage| self.stage(stage)).collect()
    }

    fn stage(&self, stage: &ast::Stage) -> Result<Stage, QueryError> {
        Ok(match stage {
            ast::Stage::Set(node) => Stage::Select(self.set(node)?),
            ast::Stage::Filter(filter) => Stage::Filter(self.filter(filter)?),
            ast::Stage::By { key, .. } if !key.mentions_field() => {
                return self
                    .expressions
                    .error(key.at, "expected what to group by to ask something of a span");
            }
            ast::Stage::By { key, .. } => match self.expressions.term(key)? {
                (_, Type::Span) => {
                    return self.expressions.error(key.at, "found a span, expected a value to group by");
                }
                (term, _) => Stage::By(term),
            },
            ast::Stage::Coalesce => Stage::Coalesce,
        })
    }

    fn set(&self, node: &SetNode) -> Result<SetExpr, QueryError> {
        let sets = |nodes: &[SetNode]| nodes.iter().map(|node| self.set(node)).collect::<Result<_, _>>();
        Ok(match &node.expr {
            ast::SetExpr::Spans(node) => SetExpr::Spans(self.expressions.test(node)?),
            ast::SetExpr::Pipeline(pipeline) => SetExpr::Pipeline(self.stages(pipeline)?),
            ast::SetExpr::And(nodes) => SetExpr::All(sets(nodes)?),
            ast::SetExpr::Or(nodes) => SetExpr::Any(sets(nodes)?),
            ast::SetExpr::Related { relation, form, left, right, .. } => SetExpr::Related {
                relation: *relation,
                form: *form,
                left: Box::new(self.one(left)?),
                right: Box::new(self.one(right)?),
            },
        })
    }

    /// A side of a structural operator.
    fn one(&self, node: &SetNode) -> Result<SetExpr, QueryError> {
        let set = self.set(node)?;
        if let SetExpr::Pipeline(stages) = &set {
            self.joined(node.at, stages)?;
        }
        Ok(set)
    }

    /// Refuses several spansets where one is needed.
    fn joined(&self, at: usize, stages: &Stages) -> Result<(), QueryError> {
        if are_several(stages) {
            let message =
                "found the several spansets that `by()` makes, expected `| coalesce()` after it to join them";
            return self.expressions.error(at, message);
        }
        Ok(())
    }

    fn filter(&self, filter: &ast::ScalarFilter) -> Result<ScalarFilter, QueryError> {
        let (left, right) = (self.scalar(&filter.left)?, self.scalar(&filter.right)?);
        if left.is_constant() && right.is_constant() {
            return self.expressions.error(
                filter.at,
                "found two numbers that are the same for all spans, expected an aggregate such as count()",
            );
        }
        Ok(ScalarFilter { op: filter.op, left, right })
    }

    fn scalar(&self, node: &ScalarNode) -> Result<Scalar, QueryError> {
        Ok(match &node.expr {
            ScalarExpr::Number(literal) => Scalar::Number(literal.clone()),
            ScalarExpr::Count => Scalar::Count,
            ScalarExpr::Aggregate { aggregate, of } => {
                let (term, _) = self.expressions.number(of)?;
                if !of.mentions_field() {
                    return self
                        .expressions
                        .error(of.at, "expected what is aggregated to ask something of a span");
                }
                Scalar::Aggregate { aggregate: *aggregate, of: term }
            }
            ScalarExpr::Arithmetic { op, left, right } => Scalar::Arithmetic {
                op: *op,
                left: Box::new(self.scalar(left)?),
                right: Box::new(self.scalar(right)?),
            },
            ScalarExpr::Pipeline { pipeline, scalar } => {
                let stages = self.stages(pipeline)?;
                self.joined(node.at, &stages)?;
                Scalar::Pipeline { stages, scalar: Box::new(self.scalar(scalar)?) }
            }
        })
    }
}

fn are_several(stages: &Stages) -> bool {
    stages.iter().fold(false, |several, stage| match stage {
        Stage::By(_) => true,
        Stage::Coalesce => false,
        Stage::Select(SetExpr::Pipeline(stages)) => several || are_several(stages),
        Stage::Select(_) | Stage::Filter(_) => several,
    })
}

impl Scalar {
    /// The same for all spans.
    pub(super) fn is_constant(&self) -> bool {
        match self {
            Self::Number(_) => true,
            Self::Arithmetic { left, right, .. } => left.is_constant() && right.is_constant(),
            Self::Count | Self::Aggregate { .. } | Self::Pipeline { .. } => false,
        }
    }
}

/// Shows every test of spans to `visit`.
pub(crate) fn each_test(stages: &Stages, visit: &mut dyn FnMut(&Predicate)) {
    for stage in stages {
        match stage {
            Stage::Select(set) => set.each_test(visit),
            Stage::Filter(filter) => {
                filter.left.each_test(visit);
                filter.right.each_test(visit);
            }
            Stage::By(_) | Stage::Coalesce => {}
        }
    }
}

impl SetExpr {
    fn each_test(&self, visit: &mut dyn FnMut(&Predicate)) {
        match self {
            Self::Spans(test) => visit(test),
            Self::Pipeline(stages) => each_test(stages, visit),
            Self::All(sets) | Self::Any(sets) => sets.iter().for_each(|set| set.each_test(visit)),
            Self::Related { left, right, .. } => {
                left.each_test(visit);
                right.each_test(visit);
            }
        }
    }
}

impl Scalar {
    fn each_test(&self, visit: &mut dyn FnMut(&Predicate)) {
        match self {
            Self::Number(_) | Self::Count | Self::Aggregate { .. } => {}
            Self::Arithmetic { left, right, .. } => {
                left.each_test(visit);
                right.each_test(visit);
            }
            Self::Pipeline { stages, scalar } => {
                each_test(stages, visit);
                scalar.each_test(visit);
            }
        }
    }
}
