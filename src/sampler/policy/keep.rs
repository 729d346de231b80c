//! How much of what a policy matches is kept: one threshold for ever, or what a budget says now.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use foldhash::SharedSeed;
use foldhash::fast::{RandomState, SeedableRandomState};
use parking_lot::Mutex;

use crate::sampler::budget::{Budget, BudgetSnapshot, Formula, Measure};
use crate::sampler::config::Keep;
use crate::sampler::unit::{Size, Unit};
use crate::trace::Threshold;

#[derive(Debug)]
pub(super) enum Keeping {
    Share(Threshold),
    Budget {
        formula: Box<Formula>,
        /// Judged by one thread, looked at by others.
        counted: Arc<Counted>,
    },
}

/// What a budget remembers.
#[derive(Debug)]
pub(super) struct Counted(Mutex<Remembered>);

#[derive(Debug)]
struct Remembered {
    budget: Budget,
    /// Of `hash`.
    seed: u64,
    hash: SeedableRandomState,
}

impl Remembered {
    fn new(budget: Budget, seed: u64) -> Self {
        Self { budget, seed, hash: SeedableRandomState::with_seed(seed, SharedSeed::global_fixed()) }
    }
}

/// What a policy keeps now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CurrentKeep {
    /// Of what matches, over all keys.
    pub probability: f64,
    /// Keys with a budget of their own. None: units are not told apart.
    pub keys: Option<usize>,
}

impl Keeping {
    pub(super) fn new(keep: &Keep) -> Self {
        match keep {
            Keep::Share(share) => Self::Share(Threshold::of(*share)),
            Keep::Formula(formula) => {
                // Names are chosen by senders: nobody else knows the seed.
                let seed = RandomState::default().hash_one(());
                let counted = Counted(Mutex::new(Remembered::new(Budget::new(formula), seed)));
                Self::Budget { formula: formula.clone(), counted: Arc::new(counted) }
            }
        }
    }

    /// Of an earlier list; another formula begins anew.
    pub(super) fn go_on_with(&mut self, earlier: &Self) {
        if let (Self::Budget { formula, counted }, Self::Budget { formula: before, counted: counted_before }) =
            (self, earlier)
            && formula == before
        {
            counted.clone_from(counted_before);
        }
    }

    /// What a budget has measured, for the policy of this name; nothing of a share.
    pub(super) fn snapshot(&self, policy: &str, now_ms: u64) -> Option<BudgetSnapshot> {
        let Self::Budget { formula, counted } = self else { return None };
        let counted = counted.0.lock();
        let (policy, formula, hash_seed) = (policy.to_owned(), formula.to_string(), counted.seed);
        Some(BudgetSnapshot { policy, formula, hash_seed, ..counted.budget.snapshot(now_ms) })
    }

    /// Goes on from what was measured for the same formula.
    pub(super) fn restore(&self, from: &BudgetSnapshot, now_ms: u64) {
        if let Self::Budget { formula, counted } = self
            && formula.to_string() == from.formula
        {
            let mut budget = Budget::new(formula);
            budget.restore(from, now_ms);
            *counted.0.lock() = Remembered::new(budget, from.hash_seed);
        }
    }

    /// The threshold in force for a unit that matches. A budget counts the unit.
    pub(super) fn draw(&self, unit: &Unit<'_>) -> Threshold {
        match self {
            Self::Share(threshold) => *threshold,
            Self::Budget { formula, counted } => {
                let mut counted = counted.0.lock();
                let mut hasher = counted.hash.build_hasher();
                formula.per.iter().for_each(|field| field.feed(unit, &mut hasher));
                let needs_size =
                    formula.bounds().any(|bound| matches!(bound.measure(), Measure::Spans | Measure::Bytes));
                let size = if needs_size { unit.spans.size() } else { Size::default() };
                let amount = |measure| match measure {
                    Measure::Traces => 1,
                    Measure::Spans => size.spans,
                    Measure::Bytes => size.bytes,
                };
                counted.budget.draw(hasher.finish(), unit.now_ms, amount)
            }
        }
    }

    /// Of a policy that is not asked again: the share, whatever a budget makes of it.
    pub(super) fn standing(&self) -> Threshold {
        match self {
            Self::Share(threshold) => *threshold,
            Self::Budget { formula, .. } => Threshold::of(formula.share),
        }
    }

    /// Keeps nothing, whatever matches.
    pub(super) fn is_nothing(&self) -> bool {
        match self {
            Self::Share(threshold) => *threshold == Threshold::NEVER,
            Self::Budget { formula, .. } => formula.at_most.is_some_and(|bound| bound.is_zero()),
        }
    }

    pub(super) fn current(&self, now_ms: u64) -> CurrentKeep {
        match self {
            Self::Share(threshold) => CurrentKeep { probability: threshold.probability(), keys: None },
            Self::Budget { formula, counted } => {
                let budget = &mut counted.0.lock().budget;
                let keys = (!formula.per.is_empty()).then(|| budget.keys());
                CurrentKeep { probability: budget.probability(now_ms), keys }
            }
        }
    }
}
