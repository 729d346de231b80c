//! Sums of weights estimate counts of all traffic, of each operation and of errors, through late spans, upgrades,
//! budgets, head samplers and two restarts; nothing that is not slow for its operation is kept as slow.

use std::collections::HashMap;

use crate::traffic::{Plan, Truth, operation_of};
use crate::world::{Estimate, Kept, World};
use crate::{is_full, slow};

/// Busy, middling and rare operations: 5,000.
const OPERATIONS: [(u64, u64); 3] = [(45, 10), (35, 30), (20, 4_960)];
const BUSY: u64 = 40;

fn plan() -> Plan {
    Plan {
        seed: 5,
        seconds: 1_800,
        traces_per_second: if is_full() { 556 } else { 60 },
        operations: OPERATIONS.to_vec(),
        shift_second: Some(900),
        orderly_restart_second: Some(600),
        kill_second: Some(1_250),
        late_one_in: Some(20),
        counting: false,
    }
}

/// Budgets bind: errors are kept by half, three busy operations by far less than their share.
fn policies(traces_per_second: u64) -> String {
    let errors = traces_per_second as f64 * 0.015;
    let each = traces_per_second as f64 * 0.005;
    format!(
        r#"policies:
  - {{ name: trial, match: "{{ status = error }}", keep: 10%, shadow: true }}
  - {{ name: errors, match: "{{ status = error }}", keep: {errors:.3} spans/s }}
  - {{ name: slow, slower_than: p95, keep: 100% }}
  - {{ name: busy, match: "{{ rootName =~ `op-000[0-2]` }}", keep: {{ share: 50%, at_least: 1/min, at_most: {each:.3}/s, per: [resource.service.name, name] }} }}
  - {{ name: rest, keep: 6% }}
"#
    )
}

#[test]
fn sums_of_weights_are_true_and_what_is_slow_is_slow() {
    let plan = plan();
    let mut world = World::new(&policies(plan.traces_per_second), 1);
    let truth = plan.run(&mut world);
    let kept = world.drain();
    println!("{} of {} traces kept", kept.len(), truth.traces);
    by_policy(&kept);
    late_spans_weigh_what_the_others_do(&kept);
    all_traffic(&kept, &truth);
    each_operation(&kept, &truth);
    errors(&kept, &truth);
    slow::assert(&plan, &kept, &truth);
}

fn by_policy(kept: &HashMap<[u8; 16], Kept>) {
    let mut policies: HashMap<(&str, bool), (u64, f64)> = HashMap::new();
    for trace in kept.values() {
        let row = policies.entry((&trace.policy, trace.upgraded)).or_default();
        row.0 += 1;
        row.1 += trace.root_weight;
    }
    println!("(policy, upgraded): traces and weight {policies:?}");
    let of = |policy| policies.get(&(policy, false)).copied().unwrap_or_default();
    for policy in ["errors", "busy", "rest"] {
        let (traces, weight) = of(policy);
        assert!(weight > 1.2 * traces as f64, "{policy} binds nothing: {traces} of {weight}");
    }
    assert!(policies.contains_key(&("errors", true)), "no late error brought a trace back");
}

/// Also when the p of a budget has changed meanwhile, and through restarts.
fn late_spans_weigh_what_the_others_do(kept: &HashMap<[u8; 16], Kept>) {
    let mut late = 0;
    for trace in kept.values().filter(|trace| !trace.upgraded && trace.root.is_some()) {
        let spans = trace.spans / trace.root_weight;
        assert!((spans - spans.round()).abs() < 1e-9, "{trace:?}");
        late += u64::from(spans.round() as u64 == 3);
    }
    assert!(late as f64 > 0.04 * kept.len() as f64, "{late} traces of three spans");
}

/// Within three standard deviations, which are about 1 % at 100,000 kept traces.
fn all_traffic(kept: &HashMap<[u8; 16], Kept>, truth: &Truth) {
    let (mut traces, mut spans) = (Estimate::default(), Estimate::default());
    for trace in kept.values() {
        traces.add(trace.weight, trace.root_weight);
        spans.add(trace.weight, trace.spans);
    }
    for (what, estimate, truth) in [("traces", traces, truth.traces), ("spans", spans, truth.spans)] {
        told(what, &estimate, truth);
        assert!(estimate.off(truth as f64).abs() <= 3.0, "{what}");
        let at_100_000 = estimate.variance.sqrt() / truth as f64 * (kept.len() as f64 / 1e5).sqrt();
        assert!(at_100_000 <= 0.01, "{what}: {at_100_000}");
    }
}

fn told(what: &str, estimate: &Estimate, truth: u64) {
    println!(
        "{what}: {:.0} of {truth}, {:+.2} standard deviations of {:.3} %",
        estimate.sum,
        estimate.off(truth as f64),
        100.0 * estimate.variance.sqrt() / truth as f64
    );
}

/// Each busy operation for itself, and of the rare ones as many as chance allows.
fn each_operation(kept: &HashMap<[u8; 16], Kept>, truth: &Truth) {
    let mut estimates: HashMap<u64, Estimate> = HashMap::new();
    for trace in kept.values() {
        // A late span of a trace that a restart has forgotten leaves without its root.
        let Some((name, _)) = &trace.root else { continue };
        estimates.entry(operation_of(name)).or_default().add(trace.weight, trace.root_weight);
    }
    let mut rare = Estimate::default();
    let mut worst = 0.0_f64;
    for (operation, estimate) in estimates {
        if operation < BUSY {
            let off = estimate.off(truth.traces_by_operation[&operation] as f64);
            worst = worst.max(off.abs());
            assert!(off.abs() <= 3.0, "operation {operation}: {estimate:?}, {off} off");
        } else {
            rare.sum += estimate.sum;
            rare.variance += estimate.variance;
        }
    }
    let of_rare = truth.traces_by_operation.iter().filter(|(operation, _)| **operation >= BUSY);
    let of_rare: u64 = of_rare.map(|(_, traces)| traces).sum();
    println!("the worst of {BUSY} operations: {worst:.2} standard deviations");
    told("traces of rare operations", &rare, of_rare);
    assert!(rare.off(of_rare as f64).abs() <= 3.0);
}

/// Spans that failed, late ones included.
fn errors(kept: &HashMap<[u8; 16], Kept>, truth: &Truth) {
    let mut failed = Estimate::default();
    for trace in kept.values() {
        failed.add(trace.weight, trace.failed);
    }
    told("failed spans", &failed, truth.failed_spans);
    assert!(failed.off(truth.failed_spans as f64).abs() <= 3.0);
}
