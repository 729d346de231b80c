//! Compares what was seen with what a scenario expects. Every difference is a sentence.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use serde_json::Value;
use tailwater::config;
use tailwater::proto::Reason;

use crate::format::{
    ConfigExpected, GroupExpected, RecordExpected, Scenario, SpanExpected, TraceExpected, UnitExpected,
    nanos, span_id, span_key,
};
use crate::run::{Answer, Export, Outcome, Story, Verdict, id_of};
use crate::settings;
use crate::traffic::{Id, Placed, any};

/// Names of this collection that no metric of this version stands for, with the reason.
const NOT_COUNTED: [(&str, &str); 2] = [
    ("spans_negative", "the contract names no such metric"),
    ("spans_untimed", "the contract names no such metric"),
];

/// The faults of one comparison.
#[derive(Default)]
struct Faults {
    at: String,
    found: Vec<String>,
}

impl Faults {
    fn check(&mut self, holds: bool, fault: impl FnOnce() -> String) {
        if !holds {
            self.found.push(format!("{}: {}", self.at, fault()));
        }
    }

    fn equal<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, expected: &T, found: &T) {
        self.check(expected == found, || format!("{what} is {found:?} instead of {expected:?}"));
    }

    fn number(&mut self, what: &str, expected: &Value, found: f64) {
        self.check(within(expected, found, 0.0), || format!("{what} is {found} instead of {expected}"));
    }

    /// A moment is right if it comes at that second or up to one second later.
    fn moment(&mut self, what: &str, expected: &Value, found_ms: Option<u64>) {
        match found_ms {
            None => self.check(false, || format!("{what} never came, expected {expected}")),
            Some(found_ms) => {
                let found = found_ms as f64 / 1e3;
                self.check(within(expected, found, 1.0), || {
                    format!("{what} is {found} instead of {expected}")
                });
            }
        }
    }
}

/// A number, with some room above, or a range.
fn within(expected: &Value, found: f64, room: f64) -> bool {
    let (min, max) = match expected {
        Value::Object(range) => (number(&range["min"]), number(&range["max"])),
        plain => (number(plain), number(plain) + room),
    };
    (min - 1e-9..=max + 1e-9).contains(&found)
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number is expected")
}

fn typed<T: DeserializeOwned>(value: &Value) -> anyhow::Result<T> {
    Ok(serde_json::from_value(value.clone())?)
}

/// A scenario about reading the configuration alone.
pub fn refused_config(scenario: &Scenario) -> anyhow::Result<Vec<String>> {
    let expected: ConfigExpected = typed(&scenario.expect["config"])?;
    anyhow::ensure!(
        expected.outcome == "refused" && scenario.expect.len() == 1,
        "config can only be refused"
    );
    let text = settings::text(scenario.tailwater.as_ref().expect("it has a configuration"));
    let Err(error) = config::load(&text.text, "scenario.yaml".as_ref()) else {
        return Ok(vec!["the configuration was accepted".to_owned()]);
    };
    let mut faults = Vec::new();
    if !error.mistakes.iter().any(|mistake| text.holds(&expected.at, mistake.line)) {
        faults.push(format!("the error is not at {}: {error}", expected.at));
    }
    let said = error.to_string();
    for word in expected.says.iter().filter(|word| !said.contains(*word)) {
        faults.push(format!("the error does not say {word}: {said}"));
    }
    Ok(faults)
}

/// All that differs.
pub fn compare(scenario: &Scenario, outcome: &Outcome) -> anyhow::Result<Vec<String>> {
    let mut faults = Faults { at: "always".to_owned(), found: outcome.faults.clone() };
    for story in outcome.stories.values() {
        as_it_came(&mut faults, story);
    }
    let names: BTreeSet<&String> = scenario.expect.keys().filter(|key| *key != "counters").collect();
    anyhow::ensure!(names == scenario.traces.keys().collect(), "expect and traces name different traces");
    for name in names {
        name.clone_into(&mut faults.at);
        let expected = &scenario.expect[name];
        let traces = outcome.named.get(name).map_or(&[][..], Vec::as_slice);
        let repeats = |line: &crate::format::Line| line.trace.as_ref() == Some(name) && line.repeat.is_some();
        if scenario.spans.iter().any(repeats) {
            group(&mut faults, &typed(expected)?, traces, outcome);
        } else {
            let story = traces.first().and_then(|trace| outcome.stories.get(trace));
            trace(&mut faults, &typed(expected)?, story.expect("every trace has a span"))?;
        }
    }
    if let Some(counters) = scenario.expect.get("counters") {
        "counters".clone_into(&mut faults.at);
        let counters: BTreeMap<String, Value> = typed(counters)?;
        for (name, expected) in &counters {
            if NOT_COUNTED.iter().all(|(known, _)| known != name) {
                faults.number(name, expected, counter(name, outcome)?);
            }
        }
    }
    Ok(faults.found)
}

