//! Writes the Tailwater file: settings, policies, and as comments where each came from and what became of the rest.

use std::fmt::Write as _;

use super::policy::{self, Written};
use super::{Format, Kind, Note};

/// Columns that comments keep to.
const WIDTH: usize = 110;

/// A setting outside the policies: section, key, value and what it was.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) section: &'static str,
    pub(super) key: &'static str,
    pub(super) value: String,
    pub(super) origin: String,
}

/// All that goes into the file.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) settings: Vec<Setting>,
    pub(super) policies: Vec<Written>,
    pub(super) notes: Vec<Note>,
    /// Lines of YAML after the policies, from other sections of the foreign file.
    pub(super) rest: String,
}

impl Draft {
    pub(super) fn note(&mut self, kind: Kind, line: usize, what: impl Into<String>, why: impl Into<String>) {
        self.notes.push(Note { kind, line, what: what.into(), why: why.into() });
    }

    /// Takes a policy in, under a name of its own, or says that it cannot be said.
    pub(super) fn add(&mut self, policy: policy::Draft) {
        let (line, what) = (policy.line, format!("policy {} ({})", policy.name, policy.origin));
        let Some(written) = policy.written() else {
            let why = "it would take more than eight policies: TraceQL cannot say \"no span is\" within a condition";
            return self.note(Kind::LeftOut, line, what, why);
        };
        for mut written in written {
            written.draft.name = self.free_name(&written.draft.name);
            self.policies.push(written);
        }
    }

    fn free_name(&self, wanted: &str) -> String {
        let wanted = if wanted == "none" { "none-of-theirs" } else { wanted };
        let taken = |name: &str| self.policies.iter().any(|written| written.draft.name == name);
        let mut name = wanted.to_owned();
        let mut number = 2;
        while taken(&name) {
            name = format!("{wanted}-{number}");
            number += 1;
        }
        name
    }

    /// Why there is no policy.
    pub(super) fn nothing_said(&self) -> String {
        let left_out = self.notes.iter().filter(|note| note.kind == Kind::LeftOut);
        let reasons: Vec<String> = left_out.map(|note| format!("{}: {}", note.what, note.why)).collect();
        format!("none of these can be said: {}", reasons.join("; "))
    }
}

/// A plain or single-quoted YAML scalar. `${` is a variable here, so it is doubled where it is none.
pub(super) fn scalar(value: &str) -> String {
    let value = value.replace("${", "$${");
    let plain_signs = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    let word = value.starts_with(|c: char| c.is_ascii_alphabetic() || c == '.')
        && value.len() > 1
        && value.chars().all(plain_signs)
        && !value.chars().all(|c| c == '.')
        && !matches!(
            value.to_ascii_lowercase().as_str(),
            "true" | "false" | "null" | "yes" | "no" | "on" | "off"
        )
        && value.parse::<f64>().is_err();
    if word {
        value
    } else if value.contains(char::is_control) {
        format!("{value:?}")
    } else {
        format!("'{}'", value.replace('\'', "''"))
    }
}

