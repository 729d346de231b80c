//! What senders send: traces of several tenants in requests that overlap, come late, or come twice.

use std::collections::BTreeMap;

use bytes::Bytes;
use tailwater::trace::{Randomness, TraceId};

use crate::random::Random;
use crate::wire::{self, Plain};

pub const TENANTS: [&str; 3] = ["", "acme", "umbrella/x"];

/// A span of a run, and what became of it.
#[derive(Debug)]
pub struct Span {
    pub id: u64,
    pub root: bool,
    pub error: bool,
    pub message: Vec<u8>,
    pub hash: u64,
    /// Requests in which it was sent, answered or not.
    pub sends: u32,
    pub first_begun_ms: Option<u64>,
    /// Of the first request that was answered: when it was received, and when it was answered.
    pub acknowledged: Option<(u64, u64)>,
}

#[derive(Debug)]
pub struct Trace {
    pub id: TraceId,
    pub tenant: usize,
    pub randomness: Randomness,
    pub spans: Vec<Span>,
    /// Power was lost where that may cost spans: nothing is promised of it.
    pub excused: bool,
    /// Put into the outbox by the run itself.
    pub synthetic: bool,
    /// There was a verdict, which may have been forgotten.
    pub judged: bool,
    /// A drain judged it before its time.
    pub early: bool,
    /// What was stored of it was damaged: some of it may be gone, some may come again.
    pub damaged: bool,
    /// It took far longer than all others of its operation.
    pub outlier: bool,
}

/// What a span of a new trace is like.
#[derive(Clone, Copy, Debug)]
struct Look {
    root: bool,
    error: bool,
    /// Bytes of its name.
    name: usize,
    duration_ms: u64,
}

/// What most spans come from.
pub const SHOP: &str = "shop";
/// What bursts come from: one operation that takes always the same, but for outliers.
pub const BANK: &str = "bank";
pub const BANK_NAME: &str = "aaa";
const BANK_MS: u64 = 20;
const OUTLIER_MS: u64 = 2_000;

/// A span by its trace's number and its own.
pub type Name = (usize, usize);

/// Spans on their way, and their sender.
#[derive(Clone, Debug)]
pub struct Request {
    pub tenant: usize,
    pub body: Bytes,
    pub spans: Vec<Name>,
    pub tries: u32,
}

/// How long traces wait, for a trace to be late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits {
    pub after_root_ms: u64,
    pub max_wait_ms: u64,
    pub hindsight_ms: u64,
}

#[derive(Debug, Default)]
pub struct Traffic {
    pub traces: Vec<Trace>,
    /// Spans that will be sent, by time.
    agenda: BTreeMap<(u64, u64), Name>,
    planned: u64,
}

/// The number of a span, from which both can be read back.
pub fn span_id(trace: usize, index: usize) -> u64 {
    (trace as u64) << 12 | (index as u64 + 1)
}

pub fn name_of(id: u64) -> Name {
    ((id >> 12) as usize, (id & 0xfff) as usize - 1)
}

impl Traffic {
    /// Some service begins a trace.
    pub fn begin(&mut self, random: &mut Random, waits: Waits, large: u64, now_ms: u64) {
        let number = self.traces.len();
        let big = random.percent(large);
        let count = if big { random.between(20, 60) } else { random.between(1, 6) } as usize;
        let root_at = root_at(random, waits);
        let error_in = random.percent(35).then(|| random.below(count as u64) as usize);
        let root = root_at.map(|_| random.below(count as u64) as usize);
        let long = if big { 300 } else { 8 };
        let name = random.between(4, long) as usize;
        let tenant = random.pick(&[0, 0, 0, 1, 2]);
        let look = |index| Look {
            root: root == Some(index),
            error: error_in == Some(index),
            name,
            duration_ms: 1 + index as u64 % 50,
        };
        self.add(random, tenant, count, look, now_ms);
        for index in 0..count {
            let at = match root_at {
                Some(at) if root == Some(index) => at,
                _ => span_at(random, waits),
            };
            self.planned += 1;
            self.agenda.insert((now_ms + at, self.planned), (number, index));
        }
    }

    /// A trace of which the run itself puts pieces into the outbox.
    pub fn synthetic(&mut self, random: &mut Random, spans: usize, now_ms: u64) -> usize {
        let tenant = random.pick(&[0, 0, 0, 1, 2]);
        let look = Look { root: false, error: false, name: 5, duration_ms: 1 };
        self.add(random, tenant, spans, |_| look, now_ms);
        let number = self.traces.len() - 1;
        let trace = &mut self.traces[number];
        trace.synthetic = true;
        trace.spans.iter_mut().for_each(|span| span.sends = 1);
        number
    }

