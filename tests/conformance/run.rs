//! Runs a scenario through an instance that is turned by hand, and writes down what can be seen from outside:
//! answers to senders, what an exporter reads, what the buffer knows of a trace, counters.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anyhow::Context;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use serde_json::Value;
use tailwater::buffer::{Key, State};
use tailwater::config::{self, Config};
use tailwater::exporter::outbox::Tail;
use tailwater::log::SimDisk;
use tailwater::pipeline::{Settings, Simulation};
use tailwater::proto::{Piece, Reason, WeightRule};
use tailwater::trace::{TenantId, TraceId};
use tokio::runtime::Runtime;

use crate::common::SimClock;
use crate::format::{Action, Scenario, What, millis};
use crate::settings;
use crate::traffic::{self, Id, Placed, Request, SECOND_0, Sent};

const EXPORTER: &str = "backend";
/// Between two turns while there is traffic, and while there is none.
const BUSY_MS: u64 = 20;
const IDLE_MS: u64 = 100;

/// What a sender was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Accepted,
    Later,
    Never,
}

/// A judgement of one trace, as the buffer tells it.
#[derive(Clone, Debug)]
pub struct Judged {
    pub at_ms: u64,
    /// None: nothing of it is in memory any more.
    pub verdict: Option<Verdict>,
    /// IDs of the spans that it was the first to see.
    pub spans: Vec<u64>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    pub kept: bool,
    pub policy: String,
    pub whole: bool,
}

/// A piece at the backend.
#[derive(Clone, Debug)]
pub struct Export {
    pub at_ms: u64,
    pub policy: String,
    pub reason: Reason,
    pub whole: bool,
    pub complete: bool,
    pub weighs: bool,
    pub resources: usize,
    pub spans: Vec<Placed>,
    /// The last record of its piece.
    pub ends_piece: bool,
}

/// What became of one trace.
#[derive(Debug, Default)]
pub struct Story {
    pub sent: Vec<Sent>,
    pub answers: Vec<Answer>,
    /// Accepted spans that nothing has judged yet, by ID.
    pub waiting: Vec<u64>,
    pub judged: Vec<Judged>,
    pub exports: Vec<Export>,
    /// Nothing of it was in memory when its last spans came.
    pub forgotten: bool,
}

/// What became of a scenario.
#[derive(Debug, Default)]
pub struct Outcome {
    pub stories: HashMap<Id, Story>,
    /// Traces by name, in order of arrival.
    pub named: BTreeMap<String, Vec<Id>>,
    /// Samples of `/metrics`, summed over the lives of the process but for gauges.
    pub samples: BTreeMap<String, f64>,
    pub refused: u64,
    pub rejected: u64,
    /// Sentences about what must hold always and did not.
    pub faults: Vec<String>,
}

struct Life {
    instance: Simulation,
    tail: Tail,
}

struct Run {
    runtime: Runtime,
    config: Config,
    disk: SimDisk,
    now_ms: Arc<AtomicU64>,
    turned_ms: u64,
    life: Option<Life>,
    backend_fails: bool,
    /// Traces with spans that wait, by name; those of a group are judged in the order of their arrival.
    waiting: BTreeMap<String, VecDeque<Id>>,
    groups: Vec<String>,
    outcome: Outcome,
}

/// Runs it on a configuration to its end.
pub fn run(scenario: &Scenario, tailwater: &Value) -> anyhow::Result<Outcome> {
    let config = settings::config(tailwater)?;
    let last_wait_ms = config.buffer.max_wait.as_millis() + 1000;
    let groups = scenario.spans.iter().filter(|line| line.repeat.is_some());
    let mut run = Run {
        runtime: tokio::runtime::Builder::new_current_thread().build()?,
        config,
        disk: SimDisk::new(1),
        now_ms: Arc::default(),
        turned_ms: 0,
        life: None,
        backend_fails: false,
        waiting: BTreeMap::new(),
        groups: groups.filter_map(|line| line.trace.clone()).collect(),
        outcome: Outcome::default(),
    };
    run.start()?;
    let requests = traffic::requests(scenario);
    let last_ms = requests.iter().map(|request| request.at_ms).max().unwrap_or(0);
    let last_ms = scenario.actions.iter().map(|action| millis(action.at)).fold(last_ms, u64::max);
    let mut actions: VecDeque<&Action> = scenario.actions.iter().collect();
    for request in requests {
        while let Some(action) = actions.pop_front_if(|action| millis(action.at) <= request.at_ms) {
            run.act(action)?;
        }
        run.advance(request.at_ms, BUSY_MS)?;
        run.receive(request);
    }
    for action in actions {
        run.act(action)?;
    }
    match scenario.until {
        Some(until) => run.advance(millis(until), BUSY_MS)?,
        None => run.settle(last_ms + last_wait_ms)?,
    }
    run.end_of_life(false)?;
    Ok(run.outcome)
}

