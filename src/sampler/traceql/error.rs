//! Why a text is no condition, and where.

use std::fmt;

/// A condition that cannot be compiled.
///
/// The message names what was found and what was expected, or says "not supported yet" of what TraceQL
/// has and Tailwater does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryError {
    /// Byte offset into the text of the condition.
    pub offset: usize,
    /// Character of the text, counted from 1.
    pub column: usize,
    pub message: String,
}

impl QueryError {
    pub(super) fn new(text: &str, offset: usize, message: impl Into<String>) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        Self { offset, column: before.chars().count() + 1, message: message.into() }
    }

    pub(super) fn not_yet(text: &str, offset: usize, construct: impl fmt::Display) -> Self {
        Self::new(text, offset, format!("{construct} not supported yet"))
    }
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column {}: {}", self.column, self.message)
    }
}

impl std::error::Error for QueryError {}
