//! What a user types under `policies`.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};

use super::slow::Percentile;
use crate::trace::Share;

/// One policy: a condition and what is kept of the units it matches.
///
/// `match`, `unless` and `slower_than` must all hold; without any of them everything matches.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyConfig {
    pub name: PolicyName,
    /// A TraceQL condition that must hold.
    #[serde(rename = "match", default)]
    pub matches: Option<ConditionText>,
    /// A TraceQL condition that must not hold.
    #[serde(default)]
    pub unless: Option<ConditionText>,
    /// Slower than this percentile of its own operation.
    #[serde(default)]
    pub slower_than: Option<Percentile>,
    pub keep: Keep,
    /// Evaluated and counted, never applied.
    #[serde(default)]
    pub shadow: bool,
}

/// What a policy is called in metrics and in Parquet: not empty, and not `none`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct PolicyName(String);

impl PolicyName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PolicyName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        match name.as_str() {
            "" => Err("found an empty name, expected one that metrics can show".to_owned()),
            "none" => {
                Err("found `none`, which names traces that no policy matched; expected another name"
                    .to_owned())
            }
            _ => Ok(Self(name)),
        }
    }
}

/// A condition as typed. It is compiled with the list of policies, so that an error can point into it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(transparent)]
pub struct ConditionText(pub String);

/// How much of what a policy matches is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keep {
    Share(Share),
}

impl<'de> Deserialize<'de> for Keep {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KeepVisitor)
    }
}

struct KeepVisitor;

impl<'de> Visitor<'de> for KeepVisitor {
    type Value = Keep;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a share such as 5% or 0.1%")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Keep, E> {
        if text.contains('/') {
            return Err(E::custom(format_args!(
                "found `{text}`: budgets are not supported yet, expected a share such as 5%"
            )));
        }
        text.parse().map(Keep::Share).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<Keep, A::Error> {
        Err(de::Error::custom(
            "budgets (share, at_least, at_most, per) are not supported yet, expected a share such as 5%",
        ))
    }
}
