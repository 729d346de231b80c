//! What a restart goes on with: the durations that were learned, the shares of budgets, the verdicts. And what it does not.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;

use super::{Clock, Settings, Simulation};
use crate::config;
use crate::log::SimDisk;
use crate::proto::{self, Piece, Reason};

const START_MS: u64 = 1_700_000_000_000;
const STATE: &str = "data/state";

/// Begins to run with each life, as a monotonic clock does.
#[derive(Debug)]
struct ByHand {
    now_ms: Arc<AtomicU64>,
    started_ms: OnceLock<u64>,
}

impl Clock for ByHand {
    fn arrival_ms(&self) -> u64 {
        START_MS + self.now_ms.load(Relaxed)
    }

    fn elapsed_ms(&self) -> u64 {
        self.started_ms.get().map_or(0, |started| self.now_ms.load(Relaxed) - started)
    }

    fn start(&self) {
        self.started_ms.get_or_init(|| self.now_ms.load(Relaxed));
    }
}

/// Lives over one disk.
struct World {
    config: config::Config,
    disk: SimDisk,
    now_ms: Arc<AtomicU64>,
    life: Option<Simulation>,
    traces: u64,
}

impl World {
    fn new(policies: &str) -> Self {
        let rest = "\ndata: { path: data }\nbuffer: { memory: 256MiB, after_root: 1s, max_wait: 10s }\n\
                    exporters: { otlp: [{ name: backend, endpoint: 'http://backend:4317' }] }\n";
        let config = config::load(&format!("policies:{policies}{rest}"), "t.yaml".as_ref()).unwrap();
        let mut world = Self { config, disk: SimDisk::new(1), now_ms: Arc::default(), life: None, traces: 0 };
        world.start();
        world
    }

    fn start(&mut self) {
        let clock = ByHand { now_ms: self.now_ms.clone(), started_ms: OnceLock::new() };
        let settings =
            Settings { storage: self.disk.storage(), clock: Arc::new(clock), ..Settings::default() };
        self.life = Some(Simulation::build(&self.config, &settings).unwrap());
    }

    /// kill -9, some seconds of nothing, and the next life.
    fn die_and_start(&mut self) {
        self.life = None;
        self.disk.kill();
        self.now_ms.fetch_add(7_000, Relaxed);
        self.start();
    }

    fn life(&mut self) -> &mut Simulation {
        self.life.as_mut().unwrap()
    }

    fn send(&mut self, span: Span) {
        let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
        let resource_spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
        let body = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert_eq!(runtime.block_on(self.life().receive("", body.into())).unwrap().rejected, 0);
    }

    /// A root of the one operation there is; its trace.
    fn root(&mut self, duration_ms: u64) -> u64 {
        self.traces += 1;
        self.send(span(self.traces, 1, duration_ms));
        self.traces
    }

    /// Lets time pass.
    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / 100 {
            self.now_ms.fetch_add(100, Relaxed);
            self.life().turn().unwrap();
        }
    }

    /// What has left of a trace, in the order of the outbox.
    fn left(&mut self, trace: u64) -> Vec<Piece> {
        let mut tail = self.life().outbox().tail("backend").unwrap();
        let pieces = tail.read(1 << 30).unwrap().into_iter().map(|parcel| parcel.piece);
        pieces.filter(|piece| piece.trace_id[..] == id(trace)[..]).collect()
    }

    /// What the first policy keeps now.
    fn share(&mut self) -> f64 {
        let engine = self.life().engine();
        let (policies, now_ms) = (engine.policies.load(), engine.clock.elapsed_ms());
        policies.policies.current_keeps(now_ms).next().unwrap().1.probability
    }
}

/// With even randomness.
fn id(trace: u64) -> [u8; 16] {
    (1_u128 << 100 | u128::from(trace.wrapping_mul(0x9e37_79b9_7f4a_7c15))).to_be_bytes()
}

fn span(trace: u64, number: u64, duration_ms: u64) -> Span {
    let start = START_MS * 1_000_000;
    Span {
        trace_id: id(trace).to_vec(),
        span_id: number.to_be_bytes().to_vec(),
        parent_span_id: if number == 1 { Vec::new() } else { 1_u64.to_be_bytes().to_vec() },
        name: "GET /cart".to_owned(),
        start_time_unix_nano: start,
        end_time_unix_nano: start + duration_ms * 1_000_000,
        ..Span::default()
    }
}

fn failed(span: Span) -> Span {
    Span { status: Some(Status { code: 2, ..Status::default() }), ..span }
}

