//! The list of policies, compiled: asked in order, the first that matches decides.
//!
//! A shadow is asked where it stands, counts what it would have decided, and decides nothing.

mod keep;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::budget::BudgetSnapshot;
use super::config::PolicyConfig;
use super::slow::{Percentile, Slow};
use super::traceql::{Asked, Condition, Folding, Folds, QueryError};
use super::unit::Unit;
use crate::otlp::Keys;
use crate::trace::{Decision, PolicyId, Threshold};

pub use keep::CurrentKeep;
use keep::Keeping;

/// Policies in one list at most.
const POLICIES_MAX: usize = 1_000;

/// A compiled list of policies.
///
/// Immutable but for what budgets and shadows count: a reload makes another one, with another generation.
#[derive(Debug)]
pub struct Policies {
    generation: u32,
    names: Vec<String>,
    policies: Vec<Policy>,
    folds: Folds,
    warnings: Vec<Warning>,
}

#[derive(Debug)]
struct Policy {
    matches: Option<Condition>,
    unless: Option<Condition>,
    slower_than: Option<Percentile>,
    keep: Keeping,
    /// None: it is applied.
    shadow: Option<Arc<ShadowTally>>,
}

/// Units that a shadow would have decided, had it not been one.
#[derive(Debug, Default)]
struct ShadowTally {
    kept: AtomicU64,
    dropped: AtomicU64,
}

/// What a shadow policy would have done so far, in units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shadow<'a> {
    pub policy: &'a str,
    pub kept: u64,
    pub dropped: u64,
}

/// A list of policies that cannot be used, and where in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileError {
    /// Index in the list. None: the list itself.
    pub policy: Option<usize>,
    pub key: &'static str,
    /// Byte offset into the text of that key.
    pub offset: usize,
    pub message: String,
}

/// Something that can be meant, but rarely is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Index in the list.
    pub policy: usize,
    pub key: &'static str,
    pub message: String,
}

impl CompileError {
    /// Such as `policies[0].match`.
    pub fn path(&self) -> String {
        self.policy.map_or_else(|| "policies".to_owned(), |policy| format!("policies[{policy}].{}", self.key))
    }

    fn of_list(message: impl Into<String>) -> Self {
        Self { policy: None, key: "policies", offset: 0, message: message.into() }
    }
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path(), self.message)
    }
}

impl std::error::Error for CompileError {}

impl Policies {
    /// Compiles the list. `generation` tells its folded bits from those of other lists.
    pub fn compile(configs: &[PolicyConfig], generation: u32) -> Result<Self, CompileError> {
        if configs.is_empty() {
            return Err(CompileError::of_list(
                "found an empty list, which would keep nothing; expected a policy",
            ));
        }
        if configs.len() > POLICIES_MAX {
            return Err(CompileError::of_list(format!("expected at most {POLICIES_MAX} policies")));
        }
        if configs.iter().all(|config| config.shadow) {
            return Err(CompileError::of_list(
                "found only shadow policies, which would keep nothing; expected one that is applied",
            ));
        }
        let mut compiled = Self {
            generation,
            names: Vec::with_capacity(configs.len()),
            policies: Vec::with_capacity(configs.len()),
            folds: Folds::default(),
            warnings: Vec::new(),
        };
        for (index, config) in configs.iter().enumerate() {
            compiled.add(index, config)?;
        }
        compiled.warnings = warnings(&compiled.policies);
        Ok(compiled)
    }

