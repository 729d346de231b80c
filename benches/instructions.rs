//! How many instructions a span costs from the wire to the index: `cargo bench --bench instructions`.
//!
//! Scan, append and index, as callgrind counts them: the difference of two runs that differ by nothing but how many
//! requests they take in. Counts repeat where times do not, so this is a gate: above [`INSTRUCTIONS_MAX`] it fails.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for people, which stops when it cannot go on"
)]

mod workload;

use std::process::{Command, ExitCode};
use std::sync::Arc;

use tailwater::buffer::{Buffer, Settings, Waits};
use tailwater::log::Memory;
use tailwater::pipeline::{Engine, Parts, SystemClock};
use tailwater::sampler::{Policies, Slow};
use tailwater::telemetry::Ledger;
use uuid::Uuid;

/// Measured: 3,688 with spans of 680 bytes.
const INSTRUCTIONS_MAX: u64 = 3_700;
const SPANS_PER_REQUEST: usize = 512;
/// Requests of the shorter run: tables and buffers have reached their size.
const SHORT: usize = 64;
const LONG: usize = 160;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [role, requests] = &arguments[..]
        && role == "take-in"
    {
        take_in(requests.parse().unwrap());
        return ExitCode::SUCCESS;
    }
    let (short, long) = (count(SHORT), count(LONG));
    let per_span = (long - short) / ((LONG - SHORT) * SPANS_PER_REQUEST) as u64;
    println!("scan + append + index: {per_span} instructions a span, at most {INSTRUCTIONS_MAX} allowed");
    if per_span <= INSTRUCTIONS_MAX { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Instructions of a whole run of this program under callgrind.
///
/// glibc copies large blocks by one string instruction, which callgrind counts once a byte; here it uses vectors.
fn count(requests: usize) -> u64 {
    let output = Command::new("valgrind")
        .env("GLIBC_TUNABLES", "glibc.cpu.x86_rep_movsb_threshold=1073741824")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().unwrap())
        .args(["take-in", &requests.to_string()])
        .output()
        .expect("valgrind is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let collected = said.lines().find_map(|line| line.split_once("Collected :")).expect("callgrind counts");
    collected.1.trim().parse().unwrap()
}

/// Prepares the requests of the longer run and takes in so many of them.
fn take_in(requests: usize) {
    let mut generator = workload::Generator::new(1);
    let bodies: Vec<_> = (0..LONG).map(|_| generator.request(SPANS_PER_REQUEST)).collect();
    let engine = engine();
    for body in &bodies[..requests] {
        engine.receive("", body, |_| true).unwrap();
    }
    assert_eq!(engine.buffer.counts().spans, (requests * SPANS_PER_REQUEST) as u64);
}

/// What stands between the transport and the verdict, with the default policies and without files.
fn engine() -> Engine {
    let waits = Waits { after_root_ms: 10_000, max_wait_ms: 60_000, hindsight_ms: 300_000 };
    let settings = Settings { waits, piece_bytes: 16 << 20, remembered_max: 1_000, hash_seed: 1 };
    let policies = "
        - { name: errors, match: '{ status = error }', keep: 100% }
        - { name: health-checks, match: '{ rootName =~ \"GET /(healthz|readyz)\" }', keep: 0% }
        - { name: slow, slower_than: p95, keep: 100% }
        - { name: rest, keep: 5% }";
    let configs: Vec<_> = serde_saphyr::from_str(policies).unwrap();
    let policies = Policies::compile(&configs, 0).unwrap();
    Engine::new(Parts {
        memory: Arc::new(Memory::new(4 << 20, 1)),
        buffer: Buffer::new(&settings),
        slow: Slow::new(&policies.percentiles()),
        ledger: Arc::new(Ledger::new(policies.names())),
        policies,
        roots: None,
        clock: Arc::new(SystemClock::default()),
        input: None,
        max_wait_ms: waits.max_wait_ms,
        hash_key: None,
        instance: Uuid::nil(),
    })
}
