//! What a user types under `policies`.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};

use super::budget::{Formula, RawFormula};
use super::slow::Percentile;
use crate::trace::{HashKey, Share};

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

/// Where the randomness of a trace comes from: `trace_id`, `hash` or `{ hash: KEY }`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RandomnessSource {
    /// An explicit `rv`, else the identifier.
    #[default]
    TraceId,
    /// A keyed hash of the identifier, for those that have no randomness themselves.
    Hash(String),
}

/// Of `randomness: hash`.
const DEFAULT_KEY: &str = "tailwater";

impl RandomnessSource {
    /// None: randomness is not hashed.
    pub fn hash_key(&self) -> Option<HashKey> {
        match self {
            Self::TraceId => None,
            Self::Hash(key) => Some(HashKey::of(key)),
        }
    }
}

impl<'de> Deserialize<'de> for RandomnessSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RandomnessVisitor)
    }
}

struct RandomnessVisitor;

/// `{ hash: KEY }`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Hash {
    hash: String,
}

impl<'de> Visitor<'de> for RandomnessVisitor {
    type Value = RandomnessSource;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("trace_id, hash or { hash: KEY }")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<RandomnessSource, E> {
        match text {
            "trace_id" => Ok(RandomnessSource::TraceId),
            "hash" => Ok(RandomnessSource::Hash(DEFAULT_KEY.to_owned())),
            _ => Err(E::custom(format_args!("found \"{text}\", expected trace_id, hash or {{ hash: KEY }}"))),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RandomnessSource, A::Error> {
        let Hash { hash } = Hash::deserialize(MapAccessDeserializer::new(map))?;
        Ok(RandomnessSource::Hash(hash))
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
    Formula(Box<Formula>),
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Share(share) => share.fmt(f),
            Self::Formula(formula) => formula.fmt(f),
        }
    }
}

const EXPECTED: &str = "a share such as 5% or 0.1%, a budget such as 100/s, 2000 spans/s or 5MB/s, or a formula \
                        such as { share: 1%, at_least: 1/min, at_most: 100/s }";

impl<'de> Deserialize<'de> for Keep {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KeepVisitor)
    }
}

struct KeepVisitor;

impl<'de> Visitor<'de> for KeepVisitor {
    type Value = Keep;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Keep, E> {
        if text.contains('/') {
            let bound = text.parse().map_err(E::custom)?;
            return Ok(Keep::Formula(Box::new(Formula::at_most(bound))));
        }
        text.parse().map(Keep::Share).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Keep, A::Error> {
        let raw = RawFormula::deserialize(MapAccessDeserializer::new(map))?;
        Formula::of(raw).map(Box::new).map(Keep::Formula).map_err(de::Error::custom)
    }
}