    fn add(&mut self, index: usize, config: &PolicyConfig) -> Result<(), CompileError> {
        let error = |key, offset, message| CompileError { policy: Some(index), key, offset, message };
        let name = config.name.as_str();
        if self.names.iter().any(|known| known == name) {
            return Err(error(
                "name",
                0,
                format!("found `{name}` twice, expected a name of its own for each policy"),
            ));
        }
        let folds = &mut self.folds;
        let mut condition = |key, text: Option<&str>| {
            let compiled = text.map(|text| Condition::compile(text, folds)).transpose();
            compiled.map_err(|query: QueryError| error(key, query.offset, query.to_string()))
        };
        let matches = condition("match", config.matches.as_ref().map(|text| text.0.as_str()))?;
        let unless = condition("unless", config.unless.as_ref().map(|text| text.0.as_str()))?;
        self.names.push(name.to_owned());
        self.policies.push(Policy {
            matches,
            unless,
            slower_than: config.slower_than,
            keep: Keeping::new(&config.keep),
            shadow: config.shadow.then(Arc::default),
        });
        Ok(())
    }

    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// The names, in the order of [`PolicyId`].
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The name of a policy, `none` of [`PolicyId::NONE`].
    pub fn name(&self, policy: PolicyId) -> &str {
        self.names.get(usize::from(policy.0)).map_or("none", String::as_str)
    }

    /// The policy of a name, [`PolicyId::NONE`] if there is none any more.
    pub fn id(&self, name: &str) -> PolicyId {
        let index = self.names.iter().position(|known| known == name);
        index.map_or(PolicyId::NONE, |index| PolicyId(index as u16))
    }

    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// The percentiles that are asked for, for [`Slow::set_percentiles`].
    pub fn percentiles(&self) -> Vec<Percentile> {
        self.policies.iter().filter_map(|policy| policy.slower_than).collect()
    }

    /// What a scan has to look out for, so that folding costs little.
    pub fn keys(&self) -> &Keys {
        self.folds.keys()
    }

    /// Gives one bit for each condition that is true of a span by what the scan found. OR-ed over a unit's spans they
    /// are [`Unit::bits`].
    pub fn folding(&self) -> Folding<'_, '_> {
        self.folds.folding()
    }

    /// Goes on with what budgets and shadows of an earlier list have counted, where name and formula are the same.
    #[must_use]
    pub fn continuing(mut self, earlier: &Self) -> Self {
        for (name, policy) in self.names.iter().zip(&mut self.policies) {
            let before = earlier.names.iter().position(|known| known == name);
            let Some(before) = before.and_then(|index| earlier.policies.get(index)) else { continue };
            policy.keep.go_on_with(&before.keep);
            if let (Some(shadow), Some(before)) = (&mut policy.shadow, &before.shadow) {
                shadow.clone_from(before);
            }
        }
        self
    }

    /// What budgets have measured, for [`Self::restore_budgets`] of a later life; `now_ms` is of the clock of
    /// [`Unit::now_ms`].
    pub fn budgets(&self, now_ms: u64) -> Vec<BudgetSnapshot> {
        let policies = self.names.iter().zip(&self.policies);
        policies.filter_map(|(name, policy)| policy.keep.snapshot(name, now_ms)).collect()
    }

    /// Goes on with the budgets of an earlier life, where name and formula are the same.
    pub fn restore_budgets(&self, saved: &[BudgetSnapshot], now_ms: u64) {
        for (name, policy) in self.names.iter().zip(&self.policies) {
            if let Some(saved) = saved.iter().find(|saved| saved.policy == *name) {
                policy.keep.restore(saved, now_ms);
            }
        }
    }

    /// Asks the policies in order. Budgets and shadows count the unit.
    pub fn judge(&self, unit: &Unit<'_>, slow: &Slow) -> Decision {
        let asked = Asked::new(unit);
        for (index, policy) in self.policies.iter().enumerate() {
            let id = PolicyId(index as u16);
            if let Some(shadow) = &policy.shadow {
                if !unit.again && policy.holds(&asked, &self.folds, slow) {
                    shadow.count(policy.keep.draw(unit).keeps(unit.randomness));
                }
                continue;
            }
            if unit.dropped_by == Some(id) {
                return decision(id, false, policy.keep.standing());
            }
            if policy.holds(&asked, &self.folds, slow) {
                let threshold = policy.keep.draw(unit);
                return decision(id, threshold.keeps(unit.randomness), threshold);
            }
        }
        decision(PolicyId::NONE, false, Threshold::NEVER)
    }

