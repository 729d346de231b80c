//! A composite policy: members with parts of one rate.

use super::policy::{Part, joined, part};
use super::settings::{known_numbers, unknown_keys};
use crate::config::Mistake;
use crate::convert::emit;
use crate::convert::policy::{Budget, Draft, Keep};
use crate::convert::yaml::{Section, line, scalar};
use crate::convert::{Kind, Trouble};

/// Members of a composite policy become policies in its order, each with its part of the rate.
pub(super) fn add(policy: Section<'_>, draft: &mut emit::Draft) -> Result<(), Mistake> {
    let Some(settings) = policy.section("composite")? else {
        return Err(policy.mistake("composite", "expected composite_sub_policy"));
    };
    for sentence in unknown_keys(policy, "composite")? {
        draft.note(
            Kind::LeftOut,
            line(policy.at),
            format!("policy {}", policy.needed_text("name")?),
            sentence,
        );
    }
    if let Some(why) = unknown_rate(settings)? {
        let what = format!("policy {} (composite)", policy.needed_text("name")?);
        draft.note(Kind::LeftOut, line(policy.at), what, why);
        return Ok(());
    }
    let total = settings.integer("max_total_spans_per_second")?.unwrap_or(0).max(0) as u64;
    let members: Vec<Section<'_>> = settings
        .list("composite_sub_policy")?
        .iter()
        .map(|node| Section::new(settings.source, node))
        .collect::<Result<_, _>>()?;
    let order = settings.list("policy_order")?;
    if members.is_empty() || order.is_empty() {
        let key = if members.is_empty() { "composite_sub_policy" } else { "policy_order" };
        return Err(settings.mistake(key, "expected a policy"));
    }
    for node in order {
        let wanted = scalar(settings.source, node)?;
        let named = |member: &&Section<'_>| member.text("name").is_ok_and(|name| name == Some(wanted));
        let Some(member) = members.iter().find(named) else {
            let message = format!("found \"{wanted}\", which composite_sub_policy does not have");
            return Err(settings.source.mistake(node.at, message));
        };
        let rate = allocated(settings, wanted, total, members.len())?;
        add_member(*member, wanted, rate, draft)?;
    }
    let asked = settings.texts("policy_order")?;
    for member in &members {
        let name = member.needed_text("name")?;
        if !asked.contains(&name) {
            let why = "it is not in policy_order, so the Collector never asks it";
            draft.note(Kind::Settled, line(member.at), format!("policy {name}"), why);
        }
    }
    Ok(())
}

/// Why its rates cannot be calculated.
fn unknown_rate(settings: Section<'_>) -> Result<Option<String>, Mistake> {
    let rows = settings.list("rate_allocation")?.iter().map(|node| Section::new(settings.source, node));
    for section in rows.chain([Ok(settings)]) {
        match known_numbers(section?) {
            Ok(()) => {}
            Err(Trouble::Mistake(mistake)) => return Err(mistake),
            Err(Trouble::Unsayable(why)) => return Ok(Some(why)),
        }
    }
    Ok(None)
}

/// Spans a second; a member without an allocation gets an equal part.
fn allocated(settings: Section<'_>, name: &str, total: u64, members: usize) -> Result<u64, Mistake> {
    for node in settings.list("rate_allocation")? {
        let row = Section::new(settings.source, node)?;
        if row.text("policy")? == Some(name) {
            let percent = row.integer("percent")?.unwrap_or(0);
            let percent = u64::try_from(percent).ok().filter(|percent| *percent <= 100);
            let percent = percent.ok_or_else(|| row.mistake("percent", "expected a percentage"))?;
            if percent > 0 {
                return Ok((u128::from(total) * u128::from(percent) / 100) as u64);
            }
        }
    }
    Ok(total / members as u64)
}

fn add_member(member: Section<'_>, name: &str, rate: u64, draft: &mut emit::Draft) -> Result<(), Mistake> {
    let at = line(member.at);
    let kind = member.needed_text("type")?;
    let budgeted = part(member, &["and"])
        .and_then(|part| joined(vec![part, Part::keep(Keep::budget(Budget::Spans(rate)))]));
    match budgeted {
        Ok(Part { when, keep, differs, .. }) => {
            let (name, origin) = (name.to_owned(), format!("{kind}, of a composite"));
            draft.add(Draft {
                name,
                line: at,
                origin,
                when,
                drops: false,
                keep,
                differs,
                comments: Vec::new(),
            });
        }
        Err(Trouble::Mistake(mistake)) => return Err(mistake),
        Err(Trouble::Unsayable(why)) => {
            draft.note(Kind::LeftOut, at, format!("policy {name} ({kind}, of a composite)"), why);
        }
    }
    Ok(())
}
