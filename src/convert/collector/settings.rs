//! The settings of policies: which there are, and numbers that the environment says.

use super::variables::{by_default, has_variable, variables};
use crate::config::Mistake;
use crate::convert::policy::Portion;
use crate::convert::yaml::Section;
use crate::convert::{Trouble, unsayable};

/// The settings of each type.
const SETTINGS: [(&str, &[&str]); 17] = [
    ("always_sample", &[]),
    ("latency", &["threshold_ms", "upper_threshold_ms"]),
    ("numeric_attribute", &["key", "min_value", "max_value", "invert_match"]),
    ("probabilistic", &["sampling_percentage", "hash_salt"]),
    ("status_code", &["status_codes"]),
    ("string_attribute", &["key", "values", "enabled_regex_matching", "cache_max_size", "invert_match"]),
    ("rate_limiting", &["spans_per_second"]),
    ("bytes_limiting", &["bytes_per_second", "burst_capacity"]),
    ("span_count", &["min_spans", "max_spans"]),
    ("boolean_attribute", &["key", "value", "invert_match"]),
    ("ottl_condition", &["error_mode", "span", "spanevent"]),
    ("trace_state", &["key", "values"]),
    ("trace_flags", &[]),
    ("and", &["and_sub_policy"]),
    ("not", &["not_sub_policy"]),
    ("drop", &["drop_sub_policy"]),
    ("composite", &["max_total_spans_per_second", "policy_order", "composite_sub_policy", "rate_allocation"]),
];

/// Numbers that have to be known to be converted.
const NUMBERS: [&str; 6] = [
    "spans_per_second",
    "bytes_per_second",
    "min_spans",
    "max_spans",
    "max_total_spans_per_second",
    "percent",
];

/// A sentence about each key of a policy that nobody knows.
pub(super) fn unknown_keys(policy: Section<'_>, kind: &str) -> Result<Vec<String>, Mistake> {
    let types = SETTINGS.map(|(name, _)| name);
    let known: Vec<&str> = ["name", "type"].into_iter().chain(types).collect();
    let mut unknown: Vec<String> = policy.unknown(&known).collect();
    let settings = SETTINGS.iter().find(|(name, _)| *name == kind).map_or(&[][..], |(_, keys)| *keys);
    if let Some(section) = policy.section(kind)? {
        unknown.extend(section.unknown(settings));
    }
    Ok(unknown)
}

/// Refuses a number that stands in the environment where it has to be calculated with.
pub(super) fn known_numbers(settings: Section<'_>) -> Result<(), Trouble> {
    let of_environment = |key: &&&str| matches!(settings.text(key), Ok(Some(text)) if has_variable(text));
    match NUMBERS.iter().find(of_environment) {
        Some(key) => {
            unsayable(format!("{key} stands in the environment; convert with the number in its place"))
        }
        None => Ok(()),
    }
}

/// A whole number, or the variable that says it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Number {
    Known(i64),
    Variable(String),
}

pub(super) fn number(settings: Section<'_>, key: &str) -> Result<Option<Number>, Mistake> {
    match settings.text(key)? {
        Some(text) if has_variable(text) => Ok(Some(Number::Variable(variables(text)))),
        _ => Ok(settings.integer(key)?.map(Number::Known)),
    }
}

impl Number {
    /// As a duration.
    pub(super) fn millis(&self) -> String {
        match self {
            Self::Known(ms) if ms % 1000 == 0 => format!("{}s", ms / 1000),
            _ => format!("{self}ms"),
        }
    }
}

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Known(number) => number.fmt(f),
            Self::Variable(name) => f.write_str(name),
        }
    }
}

pub(super) fn percentage(settings: Section<'_>) -> Result<Portion, Mistake> {
    let key = "sampling_percentage";
    if let Some(text) = settings.text(key)?.filter(|text| has_variable(text)) {
        let guess = by_default(text).and_then(|text| text.parse().ok()).unwrap_or(0.0);
        return Ok(Portion::from_environment(variables(text), guess));
    }
    let percent = settings.number(key)?.unwrap_or(0.0);
    if !(0.0..=100.0).contains(&percent) {
        let message = format!("found {percent}, expected a percentage from 0 to 100");
        return Err(settings.mistake(key, message));
    }
    Ok(Portion::percent(percent))
}