    /// Many traces of one span and one operation, at once.
    pub fn burst(&mut self, random: &mut Random, now_ms: u64) -> Request {
        let count = random.between(40, 70) as usize;
        let outlier = random.percent(30).then(|| random.below(count as u64) as usize);
        let first = self.traces.len();
        for number in 0..count {
            let duration_ms = if outlier == Some(number) { OUTLIER_MS } else { BANK_MS };
            let look = Look { root: true, error: false, name: BANK_NAME.len(), duration_ms };
            self.add(random, 0, 1, |_| look, now_ms);
            self.traces[first + number].outlier = outlier == Some(number);
        }
        let spans: Vec<Name> = (first..first + count).map(|trace| (trace, 0)).collect();
        self.of(BANK, 0, spans)
    }

    fn add(
        &mut self,
        random: &mut Random,
        tenant: usize,
        count: usize,
        look: impl Fn(usize) -> Look,
        now_ms: u64,
    ) {
        let number = self.traces.len();
        let (high, low) = (random.next() | 1, random.next());
        let id = TraceId((u128::from(high) << 64 | u128::from(low)).to_be_bytes());
        let spans = (0..count).map(|index| {
            let Look { root, error, name, duration_ms } = look(index);
            let (own, start_ns) = (span_id(number, index), (1_700_000_000_000 + now_ms) * 1_000_000);
            let parent = if root { 0 } else { span_id(number, (index + 1) % count) };
            let message =
                wire::span(&Plain { trace: id.0, id: own, parent, error, start_ns, duration_ms, name });
            let hash = wire::look(&message).expect("it is a span").hash;
            Span { id: own, root, error, message, hash, sends: 0, first_begun_ms: None, acknowledged: None }
        });
        let spans = spans.collect();
        let randomness = Randomness::of_trace(id);
        self.traces.push(Trace {
            id,
            tenant,
            randomness,
            spans,
            excused: false,
            synthetic: false,
            judged: false,
            early: false,
            damaged: false,
            outlier: false,
        });
    }

    /// The next request, of spans that are due.
    pub fn request(&mut self, random: &mut Random, now_ms: u64) -> Option<Request> {
        let (_, first) = self.agenda.range(..=(now_ms, u64::MAX)).next()?;
        let tenant = self.traces[first.0].tenant;
        let most = random.between(1, 8) as usize;
        let due = self.agenda.range(..=(now_ms, u64::MAX));
        let of_tenant = due.filter(|(_, name)| self.traces[name.0].tenant == tenant);
        let chosen: Vec<_> = of_tenant.map(|(at, name)| (*at, *name)).take(most).collect();
        chosen.iter().for_each(|(at, _)| _ = self.agenda.remove(at));
        let spans: Vec<Name> = chosen.into_iter().map(|(_, name)| name).collect();
        Some(self.of(SHOP, tenant, spans))
    }

    fn of(&self, service: &str, tenant: usize, spans: Vec<Name>) -> Request {
        let messages: Vec<&[u8]> = spans.iter().map(|name| &*self.span(*name).message).collect();
        let body = wire::request(service, &messages).into();
        Request { tenant, body, spans, tries: 0 }
    }

    pub fn span(&self, (trace, index): Name) -> &Span {
        &self.traces[trace].spans[index]
    }

    pub fn span_mut(&mut self, (trace, index): Name) -> &mut Span {
        &mut self.traces[trace].spans[index]
    }

    /// Of a span that came out, by its identity.
    pub fn find(&self, id: u64) -> Option<&Span> {
        let trace = self.traces.get((id >> 12) as usize)?;
        trace.spans.get((id & 0xfff).checked_sub(1)? as usize)
    }
}

impl Trace {
    /// Of all its spans, as often as they were sent.
    pub fn bytes(&self) -> u64 {
        self.spans.iter().map(|span| span.message.len() as u64 * u64::from(span.sends)).sum()
    }
}

fn root_at(random: &mut Random, waits: Waits) -> Option<u64> {
    match random.below(10) {
        0..=5 => Some(random.below(waits.after_root_ms)),
        6 => Some(random.below(waits.max_wait_ms)),
        7 => Some(waits.max_wait_ms + random.below(waits.hindsight_ms)),
        _ => None,
    }
}

fn span_at(random: &mut Random, waits: Waits) -> u64 {
    match random.below(10) {
        0..=6 => random.below(waits.after_root_ms),
        7 => random.below(waits.max_wait_ms),
        _ => random.below(waits.max_wait_ms + waits.hindsight_ms * 5 / 4),
    }
}
