//! `${NAME}` and `${NAME:-default}` in values.
//!
//! Values are expanded, not text: a variable can never add a key or a comment. Comments and keys are left
//! alone, `$${` stands for `${`, and every place in the expanded text can be found in the original one.

use std::collections::HashMap;
use std::ops::Range;

use serde_saphyr::Location;

use super::Mistake;
use super::mistake::Source;
use super::tree::{Kind, Node};

/// The text with its variables filled in, and how to find back.
#[derive(Debug)]
pub(super) struct Expanded {
    pub(super) text: String,
    /// In order: what stood at `original` now stands at `expanded`.
    edits: Vec<Edit>,
}

#[derive(Debug)]
struct Edit {
    original: Range<usize>,
    expanded: Range<usize>,
}

impl Expanded {
    /// The bytes of the original text that became these. What lies in an expanded value becomes all of it.
    pub(super) fn origin(&self, bytes: Range<usize>) -> Range<usize> {
        let mut shift = 0isize;
        for edit in &self.edits {
            if bytes.start < edit.expanded.start {
                break;
            }
            if bytes.start < edit.expanded.end {
                return edit.original.clone();
            }
            shift = edit.original.end as isize - edit.expanded.end as isize;
        }
        let moved = |at: usize| at.saturating_add_signed(shift);
        moved(bytes.start)..moved(bytes.end)
    }
}

/// Fills in the variables, in the text and in the document that was read from it.
pub(super) fn expand(
    source: Source<'_>,
    document: &mut Node,
    environment: &HashMap<String, String>,
) -> Result<Expanded, Mistake> {
    let mut values = Vec::new();
    collect(document, &mut values);
    let mut expanded = Expanded { text: String::with_capacity(source.text.len()), edits: Vec::new() };
    let mut copied = 0;
    for (at, value) in values {
        let Some(original) = bytes(at).filter(|bytes| bytes.start >= copied) else { continue };
        let filled = fill(value, environment).map_err(|message| source.mistake(at, message))?;
        expanded.text.push_str(&source.text[copied..original.start]);
        let start = expanded.text.len();
        expanded.text.push_str(&written(source.text, original.clone(), &filled, environment));
        copied = original.end;
        expanded.edits.push(Edit { original, expanded: start..expanded.text.len() });
        *value = filled;
    }
    expanded.text.push_str(&source.text[copied..]);
    Ok(expanded)
}

/// The values that name variables, in order of appearance.
fn collect<'a>(node: &'a mut Node, values: &mut Vec<(Location, &'a mut String)>) {
    match &mut node.kind {
        Kind::Empty => {}
        Kind::Scalar(value) if value.contains("${") => values.push((node.at, value)),
        Kind::Scalar(_) => {}
        Kind::List(items) => items.iter_mut().for_each(|item| collect(item, values)),
        Kind::Map(entries) => entries.iter_mut().for_each(|entry| collect(&mut entry.value, values)),
    }
}

pub(super) fn bytes(at: Location) -> Option<Range<usize>> {
    let span = at.span();
    let start = span.byte_offset()? as usize;
    Some(start..start + span.byte_len()? as usize)
}

/// A value with its variables filled in.
fn fill(value: &str, environment: &HashMap<String, String>) -> Result<String, String> {
    let mut filled = String::new();
    let mut rest = value;
    while let Some(at) = rest.find("${") {
        let (before, reference) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            filled.push_str(before);
            filled.push_str("${");
            rest = &reference[2..];
            continue;
        }
        filled.push_str(before);
        let end = reference.find('}').ok_or("\"${\" without \"}\"; \"$${\" stands for \"${\" itself")?;
        filled.push_str(&resolve(&reference[2..end], environment)?);
        rest = &reference[end + 1..];
    }
    filled.push_str(rest);
    Ok(filled)
}

/// The value of `NAME` or `NAME:-default`; the default also stands for an empty variable.
fn resolve(reference: &str, environment: &HashMap<String, String>) -> Result<String, String> {
    let (name, default) = match reference.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (reference, None),
    };
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !is_name {
        return Err(format!(
            "found \"${{{reference}}}\", expected ${{NAME}} or ${{NAME:-default}}; \"$${{\" stands for \"${{\" itself"
        ));
    }
    match (environment.get(name), default) {
        (Some(value), None) => Ok(value.clone()),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value.clone()),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => {
            Err(format!("the environment variable {name} is not set; ${{{name}:-…}} gives a default"))
        }
    }
}

/// The expanded value as YAML that reads back as itself, in the place of `original`.
fn written(
    text: &str,
    original: Range<usize>,
    filled: &str,
    environment: &HashMap<String, String>,
) -> String {
    let raw = &text[original.clone()];
    if in_block(&text[..original.start]) {
        // What was filled in the value can be filled in its lines.
        return fill(raw, environment).unwrap_or_default();
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./%+-".contains(c);
    if !raw.starts_with(['"', '\'']) && !filled.is_empty() && filled.chars().all(plain) {
        return filled.to_owned();
    }
    quoted(filled)
}

/// Whether what follows is the content of a `|` or `>` block.
fn in_block(before: &str) -> bool {
    let Some((above, indent)) = before.rsplit_once('\n') else { return false };
    let above = above.trim_end();
    indent.trim().is_empty() && ["|", ">", "|-", ">-", "|+", ">+"].iter().any(|sign| above.ends_with(sign))
}

/// A double-quoted scalar.
pub(super) fn quoted(value: &str) -> String {
    let mut text = String::with_capacity(value.len() + 2);
    text.push('"');
    for c in value.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            c if c.is_control() => text.push_str(&format!("\\U{:08X}", u32::from(c))),
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> HashMap<String, String> {
        [("A", "11s"), ("EMPTY", ""), ("ODD", "a: \"b\" # c\nd")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    #[test]
    fn variables_and_defaults_are_filled_in() {
        let table = [
            ("${A}", "11s"),
            ("x${A}y${B:-z}", "x11syz"),
            ("${EMPTY}", ""),
            ("${EMPTY:-full}", "full"),
            ("${B:-}", ""),
            ("$${A} costs $5", "${A} costs $5"),
        ];
        for (value, expected) in table {
            assert_eq!(fill(value, &environment()).as_deref(), Ok(expected), "{value}");
        }
    }

    #[test]
    fn what_cannot_be_filled_in_is_said() {
        assert!(fill("${B}", &environment()).unwrap_err().contains("B is not set"));
        assert!(fill("${A", &environment()).unwrap_err().contains("without"));
        assert!(fill("${A-b}", &environment()).unwrap_err().contains("expected ${NAME}"));
    }

    #[test]
    fn a_quoted_value_reads_back_as_itself() {
        for value in ["", "a: \"b\" # c\nd", "\\ \u{7} ü", "{"] {
            assert_eq!(serde_saphyr::from_str::<String>(&quoted(value)).unwrap(), value);
        }
    }
}
