//! Cuts a text into the tokens of TraceQL, each with its place.
//!
//! As in Tempo, an attribute's name goes on to the next space or one of `{}()=~!<>&|^,`: so
//! `span.a-b` is one name and arithmetic needs spaces. Parts of a name may be quoted.

use super::error::QueryError;

/// Longest text of a condition in bytes.
const TEXT_MAX: usize = 64 * 1024;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// A bare word, or an intrinsic with its scope: `status`, `span:name`.
    Word(String),
    /// `span.http.route`: scope and name. The scope of `.x` is empty.
    Attribute {
        scope: String,
        name: String,
    },
    Text(String),
    Int(i64),
    Float(f64),
    /// Nanoseconds.
    Duration(i64),
    /// Punctuation or an operator, as written.
    Mark(&'static str),
    End,
}

/// A token and the byte offset at which it begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Placed {
    pub(super) token: Token,
    pub(super) at: usize,
}

/// Longest first, so that the first that fits is the one that is meant.
const MARKS: [&str; 37] = [
    "!>>", "!<<", "&>>", "&<<", "&&", "||", "!=", "=~", "!~", ">=", "<=", ">>", "<<", "!>", "!<", "&>", "&<",
    "&~", "{", "}", "(", ")", "=", ">", "<", "+", "-", "*", "/", "%", "^", "|", "!", "~", ",", "[", "]",
];

const ATTRIBUTE_SCOPES: [&str; 7] =
    ["span", "resource", "event", "link", "instrumentation", "parent", "tracestate"];
const INTRINSIC_SCOPES: [&str; 5] = ["span", "trace", "event", "link", "instrumentation"];

