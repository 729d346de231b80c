//! How much of what a policy matches is kept: one threshold for ever, or what a budget says now.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use foldhash::fast::RandomState;
use parking_lot::Mutex;

use crate::sampler::budget::{Budget, Formula, Measure};
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
pub(super) struct Counted {
    budget: Mutex<Budget>,
    hash: RandomState,
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
                let budget = Mutex::new(Budget::new(formula));
                let counted = Counted { budget, hash: RandomState::default() };
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

    /// The threshold in force for a unit that matches. A budget counts the unit.
    pub(super) fn draw(&self, unit: &Unit<'_>) -> Threshold {
        match self {
            Self::Share(threshold) => *threshold,
            Self::Budget { formula, counted } => {
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
                counted.budget.lock().draw(hasher.finish(), unit.now_ms, amount)
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
                let mut budget = counted.budget.lock();
                let keys = (!formula.per.is_empty()).then(|| budget.keys());
                CurrentKeep { probability: budget.probability(now_ms), keys }
            }
        }
    }
}
