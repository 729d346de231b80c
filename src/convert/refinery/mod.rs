//! Reads Refinery's rules.
//!
//! A rule becomes a policy, in the same order: in both the first that matches decides. Refinery knows an environment
//! by the key that a sender shows; where a file has rules for several, the policies of each ask for the resource
//! attribute that names it.

mod condition;
mod sampler;

use serde_saphyr::Location;

use super::emit::{Draft, Setting};
use super::expr::Expr;
use super::policy::{self, Portion, note_unreachable};
use super::traceql::{self, Inner, Scope};
use super::yaml::{Section, line};
use super::{Kind, Trouble};
use crate::config::{Entry, Mistake, Source, foreign};
use crate::units::HumanDuration;

const DEFAULT: &str = "__default__";
/// The attributes that name the environment of a service.
const ENVIRONMENT: [&str; 2] = ["deployment.environment.name", "deployment.environment"];

pub(super) fn draft(source: Source<'_>, only: Option<&str>) -> Result<Draft, Vec<Mistake>> {
    let one = |mistake| vec![mistake];
    if let Some(line) = first_format(source.text) {
        let message = "this is how Refinery 1 wrote its rules; `refinery convert rules` of a later release makes the file \
                       that can be read here";
        return Err(one(source.mistake_at(line, 1, 1, message)));
    }
    let document = foreign(source).map_err(one)?;
    let root = Section::new(source, &document).map_err(one)?;
    let Some(samplers) = root.section("Samplers").map_err(one)? else {
        return Err(vec![source.mistake(document.at, "found no Samplers, expected Refinery's rules file")]);
    };
    let mut draft = Draft::default();
    others(root, &mut draft).map_err(one)?;
    waits(root, &mut draft).map_err(one)?;
    let environments = environments(samplers, only).map_err(one)?;
    let several = environments.len() > 1;
    let mut mistakes = Vec::new();
    for entry in environments {
        let scope =
            Environment { name: (several && entry.key != DEFAULT).then_some(entry.key.as_str()), several };
        if let Err(mistake) = environment(samplers, entry, scope, &mut draft) {
            mistakes.push(mistake);
        }
    }
    if mistakes.is_empty() && draft.policies.is_empty() {
        mistakes.push(root.mistake("Samplers", draft.nothing_said()));
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    note_unreachable(&mut draft.policies);
    Ok(draft)
}

/// The line that only the rules of Refinery 1 have, as TOML or YAML: a sampler by name, not as a section.
fn first_format(text: &str) -> Option<usize> {
    let names_sampler = |line: &str| {
        let line = line.trim_start();
        line.strip_prefix("Sampler").is_some_and(|rest| {
            let value = rest.trim_start().strip_prefix(['=', ':']);
            value.is_some_and(|value| value.trim().trim_matches(['"', '\'']).ends_with("Sampler"))
        })
    };
    text.lines().position(names_sampler).map(|line| line + 1)
}

/// Names what stands beside the samplers and has no counterpart.
fn others(root: Section<'_>, draft: &mut Draft) -> Result<(), Mistake> {
    let why = "of Refinery's own configuration; only its waits have a counterpart here";
    let known = ["RulesVersion", "Samplers", "Traces", "TraceTimeout", "SendDelay"];
    let traces = root.section("Traces")?;
    let of_traces = traces.iter().flat_map(|traces| traces.others(&["TraceTimeout", "SendDelay"]));
    for entry in root.others(&known).chain(of_traces) {
        draft.note(Kind::LeftOut, line(entry.key_at), entry.key.as_str(), why);
    }
    Ok(())
}

/// The environments to convert, the default one last.
fn environments<'a>(samplers: Section<'a>, only: Option<&str>) -> Result<Vec<&'a Entry>, Mistake> {
    let mut all: Vec<&Entry> = samplers.entries().iter().collect();
    if let Some(only) = only {
        let names: Vec<&str> = all.iter().map(|entry| entry.key.as_str()).collect();
        let message = format!("there is no environment \"{only}\": one of {}", names.join(", "));
        all.retain(|entry| entry.key == only);
        if all.is_empty() {
            return Err(samplers.source.mistake(samplers.at, message));
        }
    }
    if all.is_empty() {
        return Err(samplers.source.mistake(samplers.at, "found no sampler, expected at least __default__"));
    }
    all.sort_by_key(|entry| entry.key == DEFAULT);
    Ok(all)
}

