//! Whatever is done to a file, it is converted to one that passes `tailwater check`, or refused. `PROPTEST_CASES` says how
//! many are tried.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::{Format, convert};
use crate::config;

const FILES: [(Format, &str); 2] = [
    (Format::Collector, include_str!("../../tests/convert/collector.yaml")),
    (Format::Refinery, include_str!("../../tests/convert/refinery.yaml")),
];

const WORDS: [&str; 64] = [
    "",
    "0",
    "-1",
    "1",
    "5.5",
    "1e9",
    "100",
    "9223372036854775807",
    "99999999999999999999",
    "true",
    "False",
    "null",
    "~",
    "{}",
    "[]",
    "[a, b]",
    "{ a: b }",
    "'",
    "\"",
    "#",
    "%",
    "*",
    "&a",
    "*a",
    "<<: *a",
    "!!str 5",
    "|-",
    ">",
    "- ",
    ": ",
    "é",
    "${env:VIP_TIER}",
    "${TOKEN}",
    "${TOKEN:-10}",
    "$",
    "$$",
    "${",
    "\\",
    "`",
    "(",
    "^a$",
    ".*",
    "[",
    "a|b",
    "in",
    "not-in",
    "matches",
    "exists",
    "has-root-span",
    "!=",
    "root.a",
    "meta.x",
    "?.NUM_DESCENDANTS",
    "duration_ms",
    "error",
    "always_sample",
    "not",
    "and",
    "composite",
    "probabilistic",
    "rate_limiting",
    "10s",
    "0s",
    "none",
];

#[derive(Clone, Debug)]
enum Change {
    Word(Index, &'static str),
    Insert(Index, &'static str),
    DeleteLine(Index),
    RepeatLine(Index),
    SwapLines(Index, Index),
    Indent(Index, usize),
    Cut(Index),
}

fn change() -> impl Strategy<Value = Change> {
    let at = || any::<Index>();
    let word = || select(WORDS.to_vec());
    prop_oneof![
        6 => (at(), word()).prop_map(|(at, word)| Change::Word(at, word)),
        2 => (at(), word()).prop_map(|(at, word)| Change::Insert(at, word)),
        2 => at().prop_map(Change::DeleteLine),
        2 => at().prop_map(Change::RepeatLine),
        1 => (at(), at()).prop_map(|(a, b)| Change::SwapLines(a, b)),
        1 => (at(), 0..8_usize).prop_map(|(at, indent)| Change::Indent(at, indent)),
        1 => at().prop_map(Change::Cut),
    ]
}

fn changed(text: &str, change: &Change) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let boundary = |at: &Index| {
        let boundaries: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        boundaries[at.index(boundaries.len())]
    };
    if lines.is_empty() {
        return text.to_owned();
    }
    let count = lines.len();
    match change {
        Change::Word(at, word) => return with_word(text, boundary(at), word),
        Change::Insert(at, word) => {
            let (before, after) = text.split_at(boundary(at));
            return format!("{before}{word}{after}");
        }
        Change::Cut(at) => return text[..boundary(at)].to_owned(),
        Change::DeleteLine(at) => _ = lines.remove(at.index(count)),
        Change::RepeatLine(at) => lines.insert(at.index(count), lines[at.index(count)].clone()),
        Change::SwapLines(a, b) => lines.swap(a.index(count), b.index(count)),
        Change::Indent(at, indent) => {
            let line = &mut lines[at.index(count)];
            *line = format!("{}{}", " ".repeat(*indent), line.trim_start());
        }
    }
    lines.join("\n") + "\n"
}

/// Puts the word in the place of the one that the byte belongs to.
fn with_word(text: &str, at: usize, word: &str) -> String {
    let ends = |c: char| c.is_whitespace() || "{}[],:'\"".contains(c);
    let begin = text[..at].rfind(ends).map_or(0, |found| found + 1);
    let end = text[at..].find(ends).map_or(text.len(), |found| at + found);
    format!("{}{word}{}", &text[..begin], &text[end.max(begin)..])
}

proptest! {
    #[test]
    fn whatever_is_changed_is_refused_or_passes_check(
        file in select(FILES.to_vec()),
        changes in prop::collection::vec(change(), 1..5),
    ) {
        let (format, text) = file;
        let text = changes.iter().fold(text.to_owned(), |text, change| changed(&text, change));
        let Ok(converted) = convert(format, &text, "theirs.yaml", None) else { return Ok(()) };
        let environment = [("VIP_TIER", "platinum"), ("TOKEN", "5")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let read = config::inspect_with(&converted.text, "ours.yaml".as_ref(), environment.into());
        if let Err(error) = read {
            // A text of theirs may name any variable.
            let unset = |message: &str| message.contains("is not set");
            let wrong: Vec<_> = error.mistakes.iter().filter(|wrong| !unset(&wrong.message)).collect();
            prop_assert!(wrong.is_empty(), "{:?}\n--- theirs\n{}\n--- ours\n{}", wrong, text, converted.text);
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in any::<String>(), format in select(vec![Format::Collector, Format::Refinery])) {
        let _ = convert(format, &text, "theirs.yaml", None);
    }
}
