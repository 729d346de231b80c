//! Deterministic simulation: thousands of runs of a whole instance on a disk, a clock and backends that fail in
//! every way there is, each decided by its seed alone.
//!
//! `TAILWATER_SEEDS=100000 cargo test --test simulation` runs more seeds; `TAILWATER_SEED=42` repeats one and
//! tells what happens in it.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a test prints and fails")]
#![allow(unreachable_pub, reason = "modules of one test binary")]

mod backend;
mod check;
mod count;
mod damage;
mod disk;
mod drain;
mod events;
mod learned;
mod losing;
mod model;
mod moving;
mod objects;
mod pieces;
mod plan;
mod plant;
mod random;
mod tell;
mod traffic;
mod wire;
mod world;
mod young;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use count::Counts;
use plant::Plant;
use world::{Outcome, run};

/// Seeds that are run unless `TAILWATER_SEEDS` says otherwise.
const SEEDS: u64 = 10_000;
const THREADS: usize = 2;

/// What went wrong with a seed.
type Wrong = (u64, String);

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

/// A panic is a verdict too.
fn verdict(seed: u64, plant: Option<Plant>) -> Result<Counts, String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| run(seed, plant, false)));
    let panic = |panic: Box<dyn std::any::Any + Send>| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    };
    let Outcome { counts, verdict, .. } = outcome.map_err(|error| format!("panic: {}", panic(error)))?;
    verdict.map(|()| counts)
}

/// Runs seeds below `seeds` until one goes wrong.
fn search(seeds: u64, plant: Option<Plant>) -> (Counts, Option<Wrong>) {
    let (next, sum, wrong) = (AtomicU64::new(0), Mutex::new(Counts::default()), Mutex::new(None::<Wrong>));
    let work = || loop {
        let seed = next.fetch_add(1, Relaxed);
        if seed >= seeds || wrong.lock().as_ref().is_some_and(|(found, _)| *found < seed) {
            return;
        }
        match verdict(seed, plant) {
            Ok(counts) => sum.lock().add(counts),
            Err(text) => {
                let mut wrong = wrong.lock();
                if wrong.as_ref().is_none_or(|(found, _)| seed < *found) {
                    *wrong = Some((seed, text));
                }
            }
        }
    };
    std::thread::scope(|scope| (0..THREADS).for_each(|_| _ = scope.spawn(work)));
    (sum.into_inner(), wrong.into_inner())
}

#[test]
fn every_invariant_holds_whatever_a_seed_does() {
    if let Some(seed) = number("TAILWATER_SEED") {
        let Outcome { verdict, counts, story } = run(seed, None, true);
        eprintln!("{counts}story {story:016x}");
        return verdict.unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
    }
    let seeds = number("TAILWATER_SEEDS").unwrap_or(SEEDS);
    let begin = tokio::time::Instant::now();
    let (counts, wrong) = search(seeds, None);
    println!("{seeds} seeds in {:.1} s\n{counts}", begin.elapsed().as_secs_f64());
    if let Some((seed, text)) = wrong {
        let again =
            format!("TAILWATER_SEED={seed} cargo test --test simulation every_invariant -- --nocapture");
        // The other test may have taken the hook that tells of panics.
        println!("seed {seed}: {text}\nagain: {again}");
        panic!("seed {seed}");
    }
}

#[test]
fn a_seed_repeats_itself() {
    for seed in 0..100 {
        let (first, second) = (run(seed, None, false), run(seed, None, false));
        assert_eq!((first.story, first.counts), (second.story, second.counts), "seed {seed}");
    }
}

#[test]
fn planted_faults_are_found() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let found = Plant::ALL.map(|plant| (plant, search(SEEDS, Some(plant)).1));
    std::panic::set_hook(hook);
    for (plant, wrong) in &found {
        match wrong {
            Some((seed, text)) => println!("{plant:?}: seed {seed}: {text}"),
            None => println!("{plant:?}: NOT FOUND"),
        }
    }
    assert!(found.iter().all(|(_, wrong)| wrong.is_some()), "a planted fault is not seen");
}
