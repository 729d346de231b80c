//! Says an OTTL condition in TraceQL.
//!
//! What is absent makes no comparison of TraceQL true; in OTTL it is nil, which is unequal to every value. So `!=`
//! becomes the negation of `=`, and a `not` is carried down to the comparisons.

use super::Context;
use super::parser::{Call, Op, Path, Test, Value};
use crate::convert::traceql::{self, Inner, Scope, attribute};
use crate::units::HumanDuration;

const ONE_EVENT: &str =
    "conditions on an event: TraceQL asks each part of any event of the span, not all parts of one event";
const ABSENT_IN_EVENT: &str = "a negation on an event: an event without the attribute does not count";
const IS_MATCH: &str = "IsMatch: OTTL reads numbers and booleans as text, here only texts match";
const CONVERTED: &str =
    "Int(), Double(), String(): values are compared as they are, a number that was sent as text is none";

/// What a term is, as far as it is known before any span is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Any,
    Text,
    Status,
    Kind,
    /// The name of a kind, such as `Server`.
    KindName,
    /// A duration, counted in so many nanoseconds.
    Nanos(i64),
    Parent,
    /// A number made of others.
    Number,
}

#[derive(Clone, Debug)]
struct Term {
    text: String,
    kind: Type,
    /// It is about events, of which a span has several.
    event: bool,
}

struct Translator {
    context: Context,
    remarks: Vec<String>,
}

pub(super) fn inner(test: &Test, context: Context) -> Result<(Inner, Vec<String>), String> {
    let mut translator = Translator { context, remarks: Vec::new() };
    let inner = translator.test(test, false)?;
    let mut remarks = translator.remarks;
    remarks.sort();
    remarks.dedup();
    Ok((inner, remarks))
}

impl Translator {
    fn remark(&mut self, text: &str) {
        self.remarks.push(text.to_owned());
    }

    fn test(&mut self, test: &Test, negated: bool) -> Result<Inner, String> {
        match test {
            Test::Const(value) => Ok(Inner::new((value != &negated).to_string())),
            Test::Not(inner) => self.test(inner, !negated),
            Test::And(parts) | Test::Or(parts) => {
                let inners = parts.iter().map(|part| self.test(part, negated)).collect::<Result<_, _>>()?;
                let all = matches!(test, Test::And(_)) != negated;
                if all && self.context == Context::Event {
                    self.remark(ONE_EVENT);
                }
                Ok(if all { Inner::all(inners) } else { Inner::any(inners) })
            }
            Test::Call(call) => self.call(call, negated),
            Test::Compare { op, left, right } => {
                let is_value =
                    |value: &Value| !matches!(value, Value::Path(_) | Value::Call(_) | Value::Math { .. });
                match (is_value(left), is_value(right)) {
                    (true, true) => Err("it compares two values".to_owned()),
                    (true, false) => self.comparison(op.flipped(), right, left, negated),
                    _ => self.comparison(*op, left, right, negated),
                }
            }
        }
    }

    fn comparison(&mut self, op: Op, left: &Value, right: &Value, negated: bool) -> Result<Inner, String> {
        let term = self.term(left)?;
        let right = match right {
            Value::Nil => return nil_test(op, &term, negated),
            Value::Path(_) | Value::Math { .. } => self.other_side(&term, right)?,
            Value::Call(call) if call.name != "Duration" && call.name != "SpanID" => {
                self.other_side(&term, right)?
            }
            value => literal(&term, op, value)?,
        };
        if term.kind == Type::Parent {
            return parent_test(op, &right, negated);
        }
        Ok(self.compared(op, &term, &right, negated))
    }

    /// A field compared with another.
    fn other_side(&mut self, left: &Term, right: &Value) -> Result<String, String> {
        let right = self.term(right)?;
        let plain = |kind| matches!(kind, Type::Any | Type::Text | Type::Number);
        let same = left.kind == right.kind || (plain(left.kind) && plain(right.kind));
        if same {
            Ok(right.text)
        } else {
            Err(format!("`{}` and `{}` are of different kinds", left.text, right.text))
        }
    }

