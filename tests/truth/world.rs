//! An instance that is turned by hand, its disk, and a backend that remembers what it got.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tailwater::config::{self, Config};
use tailwater::exporter::outbox::Tail;
use tailwater::log::SimDisk;
use tailwater::pipeline::{Settings, Simulation};
use tailwater::proto::{Piece, WeightRule};
use tokio::runtime::Runtime;

use crate::common::SimClock;

/// Arrival clock at the beginning: the edge of a five-minute window.
pub const SECOND_0: u64 = 1_700_000_100;
const ALL: f64 = (1u64 << 56) as f64;

/// What the backend has of one trace.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// Of the first piece.
    pub policy: String,
    /// The root's name and start, once it came.
    pub root: Option<(String, u64)>,
    /// Of its root, and of the span that weighs most.
    pub root_weight: f64,
    pub weight: f64,
    /// Weights of all spans, and of those that failed.
    pub spans: f64,
    pub failed: f64,
    /// It was brought back: what left then stands for nothing.
    pub upgraded: bool,
    seen: HashSet<Vec<u8>>,
}

/// See the module.
pub struct World {
    runtime: Runtime,
    config: Config,
    disk: SimDisk,
    seed: u64,
    now_ms: Arc<AtomicU64>,
    life: Option<(Simulation, Tail)>,
    pub kept: HashMap<[u8; 16], Kept>,
}

impl World {
    /// `policies` as they stand in a file.
    pub fn new(policies: &str, seed: u64) -> Self {
        let text = format!(
            "data: {{ path: data }}\nbuffer: {{ memory: 256MiB }}\nexporters: {{ otlp: [{{ name: backend, endpoint: \
             \"http://backend:4317\" }}] }}\n{policies}"
        );
        let config = config::load(&text, "truth.yaml".as_ref()).unwrap_or_else(|error| panic!("{error}"));
        let mut world = Self {
            runtime: tokio::runtime::Builder::new_current_thread().build().unwrap(),
            config,
            disk: SimDisk::new(seed),
            seed,
            now_ms: Arc::default(),
            life: None,
            kept: HashMap::new(),
        };
        world.start();
        world
    }

    fn start(&mut self) {
        let clock = SimClock::new(SECOND_0 * 1000, self.now_ms.clone());
        let settings =
            Settings { storage: self.disk.storage(), clock, seed: self.seed, ..Settings::default() };
        let instance = Simulation::build(&self.config, &settings).unwrap();
        let tail = instance.outbox().tail("backend").unwrap();
        self.life = Some((instance, tail));
    }

    pub fn receive(&mut self, body: Vec<u8>) {
        let (instance, _) = self.life.as_ref().unwrap();
        let accepted = self.runtime.block_on(instance.receive("", body.into()));
        accepted.unwrap_or_else(|rejection| panic!("{rejection:?}"));
    }

    /// Lets time pass until then, judges what is due and delivers what is kept.
    pub fn advance(&mut self, to_ms: u64) {
        self.now_ms.store(to_ms, Relaxed);
        self.life.as_mut().unwrap().0.turn().unwrap();
        self.deliver();
    }

