//! Policies on their way from one configuration to another, and their order.

use super::expr::{Expr, Form};

/// A share of traces, with its exact decimal digits.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Portion {
    /// Of one that a variable says, what it is taken for where policies are put in order.
    pub(super) percent: f64,
    /// Such as `${SHARE}`, in our spelling.
    variable: Option<String>,
}

impl Portion {
    pub(super) const EVERYTHING: Self = Self::percent(100.0);
    pub(super) const NOTHING: Self = Self::percent(0.0);

    pub(super) const fn percent(percent: f64) -> Self {
        Self { percent, variable: None }
    }

    /// A percentage that the environment says.
    pub(super) fn from_environment(variable: String, percent: f64) -> Self {
        Self { percent, variable: Some(variable) }
    }

    pub(super) fn is_from_environment(&self) -> bool {
        self.variable.is_some()
    }

    /// One of so many.
    pub(super) fn one_in(rate: i64) -> Self {
        if rate <= 1 { Self::EVERYTHING } else { Self::percent(100.0 / rate as f64) }
    }

    /// None: a variable cannot be calculated with.
    pub(super) fn times(&self, other: &Self) -> Option<Self> {
        match (&self.variable, &other.variable) {
            (None, None) => Some(Self::percent(self.percent * other.percent / 100.0)),
            (Some(_), None) if other.is_everything() => Some(self.clone()),
            (None, Some(_)) if self.is_everything() => Some(other.clone()),
            _ => None,
        }
    }

    pub(super) fn is_everything(&self) -> bool {
        self.percent >= 100.0 && self.variable.is_none()
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.percent <= 0.0 && self.variable.is_none()
    }
}

impl std::fmt::Display for Portion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(variable) = &self.variable {
            return write!(f, "\"{variable}%\"");
        }
        // Twelve decimals are exact enough; a third has no end.
        let digits = format!("{:.12}", self.percent);
        write!(f, "{}%", digits.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// A bound on what leaves in a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Budget {
    Spans(u64),
    Bytes(u64),
}

impl std::fmt::Display for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Spans(spans) => write!(f, "{spans} spans/s"),
            Self::Bytes(bytes) if bytes.is_multiple_of(1_000_000) => write!(f, "{}MB/s", bytes / 1_000_000),
            Self::Bytes(bytes) if bytes.is_multiple_of(1_000) => write!(f, "{}kB/s", bytes / 1_000),
            Self::Bytes(bytes) => write!(f, "{bytes}B/s"),
        }
    }
}

/// How much is kept of what matches.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Keep {
    pub(super) share: Portion,
    pub(super) at_most: Option<Budget>,
    /// Such as `2/min`.
    pub(super) at_least: Option<String>,
    /// TraceQL fields.
    pub(super) per: Vec<String>,
}

impl Keep {
    pub(super) fn share(share: Portion) -> Self {
        Self { share, at_most: None, at_least: None, per: Vec::new() }
    }

    pub(super) fn everything() -> Self {
        Self::share(Portion::EVERYTHING)
    }

    pub(super) fn budget(budget: Budget) -> Self {
        Self { at_most: Some(budget), ..Self::everything() }
    }

    pub(super) fn is_everything(&self) -> bool {
        self.share.is_everything() && self.at_most.is_none()
    }
}

impl std::fmt::Display for Keep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.at_most, &self.at_least, self.per.is_empty()) {
            (None, None, true) => return self.share.fmt(f),
            (Some(budget), None, true) if self.share.is_everything() => return budget.fmt(f),
            _ => {}
        }
        let mut parts = vec![format!("share: {}", self.share)];
        parts.extend(self.at_least.as_ref().map(|bound| format!("at_least: {bound}")));
        parts.extend(self.at_most.as_ref().map(|bound| format!("at_most: {bound}")));
        if !self.per.is_empty() {
            let fields: Vec<String> = self.per.iter().map(|field| super::emit::scalar(field)).collect();
            parts.push(format!("per: [{}]", fields.join(", ")));
        }
        write!(f, "{{ {} }}", parts.join(", "))
    }
}

/// A policy that is not written yet.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) name: String,
    /// Of the foreign file.
    pub(super) line: usize,
    /// What it was there, such as `string_attribute`.
    pub(super) origin: String,
    pub(super) when: Expr,
    /// It keeps nothing, and no other policy is to be asked.
    pub(super) drops: bool,
    pub(super) keep: Keep,
    /// Sentences about what is only nearly the same.
    pub(super) differs: Vec<String>,
    /// Sentences that a reader may want.
    pub(super) comments: Vec<String>,
}

