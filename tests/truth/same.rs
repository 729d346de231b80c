//! Pure shares give one verdict: on two instances, after restarts, and from the log alone.

use std::collections::BTreeMap;

use crate::traffic::Plan;
use crate::world::World;

const POLICIES: &str = r#"policies:
  - { name: errors, match: "{ status = error }", keep: 37% }
  - { name: busy, match: "{ rootName = `op-0000` }", keep: 0.5% }
  - { name: rest, keep: 5% }
"#;

/// Traces that are kept, by which policy, and with which weight.
fn verdicts(policies: &str, seed: u64, restarts: bool) -> BTreeMap<[u8; 16], (String, u64)> {
    let plan = Plan {
        seed: 7,
        seconds: 200,
        traces_per_second: 100,
        operations: vec![(50, 1), (50, 200)],
        shift_second: None,
        orderly_restart_second: restarts.then_some(70),
        kill_second: restarts.then_some(141),
        // What was dropped is forgotten by a restart: a late span is then alone.
        late_one_in: None,
        counting: false,
    };
    let mut world = World::new(policies, seed);
    plan.run(&mut world);
    let kept = world.drain().into_iter();
    kept.map(|(trace, kept)| (trace, (kept.policy, kept.root_weight.to_bits()))).collect()
}

#[test]
fn pure_shares_give_the_same_verdict_on_two_instances_and_through_restarts() {
    let one = verdicts(POLICIES, 1, false);
    assert!(one.len() > 500, "{}", one.len());
    assert!(one == verdicts(POLICIES, 2, false), "two instances differ");
    assert!(one == verdicts(POLICIES, 3, true), "a restart differs");
}

#[test]
fn a_replay_of_the_log_gives_the_same_verdict() {
    let run = |kill: bool| {
        let plan = Plan {
            seed: 11,
            seconds: 8,
            traces_per_second: 1_000,
            operations: vec![(100, 100)],
            shift_second: None,
            orderly_restart_second: None,
            // Before anything was due: all is judged from the log that is read again.
            kill_second: kill.then_some(7),
            late_one_in: Some(20),
            counting: false,
        };
        let mut world = World::new(POLICIES, 1);
        plan.run(&mut world);
        world.drain().into_iter().map(|(trace, kept)| (trace, kept.policy)).collect::<BTreeMap<_, _>>()
    };
    let kept = run(false);
    assert!(kept.len() > 200 && kept == run(true));
}

#[test]
fn hashed_randomness_gives_the_same_verdict_where_the_key_is_the_same() {
    let hashed = |key: &str| verdicts(&format!("randomness: {key}\n{POLICIES}"), 1, false);
    let one = hashed("hash");
    assert!(one == hashed("{ hash: tailwater }"));
    let other = hashed("{ hash: other }");
    let both = one.keys().filter(|trace| other.contains_key(*trace)).count();
    assert!(both < one.len() / 4, "{both} of {}", one.len());
}