/// How the policies of an environment are told from those of others.
#[derive(Clone, Copy, Debug)]
struct Environment<'a> {
    /// None: what no other environment has taken.
    name: Option<&'a str>,
    several: bool,
}

impl Environment<'_> {
    fn narrowed(self, when: Expr) -> Expr {
        let Some(name) = self.name else { return when };
        let value = traceql::text(&literal(name));
        let is = |key| Inner::new(format!("{} = {value}", traceql::attribute(Scope::Resource, key)));
        Expr::And(vec![Expr::Some(Inner::any(ENVIRONMENT.into_iter().map(is).collect())), when])
    }

    fn policy_name(self, name: &str) -> String {
        match self.name {
            Some(environment) => format!("{environment}: {name}"),
            None => name.to_owned(),
        }
    }
}

fn environment(
    samplers: Section<'_>,
    entry: &Entry,
    scope: Environment<'_>,
    draft: &mut Draft,
) -> Result<(), Mistake> {
    let section = Section::new(samplers.source, &entry.value)?;
    let Some(sampler) = section.entries().first() else {
        return Err(samplers.source.mistake(entry.key_at, "expected a sampler"));
    };
    for unused in &section.entries()[1..] {
        let why = "a second sampler for the same environment, of which one is asked";
        draft.note(Kind::LeftOut, line(unused.key_at), unused.key.as_str(), why);
    }
    if scope.name.is_some() {
        let why = "Refinery knows the environment by the sender's key; here by the resource attribute \
                   deployment.environment.name (or deployment.environment)";
        draft.note(Kind::Differs, line(entry.key_at), format!("environment {}", entry.key), why);
    }
    if sampler.key != "RulesBasedSampler" {
        let kept = sampler::keep(section.source, sampler)?;
        let name =
            scope.policy_name(if scope.several && scope.name.is_none() { "default" } else { "sampler" });
        add(
            scope,
            Rule { name, at: sampler.key_at, origin: sampler.key.clone(), when: Expr::Const(true) },
            kept,
            draft,
        );
        return Ok(());
    }
    rules(Section::new(section.source, &sampler.value)?, sampler.key_at, scope, draft)
}

/// What a rule becomes, but for its keep.
struct Rule {
    name: String,
    at: Location,
    origin: String,
    when: Expr,
}

fn add(scope: Environment<'_>, rule: Rule, kept: sampler::Kept, draft: &mut Draft) {
    let drops = kept.keep.share.is_nothing();
    draft.add(policy::Draft {
        name: rule.name,
        line: line(rule.at),
        origin: rule.origin,
        when: scope.narrowed(rule.when),
        drops,
        keep: kept.keep,
        differs: kept.differs,
        comments: kept.comments,
    });
}

fn rules(
    sampler: Section<'_>,
    at: Location,
    scope: Environment<'_>,
    draft: &mut Draft,
) -> Result<(), Mistake> {
    if sampler.boolean("CheckNestedFields")? {
        let why = "attributes that hold JSON are texts here; match them with a regular expression";
        draft.note(Kind::LeftOut, line(sampler.place("CheckNestedFields")), "CheckNestedFields", why);
    }
    for sentence in sampler.unknown(&["Rules", "CheckNestedFields"]) {
        draft.note(Kind::LeftOut, line(at), "RulesBasedSampler", sentence);
    }
    let mut matched_all = false;
    for (number, node) in sampler.list("Rules")?.iter().enumerate() {
        let section = Section::new(sampler.source, node)?;
        matched_all |= section.get("Conditions").is_none();
        rule(section, number + 1, scope, draft)?;
    }
    if !matched_all {
        let rest = Rule {
            name: scope.policy_name("rest"),
            at,
            origin: "what no rule matches is kept, as Refinery has it".to_owned(),
            when: Expr::Const(true),
        };
        add(scope, rest, sampler::Kept::share(Portion::EVERYTHING), draft);
    }
    Ok(())
}