    /// A gauge or counter without labels.
    pub fn metric(&self, name: &str) -> f64 {
        let (instance, _) = self.life.as_ref().unwrap();
        let text = String::from_utf8(instance.telemetry().collect().encode().unwrap()).unwrap();
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok()).unwrap()
    }

    /// SIGTERM and a new start.
    pub fn restart(&mut self) {
        let (instance, tail) = self.end();
        drop(tail);
        instance.shutdown().unwrap();
        self.disk.kill();
        self.start();
    }

    /// `kill -9` and a new start: on the files as they are now. The old process ends on a disk of its own.
    pub fn kill(&mut self) {
        let (instance, tail) = self.end();
        let disk = SimDisk::new(self.seed);
        for dir in ["data", "data/input", "data/outbox"].map(Path::new) {
            for (name, _) in self.disk.storage().list(dir).unwrap() {
                let path = dir.join(name);
                if let Some(content) = self.disk.content(&path) {
                    disk.put(&path, content);
                }
            }
        }
        drop(tail);
        instance.shutdown().unwrap();
        self.disk = disk;
        self.start();
    }

    /// Judges and delivers everything.
    pub fn drain(mut self) -> HashMap<[u8; 16], Kept> {
        self.life.as_mut().unwrap().0.drain().unwrap();
        self.deliver();
        self.end().0.shutdown().unwrap();
        self.kept
    }

    /// The books of a life balance at its end.
    fn end(&mut self) -> (Simulation, Tail) {
        let life = self.life.take().unwrap();
        let balance = life.0.engine().ledger.balance();
        assert!(balance.balances(), "{balance}");
        assert_eq!(life.0.failure(), None);
        life
    }

    fn deliver(&mut self) {
        let (_, tail) = self.life.as_mut().unwrap();
        loop {
            let parcels = tail.read(1 << 24).unwrap();
            if parcels.is_empty() {
                return;
            }
            for parcel in parcels {
                let trace = parcel.piece.trace_id[..].try_into().unwrap();
                self.kept.entry(trace).or_default().take(&parcel.piece);
                tail.subscription().cursor.advance(parcel.end);
            }
        }
    }
}

impl Kept {
    fn take(&mut self, piece: &Piece) {
        if self.policy.is_empty() {
            self.policy.clone_from(&piece.policy);
        }
        self.upgraded |= piece.weight_rule() == WeightRule::Zero;
        for span in spans(piece) {
            // What a crash made come twice is there once.
            if !self.seen.insert(span.span_id.clone()) {
                continue;
            }
            let weight = weight(&span, piece);
            self.spans += weight;
            self.weight = self.weight.max(weight);
            if span.status.as_ref().is_some_and(|status| status.code == 2) {
                self.failed += weight;
            }
            if span.parent_span_id.is_empty() {
                self.root_weight = weight;
                self.root = Some((span.name, span.start_time_unix_nano));
            }
        }
    }
}

fn spans(piece: &Piece) -> impl Iterator<Item = Span> {
    let request = ExportTraceServiceRequest::decode(&piece.otlp[..]).unwrap();
    let scopes = request.resource_spans.into_iter().flat_map(|resource_spans| resource_spans.scope_spans);
    scopes.flat_map(|scope_spans| scope_spans.spans)
}

/// As section "Thresholds" of the conformance scenarios computes it.
fn weight(span: &Span, piece: &Piece) -> f64 {
    let th = span.trace_state.split([',', ';', '=']).find_map(|part| part.strip_prefix("th:"));
    let of_th = th.map_or(1.0, |th| {
        let threshold = u64::from_str_radix(&format!("{th:0<14}"), 16).unwrap();
        ALL / (ALL - threshold as f64)
    });
    match piece.weight_rule() {
        WeightRule::Threshold => of_th,
        WeightRule::Zero => 0.0,
        WeightRule::Hashed => of_th * ALL / (ALL - piece.threshold as f64),
    }
}

/// An estimate from weights, and its variance as stated: w (w - 1) of each kept trace.
#[derive(Clone, Copy, Debug, Default)]
pub struct Estimate {
    pub sum: f64,
    pub variance: f64,
}

impl Estimate {
    /// Adds a trace that stands for `weight` like it: `weighed` is the sum of weights of what is counted in it.
    pub fn add(&mut self, weight: f64, weighed: f64) {
        if weight > 0.0 {
            self.sum += weighed;
            self.variance += weighed * weighed * (1.0 - 1.0 / weight);
        }
    }

    /// How many standard deviations off, at least that of one trace.
    pub fn off(&self, truth: f64) -> f64 {
        (self.sum - truth) / self.variance.max(1.0).sqrt()
    }
}
