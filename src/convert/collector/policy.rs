//! The types of `tail_sampling` policies, each as a condition on the trace and what is kept of it.

use super::settings::{Number, known_numbers, number, percentage, unknown_keys};
use super::variables::variables;
use super::{composite, ottl};
use crate::config::{Kind as NodeKind, Mistake, Node};
use crate::convert::emit;
use crate::convert::expr::{Expr, Order};
use crate::convert::policy::{Budget, Draft, Keep, Portion};
use crate::convert::traceql::{self, Inner, Scope};
use crate::convert::yaml::{Section, line, scalar};
use crate::convert::{Kind, Trouble, unsayable};

/// Types that stand at the top and inside others.
const SIMPLE: [&str; 14] = [
    "always_sample",
    "latency",
    "numeric_attribute",
    "probabilistic",
    "status_code",
    "string_attribute",
    "rate_limiting",
    "bytes_limiting",
    "span_count",
    "boolean_attribute",
    "ottl_condition",
    "trace_state",
    "trace_flags",
    "not",
];

/// What a policy, or a member of one, asks of a trace.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) when: Expr,
    pub(super) keep: Keep,
    /// Of a random choice: equal salts choose alike.
    salt: Option<String>,
    pub(super) differs: Vec<String>,
}

impl Part {
    fn when(when: Expr) -> Self {
        Self { when, keep: Keep::everything(), salt: None, differs: Vec::new() }
    }

    pub(super) fn keep(keep: Keep) -> Self {
        Self { keep, ..Self::when(Expr::Const(true)) }
    }

    /// The condition of a part that decides by nothing else.
    fn condition(self, of: &str) -> Result<(Expr, Vec<String>), Trouble> {
        if !self.keep.is_everything() {
            return unsayable(format!(
                "a {of} of what a share or a limit has chosen; here a policy keeps a share of what it matches, and \
                 the rest is not asked again"
            ));
        }
        Ok((self.when, self.differs))
    }
}

/// Adds what a policy becomes, or says that it is left out.
pub(super) fn add(policy: Section<'_>, name: &str, draft: &mut emit::Draft) -> Result<(), Mistake> {
    let at = line(policy.at);
    let kind = policy.needed_text("type")?;
    let added = match kind {
        "composite" => return composite::add(policy, draft),
        "drop" => drop_of(policy),
        _ => part(policy, &["and"]),
    };
    match added {
        Ok(part) => {
            let drops = kind == "drop";
            let keep = if drops { Keep::share(Portion::NOTHING) } else { part.keep };
            let (when, differs) = (part.when, part.differs);
            let (name, origin) = (name.to_owned(), kind.to_owned());
            draft.add(Draft { name, line: at, origin, when, drops, keep, differs, comments: Vec::new() });
        }
        Err(Trouble::Mistake(mistake)) => return Err(mistake),
        Err(Trouble::Unsayable(why)) => {
            draft.note(Kind::LeftOut, at, format!("policy {name} ({kind})"), why);
        }
    }
    Ok(())
}

/// A policy of a type that may stand here: a simple one, or one of `also`.
pub(super) fn part(policy: Section<'_>, also: &[&str]) -> Result<Part, Trouble> {
    let kind = policy.needed_text("type")?;
    if !SIMPLE.contains(&kind) && !also.contains(&kind) {
        let known = ["and", "composite", "drop"].contains(&kind);
        let why = if known { "which the Collector does not take here" } else { "which is no type of policy" };
        return Err(policy.mistake("type", format!("found \"{kind}\", {why}")).into());
    }
    let empty = Node { at: policy.place("type"), kind: NodeKind::Empty };
    let settings = match policy.section(kind)? {
        Some(settings) => settings,
        None => Section::new(policy.source, &empty)?,
    };
    known_numbers(settings)?;
    let mut part = match kind {
        "always_sample" => Ok(Part::when(Expr::Const(true))),
        "trace_flags" => Ok(Part::when(Expr::Some(Inner::new("span:sampled = true")))),
        "latency" => latency(settings),
        "numeric_attribute" => numeric(settings),
        "string_attribute" => string(settings),
        "boolean_attribute" => boolean(settings),
        "status_code" => status(settings),
        "trace_state" => trace_state(settings),
        "span_count" => span_count(settings),
        "probabilistic" => probabilistic(settings),
        "rate_limiting" => limit(settings, "spans_per_second", Budget::Spans),
        "bytes_limiting" => bytes_limit(settings),
        "ottl_condition" => ottl_condition(settings),
        "and" => and(settings),
        _ => not(settings),
    }?;
    part.differs.extend(unknown_keys(policy, kind)?);
    Ok(part)
}

