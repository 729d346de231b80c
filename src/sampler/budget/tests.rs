use super::*;
use crate::trace::Randomness;

const MINUTE_MS: u64 = 60_000;
/// A clock that has run for a while.
const BEGIN_MS: u64 = 10 * MINUTE_MS;

fn budget(keep: &str) -> Budget {
    match serde_saphyr::from_str(keep).unwrap() {
        crate::sampler::Keep::Formula(formula) => Budget::new(&formula),
        crate::sampler::Keep::Share(_) => panic!("{keep} is a share"),
    }
}

/// SplitMix64.
fn random(n: u64) -> Randomness {
    let mut mixed = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    Randomness((mixed ^ mixed >> 31) >> 8)
}

#[derive(Debug, Default)]
struct Outcome {
    kept: f64,
    weights: f64,
    last: Threshold,
}

/// One unit of 3 spans and 1,000 bytes every `every_ms`.
fn run(budget: &mut Budget, key: u64, from_ms: u64, to_ms: u64, every_ms: u64) -> Outcome {
    let mut outcome = Outcome::default();
    for at_ms in (from_ms..to_ms).step_by(every_ms as usize) {
        let threshold = draw(budget, key, at_ms);
        if threshold.keeps(random(at_ms ^ key << 40)) {
            outcome.kept += 1.0;
            outcome.weights += threshold.weight();
        }
        outcome.last = threshold;
    }
    outcome
}

fn draw(budget: &mut Budget, key: u64, at_ms: u64) -> Threshold {
    budget.draw(key, at_ms, |measure| match measure {
        Measure::Traces => 1,
        Measure::Spans => 3,
        Measure::Bytes => 1_000,
    })
}

#[test]
fn before_there_is_a_rate_nothing_is_bound() {
    let half = Threshold::of("50%".parse().unwrap());
    for keep in ["{ share: 50%, at_most: 0.001/s }", "{ share: 50%, at_least: 1000/s }"] {
        assert_eq!(draw(&mut budget(keep), 0, BEGIN_MS), half, "{keep}");
    }
    assert_eq!(draw(&mut budget("0/s"), 0, BEGIN_MS), Threshold::NEVER);
}

#[test]
fn in_steady_traffic_a_ceiling_is_met_and_the_weights_are_true() {
    for (keep, p) in [("10/s", 0.1), ("30 spans/s", 0.1), ("600/min", 0.1), ("20kB/s", 0.2)] {
        let mut budget = budget(keep);
        run(&mut budget, 0, BEGIN_MS, BEGIN_MS + 2 * MINUTE_MS, 10);
        let steady = run(&mut budget, 0, BEGIN_MS + 2 * MINUTE_MS, BEGIN_MS + 12 * MINUTE_MS, 10);
        assert!((steady.last.probability() - p).abs() < p * 0.02, "{keep}: {}", steady.last.probability());
        assert!((steady.kept / 60_000.0 - p).abs() < p * 0.04, "{keep}: {} of 60,000", steady.kept);
        let deviation = steady.kept.sqrt() / p;
        assert!((steady.weights - 60_000.0).abs() < 3.0 * deviation, "{keep}: {}", steady.weights);
    }
}

#[test]
fn below_its_ceiling_the_exact_share_holds() {
    let mut budget = budget("{ share: 5%, at_most: 100/s }");
    let quiet = run(&mut budget, 0, BEGIN_MS, BEGIN_MS + MINUTE_MS, 100);
    assert_eq!(quiet.last, Threshold::of("5%".parse().unwrap()));
}

#[test]
fn a_floor_raises_the_share_of_what_is_rare() {
    let mut budget = budget("{ share: 1%, at_least: 1/min }");
    let rare = run(&mut budget, 1, BEGIN_MS, BEGIN_MS + 30 * MINUTE_MS, 90_000);
    assert_eq!(rare.last, Threshold::ALWAYS, "less than one a minute is kept whole");
    let busy = run(&mut budget, 2, BEGIN_MS, BEGIN_MS + 3 * MINUTE_MS, 10);
    assert_eq!(busy.last, Threshold::of("1%".parse().unwrap()), "100/s need no floor");
    let between = run(&mut budget, 3, BEGIN_MS, BEGIN_MS + 3 * MINUTE_MS, 1_000);
    assert!((between.last.probability() - 1.0 / 60.0).abs() < 1e-3, "{:?}", between.last.probability());
}

#[test]
fn the_ceiling_wins_over_the_floor() {
    let mut budget = budget("{ share: 1%, at_least: 50/s, at_most: 10/s }");
    let outcome = run(&mut budget, 0, BEGIN_MS, BEGIN_MS + 3 * MINUTE_MS, 10);
    assert!((outcome.last.probability() - 0.1).abs() < 0.002, "{}", outcome.last.probability());
}

