//! Streams in a whole instance that is turned by hand: what a crash leaves of them, and what leaves in portions.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;

use super::{HandClock, Settings, Simulation};
use crate::buffer::{Key, State};
use crate::config::{self, Config};
use crate::log::SimDisk;
use crate::proto::{Piece, Reason, TraceState, WeightRule};
use crate::trace::{TenantId, TraceId};

const START_MS: u64 = 1_700_000_000_000;
const TRACE: TraceId = TraceId([9; 16]);
const ERRORS_ALONE: &str = "
policies:
  - { name: errors, match: '{ status = error }', keep: 100% }
  - { name: rest, keep: 0% }
";

struct World {
    config: Config,
    disk: SimDisk,
    now_ms: Arc<AtomicU64>,
    life: Option<Simulation>,
    pieces: Vec<Piece>,
}

fn world(policies: &str) -> World {
    let rest = "data: { path: data }\nbuffer: { memory: 256MiB }\n\
                exporters: { otlp: [{ name: backend, endpoint: 'http://backend:4317' }] }\n";
    let config = config::load(&format!("{policies}{rest}"), "t.yaml".as_ref()).unwrap();
    let mut world =
        World { config, disk: SimDisk::new(1), now_ms: Arc::default(), life: None, pieces: Vec::new() };
    world.start();
    world
}

/// A span of the trace with an ID and a parent's, 0: none.
fn span(id: u64, parent: u64) -> Span {
    Span {
        trace_id: TRACE.0.to_vec(),
        span_id: id.to_be_bytes().to_vec(),
        parent_span_id: if parent == 0 { Vec::new() } else { parent.to_be_bytes().to_vec() },
        start_time_unix_nano: START_MS * 1_000_000,
        end_time_unix_nano: START_MS * 1_000_000 + 1,
        ..Span::default()
    }
}

fn failed(span: Span) -> Span {
    Span { status: Some(Status { code: 2, ..Status::default() }), ..span }
}

fn padded(span: Span, bytes: usize) -> Span {
    let value = Some(AnyValue { value: Some(Value::StringValue("x".repeat(bytes))) });
    let attributes = vec![KeyValue { key: "pad".to_owned(), value, ..KeyValue::default() }];
    Span { attributes, ..span }
}

impl World {
    fn start(&mut self) {
        let clock = HandClock::new(START_MS, &self.now_ms);
        let settings = Settings { storage: self.disk.storage(), clock, seed: 1, ..Settings::default() };
        self.life = Some(Simulation::build(&self.config, &settings).unwrap());
    }

    fn life(&mut self) -> &mut Simulation {
        self.life.as_mut().unwrap()
    }

    /// Ends with what a crash leaves, both logs and the state of up to ten seconds ago, and starts again.
    fn die_and_start(&mut self) {
        let path = Path::new("data/state");
        let state = self.disk.content(path).unwrap();
        self.life.take().unwrap().shutdown().unwrap();
        self.disk.kill();
        self.disk.put(path, state);
        self.start();
    }

    fn send(&mut self, spans: Vec<Span>) {
        let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
        let resource_spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
        let body = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let accepted = runtime.block_on(self.life().receive("", body.into())).unwrap();
        assert_eq!(accepted.rejected, 0);
    }

    /// Lets time pass, turning the instance, without a state in between.
    fn at(&mut self, second: u64) -> &mut Self {
        while self.now_ms.load(Relaxed) < second * 1000 {
            self.now_ms.fetch_add(500, Relaxed);
            self.life().turn().unwrap();
            self.read();
        }
        self
    }

    fn read(&mut self) {
        let mut tail = self.life().outbox().tail("backend").unwrap();
        for parcel in tail.read(1 << 30).unwrap() {
            tail.subscription().cursor.advance(parcel.end);
            self.pieces.push(parcel.piece);
        }
    }

    fn ids(piece: &Piece) -> impl Iterator<Item = u64> {
        let request = ExportTraceServiceRequest::decode(&piece.otlp[..]).unwrap();
        let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        let spans = scopes.flat_map(|scope| scope.spans);
        spans.map(|span| u64::from_be_bytes(span.span_id[..].try_into().unwrap()))
    }

