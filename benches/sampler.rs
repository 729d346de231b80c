//! What a judgement costs: nanoseconds an operation, each the best of five rounds.
//!
//! `cargo bench --bench sampler`

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a bench")]

use std::hint::black_box;
use std::time::Instant;

use tailwater::otlp::{self, SpanFacts};
use tailwater::sampler::{OperationKey, Policies, PolicyConfig, Slow, Unit, UnitSpan};
use tailwater::trace::{Randomness, TenantId, TraceId};

#[path = "workload.rs"]
mod workload;

const DEFAULT: &str = r"
- { name: errors, match: '{ status = error }', keep: 100% }
- { name: health-checks, match: '{ rootName =~ `GET /(healthz|readyz)` }', keep: 0% }
- { name: slow, slower_than: p95, keep: 100% }
- { name: rest, keep: 5% }
";

const SCANNED: &str = r"
- { name: a, match: '{ status = error }', keep: 100% }
- { name: b, match: '{ kind = server && duration > 1s }', keep: 100% }
- { name: c, match: '{ name = `checkout` && kind = client }', keep: 100% }
- { name: d, match: '{ name =~ `POST /pay.*` }', keep: 100% }
";

const BYTES: &str = r"
- { name: user, match: '{ span.no.such.attribute = `x` }', keep: 100% }
- { name: rest, keep: 5% }
";

fn policies(yaml: &str) -> Policies {
    let configs: Vec<PolicyConfig> = serde_saphyr::from_str(yaml).unwrap();
    Policies::compile(&configs, 1).unwrap()
}

fn measure(name: &str, per_round: usize, mut operation: impl FnMut(usize)) {
    let rounds = (0..5).map(|_| {
        let begin = Instant::now();
        (0..per_round).for_each(&mut operation);
        begin.elapsed().as_nanos() as f64 / per_round as f64
    });
    println!("{name:<52} {:>8.1} ns", rounds.fold(f64::INFINITY, f64::min));
}

fn spans(body: &[u8]) -> Vec<UnitSpan<'_>> {
    let mut spans = Vec::new();
    for resource_spans in otlp::request(body) {
        for scope_spans in resource_spans.scope_spans() {
            spans.extend(scope_spans.spans().map(|span| UnitSpan { span, resource_spans, scope_spans }));
        }
    }
    spans
}

/// A slow table that knows `operations` operations of ten services.
fn learned(policies: &Policies, operations: usize) -> (Slow, Vec<(String, String)>) {
    let slow = Slow::new(&policies.percentiles());
    let names: Vec<_> =
        (0..operations).map(|n| (format!("service-{}", n % 10), format!("GET /route/{n}"))).collect();
    for observation in 0..300_u64 {
        for (service, name) in &names {
            let operation = OperationKey { tenant: TenantId(0), service, name };
            slow.observe(operation, 1_000_000 + observation * 10_000, 600_000);
        }
    }
    slow.publish(600_000);
    (slow, names)
}

fn main() {
    let body = workload::Generator::new(1).request(512);
    let mut facts: Vec<SpanFacts<'_>> = Vec::new();
    otlp::scan(&body, |span| facts.push(*span)).unwrap();
    for (name, yaml) in [("default policies", DEFAULT), ("four conditions on what is scanned", SCANNED)] {
        let policies = policies(yaml);
        measure(&format!("fold a span: {name}"), 1_000_000, |n| {
            black_box(policies.fold(&facts[n % facts.len()]));
        });
    }

    let spans = spans(&body);
    let few: Vec<_> = spans[..8].to_vec();
    let default = policies(DEFAULT);
    let (slow, names) = learned(&default, 1_500);
    let unit = |n: usize| {
        let (service, name) = &names[n * 7 % names.len()];
        Unit {
            bits: Some(0),
            randomness: Randomness::of_trace(TraceId([7; 16])),
            root: Some(spans[n % spans.len()]),
            operation: Some(OperationKey { tenant: TenantId(0), service, name }),
            duration: Some(2_000_000),
            earliest_start: 1,
            latest_end: 2_000_001,
            spans: &few,
            dropped_by: None,
        }
    };
    measure("judge a unit that the default policies drop", 300_000, |n| {
        black_box(default.judge(&unit(n), &slow));
    });
    measure("learn its duration", 300_000, |n| {
        let operation = unit(n).operation.unwrap();
        black_box(slow.observe(operation, 1_000_000 + n as u64 * 10, 600_000));
    });
    let bytes = policies(BYTES);
    measure("judge a unit of 8 spans by their bytes", 100_000, |n| {
        black_box(bytes.judge(&unit(n), &slow));
    });
    let mut now_ms = 600_000;
    measure("publish the thresholds of 1,500 operations", 5, |_| {
        now_ms += 10_000;
        slow.publish(now_ms);
    });
}