    fn compared(&mut self, op: Op, term: &Term, right: &str, negated: bool) -> Inner {
        let (op, negated) = if op == Op::NotEqual { (Op::Equal, !negated) } else { (op, negated) };
        let always_there = !matches!(term.kind, Type::Any | Type::Number);
        if negated && (always_there || term.event) {
            if !always_there {
                self.remark(ABSENT_IN_EVENT);
            }
            return Inner::new(format!("{} {} {right}", term.text, op.negated().sign()));
        }
        let holds = Inner::new(format!("{} {} {right}", term.text, op.sign()));
        if negated { holds.negated() } else { holds }
    }

    fn call(&mut self, call: &Call, negated: bool) -> Result<Inner, String> {
        let pattern = match (call.name.as_str(), call.arguments.as_slice()) {
            ("IsRootSpan", []) => {
                return Ok(Inner::new(if negated { "parent != nil" } else { "parent = nil" }));
            }
            ("IsMatch", [_, Value::Text(pattern)]) => {
                if let Some(fault) = traceql::regex_fault(pattern) {
                    return Err(format!("`{pattern}` is no regular expression: {fault}"));
                }
                traceql::anywhere([pattern.as_str()])
            }
            ("HasPrefix", [_, Value::Text(text)]) => format!("{}.*", regex::escape(text)),
            ("HasSuffix", [_, Value::Text(text)]) => format!(".*{}", regex::escape(text)),
            ("ContainsValue", [list, value]) => return self.comparison(Op::Equal, list, value, negated),
            (name, _) => return Err(format!("the function {name} has no counterpart in TraceQL")),
        };
        let term = self.term(&call.arguments[0])?;
        match term.kind {
            Type::Text => {}
            Type::Any if call.name == "IsMatch" => self.remark(IS_MATCH),
            Type::Any => {}
            _ => return Err(format!("`{}` is no text to match", term.text)),
        }
        let pattern = traceql::text(&pattern);
        if negated && (term.event || term.kind == Type::Text) {
            if term.kind == Type::Any {
                self.remark(ABSENT_IN_EVENT);
            }
            return Ok(Inner::new(format!("{} !~ {pattern}", term.text)));
        }
        let found = Inner::new(format!("{} =~ {pattern}", term.text));
        Ok(if negated { found.negated() } else { found })
    }

    fn term(&mut self, value: &Value) -> Result<Term, String> {
        match value {
            Value::Path(path) => self.path(path),
            Value::Math { op: '-', left, right } if is_time(left, "end") && is_time(right, "start") => {
                Ok(Term { text: "duration".to_owned(), kind: Type::Nanos(1), event: false })
            }
            Value::Math { op, left, right } => {
                let (left, right) = (self.operand(left)?, self.operand(right)?);
                let text = format!("{} {op} {}", left.text, right.text);
                Ok(Term { text, kind: Type::Number, event: left.event || right.event })
            }
            Value::Call(call) => self.converted(call),
            Value::Int(value) => Ok(Term { text: value.to_string(), kind: Type::Number, event: false }),
            Value::Float(value) => Ok(Term { text: format!("{value:?}"), kind: Type::Number, event: false }),
            _ => Err("it calculates with something that is no number".to_owned()),
        }
    }

    /// A part of a calculation.
    fn operand(&mut self, value: &Value) -> Result<Term, String> {
        let mut term = self.term(value)?;
        if !matches!(term.kind, Type::Any | Type::Number) {
            return Err(format!("it calculates with `{}`", term.text));
        }
        if matches!(value, Value::Math { .. }) {
            term.text = format!("({})", term.text);
        }
        Ok(term)
    }

