//! What a span costs the whole process, end to end: `cargo bench --bench load`.
//!
//! The server is the binary itself with everything on: input log, errors + p95 + 5 % of the rest, OTLP to a sink that
//! only counts, Parquet to a folder. Generator and sink are processes of their own, so that the server's CPU time is
//! the server's alone; they share the machine's cores with it. An argument names the phases to run, for example
//! `cargo bench --bench load -- closed-512 paced-40k`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for people, which stops when it cannot go on"
)]
#![allow(unreachable_pub, missing_debug_implementations, reason = "modules of one program")]

mod generator;
mod raw;
mod server;
mod sink;
#[path = "../workload.rs"]
mod workload;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use generator::{Load, Sent, Traffic};
use server::{Budget, Sample, Server};

const MIB: u64 = 1 << 20;

/// One row of the table.
struct Phase {
    name: &'static str,
    load: Load,
    budget: Budget,
}

const SECOND: Duration = Duration::from_secs(1);
/// Enough that a closed loop never meets back-pressure: its window is a few seconds.
const FLOOD: Budget = Budget {
    memory: 2_048 * MIB,
    after_root: SECOND,
    max_wait: Duration::from_secs(3),
    data: "",
    policies: server::FEW,
};
/// Small enough that 150,000 spans a second fill it within the phase, with the default waits.
const FULL: Budget =
    Budget { after_root: Duration::from_secs(10), max_wait: Duration::from_secs(15), ..FLOOD };
/// Small enough that small requests and small traces fill it.
const SMALL: Budget = Budget { memory: 1_024 * MIB, ..FLOOD };
/// What the input log costs, and what it costs to wait for the disk.
const NO_LOG: Budget = Budget { data: "input: memory", ..FLOOD };
const SYNCED: Budget = Budget { data: "sync: always", ..FLOOD };
const SYNCED_FULL: Budget = Budget { data: "sync: always", ..FULL };
const POLICIES: Budget = Budget { policies: server::TEN, ..FLOOD };

fn phases() -> [Phase; 9] {
    let load = |spans, rate, seconds| Load {
        traffic: Traffic::Shop,
        spans_per_request: spans,
        spans_per_second: rate,
        time: Duration::from_secs(seconds),
        spans_max: u64::MAX,
    };
    let lonely = Load { traffic: Traffic::OneSpanTraces, spans_max: 10_000_000, ..load(512, 0, 300) };
    [
        Phase { name: "closed-512", load: load(512, 0, 15), budget: FLOOD },
        Phase { name: "no-log-512", load: load(512, 0, 15), budget: NO_LOG },
        Phase { name: "always-512", load: load(512, 0, 15), budget: SYNCED },
        Phase { name: "ten-512", load: load(512, 0, 15), budget: POLICIES },
        Phase { name: "closed-20", load: load(20, 0, 25), budget: SMALL },
        Phase { name: "paced-40k", load: load(512, 40_000, 20), budget: FULL },
        Phase { name: "always-40k", load: load(512, 40_000, 20), budget: SYNCED_FULL },
        Phase { name: "paced-150k", load: load(512, 150_000, 40), budget: FULL },
        Phase { name: "lonely-10M", load: lonely, budget: SMALL },
    ]
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.first().map(String::as_str) {
        Some("generator") => generator::run(&arguments[1], &Load::read(&arguments[2..])),
        Some("sink") => sink::run(),
        _ => table(&arguments),
    }
}

fn table(wanted: &[String]) {
    println!(
        "{:<11} {:>11} {:>11} {:>8} {:>8} {:>9} {:>9} {:>9} {:>7} {:>7} {:>8}",
        "phase",
        "spans/s",
        "CPU-s/Mspan",
        "p50 ms",
        "p99 ms",
        "RSS MiB",
        "log MiB",
        "RSS/log",
        "kept %",
        "B/row",
        "refused"
    );
    for phase in phases() {
        if wanted.is_empty() || wanted.iter().any(|name| name == phase.name) {
            run(&phase);
        }
    }
}

/// Runs one phase on a fresh server. The first fifth is warm-up: sketches learn, maps and files reach their size.
fn run(phase: &Phase) {
    let mut sink = Role::start(&["sink".to_owned()]);
    let server = Server::start(&phase.budget, &sink.line());
    let warm_up =
        Load { time: phase.load.time / 5, spans_max: phase.load.spans_max / 5, ..phase.load.clone() };
    generate(&server, &warm_up);
    let before = server.sample();
    let sent = generate(&server, &phase.load);
    let after = server.sample();
    report(phase.name, &sent, &before, &after);
    let rows = server.finish();
    println!("{:<11} ledger {}; Parquet {:.0} B a span", "", rows.ledger, rows.bytes_per_span);
}

fn report(name: &str, sent: &Sent, before: &Sample, after: &Sample) {
    let spans = (after.accepted - before.accepted).max(1) as f64;
    let cpu = (after.cpu - before.cpu).as_secs_f64() / (spans / 1e6);
    let judged = (after.kept + after.dropped - before.kept - before.dropped).max(1) as f64;
    let kept = (after.kept - before.kept) as f64 / judged * 100.0;
    let mib = |bytes: u64| bytes as f64 / MIB as f64;
    println!(
        "{name:<11} {:>11.0} {cpu:>11.2} {:>8.2} {:>8.2} {:>9.0} {:>9.0} {:>9.2} {kept:>7.1} {:>7.0} {:>8}",
        spans / sent.seconds,
        sent.p50_ms,
        sent.p99_ms,
        mib(after.resident),
        mib(after.log_bytes),
        after.resident as f64 / after.log_bytes.max(1) as f64,
        sent.bytes as f64 / spans,
        sent.refused,
    );
}

fn generate(server: &Server, load: &Load) -> Sent {
    let mut arguments = vec!["generator".to_owned(), server.grpc.clone()];
    arguments.extend(load.write());
    let mut generator = Role::start(&arguments);
    let sent = serde_json::from_str(&generator.line()).unwrap();
    assert!(generator.child.wait().unwrap().success());
    sent
}

/// This program again, in another role; it ends with this value.
struct Role {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Role {
    fn start(arguments: &[String]) -> Self {
        let program = std::env::current_exe().unwrap();
        let mut child = Command::new(program).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
