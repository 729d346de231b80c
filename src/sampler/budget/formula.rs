//! `keep: { share, at_least, at_most, per }` as typed.

use std::fmt;

use serde::Deserialize;

use super::Rate;
use crate::sampler::traceql::SpanField;
use crate::trace::Share;

/// A share and its bounds; at least one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Formula {
    pub share: Share,
    /// The share rises until so much is kept.
    pub at_least: Option<Rate>,
    /// The share falls until no more is kept. Wins.
    pub at_most: Option<Rate>,
    /// What units are told apart by, each with bounds of its own: fields of the root. Empty: by nothing.
    pub per: Vec<SpanField>,
}

/// The mapping, before what is said together is looked at.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "keys with values, such as { share: 1%, at_most: 100/s }")]
pub(crate) struct RawFormula {
    share: Option<Share>,
    at_least: Option<Rate>,
    at_most: Option<Rate>,
    #[serde(default)]
    per: Vec<SpanField>,
}

impl Formula {
    /// `keep: 100/s`.
    pub fn at_most(bound: Rate) -> Self {
        Self { share: Share::EVERYTHING, at_least: None, at_most: Some(bound), per: Vec::new() }
    }

    pub(crate) fn bounds(&self) -> impl Iterator<Item = Rate> {
        self.at_least.into_iter().chain(self.at_most)
    }

    /// What is said together, or what is wrong with it.
    pub(crate) fn of(raw: RawFormula) -> Result<Self, &'static str> {
        let RawFormula { share, at_least, at_most, per } = raw;
        match (share, at_least, at_most) {
            (Some(_), None, None) if per.is_empty() => Err(
                "found a share without bounds, expected at_least or at_most beside it, or the share alone: keep: 5%",
            ),
            (_, None, None) => Err("found no bound, expected at_least or at_most"),
            (None, Some(_), _) => {
                Err("found at_least without a share, expected the share that it raises, such as share: 1%")
            }
            (share, ..) => Ok(Self { share: share.unwrap_or(Share::EVERYTHING), at_least, at_most, per }),
        }
    }
}

impl fmt::Display for Formula {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.share.fmt(f)?;
        if let Some(bound) = self.at_least {
            write!(f, ", at least {bound}")?;
        }
        if let Some(bound) = self.at_most {
            write!(f, ", at most {bound}")?;
        }
        for (number, field) in self.per.iter().enumerate() {
            write!(f, "{}{field}", if number == 0 { ", per " } else { " and " })?;
        }
        Ok(())
    }
}
