//! Reads what stands outside of braces: spansets and what relates them, aggregates, the stages of a pipeline.
//!
//! Where Tempo wants either spansets or pipelines in parentheses on both sides of an operator, a mix is read as well.
//! What belongs to queries alone is refused by name.

use super::ast::{
    Aggregate, Binary, Form, Pipeline, Relation, ScalarExpr, ScalarFilter, ScalarNode, SetExpr, SetNode,
    Stage,
};
use super::error::QueryError;
use super::lexer::Token;
use super::parser::{Parser, operator, strength};
use super::value::Literal;

/// What an operator may stand beside.
enum Piece {
    Set(SetNode),
    Scalar(ScalarNode),
    Filter(ScalarFilter),
    Grouping(Stage),
}

/// A pipeline, and the number that it ends in, if it does.
struct Stages {
    pipeline: Pipeline,
    scalar: Option<ScalarNode>,
    depth: usize,
}

/// What a word means that stands outside of braces.
enum StageWord {
    Count,
    Aggregate(Aggregate),
    By,
    Coalesce,
    /// TraceQL has it, for what a query returns.
    Query,
}

fn stage_word(word: &str) -> Option<StageWord> {
    Some(match word {
        "count" => StageWord::Count,
        "sum" => StageWord::Aggregate(Aggregate::Sum),
        "avg" => StageWord::Aggregate(Aggregate::Avg),
        "min" => StageWord::Aggregate(Aggregate::Min),
        "max" => StageWord::Aggregate(Aggregate::Max),
        "by" => StageWord::By,
        "coalesce" => StageWord::Coalesce,
        "select" | "with" | "rate" | "compare" | "topk" | "bottomk" => StageWord::Query,
        word if word.ends_with("_over_time") => StageWord::Query,
        _ => return None,
    })
}

fn relation(mark: &str) -> Option<(Relation, Form)> {
    let (form, plain) = match mark.as_bytes() {
        [b'!', ..] => (Form::Negated, &mark[1..]),
        [b'&', ..] => (Form::Union, &mark[1..]),
        _ => (Form::Plain, mark),
    };
    let relation = match plain {
        ">" => Relation::Child,
        "<" => Relation::Parent,
        ">>" => Relation::Descendant,
        "<<" => Relation::Ancestor,
        "~" => Relation::Sibling,
        _ => return None,
    };
    Some((relation, form))
}

/// How strongly a mark binds outside of braces.
fn strength_of(mark: &str) -> Option<u8> {
    if relation(mark).is_some() {
        return Some(strength::COMPARISON);
    }
    operator(mark).map(|(_, strength)| strength)
}

