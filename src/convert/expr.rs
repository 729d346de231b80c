//! Conditions on a whole trace, and how they are said with `match` and `unless`.
//!
//! TraceQL can say that some span is so, and join such sentences with `&&` and `||`. It cannot say that no
//! span is so; that is what `unless` is for, of which a policy has one. What needs more than one becomes several
//! policies.

use super::traceql::Inner;

/// Policies that one condition may become.
const FORMS_MAX: usize = 8;

/// True or false of a trace.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expr {
    Const(bool),
    /// Some span is so.
    Some(Inner),
    /// About the trace itself, such as its duration: the same for all its spans.
    Whole {
        holds: Inner,
        fails: Inner,
    },
    /// How many spans there are.
    Count(Order, u64),
    And(Vec<Self>),
    Or(Vec<Self>),
    Not(Box<Self>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Less,
    LessOrEqual,
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
}

impl Order {
    pub(super) fn sign(self) -> &'static str {
        match self {
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }

    pub(super) fn negated(self) -> Self {
        match self {
            Self::Less => Self::GreaterOrEqual,
            Self::LessOrEqual => Self::Greater,
            Self::Equal => Self::NotEqual,
            Self::NotEqual => Self::Equal,
            Self::Greater => Self::LessOrEqual,
            Self::GreaterOrEqual => Self::Less,
        }
    }
}

/// A `match` and an `unless`; without either, everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Form {
    pub(super) matches: Option<String>,
    pub(super) unless: Option<String>,
}

impl Expr {
    pub(super) fn not(self) -> Self {
        match self {
            Self::Const(value) => Self::Const(!value),
            Self::Whole { holds, fails } => Self::Whole { holds: fails, fails: holds },
            Self::Count(order, spans) => Self::Count(order.negated(), spans),
            Self::Not(inner) => *inner,
            other => Self::Not(Box::new(other)),
        }
    }

    /// The policies that say it, one of which has to match. None: it takes too many.
    pub(super) fn forms(self) -> Option<Vec<Form>> {
        let wanted = self.wanted()?;
        Some(wanted.into_iter().map(|wanted| wanted.form()).collect())
    }

    fn is_positive(&self) -> bool {
        match self {
            Self::And(parts) | Self::Or(parts) => parts.iter().all(Self::is_positive),
            Self::Not(_) => false,
            _ => true,
        }
    }

    fn wanted(self) -> Option<Vec<Wanted>> {
        let found = match self {
            Self::Const(true) => vec![Wanted::default()],
            Self::Const(false) => Vec::new(),
            Self::Not(inner) if inner.is_positive() => vec![Wanted { some: None, none: inner.positive() }],
            Self::Not(inner) => return inner.pushed_not().wanted(),
            Self::And(parts) => {
                let mut all = vec![Wanted::default()];
                for part in parts {
                    let part = part.wanted()?;
                    all = all.iter().flat_map(|left| part.iter().map(|right| left.and(right))).collect();
                    if all.len() > FORMS_MAX {
                        return None;
                    }
                }
                all
            }
            Self::Or(parts) => {
                let parts: Option<Vec<Vec<Wanted>>> = parts.into_iter().map(Self::wanted).collect();
                Wanted::any(parts?.into_iter().flatten().collect())
            }
            atom => vec![Wanted { some: atom.positive(), none: None }],
        };
        (found.len() <= FORMS_MAX).then_some(found)
    }

    /// The negation of a conjunction or disjunction, by its parts.
    fn pushed_not(self) -> Self {
        match self {
            Self::And(parts) => Self::Or(parts.into_iter().map(Self::not).collect()),
            Self::Or(parts) => Self::And(parts.into_iter().map(Self::not).collect()),
            other => other.not(),
        }
    }