/// An attribute of a span or of its resource, as the Collector looks for both.
fn either(key: &str, test: impl Fn(&str) -> Inner) -> Expr {
    let key = variables(key);
    let on = |scope| test(&traceql::attribute(scope, &key));
    Expr::Some(Inner::any(vec![on(Scope::Span), on(Scope::Resource)]))
}

fn inverted(settings: Section<'_>, when: Expr) -> Result<Part, Trouble> {
    if !settings.boolean("invert_match")? {
        return Ok(Part::when(when));
    }
    let mut part = Part::when(when.not());
    part.differs.push(
        "invert_match: where the Collector still counts inverted votes, a trace that this policy does not keep is \
         dropped whatever the other policies say; here they are asked"
            .to_owned(),
    );
    Ok(part)
}

fn latency(settings: Section<'_>) -> Result<Part, Trouble> {
    let (lower, upper) = (number(settings, "threshold_ms")?, number(settings, "upper_threshold_ms")?);
    let lower = lower.unwrap_or(Number::Known(0));
    let upper = upper.filter(|upper| *upper != Number::Known(0));
    let is_below = |number: &Number, bound: i64| matches!(number, Number::Known(ms) if *ms < bound);
    let least = if let Number::Known(ms) = lower { ms } else { 0 };
    if is_below(&lower, 0) || upper.as_ref().is_some_and(|upper| is_below(upper, least.max(0))) {
        return Err(settings
            .mistake("threshold_ms", "expected 0 <= threshold_ms <= upper_threshold_ms")
            .into());
    }
    let longer = |bound: &Number| Expr::Whole {
        holds: Inner::new(format!("traceDuration > {}", bound.millis())),
        fails: Inner::new(format!("traceDuration <= {}", bound.millis())),
    };
    let bounds = [longer(&lower)].into_iter().chain(upper.map(|upper| longer(&upper).not()));
    Ok(Part::when(Expr::And(bounds.collect())))
}

fn numeric(settings: Section<'_>) -> Result<Part, Trouble> {
    let key = settings.needed_text("key")?;
    let bounds = [(">=", number(settings, "min_value")?), ("<=", number(settings, "max_value")?)];
    if bounds.iter().all(|(_, bound)| bound.is_none()) {
        return Err(settings.source.mistake(settings.at, "expected min_value or max_value").into());
    }
    let test = |name: &str| {
        let bound = |(sign, value): &(&str, Option<Number>)| {
            value.as_ref().map(|value| Inner::new(format!("{name} {sign} {value}")))
        };
        Inner::all(bounds.iter().filter_map(bound).collect())
    };
    inverted(settings, either(key, test))
}

fn string(settings: Section<'_>) -> Result<Part, Trouble> {
    let key = settings.needed_text("key")?;
    let values = settings.list("values")?;
    if values.is_empty() {
        return inverted(settings, Expr::Const(false));
    }
    let mut texts = Vec::with_capacity(values.len());
    let regex = settings.boolean("enabled_regex_matching")?;
    for value in values {
        let text = scalar(settings.source, value)?;
        if let Some(fault) = traceql::regex_fault(text).filter(|_| regex) {
            let message = format!("\"{text}\" is no regular expression: {fault}");
            return Err(settings.source.mistake(value.at, message).into());
        }
        texts.push(variables(text));
    }
    let when = if regex {
        let whole = traceql::text(&traceql::anywhere(texts.iter().map(String::as_str)));
        either(key, |name| Inner::new(format!("{name} =~ {whole}")))
    } else {
        either(key, |name| equal_to_one(name, &texts))
    };
    inverted(settings, when)
}

