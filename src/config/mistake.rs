//! What is wrong in a configuration file, where, and what was expected.

use std::borrow::Cow;
use std::fmt;

use serde_saphyr::{Error as Yaml, Location};

use super::expand::{self, Expanded};

/// One mistake, shown as compilers show theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Lines and columns count characters from 1; 0 when there is no position.
    pub line: usize,
    pub column: usize,
    pub message: String,
    /// The line of the file, and how many of its characters are meant.
    pub excerpt: Option<(String, usize)>,
}

/// Why a configuration file is refused: all that was found wrong, in order of appearance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    pub file: String,
    pub mistakes: Vec<Mistake>,
}

impl ConfigError {
    /// About the file as a whole.
    pub fn of_file(file: &str, message: impl Into<String>) -> Self {
        let mistake = Mistake { line: 0, column: 0, message: message.into(), excerpt: None };
        Self { file: file.to_owned(), mistakes: vec![mistake] }
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            mistake.render(&self.file, f)?;
        }
        Ok(())
    }
}

impl Mistake {
    /// `file:line:column: message`, then the line with a caret below what is meant.
    pub(crate) fn render(&self, file: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            return write!(f, "{file}: {}", self.message);
        }
        write!(f, "{file}:{}:{}: {}", self.line, self.column, self.message)?;
        let Some((text, width)) = &self.excerpt else { return Ok(()) };
        let margin = " ".repeat(self.line.to_string().len());
        let (text, before) = cut(text, self.column - 1);
        // Tabs keep their width, so that the caret stands below what it means.
        let indent: String = text.chars().take(before).map(|c| if c == '\t' { c } else { ' ' }).collect();
        let carets = "^".repeat((*width).min(text.chars().count().saturating_sub(before)).max(1));
        write!(f, "\n {margin} |\n {} | {text}\n {margin} | {indent}{carets}", self.line)
    }
}

/// So much of a long line as fits beside what is meant, and how many characters of it stand before that.
fn cut(text: &str, before: usize) -> (Cow<'_, str>, usize) {
    const SHOWN_MAX: usize = 160;
    const BEFORE_MAX: usize = 60;
    let length = text.chars().count();
    if length <= SHOWN_MAX {
        return (Cow::Borrowed(text), before);
    }
    let skipped = before.saturating_sub(BEFORE_MAX);
    let shown: String = text.chars().skip(skipped).take(SHOWN_MAX).collect();
    let head = if skipped > 0 { "…" } else { "" };
    let tail = if skipped + SHOWN_MAX < length { "…" } else { "" };
    (Cow::Owned(format!("{head}{shown}{tail}")), before - skipped + head.chars().count())
}

/// The text of a configuration file, to point into.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    pub(crate) text: &'a str,
}

/// Line and column, from 1, of a byte of the text.
pub(crate) fn place(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.rsplit_once('\n').map_or(before, |(_, line)| line);
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

impl<'a> Source<'a> {
    /// A mistake about what stands at `at`.
    pub(crate) fn mistake(self, at: Location, message: impl Into<String>) -> Mistake {
        self.mistake_at(at.line() as usize, at.column() as usize, self.width(at), message)
    }

    /// A mistake at a place in the text, `width` characters long as far as its line goes.
    pub(crate) fn mistake_at(
        self,
        line: usize,
        column: usize,
        width: usize,
        message: impl Into<String>,
    ) -> Mistake {
        let text = self.line(line);
        let room = (text.chars().count() + 1).saturating_sub(column);
        let excerpt = (line > 0 && column > 0).then(|| (text.to_owned(), width.min(room)));
        Mistake { line, column, message: message.into(), excerpt }
    }

    /// What stands at `at`, on its first line.
    pub(crate) fn raw(self, at: Location) -> &'a str {
        let span = at.span();
        let start = span.byte_offset().unwrap_or_default() as usize;
        let length = span.byte_len().unwrap_or_default() as usize;
        let rest = self.text.get(start..).unwrap_or_default();
        let raw = match length {
            0 => rest.split([' ', ',', '}', ']', '\n']).next().unwrap_or_default(),
            length => rest.get(..length).unwrap_or(rest),
        };
        raw.lines().next().unwrap_or_default().trim_end()
    }

    fn line(self, line: usize) -> &'a str {
        line.checked_sub(1).and_then(|above| self.text.lines().nth(above)).unwrap_or_default()
    }

    fn width(self, at: Location) -> usize {
        self.raw(at).chars().count()
    }

    /// The mistake that the YAML reader found.
    pub(crate) fn mistake_of(self, error: &Yaml) -> Mistake {
        let error = error.without_snippet();
        let at = error.location().unwrap_or(Location::UNKNOWN);
        self.mistake(at, self.explain(error, at))
    }

    /// The mistake that the YAML reader found in the expansion of this text.
    pub(super) fn mistake_of_expanded(self, expanded: &Expanded, error: &Yaml) -> Mistake {
        let error = error.without_snippet();
        let at = error.location().unwrap_or(Location::UNKNOWN);
        let message = Source { text: &expanded.text }.explain(error, at);
        let Some(bytes) = expand::bytes(at) else { return self.mistake(at, message) };
        let origin = expanded.origin(bytes);
        let (line, column) = place(self.text, origin.start);
        let raw = self.text.get(origin).filter(|raw| !raw.is_empty());
        let width = raw
            .map_or(self.token(line, column), |raw| raw.lines().next().unwrap_or_default().chars().count());
        self.mistake_at(line, column, width, message)
    }

    /// How many characters from here to the end of the word.
    fn token(self, line: usize, column: usize) -> usize {
        let text = self.line(line);
        text.chars().skip(column.saturating_sub(1)).take_while(|c| !" ,}]".contains(*c)).count()
    }

    fn explain(self, error: &Yaml, at: Location) -> String {
        let found = self.raw(at);
        match error {
            Yaml::Message { msg, .. } => msg.clone(),
            Yaml::SerdeUnknownField { field, expected, .. } => unknown("key", field, expected),
            Yaml::SerdeUnknownVariant { variant, expected, .. } => unknown("value", variant, expected),
            Yaml::SerdeMissingField { field, .. } => format!("the key \"{field}\" is missing"),
            Yaml::SerdeInvalidType { unexpected, expected, .. }
            | Yaml::SerdeInvalidValue { unexpected, expected, .. } => {
                format!("found {unexpected}, expected {expected}")
            }
            Yaml::InvalidScalar { ty, .. } => format!("found {}, expected {ty}", in_quotes(found)),
            Yaml::Unexpected { expected, .. } => {
                format!("found {}, expected {}", in_quotes(found), plainly(expected))
            }
            Yaml::MultipleDocuments { .. } => "a second document begins here, expected one".to_owned(),
            Yaml::DuplicateMappingKey { key: Some(key), .. } => {
                format!("the key \"{key}\" stands here twice")
            }
            other if self.line(at.line() as usize).contains("${") => format!(
                "{}; between braces or brackets \"${{NAME}}\" stands in quotes",
                without_position(&other.to_string())
            ),
            other => without_position(&other.to_string()),
        }
    }
}