impl Parser<'_> {
    /// All of a condition.
    pub(super) fn condition(&mut self) -> Result<Pipeline, QueryError> {
        let stages = self.stages()?;
        match stages.scalar {
            None => Ok(stages.pipeline),
            Some(scalar) => Err(self.bare_number(&scalar)),
        }
    }

    fn bare_number(&self, scalar: &ScalarNode) -> QueryError {
        self.error(scalar.at, "found a number that is compared with nothing, expected as in count() > 3")
    }

    fn stages(&mut self) -> Result<Stages, QueryError> {
        let mut stages = Vec::new();
        let mut depth = 1;
        loop {
            let stage = match self.stage(stages.is_empty())? {
                Piece::Set(node) => {
                    depth = depth.max(node.depth);
                    Stage::Set(node)
                }
                Piece::Filter(filter) => {
                    depth = depth.max(filter.left.depth.max(filter.right.depth));
                    Stage::Filter(filter)
                }
                Piece::Grouping(stage) => stage,
                Piece::Scalar(scalar) if self.is_at("|") => return Err(self.bare_number(&scalar)),
                Piece::Scalar(scalar) => {
                    let depth = depth.max(scalar.depth);
                    return Ok(Stages { pipeline: Pipeline { stages }, scalar: Some(scalar), depth });
                }
            };
            stages.push(stage);
            if !self.takes("|") {
                return Ok(Stages { pipeline: Pipeline { stages }, scalar: None, depth });
            }
        }
    }

    fn stage(&mut self, first: bool) -> Result<Piece, QueryError> {
        let at = self.peek().at;
        let Token::Word(word) = &self.peek().token else { return self.piece(strength::LOGIC) };
        match stage_word(word) {
            Some(StageWord::By) => {
                self.take();
                self.expect("(", "`(` after `by`")?;
                let key = self.expression(strength::LOGIC)?;
                self.expect(")", "`)` or an operator")?;
                Ok(Piece::Grouping(Stage::By { at, key }))
            }
            Some(StageWord::Coalesce) if first => {
                Err(self.error(at, "found `coalesce()` first, where there is nothing to join yet"))
            }
            Some(StageWord::Coalesce) => {
                self.take();
                self.expect("(", "`(` after `coalesce`")?;
                self.expect(")", "`)`, because coalesce() takes nothing")?;
                Ok(Piece::Grouping(Stage::Coalesce))
            }
            _ => self.piece(strength::LOGIC),
        }
    }

    /// Precedence climbing: operators at least as strong as `weakest`.
    fn piece(&mut self, weakest: u8) -> Result<Piece, QueryError> {
        let mut left = self.piece_operand()?;
        loop {
            let Some((mark, at)) = self.mark() else { return Ok(left) };
            let Some(strength) = strength_of(mark).filter(|strength| *strength >= weakest) else {
                return Ok(left);
            };
            self.take();
            let weakest = if strength == strength::POWER { strength } else { strength + 1 };
            let right = self.deeper(at, |parser| parser.piece(weakest))?;
            left = self.join_pieces(mark, at, left, right)?;
        }
    }

    fn piece_operand(&mut self) -> Result<Piece, QueryError> {
        let placed = self.take();
        let at = placed.at;
        let number =
            |literal| Ok(Piece::Scalar(ScalarNode { at, expr: ScalarExpr::Number(literal), depth: 1 }));
        match &placed.token {
            Token::Mark("{") => {
                let node = self.braced(at)?;
                Ok(Piece::Set(SetNode { at, expr: SetExpr::Spans(node), depth: 1 }))
            }
            Token::Mark("(") => self.parenthesised(at),
            Token::Mark("-") => match self.take().token {
                Token::Int(value) => number(Literal::Int(value).negative()),
                Token::Float(value) => number(Literal::Float(value).negative()),
                Token::Duration(value) => number(Literal::Duration(value).negative()),
                _ => Err(self.error(at, "found `-`, expected a number after it")),
            },
            Token::Mark("!") => Err(self.error(
                at,
                "found `!`, expected `{`: TraceQL cannot negate a spanset; write it without `!` under `unless`",
            )),
            Token::Int(value) => number(Literal::Int(*value)),
            Token::Float(value) => number(Literal::Float(*value)),
            Token::Duration(value) => number(Literal::Duration(*value)),
            Token::Word(word) if stage_word(word).is_some() => self.aggregate(at, word),
            _ => Err(self.unexpected(&placed, "a condition such as { status = error }")),
        }
    }

    fn aggregate(&mut self, at: usize, word: &str) -> Result<Piece, QueryError> {
        let expr = match stage_word(word) {
            Some(StageWord::Count) => {
                self.expect("(", "`(` after `count`")?;
                self.expect(")", "`)`, because count() takes nothing")?;
                ScalarExpr::Count
            }
            Some(StageWord::Aggregate(aggregate)) => {
                self.expect("(", &format!("`(` after `{word}`"))?;
                let of = self.expression(strength::LOGIC)?;
                self.expect(")", "`)` or an operator")?;
                ScalarExpr::Aggregate { aggregate, of }
            }
            Some(StageWord::By | StageWord::Coalesce) => {
                return Err(
                    self.error(at, format!("found `{word}()`, which is a stage of its own, after `|`"))
                );
            }
            Some(StageWord::Query) | None => {
                let message =
                    format!("found `{word}()`: it belongs to queries and is no part of a condition");
                return Err(self.error(at, message));
            }
        };
        Ok(Piece::Scalar(ScalarNode { at, expr, depth: 1 }))
    }

    /// Parentheses around one spanset or one number only group; around more they make a pipeline of their own.
    fn parenthesised(&mut self, at: usize) -> Result<Piece, QueryError> {
        let Stages { mut pipeline, scalar, depth } = self.deeper(at, Self::stages)?;
        self.expect(")", "`)` or an operator")?;
        let depth = depth + 1;
        self.bounded(at, depth)?;
        if let Some(scalar) = scalar {
            if pipeline.stages.is_empty() {
                return Ok(Piece::Scalar(scalar));
            }
            let expr = ScalarExpr::Pipeline { pipeline, scalar: Box::new(scalar) };
            return Ok(Piece::Scalar(ScalarNode { at, expr, depth }));
        }
        if let [Stage::Set(_)] = &pipeline.stages[..]
            && let Some(Stage::Set(node)) = pipeline.stages.pop()
        {
            return Ok(Piece::Set(node));
        }
        Ok(Piece::Set(SetNode { at, expr: SetExpr::Pipeline(pipeline), depth }))
    }

    fn join_pieces(&self, mark: &str, at: usize, left: Piece, right: Piece) -> Result<Piece, QueryError> {
        match (left, right) {
            (Piece::Set(left), Piece::Set(right)) => self.join_sets(mark, at, left, right).map(Piece::Set),
            (Piece::Scalar(left), Piece::Scalar(right)) => self.join_scalars(mark, at, left, right),
            (Piece::Filter(_), _) | (_, Piece::Filter(_)) => Err(self.error(
                at,
                format!("found `{mark}` beside a comparison of numbers, expected the comparison in parentheses"),
            )),
            _ => Err(self.error(
                at,
                format!("found `{mark}` between spans and a number, expected a number of spans such as `| count() > 3`"),
            )),
        }
    }

    fn join_sets(&self, mark: &str, at: usize, left: SetNode, right: SetNode) -> Result<SetNode, QueryError> {
        let begin = left.at;
        let mut depth = left.depth.max(right.depth) + 1;
        let expr = match (mark, left.expr) {
            // Chains of one logical operator become one node, so that a long list does not nest.
            ("&&", SetExpr::And(mut nodes)) => {
                depth = left.depth.max(right.depth + 1);
                nodes.push(right);
                SetExpr::And(nodes)
            }
            ("||", SetExpr::Or(mut nodes)) => {
                depth = left.depth.max(right.depth + 1);
                nodes.push(right);
                SetExpr::Or(nodes)
            }
            (mark, expr) => {
                let left = SetNode { at: begin, expr, depth: left.depth };
                match (mark, relation(mark)) {
                    ("&&", _) => SetExpr::And(vec![left, right]),
                    ("||", _) => SetExpr::Or(vec![left, right]),
                    (_, Some((relation, form))) => SetExpr::Related {
                        relation,
                        form,
                        op_at: at,
                        left: Box::new(left),
                        right: Box::new(right),
                    },
                    _ => {
                        let message = format!(
                            "found `{mark}` between spansets, expected `&&`, `||` or a structural operator such as `>>`"
                        );
                        return Err(self.error(at, message));
                    }
                }
            }
        };
        self.bounded(at, depth)?;
        Ok(SetNode { at: begin, expr, depth })
    }

    fn join_scalars(
        &self,
        mark: &str,
        at: usize,
        left: ScalarNode,
        right: ScalarNode,
    ) -> Result<Piece, QueryError> {
        let depth = left.depth.max(right.depth) + 1;
        self.bounded(at, depth)?;
        match operator(mark) {
            Some((Binary::Compare(op), _)) => {
                Ok(Piece::Filter(ScalarFilter { at: left.at, op, left, right }))
            }
            Some((Binary::Arithmetic(op), _)) => {
                let begin = left.at;
                let expr = ScalarExpr::Arithmetic { op, left: Box::new(left), right: Box::new(right) };
                Ok(Piece::Scalar(ScalarNode { at: begin, expr, depth }))
            }
            _ => {
                Err(self
                    .error(at, format!("found `{mark}` between numbers, expected a comparison such as `>`")))
            }
        }
    }
}