    /// None: always true.
    fn positive(self) -> Option<Positive> {
        Some(match self {
            Self::Const(true) => return None,
            Self::Const(false) => Positive::Inner { inner: Inner::new("false"), whole: true },
            Self::Some(inner) => Positive::Inner { inner, whole: false },
            Self::Whole { holds, .. } => Positive::Inner { inner: holds, whole: true },
            Self::Count(order, spans) => Positive::Count(vec![(order, spans)]),
            Self::And(parts) => return parts.into_iter().map(Self::positive).fold(None, Positive::and),
            Self::Or(parts) => return Positive::or(parts.into_iter().map(Self::positive).collect()),
            Self::Not(_) => return None,
        })
    }
}

/// What must be, and what must not be.
#[derive(Clone, Debug, Default)]
struct Wanted {
    some: Option<Positive>,
    none: Option<Positive>,
}

impl Wanted {
    fn and(&self, other: &Self) -> Self {
        let none = match (self.none.clone(), other.none.clone()) {
            (Some(left), Some(right)) => Positive::or(vec![Some(left), Some(right)]),
            (left, right) => left.or(right),
        };
        Self { some: Positive::and(self.some.clone(), other.some.clone()), none }
    }

    /// Those without an `unless` become one.
    fn any(all: Vec<Self>) -> Vec<Self> {
        let (plain, rest): (Vec<Self>, Vec<Self>) = all.into_iter().partition(|wanted| wanted.none.is_none());
        if plain.iter().any(|wanted| wanted.some.is_none()) {
            return vec![Self::default()];
        }
        let some = Positive::or(plain.into_iter().map(|wanted| wanted.some).collect());
        some.map(|some| Self { some: Some(some), none: None }).into_iter().chain(rest).collect()
    }

    fn form(&self) -> Form {
        Form {
            matches: self.some.as_ref().map(Positive::spanset),
            unless: self.none.as_ref().map(Positive::spanset),
        }
    }
}

/// What TraceQL says without a negation.
#[derive(Clone, Debug)]
enum Positive {
    Inner {
        inner: Inner,
        whole: bool,
    },
    /// All of these.
    Count(Vec<(Order, u64)>),
    And(Vec<Self>),
    Or(Vec<Self>),
}

impl Positive {
    /// None is always true. What is the same for all spans may stand in the braces of one.
    fn and(left: Option<Self>, right: Option<Self>) -> Option<Self> {
        let (left, right) = match (left, right) {
            (Some(left), Some(right)) => (left, right),
            (left, right) => return left.or(right),
        };
        Some(match (left, right) {
            (Self::Inner { inner: a, whole: left }, Self::Inner { inner: b, whole: right })
                if left || right =>
            {
                Self::Inner { inner: Inner::all(vec![a, b]), whole: left && right }
            }
            (Self::Count(mut left), Self::Count(right)) => {
                left.extend(right);
                Self::Count(left)
            }
            (Self::And(mut parts), right) => {
                match right {
                    Self::And(more) => parts.extend(more),
                    one => parts.push(one),
                }
                Self::And(parts)
            }
            (left, Self::And(mut parts)) => {
                parts.insert(0, left);
                Self::And(parts)
            }
            (left, right) => Self::And(vec![left, right]),
        })
    }

    /// Some span is a, or some span is b: some span is a or b.
    fn or(parts: Vec<Option<Self>>) -> Option<Self> {
        let (mut inners, mut whole, mut others) = (Vec::new(), true, Vec::new());
        for part in parts {
            match part? {
                Self::Inner { inner, whole: also } => {
                    inners.push(inner);
                    whole &= also;
                }
                Self::Or(parts) => others.extend(parts),
                other => others.push(other),
            }
        }
        if !inners.is_empty() {
            others.insert(0, Self::Inner { inner: Inner::any(inners), whole });
        }
        if others.len() > 1 { Some(Self::Or(others)) } else { others.pop() }
    }

    fn is_pipeline(&self) -> bool {
        match self {
            Self::Inner { .. } => false,
            Self::Count(_) => true,
            Self::And(parts) | Self::Or(parts) => parts.iter().any(Self::is_pipeline),
        }
    }

