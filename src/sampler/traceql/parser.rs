//! Reads tokens into a tree.
//!
//! The grammar, the precedence and the left-to-right order of equals are Tempo's: `&&` and `||` bind
//! alike, then comparisons, `+ -`, `!`, `* / %`, and `^`, which alone groups to the right.
//! What TraceQL has beyond one `{ … }` is recognised and refused by name.

use super::error::QueryError;
use super::field::{Field, Scope, Word};
use super::lexer::{Placed, Token, tokens};
use super::value::{Arithmetic, Comparison, Literal};

/// How deep a condition may nest.
const DEPTH_MAX: usize = 100;

/// A part of a condition and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) at: usize,
    pub(crate) expr: Expr,
    depth: usize,
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

/// How strongly an operator binds, weakest first.
mod strength {
    pub(super) const LOGIC: u8 = 1;
    pub(super) const COMPARISON: u8 = 2;
    pub(super) const SUM: u8 = 3;
    pub(super) const NOT: u8 = 4;
    pub(super) const PRODUCT: u8 = 5;
    pub(super) const POWER: u8 = 6;
}

fn operator(mark: &str) -> Option<(Binary, u8)> {
    let compare = |comparison| (Binary::Compare(comparison), strength::COMPARISON);
    let sum = |arithmetic| (Binary::Arithmetic(arithmetic), strength::SUM);
    let product = |arithmetic| (Binary::Arithmetic(arithmetic), strength::PRODUCT);
    Some(match mark {
        "&&" => (Binary::And, strength::LOGIC),
        "||" => (Binary::Or, strength::LOGIC),
        "=" => compare(Comparison::Equal),
        "!=" => compare(Comparison::NotEqual),
        "<" => compare(Comparison::Less),
        "<=" => compare(Comparison::LessOrEqual),
        ">" => compare(Comparison::Greater),
        ">=" => compare(Comparison::GreaterOrEqual),
        "=~" => (Binary::Regex { negated: false }, strength::COMPARISON),
        "!~" => (Binary::Regex { negated: true }, strength::COMPARISON),
        "+" => sum(Arithmetic::Add),
        "-" => sum(Arithmetic::Subtract),
        "*" => product(Arithmetic::Multiply),
        "/" => product(Arithmetic::Divide),
        "%" => product(Arithmetic::Remainder),
        "^" => (Binary::Arithmetic(Arithmetic::Power), strength::POWER),
        _ => return None,
    })
}

/// The expression between the braces of a condition.
pub(crate) fn parse(text: &str) -> Result<Node, QueryError> {
    let tokens = tokens(text)?;
    let mut parser = Parser { text, tokens, next: 0, depth: 0 };
    let node = parser.spanset()?;
    parser.nothing_follows()?;
    Ok(node)
}

