//! Reads what stands between braces, in `by(…)` and in an aggregate: an expression about one span.

use super::ast::{Binary, Expr, Node};
use super::error::QueryError;
use super::field::{Field, Scope, Word};
use super::key::Key;
use super::lexer::Token;
use super::parser::{Parser, operator, strength};
use super::value::Literal;

impl Parser<'_> {
    /// What follows `{`, with the closing brace.
    pub(super) fn braced(&mut self, at: usize) -> Result<Node, QueryError> {
        if self.takes("}") {
            return Ok(Node { at, expr: Expr::Literal(Literal::Bool(true)), depth: 1 });
        }
        let node = self.expression(strength::LOGIC)?;
        self.expect("}", "`}` or an operator")?;
        Ok(node)
    }

    /// Precedence climbing: operators at least as strong as `weakest`.
    pub(super) fn expression(&mut self, weakest: u8) -> Result<Node, QueryError> {
        let mut left = self.operand()?;
        loop {
            let Some((mark, at)) = self.mark() else { return Ok(left) };
            let Some((op, strength)) = operator(mark).filter(|(_, strength)| *strength >= weakest) else {
                return Ok(left);
            };
            self.take();
            let groups_right = strength == strength::POWER;
            let weakest = if groups_right { strength } else { strength + 1 };
            let right = self.deeper(at, |parser| parser.expression(weakest))?;
            left = self.join(op, at, left, right)?;
        }
    }

    /// Chains of one logical operator become one node, so that a long list does not nest.
    fn join(&self, op: Binary, op_at: usize, left: Node, right: Node) -> Result<Node, QueryError> {
        let at = left.at;
        let mut depth = left.depth.max(right.depth) + 1;
        let expr = match (op, left.expr) {
            (Binary::And, Expr::And(mut nodes)) | (Binary::Or, Expr::Or(mut nodes)) => {
                depth = left.depth.max(right.depth + 1);
                nodes.push(right);
                if op == Binary::And { Expr::And(nodes) } else { Expr::Or(nodes) }
            }
            (op, expr) => {
                let left = Node { at, expr, depth: left.depth };
                match op {
                    Binary::And => Expr::And(vec![left, right]),
                    Binary::Or => Expr::Or(vec![left, right]),
                    op => Expr::Binary { op, op_at, left: Box::new(left), right: Box::new(right) },
                }
            }
        };
        self.bounded(op_at, depth)?;
        Ok(Node { at, expr, depth })
    }

    fn operand(&mut self) -> Result<Node, QueryError> {
        let placed = self.take();
        let at = placed.at;
        let expr = match placed.token {
            Token::Mark("(") => {
                let node = self.deeper(at, |parser| parser.expression(strength::LOGIC))?;
                self.expect(")", "`)` or an operator")?;
                return Ok(node);
            }
            Token::Mark("-") => return self.prefixed(at, strength::SUM + 1, negative),
            Token::Mark("!") => {
                return self.prefixed(at, strength::NOT + 1, |node| Expr::Not(Box::new(node)));
            }
            Token::Text(text) => Expr::Literal(Literal::Text(text.into())),
            Token::Int(value) => Expr::Literal(Literal::Int(value)),
            Token::Float(value) => Expr::Literal(Literal::Float(value)),
            Token::Duration(value) => Expr::Literal(Literal::Duration(value)),
            Token::Attribute { scope, name } => Expr::Field(attribute(&scope, &name)),
            Token::Word(word) => self.word(at, &word)?,
            Token::Mark(_) | Token::End => return Err(self.unexpected(&placed, "a field or a value")),
        };
        Ok(Node { at, expr, depth: 1 })
    }

    fn prefixed(&mut self, at: usize, weakest: u8, wrap: fn(Node) -> Expr) -> Result<Node, QueryError> {
        let node = self.deeper(at, |parser| parser.expression(weakest))?;
        let depth = node.depth + 1;
        self.bounded(at, depth)?;
        Ok(Node { at, expr: wrap(node), depth })
    }

    fn word(&self, at: usize, word: &str) -> Result<Expr, QueryError> {
        if let Some(literal) = Literal::keyword(word) {
            return Ok(Expr::Literal(literal));
        }
        let message = match Field::intrinsic(word) {
            Some(Word::Field(field)) => return Ok(Expr::Field(field)),
            Some(Word::Refused(reason)) => {
                format!("found `{word}`, which no condition can ask for: {reason}")
            }
            None if word.contains(':') => format!("found `{word}`, which is no intrinsic"),
            None => format!(
                "found `{word}`, expected a field or a value; an attribute is `.{word}` or `span.{word}`"
            ),
        };
        Err(self.error(at, message))
    }
}

fn attribute(scope: &str, name: &str) -> Field {
    let scope = match scope {
        "span" => Scope::Span,
        "resource" => Scope::Resource,
        "event" => Scope::Event,
        "link" => Scope::Link,
        "instrumentation" => Scope::Instrumentation,
        "tracestate" => return Field::TraceState(name.into()),
        "parent" => return of_parent(name),
        _ => Scope::Any,
    };
    Field::Attribute { scope, key: Key::new(name) }
}

/// `parent.x`, `parent.span.x` or `parent.resource.x`.
fn of_parent(name: &str) -> Field {
    let scoped = [("span.", Scope::Span), ("resource.", Scope::Resource)]
        .into_iter()
        .find_map(|(prefix, scope)| Some((scope, name.strip_prefix(prefix).filter(|key| !key.is_empty())?)));
    let (scope, key) = scoped.unwrap_or((Scope::Any, name));
    Field::ParentAttribute { scope, key: Key::new(key) }
}

/// A sign before a number is part of the number.
fn negative(node: Node) -> Expr {
    match node.expr {
        Expr::Literal(literal @ (Literal::Int(_) | Literal::Float(_) | Literal::Duration(_))) => {
            Expr::Literal(literal.negative())
        }
        _ => Expr::Negative(Box::new(node)),
    }
}