    /// A function around a term.
    fn converted(&mut self, call: &Call) -> Result<Term, String> {
        let [argument] = call.arguments.as_slice() else {
            return Err(format!("the function {} has no counterpart in TraceQL", call.name));
        };
        let term = self.term(argument)?;
        let unit = match call.name.as_str() {
            "Int" | "Double" | "String" if term.kind == Type::Any => {
                self.remark(CONVERTED);
                return Ok(term);
            }
            "Nanoseconds" => 1,
            "Microseconds" => 1_000,
            "Milliseconds" => 1_000_000,
            "Seconds" => 1_000_000_000,
            "Minutes" => 60_000_000_000,
            "Hours" => 3_600_000_000_000,
            name => return Err(format!("the function {name} has no counterpart in TraceQL")),
        };
        match term.kind {
            Type::Nanos(_) => Ok(Term { kind: Type::Nanos(unit), ..term }),
            _ => Err(format!("{}() of something that is no duration", call.name)),
        }
    }

    fn path(&self, path: &Path) -> Result<Term, String> {
        let unknown = || format!("`{}` has no counterpart in TraceQL", path.text());
        let mut names: Vec<&str> = path.names.iter().map(String::as_str).collect();
        let of_event = self.context == Context::Event;
        let scope = match (names[0], names.len()) {
            ("span" | "resource" | "spanevent" | "scope" | "instrumentation_scope", 2..) => names.remove(0),
            _ if of_event => "spanevent",
            _ => "span",
        };
        let term = |text: &str, kind| Ok(Term { text: text.to_owned(), kind, event: scope == "spanevent" });
        let attribute = |scope| match path.keys.as_slice() {
            [key] => term(&attribute(scope, key), Type::Any),
            _ => Err(unknown()),
        };
        let keyed = !path.keys.is_empty();
        match (scope, names.as_slice()) {
            ("span", ["attributes"]) => attribute(Scope::Span),
            ("resource", ["attributes"]) => attribute(Scope::Resource),
            ("spanevent", ["attributes"]) => attribute(Scope::Event),
            ("scope" | "instrumentation_scope", ["attributes"]) => attribute(Scope::Instrumentation),
            ("span", ["trace_state"]) if keyed => attribute(Scope::TraceState),
            _ if keyed => Err(unknown()),
            ("span", ["name"]) => term("name", Type::Text),
            ("span", ["kind"]) => term("kind", Type::Kind),
            ("span", ["kind", "string" | "deprecated_string"]) => term("kind", Type::KindName),
            ("span", ["status", "code"]) => term("status", Type::Status),
            ("span", ["status", "message"]) => term("statusMessage", Type::Text),
            ("span", ["trace_id", "string"]) => term("trace:id", Type::Text),
            ("span", ["span_id", "string"]) => term("span:id", Type::Text),
            ("span", ["parent_span_id"] | ["parent_span_id", "string"]) => term("parent", Type::Parent),
            ("spanevent", ["name"]) => term("event:name", Type::Text),
            ("scope" | "instrumentation_scope", ["name"]) => term("instrumentation:name", Type::Text),
            ("scope" | "instrumentation_scope", ["version"]) => term("instrumentation:version", Type::Text),
            _ => Err(unknown()),
        }
    }
}

fn is_time(value: &Value, which: &str) -> bool {
    let Value::Path(path) = value else { return false };
    let name = path.names.last().map_or("", String::as_str);
    name.strip_prefix(which).is_some_and(|rest| rest == "_time" || rest == "_time_unix_nano")
}

fn nil_test(op: Op, term: &Term, negated: bool) -> Result<Inner, String> {
    let absent = match op {
        Op::Equal => !negated,
        Op::NotEqual => negated,
        _ => return Err("nil has no order".to_owned()),
    };
    match term.kind {
        Type::Any | Type::Parent => {
            Ok(Inner::new(format!("{} {} nil", term.text, if absent { "=" } else { "!=" })))
        }
        _ => Err(format!("`{}` is never nil", term.text)),
    }
}

/// Whether there is a parent; of its ID nothing else can be asked.
fn parent_test(op: Op, right: &str, negated: bool) -> Result<Inner, String> {
    let root = match (op, right) {
        (Op::Equal, "") => !negated,
        (Op::NotEqual, "") => negated,
        _ => return Err("of parent_span_id only its absence can be asked".to_owned()),
    };
    Ok(Inner::new(if root { "parent = nil" } else { "parent != nil" }))
}