struct Parser<'a> {
    text: &'a str,
    /// Ends with [`Token::End`], which is never stepped over.
    tokens: Vec<Placed>,
    next: usize,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&self) -> &Placed {
        &self.tokens[self.next.min(self.tokens.len() - 1)]
    }

    fn take(&mut self) -> Placed {
        let placed = self.peek().clone();
        self.next += 1;
        placed
    }

    fn takes(&mut self, mark: &str) -> bool {
        let found = matches!(self.peek().token, Token::Mark(found) if found == mark);
        self.next += usize::from(found);
        found
    }

    fn error(&self, at: usize, message: impl Into<String>) -> QueryError {
        QueryError::new(self.text, at, message)
    }

    fn not_yet(&self, at: usize, construct: impl std::fmt::Display) -> QueryError {
        QueryError::not_yet(self.text, at, construct)
    }

    fn unexpected(&self, found: &Placed, expected: &str) -> QueryError {
        let end =
            self.tokens.iter().map(|placed| placed.at).find(|&at| at > found.at).unwrap_or(self.text.len());
        let message = match found.token {
            Token::End => format!("the condition ends here, expected {expected}"),
            _ => format!("found `{}`, expected {expected}", self.text[found.at..end].trim_end()),
        };
        self.error(found.at, message)
    }

    fn deeper(&mut self, at: usize) -> Result<(), QueryError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error(at, format!("nested more than {DEPTH_MAX} deep")));
        }
        Ok(())
    }

    /// `{ … }`, `{ }`, or one in parentheses.
    fn spanset(&mut self) -> Result<Node, QueryError> {
        let first = self.take();
        match &first.token {
            Token::Mark("{") => self.filter(first.at),
            Token::Mark("(") => {
                self.deeper(first.at)?;
                let node = self.spanset()?;
                if !self.takes(")") {
                    self.nothing_follows()?;
                    return Err(self.unexpected(&self.peek().clone(), "`)`"));
                }
                self.depth -= 1;
                Ok(node)
            }
            Token::Mark("!") => Err(self.error(
                first.at,
                "found `!`, expected `{`: TraceQL cannot negate a spanset; write it without `!` under `unless`",
            )),
            Token::Word(word) if stage(word).is_some() => Err(self.refuse_stage(first.at, word)),
            _ => Err(self.unexpected(&first, "a condition such as { status = error }")),
        }
    }

    fn filter(&mut self, at: usize) -> Result<Node, QueryError> {
        if self.takes("}") {
            return Ok(Node { at, expr: Expr::Literal(Literal::Bool(true)), depth: 1 });
        }
        let node = self.expression(strength::LOGIC)?;
        if self.takes("}") { Ok(node) } else { Err(self.unexpected(self.peek(), "`}` or an operator")) }
    }

    /// Refuses what relates, counts or selects spansets.
    fn nothing_follows(&self) -> Result<(), QueryError> {
        let found = self.peek();
        match &found.token {
            Token::End => Ok(()),
            Token::Mark("|") => match self.tokens.get(self.next + 1).map(|placed| &placed.token) {
                Some(Token::Word(word)) => Err(self.refuse_stage(found.at, word)),
                _ => Err(self.not_yet(found.at, "pipelines (`|`) are")),
            },
            Token::Mark(mark @ ("&&" | "||")) => {
                Err(self.not_yet(found.at, format!("several spansets (`{mark}` between braces) are")))
            }
            Token::Mark(mark) if mark.contains(['>', '<', '~']) => {
                Err(self.not_yet(found.at, format!("the structural operator `{mark}` is")))
            }
            Token::Word(word) if word == "with" => {
                Err(self
                    .error(found.at, "found `with`: hints belong to queries and are no part of a condition"))
            }
            _ => Err(self.unexpected(found, "the end of the condition")),
        }
    }

    fn refuse_stage(&self, at: usize, word: &str) -> QueryError {
        match stage(word) {
            Some(Stage::Aggregate) => self.not_yet(at, format!("the aggregate `{word}()` is")),
            Some(Stage::Grouping) => self.not_yet(at, format!("`{word}()` is")),
            Some(Stage::Query) => self
                .error(at, format!("found `{word}()`: it belongs to queries and is no part of a condition")),
            None => self.error(at, format!("found `| {word}`, expected an aggregate such as count()")),
        }
    }

    /// Precedence climbing: operators at least as strong as `weakest`.
    fn expression(&mut self, weakest: u8) -> Result<Node, QueryError> {
        let mut left = self.operand()?;
        loop {
            let Placed { token: Token::Mark(mark), at } = *self.peek() else { return Ok(left) };
            let Some((op, strength)) = operator(mark).filter(|(_, strength)| *strength >= weakest) else {
                return Ok(left);
            };
            self.next += 1;
            self.deeper(at)?;
            let groups_right = strength == strength::POWER;
            let right = self.expression(if groups_right { strength } else { strength + 1 })?;
            self.depth -= 1;
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
        if depth > DEPTH_MAX {
            return Err(self.error(op_at, format!("nested more than {DEPTH_MAX} deep")));
        }
        Ok(Node { at, expr, depth })
    }

    fn operand(&mut self) -> Result<Node, QueryError> {
        let placed = self.take();
        let at = placed.at;
        let expr = match placed.token {
            Token::Mark("(") => {
                self.deeper(at)?;
                let node = self.expression(strength::LOGIC)?;
                if !self.takes(")") {
                    return Err(self.unexpected(self.peek(), "`)` or an operator"));
                }
                self.depth -= 1;
                return Ok(node);
            }
            Token::Mark("-") => return self.prefixed(at, strength::SUM + 1, Expr::Negative),
            Token::Mark("!") => return self.prefixed(at, strength::NOT + 1, Expr::Not),
            Token::Text(text) => Expr::Literal(Literal::Text(text.into())),
            Token::Int(value) => Expr::Literal(Literal::Int(value)),
            Token::Float(value) => Expr::Literal(Literal::Float(value)),
            Token::Duration(value) => Expr::Literal(Literal::Duration(value)),
            Token::Attribute { scope, name } => Expr::Field(self.attribute(at, &scope, name)?),
            Token::Word(word) => self.word(at, &word)?,
            Token::Mark(_) | Token::End => return Err(self.unexpected(&placed, "a field or a value")),
        };
        Ok(Node { at, expr, depth: 1 })
    }

    fn prefixed(&mut self, at: usize, weakest: u8, wrap: fn(Box<Node>) -> Expr) -> Result<Node, QueryError> {
        self.deeper(at)?;
        let node = self.expression(weakest)?;
        self.depth -= 1;
        let depth = node.depth + 1;
        let expr = match wrap(Box::new(node)) {
            Expr::Negative(node) => negative(*node),
            expr => expr,
        };
        Ok(Node { at, expr, depth })
    }

    fn attribute(&self, at: usize, scope: &str, name: String) -> Result<Field, QueryError> {
        let scope = match scope {
            "" => Scope::Any,
            "span" => Scope::Span,
            "resource" => Scope::Resource,
            "event" => Scope::Event,
            "link" => Scope::Link,
            "instrumentation" => Scope::Instrumentation,
            "tracestate" => return Ok(Field::TraceState(name.into())),
            _ => return Err(self.not_yet(at, format!("the scope `{scope}.` is"))),
        };
        Ok(Field::Attribute { scope, key: name.into() })
    }

    fn word(&self, at: usize, word: &str) -> Result<Expr, QueryError> {
        if let Some(literal) = Literal::keyword(word) {
            return Ok(Expr::Literal(literal));
        }
        match Field::intrinsic(word) {
            Some(Word::Field(field)) => Ok(Expr::Field(field)),
            Some(Word::NotYet) => {
                let hint = if word == "nestedSetParent" { " (a root: parent = nil)" } else { "" };
                Err(self.not_yet(at, format!("`{word}`{hint} is")))
            }
            None if word.contains(':') => {
                Err(self.error(at, format!("found `{word}`, which is no intrinsic")))
            }
            None => Err(self.error(
                at,
                format!(
                    "found `{word}`, expected a field or a value; an attribute is `.{word}` or `span.{word}`"
                ),
            )),
        }
    }
}

/// A sign before a number is part of the number.
fn negative(node: Node) -> Expr {
    match node.expr {
        Expr::Literal(Literal::Int(value)) => Expr::Literal(Literal::Int(-value)),
        Expr::Literal(Literal::Float(value)) => Expr::Literal(Literal::Float(-value)),
        Expr::Literal(Literal::Duration(value)) => Expr::Literal(Literal::Duration(-value)),
        _ => Expr::Negative(Box::new(node)),
    }
}

/// What may stand after `|` in TraceQL.
enum Stage {
    Aggregate,
    Grouping,
    Query,
}

fn stage(word: &str) -> Option<Stage> {
    Some(match word {
        "count" | "avg" | "min" | "max" | "sum" => Stage::Aggregate,
        "by" | "coalesce" => Stage::Grouping,
        "select" | "with" | "rate" | "compare" | "topk" | "bottomk" => Stage::Query,
        word if word.ends_with("_over_time") => Stage::Query,
        _ => return None,
    })
}