/// Comment lines of at most [`WIDTH`] columns.
pub(super) fn comment(out: &mut String, indent: usize, text: &str) {
    let (margin, hanging) = (" ".repeat(indent), "  ");
    let mut line = String::new();
    let mut first = true;
    for word in text.split_whitespace() {
        let room = WIDTH - indent - 2 - if first { 0 } else { hanging.len() };
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > room {
            let _ = writeln!(out, "{margin}# {}{line}", if first { "" } else { hanging });
            (line, first) = (String::new(), false);
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    let _ = writeln!(out, "{margin}# {}{line}", if first { "" } else { hanging });
}

pub(super) fn file(format: Format, name: &str, draft: &Draft) -> String {
    let mut out = String::new();
    comment(&mut out, 0, &format!("Written by `tailwater convert --from {format}` from {name}."));
    out.push_str("#\n");
    for sentence in format.explanation() {
        comment(&mut out, 0, sentence);
    }
    budgets(&mut out, draft);
    listed(&mut out, &draft.notes, Kind::LeftOut, "Left out, because it cannot be said");
    listed(&mut out, &draft.notes, Kind::Differs, "Only nearly the same");
    listed(&mut out, &draft.notes, Kind::Settled, "Not needed");
    settings(&mut out, &draft.settings);
    out.push_str("\npolicies:\n");
    for written in &draft.policies {
        one_policy(&mut out, written);
    }
    out.push_str(&draft.rest);
    out
}

fn budgets(out: &mut String, draft: &Draft) {
    if draft.policies.iter().any(|written| written.draft.keep.at_most.is_some()) {
        comment(
            out,
            0,
            "A budget becomes a share that keeps to it on average over a minute, so that every kept trace has a \
             known weight; it is no bucket of tokens that the first traces of a second empty.",
        );
    }
}

/// Notes that belong to no policy that was written.
fn listed(out: &mut String, notes: &[Note], kind: Kind, title: &str) {
    let notes: Vec<&Note> = notes.iter().filter(|note| note.kind == kind).collect();
    if notes.is_empty() {
        return;
    }
    let _ = writeln!(out, "#\n# {title} ({}):", notes.len());
    for note in notes {
        comment(out, 0, &format!("- line {}, {}: {}", note.line, note.what, note.why));
    }
}

fn settings(out: &mut String, settings: &[Setting]) {
    let mut section = "";
    for setting in settings {
        if setting.section != section {
            section = setting.section;
            let _ = writeln!(out, "\n{section}:");
        }
        let pair = format!("{}: {}", setting.key, setting.value);
        let _ = writeln!(out, "  {pair:<24} # {}", setting.origin);
    }
}

fn one_policy(out: &mut String, written: &Written) {
    let draft = &written.draft;
    comment(out, 2, &format!("line {}: {}", draft.line, draft.origin));
    for sentence in draft.differs.iter().chain(&draft.comments) {
        comment(out, 2, sentence);
    }
    let _ = writeln!(out, "  - name: {}", scalar(&draft.name));
    for (key, condition) in [("match", &written.form.matches), ("unless", &written.form.unless)] {
        if let Some(condition) = condition {
            write_condition(out, key, condition);
        }
    }
    let _ = writeln!(out, "    keep: {}", draft.keep);
}

/// In quotes, because it has braces, or as a block if it is too long for a line. What looks like a variable is one.
fn write_condition(out: &mut String, key: &str, condition: &str) {
    let quoted = condition.replace('\'', "''");
    if quoted.chars().count() + key.len() + 8 <= WIDTH {
        let _ = writeln!(out, "    {key}: '{quoted}'");
        return;
    }
    let _ = writeln!(out, "    {key}: >-");
    for line in folded(condition) {
        let _ = writeln!(out, "      {line}");
    }
}

/// Lines that a folded block joins to the same text: cut before `&&` and `||` outside of quotes.
fn folded(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for chunk in chunks(text) {
        match lines.last_mut() {
            Some(line) if line.chars().count() + chunk.chars().count() + 7 <= WIDTH => {
                line.push(' ');
                line.push_str(&chunk);
            }
            _ => lines.push(chunk),
        }
    }
    lines
}

/// The operands of a condition, all but the first with the operator before it.
fn chunks(text: &str) -> Vec<String> {
    let (mut chunks, mut quote, mut escaped) = (vec![String::new()], None, false);
    for (number, word) in text.split(' ').enumerate() {
        let begins = quote.is_none() && matches!(word, "&&" | "||");
        for c in word.chars() {
            match quote {
                Some('"') if escaped => escaped = false,
                Some('"') if c == '\\' => escaped = true,
                Some(open) if c == open => quote = None,
                None if c == '"' || c == '`' => quote = Some(c),
                _ => {}
            }
        }
        match chunks.last_mut() {
            Some(chunk) if !begins => {
                chunk.push_str(if number > 0 { " " } else { "" });
                chunk.push_str(word);
            }
            _ => chunks.push(word.to_owned()),
        }
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_plain_and_the_rest_is_quoted() {
        let table = [
            ("errors", "errors"),
            ("slow-db.1", "slow-db.1"),
            ("it's", "'it''s'"),
            ("true", "'true'"),
            ("5", "'5'"),
            ("", "''"),
            ("a: b", "'a: b'"),
            ("${X}", "'$${X}'"),
            ("two\nlines", "\"two\\nlines\""),
        ];
        for (value, written) in table {
            assert_eq!(scalar(value), written, "{value}");
        }
    }

    #[test]
    fn a_long_condition_is_folded_outside_of_its_quotes() {
        let part = "span.a = \"two  words \\\" || {\" || span.b =~ `a b`";
        let condition = format!("{{ {} }}", [part; 6].join(" || "));
        let mut out = String::from("policy:\n");
        write_condition(&mut out, "match", &condition);
        let read: std::collections::HashMap<String, std::collections::HashMap<String, String>> =
            serde_saphyr::from_str(&out).unwrap();
        assert_eq!(read["policy"]["match"], condition, "{out}");
        assert!(out.lines().count() > 3, "{out}");
    }

    #[test]
    fn comments_keep_to_their_width() {
        let mut out = String::new();
        comment(&mut out, 2, &"word ".repeat(60));
        assert!(out.lines().count() > 1);
        assert!(out.lines().all(|line| line.chars().count() <= WIDTH && line.starts_with("  # ")), "{out}");
    }
}