fn equal_to_one(name: &str, values: &[String]) -> Inner {
    Inner::any(values.iter().map(|value| Inner::new(format!("{name} = {}", traceql::text(value)))).collect())
}

fn boolean(settings: Section<'_>) -> Result<Part, Trouble> {
    let key = settings.needed_text("key")?;
    let value = settings.boolean("value")?;
    inverted(settings, either(key, |name| Inner::new(format!("{name} = {value}"))))
}

fn status(settings: Section<'_>) -> Result<Part, Trouble> {
    let codes = settings.list("status_codes")?;
    if codes.is_empty() {
        return Err(settings.mistake("status_codes", "expected one of ERROR, OK, UNSET").into());
    }
    let mut tests = Vec::new();
    for code in codes {
        let word = match scalar(settings.source, code)? {
            "ERROR" => "error",
            "OK" => "ok",
            "UNSET" => "unset",
            other => {
                let message = format!("found \"{other}\", expected ERROR, OK or UNSET");
                return Err(settings.source.mistake(code.at, message).into());
            }
        };
        tests.push(Inner::new(format!("status = {word}")));
    }
    Ok(Part::when(Expr::Some(Inner::any(tests))))
}

fn trace_state(settings: Section<'_>) -> Result<Part, Trouble> {
    let name = traceql::attribute(Scope::TraceState, &variables(settings.needed_text("key")?));
    let values: Vec<String> = settings.texts("values")?.into_iter().map(variables).collect();
    if values.is_empty() {
        return Ok(Part::when(Expr::Const(false)));
    }
    Ok(Part::when(Expr::Some(equal_to_one(&name, &values))))
}

fn span_count(settings: Section<'_>) -> Result<Part, Trouble> {
    let mut bounds = Vec::new();
    for (key, order) in [("min_spans", Order::GreaterOrEqual), ("max_spans", Order::LessOrEqual)] {
        if let Some(spans) = settings.integer(key)?.filter(|spans| *spans != 0) {
            let spans =
                u64::try_from(spans).map_err(|_| settings.mistake(key, "expected a count of spans"))?;
            bounds.push(Expr::Count(order, spans));
        }
    }
    Ok(Part::when(Expr::And(bounds)))
}

fn probabilistic(settings: Section<'_>) -> Result<Part, Trouble> {
    let share = percentage(settings)?;
    let salt = settings.text("hash_salt")?.unwrap_or_default().to_owned();
    let is_guessed = share.is_from_environment();
    let mut part = Part::keep(Keep::share(share));
    if is_guessed {
        let why = "sampling_percentage stands in the environment: its place among the other policies was chosen without \
                   it; if it keeps more than a policy before it that matches the same traces, move it up";
        part.differs.push(why.to_owned());
    }
    if !salt.is_empty() {
        let why =
            "hash_salt: there is no salt, so that every instance and every other consistent sampler agrees";
        part.differs.push(why.to_owned());
    }
    part.salt = Some(salt);
    Ok(part)
}

fn limit(settings: Section<'_>, key: &str, budget: fn(u64) -> Budget) -> Result<Part, Trouble> {
    let limit = settings.integer(key)?.unwrap_or(0);
    let limit = u64::try_from(limit).map_err(|_| settings.mistake(key, "expected a rate of 0 or more"))?;
    Ok(Part::keep(Keep::budget(budget(limit))))
}

fn bytes_limit(settings: Section<'_>) -> Result<Part, Trouble> {
    let mut part = limit(settings, "bytes_per_second", Budget::Bytes)?;
    if settings.get("burst_capacity").is_some() {
        let why = "burst_capacity: a budget has no bucket; bursts are kept rather below the rate, and a single trace \
                   larger than the bucket has a chance";
        part.differs.push(why.to_owned());
    }
    Ok(part)
}

