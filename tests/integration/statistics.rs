//! What is kept of traffic whose truth is known: every error, what is slow for its operation, an exact share of the
//! rest, with thresholds and weights that are true.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use super::support::{
    Backend, MILLISECOND, Random, Row, Sender, Setup, Tailwater, Trace, hex, request, rows_below,
};

const POLICIES: &str = r#"
  - { name: errors, match: "{ status = error }", keep: 100% }
  - { name: slow, slower_than: p95, keep: 100% }
  - { name: rest, keep: 5% }
"#;
/// Traces before and after the first thresholds are published.
const BEFORE: usize = 40_000;
const AFTER: usize = 60_000;
const TRACES_PER_REQUEST: usize = 100;
/// Thresholds are published every ten seconds.
const PUBLICATION: Duration = Duration::from_secs(11);
/// The share of 5 %, as `tests/conformance/threshold_vectors.csv` has it.
const REST: u64 = 0x00f3_3333_3333_3333;
const REST_TH: &str = "f3333333333333";

/// Operations, their share of the traces in percent and how long they take.
/// Draws a duration, in milliseconds.
type Law = fn(&mut Random) -> f64;

const OPERATIONS: [(&str, u64, Law); 4] = [
    ("GET /cart", 60, |random| 20.0 * exponential(random)),
    ("POST /checkout", 30, |random| 200.0 * exponential(random)),
    ("GET /search", 9, |random| 10.0 + 100.0 * random.unit()),
    ("GET /rare", 1, |random| 50.0 * exponential(random)),
];

fn exponential(random: &mut Random) -> f64 {
    -random.unit().ln()
}

/// The stream of traces; the same for every instance.
fn traffic() -> Vec<Trace> {
    let mut random = Random(2_026);
    (0..BEFORE + AFTER).map(|_| trace(&mut random)).collect()
}

fn trace(random: &mut Random) -> Trace {
    let mut ticket = random.below(100);
    let (name, _, milliseconds) = OPERATIONS
        .iter()
        .find(|(_, share, _)| {
            let here = ticket < *share;
            ticket = ticket.saturating_sub(*share);
            here
        })
        .unwrap();
    let mut trace = Trace::new(random).named(name);
    trace.duration = (milliseconds(random) * MILLISECOND as f64) as u64;
    trace.failed = random.one_in(100);
    // Some senders have sampled by half already.
    if random.one_in(10) && trace.randomness() >= 1 << 55 {
        trace.trace_state = "vendor=x,ot=th:8".to_owned();
    }
    trace
}

/// One instance with its backend, after all of the traffic.
struct Instance {
    spans: HashMap<[u8; 16], Vec<String>>,
    rows: Vec<Row>,
}

impl Instance {
    async fn run(traffic: &[Trace]) -> Self {
        let backend = Backend::start().await;
        let setup = Setup { memory: "1GiB", ..Setup::of(POLICIES) };
        let mut tailwater = setup.forwarding(&backend).start().await;
        let (before, after) = traffic.split_at(BEFORE);
        send(&tailwater, before).await;
        tailwater.judged().await;
        tokio::time::sleep(PUBLICATION).await;
        send(&tailwater, after).await;
        let ledger = tailwater.judged().await;
        assert_eq!(ledger.accepted as usize, 3 * traffic.len());
        backend.has(ledger.kept as usize).await;
        tailwater.drain().await;
        let mut spans: HashMap<[u8; 16], Vec<String>> = HashMap::new();
        for full in backend.spans() {
            spans.entry(full.key().0).or_default().push(full.span.trace_state);
        }
        let rows = rows_below(&tailwater.parquet());
        Self { spans, rows }
    }

    /// The policy that kept each trace, as Parquet has it.
    fn policies(&self) -> HashMap<[u8; 16], &str> {
        self.rows.iter().map(|row| (row.key().0, row.policy.as_str())).collect()
    }
}

