//! Whether what is computed from kept traces is true: traffic of which everything is known goes through the
//! real buffer, sampler and outbox on a simulated clock, with late spans, upgrades, budgets and restarts, and
//! sums of weights are compared with what was sent.
//!
//! A part of it runs by default; `TAILWATER_TRUTH=full` runs a million traces and a thousand seeds. Seeds are
//! fixed and time is simulated: a run is the same as any other.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a test prints and fails")]
#![allow(unreachable_pub, reason = "modules of one test binary")]

#[path = "../common/mod.rs"]
mod common;

mod coverage;
mod estimates;
mod randomness;
mod same;
mod slow;
mod traffic;
mod world;

fn is_full() -> bool {
    std::env::var("TAILWATER_TRUTH").is_ok_and(|size| size == "full")
}
