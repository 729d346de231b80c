//! Reads a Collector's `tail_sampling` processor.
//!
//! Policies become policies; waits become those of `buffer`; what else the processor can be told is either settled
//! here in another way or named as left out.

mod composite;
mod ottl;
mod policy;
mod settings;
mod surroundings;
mod variables;

use serde_saphyr::Location;

use super::emit::{Draft, Setting};
use super::policy::{by_falling_share, note_unreachable};
use super::yaml::{Section, line};
use super::{Kind, Note};
use crate::config::{Entry, Mistake, Node, Source, foreign};
use crate::units::HumanDuration;
use variables::{by_default, has_variable};

const PROCESSOR: &str = "tail_sampling";
/// Where processors stand: in a Collector's own file, in Helm's values, in the operator's resource.
const PLACES: [&str; 4] = ["processors", "config.processors", "spec.config.processors", ""];

/// What is settled here without the setting, and how.
const SETTLED: [(&str, &str); 6] = [
    ("num_traces", "memory is bounded in bytes (buffer.memory), whatever the number of traces"),
    ("expected_new_traces_per_sec", "nothing is allocated ahead of traffic"),
    ("block_on_overflow", "senders are told to come back while memory is full; nothing is evicted undecided"),
    ("decision_cache", "a verdict holds for buffer.hindsight, and what was kept is remembered for a day"),
    ("sample_on_first_match", "a trace is judged once, when its wait is over"),
    ("num_shards", "the index is sharded by itself, and limits hold for the whole process"),
];

pub(super) fn draft(source: Source<'_>, only: Option<&str>) -> Result<Draft, Vec<Mistake>> {
    let document = foreign(source).map_err(|mistake| vec![mistake])?;
    let (name, section) = processor(source, &document, only).map_err(|mistake| vec![mistake])?;
    let mut draft = Draft::default();
    let mut mistakes = Vec::new();
    if let Err(mistake) = settings(section, &mut draft) {
        mistakes.push(mistake);
    }
    if let Err(found) = policies(section, &mut draft) {
        mistakes.extend(found);
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    by_falling_share(&mut draft.policies);
    note_unreachable(&mut draft.policies);
    surroundings::add(source, &document, &name, &mut draft);
    Ok(draft)
}

/// The processor's name and section, in a whole configuration, under its own key, or alone.
fn processor<'a>(
    source: Source<'a>,
    document: &'a Node,
    only: Option<&str>,
) -> Result<(String, Section<'a>), Mistake> {
    let root = Section::new(source, document)?;
    for place in PLACES {
        let Some(node) = document.get(place) else { continue };
        let Ok(section) = Section::new(source, node) else { continue };
        let found: Vec<&Entry> = section.entries().iter().filter(|entry| is_processor(&entry.key)).collect();
        let wanted = |entry: &&&Entry| only.is_none_or(|only| entry.key == only);
        match found.iter().filter(wanted).collect::<Vec<_>>().as_slice() {
            [] if found.is_empty() => {}
            [] => return Err(choose(source, found[0].key_at, &found, "there is no such processor")),
            [one] => return Ok((one.key.clone(), Section::new(source, &one.value)?)),
            [_, second, ..] => {
                return Err(choose(
                    source,
                    second.key_at,
                    &found,
                    "found several processors, expected --only",
                ));
            }
        }
    }
    if root.place("policies") != root.at {
        return Ok((PROCESSOR.to_owned(), root));
    }
    Err(source.mistake(
        document.at,
        "found no tail_sampling processor: neither processors.tail_sampling nor policies",
    ))
}

fn is_processor(key: &str) -> bool {
    key == PROCESSOR || key.strip_prefix(PROCESSOR).is_some_and(|rest| rest.starts_with('/'))
}

fn choose(source: Source<'_>, at: Location, found: &[&Entry], message: &str) -> Mistake {
    let names: Vec<&str> = found.iter().map(|entry| entry.key.as_str()).collect();
    source.mistake(at, format!("{message}: one of {}", names.join(", ")))
}

