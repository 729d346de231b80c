//! Reads the text of an OTTL condition into a tree. `not` binds before `and`, `and` before `or`.

/// How deep a condition may nest.
const DEPTH_MAX: usize = 64;

/// True or false.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Test {
    Const(bool),
    And(Vec<Self>),
    Or(Vec<Self>),
    Not(Box<Self>),
    Compare {
        op: Op,
        left: Value,
        right: Value,
    },
    /// A function that answers with a boolean.
    Call(Call),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Text(String),
    Int(i64),
    Float(f64),
    Bool(bool),
    Nil,
    /// `0x…`
    Bytes(String),
    /// `STATUS_CODE_ERROR`
    Enum(String),
    Path(Path),
    Call(Call),
    Math {
        op: char,
        left: Box<Self>,
        right: Box<Self>,
    },
}

/// `resource.attributes["k"]`
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Path {
    pub(super) names: Vec<String>,
    /// In brackets, after the last name.
    pub(super) keys: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Call {
    pub(super) name: String,
    pub(super) arguments: Vec<Value>,
}

impl Path {
    pub(super) fn text(&self) -> String {
        let keys: String = self.keys.iter().map(|key| format!("[\"{key}\"]")).collect();
        format!("{}{keys}", self.names.join("."))
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Int(i64),
    Float(f64),
    Bytes(String),
    Mark(&'static str),
    End,
}

const MARKS: [&str; 18] =
    ["==", "!=", "<=", ">=", "<", ">", "(", ")", "[", "]", ",", ".", "+", "-", "*", "/", "{", "}"];

pub(super) fn parse(text: &str) -> Result<Test, String> {
    let mut parser = Parser { tokens: tokens(text)?, next: 0, depth: 0 };
    let test = parser.or()?;
    match parser.peek() {
        Token::End => Ok(test),
        other => Err(format!("found {} after the condition", shown(other))),
    }
}

fn shown(token: &Token) -> String {
    match token {
        Token::Word(word) => format!("`{word}`"),
        Token::Text(text) => format!("\"{text}\""),
        Token::Int(value) => value.to_string(),
        Token::Float(value) => value.to_string(),
        Token::Bytes(value) => format!("0x{value}"),
        Token::Mark(mark) => format!("`{mark}`"),
        Token::End => "the end".to_owned(),
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, tail) = match first {
            '"' => quoted(rest)?,
            c if c.is_ascii_digit() => number(rest)?,
            c if c.is_alphabetic() || c == '_' => {
                let (word, tail) = cut(rest, |c| c.is_alphanumeric() || c == '_');
                (Token::Word(word.to_owned()), tail)
            }
            _ => {
                let mark = MARKS.into_iter().find(|mark| rest.starts_with(mark));
                let mark = mark.ok_or_else(|| format!("found `{first}`, which OTTL does not know"))?;
                (Token::Mark(mark), &rest[mark.len()..])
            }
        };
        found.push(token);
        rest = tail.trim_start();
    }
    found.push(Token::End);
    Ok(found)
}

fn cut(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

fn quoted(text: &str) -> Result<(Token, &str), String> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((Token::Text(value), &text[at + 1..])),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 't')) => value.push('\t'),
                Some((_, 'r')) => value.push('\r'),
                Some((_, c @ ('"' | '\\'))) => value.push(c),
                // Of a regular expression that was not escaped twice.
                Some((_, c)) => value.extend(['\\', c]),
                None => break,
            },
            c => value.push(c),
        }
    }
    Err("found a quote that is never closed".to_owned())
}

fn number(text: &str) -> Result<(Token, &str), String> {
    if let Some(hex) = text.strip_prefix("0x") {
        let (digits, tail) = cut(hex, |c| c.is_ascii_hexdigit());
        return Ok((Token::Bytes(digits.to_owned()), tail));
    }
    let (digits, tail) = cut(text, |c| c.is_ascii_digit() || c == '.');
    let token = match (digits.parse(), digits.parse()) {
        (Ok(value), _) => Token::Int(value),
        (_, Ok(value)) => Token::Float(value),
        _ => return Err(format!("found `{digits}`, which is no number")),
    };
    Ok((token, tail))
}