fn rule(rule: Section<'_>, number: usize, scope: Environment<'_>, draft: &mut Draft) -> Result<(), Mistake> {
    let name = rule.text("Name")?.filter(|name| !name.is_empty());
    let name = name.map_or_else(|| format!("rule-{number}"), str::to_owned);
    let mut kept = match rule.section("Sampler")? {
        Some(section) => match section.entries().first() {
            Some(entry) => sampler::keep(rule.source, entry)?,
            None => return Err(rule.mistake("Sampler", "expected a sampler")),
        },
        None if rule.boolean("Drop")? => sampler::Kept::share(Portion::NOTHING),
        None => match rule.integer("SampleRate")?.unwrap_or(0) {
            ..=0 => sampler::Kept {
                comments: vec!["no SampleRate of 1 or more: Refinery keeps nothing of it".to_owned()],
                ..sampler::Kept::share(Portion::NOTHING)
            },
            rate => sampler::Kept::share(Portion::one_in(rate)),
        },
    };
    kept.differs.extend(rule.unknown(&["Name", "SampleRate", "Drop", "Scope", "Conditions", "Sampler"]));
    let same_span = match rule.text("Scope")? {
        None | Some("trace" | "") => false,
        Some("span") => true,
        Some(other) => {
            return Err(rule.mistake("Scope", format!("found \"{other}\", expected trace or span")));
        }
    };
    let (name, origin) = (scope.policy_name(&name), format!("rule {number}"));
    match condition::all(rule, same_span) {
        Ok((when, differs)) => {
            kept.differs.extend(differs);
            add(scope, Rule { name, at: rule.at, origin, when }, kept, draft);
            Ok(())
        }
        Err(Trouble::Mistake(mistake)) => Err(mistake),
        Err(Trouble::Unsayable(why)) => {
            draft.note(Kind::LeftOut, line(rule.at), format!("policy {name} ({origin})"), why);
            Ok(())
        }
    }
}

/// From Refinery's config file, if it stands in the same document.
fn waits(root: Section<'_>, draft: &mut Draft) -> Result<(), Mistake> {
    let traces = root.section("Traces")?;
    let find = |key: &str| -> Result<Option<HumanDuration>, Mistake> {
        for section in [Some(root), traces].into_iter().flatten() {
            if let Some(text) = section.text(key)? {
                let parsed = text
                    .parse()
                    .map_err(|error: crate::units::UnitError| section.mistake(key, error.to_string()));
                return parsed.map(Some);
            }
        }
        Ok(None)
    };
    let (timeout, delay) = (find("TraceTimeout")?, find("SendDelay")?);
    if timeout.is_none() && delay.is_none() {
        return Ok(());
    }
    // Where only one is set, Refinery's default is the other.
    let max_wait = timeout.unwrap_or(HumanDuration::from_secs(60));
    let after_root = delay.unwrap_or(HumanDuration::from_secs(2)).min(max_wait);
    let mut set = |key, value: HumanDuration, origin: &str| {
        draft.settings.push(Setting {
            section: "buffer",
            key,
            value: value.to_string(),
            origin: origin.to_owned(),
        });
    };
    set("after_root", after_root.max(HumanDuration::from_millis(1)), "SendDelay");
    set("max_wait", max_wait, "TraceTimeout");
    if max_wait > HumanDuration::from_secs(300) {
        set("hindsight", max_wait, "at least max_wait");
    }
    Ok(())
}

/// Rules know no variables, so what looks like one is none.
fn literal(text: &str) -> String {
    text.replace("${", "$${")
}