/// All tokens of `text`, the last being [`Token::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<Placed>, QueryError> {
    if text.len() > TEXT_MAX {
        return Err(QueryError::new(text, 0, format!("a condition is at most {TEXT_MAX} bytes long")));
    }
    let mut lexer = Lexer { text, at: 0 };
    let mut found = Vec::new();
    loop {
        lexer.skip_space()?;
        let at = lexer.at;
        let token = lexer.next()?;
        let end = token == Token::End;
        found.push(Placed { token, at });
        if end {
            return Ok(found);
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn error(&self, at: usize, message: impl Into<String>) -> QueryError {
        QueryError::new(self.text, at, message)
    }

    /// Steps over space, `// …` to the end of its line, and `/* … */`.
    fn skip_space(&mut self) -> Result<(), QueryError> {
        loop {
            self.at = self.text.len() - self.rest().trim_start().len();
            let rest = self.rest();
            let comment = match rest.get(..2) {
                Some("//") => rest.find('\n').unwrap_or(rest.len()),
                Some("/*") => match rest[2..].find("*/") {
                    Some(len) => len + 4,
                    None => return Err(self.error(self.at, "found a comment that is never closed")),
                },
                _ => return Ok(()),
            };
            self.at += comment;
        }
    }

    fn take_while(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let len = rest.find(|c| !belongs(c)).unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    fn next(&mut self) -> Result<Token, QueryError> {
        let Some(first) = self.peek() else { return Ok(Token::End) };
        let second = self.rest().chars().nth(1);
        match first {
            '"' => self.quoted().map(Token::Text),
            '`' => self.raw(),
            '.' if second.is_some_and(|c| c.is_ascii_digit()) => self.number(),
            '.' => self.attribute(String::new()),
            c if c.is_ascii_digit() => self.number(),
            c if c.is_alphabetic() || c == '_' => self.word(),
            _ => self.mark(),
        }
    }

    fn mark(&mut self) -> Result<Token, QueryError> {
        let rest = self.rest();
        let Some(mark) = MARKS.into_iter().find(|mark| rest.starts_with(mark)) else {
            let found: String = rest.chars().take(1).collect();
            return Err(self.error(self.at, format!("found `{found}`, which TraceQL does not know")));
        };
        self.at += mark.len();
        Ok(Token::Mark(mark))
    }

    /// A word, or what a scope begins.
    fn word(&mut self) -> Result<Token, QueryError> {
        let word = self.take_while(|c| c.is_alphanumeric() || c == '_');
        match self.peek() {
            Some('.') if ATTRIBUTE_SCOPES.contains(&word) => self.attribute(word.to_owned()),
            Some(':') if INTRINSIC_SCOPES.contains(&word) => {
                self.at += 1;
                let name = self.take_while(|c| c.is_alphanumeric() || c == '_');
                Ok(Token::Word(format!("{word}:{name}")))
            }
            _ => Ok(Token::Word(word.to_owned())),
        }
    }

    /// The name of an attribute, from the dot on.
    fn attribute(&mut self, scope: String) -> Result<Token, QueryError> {
        self.at += 1;
        let begin = self.at;
        let mut name = String::new();
        loop {
            match self.peek() {
                Some('"') => name.push_str(&self.quoted_part()?),
                Some(c) if ends_attribute(c) => break,
                Some(c) => {
                    name.push(c);
                    self.at += c.len_utf8();
                }
                None => break,
            }
        }
        if name.is_empty() {
            return Err(self.error(begin, format!("expected the name of an attribute after `{scope}.`")));
        }
        Ok(Token::Attribute { scope, name })
    }

    /// A quoted part of an attribute's name: only `\"` and `\\` are escapes.
    fn quoted_part(&mut self) -> Result<String, QueryError> {
        let begin = self.at;
        let mut part = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((offset, c)) = chars.next() {
            match c {
                '"' => {
                    self.at += offset + 1;
                    return Ok(part);
                }
                '\\' => match chars.next() {
                    Some((_, c @ ('"' | '\\'))) => part.push(c),
                    _ => return Err(self.error(begin + offset, r#"expected `\"` or `\\` in a quoted name"#)),
                },
                c => part.push(c),
            }
        }
        Err(self.error(begin, "found a quote that is never closed"))
    }

    fn raw(&mut self) -> Result<Token, QueryError> {
        let begin = self.at;
        let Some(len) = self.rest()[1..].find('`') else {
            return Err(self.error(begin, "found a quote that is never closed"));
        };
        self.at += len + 2;
        Ok(Token::Text(self.text[begin + 1..begin + 1 + len].to_owned()))
    }

    /// A text in double quotes, with Go's escapes.
    fn quoted(&mut self) -> Result<String, QueryError> {
        let begin = self.at;
        let mut text = String::new();
        self.at += 1;
        loop {
            let at = self.at;
            let c = self.peek().ok_or_else(|| self.error(begin, "found a quote that is never closed"))?;
            self.at += c.len_utf8();
            match c {
                '"' => return Ok(text),
                '\n' => return Err(self.error(begin, "found a quote that is not closed on its line")),
                '\\' => text.push(self.escape(at)?),
                c => text.push(c),
            }
        }
    }

    fn escape(&mut self, at: usize) -> Result<char, QueryError> {
        let c = self.peek().unwrap_or(' ');
        let plain = match c {
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0b',
            '\\' | '"' => c,
            'x' => return self.code_point(at, 2),
            'u' => return self.code_point(at, 4),
            'U' => return self.code_point(at, 8),
            _ => {
                let message = r"found an unknown escape; a backslash is written `\\`, or use `…` quotes";
                return Err(self.error(at, message));
            }
        };
        self.at += 1;
        Ok(plain)
    }

    fn code_point(&mut self, at: usize, digits: usize) -> Result<char, QueryError> {
        let hex = self.rest().get(1..=digits);
        let point = hex.and_then(|hex| u32::from_str_radix(hex, 16).ok()).and_then(char::from_u32);
        self.at += digits + 1;
        point.ok_or_else(|| QueryError::new(self.text, at, format!("expected {digits} hexadecimal digits")))
    }

    /// An integer, a number with a fraction, or a duration such as `1h30m`, `1.5s`, `2d`.
    fn number(&mut self) -> Result<Token, QueryError> {
        let begin = self.at;
        let run = self.take_while(|c| c.is_ascii_alphanumeric() || c == '.' || c == 'µ' || c == '_');
        if let Some(token) = plain_number(run) {
            return Ok(token);
        }
        if let Some(nanos) = duration(run) {
            return Ok(Token::Duration(nanos));
        }
        // An exponent's sign is no part of the run.
        if run.ends_with(['e', 'E']) && self.peek().is_some_and(|c| c == '+' || c == '-') {
            self.at += 1;
            self.take_while(|c| c.is_ascii_digit());
            if let Ok(value) = self.text[begin..self.at].parse() {
                return Ok(Token::Float(value));
            }
        }
        let message =
            format!("found `{run}`, expected a number that fits 64 bits or a duration such as 1h30m or 1.5s");
        Err(self.error(begin, message))
    }
}

fn ends_attribute(c: char) -> bool {
    c.is_whitespace()
        || matches!(c, '{' | '}' | '(' | ')' | '=' | '~' | '!' | '<' | '>' | '&' | '|' | '^' | ',')
}

fn plain_number(run: &str) -> Option<Token> {
    if let Ok(value) = run.parse() {
        return Some(Token::Int(value));
    }
    let number_like = run.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E'));
    let integer = run.bytes().all(|b| b.is_ascii_digit());
    let value: f64 = if number_like && !integer { run.parse().ok()? } else { return None };
    value.is_finite().then_some(Token::Float(value))
}

/// Nanoseconds of a sum of numbers with units.
fn duration(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut sum = 0_i128;
    while !rest.is_empty() {
        let number_len = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(number_len);
        let unit_len = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        sum += nanos(number, unit)?;
        rest = tail;
    }
    i64::try_from(sum).ok()
}

fn nanos(number: &str, unit: &str) -> Option<i128> {
    let unit: i128 = match unit {
        "ns" => 1,
        "us" | "µs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60 * 1_000_000_000,
        "h" => 3_600 * 1_000_000_000,
        "d" => 24 * 3_600 * 1_000_000_000,
        "w" => 7 * 24 * 3_600 * 1_000_000_000,
        "y" => 365 * 24 * 3_600 * 1_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || whole.len() > 19 || fraction.len() > 18 {
        return None;
    }
    let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<i128>().ok() };
    let scale = 10_i128.pow(fraction.len() as u32);
    Some(digits(whole)? * unit + digits(fraction)? * unit / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lex(text: &str) -> Vec<Token> {
        tokens(text).unwrap().into_iter().map(|placed| placed.token).collect()
    }

    fn one(text: &str) -> Token {
        lex(text).swap_remove(0)
    }

    #[test]
    fn durations_add_up_and_keep_their_fractions() {
        assert_eq!(one("1h30m"), Token::Duration(5_400_000_000_000));
        assert_eq!(one("1.5s"), Token::Duration(1_500_000_000));
        assert_eq!(one("100ms"), Token::Duration(100_000_000));
        assert_eq!(one("7µs"), Token::Duration(7_000));
        assert_eq!(one("1d"), Token::Duration(86_400_000_000_000));
    }

    #[test]
    fn a_number_is_an_integer_or_has_a_fraction() {
        assert_eq!(one("42"), Token::Int(42));
        assert_eq!(one("4.5"), Token::Float(4.5));
        assert_eq!(one(".5"), Token::Float(0.5));
        assert_eq!(one("1e3"), Token::Float(1000.0));
        assert_eq!(one("1e-3"), Token::Float(0.001));
        assert!(tokens("99999999999999999999").is_err());
        assert!(tokens("5parsecs").is_err());
    }

    #[test]
    fn the_name_of_an_attribute_ends_as_in_tempo() {
        let name = |scope: &str, name: &str| Token::Attribute { scope: scope.into(), name: name.into() };
        assert_eq!(one("span.http.status-code>=5"), name("span", "http.status-code"));
        assert_eq!(one(".foo"), name("", "foo"));
        assert_eq!(one(r#"resource."a b".c = 1"#), name("resource", "a b.c"));
        assert_eq!(one(r#"span."quo\"te""#), name("span", "quo\"te"));
        assert_eq!(one("parent.span.x"), name("parent", "span.x"));
        assert!(tokens("span. = 1").is_err());
    }

    #[test]
    fn texts_know_the_escapes_of_go_and_raw_quotes() {
        assert_eq!(one(r#""a\n\"\x41\u00e4""#), Token::Text("a\n\"Aä".into()));
        assert_eq!(one(r"`\d+`"), Token::Text(r"\d+".into()));
        assert!(tokens(r#""\d""#).is_err());
        assert!(tokens("\"open").is_err());
    }

    #[test]
    fn operators_are_the_longest_that_fit() {
        assert_eq!(
            lex("!>> >= =~ !~ &>"),
            ["!>>", ">=", "=~", "!~", "&>"]
                .map(Token::Mark)
                .into_iter()
                .chain([Token::End])
                .collect::<Vec<_>>()
        );
    }

    #[test]
    fn comments_are_stepped_over() {
        let marks = [Token::Mark("{"), Token::Mark("/"), Token::Mark("}"), Token::End];
        assert_eq!(lex("// first\n{ /* a\n * b */ / /**/ } // last"), marks);
        assert_eq!(one("span.a//b"), Token::Attribute { scope: "span".into(), name: "a//b".into() });
        assert_eq!(tokens("{ /* } ").unwrap_err().offset, 2);
    }

    #[test]
    fn an_error_points_at_the_character() {
        let error = tokens("{ ä = § }").unwrap_err();
        assert_eq!((error.offset, error.column), (7, 7));
    }
}
