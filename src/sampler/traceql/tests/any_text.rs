//! Whatever text comes, it is compiled or refused with its place. `PROPTEST_CASES` says how many are tried.

use proptest::prelude::*;

use super::{QueryError, compiled};

/// Pieces that make a condition likely.
const PIECES: [&str; 52] = [
    "{",
    "}",
    "(",
    ")",
    "=",
    "!=",
    "=~",
    "!~",
    "<",
    ">=",
    ">>",
    "!<<",
    "&&",
    "||",
    "!",
    "-",
    "+",
    "*",
    "/",
    "%",
    "^",
    "|",
    "~",
    "span.a",
    ".b",
    "resource.\"c d\"",
    "parent.x",
    "event:name",
    "link:spanID",
    "name",
    "status",
    "error",
    "duration",
    "nil",
    "true",
    "5",
    "5.5",
    "10ms",
    "\"text\"",
    "`raw`",
    "count()",
    "by(",
    "by(name)",
    "coalesce()",
    "max(",
    "sum(duration)",
    "{ }",
    "{ .a = 1 }",
    "&>",
    "childCount",
    "é",
    "\"(\"",
];

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        let _ = compiled(&text);
    }

    #[test]
    fn no_sequence_of_tokens_makes_it_panic(pieces in prop::collection::vec(0..PIECES.len(), 0..24), braced: bool) {
        let inner = pieces.iter().map(|&piece| PIECES[piece]).collect::<Vec<_>>().join(" ");
        let text = if braced { format!("{{ {inner} }}") } else { inner };
        if let Err(error) = compiled(&text) {
            prop_assert!(text.is_char_boundary(error.offset) && !error.message.is_empty());
        }
    }

    #[test]
    fn no_mutation_of_a_condition_makes_it_panic(
        query in crate::sampler::traceql::naive::query(),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0..PIECES.len(), 0..3_usize), 1..4),
    ) {
        let mut text = query;
        for (at, piece, cut) in cuts {
            let boundaries: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
            let Some(begin) = boundaries.get(at.index(boundaries.len() + 1)) else { continue };
            let end = text[*begin..].char_indices().nth(cut).map_or(text.len(), |(len, _)| begin + len);
            text.replace_range(begin..&end, PIECES[piece]);
        }
        if let Err(error) = compiled(&text) {
            prop_assert!(text.is_char_boundary(error.offset) && !QueryError::pointer(&text, error.offset).is_empty());
        }
    }
}
