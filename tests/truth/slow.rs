//! At most a twentieth of what feeds a sketch is slow, under any law of durations, and again after a shift.

use std::collections::HashMap;

use crate::traffic::{Plan, SERVICES, Truth, is_constant, is_shifted, operation_of};
use crate::world::{Kept, SECOND_0};

/// Operations with more are judged by a sketch of their own in the long run.
const RARE: u64 = 1_000;

/// Judged and slow.
#[derive(Clone, Copy, Debug, Default)]
struct Slow {
    judged: f64,
    slow: f64,
}

impl Slow {
    fn assert(self, what: &str) {
        let Self { judged, slow } = self;
        let deviation = (0.05 * 0.95 / judged).sqrt();
        let allowed = if judged >= 20_000.0 { 0.055 } else { 0.05 + 3.0 * deviation };
        assert!(slow / judged <= allowed, "{what}: {slow} of {judged} are slow");
    }

    fn share(self) -> f64 {
        self.slow / self.judged
    }
}

pub fn assert(plan: &Plan, kept: &HashMap<[u8; 16], Kept>, truth: &Truth) {
    let settled_ms = plan.settled_ms().unwrap();
    let slow: Vec<(u64, u64)> = kept
        .values()
        .filter(|trace| trace.policy == "slow")
        .filter_map(|trace| trace.root.as_ref())
        .map(|(name, start)| (operation_of(name), start / 1_000_000 - SECOND_0 * 1_000))
        .collect();
    let shift_ms = plan.shift_second.unwrap() * 1_000;
    let mut others: HashMap<u64, Slow> = HashMap::new();
    let (mut all, mut settled) = (Slow::default(), Slow::default());
    for (operation, judged) in &truth.arrived {
        let of_operation = |from_ms, to_ms| {
            let here = |(of, at_ms): &&(u64, u64)| of == operation && (from_ms..to_ms).contains(at_ms);
            slow.iter().filter(here).count() as f64
        };
        if *judged < RARE {
            let other = others.entry(operation % SERVICES).or_default();
            other.judged += *judged as f64;
            other.slow += of_operation(0, u64::MAX);
            continue;
        }
        let whole = Slow { judged: *judged as f64, slow: of_operation(0, u64::MAX) };
        let after =
            Slow { judged: truth.settled[operation] as f64, slow: of_operation(settled_ms, u64::MAX) };
        after.assert(&format!("operation {operation} after the shift"));
        settled.judged += after.judged;
        settled.slow += after.slow;
        if is_shifted(*operation) {
            // The shift itself is slow; before it and after two windows is steady traffic.
            let before = Slow { judged: whole.judged / 2.0, slow: of_operation(0, shift_ms) };
            before.assert(&format!("operation {operation} before the shift"));
        } else {
            whole.assert(&format!("operation {operation}"));
            assert!(!is_constant(*operation) || whole.slow == 0.0, "operation {operation} is constant");
            all.judged += whole.judged;
            all.slow += whole.slow;
        }
    }
    for (service, other) in &others {
        if !is_shifted(*service) {
            other.assert(&format!("rare operations of service {service}"));
        }
    }
    assert!(all.share() > 0.02, "something is slow: {all:?}");
    println!(
        "slow: {:.2} % of steady operations, {:.2} % after the shift",
        100.0 * all.share(),
        100.0 * settled.share()
    );
}