/// A policy as it will stand in the file.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) draft: Draft,
    pub(super) form: Form,
}

impl Written {
    pub(super) fn matches_everything(&self) -> bool {
        self.form == Form::default()
    }
}

impl Draft {
    /// The policies that say it. None: too many would be needed.
    pub(super) fn written(mut self) -> Option<Vec<Written>> {
        let when = std::mem::replace(&mut self.when, Expr::Const(false));
        let mut forms = when.forms()?;
        if forms.is_empty() {
            forms.push(Form { matches: Some("{ false }".to_owned()), unless: None });
        }
        if forms.len() > 1 && self.keep.at_most.is_some() {
            self.differs.push("each of the policies it became has the whole budget".to_owned());
        }
        let several = forms.len() > 1;
        let written = forms.into_iter().enumerate().map(|(index, form)| {
            let mut draft = self.clone();
            if several && index > 0 {
                draft.name = format!("{}-{}", draft.name, index + 1);
            }
            Written { draft, form }
        });
        Some(written.collect())
    }
}

/// Where one vote is enough, the policy that keeps most has to be asked first: what it does not match, the
/// next one sees. Drops come before all. A budget for everything is asked after the conditions, which it would
/// silence, and before a share of everything.
pub(super) fn by_falling_share(written: &mut Vec<Written>) {
    let is_budget_of_all =
        |written: &Written| written.matches_everything() && written.draft.keep.at_most.is_some();
    let (budgets, mut others): (Vec<Written>, Vec<Written>) = written.drain(..).partition(is_budget_of_all);
    let rank = |written: &Written| {
        let keep = &written.draft.keep;
        (!written.draft.drops, -keep.share.percent, keep.at_most.is_some())
    };
    others.sort_by(|a, b| rank(a).partial_cmp(&rank(b)).unwrap_or(std::cmp::Ordering::Equal));
    let share_of_all =
        |written: &Written| written.matches_everything() && !written.draft.keep.is_everything();
    let at = others.iter().position(share_of_all).unwrap_or(others.len());
    others.splice(at..at, budgets);
    *written = others;
}

/// Says of policies behind one that matches everything that they are never asked.
pub(super) fn note_unreachable(written: &mut [Written]) {
    let Some(all) = written.iter().position(Written::matches_everything) else { return };
    let (name, keep) = (written[all].draft.name.clone(), written[all].draft.keep.clone());
    for later in written[all + 1..].iter_mut().map(|written| &mut written.draft) {
        if keep.at_most.is_none() && later.keep.share.percent <= keep.share.percent {
            let why = format!(
                "never asked: `{name}` keeps {keep} of everything, and with it what this one would keep"
            );
            later.comments.push(why);
        } else {
            later.differs.push(format!(
                "never asked: `{name}` matches everything and decides alone; what this policy would have kept beside \
                 it is not kept"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_written_as_people_write_them() {
        let table = [(10.0, "10%"), (0.1, "0.1%"), (33.0, "33%"), (12.5, "12.5%"), (0.0001, "0.0001%")];
        for (percent, text) in table {
            assert_eq!(Portion::percent(percent).to_string(), text);
        }
        assert_eq!(Portion::one_in(3).to_string(), "33.333333333333%");
        assert_eq!(Portion::one_in(20).to_string(), "5%");
        assert_eq!(Portion::one_in(0).to_string(), "100%");
    }

    #[test]
    fn what_is_kept_is_said_as_shortly_as_possible() {
        assert_eq!(Keep::budget(Budget::Spans(100)).to_string(), "100 spans/s");
        assert_eq!(Keep::budget(Budget::Bytes(10_000)).to_string(), "10kB/s");
        let keep = Keep {
            share: Portion::percent(5.0),
            at_most: Some(Budget::Bytes(5_000_000)),
            at_least: Some("2/min".to_owned()),
            per: vec!["resource.service.name".to_owned(), ".\"a b\"".to_owned()],
        };
        let text = "{ share: 5%, at_least: 2/min, at_most: 5MB/s, per: [resource.service.name, '.\"a b\"'] }";
        assert_eq!(keep.to_string(), text);
    }
}