impl Run {
    fn start(&mut self) -> anyhow::Result<()> {
        let clock = SimClock::new(SECOND_0 * 1000, self.now_ms.clone());
        let settings = Settings { storage: self.disk.storage(), clock, seed: 1, ..Settings::default() };
        let instance = Simulation::build(&self.config, &settings)?;
        let tail = tail(&instance);
        self.life = Some(Life { instance, tail });
        Ok(())
    }

    fn now(&self) -> u64 {
        self.now_ms.load(Relaxed)
    }

    /// Lets time pass until then, and turns the instance.
    fn advance(&mut self, to_ms: u64, pause_ms: u64) -> anyhow::Result<()> {
        while self.now() < to_ms {
            let next_ms = (self.now() / IDLE_MS + 1) * IDLE_MS;
            self.now_ms.store(next_ms.min(to_ms), Relaxed);
            if self.now() >= self.turned_ms + pause_ms {
                self.turn()?;
            }
        }
        Ok(())
    }

    /// Lets time pass until nothing waits any more.
    fn settle(&mut self, at_most_ms: u64) -> anyhow::Result<()> {
        self.turn()?;
        while self.now() < at_most_ms && self.waits() {
            self.advance(self.now() + IDLE_MS, 0)?;
        }
        Ok(())
    }

    fn waits(&self) -> bool {
        self.life.as_ref().is_some_and(|life| life.instance.engine().buffer.counts().unjudged > 0)
    }

    fn turn(&mut self) -> anyhow::Result<()> {
        self.turned_ms = self.now();
        let Some(life) = &mut self.life else { return Ok(()) };
        life.instance.turn()?;
        self.look()
    }

    fn act(&mut self, action: &Action) -> anyhow::Result<()> {
        self.advance(millis(action.at), BUSY_MS)?;
        match action.what {
            What::Stop => self.end_of_life(true)?,
            What::Start => self.start()?,
            What::Drain => {
                if let Some(life) = &mut self.life {
                    life.instance.drain()?;
                }
                self.look()?;
                self.end_of_life(true)?;
            }
            What::BackendFails => self.backend_fails = true,
            What::BackendRecovers => {
                self.backend_fails = false;
                // What was refused is read again.
                if let Some(life) = &mut self.life {
                    life.tail = tail(&life.instance);
                }
                self.turn()?;
            }
            What::Reload => self.reload(action)?,
        }
        Ok(())
    }

    fn reload(&mut self, action: &Action) -> anyhow::Result<()> {
        let text =
            settings::text(action.tailwater.as_ref().context("a reload names the file's content")?).text;
        let life = self.life.as_mut().context("a reload needs a running process")?;
        let reloaded = life.instance.reload(config::inspect(&text, "scenario.yaml".as_ref()));
        match (&reloaded, action.outcome.as_deref()) {
            (Ok(_), None) | (Err(_), Some("refused")) => {}
            _ => self.fault(format!("the reload gave {reloaded:?} instead of {:?}", action.outcome)),
        }
        Ok(())
    }

    fn receive(&mut self, request: Request) {
        let result = match &self.life {
            Some(life) => self.forgotten(&request).map(|forgotten| {
                let body = request.body.clone().into();
                (forgotten, self.runtime.block_on(life.instance.receive("", body)))
            }),
            None => None,
        };
        let (answer, forgotten) = match result {
            None => (Answer::Later, Vec::new()),
            Some((forgotten, Ok(accepted))) => {
                self.outcome.rejected += u64::from(accepted.rejected);
                let bad = request.spans.iter().filter(|sent| !sent.valid).count();
                if bad != accepted.rejected as usize {
                    self.fault(format!("{} spans were rejected instead of {bad}", accepted.rejected));
                }
                (Answer::Accepted, forgotten)
            }
            Some((_, Err(rejection))) => {
                let later = rejection.answer().retry_after.is_some();
                (if later { Answer::Later } else { Answer::Never }, Vec::new())
            }
        };
        self.outcome.refused += u64::from(answer != Answer::Accepted);
        for (number, sent) in request.spans.into_iter().enumerate() {
            self.arrived(sent, answer, forgotten.get(number).copied().unwrap_or(false));
        }
    }

    /// Which spans are of traces of which nothing is in memory.
    fn forgotten(&self, request: &Request) -> Option<Vec<bool>> {
        let life = self.life.as_ref()?;
        let buffer = &life.instance.engine().buffer;
        Some(request.spans.iter().map(|sent| buffer.known(key(sent.trace)).is_none()).collect())
    }

    fn arrived(&mut self, sent: Sent, answer: Answer, forgotten: bool) {
        if !self.outcome.stories.contains_key(&sent.trace) {
            self.outcome.named.entry(sent.name.clone()).or_default().push(sent.trace);
        }
        let story = self.outcome.stories.entry(sent.trace).or_default();
        story.answers.push(answer);
        story.forgotten = forgotten && !story.sent.is_empty();
        if answer == Answer::Accepted && sent.valid {
            if story.waiting.is_empty() {
                self.waiting.entry(sent.name.clone()).or_default().push_back(sent.trace);
            }
            story.waiting.push(id_of(&sent.placed));
        }
        story.sent.push(sent);
    }