// ---- what leaves ------------------------------------------------------------------------------------------

/// Field by field what arrived, but for `th`.
fn as_it_came(faults: &mut Faults, story: &Story) {
    for exported in story.exports.iter().flat_map(|export| &export.spans) {
        let same = |sent: &crate::traffic::Sent| bare(&sent.placed) == bare(exported);
        let known = story.sent.iter().filter(|sent| id_of(&sent.placed) == id_of(exported)).any(same);
        faults
            .check(known, || format!("a span left that did not come so: {:.2000}", format!("{exported:?}")));
    }
}

/// A span without its threshold, its trace state in a fixed order.
fn bare(placed: &Placed) -> Placed {
    let mut bare = placed.clone();
    let members: BTreeSet<String> = members(&placed.span.trace_state)
        .into_iter()
        .filter(|member| !member.starts_with("ot.th="))
        .collect();
    bare.span.trace_state = members.into_iter().collect::<Vec<_>>().join(",");
    bare
}

/// Members of a trace state as `key=value`, those of `ot` as `ot.key=value`.
fn members(trace_state: &str) -> BTreeSet<String> {
    let members = trace_state.split(',').filter(|member| !member.trim().is_empty());
    let each = members.flat_map(|member| match member.trim().strip_prefix("ot=") {
        None => vec![member.trim().to_owned()],
        Some(ot) => ot.split(';').map(|part| format!("ot.{}", part.replacen(':', "=", 1))).collect(),
    });
    each.collect()
}

/// Without trailing zeros, which say nothing.
fn th(placed: &Placed) -> Option<String> {
    let members = members(&placed.span.trace_state);
    let th = members.iter().find_map(|member| member.strip_prefix("ot.th="))?;
    let digits = th.trim_end_matches('0');
    Some(if digits.is_empty() { "0" } else { digits }.to_owned())
}

fn threshold(th: &str) -> u64 {
    u64::from_str_radix(&format!("{th:0<14}"), 16).expect("a threshold is hexadecimal")
}

fn weight(export: &Export, placed: &Placed) -> f64 {
    const ALL: f64 = (1u64 << 56) as f64;
    match th(placed) {
        _ if !export.weighs => 0.0,
        None => 1.0,
        Some(th) => ALL / (ALL - threshold(&th) as f64),
    }
}