struct Parser {
    /// Ends with [`Token::End`].
    tokens: Vec<Token>,
    next: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.next.min(self.tokens.len() - 1)]
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.next += 1;
        token
    }

    fn takes(&mut self, mark: &str) -> bool {
        let found = matches!(self.peek(), Token::Mark(found) if *found == mark);
        self.next += usize::from(found);
        found
    }

    fn takes_word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Token::Word(found) if found == word);
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, mark: &'static str) -> Result<(), String> {
        if self.takes(mark) {
            Ok(())
        } else {
            Err(format!("found {}, expected `{mark}`", shown(self.peek())))
        }
    }

    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, String>) -> Result<T, String> {
        if self.depth >= DEPTH_MAX {
            return Err(format!("nested more than {DEPTH_MAX} deep"));
        }
        self.depth += 1;
        let read = read(self);
        self.depth -= 1;
        read
    }

    fn or(&mut self) -> Result<Test, String> {
        let mut parts = vec![self.and()?];
        while self.takes_word("or") {
            parts.push(self.and()?);
        }
        Ok(if parts.len() > 1 { Test::Or(parts) } else { parts.remove(0) })
    }

    fn and(&mut self) -> Result<Test, String> {
        let mut parts = vec![self.factor()?];
        while self.takes_word("and") {
            parts.push(self.factor()?);
        }
        Ok(if parts.len() > 1 { Test::And(parts) } else { parts.remove(0) })
    }

    fn factor(&mut self) -> Result<Test, String> {
        if self.takes_word("not") {
            return self.deeper(|parser| parser.factor().map(|test| Test::Not(Box::new(test))));
        }
        let begin = self.next;
        if self.takes("(") {
            let inside = self.deeper(|parser| {
                let test = parser.or()?;
                parser.expect(")").map(|()| test)
            });
            match inside {
                Ok(test) if self.op().is_none() => return Ok(test),
                // A parenthesis of a calculation.
                _ => self.next = begin,
            }
        }
        let left = self.sum()?;
        let Some(op) = self.op() else { return alone(left) };
        self.next += 1;
        let right = self.sum()?;
        Ok(Test::Compare { op, left, right })
    }

    fn op(&self) -> Option<Op> {
        let Token::Mark(mark) = self.peek() else { return None };
        Some(match *mark {
            "==" => Op::Equal,
            "!=" => Op::NotEqual,
            "<" => Op::Less,
            "<=" => Op::LessOrEqual,
            ">" => Op::Greater,
            ">=" => Op::GreaterOrEqual,
            _ => return None,
        })
    }

    fn sum(&mut self) -> Result<Value, String> {
        let mut left = self.product()?;
        loop {
            let op = if self.takes("+") {
                '+'
            } else if self.takes("-") {
                '-'
            } else {
                return Ok(left);
            };
            left = Value::Math { op, left: Box::new(left), right: Box::new(self.product()?) };
        }
    }

    fn product(&mut self) -> Result<Value, String> {
        let mut left = self.value()?;
        loop {
            let op = if self.takes("*") {
                '*'
            } else if self.takes("/") {
                '/'
            } else {
                return Ok(left);
            };
            left = Value::Math { op, left: Box::new(left), right: Box::new(self.value()?) };
        }
    }

    fn value(&mut self) -> Result<Value, String> {
        match self.take() {
            Token::Text(text) => Ok(Value::Text(text)),
            Token::Int(value) => Ok(Value::Int(value)),
            Token::Float(value) => Ok(Value::Float(value)),
            Token::Bytes(digits) => Ok(Value::Bytes(digits)),
            Token::Mark("-") => match self.take() {
                Token::Int(value) => Ok(Value::Int(-value)),
                Token::Float(value) => Ok(Value::Float(-value)),
                other => Err(format!("found {}, expected a number after `-`", shown(&other))),
            },
            Token::Mark("(") => self.deeper(|parser| {
                let value = parser.sum()?;
                parser.expect(")").map(|()| value)
            }),
            Token::Word(word) => self.word(word),
            other => Err(format!("found {}, expected a value", shown(&other))),
        }
    }

    fn word(&mut self, word: String) -> Result<Value, String> {
        match word.as_str() {
            "true" => return Ok(Value::Bool(true)),
            "false" => return Ok(Value::Bool(false)),
            "nil" => return Ok(Value::Nil),
            _ => {}
        }
        if word.starts_with(|c: char| c.is_ascii_uppercase()) {
            if self.takes("(") {
                let arguments = self.deeper(Self::arguments)?;
                return Ok(Value::Call(Call { name: word, arguments }));
            }
            return Ok(Value::Enum(word));
        }
        let mut path = Path { names: vec![word], keys: Vec::new() };
        loop {
            if self.takes("[") {
                match self.take() {
                    Token::Text(key) => path.keys.push(key),
                    Token::Int(index) => path.keys.push(index.to_string()),
                    other => return Err(format!("found {} in brackets, expected a key", shown(&other))),
                }
                self.expect("]")?;
            } else if path.keys.is_empty() && self.takes(".") {
                match self.take() {
                    Token::Word(name) => path.names.push(name),
                    other => return Err(format!("found {} after a dot, expected a name", shown(&other))),
                }
            } else {
                return Ok(Value::Path(path));
            }
        }
    }

    fn arguments(&mut self) -> Result<Vec<Value>, String> {
        let mut arguments = Vec::new();
        if self.takes(")") {
            return Ok(arguments);
        }
        loop {
            arguments.push(self.sum()?);
            if self.takes(")") {
                return Ok(arguments);
            }
            self.expect(",")?;
        }
    }
}

/// A value where a condition stands.
fn alone(value: Value) -> Result<Test, String> {
    match value {
        Value::Bool(value) => Ok(Test::Const(value)),
        Value::Call(call) => Ok(Test::Call(call)),
        Value::Path(path) => Err(format!("`{}` stands alone, expected a comparison", path.text())),
        _ => Err("a value stands alone, expected a comparison".to_owned()),
    }
}