/// The value beside a term, in TraceQL. That of a parent is empty if it means none.
fn literal(term: &Term, op: Op, value: &Value) -> Result<String, String> {
    let equality = matches!(op, Op::Equal | Op::NotEqual);
    let wrong = || Err(format!("`{}` is compared with a value of another kind", term.text));
    match (term.kind, value) {
        (Type::Any | Type::Text, Value::Text(text)) => Ok(traceql::text(text)),
        (Type::Any, Value::Bool(value)) if equality => Ok(value.to_string()),
        (Type::Any | Type::Number, Value::Int(value)) => Ok(value.to_string()),
        (Type::Any | Type::Number, Value::Float(value)) => Ok(format!("{value:?}")),
        (Type::Status, Value::Enum(_) | Value::Int(_)) if equality => {
            let words =
                [("STATUS_CODE_UNSET", "unset"), ("STATUS_CODE_OK", "ok"), ("STATUS_CODE_ERROR", "error")];
            word_of(value, &words)
        }
        (Type::Kind | Type::KindName, _) if equality => word_of(value, &KINDS),
        (Type::Nanos(unit), Value::Int(value)) => Ok(nanos(*value, unit)),
        (Type::Nanos(_), Value::Call(call)) => match call.arguments.as_slice() {
            [Value::Text(text)] if call.name == "Duration" => match text.parse::<HumanDuration>() {
                Ok(duration) => Ok(nanos(i64::try_from(duration.get().as_nanos()).unwrap_or(i64::MAX), 1)),
                Err(error) => Err(error.to_string()),
            },
            _ => wrong(),
        },
        (Type::Parent, Value::Text(text)) if text.trim_matches('0').is_empty() => Ok(String::new()),
        (Type::Parent, Value::Call(call)) => match call.arguments.as_slice() {
            [Value::Bytes(digits)] if digits.trim_matches('0').is_empty() => Ok(String::new()),
            _ => wrong(),
        },
        _ => wrong(),
    }
}

const KINDS: [(&str, &str); 6] = [
    ("SPAN_KIND_UNSPECIFIED", "unspecified"),
    ("SPAN_KIND_INTERNAL", "internal"),
    ("SPAN_KIND_SERVER", "server"),
    ("SPAN_KIND_CLIENT", "client"),
    ("SPAN_KIND_PRODUCER", "producer"),
    ("SPAN_KIND_CONSUMER", "consumer"),
];

/// By the name of the constant, its number, or the word itself.
fn word_of(value: &Value, words: &[(&str, &str)]) -> Result<String, String> {
    let found = words.iter().enumerate().find(|(number, (constant, word))| match value {
        Value::Enum(name) => name == constant,
        Value::Int(value) => usize::try_from(*value) == Ok(*number),
        Value::Text(text) => text == constant || text.to_lowercase() == *word,
        _ => false,
    });
    found
        .map(|(_, (_, word))| (*word).to_owned())
        .ok_or_else(|| format!("found an unknown constant {value:?}"))
}

fn nanos(count: i64, unit: i64) -> String {
    let nanos = i128::from(count) * i128::from(unit);
    let units = [("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)];
    let whole = units.into_iter().find(|(_, scale)| nanos % scale == 0);
    whole.map_or_else(|| format!("{nanos}ns"), |(unit, scale)| format!("{}{unit}", nanos / scale))
}

impl Op {
    fn sign(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }

    fn negated(self) -> Self {
        match self {
            Self::Equal => Self::NotEqual,
            Self::NotEqual => Self::Equal,
            Self::Less => Self::GreaterOrEqual,
            Self::LessOrEqual => Self::Greater,
            Self::Greater => Self::LessOrEqual,
            Self::GreaterOrEqual => Self::Less,
        }
    }

    /// With its sides exchanged.
    fn flipped(self) -> Self {
        match self {
            Self::Less => Self::Greater,
            Self::LessOrEqual => Self::GreaterOrEqual,
            Self::Greater => Self::Less,
            Self::GreaterOrEqual => Self::LessOrEqual,
            same => same,
        }
    }
}
