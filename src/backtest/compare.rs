//! What changes hands between two lists of policies.

use std::collections::BTreeMap;

use super::tally::Outcome;

/// What became of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fate {
    /// In the order of the configuration, then `none`.
    pub policy: u16,
    pub kept: bool,
}

/// Traces of the input whose fate is another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Name of the policy, and whether it kept.
    pub from: (String, bool),
    pub to: (String, bool),
    pub traces: u64,
}

/// Changes, the largest first. Policies are the same if their names are.
pub fn compare(old: &Outcome, new: &Outcome) -> Vec<Change> {
    let name = |outcome: &Outcome, fate: Option<&Fate>| match fate {
        Some(fate) => (outcome.policies[usize::from(fate.policy)].name.clone(), fate.kept),
        None => ("not judged".to_owned(), false),
    };
    let mut pairs: BTreeMap<(Option<Fate>, Option<Fate>), u64> = BTreeMap::new();
    for (key, fate) in &old.fates {
        *pairs.entry((Some(*fate), new.fates.get(key).copied())).or_default() += 1;
    }
    for (_, fate) in new.fates.iter().filter(|(key, _)| !old.fates.contains_key(*key)) {
        *pairs.entry((None, Some(*fate))).or_default() += 1;
    }
    let change = |((from, to), traces): ((Option<Fate>, Option<Fate>), u64)| Change {
        from: name(old, from.as_ref()),
        to: name(new, to.as_ref()),
        traces,
    };
    let mut changes: Vec<Change> =
        pairs.into_iter().map(change).filter(|change| change.from != change.to).collect();
    changes.sort_by_key(|change| std::cmp::Reverse(change.traces));
    changes
}
