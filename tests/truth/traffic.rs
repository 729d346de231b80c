//! Traffic whose truth is known: operations from busy to rare, durations of several laws, errors, late spans, and
//! senders that have sampled by half.

use std::collections::{BTreeMap, HashMap};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;

use crate::random::Random;
use crate::world::{SECOND_0, World};

pub const SERVICES: u64 = 10;
/// Of the head samplers: half.
const HEAD_TH: u64 = 1 << 55;
const TICK_MS: u64 = 500;

/// What traffic is like. Operations are numbers; of each a law of [`duration_ms`] is known.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub seconds: u64,
    pub traces_per_second: u64,
    /// Share of the traffic of each group of operations in percent, and how many operations it has.
    pub operations: Vec<(u64, u64)>,
    /// From here on operations with an odd number take three times as long.
    pub shift_second: Option<u64>,
    pub orderly_restart_second: Option<u64>,
    pub kill_second: Option<u64>,
    /// So many traces get a span after their verdict.
    pub late_one_in: Option<u64>,
    /// Trace IDs count up, and nobody has sampled.
    pub counting: bool,
}

/// What was sent, and what head samplers have left out before.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    pub traces: u64,
    pub spans: u64,
    pub failed_spans: u64,
    pub traces_by_operation: HashMap<u64, u64>,
    /// Traces that arrived, by operation.
    pub arrived: HashMap<u64, u64>,
    /// Of those the traces that came after both windows had forgotten the shift.
    pub settled: HashMap<u64, u64>,
}

struct Trace {
    id: u128,
    operation: u64,
    start_ms: u64,
    duration_ms: f64,
    failed: bool,
    /// Milliseconds after the others comes one more span; whether it failed.
    late: Option<(u64, bool)>,
    head_sampled: bool,
}

/// By operation: steady, of two modes, constant.
fn duration_ms(operation: u64, random: &mut Random) -> f64 {
    match operation / SERVICES % 3 {
        0 => -20.0 * random.unit().ln(),
        1 if random.below(10) == 0 => 200.0 + 50.0 * random.unit(),
        1 => 10.0 + 5.0 * random.unit(),
        _ => 20.0,
    }
}

pub fn is_constant(operation: u64) -> bool {
    operation / SERVICES % 3 == 2
}

pub fn is_shifted(operation: u64) -> bool {
    operation % 2 == 1
}

pub fn name_of(operation: u64) -> String {
    format!("op-{operation:04}")
}

pub fn operation_of(name: &str) -> u64 {
    name.strip_prefix("op-").unwrap().parse().unwrap()
}

impl Plan {
    /// Two windows after the shift, and the wait of the last trace before.
    pub fn settled_ms(&self) -> Option<u64> {
        self.shift_second.map(|shift| (shift + 610) * 1_000)
    }

    fn operation(&self, random: &mut Random) -> u64 {
        let mut ticket = random.below(100);
        let mut first = 0;
        for (share, operations) in &self.operations {
            if ticket < *share {
                return first + random.below(*operations);
            }
            ticket -= share;
            first += operations;
        }
        unreachable!("the shares are a hundred")
    }

    fn trace(&self, random: &mut Random, number: u64, start_ms: u64) -> Trace {
        let operation = self.operation(random);
        let shifted =
            self.shift_second.is_some_and(|shift| start_ms >= shift * 1_000) && is_shifted(operation);
        let is_late = self.late_one_in.is_some_and(|traces| random.below(traces) == 0);
        let late = is_late.then(|| (15_000 + random.below(25_000), random.below(5) == 0));
        let id = u128::from(random.next()) << 64 | u128::from(random.next());
        Trace {
            id: if self.counting { u128::from(number) } else { id },
            operation,
            start_ms,
            duration_ms: duration_ms(operation, random) * if shifted { 3.0 } else { 1.0 },
            failed: random.below(100) == 0,
            late,
            head_sampled: !self.counting && random.below(10) == 0,
        }
    }

