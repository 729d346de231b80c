//! What a judgement costs: nanoseconds an operation, each the best of five rounds.
//!
//! `cargo bench --bench sampler`

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a bench")]

use std::hint::black_box;
use std::time::Instant;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use tailwater::otlp;
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

const NONE: &str = "[{ name: rest, keep: 5% }]";

const SCANNED: &str = r"
- { name: a, match: '{ status = error }', keep: 100% }
- { name: b, match: '{ kind = server && duration > 1s }', keep: 100% }
- { name: c, match: '{ name = `checkout` && kind = client }', keep: 100% }
- { name: d, match: '{ name =~ `POST /pay.*` }', keep: 100% }
";

/// Ten policies as people write them: four about attributes, one about structure, one about a count.
const TYPICAL: &str = r"
- { name: health-checks, match: '{ rootName =~ `GET /(healthz|readyz)` }', keep: 0% }
- { name: errors, match: '{ status = error }', keep: 100% }
- { name: gold, match: '{ span.customer.tier = `gold` }', keep: 50% }
- { name: server-errors, match: '{ kind = server && span.http.response.status_code >= 500 }', keep: 100% }
- { name: canary, match: '{ resource.deployment.environment = `canary` }', keep: 20% }
- { name: slow-queries, match: '{ span.db.system != nil && duration > 500ms }', keep: 50% }
- { name: failed-checkout, match: '{ name = `checkout` } >> { status = error }', keep: 100% }
- { name: chatty, match: '{ kind = client && duration > 1ms } | count() > 50', keep: 10% }
- { name: slow, slower_than: p95, keep: 100% }
- { name: rest, keep: 5% }
";

/// What a trace of 100,000 spans is asked that takes longest.
const NASTY: [&str; 16] = [
    "{ } >> { } >> { }",
    "{ } << { } << { }",
    "{ } > { }",
    "{ } ~ { }",
    "{ } !>> { }",
    "{ } !~ { }",
    "{ } &>> { }",
    "{ } &<< { }",
    "{ } &~ { }",
    "({ } &>> { }) !~ ({ } &<< { })",
    "{ childCount > 1000000 }",
    "{ parent.span.n = -1 }",
    "{ } | by(span:id) | { } >> { }",
    "{ } | by(span:id) | count() > 1 | coalesce() | count() > 3",
    "{ } | by(span.n) | { } &~ { } | avg(duration) > 1h",
    "({ } >> { } | count()) < ({ } << { } | sum(span.n)) - 1e18",
];

const BUDGETS: &str = r"
- { name: errors, match: '{ status = error }', keep: 50/s }
- { name: rest, keep: { share: 5%, at_least: 1/min, at_most: 100/s, per: [resource.service.name, name] } }
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
            let key = OperationKey { tenant: TenantId(0), service, name };
            slow.observe(
                slow.operation(key),
                &|| Some(key.into()),
                1_000_000 + observation * 10_000,
                600_000,
            );
        }
    }
    slow.publish(600_000);
    (slow, names)
}

/// A trace of 100,000 spans, each below the one that `parent` says; 0 is the root.
fn large_trace(id: impl Fn(u64) -> u64, parent: impl Fn(u64) -> u64) -> Vec<u8> {
    let bytes = |id: u64| if id == 0 { vec![] } else { id.to_be_bytes().to_vec() };
    let span = |n: u64| {
        let value = Some(AnyValue { value: Some(Value::IntValue(n as i64 % 1_000)) });
        Span {
            trace_id: vec![7; 16],
            span_id: bytes(id(n)),
            parent_span_id: bytes(parent(n)),
            name: "operation".to_owned(),
            start_time_unix_nano: 1_700_000_000_000_000_000 + n,
            end_time_unix_nano: 1_700_000_000_001_000_000 + n,
            attributes: vec![KeyValue { key: "n".to_owned(), value, ..KeyValue::default() }],
            ..Span::default()
        }
    };
    let spans = (1..=100_000).map(span).collect();
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    let resource_spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

/// The longest that any nasty condition takes, by shape of the trace.
fn measure_nasty() {
    for (shape, body) in [
        ("a chain", large_trace(|n| n, |n| n - 1)),
        ("a star", large_trace(|n| n, |n| u64::from(n > 1))),
        ("a tree", large_trace(|n| n, |n| n / 2)),
        ("a comb", large_trace(|n| n, |n| if n % 2 == 0 { n - 1 } else { n.saturating_sub(2) })),
        ("a circle", large_trace(|n| n, |n| n % 100_000 + 1)),
        ("one id", large_trace(|_| 1, |n| n % 2 + 1)),
    ] {
        let spans = spans(&body);
        let slow = Slow::new(&[]);
        let unit = Unit {
            bits: None,
            randomness: Randomness::of_trace(TraceId([7; 16])),
            operation: None,
            duration: None,
            earliest_start: 1,
            latest_end: 2,
            spans: &spans,
            dropped_by: None,
            again: false,
            now_ms: 0,
        };
        let times = NASTY.map(|condition| {
            let policies = policies(&format!("[{{ name: nasty, match: '{condition}', keep: 100% }}]"));
            let begin = Instant::now();
            black_box(policies.judge(&unit, &slow));
            (begin.elapsed().as_micros(), condition)
        });
        let (longest, condition) = times.into_iter().max().unwrap();
        println!("100,000 spans, {shape:<38} {:>8.1} ms: {condition}", longest as f64 / 1e3);
    }
}

fn main() {
    let body = workload::Generator::new(1).request(512);
    for (name, yaml) in [
        ("no condition", NONE),
        ("default policies", DEFAULT),
        ("four conditions on what is scanned", SCANNED),
        ("ten typical policies", TYPICAL),
    ] {
        let policies = policies(yaml);
        measure(&format!("scan and fold 512 spans: {name}"), 2_000, |_| {
            let mut folding = policies.folding();
            otlp::scan_for(policies.keys(), &body, |span, seen| _ = black_box(folding.fold(span, seen)))
                .unwrap();
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
            operation: Some(slow.operation(OperationKey { tenant: TenantId(0), service, name })),
            duration: Some(2_000_000),
            earliest_start: 1,
            latest_end: 2_000_001,
            spans: &few,
            dropped_by: None,
            again: false,
            now_ms: n as u64 / 100,
        }
    };
    measure("judge a unit that the default policies drop", 300_000, |n| {
        black_box(default.judge(&unit(n), &slow));
    });
    measure("learn its duration", 300_000, |n| {
        let operation = unit(n).operation.unwrap();
        black_box(slow.observe(operation, &|| None, 1_000_000 + n as u64 * 10, 600_000));
    });
    let budgets = policies(BUDGETS);
    measure("judge a unit by a budget for each operation", 300_000, |n| {
        black_box(budgets.judge(&unit(n), &slow));
    });
    let bytes = policies(BYTES);
    measure("judge a unit of 8 spans by their bytes", 100_000, |n| {
        black_box(bytes.judge(&unit(n), &slow));
    });
    let typical = policies(TYPICAL);
    measure("judge a unit of 8 spans by ten typical policies", 100_000, |n| {
        black_box(typical.judge(&unit(n), &slow));
    });
    measure_nasty();
    let mut now_ms = 600_000;
    measure("publish the thresholds of 1,500 operations", 5, |_| {
        now_ms += 10_000;
        slow.publish(now_ms);
    });
}
