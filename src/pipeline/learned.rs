//! What was learned from the traffic, as the state file has it: durations of operations, and budgets.

use super::engine::Engine;
use super::state::Saved;
use crate::proto;
use crate::sampler::slow::{Percentile, SketchSnapshot, SlowSnapshot, WindowSnapshot};
use crate::sampler::{BudgetSnapshot, KeySnapshot, MeterSnapshot};
use crate::trace::TenantId;

/// Takes up what the last life has learned, as far as this one's policies ask for it. Its tenants are known.
pub(super) fn take_up(engine: &Engine, saved: &Saved) {
    engine.slow.restore(&saved.slow(|tenant| engine.tenant(tenant).ok()));
    let budgets: Vec<_> = saved.budgets.iter().map(budget_from_proto).collect();
    engine.policies.load().policies.restore_budgets(&budgets, engine.clock.elapsed_ms());
}

pub(super) fn budgets(engine: &Engine) -> Vec<proto::Budget> {
    let budgets = engine.policies.load().policies.budgets(engine.clock.elapsed_ms());
    budgets.into_iter().map(budget_to_proto).collect()
}

fn budget_to_proto(budget: BudgetSnapshot) -> proto::Budget {
    let meter = |meter: MeterSnapshot| proto::Meter {
        first_ms: meter.first_ms,
        now_ms: meter.now_ms,
        by_second: meter.by_second,
        this_minute: meter.this_minute,
        last_minute: meter.last_minute,
    };
    let key = |key: KeySnapshot| proto::BudgetKey {
        key: key.key,
        at_least: key.at_least.map(meter),
        at_most: key.at_most.map(meter),
    };
    proto::Budget {
        policy: budget.policy,
        formula: budget.formula,
        hash_seed: budget.hash_seed,
        at_ms: budget.at_ms,
        keys: budget.keys.into_iter().map(key).collect(),
        rest: Some(key(budget.rest)),
    }
}

fn budget_from_proto(budget: &proto::Budget) -> BudgetSnapshot {
    let meter = |meter: &proto::Meter| MeterSnapshot {
        first_ms: meter.first_ms,
        now_ms: meter.now_ms,
        by_second: meter.by_second.clone(),
        this_minute: meter.this_minute,
        last_minute: meter.last_minute,
    };
    let key = |key: &proto::BudgetKey| KeySnapshot {
        key: key.key,
        at_least: key.at_least.as_ref().map(meter),
        at_most: key.at_most.as_ref().map(meter),
    };
    BudgetSnapshot {
        policy: budget.policy.clone(),
        formula: budget.formula.clone(),
        hash_seed: budget.hash_seed,
        at_ms: budget.at_ms,
        keys: budget.keys.iter().map(key).collect(),
        rest: budget.rest.as_ref().map(key).unwrap_or_default(),
    }
}

impl Saved {
    /// What was learned, with tenants numbered as in this process.
    pub(super) fn slow(&self, tenant: impl Fn(&str) -> Option<TenantId>) -> SlowSnapshot {
        let sketches = self.learned.iter().filter_map(|sketch| {
            let name = self.tenants.get(sketch.tenant as usize)?;
            Some(sketch_from_proto(sketch, tenant(name)?))
        });
        SlowSnapshot { published_ms: self.published_ms, sketches: sketches.collect() }
    }
}

pub(super) fn sketch_to_proto(sketch: &SketchSnapshot, tenant: u32) -> proto::Sketch {
    let window = |window: &WindowSnapshot| proto::Window {
        buckets: window.buckets.iter().map(|(bucket, _)| u32::from(*bucket)).collect(),
        counts: window.buckets.iter().map(|(_, count)| *count).collect(),
    };
    let thresholds = sketch.thresholds.iter().map(|(percentile, duration_ns)| proto::SlowThreshold {
        percentile: percentile.thousandths(),
        duration_ns: *duration_ns,
    });
    proto::Sketch {
        tenant,
        service: sketch.service.clone(),
        name: sketch.name.clone(),
        window: sketch.window,
        current: Some(window(&sketch.current)),
        previous: Some(window(&sketch.previous)),
        grown: sketch.grown,
        thresholds: thresholds.collect(),
    }
}

fn sketch_from_proto(sketch: &proto::Sketch, tenant: TenantId) -> SketchSnapshot {
    let window = |window: &Option<proto::Window>| {
        let window = window.clone().unwrap_or_default();
        let buckets = window.buckets.into_iter().filter_map(|bucket| u16::try_from(bucket).ok());
        WindowSnapshot { buckets: buckets.zip(window.counts).collect() }
    };
    let thresholds = sketch.thresholds.iter().filter_map(|threshold| {
        Some((Percentile::from_thousandths(threshold.percentile)?, threshold.duration_ns))
    });
    SketchSnapshot {
        tenant,
        service: sketch.service.clone(),
        name: sketch.name.clone(),
        window: sketch.window,
        current: window(&sketch.current),
        previous: window(&sketch.previous),
        grown: sketch.grown,
        thresholds: thresholds.collect(),
    }
}
