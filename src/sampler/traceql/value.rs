//! Values, and what operators make of them.
//!
//! As in Tempo: numbers and durations compare with each other, everything else only with its own type;
//! what does not fit is not true and stops nobody. Of an array one element has to fit, for `!=` and
//! `!~` every element.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use crate::otlp::{ArrayView, ValueView};

/// Types that are known before any span is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    /// An attribute: any type, or absent.
    Any,
    Nil,
    Bool,
    Int,
    Float,
    Duration,
    Text,
    Status,
    Kind,
    /// `parent`: it is there or not.
    Span,
}

impl Type {
    pub(crate) fn is_number(self) -> bool {
        matches!(self, Self::Int | Self::Float | Self::Duration)
    }

    /// Whether values of these types can be compared at all.
    pub(crate) fn fits(self, other: Self) -> bool {
        self == other || self == Self::Any || other == Self::Any || (self.is_number() && other.is_number())
    }

    pub(crate) fn is_ordered(self) -> bool {
        self.is_number() || matches!(self, Self::Text | Self::Any)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "an attribute",
            Self::Nil => "nil",
            Self::Bool => "a boolean",
            Self::Int | Self::Float => "a number",
            Self::Duration => "a duration",
            Self::Text => "a text",
            Self::Status => "a status (ok, error, unset)",
            Self::Kind => "a kind (server, client, …)",
            Self::Span => "a span",
        })
    }
}

/// A value that stands in the condition.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Literal {
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Duration(i64),
    Text(Box<str>),
    Status(i32),
    Kind(i32),
}

impl Literal {
    /// The value that a bare word stands for.
    pub(crate) fn keyword(word: &str) -> Option<Self> {
        Some(match word {
            "nil" => Self::Nil,
            "true" => Self::Bool(true),
            "false" => Self::Bool(false),
            "unset" => Self::Status(0),
            "ok" => Self::Status(1),
            "error" => Self::Status(2),
            "unspecified" => Self::Kind(0),
            "internal" => Self::Kind(1),
            "server" => Self::Kind(2),
            "client" => Self::Kind(3),
            "producer" => Self::Kind(4),
            "consumer" => Self::Kind(5),
            _ => return None,
        })
    }

    pub(crate) fn kind(&self) -> Type {
        match self {
            Self::Nil => Type::Nil,
            Self::Bool(_) => Type::Bool,
            Self::Int(_) => Type::Int,
            Self::Float(_) => Type::Float,
            Self::Duration(_) => Type::Duration,
            Self::Text(_) => Type::Text,
            Self::Status(_) => Type::Status,
            Self::Kind(_) => Type::Kind,
        }
    }

    /// Of a number, the number with the other sign.
    pub(crate) fn negative(self) -> Self {
        match self {
            Self::Int(value) => Self::Int(value.wrapping_neg()),
            Self::Float(value) => Self::Float(-value),
            Self::Duration(value) => Self::Duration(value.wrapping_neg()),
            other => other,
        }
    }

    pub(crate) fn value(&self) -> Value<'_> {
        match self {
            Self::Nil => Value::Opaque,
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(value) => Value::Int(*value),
            Self::Float(value) => Value::Float(*value),
            Self::Duration(value) => Value::Duration(*value),
            Self::Text(value) => Value::Text(Cow::Borrowed(value)),
            Self::Status(value) => Value::Status(*value),
            Self::Kind(value) => Value::Kind(*value),
        }
    }
}

