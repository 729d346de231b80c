//! Reads tokens into a tree: [`spansets`](super::spansets) what stands outside of braces,
//! [`expression`](super::expression) what stands between them.
//!
//! The grammar, the precedence and the left-to-right order of equals are Tempo's: `|` binds weakest, then `&&` and
//! `||` alike, then comparisons and structural operators, `+ -`, `!`, `* / %`, and `^`, which alone groups to the right.

use super::ast::{Binary, Pipeline};
use super::error::QueryError;
use super::lexer::{Placed, Token, tokens};
use super::value::{Arithmetic, Comparison};

/// How deep a condition may nest.
const DEPTH_MAX: usize = 50;

/// How strongly an operator binds, weakest first.
pub(super) mod strength {
    pub(crate) const LOGIC: u8 = 1;
    pub(crate) const COMPARISON: u8 = 2;
    pub(crate) const SUM: u8 = 3;
    pub(crate) const NOT: u8 = 4;
    pub(crate) const PRODUCT: u8 = 5;
    pub(crate) const POWER: u8 = 6;
}

/// What a mark means between two values, and how strongly it binds.
pub(super) fn operator(mark: &str) -> Option<(Binary, u8)> {
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

/// Reads a whole condition.
pub(crate) fn parse(text: &str) -> Result<Pipeline, QueryError> {
    let tokens = tokens(text)?;
    let mut parser = Parser { text, tokens, next: 0, depth: 0 };
    let pipeline = parser.condition()?;
    parser.nothing_follows()?;
    Ok(pipeline)
}

/// A place among the tokens.
pub(super) struct Parser<'a> {
    text: &'a str,
    /// Ends with [`Token::End`], which is never stepped over.
    tokens: Vec<Placed>,
    next: usize,
    depth: usize,
}

impl Parser<'_> {
    pub(super) fn peek(&self) -> &Placed {
        &self.tokens[self.next.min(self.tokens.len() - 1)]
    }

    pub(super) fn take(&mut self) -> Placed {
        let placed = self.peek().clone();
        self.next += 1;
        placed
    }

    /// Steps over the mark, if it is the next token.
    pub(super) fn takes(&mut self, mark: &str) -> bool {
        let found = self.is_at(mark);
        self.next += usize::from(found);
        found
    }

    pub(super) fn is_at(&self, mark: &str) -> bool {
        matches!(self.peek().token, Token::Mark(found) if found == mark)
    }

    /// The next mark and its place, if a mark is next.
    pub(super) fn mark(&self) -> Option<(&'static str, usize)> {
        match *self.peek() {
            Placed { token: Token::Mark(mark), at } => Some((mark, at)),
            _ => None,
        }
    }

    pub(super) fn expect(&mut self, mark: &str, expected: &str) -> Result<(), QueryError> {
        if self.takes(mark) { Ok(()) } else { Err(self.unexpected(self.peek(), expected)) }
    }

    pub(super) fn error(&self, at: usize, message: impl Into<String>) -> QueryError {
        QueryError::new(self.text, at, message)
    }

    pub(super) fn unexpected(&self, found: &Placed, expected: &str) -> QueryError {
        let end =
            self.tokens.iter().map(|placed| placed.at).find(|&at| at > found.at).unwrap_or(self.text.len());
        let message = match found.token {
            Token::End => format!("the condition ends here, expected {expected}"),
            _ => format!("found `{}`, expected {expected}", self.text[found.at..end].trim_end()),
        };
        self.error(found.at, message)
    }

    /// Goes one level down for `parse`.
    pub(super) fn deeper<T>(
        &mut self,
        at: usize,
        parse: impl FnOnce(&mut Self) -> Result<T, QueryError>,
    ) -> Result<T, QueryError> {
        self.depth += 1;
        self.bounded(at, self.depth)?;
        let parsed = parse(self)?;
        self.depth -= 1;
        Ok(parsed)
    }

    /// Refuses a tree of more levels than the stack is sure to have.
    pub(super) fn bounded(&self, at: usize, depth: usize) -> Result<(), QueryError> {
        if depth > DEPTH_MAX {
            return Err(self.error(at, format!("nested more than {DEPTH_MAX} deep")));
        }
        Ok(())
    }

    fn nothing_follows(&self) -> Result<(), QueryError> {
        let found = self.peek();
        match &found.token {
            Token::End => Ok(()),
            Token::Word(word) if word == "with" => {
                Err(self
                    .error(found.at, "found `with`: hints belong to queries and are no part of a condition"))
            }
            _ => Err(self.unexpected(found, "the end of the condition, `|` or an operator")),
        }
    }
}
