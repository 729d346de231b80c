//! What each of Refinery's samplers keeps.
//!
//! Samplers by key count how often each combination of fields occurs and keep rare ones more often. A `keep` with `per`
//! is the nearest: one share for all, and for each key at least so many traces.

use std::time::Duration;

use super::condition;
use crate::config::{Entry, Mistake, Source};
use crate::convert::policy::{Budget, Keep, Portion};
use crate::convert::yaml::Section;
use crate::units::HumanDuration;

/// What is kept, and what about it is only nearly the same.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) keep: Keep,
    pub(super) differs: Vec<String>,
    pub(super) comments: Vec<String>,
}

/// Each sampler's settings; what a rate is measured over needs no setting here.
const MEASURED: [&str; 10] = [
    "ClearFrequency",
    "AdjustmentInterval",
    "Weight",
    "AgeOutValue",
    "BurstMultiple",
    "BurstDetectionDelay",
    "InitialSampleRate",
    "UpdateFrequency",
    "LookbackFrequency",
    "MaxKeys",
];
const SETTINGS: [&str; 6] =
    ["SampleRate", "GoalSampleRate", "GoalThroughputPerSec", "UseClusterSize", "FieldList", "UseTraceLength"];

impl Kept {
    pub(super) fn share(share: Portion) -> Self {
        Self { keep: Keep::share(share), differs: Vec::new(), comments: Vec::new() }
    }
}

/// Reads a sampler that is no list of rules.
pub(super) fn keep(source: Source<'_>, sampler: &Entry) -> Result<Kept, Mistake> {
    let settings = Section::new(source, &sampler.value)?;
    let mut kept = of_type(source, sampler, settings)?;
    let known: Vec<&str> = SETTINGS.into_iter().chain(MEASURED).collect();
    kept.differs.extend(settings.unknown(&known));
    let measured: Vec<&str> = MEASURED.into_iter().filter(|key| settings.get(key).is_some()).collect();
    if !measured.is_empty() {
        kept.comments
            .push(format!("not needed: {}; rates are those of the last minute", measured.join(", ")));
    }
    Ok(kept)
}

fn of_type(source: Source<'_>, sampler: &Entry, settings: Section<'_>) -> Result<Kept, Mistake> {
    match sampler.key.as_str() {
        "DeterministicSampler" => {
            Ok(Kept::share(Portion::one_in(settings.integer("SampleRate")?.unwrap_or(1))))
        }
        "DynamicSampler" => dynamic(settings, "SampleRate", "ClearFrequency", 30),
        "EMADynamicSampler" => dynamic(settings, "GoalSampleRate", "AdjustmentInterval", 15),
        "EMAThroughputSampler" | "WindowedThroughputSampler" | "TotalThroughputSampler" => {
            throughput(settings)
        }
        "RulesBasedSampler" => {
            Err(source.mistake(sampler.key_at, "rules within a rule, which Refinery does not take"))
        }
        other => {
            let message = format!("found \"{other}\", which is no sampler of Refinery");
            Err(source.mistake(sampler.key_at, message))
        }
    }
}

/// One in so many on average; every key at least once in an interval.
fn dynamic(settings: Section<'_>, rate: &str, interval: &str, default_secs: u64) -> Result<Kept, Mistake> {
    let share = Portion::one_in(settings.integer(rate)?.unwrap_or(1));
    let every = match settings.text(interval)? {
        Some(text) => text
            .parse()
            .map_err(|error: crate::units::UnitError| settings.mistake(interval, error.to_string()))?,
        None => HumanDuration::from_secs(default_secs),
    };
    let (per, mut differs) = fields(settings)?;
    let mut keep = Keep::share(share);
    if !per.is_empty() && !keep.share.is_everything() {
        keep.at_least = Some(format!("{}/min", per_minute(every.get())));
        keep.per = per;
        differs.push(
            "Refinery gives every key a rate of its own, the rarer the key the more of it is kept, so that the average is \
             as configured; here all keys have that share, and each at least the bound. Fields are read from the \
             root, where Refinery joins the values of all spans. At most 1,000 keys"
                .to_owned(),
        );
    }
    Ok(Kept { keep, differs, comments: Vec::new() })
}

fn per_minute(every: Duration) -> u64 {
    (60.0 / every.as_secs_f64().max(0.1)).round().max(1.0) as u64
}

/// Of the example beside a budget of all.
const KEYS_ASSUMED: u64 = 10;

/// So many events a second, shared among the keys.
fn throughput(settings: Section<'_>) -> Result<Kept, Mistake> {
    let goal = settings.integer("GoalThroughputPerSec")?.unwrap_or(100);
    let goal =
        u64::try_from(goal).map_err(|_| settings.mistake("GoalThroughputPerSec", "expected a rate"))?;
    let (per, mut differs) = fields(settings)?;
    let mut comments = Vec::new();
    if !per.is_empty() {
        differs.push(
            "Refinery divides the goal among the keys of FieldList, so that rare ones are kept more often; here all \
             traces of the policy share one budget, which the goal bounds however many keys there are"
                .to_owned(),
        );
        let each = Keep { per, ..Keep::budget(Budget::Spans((goal / KEYS_ASSUMED).max(1))) };
        comments.push(format!(
            "closer where there are about {KEYS_ASSUMED} keys: a budget for each, of the goal divided by their number, as in \
             keep: {each}"
        ));
    }
    if settings.boolean("UseClusterSize")? {
        differs
            .push("UseClusterSize: the goal is that of one instance; divide it by their number".to_owned());
    }
    Ok(Kept { keep: Keep::budget(Budget::Spans(goal)), differs, comments })
}

fn fields(settings: Section<'_>) -> Result<(Vec<String>, Vec<String>), Mistake> {
    let mut differs = Vec::new();
    let mut per = Vec::new();
    for field in settings.texts("FieldList")? {
        let name = condition::key_field(field);
        if !per.contains(&name) {
            per.push(name);
        }
    }
    if settings.boolean("UseTraceLength")? {
        differs.push("UseTraceLength: the number of spans is not part of the key".to_owned());
    }
    Ok((per, differs))
}
