//! Conditions of a rule. Refinery sees a span as Honeycomb does: attributes of span, resource and scope in one flat
//! map, beside fields such as `duration_ms` that OTLP says otherwise.

use regex::Regex;

use super::literal;
use crate::config::{Kind as NodeKind, Node};
use crate::convert::expr::{Expr, Order};
use crate::convert::traceql::{self, Inner, Scope, attribute};
use crate::convert::yaml::{Section, is_quoted, items, scalar, truth};
use crate::convert::{Trouble, unsayable};

const NUMBER_TEXTS: &str =
    "an operator on texts: what was sent as a number is no text here, so it has nothing that is looked for";
const TEXT_NUMBERS: &str = "an order of numbers: numbers that were sent as text are not compared";
const FIRST_OF: &str = "Fields: Refinery takes the first that a span has; here any of them may match";
const NEGATED_TRACE: &str =
    "a negative operator in a rule of Scope trace: as in Refinery, one span of which it is true is enough";

/// All conditions of a rule, and what is only nearly the same.
pub(super) fn all(rule: Section<'_>, same_span: bool) -> Result<(Expr, Vec<String>), Trouble> {
    // A single condition may stand without a list.
    let conditions: Vec<Section<'_>> = match rule.get("Conditions") {
        Some(node) if matches!(node.kind, NodeKind::Map(_)) => vec![Section::new(rule.source, node)?],
        Some(node) => {
            let list = items(rule.source, node)?;
            list.iter().map(|node| Section::new(rule.source, node)).collect::<Result<_, _>>()?
        }
        None => Vec::new(),
    };
    let (mut on_span, mut others, mut differs) = (Vec::new(), Vec::new(), Vec::new());
    for condition in conditions {
        match one(condition, same_span, &mut differs)? {
            Expr::Some(inner) if same_span => on_span.push(inner),
            expr => others.push(expr),
        }
    }
    if !on_span.is_empty() {
        others.insert(0, Expr::Some(Inner::all(on_span)));
    }
    differs.sort();
    differs.dedup();
    Ok((Expr::And(others), differs))
}

fn one(condition: Section<'_>, same_span: bool, differs: &mut Vec<String>) -> Result<Expr, Trouble> {
    let operator = condition.needed_text("Operator")?;
    if operator == "has-root-span" {
        let root = Expr::Some(Inner::new("parent = nil"));
        // What is not true is false there, nothing included.
        let wanted = condition.text("Value")?.is_some_and(|text| text == "1" || truth(text) == Some(true));
        return Ok(if wanted { root } else { root.not() });
    }
    let fields = match condition.text("Field")? {
        Some(field) => vec![field],
        None => condition.texts("Fields")?,
    };
    differs.extend(condition.unknown(&["Field", "Fields", "Operator", "Value", "Datatype"]));
    let test = Test { condition, operator };
    let negative = matches!(operator, "!=" | "does-not-contain" | "not-exists" | "not-in");
    if negative && !same_span && !fields.iter().all(|field| field.starts_with("root.")) {
        differs.push(NEGATED_TRACE.to_owned());
    }
    match fields.as_slice() {
        [] => Err(condition.mistake("Field", "expected a Field").into()),
        [field] => test.of_field(field, differs),
        fields => {
            if negative {
                return unsayable(format!("{operator} with several Fields"));
            }
            differs.push(FIRST_OF.to_owned());
            let parts: Result<Vec<Expr>, Trouble> =
                fields.iter().map(|field| test.of_field(field, differs)).collect();
            Ok(any(parts?))
        }
    }
}

/// Of spans alone it stays a condition on one span.
fn any(parts: Vec<Expr>) -> Expr {
    let inners: Option<Vec<Inner>> = parts
        .iter()
        .map(|part| match part {
            Expr::Some(inner) => Some(inner.clone()),
            _ => None,
        })
        .collect();
    inners.map_or(Expr::Or(parts), |inners| Expr::Some(Inner::any(inners)))
}

/// A field of Honeycomb's flat span, as TraceQL knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// A text that is always there.
    Text(&'static str),
    Millis,
    /// 0, 1, 2
    Status,
    Kind,
    /// True if the span failed.
    Error,
    Parent,
    Spans,
}