fn ottl_condition(settings: Section<'_>) -> Result<Part, Trouble> {
    let (mut tests, mut differs, mut unsaid) = (Vec::new(), Vec::new(), Vec::new());
    for (key, context) in [("span", ottl::Context::Span), ("spanevent", ottl::Context::Event)] {
        for text in settings.texts(key)? {
            match ottl::condition(&variables(text), context) {
                Ok((inner, remarks)) => {
                    tests.push(inner);
                    differs.extend(remarks);
                }
                Err(why) => unsaid.push(format!("`{text}`: {why}")),
            }
        }
    }
    if tests.is_empty() && !unsaid.is_empty() {
        return unsayable(unsaid.join("; "));
    }
    // One of them is enough, so the others say what they can.
    differs.extend(unsaid.into_iter().map(|why| format!("left out, one of its conditions: {why}")));
    if tests.is_empty() {
        return Err(settings
            .source
            .mistake(settings.at, "expected a condition under span or spanevent")
            .into());
    }
    differs.dedup();
    Ok(Part { differs, ..Part::when(Expr::Some(Inner::any(tests))) })
}

/// The members of a list, which must have some.
fn members<'a>(settings: Section<'a>, key: &str) -> Result<Vec<Section<'a>>, Trouble> {
    let list = settings.list(key)?;
    if list.is_empty() {
        return Err(settings
            .mistake(key, "expected a policy: an empty list would decide about every trace")
            .into());
    }
    Ok(list.iter().map(|node| Section::new(settings.source, node)).collect::<Result<_, _>>()?)
}

fn and(settings: Section<'_>) -> Result<Part, Trouble> {
    let parts = members(settings, "and_sub_policy")?;
    let parts: Vec<Part> = parts.into_iter().map(|member| part(member, &[])).collect::<Result<_, _>>()?;
    joined(parts)
}

/// All conditions must hold, all limits be kept, and every random choice fall well.
pub(super) fn joined(parts: Vec<Part>) -> Result<Part, Trouble> {
    let mut all = Part::when(Expr::Const(true));
    let (mut conditions, mut chosen): (Vec<Expr>, Vec<(String, Portion)>) = (Vec::new(), Vec::new());
    for part in parts {
        conditions.push(part.when);
        all.differs.extend(part.differs);
        if let Some(salt) = part.salt {
            match chosen.iter_mut().find(|(known, _)| *known == salt) {
                Some((_, share)) if share.is_from_environment() || part.keep.share.is_from_environment() => {
                    if *share != part.keep.share {
                        return unsayable(
                            "the smaller of two shares, of which one stands in the environment",
                        );
                    }
                }
                Some((_, share)) if share.percent <= part.keep.share.percent => {}
                Some((_, share)) => *share = part.keep.share,
                None => chosen.push((salt, part.keep.share)),
            }
        }
        all.keep.at_most = match (all.keep.at_most, part.keep.at_most) {
            (Some(Budget::Spans(a)), Some(Budget::Spans(b))) => Some(Budget::Spans(a.min(b))),
            (Some(Budget::Bytes(a)), Some(Budget::Bytes(b))) => Some(Budget::Bytes(a.min(b))),
            (Some(_), Some(_)) => {
                return unsayable("a limit of spans and one of bytes; a policy has one budget");
            }
            (one, other) => one.or(other),
        };
    }
    for (_, share) in &chosen {
        let Some(product) = all.keep.share.times(share) else {
            return unsayable("a share of a share that stands in the environment");
        };
        all.keep.share = product;
    }
    all.when = Expr::And(conditions);
    Ok(all)
}

fn not(settings: Section<'_>) -> Result<Part, Trouble> {
    let Some(member) = settings.section("not_sub_policy")? else {
        return Err(settings.mistake("not_sub_policy", "expected a policy").into());
    };
    let (when, differs) = part(member, &["and"])?.condition("negation")?;
    Ok(Part { differs, ..Part::when(when.not()) })
}

fn drop_of(policy: Section<'_>) -> Result<Part, Trouble> {
    let Some(settings) = policy.section("drop")? else {
        return Err(policy.mistake("drop", "expected drop_sub_policy").into());
    };
    let parts = members(settings, "drop_sub_policy")?;
    let parts: Vec<Part> = parts.into_iter().map(|member| part(member, &[])).collect::<Result<_, _>>()?;
    let (when, mut differs) = joined(parts)?.condition("drop")?;
    differs.extend(unknown_keys(policy, "drop")?);
    Ok(Part { differs, ..Part::when(when) })
}