/// `th` and weight of one exported span.
fn weighs(faults: &mut Faults, expected: (Option<&String>, Option<f64>), export: &Export, placed: &Placed) {
    let (expected_th, expected_weight) = expected;
    let id = id_of(placed);
    if let Some(expected) = expected_th {
        let found = th(placed);
        let right = match (expected.as_str(), &found) {
            ("none", found) => found.is_none(),
            ("some", Some(found)) => {
                let trace = u128::from_str_radix(&hex(&placed.span.trace_id), 16).unwrap_or_default();
                threshold(found) <= trace as u64 & ((1 << 56) - 1)
            }
            (expected, Some(found)) => expected == found,
            (_, None) => false,
        };
        faults.check(right, || format!("th of span {id} is {found:?} instead of {expected}"));
    }
    if let Some(expected) = expected_weight {
        let found = weight(export, placed);
        let right = (found - expected).abs() <= 1e-6 * expected.max(1e-9);
        faults.check(right, || format!("weight of span {id} is {found} instead of {expected}"));
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

// ---- one trace --------------------------------------------------------------------------------------------

fn trace(faults: &mut Faults, expected: &TraceExpected, story: &Story) -> anyhow::Result<()> {
    if let Some(count) = &expected.exports {
        let pieces = story.exports.iter().filter(|export| export.ends_piece).count();
        faults.number("exports", count, pieces as f64);
    }
    let spans: Vec<(&Export, &Placed)> = exported(story).collect();
    if let Some(count) = &expected.exported_spans {
        faults.number("exported_spans", count, spans.len() as f64);
    }
    if let Some(count) = &expected.exported_resources {
        let resources: usize = story.exports.iter().map(|export| export.resources).sum();
        faults.number("exported_resources", count, resources as f64);
    }
    if let Some(forgotten) = &expected.forgotten {
        faults.equal("forgotten", forgotten, &story.forgotten);
    }
    if let Some(whole) = expected.whole {
        faults.equal("whole", &Some(whole), &first_verdict(story).map(|verdict| verdict.whole));
    }
    for (export, placed) in &spans {
        weighs(faults, (expected.th.as_ref(), expected.weight), export, placed);
        states(faults, expected, story, placed);
    }
    if !expected.units.is_empty() {
        anyhow::ensure!(expected.verdict.is_none(), "units replace the verdict");
        for (number, unit) in expected.units.iter().enumerate() {
            self::unit(faults, number, unit, story);
        }
        return Ok(());
    }
    verdict(faults, expected, story)?;
    decisions(faults, expected, story);
    for (id, span) in &expected.spans {
        self::span(faults, span_key(id), span, story);
    }
    if let Some(record) = &expected.record {
        self::record(faults, record, story);
    }
    Ok(())
}

fn exported(story: &Story) -> impl Iterator<Item = (&Export, &Placed)> {
    story.exports.iter().flat_map(|export| export.spans.iter().map(move |placed| (export, placed)))
}

/// The first verdict that anybody could see: while it is in memory the buffer's, else that of the piece.
fn first_verdict(story: &Story) -> Option<Verdict> {
    let judged = story.judged.first()?;
    let sent = story.exports.iter().find(|export| export.at_ms <= judged.at_ms);
    let sent = sent.map(|export| Verdict { kept: true, policy: export.policy.clone(), whole: export.whole });
    judged.verdict.clone().or(sent)
}

fn verdict(faults: &mut Faults, expected: &TraceExpected, story: &Story) -> anyhow::Result<()> {
    let verdict = expected.verdict.as_deref().unwrap_or_default();
    let answered = |answer: Answer| story.answers.iter().all(|given| *given == answer);
    match verdict {
        "refused" => {
            let answer =
                if expected.answer.as_deref() == Some("later") { Answer::Later } else { Answer::Never };
            faults.check(answered(answer), || format!("answered {:?} instead of {answer:?}", story.answers));
            faults.check(story.exports.is_empty(), || "it was refused and left".to_owned());
        }
        "rejected" => {
            faults.check(answered(Answer::Accepted), || "its request was refused".to_owned());
            faults.check(story.exports.is_empty() && story.judged.is_empty(), || "it was stored".to_owned());
        }
        "buffered" => {
            faults.check(!story.waiting.is_empty(), || "nothing of it waits".to_owned());
            faults.check(story.exports.is_empty(), || "it has left".to_owned());
        }
        "kept" | "dropped" => {
            faults.check(story.waiting.is_empty(), || format!("spans {:?} wait still", story.waiting));
            decided(faults, expected, story, verdict == "kept");
        }
        other => anyhow::bail!("verdict: {other} is unknown"),
    }
    Ok(())
}

fn decided(faults: &mut Faults, expected: &TraceExpected, story: &Story, kept: bool) {
    if kept {
        let sent: Vec<&Placed> = exported(story).map(|(_, placed)| placed).collect();
        for came in story.sent.iter().filter(|sent| sent.valid) {
            let times = sent.iter().filter(|placed| bare(placed) == bare(&came.placed)).count();
            faults.check(times == 1, || format!("span {} left {times} times", id_of(&came.placed)));
        }
    } else {
        faults.check(story.exports.is_empty(), || "it was dropped and left".to_owned());
    }
    if let Some(policy) = expected.policy.as_ref().filter(|policy| *policy != "any") {
        let last = story.judged.iter().rev().find_map(|judged| judged.verdict.as_ref());
        let by_buffer = last.map(|verdict| (verdict.kept, verdict.policy.clone()));
        let by_piece = story.exports.last().map(|export| (true, export.policy.clone()));
        faults.equal("verdict and policy", &Some((kept, policy.clone())), &by_piece.or(by_buffer));
        for export in &story.exports {
            faults.equal("policy of a piece", policy, &export.policy);
        }
    }
    if let Some(moment) = &expected.decided_at {
        // A judgement of a part of what waits is seen by what it sends.
        let judged_ms = story.judged.first().map(|judged| judged.at_ms);
        let left_ms = story.exports.first().map(|export| export.at_ms);
        faults.moment("decided_at", moment, judged_ms.into_iter().chain(left_ms).min());
    }
    let first = story.exports.first();
    if let Some(early) = expected.early {
        faults.equal("early", &Some(early), &first.map(is_early));
    }
    if let Some(complete) = expected.complete {
        faults.equal("complete", &Some(complete), &first.map(|export| export.complete));
    }
}

fn is_early(export: &Export) -> bool {
    matches!(export.reason, Reason::Pressure | Reason::Full)
}

/// The trace state and the attributes of an exported span.
fn states(faults: &mut Faults, expected: &TraceExpected, story: &Story, placed: &Placed) {
    let found = members(&placed.span.trace_state);
    if let Some(whole) = &expected.tracestate {
        faults.equal("tracestate", &members(whole), &found);
    }
    let came = story.sent.iter().find(|sent| id_of(&sent.placed) == id_of(placed));
    let came = came.map(|sent| members(&sent.placed.span.trace_state)).unwrap_or_default();
    for (key, value) in &expected.keeps_members {
        let member = format!("{key}={value}");
        let kept = !came.contains(&member) || found.contains(&member);
        faults.check(kept, || format!("span {} lost {member}", id_of(placed)));
    }
    for (key, value) in &expected.carries {
        let attribute = placed.span.attributes.iter().find(|attribute| attribute.key == *key);
        let found = attribute.and_then(|attribute| attribute.value.clone()?.value);
        faults.equal(key, &Some(any(value)), &found);
    }
}

/// The first judgement that asked the policies, and each later one whose answer was another.
fn decisions(faults: &mut Faults, expected: &TraceExpected, story: &Story) {
    if expected.decisions.is_empty() {
        return;
    }
    let mut found: Vec<(u64, &Verdict)> = Vec::new();
    for judged in &story.judged {
        let Some(verdict) = &judged.verdict else { continue };
        let same = found
            .last()
            .is_some_and(|(_, last)| (last.kept, &last.policy) == (verdict.kept, &verdict.policy));
        if !same {
            found.push((judged.at_ms, verdict));
        }
    }
    faults.equal("number of decisions", &expected.decisions.len(), &found.len());
    for (expected, (at_ms, verdict)) in expected.decisions.iter().zip(found) {
        faults.equal("verdict of a decision", &(expected.verdict == "kept"), &verdict.kept);
        faults.equal("policy of a decision", &expected.policy, &verdict.policy);
        if let Some(moment) = &expected.decided_at {
            faults.moment("time of a decision", moment, Some(at_ms));
        }
    }
}

/// The first judgement that saw the span.
fn seen_ms(story: &Story, id: u64) -> Option<u64> {
    story.judged.iter().find(|judged| judged.spans.contains(&id)).map(|judged| judged.at_ms)
}

fn span(faults: &mut Faults, id: u64, expected: &SpanExpected, story: &Story) {
    let left: Vec<(&Export, &Placed)> = exported(story).filter(|(_, placed)| id_of(placed) == id).collect();
    let at_ms = match expected.verdict.as_str() {
        "kept" => {
            faults.check(!left.is_empty(), || format!("span {id} has not left"));
            for (export, placed) in &left {
                weighs(faults, (expected.th.as_ref(), expected.weight), export, placed);
            }
            left.first().map(|(export, _)| export.at_ms)
        }
        verdict => {
            faults.check(left.is_empty(), || format!("span {id} has left"));
            let seen = seen_ms(story, id);
            faults.check(seen.is_some() == (verdict == "dropped"), || format!("span {id} was not {verdict}"));
            seen
        }
    };
    if let Some(moment) = &expected.at {
        faults.moment(&format!("time of span {id}"), moment, at_ms);
    }
}

fn record(faults: &mut Faults, expected: &RecordExpected, story: &Story) {
    let Some(first) = story.exports.first() else {
        return faults.check(false, || "it has no record".to_owned());
    };
    let start = first.spans.iter().map(|placed| placed.span.start_time_unix_nano).min().unwrap_or(0);
    let end = first.spans.iter().map(|placed| placed.span.end_time_unix_nano).max().unwrap_or(0);
    let duration = i128::from(end) - i128::from(start);
    let RecordExpected { spans, duration: expected_duration, whole, complete, early, late } = expected;
    let expected_duration = expected_duration.as_deref().map(nanos);
    faults.check(spans.is_none_or(|spans| spans == first.spans.len() as u64), || "record.spans".to_owned());
    faults.check(expected_duration.is_none_or(|expected| expected == duration), || {
        "record.duration".to_owned()
    });
    faults.check(whole.is_none_or(|whole| whole == first.whole), || "record.whole".to_owned());
    faults.check(complete.is_none_or(|complete| complete == first.complete), || "record.complete".to_owned());
    faults.check(early.is_none_or(|early| early == is_early(first)), || "record.early".to_owned());
    let is_late = first.reason == Reason::Late;
    faults.check(late.is_none_or(|late| late == is_late), || "record.late".to_owned());
}

fn unit(faults: &mut Faults, number: usize, expected: &UnitExpected, story: &Story) {
    let ids: Vec<u64> = expected.spans.iter().map(span_id).collect();
    let left: Vec<(&Export, &Placed)> =
        exported(story).filter(|(_, placed)| ids.contains(&id_of(placed))).collect();
    if expected.verdict != "kept" {
        faults.check(left.is_empty(), || format!("unit {number} has left"));
        let seen = ids.iter().map(|id| seen_ms(story, *id)).max().flatten();
        faults.moment(&format!("time of unit {number}"), &expected.decided_at, seen);
        let judged = story.judged.iter().find(|judged| Some(judged.at_ms) == seen);
        if let Some(verdict) = judged.and_then(|judged| judged.verdict.as_ref()) {
            faults.equal(&format!("policy of unit {number}"), &expected.policy, &verdict.policy);
        }
        return;
    }
    faults.equal(&format!("spans that left of unit {number}"), &ids.len(), &left.len());
    for (export, placed) in left {
        weighs(faults, (expected.th.as_ref(), expected.weight), export, placed);
        faults.moment(&format!("time of unit {number}"), &expected.decided_at, Some(export.at_ms));
        if expected.policy != "any" {
            faults.equal(&format!("policy of unit {number}"), &expected.policy, &export.policy);
        }
    }
}

// ---- a name with `repeat` ---------------------------------------------------------------------------------

fn group(faults: &mut Faults, expected: &GroupExpected, traces: &[Id], outcome: &Outcome) {
    let stories: Vec<&Story> = traces.iter().map(|trace| &outcome.stories[trace]).collect();
    let accepted = |story: &&&Story| story.answers.contains(&Answer::Accepted);
    for refused in stories.iter().filter(|story| !accepted(story)) {
        let answer = if expected.answer.as_deref() == Some("never") { Answer::Never } else { Answer::Later };
        faults.check(expected.answer.is_some(), || "a request was refused".to_owned());
        faults.check(refused.answers == [answer], || format!("answered {:?}", refused.answers));
    }
    let kept = stories.iter().filter(|story| !story.exports.is_empty()).count();
    faults.number("kept", &expected.kept, kept as f64);
    let waits = stories.iter().filter(|story| !story.waiting.is_empty()).count();
    faults.equal("traces that wait still", &0, &waits);
    let mut weights = 0.0;
    for story in stories.iter().filter(accepted) {
        let by_piece = story.exports.last().map(|export| export.policy.clone());
        let policy = by_piece.or_else(|| first_verdict(story).map(|verdict| verdict.policy));
        if let (Some(expected), Some(policy)) = (&expected.policy, policy) {
            faults.equal("policy", expected, &policy);
        }
        let arrived = story.sent.iter().filter(|sent| sent.valid).count();
        faults.check(story.exports.len() <= arrived, || "a span left twice".to_owned());
        for (export, placed) in exported(story) {
            weighs(faults, (expected.th.as_ref(), expected.weight), export, placed);
            weights += weight(export, placed);
        }
    }
    if let Some(range) = &expected.weights {
        faults.number("weights", range, weights);
    }
    if expected.consistent == Some(true) {
        consistent(faults, &stories);
    }
    if let Some(moment) = &expected.decided_at {
        let first = stories.iter().filter_map(|story| Some(story.judged.first()?.at_ms)).min();
        faults.moment("decided_at", moment, first);
    }
}

/// No dropped trace has a randomness above the highest threshold of a second around its judgement.
fn consistent(faults: &mut Faults, stories: &[&Story]) {
    let mut kept: Vec<(u64, u64)> = Vec::new();
    for story in stories {
        for (export, placed) in exported(story) {
            kept.push((export.at_ms, th(placed).map_or(0, |th| threshold(&th))));
        }
    }
    kept.sort_unstable();
    for story in stories.iter().filter(|story| story.exports.is_empty()) {
        let (Some(judged), Some(sent)) = (story.judged.first(), story.sent.first()) else { continue };
        let within = kept.partition_point(|(at_ms, _)| *at_ms + 1_000 < judged.at_ms)
            ..kept.partition_point(|(at_ms, _)| *at_ms <= judged.at_ms + 1_000);
        let highest = kept[within].iter().map(|(_, threshold)| *threshold).max();
        let id = u128::from_be_bytes(sent.trace) as u64 & ((1 << 56) - 1);
        faults.check(highest.is_some_and(|highest| id < highest), || {
            format!("{id:014x} was dropped at {} ms, and {highest:x?} kept", judged.at_ms)
        });
    }
}

// ---- counters ---------------------------------------------------------------------------------------------

fn counter(name: &str, outcome: &Outcome) -> anyhow::Result<f64> {
    let sum = |parts: &[&str]| -> f64 {
        let (family, labels) = parts.split_first().expect("a family");
        let of_family = outcome.samples.iter().filter(|(sample, _)| {
            sample.split('{').next() == Some(family) && labels.iter().all(|label| sample.contains(label))
        });
        of_family.map(|(_, value)| value).sum()
    };
    if let Some((name, policy)) = name.split_once('.') {
        let policy = format!("policy=\"{policy}\"");
        let units = "tailwater_sampler_judged_units_total";
        return match name {
            "policy_matched" => Ok(sum(&[units, &policy])),
            "policy_shadowed" => Ok(sum(&["tailwater_sampler_shadowed_units_total", &policy])),
            "policy_kept" => Ok(sum(&[units, &policy, "verdict=\"kept\""])),
            _ => anyhow::bail!("counter {name} is unknown"),
        };
    }
    let judgements = "tailwater_sampler_judgements_total";
    let ended = |kept: bool| {
        let settled = outcome.stories.values().filter(|story| !story.judged.is_empty());
        settled.filter(|story| story.exports.is_empty() != kept).count() as f64
    };
    Ok(match name {
        "spans_accepted" => sum(&["tailwater_receiver_accepted_spans_total"]),
        "spans_upgraded" => sum(&["tailwater_buffer_upgraded_spans_total"]),
        "spans_kept" => sum(&["tailwater_sampler_kept_spans_total"]),
        "spans_dropped" => sum(&["tailwater_sampler_dropped_spans_total"]),
        "spans_buffered" => sum(&["tailwater_buffer_unjudged_spans"]),
        "spans_duplicate" => sum(&["tailwater_buffer_duplicate_spans_total"]),
        "spans_lost" => sum(&["tailwater_pipeline_lost_spans_total"]),
        "spans_rejected" => outcome.rejected as f64,
        "requests_refused" => outcome.refused as f64,
        "traces_kept" => ended(true),
        "traces_dropped" => ended(false),
        "traces_buffered" => {
            outcome.stories.values().filter(|story| !story.waiting.is_empty()).count() as f64
        }
        "decisions_early" => {
            sum(&[judgements, "reason=\"pressure\""]) + sum(&[judgements, "reason=\"full\""])
        }
        "decisions_rootless" => sum(&["tailwater_sampler_rootless_units_total"]),
        "late_spans" => sum(&["tailwater_buffer_late_spans_total"]),
        "upgrades" => sum(&["tailwater_sampler_upgrades_total"]),
        "spans_inconsistent" => sum(&["tailwater_sampler_inconsistent_spans_total"]),
        "reloads_accepted" => sum(&["tailwater_config_reloads_total", "outcome=\"accepted\""]),
        "reloads_refused" => sum(&["tailwater_config_reloads_total", "outcome=\"refused\""]),
        "strings_replaced" => sum(&["tailwater_receiver_strings_replaced_total"]),
        _ => anyhow::bail!("counter {name} is unknown"),
    })
}