fn known(field: &str) -> Option<Known> {
    Some(match field {
        "name" => Known::Text("name"),
        "status_message" | "status.message" => Known::Text("statusMessage"),
        "library.name" | "otel.scope.name" => Known::Text("instrumentation:name"),
        "library.version" | "otel.scope.version" => Known::Text("instrumentation:version"),
        "trace.trace_id" => Known::Text("trace:id"),
        "trace.span_id" => Known::Text("span:id"),
        "service.name" | "service_name" => Known::Text("resource.service.name"),
        "duration_ms" => Known::Millis,
        "status_code" | "status.code" => Known::Status,
        "span.kind" | "kind" => Known::Kind,
        "error" => Known::Error,
        "trace.parent_id" => Known::Parent,
        "meta.span_count" | "meta.event_count" | "?.NUM_DESCENDANTS" => Known::Spans,
        _ => return None,
    })
}

/// The field of a key by which traffic is counted, read from the root.
pub(super) fn key_field(field: &str) -> String {
    let field = field.strip_prefix("root.").unwrap_or(field);
    match known(field) {
        Some(Known::Text(name)) => name.to_owned(),
        Some(Known::Millis) => "duration".to_owned(),
        Some(Known::Status | Known::Error) => "status".to_owned(),
        Some(Known::Kind) => "kind".to_owned(),
        _ => attribute(Scope::Any, &literal(field)),
    }
}

struct Test<'a> {
    condition: Section<'a>,
    operator: &'a str,
}

