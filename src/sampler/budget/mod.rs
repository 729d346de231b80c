//! Shares that follow the traffic: a floor, a ceiling, for all that matches or for each key.
//!
//! p = clamp(share, at_least / mean, at_most / rate), known before the unit is judged: what has matched
//! before decides, never the unit itself, so a kept unit stands for exactly 1 / p of its like. The mean is that
//! of the last minute; the rate is the largest of it, the last full period and the current one so far, so that
//! a jump is met at once. A unit counts when it is judged, whether it is kept or not.
//!
//! Plain values: time is passed in. Memory is bounded by [`KEYS_MAX`] keys of about 600 bytes.

mod formula;
mod meter;
mod rate;
mod snapshot;

use std::collections::HashMap;

pub use formula::Formula;
pub(super) use formula::RawFormula;
pub use meter::MeterSnapshot;
pub use rate::{Measure, Rate, RateError};
pub use snapshot::{BudgetSnapshot, KeySnapshot};

use crate::trace::{Share, Threshold};
use meter::Meter;

/// Keys with a budget of their own; the rest share one.
pub const KEYS_MAX: usize = 1_000;
/// Between two looks for keys that nothing matches any more.
const SWEEP_EVERY_MS: u64 = 10_000;

/// A formula and what has matched of late.
#[derive(Debug)]
pub(super) struct Budget {
    share: Share,
    at_least: Option<Rate>,
    at_most: Option<Rate>,
    /// By keyed hash: of 1,000 keys two are one in 10^13 at most.
    keys: HashMap<u64, Meters, foldhash::fast::RandomState>,
    rest: Meters,
    swept_ms: u64,
    /// From the clock of this process to that of the meters, which an earlier life may have begun.
    shift_ms: i64,
}

/// What one key is measured by.
#[derive(Clone, Debug, Default)]
struct Meters {
    at_least: Option<Box<Meter>>,
    at_most: Option<Box<Meter>>,
}

impl Meters {
    fn each(&mut self) -> impl Iterator<Item = &mut Meter> {
        self.at_least.as_deref_mut().into_iter().chain(self.at_most.as_deref_mut())
    }

    fn turn_to(&mut self, now_ms: u64) {
        self.each().for_each(|meter| meter.turn_to(now_ms));
    }
}

impl Budget {
    pub(super) fn new(formula: &Formula) -> Self {
        let Formula { share, at_least, at_most, .. } = *formula;
        let mut budget = Self {
            share,
            at_least,
            at_most,
            keys: HashMap::default(),
            rest: Meters::default(),
            swept_ms: 0,
            shift_ms: 0,
        };
        budget.rest = budget.meters();
        budget
    }

    /// By the clock of the meters.
    fn time(&self, now_ms: u64) -> u64 {
        now_ms.saturating_add_signed(self.shift_ms)
    }

    fn meters(&self) -> Meters {
        let meter = |bound: Option<Rate>| bound.map(|_| Box::default());
        Meters { at_least: meter(self.at_least), at_most: meter(self.at_most) }
    }

    /// What p was in force for a unit of this key that has matched, and counts it. `amount` is asked for its
    /// size.
    pub(super) fn draw(&mut self, key: u64, now_ms: u64, amount: impl Fn(Measure) -> u64) -> Threshold {
        let now_ms = self.time(now_ms);
        if !self.keys.contains_key(&key) {
            self.open(key, now_ms);
        }
        let meters = self.keys.get_mut(&key).unwrap_or(&mut self.rest);
        meters.turn_to(now_ms);
        let threshold = in_force(self.share, self.at_least, self.at_most, meters);
        if let (Some(bound), Some(meter)) = (self.at_least, &mut meters.at_least) {
            meter.add(amount(bound.measure()));
        }
        if let (Some(bound), Some(meter)) = (self.at_most, &mut meters.at_most) {
            meter.add(amount(bound.measure()));
        }
        threshold
    }

    /// Keys with a budget of their own.
    pub(super) fn keys(&self) -> usize {
        self.keys.len()
    }

    /// The share of what matches that is kept now, over all keys by what each brings.
    pub(super) fn probability(&mut self, now_ms: u64) -> f64 {
        let Self { share, at_least, at_most, .. } = *self;
        let now_ms = self.time(now_ms);
        let (mut kept, mut matched) = (0.0, 0.0);
        for meters in self.keys.values_mut().chain([&mut self.rest]) {
            meters.turn_to(now_ms);
            let mean = meters.each().last().and_then(|meter| meter.mean()).unwrap_or(0.0);
            kept += mean * in_force(share, at_least, at_most, meters).probability();
            matched += mean;
        }
        let keeps_nothing = at_most.is_some_and(Rate::is_zero);
        match matched > 0.0 {
            true => kept / matched,
            false if keeps_nothing => 0.0,
            false => share.probability(),
        }
    }

    /// Gives a new key a place of its own, if there is one, or if what is idle leaves one.
    fn open(&mut self, key: u64, now_ms: u64) {
        if self.keys.len() >= KEYS_MAX && now_ms >= self.swept_ms.saturating_add(SWEEP_EVERY_MS) {
            self.swept_ms = now_ms;
            self.keys.retain(|_, meters| {
                meters.turn_to(now_ms);
                meters.each().any(|meter| !meter.is_idle())
            });
        }
        if self.keys.len() < KEYS_MAX {
            self.keys.insert(key, self.meters());
        }
    }
}

/// p as a threshold. Without a bound that binds it is the exact one of the share.
fn in_force(share: Share, at_least: Option<Rate>, at_most: Option<Rate>, meters: &Meters) -> Threshold {
    let mut kept = share;
    if let (Some(bound), Some(mean)) = (at_least, meters.at_least.as_ref().and_then(|meter| meter.mean())) {
        kept = kept.max(Share::nearest(bound.per_second() / mean));
    }
    if let Some(bound) = at_most {
        if bound.is_zero() {
            return Threshold::NEVER;
        }
        if let Some(rate) = meters.at_most.as_ref().and_then(|meter| meter.rate(bound)) {
            kept = kept.min(Share::nearest(bound.per_second() / rate));
        }
    }
    Threshold::of(kept)
}

#[cfg(test)]
mod tests;
