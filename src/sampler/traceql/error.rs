//! Why a text is no condition, and where.

use std::fmt;

/// A condition that cannot be compiled.
///
/// The message names what was found and what was expected, and of what TraceQL has and a condition cannot be, why.
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

    /// The line of the condition that is meant, and below it a caret.
    pub fn pointer(text: &str, offset: usize) -> String {
        let offset = if text.is_char_boundary(offset) { offset } else { text.len() };
        let (before, after) = text.split_at(offset);
        let begin = before.rfind('\n').map_or(0, |end| end + 1);
        let end = after.find('\n').map_or(text.len(), |end| offset + end);
        // Tabs keep their width, so that the caret stands below what it means.
        let indent: String = text[begin..offset].chars().map(|c| if c == '\t' { c } else { ' ' }).collect();
        format!("{}\n{indent}^", &text[begin..end])
    }
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column {}: {}", self.column, self.message)
    }
}

impl std::error::Error for QueryError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caret_stands_below_what_is_meant() {
        let text = "{ \u{e4} = 1 } &&\n\t{ wrong }";
        let offset = text.find("wrong").unwrap();
        assert_eq!(QueryError::pointer(text, offset), "\t{ wrong }\n\t  ^");
        assert_eq!(QueryError::pointer("{ \u{e4} = x }", 7), "{ \u{e4} = x }\n      ^");
        assert_eq!(QueryError::pointer("{", 1), "{\n ^");
    }
}
