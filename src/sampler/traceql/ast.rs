//! A condition as it was written: pipelines of spansets, and the expressions between their braces.

use super::field::Field;
use super::value::{Arithmetic, Comparison, Literal};

/// Stages that follow each other, joined by `|`. The first begins with all spans.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pipeline {
    pub(crate) stages: Vec<Stage>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Stage {
    Set(SetNode),
    /// `count() > 3`
    Filter(ScalarFilter),
    /// `by(…)`
    By {
        at: usize,
        key: Node,
    },
    /// `coalesce()`
    Coalesce,
}

/// What selects spans, and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SetNode {
    pub(crate) at: usize,
    pub(crate) expr: SetExpr,
    pub(super) depth: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum SetExpr {
    /// `{ … }`
    Spans(Node),
    /// A pipeline in parentheses.
    Pipeline(Pipeline),
    And(Vec<SetNode>),
    Or(Vec<SetNode>),
    Related {
        relation: Relation,
        form: Form,
        op_at: usize,
        left: Box<SetNode>,
        right: Box<SetNode>,
    },
}

/// How a span of the right side has to stand to one of the left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relation {
    Child,
    Parent,
    Descendant,
    Ancestor,
    Sibling,
}

/// Which spans a structural operator selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Those of the right side that have a partner.
    Plain,
    /// Those of the right side that have none.
    Negated,
    /// Those of both sides that have one.
    Union,
}

/// Two numbers compared.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ScalarFilter {
    pub(crate) at: usize,
    pub(crate) op: Comparison,
    pub(crate) left: ScalarNode,
    pub(crate) right: ScalarNode,
}

/// A number of a spanset, and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ScalarNode {
    pub(crate) at: usize,
    pub(crate) expr: ScalarExpr,
    pub(super) depth: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ScalarExpr {
    Number(Literal),
    Count,
    Aggregate {
        aggregate: Aggregate,
        of: Node,
    },
    Arithmetic {
        op: Arithmetic,
        left: Box<ScalarNode>,
        right: Box<ScalarNode>,
    },
    /// `({ … } | count())`: of what a pipeline of its own selects.
    Pipeline {
        pipeline: Pipeline,
        scalar: Box<ScalarNode>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aggregate {
    Sum,
    Avg,
    Min,
    Max,
}

/// A part of an expression and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) at: usize,
    pub(crate) expr: Expr,
    pub(super) depth: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expr {
    Literal(Literal),
    Field(Field),
    Not(Box<Node>),
    Negative(Box<Node>),
    And(Vec<Node>),
    Or(Vec<Node>),
    Binary { op: Binary, op_at: usize, left: Box<Node>, right: Box<Node> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binary {
    Compare(Comparison),
    Regex { negated: bool },
    Arithmetic(Arithmetic),
    And,
    Or,
}

impl Node {
    /// Whether it asks anything of a span.
    pub(crate) fn mentions_field(&self) -> bool {
        match &self.expr {
            Expr::Literal(_) => false,
            Expr::Field(_) => true,
            Expr::Not(node) | Expr::Negative(node) => node.mentions_field(),
            Expr::And(nodes) | Expr::Or(nodes) => nodes.iter().any(Self::mentions_field),
            Expr::Binary { left, right, .. } => left.mentions_field() || right.mentions_field(),
        }
    }
}
