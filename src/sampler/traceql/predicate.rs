//! Conditions on one span, compiled: types are checked once, and evaluation cannot fail.
//!
//! A term has any number of values: none if it is absent, several if several events or links have it.
//! A comparison is true if it is true of one of them. So what is absent makes no comparison true, not
//! even `!=`; only `= nil` asks for it.

use regex::{Regex, RegexBuilder};

use super::ast::{Binary, Expr, Node};
use super::error::QueryError;
use super::field::{Field, Reach};
use super::value::{Arithmetic, Comparison, Literal, Type, Value, calculate, compare, negate, over_elements};

/// Memory that one compiled regular expression may take.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// Values of one side that are calculated with, or compared with those of another field: a span with many events
/// must not cost their square.
const PAIRED_MAX: usize = 128;

/// Where the fields of one span, or of its unit, are read.
pub(crate) trait Fields {
    /// Gives the field's values to `test` until it is true of one; says whether it was.
    fn any(&self, field: &Field, test: &mut dyn FnMut(&Value<'_>) -> bool) -> bool;
}

/// True or false of one span.
#[derive(Clone, Debug)]
pub(crate) enum Predicate {
    Const(bool),
    And(Box<[Self]>),
    Or(Box<[Self]>),
    Not(Box<Self>),
    /// The term is there, or is not.
    Exists {
        field: Field,
        wanted: bool,
    },
    Compare {
        op: Comparison,
        left: Term,
        right: Term,
    },
    Regex {
        term: Term,
        regex: Regex,
        negated: bool,
    },
    /// A term that is this boolean.
    Is {
        term: Term,
        wanted: bool,
    },
}

#[derive(Clone, Debug)]
pub(crate) enum Term {
    Literal(Literal),
    Field(Field),
    Negative(Box<Self>),
    Arithmetic { op: Arithmetic, left: Box<Self>, right: Box<Self> },
    Predicate(Box<Predicate>),
}

impl Predicate {
    pub(crate) fn holds(&self, from: &dyn Fields) -> bool {
        match self {
            Self::Const(value) => *value,
            Self::And(tests) => tests.iter().all(|test| test.holds(from)),
            Self::Or(tests) => tests.iter().any(|test| test.holds(from)),
            Self::Not(test) => !test.holds(from),
            Self::Exists { field, wanted } => from.any(field, &mut |_| true) == *wanted,
            Self::Compare { op, left, right: Term::Literal(literal) } => {
                let right = literal.value();
                left.any(from, &mut |left| compare(*op, left, &right))
            }
            Self::Compare { op, left, right } => {
                left.any_few(from, &mut |left| right.any_few(from, &mut |right| compare(*op, left, right)))
            }
            Self::Regex { term, regex, negated } => {
                term.any(from, &mut |value| matches(regex, *negated, value))
            }
            Self::Is { term, wanted } => {
                term.any(from, &mut |value| matches!(value, Value::Bool(value) if value == wanted))
            }
        }
    }

    /// What has to be looked at.
    pub(crate) fn reach(&self) -> Reach {
        let mut reach = Reach::Unit;
        self.each_field(&mut |field| reach = reach.max(field.reach()));
        reach
    }

    /// Whether it asks about the unit, perhaps beside its spans, as in `name = rootName`.
    pub(super) fn mentions_unit(&self) -> bool {
        !self.all_fields(|field| field.reach() > Reach::Unit)
    }

    /// Whether what a scan finds in one span decides it.
    pub(super) fn is_of_scan(&self) -> bool {
        match self {
            Self::Const(_) => true,
            Self::And(tests) | Self::Or(tests) => tests.iter().all(Self::is_of_scan),
            Self::Not(test) => test.is_of_scan(),
            leaf => leaf.all_fields(|field| field.reach() == Reach::Scan) || leaf.is_of_attributes(),
        }
    }

    /// Whether it asks about nothing but attributes.
    pub(super) fn is_of_attributes(&self) -> bool {
        self.all_fields(Field::is_attribute)
    }

    fn all_fields(&self, wanted: impl Fn(&Field) -> bool) -> bool {
        let mut all = true;
        self.each_field(&mut |field| all &= wanted(field));
        all
    }

    pub(super) fn each_field(&self, visit: &mut dyn FnMut(&Field)) {
        match self {
            Self::Const(_) => {}
            Self::And(tests) | Self::Or(tests) => tests.iter().for_each(|test| test.each_field(visit)),
            Self::Not(test) => test.each_field(visit),
            Self::Exists { field, .. } => visit(field),
            Self::Compare { left, right, .. } => {
                left.each_field(visit);
                right.each_field(visit);
            }
            Self::Regex { term, .. } | Self::Is { term, .. } => term.each_field(visit),
        }
    }

    /// Whether some part of it passes `wanted`.
    pub(crate) fn contains(&self, wanted: &dyn Fn(&Self) -> bool) -> bool {
        let below = match self {
            Self::And(tests) | Self::Or(tests) => tests.iter().any(|test| test.contains(wanted)),
            Self::Not(test) => test.contains(wanted),
            _ => false,
        };
        below || wanted(self)
    }
}

/// An array matches with one of its elements, and is matched by none of them with all.
fn matches(regex: &Regex, negated: bool, value: &Value<'_>) -> bool {
    match value {
        Value::Text(text) => regex.is_match(text) != negated,
        Value::Array(array) => over_elements(
            array,
            negated,
            |element| matches!(element, Value::Text(text) if regex.is_match(text) != negated),
        ),
        _ => false,
    }
}

impl Term {
    /// Gives its values to `test` until it is true of one; says whether it was.
    pub(crate) fn any(&self, from: &dyn Fields, test: &mut dyn FnMut(&Value<'_>) -> bool) -> bool {
        match self {
            Self::Literal(literal) => test(&literal.value()),
            Self::Field(field) => from.any(field, test),
            Self::Negative(term) => {
                term.any(from, &mut |value| negate(value).is_some_and(|value| test(&value)))
            }
            Self::Arithmetic { op, left, right } => {
                let right = right.numbers(from);
                left.any_few(from, &mut |left| {
                    right.iter().any(|right| calculate(*op, left, right).is_some_and(|value| test(&value)))
                })
            }
            Self::Predicate(inner) => test(&Value::Bool(inner.holds(from))),
        }
    }

    /// As [`any`](Self::any), of the first values alone.
    fn any_few(&self, from: &dyn Fields, test: &mut dyn FnMut(&Value<'_>) -> bool) -> bool {
        let mut seen = 0;
        let mut found = false;
        self.any(from, &mut |value| {
            seen += 1;
            found = test(value);
            found || seen == PAIRED_MAX
        });
        found
    }

    fn numbers(&self, from: &dyn Fields) -> Vec<Value<'static>> {
        let mut numbers = Vec::with_capacity(1);
        self.any_few(from, &mut |value| {
            numbers.extend(value.to_number());
            false
        });
        numbers
    }

    /// What has to be looked at.
    pub(crate) fn reach(&self) -> Reach {
        let mut reach = Reach::Unit;
        self.each_field(&mut |field| reach = reach.max(field.reach()));
        reach
    }

    fn each_field(&self, visit: &mut dyn FnMut(&Field)) {
        match self {
            Self::Literal(_) => {}
            Self::Field(field) => visit(field),
            Self::Negative(term) => term.each_field(visit),
            Self::Arithmetic { left, right, .. } => {
                left.each_field(visit);
                right.each_field(visit);
            }
            Self::Predicate(test) => test.each_field(visit),
        }
    }
}

/// Checks the types of parsed expressions and compiles them.
#[derive(Clone, Copy)]
pub(super) struct Compiler<'a> {
    pub(super) text: &'a str,
}

impl Compiler<'_> {
    pub(super) fn error<T>(&self, at: usize, message: impl Into<String>) -> Result<T, QueryError> {
        Err(QueryError::new(self.text, at, message))
    }

    /// An expression that has to be true or false.
    pub(super) fn test(&self, node: &Node) -> Result<Predicate, QueryError> {
        match &node.expr {
            Expr::Literal(Literal::Bool(value)) => Ok(Predicate::Const(*value)),
            Expr::And(nodes) => Ok(Predicate::And(self.tests(nodes)?)),
            Expr::Or(nodes) => Ok(Predicate::Or(self.tests(nodes)?)),
            Expr::Not(node) => Ok(match self.test(node)? {
                Predicate::Is { term, wanted } => Predicate::Is { term, wanted: !wanted },
                test => Predicate::Not(Box::new(test)),
            }),
            Expr::Binary { op: Binary::Compare(op), op_at, left, right } => {
                self.comparison(*op, *op_at, left, right)
            }
            Expr::Binary { op: Binary::Regex { negated }, op_at, left, right } => {
                self.regex(*negated, *op_at, left, right)
            }
            _ => match self.term(node)? {
                (term, Type::Any | Type::Bool) => Ok(Predicate::Is { term, wanted: true }),
                (_, found) => {
                    self.error(node.at, format!("found {found}, expected a condition that is true or false"))
                }
            },
        }
    }

    fn tests(&self, nodes: &[Node]) -> Result<Box<[Predicate]>, QueryError> {
        nodes.iter().map(|node| self.test(node)).collect()
    }

    fn comparison(
        &self,
        op: Comparison,
        at: usize,
        left: &Node,
        right: &Node,
    ) -> Result<Predicate, QueryError> {
        let is_nil = |node: &Node| node.expr == Expr::Literal(Literal::Nil);
        if is_nil(left) || is_nil(right) {
            let other = if is_nil(right) { left } else { right };
            return self.nil_test(op, at, other);
        }
        let ((left, left_type), (right, right_type)) = (self.term(left)?, self.term(right)?);
        if let Some(span) = [left_type, right_type].into_iter().find(|kind| *kind == Type::Span) {
            return self.error(at, format!("found {span} compared with a value, expected `parent = nil`"));
        }
        if !left_type.fits(right_type) {
            return self
                .error(at, format!("found {left_type} compared with {right_type}, expected the same type"));
        }
        let ordered = left_type.is_ordered() && right_type.is_ordered();
        if !op.is_equality() && !ordered {
            let unordered = if left_type.is_ordered() { right_type } else { left_type };
            return self.error(
                at,
                format!("found {unordered} where only numbers, durations and texts have an order"),
            );
        }
        Ok(Predicate::Compare { op, left, right })
    }

    fn nil_test(&self, op: Comparison, at: usize, node: &Node) -> Result<Predicate, QueryError> {
        let Expr::Field(field) = &node.expr else {
            return self.error(node.at, "expected a field, because only a field can be nil");
        };
        if !op.is_equality() {
            return self.error(at, "expected `= nil` or `!= nil`");
        }
        if !field.can_be_nil() {
            return self.error(node.at, "found a field that every span has compared with nil");
        }
        Ok(Predicate::Exists { field: field.clone(), wanted: op == Comparison::NotEqual })
    }

    fn regex(&self, negated: bool, at: usize, left: &Node, right: &Node) -> Result<Predicate, QueryError> {
        let Expr::Literal(Literal::Text(pattern)) = &right.expr else {
            return self.error(right.at, "expected a regular expression in quotes");
        };
        let (term, kind) = self.term(left)?;
        if !kind.fits(Type::Text) {
            return self
                .error(at, format!("found {kind}, expected a text to match with a regular expression"));
        }
        let anchored = RegexBuilder::new(&format!("^(?:{pattern})$")).size_limit(REGEX_BYTES_MAX).build();
        match anchored {
            Ok(regex) => Ok(Predicate::Regex { term, regex, negated }),
            Err(error) => self.error(
                right.at,
                format!("`{pattern}` is no regular expression: {}", reason(pattern, &error)),
            ),
        }
    }

    pub(super) fn term(&self, node: &Node) -> Result<(Term, Type), QueryError> {
        match &node.expr {
            Expr::Literal(Literal::Nil) => {
                self.error(node.at, "found nil, expected `= nil` or `!= nil` after a field")
            }
            Expr::Literal(literal) => Ok((Term::Literal(literal.clone()), literal.kind())),
            Expr::Field(field) => Ok((Term::Field(field.clone()), field.kind())),
            Expr::Negative(inner) => {
                let (term, kind) = self.number(inner)?;
                Ok((Term::Negative(Box::new(term)), kind))
            }
            Expr::Binary { op: Binary::Arithmetic(op), left, right, .. } => {
                let ((left, left_type), (right, right_type)) = (self.number(left)?, self.number(right)?);
                let both_int = left_type == Type::Int && right_type == Type::Int;
                let term = Term::Arithmetic { op: *op, left: Box::new(left), right: Box::new(right) };
                Ok((term, if both_int { Type::Int } else { Type::Float }))
            }
            _ => Ok((Term::Predicate(Box::new(self.test(node)?)), Type::Bool)),
        }
    }

    /// An expression that has to be a number, as far as is known.
    pub(super) fn number(&self, node: &Node) -> Result<(Term, Type), QueryError> {
        let (term, kind) = self.term(node)?;
        if kind != Type::Any && !kind.is_number() {
            return self
                .error(node.at, format!("found {kind}, expected a number or a duration to calculate with"));
        }
        Ok((term, kind))
    }
}

/// One line of what is wrong, of the pattern as it was written.
fn reason(pattern: &str, error: &regex::Error) -> String {
    let alone = Regex::new(pattern).err();
    let error = alone.as_ref().unwrap_or(error);
    match error {
        regex::Error::CompiledTooBig(limit) => format!("it takes more than {limit} bytes"),
        error => {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            last.strip_prefix("error: ").unwrap_or(last).to_owned()
        }
    }
}