async fn send(tailwater: &Tailwater, traces: &[Trace]) {
    let mut sender = Sender::to(tailwater);
    for traces in traces.chunks(TRACES_PER_REQUEST) {
        sender.deliver(&request(traces)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_of_a_hundred_thousand_traces_is_what_should_be() {
    let traffic = traffic();
    let (one, two) = tokio::join!(Instance::run(&traffic), Instance::run(&traffic));
    for instance in [&one, &two] {
        let policies = instance.policies();
        assert_whole(instance, &traffic);
        assert_errors(&policies, &traffic);
        assert_slow(&policies, &traffic);
        assert_rest(&policies, &traffic);
        assert_weights(instance, &traffic);
    }
    assert_same_rest(&one, &two);
}

/// A kept trace has its three spans, at the backend and in Parquet.
fn assert_whole(instance: &Instance, traffic: &[Trace]) {
    let rows: HashSet<_> = instance.rows.iter().map(Row::key).collect();
    assert_eq!(rows.len(), instance.rows.len(), "spans in Parquet more than once");
    assert_eq!(rows.len(), instance.spans.values().map(Vec::len).sum::<usize>());
    assert!(instance.spans.values().all(|spans| spans.len() == 3));
    let kept: Vec<_> = traffic.iter().filter(|trace| instance.spans.contains_key(&trace.id)).collect();
    assert_eq!(kept.len(), instance.spans.len());
    assert!(kept.iter().flat_map(|trace| trace.keys()).all(|key| rows.contains(&key)));
}

fn assert_errors(policies: &HashMap<[u8; 16], &str>, traffic: &[Trace]) {
    for trace in traffic {
        let by_errors = policies.get(&trace.id) == Some(&"errors");
        assert_eq!(by_errors, trace.failed, "{trace:?}");
    }
}

/// At most the slowest twentieth of each operation, and all of it once thresholds are published.
fn assert_slow(policies: &HashMap<[u8; 16], &str>, traffic: &[Trace]) {
    let is_slow = |trace: &&Trace| policies.get(&trace.id) == Some(&"slow");
    for (operation, ..) in OPERATIONS {
        let all: Vec<_> = traffic.iter().filter(|trace| trace.root_name == operation).collect();
        let judged = all.len() as f64;
        let slow = all.iter().copied().filter(is_slow).count() as f64;
        let allowed = if judged >= 20_000.0 { 0.055 } else { 0.05 + 3.0 * (0.05 * 0.95 / judged).sqrt() };
        assert!(slow / judged <= allowed, "{operation}: {slow} of {judged} are slow");

        let after: Vec<_> =
            traffic[BEFORE..].iter().filter(|trace| trace.root_name == operation && !trace.failed).collect();
        let p95s = p95s(traffic, operation);
        let (low, high) = (p95s.start() * 0.98, p95s.end() * 1.02);
        for trace in after {
            let (duration, slow) = (trace.duration as f64, is_slow(&trace));
            assert!(slow || duration <= high, "{operation} took {duration}, not slow; p95 {p95s:?}");
            assert!(!slow || duration >= low, "{operation} took {duration}, slow; p95 {p95s:?}");
        }
    }
}

/// Thresholds may be published after any trace of the second part: their range, since they rise and fall on the way.
fn p95s(traffic: &[Trace], operation: &str) -> RangeInclusive<f64> {
    let moments = (BEFORE..=BEFORE + AFTER).step_by(4_000);
    let p95s: Vec<f64> = moments.map(|traces| p95(&traffic[..traces], operation)).collect();
    let (low, high) = (p95s.iter().copied().reduce(f64::min), p95s.into_iter().reduce(f64::max));
    low.unwrap()..=high.unwrap()
}

fn p95(traffic: &[Trace], operation: &str) -> f64 {
    let of_operation = traffic.iter().filter(|trace| trace.root_name == operation);
    let mut durations: Vec<_> = of_operation.map(|trace| trace.duration).collect();
    let rank = durations.len() * 95 / 100;
    *durations.select_nth_unstable(rank).1 as f64
}

/// The rest is kept by its randomness alone: 5 % within three standard deviations.
fn assert_rest(policies: &HashMap<[u8; 16], &str>, traffic: &[Trace]) {
    let (mut rest, mut kept) = (0.0, 0.0);
    for trace in traffic.iter().filter(|trace| !trace.failed) {
        let policy = policies.get(&trace.id).copied();
        if policy == Some("slow") {
            continue;
        }
        rest += 1.0;
        kept += f64::from(policy.is_some());
        assert_eq!(policy == Some("rest"), trace.randomness() >= REST, "{trace:?}");
    }
    let deviation = f64::sqrt(0.05 * 0.95 * rest);
    assert!((kept - 0.05 * rest).abs() <= 3.0 * deviation, "{kept} of {rest}");
}

/// What two instances keep as rest differs by nothing but what either found slow.
fn assert_same_rest(one: &Instance, two: &Instance) {
    let (one, two) = (one.policies(), two.policies());
    let rest = |policies: &HashMap<[u8; 16], &str>, other: &HashMap<[u8; 16], &str>| -> HashSet<[u8; 16]> {
        let rest =
            policies.iter().filter(|(id, policy)| **policy == "rest" && other.get(*id) != Some(&"slow"));
        rest.map(|(id, _)| *id).collect()
    };
    assert_eq!(rest(&one, &two), rest(&two, &one));
}

/// th at the backend and the weight in Parquet are those of the policy and of what the sender had sampled already.
fn assert_weights(instance: &Instance, traffic: &[Trace]) {
    let traces: HashMap<_, _> = traffic.iter().map(|trace| (trace.id, trace)).collect();
    let policies = instance.policies();
    let expected = |id: &[u8; 16]| match (policies[id], traces[id].trace_state.is_empty()) {
        ("rest", _) => (Some(REST_TH), 20.0),
        (_, false) => (Some("8"), 2.0),
        (_, true) => (None, 1.0),
    };
    for (id, trace_states) in &instance.spans {
        for trace_state in trace_states {
            assert_eq!(th(trace_state), expected(id).0, "{trace_state}, {}", policies[id]);
            assert_eq!(trace_state.contains("vendor=x"), !traces[id].trace_state.is_empty());
        }
    }
    for row in &instance.rows {
        let (th_out, weight) = expected(&row.key().0);
        assert_eq!(th(&row.trace_state), th_out);
        assert!(close(row.sampling_weight, weight), "{row:?}");
    }
}

/// The `th` of the member `ot` of a tracestate.
fn th(trace_state: &str) -> Option<&str> {
    let member = trace_state.split(',').find_map(|member| member.trim().strip_prefix("ot="))?;
    member.split(';').find_map(|field| field.strip_prefix("th:"))
}

fn close(found: f64, expected: f64) -> bool {
    (found - expected).abs() <= expected * 1e-9
}

/// A row of `tests/conformance/threshold_vectors.csv` that a whole process can show.
#[derive(Debug)]
struct Vector {
    trace: Trace,
    kept: bool,
    /// th and weight of what is kept, where the row says.
    leaves: Option<(Option<String>, f64)>,
}

impl Vector {
    /// Rows of the kinds `verdict` and `raise`. Only the low seven bytes of a trace ID matter, so the high eight are
    /// made different: two rows are never one trace.
    fn all() -> Vec<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/threshold_vectors.csv");
        let text = std::fs::read_to_string(path).unwrap();
        let mut random = Random(235);
        text.lines().skip(1).filter_map(|line| Self::read(line, &mut random)).collect()
    }

    fn read(line: &str, random: &mut Random) -> Option<Self> {
        let fields = fields(line);
        let fields: Vec<_> = fields.iter().map(String::as_str).collect();
        let [kind, trace_id, trace_state, _, share, _, th, weight, result, _] = fields[..] else {
            return None;
        };
        let mut trace = Trace::new(random).named(share);
        trace.trace_state = trace_state.to_owned();
        let low = if kind == "verdict" { hex(trace_id)[8..].to_vec() } else { vec![0xff; 8] };
        trace.id[8..].copy_from_slice(&low);
        let th = (!th.is_empty()).then(|| th.to_owned());
        match kind {
            "verdict" => Some(Self { trace, kept: result == "kept", leaves: None }),
            "raise" => Some(Self { trace, kept: true, leaves: Some((th, weight.parse().unwrap())) }),
            _ => None,
        }
    }
}

/// The fields of a line of CSV; a quoted one may hold commas.
fn fields(line: &str) -> Vec<String> {
    let mut quoted = false;
    let mut fields = vec![String::new()];
    for character in line.chars() {
        match character {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            _ => fields.last_mut().unwrap().push(character),
        }
    }
    fields
}

#[tokio::test(flavor = "multi_thread")]
async fn every_threshold_vector_holds_from_end_to_end() {
    let vectors = Vector::all();
    let shares: BTreeMap<_, _> = vectors.iter().map(|vector| (vector.trace.root_name.clone(), ())).collect();
    let policy = |(n, share): (usize, &String)| {
        format!("\n  - {{ name: share-{n}, match: '{{ rootName = \"{share}\" }}', keep: \"{share}\" }}")
    };
    let backend = Backend::start().await;
    let setup = Setup { policies: shares.keys().enumerate().map(policy).collect(), ..Setup::default() };
    let mut tailwater = setup.forwarding(&backend).start().await;
    let mut sender = Sender::to(&tailwater);
    for vector in &vectors {
        sender.deliver(&request(std::slice::from_ref(&vector.trace))).await;
    }
    tailwater.judged().await;
    tailwater.drain().await;
    let spans = backend.spans();
    let rows = rows_below(&tailwater.parquet());
    for vector in &vectors {
        let id = vector.trace.id;
        let of_trace: Vec<_> = spans.iter().filter(|full| full.key().0 == id).collect();
        assert_eq!(of_trace.len(), if vector.kept { 3 } else { 0 }, "{vector:?}");
        let Some((th_out, weight)) = &vector.leaves else { continue };
        for full in of_trace {
            assert_eq!(th(&full.span.trace_state), th_out.as_deref(), "{vector:?}");
        }
        for row in rows.iter().filter(|row| row.key().0 == id) {
            assert!(close(row.sampling_weight, *weight), "{} for {vector:?}", row.sampling_weight);
        }
    }
}
