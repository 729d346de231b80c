//! Where a byte of a value stands in the file: between the value and its text lie quotes, escapes and indents.

use serde_saphyr::Location;

use super::mistake::{self, Source};

/// Line and column, from 1, of byte `offset` of `value`, whose text is at `at`. `None` where the text is not the
/// value, as with variables or folded lines.
pub(super) fn within(source: Source<'_>, at: Location, value: &str, offset: usize) -> Option<(usize, usize)> {
    let start = usize::try_from(at.span().byte_offset()?).ok()?;
    let text = source.text.get(start..)?;
    // Of the lines of a block, as deep as its first.
    let indent = usize::try_from(at.column()).ok()?.saturating_sub(1);
    let raw = match text.as_bytes().first()? {
        b'\'' => 1 + skip(&text[1..], value, offset, single_quoted)?,
        b'"' => 1 + skip(&text[1..], value, offset, double_quoted)?,
        _ => skip(text, value, offset, |text, c| plain(text, c, indent))?,
    };
    Some(mistake::place(source.text, start + raw))
}

/// How many bytes of `text` write the first `offset` bytes of `value`, one character after the other.
fn skip(
    text: &str,
    value: &str,
    offset: usize,
    written: impl Fn(&str, char) -> Option<usize>,
) -> Option<usize> {
    let mut at = 0;
    for c in value.get(..offset.min(value.len()))?.chars() {
        at += written(text.get(at..)?, c)?;
    }
    Some(at)
}

fn single_quoted(text: &str, c: char) -> Option<usize> {
    let written = if c == '\'' { "''".len() } else { c.len_utf8() };
    (text.starts_with(c)).then_some(written)
}

fn double_quoted(text: &str, c: char) -> Option<usize> {
    let Some(escaped) = text.strip_prefix('\\') else {
        return text.starts_with(c).then_some(c.len_utf8());
    };
    let same = |sign: char| escaped.starts_with(sign).then_some(2);
    match c {
        '"' | '\\' | '/' => same(c),
        '\n' => same('n'),
        '\t' => same('t'),
        _ => None,
    }
}

/// A line end takes the indent of the next line with it, which is not part of the value.
fn plain(text: &str, c: char, indent: usize) -> Option<usize> {
    let rest = text.strip_prefix(c)?;
    let spaces = rest.bytes().take(indent).take_while(|byte| *byte == b' ').count();
    Some(c.len_utf8() + if c == '\n' { spaces } else { 0 })
}

#[cfg(test)]
mod tests {
    use serde_saphyr::Spanned;

    use super::*;

    /// The text from where the byte stands to the end of its line.
    fn rest(text: &str, offset: usize) -> Option<String> {
        let value: Spanned<String> = serde_saphyr::from_str(text).unwrap();
        let (line, column) = within(Source { text }, value.referenced, &value.value, offset)?;
        let line = text.lines().nth(line - 1).unwrap();
        Some(line.chars().skip(column - 1).collect())
    }

    #[test]
    fn quotes_and_escapes_are_stepped_over() {
        assert_eq!(rest("'{ it''s wrong }'", 7).as_deref(), Some("wrong }'"));
        assert_eq!(rest(r#""{ a = \"b\" wrong }""#, 10).as_deref(), Some("wrong }\""));
        assert_eq!(rest("plain wrong", 6).as_deref(), Some("wrong"));
    }

    #[test]
    fn lines_of_a_block_are_found() {
        let text = "|\n    { a\n      wrong }\n";
        assert_eq!(rest(text, 6).as_deref(), Some("wrong }"));
    }

    #[test]
    fn what_is_written_otherwise_is_not_found() {
        assert_eq!(rest(r#""\x41 wrong""#, 2), None);
    }
}