    /// What the shadows would have done, in the order of the list.
    pub fn shadows(&self) -> impl Iterator<Item = Shadow<'_>> {
        self.names.iter().zip(&self.policies).filter_map(|(policy, compiled)| {
            let tally = compiled.shadow.as_ref()?;
            let (kept, dropped) = (tally.kept.load(Relaxed), tally.dropped.load(Relaxed));
            Some(Shadow { policy, kept, dropped })
        })
    }

    /// What each policy keeps now of what it matches; `now_ms` is of the clock of [`Unit::now_ms`].
    pub fn current_keeps(&self, now_ms: u64) -> impl Iterator<Item = (&str, CurrentKeep)> {
        let policies = self.names.iter().zip(&self.policies);
        policies.map(move |(name, policy)| (name.as_str(), policy.keep.current(now_ms)))
    }
}

fn decision(policy: PolicyId, kept: bool, threshold: Threshold) -> Decision {
    Decision { policy, kept, threshold }
}

impl ShadowTally {
    fn count(&self, kept: bool) {
        let tally = if kept { &self.kept } else { &self.dropped };
        tally.fetch_add(1, Relaxed);
    }
}

impl Policy {
    /// Bytes are read only if nothing else excludes the unit.
    fn holds(&self, asked: &Asked<'_>, folds: &Folds, slow: &Slow) -> bool {
        let known = |condition: &Option<Condition>, refused: bool| {
            condition.as_ref().and_then(|condition| condition.known(asked.unit)) == Some(refused)
        };
        !known(&self.matches, false)
            && !known(&self.unless, true)
            && self.is_slow(asked.unit, slow)
            && self.matches.as_ref().is_none_or(|condition| match self.asks_only_match() {
                true => condition.holds_now(asked, folds),
                false => condition.holds(asked, folds),
            })
            && !self.unless.as_ref().is_some_and(|condition| condition.holds(asked, folds))
    }

    /// So its condition was false whenever a later policy has dropped the unit.
    fn asks_only_match(&self) -> bool {
        self.unless.is_none() && self.slower_than.is_none()
    }

    fn is_slow(&self, unit: &Unit<'_>, slow: &Slow) -> bool {
        let Some(percentile) = self.slower_than else { return true };
        match (unit.operation, unit.duration) {
            (Some(operation), Some(duration)) => slow.is_slow(operation, percentile, duration),
            _ => false,
        }
    }
}

/// A `keep: 0%` decides for whole traces: before an error policy it drops errors, and asking about any span
/// it drops traces for one span in them.
fn warnings(policies: &[Policy]) -> Vec<Warning> {
    let keeps_errors = |policy: &Policy| {
        let asks = policy.matches.as_ref().is_some_and(|condition| condition.asks_for_errors);
        asks && policy.shadow.is_none() && !policy.keep.is_nothing()
    };
    let mut warnings = Vec::new();
    for (index, policy) in policies.iter().enumerate() {
        if policy.shadow.is_some() || !policy.keep.is_nothing() {
            continue;
        }
        let later = &policies[index + 1..];
        if later.iter().any(keeps_errors) {
            let message = "drops traces before the error policy below is asked, errors in them included";
            warnings.push(Warning { policy: index, key: "keep", message: message.to_owned() });
        }
        if policy.matches.as_ref().is_some_and(|condition| condition.asks_beyond_root) {
            let message = "drops a whole trace for any one span in it; ask about the root, as in \
                           rootName or parent = nil, if only the root is meant";
            warnings.push(Warning { policy: index, key: "match", message: message.to_owned() });
        }
    }
    warnings
}

#[cfg(test)]
mod tests;