    /// How often each span left.
    fn left(&self) -> HashMap<u64, usize> {
        let mut left = HashMap::new();
        for id in self.pieces.iter().flat_map(Self::ids) {
            *left.entry(id).or_default() += 1;
        }
        left
    }

    /// Which spans left, and whether without weight.
    fn weightless(&self) -> HashMap<u64, bool> {
        let mut left = HashMap::new();
        for piece in &self.pieces {
            let one = Self::ids(piece).map(|id| (id, piece.weight_rule() == WeightRule::Zero));
            for (id, weightless) in one {
                assert_eq!(left.insert(id, weightless), None, "span {id} left twice");
            }
        }
        left
    }

    fn state(&mut self) -> Option<State> {
        let key = Key { trace: TRACE, tenant: TenantId(0) };
        self.life().engine().buffer.known(key).map(|known| known.state)
    }

    fn assert_balance(&mut self) {
        let balance = self.life().engine().ledger.balance();
        assert!(balance.balances(), "{balance}");
    }
}

#[test]
fn what_a_stream_has_sent_is_not_sent_again_after_a_crash_wherever_it_comes() {
    // Before and after the state that follows each judgement.
    for crash_at in [61, 65, 75, 95, 101, 115, 205, 211, 225, 265] {
        let mut world = world(ERRORS_ALONE);
        let mut crashed = false;
        for (second, spans) in [
            (1, vec![failed(span(2, 1)), span(3, 1)]),
            (90, vec![span(4, 2), span(5, 1)]),
            (200, vec![span(1, 0)]),
            (260, vec![span(6, 1)]),
        ] {
            if !crashed && second > crash_at {
                world.at(crash_at).die_and_start();
                crashed = true;
            }
            world.at(second).send(spans);
        }
        world.at(300).assert_balance();
        let left = world.left();
        assert!(left.values().all(|times| *times == 1), "crash at {crash_at}: {left:?}");
        assert_eq!((left.get(&2), left.get(&1)), (Some(&1), Some(&1)), "crash at {crash_at}");
        assert_eq!(left.get(&5), None, "crash at {crash_at}");
        // A restart forgets what was dropped, as soon as nothing of it must be read again.
        let forgotten = crash_at > 210 && world.state() == Some(State::Open);
        assert!(forgotten || world.state() == Some(State::Dropped), "crash at {crash_at}");
    }
}

/// Section 3 of the contract on units of a stream, said as plainly as can be: sets of spans, and walks from
/// parent to parent.
#[derive(Default)]
struct Model {
    spans: Vec<Modelled>,
}

#[derive(Clone, Copy)]
struct Modelled {
    id: u64,
    parent: u64,
    failed: bool,
    round: usize,
    /// Left, and whether without weight.
    left: Option<bool>,
    /// Left by a verdict of that second, or below a unit of it.
    follows: Option<u64>,
}

impl Model {
    fn find(&self, id: u64) -> Option<usize> {
        self.spans.iter().position(|span| span.id == id)
    }

    /// From parent to parent, until there is none or they come again.
    fn ancestors(&self, span: usize) -> Vec<usize> {
        let mut found = Vec::new();
        let mut at = self.find(self.spans[span].parent);
        while let Some(parent) = at.filter(|parent| !found.contains(parent)) {
            found.push(parent);
            at = self.find(self.spans[parent].parent);
        }
        found
    }

    /// The local root, or one span of the circle.
    fn unit_of(&self, span: usize, round: usize) -> (bool, usize) {
        let mut path = vec![span];
        loop {
            let last = *path.last().unwrap();
            let parent = self.find(self.spans[last].parent);
            match parent.filter(|parent| self.spans[*parent].round == round) {
                None => return (true, last),
                Some(parent) => match path.iter().position(|span| *span == parent) {
                    Some(at) => return (false, *path[at..].iter().min().unwrap()),
                    None => path.push(parent),
                },
            }
        }
    }