    /// Sends all of it to an instance, restarts included, and lets it judge.
    pub fn run(&self, world: &mut World) -> Truth {
        let mut random = Random(self.seed);
        let mut truth = Truth::default();
        let mut later: BTreeMap<u64, Vec<(u64, Span)>> = BTreeMap::new();
        let per_tick = self.traces_per_second * TICK_MS / 1_000;
        for at_ms in (0..self.seconds * 1_000).step_by(TICK_MS as usize) {
            world.advance(at_ms);
            let mut request = Request::default();
            for (service, span) in later.remove(&at_ms).unwrap_or_default() {
                request.push(service, span);
            }
            for _ in 0..per_tick {
                let trace = self.trace(&mut random, truth.traces + 1, at_ms);
                truth.count(&trace, self.settled_ms());
                if !trace.arrives() {
                    continue;
                }
                let service = trace.operation % SERVICES;
                trace.spans().into_iter().for_each(|span| request.push(service, span));
                if let Some((after_ms, failed)) = trace.late {
                    let tick_ms = (at_ms + after_ms) / TICK_MS * TICK_MS;
                    later.entry(tick_ms).or_default().push((service, trace.late_span(failed)));
                }
            }
            world.receive(request.encode());
            let second = |second: Option<u64>| second.is_some_and(|second| second * 1_000 == at_ms);
            if second(self.orderly_restart_second) {
                world.restart();
            }
            if second(self.kill_second) {
                world.kill();
            }
        }
        for (at_ms, spans) in later {
            world.advance(at_ms);
            let mut request = Request::default();
            spans.into_iter().for_each(|(service, span)| request.push(service, span));
            world.receive(request.encode());
        }
        world.advance(self.seconds * 1_000 + 60_000);
        world.advance(self.seconds * 1_000 + 80_000);
        truth
    }
}

impl Truth {
    fn count(&mut self, trace: &Trace, settled_ms: Option<u64>) {
        self.traces += 1;
        self.spans += 2 + u64::from(trace.late.is_some());
        self.failed_spans +=
            u64::from(trace.failed) + u64::from(trace.late.is_some_and(|(_, failed)| failed));
        *self.traces_by_operation.entry(trace.operation).or_default() += 1;
        if trace.arrives() {
            *self.arrived.entry(trace.operation).or_default() += 1;
            if settled_ms.is_some_and(|settled_ms| trace.start_ms >= settled_ms) {
                *self.settled.entry(trace.operation).or_default() += 1;
            }
        }
    }
}

impl Trace {
    fn arrives(&self) -> bool {
        !self.head_sampled || self.id as u64 & ((1 << 56) - 1) >= HEAD_TH
    }

    /// A root and its child; the child fails.
    fn spans(&self) -> [Span; 2] {
        [self.span(1, None, false), self.span(2, Some(1), self.failed)]
    }

    fn late_span(&self, failed: bool) -> Span {
        self.span(3, Some(1), failed)
    }

    fn span(&self, number: u64, parent: Option<u64>, failed: bool) -> Span {
        let start = SECOND_0 * 1_000_000_000 + self.start_ms * 1_000_000;
        let parent_span_id = parent.map(|parent| parent.to_be_bytes().to_vec()).unwrap_or_default();
        let duration_ms = if number == 1 { self.duration_ms } else { 1.0 };
        Span {
            trace_id: self.id.to_be_bytes().to_vec(),
            span_id: number.to_be_bytes().to_vec(),
            parent_span_id,
            trace_state: if self.head_sampled { "ot=th:8".to_owned() } else { String::new() },
            name: if number == 1 { name_of(self.operation) } else { "work".to_owned() },
            start_time_unix_nano: start,
            end_time_unix_nano: start + (duration_ms * 1e6) as u64,
            status: failed.then(|| Status { code: 2, ..Status::default() }),
            ..Span::default()
        }
    }
}

/// One request, its spans by service.
#[derive(Default)]
struct Request {
    services: BTreeMap<u64, Vec<Span>>,
}

impl Request {
    fn push(&mut self, service: u64, span: Span) {
        self.services.entry(service).or_default().push(span);
    }

    fn encode(self) -> Vec<u8> {
        let resource_spans = self.services.into_iter().map(|(service, spans)| {
            let value = Some(AnyValue { value: Some(Value::StringValue(format!("service-{service}"))) });
            let attributes = vec![KeyValue { key: "service.name".to_owned(), value, ..KeyValue::default() }];
            ResourceSpans {
                resource: Some(Resource { attributes, ..Resource::default() }),
                scope_spans: vec![ScopeSpans { spans, ..ScopeSpans::default() }],
                ..ResourceSpans::default()
            }
        });
        ExportTraceServiceRequest { resource_spans: resource_spans.collect() }.encode_to_vec()
    }
}