fn in_quotes(found: &str) -> String {
    if found.starts_with(['"', '\'']) { found.to_owned() } else { format!("\"{found}\"") }
}

/// The reader's words for what it expected, in those of people who write YAML.
fn plainly(expected: &str) -> &str {
    match expected {
        "mapping start" => "keys with values",
        "sequence start" => "a list",
        "string scalar" | "scalar" => "a single value",
        other => other,
    }
}

fn unknown(what: &str, found: &str, expected: &[&str]) -> String {
    let allowed = match expected {
        [] => "none".to_owned(),
        [one] => format!("\"{one}\""),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    };
    match nearest(found, expected) {
        Some(near) => format!("unknown {what} \"{found}\", did you mean \"{near}\"? (expected {allowed})"),
        None => format!("unknown {what} \"{found}\", expected {allowed}"),
    }
}

/// The candidate that a slip of the fingers could have turned into `found`.
pub(crate) fn nearest<'a>(found: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let slips = (found.chars().count() / 3).max(1);
    let distances = candidates.iter().map(|&candidate| (distance(found, candidate), candidate));
    distances
        .filter(|(distance, _)| *distance <= slips)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, near)| near)
}

/// Levenshtein's distance, in characters.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, r) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(l != *r);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

/// The reader appends the position, which is already said.
fn without_position(message: &str) -> String {
    let first = message.lines().next().unwrap_or(message);
    first.split(" at line ").next().unwrap_or(first).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_cut_around_what_is_meant() {
        let line = format!("{}here{}", "x".repeat(500), "y".repeat(500));
        let shown = ConfigError {
            file: "f".to_owned(),
            mistakes: vec![Source { text: &line }.mistake_at(1, 501, 4, "m")],
        };
        let shown = shown.to_string();
        let lines: Vec<&str> = shown.lines().collect();
        assert!(
            lines[2].chars().count() < 170 && lines[2].starts_with(" 1 | …x") && lines[2].ends_with("y…")
        );
        let at = lines[3].chars().position(|c| c == '^').unwrap();
        assert_eq!(lines[2].chars().skip(at).take(4).collect::<String>(), "here");
        assert!(lines[3].ends_with(" ^^^^"));
    }

    #[test]
    fn a_slip_finds_its_key_and_a_stranger_does_not() {
        let keys = ["policies", "buffer", "after_root"];
        assert_eq!(nearest("polices", &keys), Some("policies"));
        assert_eq!(nearest("afterroot", &keys), Some("after_root"));
        assert_eq!(nearest("kafka", &keys), None);
    }

    #[test]
    fn carets_stand_below_what_is_meant() {
        let source = Source { text: "data:\n  disk: 20Gib\n" };
        let error = ConfigError {
            file: "t.yaml".to_owned(),
            mistakes: vec![source.mistake_at(2, 9, 5, "no such unit")],
        };
        let expected = "t.yaml:2:9: no such unit\n   |\n 2 |   disk: 20Gib\n   |         ^^^^^";
        assert_eq!(error.to_string(), expected);
    }
}