    fn judge(&mut self, round: usize, opened: u64, now: u64) {
        let new: Vec<usize> = (0..self.spans.len()).filter(|span| self.spans[*span].round == round).collect();
        let had_left: Vec<usize> =
            (0..self.spans.len()).filter(|span| self.spans[*span].left.is_some()).collect();
        let mut units: Vec<((bool, usize), Vec<usize>)> = Vec::new();
        for span in &new {
            let unit = self.unit_of(*span, round);
            match units.iter_mut().find(|(known, _)| *known == unit) {
                Some((_, members)) => members.push(*span),
                None => units.push((unit, vec![*span])),
            }
        }
        let mut kept = Vec::new();
        for ((rooted, root), members) in units {
            let parent = self.find(self.spans[root].parent).filter(|_| rooted);
            let followed = parent.and_then(|parent| self.spans[parent].follows);
            let followed = followed.filter(|when| opened.saturating_sub(*when) < 300);
            let fails = members.iter().any(|span| self.spans[*span].failed);
            if let Some(when) = followed.or(fails.then_some(now)) {
                kept.push((root, members, when));
            }
        }
        for (_, members, when) in &kept {
            members.iter().for_each(|span| self.leave(*span, false, Some(*when)));
        }
        for (_, members, when) in &kept {
            for span in 0..self.spans.len() {
                if self.ancestors(span).iter().any(|above| members.contains(above)) {
                    self.leave(span, true, Some(*when));
                }
            }
        }
        for (root, ..) in &kept {
            self.ancestors(*root).into_iter().for_each(|span| self.leave(span, true, None));
        }
        for child in had_left {
            let parent = self.find(self.spans[child].parent).filter(|parent| new.contains(parent));
            if let Some(late) = parent.filter(|parent| self.spans[*parent].left.is_none()) {
                self.leave(late, true, None);
                self.ancestors(late).into_iter().for_each(|span| self.leave(span, true, None));
            }
        }
    }

    fn leave(&mut self, span: usize, weightless: bool, follows: Option<u64>) {
        let span = &mut self.spans[span];
        if span.left.is_none() {
            (span.left, span.follows) = (Some(weightless), follows);
        }
    }
}

fn units_are_judged_as_the_model_says(seed: u64) {
    let mut random = seed;
    let mut below = |n: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % n
    };
    let (mut world, mut model) = (world(ERRORS_ALONE), Model::default());
    // In any order, so that children come before their parents; 1 never comes.
    let mut ids: Vec<u64> = (2..30).collect();
    let mut second = 1;
    for round in 0..8 {
        let (due, opened) = (if round == 0 { 60 } else { 10 }, second);
        let mut spans = Vec::new();
        for _ in 0..1 + below(6) {
            let Some(last) = ids.len().checked_sub(1) else { break };
            let id = ids.swap_remove(below(last as u64 + 1) as usize);
            let (parent, failed) = (1 + below(29), below(7) == 0);
            let plain = span(id, parent);
            spans.push(if failed { self::failed(plain) } else { plain });
            model.spans.push(Modelled { id, parent, failed, round, left: None, follows: None });
        }
        if spans.is_empty() {
            break;
        }
        world.at(second).send(spans);
        world.at(second + due);
        model.judge(round, opened, second + due);
        let expected: HashMap<u64, bool> =
            model.spans.iter().filter_map(|span| Some((span.id, span.left?))).collect();
        assert_eq!(world.weightless(), expected, "seed {seed}, round {round}");
        world.assert_balance();
        second += due + [20, 70, 130, 330][below(4) as usize];
    }
    world.life.take().unwrap().shutdown().unwrap();
}

#[test]
fn what_leaves_of_random_streams_is_what_a_plain_model_says() {
    (0..60).for_each(units_are_judged_as_the_model_says);
}

#[test]
fn a_record_says_where_it_leaves_its_trace() {
    let mut world = world(ERRORS_ALONE);
    world.at(1).send(vec![failed(span(2, 1)), span(3, 2), span(4, 1)]);
    world.at(90).send(vec![failed(span(5, 4))]);
    world.at(120).send(vec![span(1, 0)]);
    world.at(140);
    let told: Vec<_> = world
        .pieces
        .iter()
        .map(|piece| (piece.reason(), piece.weight_rule(), piece.state_after(), piece.whole, piece.spans))
        .collect();
    let expected = [
        (Reason::Wait, WeightRule::Threshold, TraceState::Stream, false, 2),
        (Reason::Late, WeightRule::Threshold, TraceState::Stream, false, 1),
        (Reason::Context, WeightRule::Zero, TraceState::Stream, false, 1),
        (Reason::Context, WeightRule::Zero, TraceState::Dropped, true, 1),
    ];
    assert_eq!(told, expected);
    world.assert_balance();
}