impl Test<'_> {
    fn of_field(&self, field: &str, differs: &mut Vec<String>) -> Result<Expr, Trouble> {
        let (field, of_root) = match field.strip_prefix("root.") {
            Some(field) => (field, true),
            None => (field, false),
        };
        if known(field) == Some(Known::Spans) {
            let spans = self.integer()?;
            let spans =
                u64::try_from(spans).map_err(|_| self.condition.mistake("Value", "expected a count"))?;
            return Ok(Expr::Count(self.order()?, spans));
        }
        if field.starts_with("meta.") || field.starts_with("?.") {
            return unsayable(format!("{field} is a field that Refinery itself makes"));
        }
        let inner = self.inner(field, differs)?;
        // About the root whatever span is looked at, so it stands for itself.
        Ok(match of_root {
            true => Expr::And(vec![Expr::Some(Inner::all(vec![Inner::new("parent = nil"), inner]))]),
            false => Expr::Some(inner),
        })
    }

    fn inner(&self, field: &str, differs: &mut Vec<String>) -> Result<Inner, Trouble> {
        match known(field) {
            Some(Known::Text(name)) => self.text(name, true),
            Some(Known::Millis) => self.millis(),
            Some(Known::Status) => self.status(),
            Some(Known::Kind) => self.kind(),
            Some(Known::Error) => self.error(),
            Some(Known::Parent) => match self.operator {
                "exists" => Ok(Inner::new("parent != nil")),
                "not-exists" => Ok(Inner::new("parent = nil")),
                operator => {
                    unsayable(format!("{operator} of trace.parent_id; of a parent its absence can be asked"))
                }
            },
            Some(Known::Spans) => unsayable("a count of spans within a condition on one span"),
            None => self.attribute(&attribute(Scope::Any, &literal(field)), differs),
        }
    }

    fn order(&self) -> Result<Order, Trouble> {
        Ok(match self.operator {
            "=" => Order::Equal,
            "!=" => Order::NotEqual,
            "<" => Order::Less,
            "<=" => Order::LessOrEqual,
            ">" => Order::Greater,
            ">=" => Order::GreaterOrEqual,
            other => return Err(self.unknown(other)),
        })
    }

    fn unknown(&self, operator: &str) -> Trouble {
        const KNOWN: [&str; 9] = [
            "starts-with",
            "contains",
            "does-not-contain",
            "exists",
            "not-exists",
            "has-root-span",
            "matches",
            "in",
            "not-in",
        ];
        if KNOWN.contains(&operator) {
            return Trouble::Unsayable(format!("{operator} of a field that is no text"));
        }
        self.condition
            .mistake("Operator", format!("found \"{operator}\", which is no operator of Refinery"))
            .into()
    }

    fn integer(&self) -> Result<i64, Trouble> {
        let value = self.condition.integer("Value")?;
        value.ok_or_else(|| self.condition.mistake("Value", "expected a number").into())
    }

    fn millis(&self) -> Result<Inner, Trouble> {
        let order = self.order()?;
        let value = self.condition.number("Value")?;
        let value = value.ok_or_else(|| self.condition.mistake("Value", "expected milliseconds"))?;
        let duration = match value.fract() == 0.0 {
            true => format!("{value}ms"),
            false => format!("{}us", (value * 1000.0).round()),
        };
        Ok(Inner::new(format!("duration {} {duration}", order.sign())))
    }

    fn status(&self) -> Result<Inner, Trouble> {
        let order = self.order()?;
        let words = ["unset", "ok", "error"];
        let accepted = |code: i64| {
            let wanted = self.integer()?;
            Ok::<bool, Trouble>(match order {
                Order::Less => code < wanted,
                Order::LessOrEqual => code <= wanted,
                Order::Equal => code == wanted,
                Order::NotEqual => code != wanted,
                Order::Greater => code > wanted,
                Order::GreaterOrEqual => code >= wanted,
            })
        };
        let mut tests = Vec::new();
        for (code, word) in words.into_iter().enumerate() {
            if accepted(code as i64)? {
                tests.push(Inner::new(format!("status = {word}")));
            }
        }
        Ok(Inner::any(tests))
    }

    fn kind(&self) -> Result<Inner, Trouble> {
        let order = self.order()?;
        let value = self.condition.text("Value")?.unwrap_or_default();
        let words = ["unspecified", "internal", "server", "client", "producer", "consumer"];
        match words.iter().find(|word| **word == value) {
            Some(word) if matches!(order, Order::Equal | Order::NotEqual) => {
                Ok(Inner::new(format!("kind {} {word}", order.sign())))
            }
            _ => Err(self
                .condition
                .mistake("Value", format!("found \"{value}\", expected a kind such as server"))
                .into()),
        }
    }

    /// Honeycomb's `error` is true of spans whose status is error, and absent of others.
    fn error(&self) -> Result<Inner, Trouble> {
        let value = self.condition.text("Value")?;
        let wanted = value.and_then(|text| truth(text).or((text == "1").then_some(true)));
        let absent_counts = self.condition.text("Datatype")? == Some("string");
        let failed = match (self.operator, wanted) {
            ("exists", _) | ("=", Some(true)) => true,
            ("not-exists", _) => false,
            ("!=", Some(true)) if absent_counts => false,
            // There but not true; what is absent is not unequal.
            ("!=", Some(true)) | ("=", Some(false)) => return Ok(Inner::new(".error = false")),
            ("!=", Some(false)) => true,
            (operator, _) => return unsayable(format!("{operator} of error, which is true or absent")),
        };
        let test = Inner::any(vec![Inner::new("status = error"), Inner::new(".error = true")]);
        Ok(if failed { test } else { test.negated() })
    }

    /// Operators on texts, and on fields that are always texts.
    fn text(&self, name: &str, always_there: bool) -> Result<Inner, Trouble> {
        let found = |test: String| Inner::new(format!("{name} {test}"));
        let value = literal(self.condition.get("Value").map_or(Ok(""), |node| match &node.kind {
            NodeKind::Scalar(text) => Ok(text.as_str()),
            _ if matches!(self.operator, "in" | "not-in") => Ok(""),
            _ => Err(self.condition.mistake("Value", "expected a single value")),
        })?);
        let within = |before, after| traceql::text(&format!("{before}{}{after}", regex::escape(&value)));
        Ok(match self.operator {
            "exists" if always_there => found("!= \"\"".to_owned()),
            "not-exists" if always_there => found("= \"\"".to_owned()),
            "exists" => found("!= nil".to_owned()),
            "not-exists" => found("= nil".to_owned()),
            "starts-with" => found(format!("=~ {}", within("", ".*"))),
            "contains" => found(format!("=~ {}", within(".*", ".*"))),
            "does-not-contain" => found(format!("=~ {}", within(".*", ".*"))).negated(),
            "matches" => {
                if let Some(fault) = traceql::regex_fault(&value) {
                    let message = format!("\"{value}\" is no regular expression: {fault}");
                    return Err(self.condition.mistake("Value", message).into());
                }
                found(format!("=~ {}", traceql::text(&traceql::anywhere([value.as_str()]))))
            }
            "in" => self.listed(name)?,
            "not-in" => self.listed(name)?.negated(),
            _ => {
                let order = self.order()?;
                let equal = |sign: &str| found(format!("{sign} {}", traceql::text(&value)));
                if order == Order::NotEqual && !always_there {
                    equal("=").negated()
                } else {
                    equal(order.sign())
                }
            }
        })
    }

    fn values(&self) -> Result<Vec<&Node>, Trouble> {
        match self.condition.get("Value") {
            Some(node) if matches!(node.kind, NodeKind::List(_)) => {
                Ok(items(self.condition.source, node)?.iter().collect())
            }
            Some(node) => Ok(vec![node]),
            None => Err(self.condition.mistake("Value", "expected a list").into()),
        }
    }

    fn listed(&self, name: &str) -> Result<Inner, Trouble> {
        // Without a type Refinery compares what both look like as texts.
        let datatype = self.condition.text("Datatype")?.unwrap_or("string");
        let mut tests = Vec::new();
        for node in self.values()? {
            tests.push(equal(name, scalar(self.condition.source, node)?, datatype));
        }
        Ok(Inner::any(tests))
    }

    /// An attribute, which may be of any type, or absent.
    fn attribute(&self, name: &str, differs: &mut Vec<String>) -> Result<Inner, Trouble> {
        if !matches!(self.operator, "=" | "!=" | "<" | "<=" | ">" | ">=") {
            if self.finds_numbers() {
                differs.push(NUMBER_TEXTS.to_owned());
            }
            return self.text(name, false);
        }
        let order = self.order()?;
        let Some(node) = self.condition.get("Value") else {
            return Err(self.condition.mistake("Value", "expected a value").into());
        };
        let written = scalar(self.condition.source, node)?;
        let is_plain = !is_quoted(self.condition.source, node);
        let value = match truth(written).filter(|_| is_plain && written.len() > 3) {
            Some(true) => "true",
            Some(false) => "false",
            None => written,
        };
        let datatype = match self.condition.text("Datatype")?.unwrap_or_default() {
            "" if is_quoted(self.condition.source, node) => "",
            "" if value == "true" || value == "false" => "bool",
            "" if value.parse::<f64>().is_ok() => "number",
            other => other,
        };
        match order {
            Order::Equal => Ok(equal(name, value, datatype)),
            // Refinery: with Datatype string what is absent is unequal, else it makes nothing true.
            Order::NotEqual if datatype == "string" => Ok(equal(name, value, datatype).negated()),
            Order::NotEqual => {
                let there = Inner::new(format!("{name} != nil"));
                Ok(Inner::all(vec![there, equal(name, value, datatype).negated()]))
            }
            order => {
                if matches!(datatype, "int" | "float") {
                    differs.push(TEXT_NUMBERS.to_owned());
                }
                let value = match datatype {
                    "string" | "" => traceql::text(&literal(value)),
                    "bool" => return unsayable("an order of booleans"),
                    _ => self.number_text(value)?,
                };
                Ok(Inner::new(format!("{name} {} {value}", order.sign())))
            }
        }
    }

    /// Whether the operator, which sees everything as text, would find something in a number.
    fn finds_numbers(&self) -> bool {
        let Ok(Some(value)) = self.condition.text("Value") else { return false };
        let pattern = Regex::new(value);
        let found = |number: &&str| match self.operator {
            "starts-with" => number.starts_with(value),
            "contains" | "does-not-contain" => number.contains(value),
            "matches" => pattern.as_ref().is_ok_and(|pattern| pattern.is_match(number)),
            _ => false,
        };
        ["0", "1", "42", "200", "404", "503", "1000", "-1", "2.5"].iter().any(found)
    }

    fn number_text(&self, value: &str) -> Result<String, Trouble> {
        let refusal = || self.condition.mistake("Value", format!("found \"{value}\", expected a number"));
        Ok(traceql::number(value).ok_or_else(refusal)?)
    }
}

/// Equality across the types that Refinery converts into each other.
fn equal(name: &str, value: &str, datatype: &str) -> Inner {
    let number = traceql::number(value);
    let is_bool = value == "true" || value == "false";
    let mut tests = Vec::new();
    let text = traceql::text(&literal(value));
    match datatype {
        "bool" => tests.extend([value.to_owned()].into_iter().filter(|_| is_bool).chain([text])),
        "number" => tests.extend(number.or(Some(text))),
        _ if number.is_some() && !datatype.is_empty() => tests.extend(number.into_iter().chain([text])),
        "string" if is_bool => tests.extend([value.to_owned(), text]),
        _ => tests.push(text),
    }
    Inner::any(tests.into_iter().map(|test| Inner::new(format!("{name} = {test}"))).collect())
}