    fn spanset(&self) -> String {
        match self {
            Self::Inner { inner, .. } => format!("{{ {} }}", inner.as_str()),
            Self::Count(bounds) => bounds.iter().fold("{ }".to_owned(), |text, (order, spans)| {
                format!("{text} | count() {} {spans}", order.sign())
            }),
            Self::And(parts) => Self::joined(parts, " && ", self.is_pipeline()),
            Self::Or(parts) => Self::joined(parts, " || ", self.is_pipeline()),
        }
    }

    /// Beside a pipeline everything stands in parentheses, as TraceQL has it.
    fn joined(parts: &[Self], sign: &str, beside_pipeline: bool) -> String {
        let part = |part: &Self| {
            let alone = matches!(part, Self::Inner { .. }) && !beside_pipeline;
            if alone { part.spanset() } else { format!("({})", part.spanset()) }
        };
        parts.iter().map(part).collect::<Vec<_>>().join(sign)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(text: &str) -> Expr {
        Expr::Some(Inner::new(text))
    }

    fn longer(seconds: u32) -> Expr {
        Expr::Whole {
            holds: Inner::new(format!("traceDuration > {seconds}s")),
            fails: Inner::new(format!("traceDuration <= {seconds}s")),
        }
    }

    fn only(expr: Expr) -> (Option<String>, Option<String>) {
        let mut forms = expr.forms().unwrap();
        assert_eq!(forms.len(), 1, "{forms:?}");
        let form = forms.remove(0);
        (form.matches, form.unless)
    }

    #[test]
    fn different_spans_have_braces_of_their_own_and_alternatives_share_them() {
        let both = only(Expr::And(vec![some("a"), some("b")]));
        assert_eq!(both, (Some("{ a } && { b }".to_owned()), None));
        let either = only(Expr::Or(vec![some("a"), some("b")]));
        assert_eq!(either, (Some("{ a || b }".to_owned()), None));
    }

    #[test]
    fn what_is_the_same_for_all_spans_stands_in_the_braces_of_one() {
        let slow = only(Expr::And(vec![longer(1), longer(5).not(), some("a")]));
        assert_eq!(slow.0.unwrap(), "{ traceDuration > 1s && traceDuration <= 5s && a }");
    }

    #[test]
    fn a_negation_becomes_an_unless() {
        let without = only(Expr::And(vec![some("a"), some("b").not(), some("c").not()]));
        assert_eq!(without, (Some("{ a }".to_owned()), Some("{ b || c }".to_owned())));
        assert_eq!(only(some("a").not()), (None, Some("{ a }".to_owned())));
        let neither = only(Expr::Or(vec![some("a"), some("b").not()]).not());
        assert_eq!(neither, (Some("{ b }".to_owned()), Some("{ a }".to_owned())));
    }

    #[test]
    fn alternatives_with_an_unless_become_policies_of_their_own() {
        let forms = Expr::Or(vec![some("a"), some("b"), some("c").not()]).forms().unwrap();
        let texts: Vec<_> =
            forms.iter().map(|form| (form.matches.as_deref(), form.unless.as_deref())).collect();
        assert_eq!(texts, [(Some("{ a || b }"), None), (None, Some("{ c }"))]);
    }

    #[test]
    fn counts_are_pipelines_and_their_negation_is_the_opposite() {
        let range =
            Expr::And(vec![Expr::Count(Order::GreaterOrEqual, 2), Expr::Count(Order::LessOrEqual, 20)]);
        assert_eq!(only(range.clone()).0.unwrap(), "{ } | count() >= 2 | count() <= 20");
        assert_eq!(only(Expr::Count(Order::Less, 3).not()).0.unwrap(), "{ } | count() >= 3");
        let with = only(Expr::And(vec![some("a"), range]));
        assert_eq!(with.0.unwrap(), "({ a }) && ({ } | count() >= 2 | count() <= 20)");
    }

    #[test]
    fn constants_disappear() {
        assert_eq!(only(Expr::Const(true)), (None, None));
        assert_eq!(only(Expr::And(vec![Expr::Const(true), some("a")])).0.unwrap(), "{ a }");
        assert!(Expr::Const(false).forms().unwrap().is_empty());
    }
}