    /// Reads what was sent and asks what was judged.
    fn look(&mut self) -> anyhow::Result<()> {
        let Some(life) = &mut self.life else { return Ok(()) };
        if let Some(failure) = life.instance.failure() {
            self.outcome.faults.push(format!("the process would have ended: {failure}"));
        }
        loop {
            let parcels = life.tail.read(1 << 24)?;
            if parcels.is_empty() {
                break;
            }
            for parcel in parcels.iter().filter(|_| !self.backend_fails) {
                let trace = Id::try_from(&parcel.piece.trace_id[..])?;
                let story = self.outcome.stories.entry(trace).or_default();
                let ends_piece = parcel.end > parcel.at;
                story.exports.push(Export { ends_piece, ..export(&parcel.piece)? });
                life.tail.subscription().cursor.advance(parcel.end);
            }
        }
        let mut waiting = std::mem::take(&mut self.waiting);
        for (name, traces) in &mut waiting {
            let in_order = self.groups.contains(name);
            let mut left = VecDeque::new();
            while let Some(trace) = traces.pop_front() {
                if !self.judged(trace) {
                    left.push_back(trace);
                    if in_order {
                        break;
                    }
                }
            }
            left.append(traces);
            *traces = left;
        }
        self.waiting = waiting;
        Ok(())
    }

    /// Notes the judgement of a trace that waited; false: it waits still.
    fn judged(&mut self, trace: Id) -> bool {
        let Some(life) = &self.life else { return false };
        let engine = life.instance.engine();
        let known = engine.buffer.known(key(trace));
        if known.as_ref().is_some_and(|known| known.unjudged > 0) {
            return false;
        }
        let story = self.outcome.stories.get_mut(&trace).expect("it has arrived");
        let spans = std::mem::take(&mut story.waiting);
        let verdict = known.map(|known| {
            let dropped_by =
                known.dropped_by.map(|(policy, _)| engine.policies.load().policies.name(policy).to_owned());
            let sent_by = known.sent.map(|sent| sent.policy.to_string());
            let has_left = |id: &u64| {
                let mut sent = story.exports.iter().flat_map(|export| &export.spans);
                sent.any(|placed| id_of(placed) == *id)
            };
            let kept = match known.state {
                State::Stream => spans.iter().all(has_left),
                state => state == State::Kept,
            };
            let policy = if kept { sent_by } else { dropped_by };
            Verdict { kept, policy: policy.unwrap_or_default(), whole: known.root_seen }
        });
        story.judged.push(Judged { at_ms: self.now_ms.load(Relaxed), verdict, spans });
        true
    }

    /// The books of a life are read at its end.
    fn end_of_life(&mut self, orderly: bool) -> anyhow::Result<()> {
        let Some(life) = self.life.take() else { return Ok(()) };
        let balance = life.instance.engine().ledger.balance();
        if !balance.balances() {
            self.fault(format!("the ledger does not balance: {balance}"));
        }
        let text = String::from_utf8(life.instance.telemetry().collect().encode()?)?;
        let gauges: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" gauge")).collect();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').expect("a sample has a value");
            let family = name.split('{').next().unwrap_or(name);
            let sample = self.outcome.samples.entry(name.to_owned()).or_default();
            let before = if gauges.contains(&family) { 0.0 } else { *sample };
            *sample = before + value.parse::<f64>()?;
        }
        drop(life.tail);
        life.instance.shutdown()?;
        if orderly {
            self.disk.kill();
        }
        Ok(())
    }

    fn fault(&mut self, fault: String) {
        self.outcome.faults.push(fault);
    }
}

fn tail(instance: &Simulation) -> Tail {
    instance.outbox().tail(EXPORTER).expect("the exporter is configured")
}

fn key(trace: Id) -> Key {
    Key { trace: TraceId(trace), tenant: TenantId(0) }
}

/// The integer of a span ID.
pub fn id_of(placed: &Placed) -> u64 {
    let mut bytes = [0; 8];
    let id = &placed.span.span_id;
    bytes[8 - id.len().min(8)..].copy_from_slice(&id[..id.len().min(8)]);
    u64::from_be_bytes(bytes)
}

fn export(piece: &Piece) -> anyhow::Result<Export> {
    let request = ExportTraceServiceRequest::decode(&piece.otlp[..])?;
    let resources = request.resource_spans.len();
    let mut spans = Vec::new();
    for resource_spans in request.resource_spans {
        let resource = resource_spans.resource.unwrap_or_default();
        for scope_spans in resource_spans.scope_spans {
            for span in scope_spans.spans {
                spans.push(Placed {
                    span,
                    resource: resource.clone(),
                    resource_schema: resource_spans.schema_url.clone(),
                    scope: scope_spans.scope.clone(),
                    scope_schema: scope_spans.schema_url.clone(),
                });
            }
        }
    }
    Ok(Export {
        at_ms: piece.decided_at_ms - SECOND_0 * 1000,
        policy: piece.policy.clone(),
        reason: piece.reason(),
        whole: piece.whole,
        complete: piece.complete,
        weighs: piece.weight_rule() != WeightRule::Zero,
        resources,
        spans,
        ends_piece: true,
    })
}