/// A value that a span has.
#[derive(Clone, Debug)]
pub(crate) enum Value<'a> {
    Bool(bool),
    Int(i64),
    Float(f64),
    Duration(i64),
    Text(Cow<'a, str>),
    Status(i32),
    Kind(i32),
    Array(ArrayView<'a>),
    /// There, but nothing to compare with: bytes, maps, arrays in arrays.
    Opaque,
}

impl<'a> Value<'a> {
    /// None: an attribute without a value counts as absent.
    pub(crate) fn read(view: ValueView<'a>) -> Option<Self> {
        Some(match view {
            ValueView::Empty => return None,
            ValueView::String(bytes) => Self::Text(String::from_utf8_lossy(bytes)),
            ValueView::Bool(value) => Self::Bool(value),
            ValueView::Int(value) => Self::Int(value),
            ValueView::Double(value) => Self::Float(value),
            ValueView::Array(array) => Self::Array(array),
            ValueView::KvList(_) | ValueView::Bytes(_) => Self::Opaque,
        })
    }

    /// The same, if it is a number.
    pub(crate) fn to_number(&self) -> Option<Value<'static>> {
        Some(match self {
            Self::Int(value) => Value::Int(*value),
            Self::Float(value) => Value::Float(*value),
            Self::Duration(value) => Value::Duration(*value),
            _ => return None,
        })
    }

    fn integer(&self) -> Option<i64> {
        match self {
            Self::Int(value) | Self::Duration(value) => Some(*value),
            _ => None,
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            Self::Int(value) | Self::Duration(value) => Some(*value as f64),
            Self::Float(value) => Some(*value),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    #[inline]
    pub(crate) fn accepts(self, ordering: Ordering) -> bool {
        match self {
            Self::Equal => ordering.is_eq(),
            Self::NotEqual => ordering.is_ne(),
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
        }
    }

    pub(crate) fn is_equality(self) -> bool {
        matches!(self, Self::Equal | Self::NotEqual)
    }
}

/// `left op right`, arrays included.
pub(crate) fn compare(op: Comparison, left: &Value<'_>, right: &Value<'_>) -> bool {
    let all = op == Comparison::NotEqual;
    match (left, right) {
        (Value::Array(_), Value::Array(_)) => false,
        (Value::Array(elements), one) => {
            over_elements(elements, all, |element| compare_one(op, element, one))
        }
        (one, Value::Array(elements)) => {
            over_elements(elements, all, |element| compare_one(op, one, element))
        }
        (left, right) => compare_one(op, left, right),
    }
}

/// Whether one element of the array passes; with `all`, whether every one does.
pub(crate) fn over_elements(
    array: &ArrayView<'_>,
    all: bool,
    mut test: impl FnMut(&Value<'_>) -> bool,
) -> bool {
    let mut passes = |view| test(&Value::read(view).unwrap_or(Value::Opaque));
    if all { array.iter().all(&mut passes) } else { array.iter().any(&mut passes) }
}

fn compare_one(op: Comparison, left: &Value<'_>, right: &Value<'_>) -> bool {
    let ordering = match (left, right) {
        (Value::Text(left), Value::Text(right)) => left.as_bytes().cmp(right.as_bytes()),
        (Value::Bool(left), Value::Bool(right)) if op.is_equality() => left.cmp(right),
        (Value::Status(left), Value::Status(right)) | (Value::Kind(left), Value::Kind(right))
            if op.is_equality() =>
        {
            left.cmp(right)
        }
        (left, right) => match (left.integer(), right.integer()) {
            (Some(left), Some(right)) => left.cmp(&right),
            _ => return compare_floats(op, left.number(), right.number()),
        },
    };
    op.accepts(ordering)
}

/// NaN differs from everything and is neither above nor below it.
fn compare_floats(op: Comparison, left: Option<f64>, right: Option<f64>) -> bool {
    let (Some(left), Some(right)) = (left, right) else { return false };
    left.partial_cmp(&right).map_or(op == Comparison::NotEqual, |ordering| op.accepts(ordering))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Power,
}

/// Integers stay integers, everything else becomes a float; what cannot be computed has no value.
pub(crate) fn calculate(op: Arithmetic, left: &Value<'_>, right: &Value<'_>) -> Option<Value<'static>> {
    if let (Value::Int(left), Value::Int(right)) = (left, right)
        && let Some(result) = calculate_integers(op, *left, *right)
    {
        return result.map(Value::Int);
    }
    let (left, right) = (left.number()?, right.number()?);
    Some(Value::Float(match op {
        Arithmetic::Add => left + right,
        Arithmetic::Subtract => left - right,
        Arithmetic::Multiply => left * right,
        Arithmetic::Divide => left / right,
        Arithmetic::Remainder => left % right,
        Arithmetic::Power => left.powf(right),
    }))
}

/// Outer None: not within the integers. Inner None: divided by zero.
fn calculate_integers(op: Arithmetic, left: i64, right: i64) -> Option<Option<i64>> {
    match op {
        Arithmetic::Divide | Arithmetic::Remainder if right == 0 => Some(None),
        Arithmetic::Add => left.checked_add(right).map(Some),
        Arithmetic::Subtract => left.checked_sub(right).map(Some),
        Arithmetic::Multiply => left.checked_mul(right).map(Some),
        Arithmetic::Divide => left.checked_div(right).map(Some),
        Arithmetic::Remainder => left.checked_rem(right).map(Some),
        Arithmetic::Power => u32::try_from(right).ok().and_then(|right| left.checked_pow(right)).map(Some),
    }
}

pub(crate) fn negate(value: &Value<'_>) -> Option<Value<'static>> {
    match value {
        Value::Int(value) => value.checked_neg().map(Value::Int),
        Value::Duration(value) => value.checked_neg().map(Value::Duration),
        Value::Float(value) => Some(Value::Float(-value)),
        _ => None,
    }
}
