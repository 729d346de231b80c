//! Identifiers that are not random are told, and a keyed hash makes shares and weights true again.

use std::collections::HashMap;

use crate::traffic::Plan;
use crate::world::{Estimate, Kept, World};

const POLICIES: &str = "policies: [{ name: rest, keep: 10% }]";

fn plan(counting: bool) -> Plan {
    Plan {
        seed: 3,
        seconds: 60,
        traces_per_second: 200,
        operations: vec![(100, 20)],
        shift_second: None,
        orderly_restart_second: None,
        kill_second: None,
        late_one_in: Some(20),
        counting,
    }
}

/// What is kept, how many standard deviations off its weights are, and the alert.
fn run(policies: &str, counting: bool) -> (HashMap<[u8; 16], Kept>, f64, f64) {
    let mut world = World::new(policies, 1);
    let truth = plan(counting).run(&mut world);
    let alert = world.metric("tailwater_sampler_randomness_skewed");
    let kept = world.drain();
    let mut traces = Estimate::default();
    for trace in kept.values() {
        traces.add(trace.weight, trace.root_weight);
    }
    (kept, traces.off(truth.traces as f64), alert)
}

#[test]
fn random_identifiers_raise_no_alert_though_some_senders_sample_by_them() {
    let (_, off, alert) = run(POLICIES, false);
    assert!(off.abs() <= 3.0 && alert == 0.0, "{off} off, alert {alert}");
}

#[test]
fn identifiers_that_count_up_raise_an_alert_that_a_hash_ends() {
    let (kept, _, alert) = run(POLICIES, true);
    assert_eq!((kept.len(), alert), (0, 1.0), "their low bits lie below any threshold");
    let (kept, off, alert) = run(&format!("randomness: hash\n{POLICIES}"), true);
    assert!(kept.len() > 1_000 && off.abs() <= 3.0 && alert == 0.0, "{off} off, alert {alert}");
}

#[test]
fn hashed_weights_multiply_with_those_of_senders_that_have_sampled() {
    let (kept, off, _) = run(&format!("randomness: hash\n{POLICIES}"), false);
    assert!(kept.values().any(|trace| trace.root_weight > 19.0), "none of a sender that samples by half");
    assert!(off.abs() <= 3.0, "{off} off");
}
