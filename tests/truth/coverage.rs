//! Over many seeds the 95 % interval around an estimate holds the truth as often as it says.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::is_full;
use crate::random::Random;
use crate::traffic::Plan;
use crate::world::{Estimate, World};

const THREADS: u64 = 2;
/// Errors beyond their budget, an operation of its own beyond its own, and a share.
const POLICIES: &str = r#"policies:
  - { name: errors, match: "{ status = error }", keep: 0.3/s }
  - { name: busy, match: "{ rootName = `op-0000` }", keep: { share: 100%, at_most: 2/s, per: [name] } }
  - { name: rest, keep: 20% }
"#;

/// Whether the interval of this seed holds the number of all traces.
fn holds(seed: u64) -> bool {
    let plan = Plan {
        // Streams of neighbouring seeds would be one stream, a step apart.
        seed: Random(seed).next(),
        seconds: 60,
        traces_per_second: 30,
        operations: vec![(20, 1), (80, 50)],
        shift_second: None,
        orderly_restart_second: seed.is_multiple_of(4).then_some(30),
        kill_second: seed.is_multiple_of(5).then_some(45),
        late_one_in: Some(20),
        counting: false,
    };
    let mut world = World::new(POLICIES, seed);
    let truth = plan.run(&mut world);
    let mut estimate = Estimate::default();
    for trace in world.drain().values() {
        estimate.add(trace.weight, trace.root_weight);
    }
    estimate.off(truth.traces as f64).abs() <= 1.96
}

#[test]
fn intervals_hold_the_truth_as_often_as_they_say() {
    let (seeds, range) = if is_full() { (1_000, 0.935..=0.965) } else { (60, 0.86..=1.0) };
    let (next, held) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= seeds {
                        break;
                    }
                    held.fetch_add(u64::from(holds(seed)), Relaxed);
                }
            });
        }
    });
    let share = held.load(Relaxed) as f64 / seeds as f64;
    println!("{:.1} % of {seeds} intervals hold the truth", 100.0 * share);
    assert!(range.contains(&share), "{share}");
}
