use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

const TENANT: TenantId = TenantId(0);
/// A moment at which a window begins.
const START_MS: u64 = 5_000 * WINDOW_MS;

fn p95() -> Percentile {
    Percentile::from_thousandths(95_000).unwrap()
}

fn observe(slow: &Slow, key: OperationKey<'_>, duration_ns: u64, now_ms: u64) -> Learned {
    slow.observe(slow.operation(key), &|| Some(key.into()), duration_ns, now_ms)
}

fn operation<'a>(service: &'a str, name: &'a str) -> OperationKey<'a> {
    OperationKey { tenant: TENANT, service, name }
}

fn millis(millis: f64) -> u64 {
    (millis * 1e6) as u64
}

fn normal(rng: &mut StdRng) -> f64 {
    let (a, b): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
    (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
}

/// Lets `count` units come evenly over eight minutes; returns how many were slow.
fn run(slow: &Slow, operation: OperationKey<'_>, count: u64, mut next: impl FnMut() -> u64) -> u64 {
    let mut found = 0;
    for unit in 0..count {
        let now_ms = START_MS + unit * 480_000 / count;
        slow.publish(now_ms);
        let duration = next();
        observe(slow, operation, duration, now_ms);
        found += u64::from(slow.is_slow(slow.operation(operation), p95(), duration));
    }
    slow.publish(START_MS + 480_000 + PUBLISH_EVERY_MS);
    found
}

fn true_p95(mut values: Vec<u64>) -> f64 {
    values.sort_unstable();
    values[values.len() * 95 / 100 - 1] as f64
}

/// At most 5.5 % are slow, and the threshold lies within 2 % of the true p95.
fn check(name: &str, mut next: impl FnMut() -> u64) {
    let slow = Slow::new(&[p95()]);
    let operation = operation("shop", name);
    let mut seen = Vec::new();
    let found = run(&slow, operation, 20_000, || {
        let value = next();
        seen.push(value);
        value
    });
    assert!(found <= 1_100, "{name}: {found} of 20000 slow");
    let threshold = slow.threshold(slow.operation(operation), p95()).unwrap();
    let expected = true_p95(seen);
    assert!((threshold as f64 / expected - 1.0).abs() <= 0.02, "{name}: {threshold} is not {expected}");
    assert!(slow.is_slow(slow.operation(operation), p95(), threshold + 1 + threshold / 50));
    assert!(!slow.is_slow(slow.operation(operation), p95(), threshold));
}

#[test]
fn at_most_a_twentieth_is_slow_under_lognormal_durations() {
    let mut rng = StdRng::seed_from_u64(1);
    check("lognormal", || millis(50.0 * normal(&mut rng).exp()));
}

#[test]
fn at_most_a_twentieth_is_slow_under_bimodal_durations() {
    let mut rng = StdRng::seed_from_u64(2);
    check("bimodal", || {
        let mode = if rng.random_bool(0.8) { 5.0 } else { 400.0 };
        millis(mode * (1.0 + 0.1 * normal(&mut rng)).max(0.01))
    });
}

#[test]
fn at_most_a_twentieth_is_slow_under_heavy_tails() {
    let mut rng = StdRng::seed_from_u64(3);
    check("pareto", || millis(2.0 / (1.0 - rng.random::<f64>()).powf(1.0 / 1.2)));
}

#[test]
fn an_operation_that_always_takes_the_same_time_has_no_slow_units() {
    let slow = Slow::new(&[p95()]);
    assert_eq!(run(&slow, operation("clock", "tick"), 20_000, || millis(20.0)), 0);
}

#[test]
fn below_two_hundred_observations_nothing_is_slow() {
    let slow = Slow::new(&[p95()]);
    run(&slow, operation("fresh", "hello"), 199, || millis(10.0));
    assert!(!slow.is_slow(slow.operation(operation("fresh", "hello")), p95(), millis(30_000.0)));
}

#[test]
fn a_rare_operation_is_compared_with_the_others_of_its_service() {
    let slow = Slow::new(&[p95()]);
    run(&slow, operation("shop", "nightly"), 1_000, || millis(10_000.0));
    for name in ["a", "b", "c", "d"] {
        run(&slow, operation("shop", name), 120, || millis(100.0));
    }
    assert!(slow.is_slow(slow.operation(operation("shop", "new")), p95(), millis(30_000.0)));
    assert!(!slow.is_slow(slow.operation(operation("other shop", "new")), p95(), millis(30_000.0)));
    assert!(!slow.is_slow(
        slow.operation(OperationKey { tenant: TenantId(1), ..operation("shop", "new") }),
        p95(),
        u64::MAX
    ));
}

#[test]
fn only_operations_without_a_threshold_feed_the_others() {
    let slow = Slow::new(&[p95()]);
    run(&slow, operation("shop", "big"), 1_000, || millis(10_000.0));
    let before = others(&slow, "shop");
    assert!((200..=230).contains(&before), "{before}");
    observe(&slow, operation("shop", "big"), 1, START_MS + 490_000);
    assert_eq!(others(&slow, "shop"), before);
    observe(&slow, operation("shop", "small"), 1, START_MS + 490_000);
    assert_eq!(others(&slow, "shop"), before + 1);
}

fn others(slow: &Slow, service: &str) -> u64 {
    let known = slow.known().into_iter().find(|known| known.service == service && known.name.is_none());
    known.map_or(0, |known| known.observations)
}

#[test]
fn operations_and_services_beyond_their_bounds_share() {
    let slow = Slow::new(&[p95()]);
    for n in 0..OPERATIONS_MAX + 50 {
        observe(&slow, operation("shop", &format!("op {n}")), millis(5.0), START_MS);
    }
    let known = slow.known();
    assert_eq!(known.iter().filter(|known| known.name.is_some()).count(), OPERATIONS_MAX);
    assert_eq!(others(&slow, "shop"), OPERATIONS_MAX as u64 + 50);
    for n in 0..SERVICES_MAX + 300 {
        observe(&slow, operation(&format!("service {n}"), "op"), millis(5.0), START_MS);
    }
    let services = slow.known().into_iter().filter(|known| known.name.is_none()).count();
    assert_eq!(services, SERVICES_MAX + 1);
    assert_eq!(others(&slow, REST.1), 301);
    slow.publish(START_MS + PUBLISH_EVERY_MS);
    assert!(slow.is_slow(slow.operation(operation("service 1200", "op")), p95(), millis(50.0)));
}

#[test]
fn idle_operations_leave_after_two_windows() {
    let slow = Slow::new(&[p95()]);
    observe(&slow, operation("shop", "once"), millis(5.0), START_MS);
    slow.publish(START_MS + WINDOW_MS);
    assert_eq!(slow.known().len(), 2);
    slow.publish(START_MS + 2 * WINDOW_MS);
    assert_eq!(slow.known().len(), 0);
    assert_eq!(slow.operations.load(Ordering::Relaxed) + slow.services.load(Ordering::Relaxed), 0);
}

#[test]
fn after_a_shift_at_most_a_twentieth_is_slow_again_after_two_windows() {
    let slow = Slow::new(&[p95()]);
    let operation = operation("shop", "cart");
    let mut rng = StdRng::seed_from_u64(4);
    let mut late = 0;
    for unit in 0..60_000_u64 {
        let now_ms = START_MS + unit * 30;
        slow.publish(now_ms);
        let shifted = unit >= 20_000;
        let duration = millis(if shifted { 500.0 } else { 50.0 } * (0.2 * normal(&mut rng)).exp());
        observe(&slow, operation, duration, now_ms);
        late += u64::from(unit >= 40_000 && slow.is_slow(slow.operation(operation), p95(), duration));
    }
    assert!(late <= 1_100, "{late} of 20000 slow");
}

#[test]
fn a_corrected_observation_moves_in_both_sketches_that_learned_it() {
    let slow = Slow::new(&[p95()]);
    let mut learned: Vec<_> =
        (0..250).map(|_| observe(&slow, operation("shop", "cart"), millis(5.0), START_MS)).collect();
    for learned in &mut learned[..20] {
        *learned = slow.correct(*learned, millis(800.0));
    }
    slow.publish(START_MS + PUBLISH_EVERY_MS);
    let threshold = slow.threshold(slow.operation(operation("shop", "cart")), p95()).unwrap();
    assert!(threshold >= millis(800.0), "{threshold}");
    let other = slow.threshold(slow.operation(operation("shop", "new")), p95()).unwrap();
    assert_eq!(other, threshold);
    assert_eq!(slow.known().iter().map(|known| known.observations).sum::<u64>(), 500);
}

#[test]
fn a_snapshot_restores_thresholds_and_counts() {
    let slow = Slow::new(&[p95()]);
    let mut rng = StdRng::seed_from_u64(5);
    run(&slow, operation("shop", "cart"), 1_000, || millis(50.0 * normal(&mut rng).exp()));
    observe(&slow, operation("shop", "rare"), millis(1.0), START_MS + 490_000);
    let restored = Slow::new(&[p95()]);
    restored.restore(&slow.snapshot());
    let sorted = |slow: &Slow| {
        let mut known = slow.known();
        known.sort_by_key(|known| (known.service.clone(), known.name.clone()));
        known
    };
    assert_eq!(sorted(&restored), sorted(&slow));
    assert_eq!(
        restored.threshold(restored.operation(operation("shop", "cart")), p95()),
        slow.threshold(slow.operation(operation("shop", "cart")), p95())
    );
    assert!(!restored.publish(START_MS + 490_001));
}

#[test]
fn other_percentiles_are_published_as_soon_as_they_are_asked_for() {
    let slow = Slow::new(&[p95()]);
    let mut value = 0;
    run(&slow, operation("shop", "cart"), 1_000, || {
        value += 1;
        millis(f64::from(value))
    });
    let p50 = Percentile::from_thousandths(50_000).unwrap();
    assert_eq!(slow.threshold(slow.operation(operation("shop", "cart")), p50), None);
    slow.set_percentiles(&[p95(), p50]);
    let median = slow.threshold(slow.operation(operation("shop", "cart")), p50).unwrap();
    assert!((median as f64 / millis(500.0) as f64 - 1.0).abs() < 0.01, "{median}");
}
