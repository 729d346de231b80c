//! The form of a scenario: README.md beside this file. A key that is not there is an error.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

pub type Entries = BTreeMap<String, Value>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    #[serde(rename = "about")]
    _about: String,
    pub scenarios: Vec<Scenario>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    pub name: String,
    #[serde(rename = "source")]
    _source: String,
    pub collector: Option<Value>,
    pub convert: Option<Convert>,
    #[serde(rename = "differs")]
    _differs: Option<String>,
    pub tailwater: Option<Value>,
    #[serde(default)]
    pub traces: BTreeMap<String, String>,
    #[serde(default)]
    pub spans: Vec<Line>,
    #[serde(default)]
    pub actions: Vec<Action>,
    pub until: Option<f64>,
    #[serde(default)]
    pub expect: Entries,
}

/// What the converter makes of `collector`, where it is not plain.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Convert {
    pub outcome: ConvertOutcome,
    pub at: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConvertOutcome {
    Refused,
    Warned,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Action {
    pub at: f64,
    #[serde(rename = "do")]
    pub what: What,
    /// What the file holds from now on.
    pub tailwater: Option<Value>,
    /// `refused`, of a reload.
    pub outcome: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    Stop,
    Start,
    Drain,
    Reload,
    BackendFails,
    BackendRecovers,
}

/// One line of `spans`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    pub at: f64,
    pub request: Option<Value>,
    pub trace: Option<String>,
    pub span: Option<Value>,
    pub parent: Option<Value>,
    pub fan: Option<u64>,
    pub service: Option<String>,
    #[serde(default)]
    pub resource: Entries,
    #[serde(default)]
    pub schema_url: String,
    #[serde(default)]
    pub scope: Scope,
    pub name: Option<String>,
    pub kind: Option<String>,
    pub start: Option<String>,
    pub duration: Option<Value>,
    pub end: Option<String>,
    pub status: Option<String>,
    #[serde(default)]
    pub attributes: Entries,
    #[serde(default)]
    pub tracestate: String,
    pub flags: Option<u32>,
    #[serde(default)]
    pub events: Vec<Event>,
    #[serde(default)]
    pub links: Vec<Link>,
    #[serde(default)]
    pub pad: usize,
    pub repeat: Option<u64>,
    pub every: Option<String>,
    pub ids: Option<String>,
    pub rv: Option<String>,
    pub empty: Option<String>,
    pub broken: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scope {
    pub name: String,
    pub version: String,
    pub attributes: Entries,
    pub schema_url: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    pub name: String,
    pub after: Option<String>,
    #[serde(default)]
    pub attributes: Entries,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    pub trace: String,
    pub span: Option<Value>,
    #[serde(default)]
    pub attributes: Entries,
}

/// What is expected of one trace.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceExpected {
    pub verdict: Option<String>,
    pub answer: Option<String>,
    pub policy: Option<String>,
    pub decided_at: Option<Value>,
    pub early: Option<bool>,
    pub whole: Option<bool>,
    pub complete: Option<bool>,
    pub th: Option<String>,
    pub weight: Option<f64>,
    pub tracestate: Option<String>,
    #[serde(default)]
    pub keeps_members: BTreeMap<String, String>,
    #[serde(default)]
    pub carries: Entries,
    #[serde(default)]
    pub decisions: Vec<DecisionExpected>,
    #[serde(default)]
    pub spans: BTreeMap<String, SpanExpected>,
    #[serde(default)]
    pub units: Vec<UnitExpected>,
    pub forgotten: Option<bool>,
    pub exports: Option<Value>,
    pub exported_spans: Option<Value>,
    pub exported_resources: Option<Value>,
    pub record: Option<RecordExpected>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecisionExpected {
    pub verdict: String,
    pub policy: String,
    pub decided_at: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpanExpected {
    pub verdict: String,
    pub at: Option<Value>,
    pub th: Option<String>,
    pub weight: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitExpected {
    pub spans: Vec<Value>,
    pub verdict: String,
    pub policy: String,
    pub decided_at: Value,
    pub th: Option<String>,
    pub weight: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordExpected {
    pub spans: Option<u64>,
    pub duration: Option<String>,
    pub whole: Option<bool>,
    pub complete: Option<bool>,
    pub early: Option<bool>,
    pub late: Option<bool>,
}

/// What is expected of the traces of a line with `repeat`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupExpected {
    pub kept: Value,
    pub policy: Option<String>,
    pub decided_at: Option<Value>,
    pub th: Option<String>,
    pub weight: Option<f64>,
    pub weights: Option<Value>,
    pub consistent: Option<bool>,
    pub answer: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigExpected {
    pub outcome: String,
    pub at: String,
    #[serde(default)]
    pub says: Vec<String>,
}

/// Nanoseconds of a duration such as `1.5s`.
pub fn nanos(text: &str) -> i128 {
    let unit_at = text.find(|sign: char| sign.is_ascii_alphabetic()).expect("a duration has a unit");
    let (number, unit) = text.split_at(unit_at);
    let scale: i128 = match unit {
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => panic!("{text} is no duration"),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: i128 = format!("{whole}{fraction}").parse().expect("a duration is a decimal number");
    digits * scale / 10i128.pow(fraction.len() as u32)
}

/// A span ID: an integer, or 16 hexadecimal digits.
pub fn span_id(value: &Value) -> u64 {
    match value {
        Value::String(text) => span_key(text),
        number => number.as_u64().expect("a span ID is an integer or hexadecimal"),
    }
}

/// The same as the key of a mapping.
pub fn span_key(text: &str) -> u64 {
    let radix = if text.len() == 16 { 16 } else { 10 };
    u64::from_str_radix(text, radix).expect("a span ID is an integer or hexadecimal")
}

/// Milliseconds of a second of the scenario.
pub fn millis(second: f64) -> u64 {
    (second * 1e3).round() as u64
}