#[test]
fn an_upgrade_of_a_giant_trace_leaves_in_groups_that_fit_a_piece() {
    let mut world = world(ERRORS_ALONE);
    for request in 0..10 {
        let spans =
            (0..100).map(|n| padded(span(1 + request * 100 + n, u64::from(request + n > 0)), 1 << 16));
        world.send(spans.collect());
    }
    world.at(30);
    assert_eq!((world.state(), world.pieces.len()), (Some(State::Dropped), 0));
    world.send(vec![failed(span(2000, 1))]);
    world.at(50);
    assert_eq!(world.state(), Some(State::Kept));
    let left = world.left();
    assert_eq!((left.len(), left.values().max()), (1001, Some(&1)));
    let through: Vec<_> = world.pieces.iter().map(Piece::through).collect();
    assert!(through.is_sorted() && through.len() >= 4, "{through:?}");
    assert!(world.pieces.iter().all(|piece| piece.otlp.len() <= 17 << 20));
    let balance = world.life().engine().ledger.balance();
    assert_eq!((balance.upgraded, balance.kept, balance.dropped), (1000, 1001, 1000));
    world.assert_balance();
}

#[test]
fn a_giant_stream_is_judged_and_sent_in_portions() {
    let mut world = world(ERRORS_ALONE);
    for request in 0..10 {
        let spans = (0..100).map(|n| {
            let message = padded(span(10 + request * 100 + n, 1), 1 << 16);
            if n == 50 { failed(message) } else { message }
        });
        world.send(spans.collect());
    }
    world.at(1);
    assert!(world.pieces.len() >= 4, "full pieces are judged at once: {}", world.pieces.len());
    world.at(70);
    let left = world.left();
    assert_eq!((left.len(), left.values().max()), (10, Some(&1)));
    assert_eq!(world.state(), Some(State::Stream));
    world.assert_balance();
}

#[test]
fn units_that_are_more_than_there_may_be_records_share_one_for_each_verdict() {
    let mut world = world(
        "policies:\n  - { name: errors, match: '{ status = error }', keep: 100% }\n  - { name: rest, keep: 100% }\n",
    );
    let message = |n: u64| if n.is_multiple_of(2) { span(10 + n, 1) } else { failed(span(10 + n, 1)) };
    world.at(1).send((0..1_000).map(message).collect());
    world.at(70);
    assert_eq!(world.pieces.len(), 1_000, "each unit has a record of its own");
    world.send((1_000..4_000).map(message).collect());
    world.at(90);
    let told: Vec<_> = world.pieces[2_024..].iter().map(|piece| (&*piece.policy, piece.spans)).collect();
    assert_eq!(told, [("rest", 988), ("errors", 988)]);
    let left = world.left();
    assert_eq!((left.len(), left.values().max()), (4_000, Some(&1)));
    world.assert_balance();
}

#[test]
fn one_trace_of_many_units_says_nothing_of_the_randomness_of_traces() {
    let mut world = world(ERRORS_ALONE);
    world.send((0..4_000).map(|n| span(10 + n, 1)).collect());
    world.at(70);
    let text = world.life().telemetry().collect().encode().unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("judged_units_total{policy=\"rest\",verdict=\"dropped\"} 4000"), "{text}");
    assert!(!text.contains("tailwater_sampler_randomness_share"), "{text}");
    world.assert_balance();
}

#[test]
fn what_follows_a_verdict_is_learned_like_what_is_judged() {
    let mut world = world(ERRORS_ALONE);
    let named = |name: &str, span: Span| Span { name: name.to_owned(), ..span };
    world.send(vec![failed(named("message", span(2, 1))), named("other", span(4, 1))]);
    world.at(70).send(vec![named("part", span(3, 2)), named("part", span(5, 4))]);
    world.at(90);
    let learned: HashMap<String, u64> = world
        .life()
        .engine()
        .slow
        .known()
        .into_iter()
        .filter_map(|known| Some((known.name?, known.observations)))
        .collect();
    let expected = [("message", 1), ("other", 1), ("part", 2)];
    assert_eq!(learned, expected.map(|(name, count)| (name.to_owned(), count)).into());
    assert_eq!(world.left().len(), 2, "the message, and the part of it that follows");
}
