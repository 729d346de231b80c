//! Writes TraceQL: names, texts, regular expressions, and what stands between braces.

use regex::Regex;

/// The scopes an attribute can be asked of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// The span's, else the resource's.
    Any,
    Span,
    Resource,
    Event,
    Instrumentation,
    TraceState,
}

impl Scope {
    fn prefix(self) -> &'static str {
        match self {
            Self::Any => ".",
            Self::Span => "span.",
            Self::Resource => "resource.",
            Self::Event => "event.",
            Self::Instrumentation => "instrumentation.",
            Self::TraceState => "tracestate.",
        }
    }
}

/// An attribute's name, in quotes where it has a sign that would end it.
pub(super) fn attribute(scope: Scope, key: &str) -> String {
    let ends = |c: char| c.is_whitespace() || "{}()=~!<>&|^,\"\\".contains(c);
    // Without a scope before it a digit would begin a number.
    let is_number = scope == Scope::Any && key.starts_with(|c: char| c.is_ascii_digit());
    if key.is_empty() || key.contains(ends) || is_number {
        format!("{}\"{}\"", scope.prefix(), key.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        format!("{}{key}", scope.prefix())
    }
}

/// A number as TraceQL reads it: what does not fit an integer has a fraction or an exponent.
pub(super) fn number(text: &str) -> Option<String> {
    if let Ok(whole) = text.parse::<i64>() {
        return Some(whole.to_string());
    }
    let number: f64 = text.parse().ok()?;
    number.is_finite().then(|| format!("{number:?}"))
}

/// A text in quotes, with as few escapes as possible.
pub(super) fn text(value: &str) -> String {
    let raw = value.contains(['\\', '"']) && !value.contains(['`', '\n', '\r']);
    if raw {
        return format!("`{value}`");
    }
    let mut quoted = String::from('"');
    for c in value.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Why a text is no regular expression, in one line.
pub(super) fn regex_fault(pattern: &str) -> Option<String> {
    let error = Regex::new(pattern).err()?.to_string();
    let last = error.lines().last().unwrap_or_default();
    Some(last.strip_prefix("error: ").unwrap_or(last).to_owned())
}

/// One regular expression for the whole of a text that has a match of one of `patterns` anywhere in it: Go's
/// search in a text, TraceQL compares the whole.
pub(super) fn anywhere<'a>(patterns: impl IntoIterator<Item = &'a str>) -> String {
    let whole: Vec<String> = patterns.into_iter().map(whole_of).collect();
    whole.join("|")
}

fn whole_of(pattern: &str) -> String {
    if pattern.contains('|') || pattern.starts_with("(?") {
        return format!(".*({pattern}).*");
    }
    let (head, rest) = match pattern.strip_prefix('^') {
        Some(rest) => ("", rest),
        None if pattern.starts_with(".*") => ("", pattern),
        None => (".*", pattern),
    };
    let escaped = |rest: &str| rest.chars().rev().take_while(|c| *c == '\\').count() % 2 == 1;
    match rest.strip_suffix('$').filter(|rest| !escaped(rest)) {
        Some(rest) => format!("{head}{rest}"),
        None if rest.strip_suffix(".*").is_some_and(|rest| !escaped(rest)) => format!("{head}{rest}"),
        None => format!("{head}{rest}.*"),
    }
}

/// A condition on one span, without the braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Inner {
    text: String,
    joint: Joint,
}

/// What holds its outermost parts together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Joint {
    None,
    And,
    Or,
}

impl Inner {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), joint: Joint::None }
    }

    pub(super) fn all(parts: Vec<Self>) -> Self {
        Self::joined(parts, Joint::And, " && ", "true")
    }

    pub(super) fn any(parts: Vec<Self>) -> Self {
        Self::joined(parts, Joint::Or, " || ", "false")
    }

    /// True of the spans of which it was not.
    pub(super) fn negated(self) -> Self {
        Self::new(format!("!({})", self.text))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// `&&` and `||` bind alike, so parts that are joined otherwise stand in parentheses. Each part once.
    fn joined(mut parts: Vec<Self>, joint: Joint, sign: &str, of_none: &str) -> Self {
        if parts.len() < 2 {
            return parts.pop().unwrap_or_else(|| Self::new(of_none));
        }
        let mut texts: Vec<String> = Vec::with_capacity(parts.len());
        for part in parts {
            let alone = part.joint == Joint::None || part.joint == joint;
            let text = if alone { part.text } else { format!("({})", part.text) };
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let joint = if texts.len() == 1 { Joint::None } else { joint };
        Self { text: texts.join(sign), joint }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_becomes_a_comparison_of_the_whole() {
        let table = [
            ("/live", ".*/live.*"),
            ("^Get", "Get.*"),
            ("List$", ".*List"),
            ("^exact$", "exact"),
            (".*", ".*"),
            ("^a|b$", ".*(^a|b$).*"),
            (r"price\$", r".*price\$.*"),
            ("(?i)get", ".*((?i)get).*"),
        ];
        for (pattern, whole) in table {
            assert_eq!(anywhere([pattern]), whole, "{pattern}");
            let found = Regex::new(&format!("^(?:{whole})$")).unwrap();
            for sample in
                ["Get it", "List", "a List", "exact", "not exact", "GET /live/x", "price$", "b", "xb"]
            {
                assert_eq!(
                    found.is_match(sample),
                    Regex::new(pattern).unwrap().is_match(sample),
                    "{pattern} {sample}"
                );
            }
        }
    }

    #[test]
    fn names_and_texts_are_quoted_only_where_they_must_be() {
        assert_eq!(attribute(Scope::Span, "http.status-code"), "span.http.status-code");
        assert_eq!(attribute(Scope::Resource, "a b"), "resource.\"a b\"");
        assert_eq!(attribute(Scope::Any, "q\"t"), ".\"q\\\"t\"");
        assert_eq!(text("plain"), "\"plain\"");
        assert_eq!(text(r"\d+"), r"`\d+`");
        assert_eq!(text("a`\\"), "\"a`\\\\\"");
        assert_eq!(text("two\nlines"), "\"two\\nlines\"");
    }

    #[test]
    fn parts_that_are_joined_otherwise_stand_in_parentheses() {
        let part = |text: &str| Inner::new(text);
        let either = Inner::any(vec![part("a"), part("b")]);
        assert_eq!(Inner::all(vec![either.clone(), part("c")]).as_str(), "(a || b) && c");
        assert_eq!(Inner::any(vec![either.clone(), part("c"), part("a")]).as_str(), "a || b || c || a");
        assert_eq!(either.negated().as_str(), "!(a || b)");
    }
}