#[test]
fn a_restart_knows_what_slow_is() {
    let mut world =
        World::new("\n  - { name: slow, slower_than: p95, keep: 100% }\n  - { name: rest, keep: 0% }");
    for n in 0..300 {
        world.root(10 + n % 5);
    }
    world.pass(25_000);
    let cart = |world: &mut World| {
        let known = world.life().engine().slow.known();
        known.into_iter().find(|known| known.name.as_deref() == Some("GET /cart")).unwrap()
    };
    let before = cart(&mut world);
    assert_eq!((before.observations, before.thresholds.len()), (300, 1));
    world.die_and_start();
    assert_eq!(cart(&mut world).thresholds, before.thresholds);
    let (slow, ordinary) = (world.root(100), world.root(11));
    world.pass(2_000);
    assert_eq!((world.left(slow).len(), world.left(ordinary).len()), (1, 0));
    assert_eq!(world.left(slow)[0].policy, "slow");
    for _ in 0..300 {
        world.root(11);
    }
    world.pass(25_000);
    assert_eq!(cart(&mut world).observations, 602, "what is learned now joins what was");
}

#[test]
fn a_restart_does_not_split_a_trace_that_was_kept() {
    let mut world = World::new(
        "\n  - { name: errors, match: '{ status = error }', keep: 100% }\n  - { name: rest, keep: 0% }",
    );
    let trace = world.root(10);
    world.send(failed(span(trace, 2, 5)));
    // Once with the state, once with the outbox behind it alone.
    for (late, rests_ms) in [(3, 12_000), (4, 0)] {
        world.pass(2_000);
        world.pass(rests_ms);
        world.die_and_start();
        world.send(span(trace, late, 5));
        world.pass(2_000);
        let left = world.left(trace);
        let (first, last) = (&left[0], left.last().unwrap());
        assert_eq!(
            left.iter().map(|piece| piece.spans).sum::<u32>(),
            late as u32,
            "nothing is missing, nothing twice"
        );
        assert_eq!(
            (&last.policy, last.threshold, last.weight_rule()),
            (&first.policy, first.threshold, first.weight_rule())
        );
    }
    assert!(world.life().engine().ledger.balance().balances());
}

#[test]
fn hindsight_does_not_survive_a_restart_and_an_error_that_comes_then_leaves_alone() {
    let mut world = World::new(
        "\n  - { name: errors, match: '{ status = error }', keep: 100% }\n  - { name: rest, keep: 0% }",
    );
    let (here, gone) = (world.root(10), world.root(10));
    world.pass(2_000);
    world.send(failed(span(here, 2, 5)));
    world.pass(12_000);
    assert_eq!(world.left(here).iter().map(|piece| piece.spans).sum::<u32>(), 2, "all of it is in memory");
    world.die_and_start();
    world.send(failed(span(gone, 2, 5)));
    world.pass(12_000);
    let left = world.left(gone);
    assert_eq!(left.iter().map(|piece| (piece.spans, piece.whole)).collect::<Vec<_>>(), [(1, false)]);
    assert_ne!(left[0].reason(), Reason::Late);
}

const BUDGETS: [&str; 3] =
    ["5/s", "{ share: 100%, at_most: 300/min, per: [name] }", "{ share: 1%, at_least: 300/min }"];

/// Twenty a second for a minute and a half.
fn steady(keep: &str) -> World {
    let mut world = World::new(&format!("\n  - {{ name: all, keep: {} }}", keep));
    for _ in 0..900 {
        world.root(10);
        world.root(10);
        world.pass(100);
    }
    world
}

#[test]
fn a_restart_goes_on_with_the_shares_that_budgets_had() {
    for keep in BUDGETS {
        let mut world = steady(keep);
        world.pass(10_100);
        world.die_and_start();
        let share = world.share();
        assert!((share - 0.25).abs() < 0.07, "{keep}: {share}");
        let trace = world.root(10);
        world.pass(2_000);
        let probability = world.share();
        assert!(probability < 0.5, "{keep}: {probability}, trace {trace}");
    }
}

#[test]
fn a_budget_begins_anew_with_another_formula_and_with_a_state_that_knows_no_budgets() {
    let mut world = steady("5/s");
    world.pass(10_100);
    let state = world.disk.content(Path::new(STATE)).unwrap();
    world.config = World::new("\n  - { name: all, keep: 6/s }").config;
    world.die_and_start();
    assert_eq!(world.share(), 1.0, "another formula");
    world.config = World::new("\n  - { name: all, keep: 5/s }").config;
    world.life = None;
    world.disk.kill();
    let mut older = proto::State::decode(&state[8..]).unwrap();
    assert_eq!(std::mem::take(&mut older.budgets).len(), 1);
    let body = older.encode_to_vec();
    world.disk.put(Path::new(STATE), [&state[..4], &crc32c::crc32c(&body).to_le_bytes(), &body].concat());
    world.start();
    assert_eq!(world.share(), 1.0, "a state of an earlier version");
}