#[test]
fn a_burst_is_kept_below_the_ceiling_of_its_second() {
    let mut budget = budget("100/s");
    run(&mut budget, 0, BEGIN_MS, BEGIN_MS + 2 * MINUTE_MS, 100);
    let burst_ms = BEGIN_MS + 2 * MINUTE_MS;
    let kept = (0..100_000).filter(|n| draw(&mut budget, 0, burst_ms).keeps(random(*n))).count();
    // 100 while there is room, then 100/n of number n.
    assert!(kept < 1_000, "{kept} of 100,000 in one second");
    let after = run(&mut budget, 0, burst_ms + 1_000, burst_ms + 2_000, 1);
    assert!(after.kept < 10.0, "the second after the burst knows of it: {}", after.kept);
}

#[test]
fn each_key_has_a_budget_of_its_own() {
    let mut budget = budget("{ at_most: 5/s, per: [name] }");
    run(&mut budget, 1, BEGIN_MS, BEGIN_MS + MINUTE_MS, 10);
    let quiet = run(&mut budget, 2, BEGIN_MS + MINUTE_MS, BEGIN_MS + 2 * MINUTE_MS, 500);
    assert_eq!((quiet.kept, quiet.last), (120.0, Threshold::ALWAYS));
    assert_eq!(budget.keys(), 2);
}

#[test]
fn beyond_the_bound_keys_share_one_budget_until_others_are_idle() {
    let mut budget = budget("{ at_most: 5/s, per: [name] }");
    for key in 0..2 * KEYS_MAX as u64 {
        draw(&mut budget, key, BEGIN_MS);
    }
    assert_eq!(budget.keys(), KEYS_MAX);
    let shared = draw(&mut budget, 3 * KEYS_MAX as u64, BEGIN_MS + 1);
    assert!(shared.probability() < 0.01, "{}", shared.probability());
    assert_eq!(draw(&mut budget, 0, BEGIN_MS + 1), Threshold::ALWAYS);
    // All but one have been idle for two minutes.
    run(&mut budget, 0, BEGIN_MS, BEGIN_MS + 3 * MINUTE_MS, 1_000);
    assert_eq!(draw(&mut budget, 5_000, BEGIN_MS + 3 * MINUTE_MS), Threshold::ALWAYS);
    assert_eq!(budget.keys(), 2);
}

#[test]
fn the_probability_shown_is_that_of_all_that_matches() {
    let mut budget = budget("{ at_most: 5/s, per: [name] }");
    assert_eq!(budget.probability(0), 1.0);
    run(&mut budget, 1, BEGIN_MS, BEGIN_MS + 2 * MINUTE_MS, 10);
    run(&mut budget, 2, BEGIN_MS, BEGIN_MS + 2 * MINUTE_MS, 500);
    let shown = budget.probability(BEGIN_MS + 2 * MINUTE_MS);
    assert!((shown - 7.0 / 102.0).abs() < 0.003, "{shown}");
    assert_eq!(super::Budget::probability(&mut self::budget("0/s"), 0), 0.0);
}

#[test]
fn a_budget_goes_on_from_its_snapshot_with_the_share_it_had_whatever_the_new_clock_says() {
    for keep in [
        "10/s",
        "600/min",
        "{ share: 1%, at_least: 100/min, per: [name] }",
        "{ share: 1%, at_least: 1/min, at_most: 5/s }",
    ] {
        let mut lived = budget(keep);
        run(&mut lived, 1, BEGIN_MS, BEGIN_MS + 3 * MINUTE_MS, 10);
        let end_ms = BEGIN_MS + 3 * MINUTE_MS;
        let saved = lived.snapshot(end_ms);
        let shown = lived.probability(end_ms);
        let expected = run(&mut lived, 1, end_ms, end_ms + MINUTE_MS, 10).last;
        // The clock of a process begins at 0, another one has run for hours.
        for now_ms in [0, 50 * BEGIN_MS] {
            let mut goes_on = budget(keep);
            goes_on.restore(&saved, now_ms);
            assert_eq!(goes_on.snapshot(now_ms), saved, "{keep}");
            assert_eq!(goes_on.probability(now_ms), shown, "{keep}");
            let next = run(&mut goes_on, 1, now_ms, now_ms + MINUTE_MS, 10);
            assert_eq!(next.last, expected, "{keep}");
        }
    }
}

#[test]
fn what_is_no_measure_begins_anew() {
    let mut lived = budget("10/s");
    run(&mut lived, 1, BEGIN_MS, BEGIN_MS + MINUTE_MS, 10);
    let mut saved = lived.snapshot(BEGIN_MS + MINUTE_MS);
    saved.keys[0].at_most.as_mut().unwrap().by_second.pop();
    let mut goes_on = budget("10/s");
    goes_on.restore(&saved, 0);
    assert_eq!(draw(&mut goes_on, 1, 0), Threshold::ALWAYS);
    let mut without = budget("{ share: 50%, at_least: 1/s }");
    without.restore(&saved, 0);
    assert_eq!(draw(&mut without, 1, 0), Threshold::of("50%".parse().unwrap()));
}