fn settings(section: Section<'_>, draft: &mut Draft) -> Result<(), Mistake> {
    waits(section, draft)?;
    let mut note = |kind, key: &str, why: &str| {
        let note = Note { kind, line: line(section.place(key)), what: key.to_owned(), why: why.to_owned() };
        draft.notes.push(note);
    };
    for (key, why) in SETTLED {
        if section.get(key).is_some() {
            note(Kind::Settled, key, why);
        }
    }
    if section.boolean("drop_pending_traces_on_shutdown")? {
        let why =
            "what was acknowledged is never discarded: it waits in the data directory for the next start";
        note(Kind::LeftOut, "drop_pending_traces_on_shutdown", why);
    }
    if section.text("sampling_strategy")?.is_some_and(|strategy| strategy != "trace-complete") {
        let why =
            "a trace is judged when its wait is over, by all its spans, not batch by batch as they come";
        note(Kind::LeftOut, "sampling_strategy", why);
    }
    if section.text("maximum_trace_size_bytes")?.is_some_and(|bytes| bytes != "0") {
        let why = "there is no bound on the bytes of one trace: a giant trace is judged by pieces of 16 MiB";
        note(Kind::LeftOut, "maximum_trace_size_bytes", why);
    }
    if section.get("tail_storage").is_some() {
        let why = "spans wait in memory and in data.path, without an extension";
        note(Kind::Settled, "tail_storage", why);
    }
    let known = [
        "policies",
        "decision_wait",
        "decision_wait_after_root_received",
        "drop_pending_traces_on_shutdown",
        "sampling_strategy",
        "maximum_trace_size_bytes",
        "tail_storage",
    ];
    for entry in section.others(&known).filter(|entry| !SETTLED.iter().any(|(key, _)| *key == entry.key)) {
        note(Kind::LeftOut, &entry.key, "this key is not known to the converter");
    }
    Ok(())
}

/// The Collector's one wait is both of ours, unless it also waits from the root on.
fn waits(section: Section<'_>, draft: &mut Draft) -> Result<(), Mistake> {
    for key in ["decision_wait", "decision_wait_after_root_received"] {
        if section.text(key)?.is_some_and(has_variable) {
            let why = "it stands in the environment: taken for its default, or for not set without one";
            draft.note(Kind::Differs, line(section.place(key)), key, why);
        }
    }
    let wait = duration(section, "decision_wait")?;
    let after_root =
        duration(section, "decision_wait_after_root_received")?.filter(|wait| wait.as_millis() > 0);
    let Some(max_wait) = wait.or(after_root.map(|_| HumanDuration::from_secs(30))) else {
        draft.notes.push(Note {
            kind: Kind::Differs,
            line: line(section.at),
            what: "decision_wait".to_owned(),
            why: "not set: the Collector waits 30s from the first span; Tailwater's own waits stay in force, 10s from \
                  the root, or 60s from the first span of a trace without one"
                .to_owned(),
        });
        return Ok(());
    };
    let mut set = |key, value: HumanDuration, origin: &str| {
        let setting = Setting { section: "buffer", key, value: value.to_string(), origin: origin.to_owned() };
        draft.settings.push(setting);
    };
    match after_root.filter(|after_root| *after_root < max_wait) {
        Some(after_root) => set("after_root", after_root, "decision_wait_after_root_received"),
        None => set("after_root", max_wait, "decision_wait: the Collector does not wait less for a root"),
    }
    set("max_wait", max_wait, "decision_wait");
    if max_wait > HumanDuration::from_secs(300) {
        set("hindsight", max_wait, "at least max_wait");
    }
    Ok(())
}

/// Of a wait that stands in the environment, its default.
fn duration(section: Section<'_>, key: &str) -> Result<Option<HumanDuration>, Mistake> {
    let parse = |text: &str| {
        let text = if text == "0" { "0s" } else { text };
        text.parse().map_err(|error: crate::units::UnitError| section.mistake(key, error.to_string()))
    };
    match section.text(key)? {
        Some(text) if has_variable(text) => by_default(text).as_deref().map(parse).transpose(),
        text => text.map(parse).transpose(),
    }
}

fn policies(section: Section<'_>, draft: &mut Draft) -> Result<(), Vec<Mistake>> {
    let list = section.list("policies").map_err(|mistake| vec![mistake])?;
    if list.is_empty() {
        return Err(vec![section.mistake("policies", "found no policy: such a list would keep nothing")]);
    }
    let mut names = Vec::new();
    let read = |node| policy(section.source, node, &mut names, draft);
    let mut mistakes: Vec<Mistake> = list.iter().map(read).filter_map(Result::err).collect();
    if mistakes.is_empty() && draft.policies.is_empty() {
        mistakes.push(section.mistake("policies", draft.nothing_said()));
    }
    if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
}

fn policy<'a>(
    source: Source<'a>,
    node: &'a Node,
    names: &mut Vec<&'a str>,
    draft: &mut Draft,
) -> Result<(), Mistake> {
    let policy = Section::new(source, node)?;
    let name = policy.needed_text("name")?;
    if names.contains(&name) {
        return Err(policy.mistake("name", format!("the name \"{name}\" is given twice")));
    }
    names.push(name);
    policy::add(policy, name, draft)
}
