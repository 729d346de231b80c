//! What one backend has been read for and has not taken yet: batches, retries, and how far the cursor may go.
//!
//! Nothing here waits or sends: the loop passes in pieces, fates, the time and randomness, and asks for the next
//! request. Promises:
//!
//! - A request holds whole pieces of one tenant and at most `batch_bytes`; a larger piece is divided into requests.
//! - The bytes held are bounded: at `wants() == false` the loop reads no further.
//! - The cursor passes a piece when the fate of all its parts, and of all pieces before it, is known.
//! - What a backend fails at again and again, while it takes all else, does not hold the cursor for ever: it is
//!   divided until the culprit is alone, and given up after [`GIVEN_UP_AFTER`].

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::backoff::{self, Backoff};
use super::outcome::{Outcome, Wait};
use super::split::split;
use crate::exporter::metrics::{Amount, Metrics, Obstacle};
use crate::exporter::outbox::Parcel;
use crate::trace::{Position, TraceId};

/// After so many refusals in a row refused batches are not divided to save the good pieces: there are none.
const REFUSALS_DIVIDED: u32 = 32;

/// A batch that failed so often, each time after its backend had taken others, is divided.
const BEATEN_DIVIDED: u32 = 4;
/// What has failed so often, and for so long, will not be taken. A backend that fails at random takes everything
/// sooner; one that is down takes nothing, and then nothing is given up.
const BEATEN_MAX: u32 = 32;
const GIVEN_UP_AFTER: Duration = Duration::from_secs(600);
/// Pieces on their way, or settled behind one that is not.
const PIECES_MAX: usize = 1 << 16;

#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub batch_bytes: usize,
    /// After its first piece a batch waits no longer for more.
    pub batch_wait: Duration,
    /// Requests under way at once.
    pub in_flight: usize,
    pub backoff: backoff::Settings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            batch_bytes: 2 << 20,
            batch_wait: Duration::from_millis(200),
            in_flight: 4,
            backoff: backoff::Settings::default(),
        }
    }
}

/// What to send: the concatenated body is one ExportTraceServiceRequest.
#[derive(Clone, Debug)]
pub struct Request {
    /// To be handed back with its fate.
    pub id: u64,
    pub tenant: Arc<str>,
    pub body: Vec<Bytes>,
}

/// What somebody should read in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Down {
        error: String,
    },
    Up {
        after: Duration,
    },
    /// Refused for good: `trace` is the first of them.
    Rejected {
        trace: TraceId,
        spans: u64,
        error: String,
    },
}

/// A piece, or a part of one.
#[derive(Clone, Debug)]
struct Part {
    /// The piece's number in `Prefix`.
    number: u64,
    segment: u32,
    trace: TraceId,
    amount: Amount,
    otlp: Bytes,
}

#[derive(Debug)]
struct Batch {
    tenant: Arc<str>,
    parts: Vec<Part>,
    bytes: usize,
    since: Instant,
    sent_before: bool,
    trouble: Option<Trouble>,
}

/// What a batch has gone through that has failed.
#[derive(Clone, Copy, Debug)]
struct Trouble {
    since: Instant,
    /// Failures before which the backend had taken others of the same tenant.
    beaten: u32,
    /// Batches of the tenant that had been taken at the last failure.
    taken: u64,
}

#[derive(Debug)]
struct Flight {
    batch: Batch,
    /// The backoff's count when it started.
    failures: u32,
}

#[derive(Debug)]
pub(super) struct Queue {
    settings: Settings,
    metrics: Arc<Metrics>,
    /// Still filling, one a tenant, oldest first.
    open: VecDeque<Batch>,
    ready: VecDeque<Batch>,
    flights: HashMap<u64, Flight>,
    next_id: u64,
    held_bytes: usize,
    prefix: Prefix,
    backoff: Backoff,
    refusals: u32,
    /// Batches, by tenant.
    taken: HashMap<Arc<str>, u64>,
}

impl Queue {
    pub(super) fn new(settings: Settings, metrics: Arc<Metrics>) -> Self {
        Self {
            settings,
            metrics,
            open: VecDeque::new(),
            ready: VecDeque::new(),
            flights: HashMap::new(),
            next_id: 0,
            held_bytes: 0,
            prefix: Prefix::default(),
            backoff: Backoff::new(settings.backoff),
            refusals: 0,
            taken: HashMap::new(),
        }
    }

    /// There is room for more pieces.
    pub(super) fn wants(&self) -> bool {
        self.held_bytes < self.settings.batch_bytes * (self.settings.in_flight + 1)
            && self.prefix.waiting.len() < PIECES_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.ready.is_empty() && self.flights.is_empty()
    }

    /// How far everything is settled, if that has moved since it was asked last.
    pub(super) fn reached(&mut self) -> Option<Position> {
        self.prefix.moved.take()
    }

    pub(super) fn push(&mut self, parcel: Parcel, now: Instant) {
        let Parcel { at, end, tenant, piece } = parcel;
        let (segment, trace) = (at.segment, piece.trace().unwrap_or_default());
        if piece.otlp.len() <= self.settings.batch_bytes {
            let number = self.prefix.push(end, segment, 1);
            let amount = Amount::of(&piece);
            return self.add(tenant, Part { number, segment, trace, amount, otlp: piece.otlp }, now);
        }
        // Each part is a request of its own.
        self.close_tenant(&tenant);
        let parts = split(&piece.otlp, self.settings.batch_bytes);
        let number = self.prefix.push(end, segment, parts.len());
        let last = parts.len() - 1;
        let mut spans_left = piece.spans;
        for (n, part) in parts.into_iter().enumerate() {
            let spans = if n == last { spans_left } else { part.spans.min(spans_left) };
            spans_left -= spans;
            let amount =
                Amount { spans: spans.into(), records: u64::from(n == last), bytes: part.otlp.len() as u64 };
            self.add(tenant.clone(), Part { number, segment, trace, amount, otlp: part.otlp }, now);
            self.close_tenant(&tenant);
        }
    }

    /// Nothing more comes soon: batches need not fill.
    pub(super) fn flush(&mut self) {
        self.ready.extend(self.open.drain(..));
    }

    /// The next request, if one is due and may start.
    pub(super) fn next(&mut self, now: Instant) -> Option<Request> {
        self.close_due(now);
        let paused = self.backoff.resume().is_some_and(|resume| now < resume);
        if paused || !self.may_start() {
            return None;
        }
        let mut batch = self.ready.pop_front()?;
        if std::mem::replace(&mut batch.sent_before, true) {
            self.metrics.retry();
        }
        let id = self.next_id;
        self.next_id += 1;
        let body = batch.parts.iter().map(|part| part.otlp.clone()).collect();
        let request = Request { id, tenant: batch.tenant.clone(), body };
        self.flights.insert(id, Flight { batch, failures: self.backoff.failures() });
        Some(request)
    }

    /// When `next` may have something to give though nothing else has happened.
    pub(super) fn due(&self) -> Option<Instant> {
        if !self.may_start() {
            return None;
        }
        let filled = self.open.front().map(|batch| batch.since + self.settings.batch_wait);
        let ready = self.ready.front().map(|batch| batch.since);
        let next = filled.into_iter().chain(ready).min()?;
        Some(self.backoff.resume().map_or(next, |resume| next.max(resume)))
    }

    /// The fate of a request. `random` is in 0..1.
    pub(super) fn settle(&mut self, id: u64, outcome: Outcome, now: Instant, random: f64) -> Vec<Event> {
        let Some(Flight { batch, failures }) = self.flights.remove(&id) else { return Vec::new() };
        let state = match outcome {
            Outcome::Retry { wait, ref error } => self.failed(failures, wait, error, now, random),
            _ => self.works(now),
        };
        let loss = match outcome {
            Outcome::Retry { wait, error } => self.again(batch, wait, error, now),
            Outcome::Delivered { rejected, message } => {
                self.refusals = 0;
                *self.taken.entry(batch.tenant.clone()).or_default() += 1;
                self.finish(batch, rejected, message)
            }
            Outcome::Refused { divisible, error } => self.refused(batch, divisible, error),
        };
        state.into_iter().chain(loss).collect()
    }

    fn works(&mut self, now: Instant) -> Option<Event> {
        self.metrics.works();
        self.backoff.answered(now).map(|after| Event::Up { after })
    }

    fn failed(&mut self, started: u32, wait: Wait, error: &str, now: Instant, random: f64) -> Option<Event> {
        self.metrics.failed(Obstacle::Backend, error);
        let first = self.backoff.failed(started, wait, now, random);
        first.then(|| Event::Down { error: error.to_owned() })
    }

    /// Later, unless it is the batch's own fault.
    fn again(&mut self, mut batch: Batch, wait: Wait, error: String, now: Instant) -> Option<Event> {
        // A backend that says when to come, or whose credentials or address are wrong, blames no batch.
        if wait == Wait::Backoff {
            let taken = self.taken.get(&batch.tenant).copied().unwrap_or(0);
            let Trouble { since, beaten, .. } = batch.note_failure(taken, now);
            if beaten >= BEATEN_DIVIDED && batch.parts.len() > 1 {
                self.halve(batch);
                return None;
            }
            if beaten >= BEATEN_MAX && now - since >= GIVEN_UP_AFTER {
                let error = format!("failed for {:?} while others were taken: {error}", now - since);
                return self.finish(batch, u64::MAX, error);
            }
        }
        self.ready.push_back(batch);
        None
    }

    fn refused(&mut self, batch: Batch, divisible: bool, error: String) -> Option<Event> {
        self.refusals = self.refusals.saturating_add(1);
        if divisible && batch.parts.len() > 1 && self.refusals <= REFUSALS_DIVIDED {
            self.halve(batch);
            return None;
        }
        self.finish(batch, u64::MAX, error)
    }

    /// Counts a batch whose fate is known; its first `rejected` spans are lost, or all if there are fewer.
    fn finish(&mut self, batch: Batch, rejected: u64, error: String) -> Option<Event> {
        self.metrics.batch();
        self.held_bytes -= batch.bytes;
        let mut left = rejected;
        for part in &batch.parts {
            let lost = left.min(part.amount.spans);
            left -= lost;
            self.metrics.settled(part.segment, part.amount, lost);
            self.prefix.settled(part.number, part.amount);
        }
        let spans: u64 = batch.parts.iter().map(|part| part.amount.spans).sum();
        let first = batch.parts.first().filter(|_| rejected > 0)?;
        self.metrics.note(&error);
        Some(Event::Rejected { trace: first.trace, spans: rejected.min(spans), error })
    }

    /// Sends a refused batch as two, so that a bad piece does not take the others with it.
    fn halve(&mut self, mut batch: Batch) {
        let parts = batch.parts.split_off(batch.parts.len() / 2);
        let bytes = parts.iter().map(|part| part.otlp.len()).sum();
        batch.bytes -= bytes;
        let second = Batch { tenant: batch.tenant.clone(), parts, bytes, ..batch };
        self.ready.push_front(second);
        self.ready.push_front(batch);
    }

    /// A backend that fails is asked by one request at a time.
    fn may_start(&self) -> bool {
        let at_once = if self.backoff.failures() > 0 { 1 } else { self.settings.in_flight };
        self.flights.len() < at_once
    }

    fn add(&mut self, tenant: Arc<str>, part: Part, now: Instant) {
        let bytes = part.otlp.len();
        self.held_bytes += bytes;
        let limit = self.settings.batch_bytes;
        let open = self.open.iter().position(|batch| batch.tenant == tenant);
        if let Some(at) = open.filter(|at| self.open[*at].bytes + bytes <= limit) {
            self.open[at].bytes += bytes;
            self.open[at].parts.push(part);
        } else {
            self.close_tenant(&tenant);
            let (parts, since) = (vec![part], now);
            self.open.push_back(Batch { tenant, parts, bytes, since, sent_before: false, trouble: None });
        }
        while self.open.iter().map(|batch| batch.bytes).sum::<usize>() >= limit {
            self.ready.extend(self.open.pop_front());
        }
    }

    fn close_tenant(&mut self, tenant: &str) {
        if let Some(at) = self.open.iter().position(|batch| *batch.tenant == *tenant) {
            self.ready.extend(self.open.remove(at));
        }
    }

    fn close_due(&mut self, now: Instant) {
        while self.open.front().is_some_and(|batch| batch.since + self.settings.batch_wait <= now) {
            self.ready.extend(self.open.pop_front());
        }
    }
}

impl Batch {
    /// `taken`: batches of its tenant that the backend has taken so far.
    fn note_failure(&mut self, taken: u64, now: Instant) -> Trouble {
        let trouble = self.trouble.get_or_insert(Trouble { since: now, beaten: 0, taken });
        if taken > trouble.taken {
            trouble.taken = taken;
            trouble.beaten += 1;
        }
        *trouble
    }
}

/// Who comes after it begins at the cursor: what was settled ahead of that will be sent and counted again.
impl Drop for Queue {
    fn drop(&mut self) {
        let ahead = self.prefix.waiting.iter().filter(|piece| piece.settled != Amount::default());
        ahead.for_each(|piece| self.metrics.again(piece.segment, piece.settled));
    }
}

/// The pieces under way, in the order of the outbox.
#[derive(Debug, Default)]
struct Prefix {
    waiting: VecDeque<Waiting>,
    /// Number of the first of `waiting`.
    first: u64,
    moved: Option<Position>,
}

/// A piece of which the cursor cannot pass some part yet, or one before it.
#[derive(Debug)]
struct Waiting {
    end: Position,
    segment: u32,
    /// Parts whose fate is not known.
    parts: usize,
    settled: Amount,
}

impl Prefix {
    fn push(&mut self, end: Position, segment: u32, parts: usize) -> u64 {
        self.waiting.push_back(Waiting { end, segment, parts, settled: Amount::default() });
        self.first + self.waiting.len() as u64 - 1
    }

    fn settled(&mut self, number: u64, amount: Amount) {
        let piece = &mut self.waiting[(number - self.first) as usize];
        piece.parts -= 1;
        piece.settled += amount;
        while let Some(first) = self.waiting.front().filter(|piece| piece.parts == 0) {
            self.moved = Some(first.end);
            self.waiting.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exporter::metrics::Lost;
    use crate::proto::Piece;

    const DELIVERED: Outcome = Outcome::Delivered { rejected: 0, message: String::new() };

    /// A queue with small batches, and the pieces pushed so far.
    struct Bench {
        queue: Queue,
        metrics: Arc<Metrics>,
        now: Instant,
        pushed: u32,
    }

    impl Bench {
        fn new() -> Self {
            let metrics = Arc::new(Metrics::default());
            let settings = Settings { batch_bytes: 100, in_flight: 2, ..Settings::default() };
            Self { queue: Queue::new(settings, metrics.clone()), metrics, now: Instant::now(), pushed: 0 }
        }

        /// A piece of `bytes` bytes and as many tens of spans, at position (1, its number).
        fn push(&mut self, tenant: &str, bytes: usize) {
            self.pushed += 1;
            self.push_otlp(tenant, bytes as u32 / 10, vec![0xff; bytes].into());
        }

        fn push_otlp(&mut self, tenant: &str, spans: u32, otlp: Bytes) {
            let trace_id = TraceId([self.pushed as u8; 16]).into();
            let piece = Piece { trace_id, spans, otlp, ..Default::default() };
            self.metrics.appended(1, Amount::of(&piece));
            let (at, end) = (Position::new(1, self.pushed - 1), Position::new(1, self.pushed));
            self.queue.push(Parcel { at, end, tenant: tenant.into(), piece }, self.now);
        }

        fn next(&mut self) -> Option<(u64, Vec<usize>)> {
            let request = self.queue.next(self.now)?;
            Some((request.id, request.body.iter().map(Bytes::len).collect()))
        }

        fn settle(&mut self, id: u64, outcome: Outcome) -> Vec<Event> {
            self.queue.settle(id, outcome, self.now, 1.0)
        }

        fn after(&mut self, ms: u64) {
            self.now += Duration::from_millis(ms);
        }

        fn balance(&self) -> (u64, u64, u64) {
            (self.metrics.delivered(), self.metrics.lost(Lost::Rejected), self.metrics.pending().spans)
        }
    }

    fn retry() -> Outcome {
        Outcome::Retry { wait: Wait::Backoff, error: "down".to_owned() }
    }

    fn refused() -> Outcome {
        Outcome::Refused { divisible: true, error: "no".to_owned() }
    }

    #[test]
    fn a_batch_leaves_when_it_is_full_or_old() {
        let mut bench = Bench::new();
        bench.push("", 60);
        assert_eq!(bench.next(), None);
        bench.push("", 60);
        assert_eq!(bench.next().unwrap().1, [60]);
        assert_eq!(bench.queue.due(), Some(bench.now + Duration::from_millis(200)));
        bench.after(200);
        assert_eq!(bench.next().unwrap().1, [60]);
    }

    #[test]
    fn a_batch_has_one_tenant() {
        let mut bench = Bench::new();
        for tenant in ["a", "b", "a", "b"] {
            bench.push(tenant, 20);
        }
        bench.after(200);
        let first = bench.queue.next(bench.now).unwrap();
        let second = bench.queue.next(bench.now).unwrap();
        assert_eq!((&*first.tenant, &*second.tenant), ("a", "b"));
        assert_eq!((first.body.len(), second.body.len()), (2, 2));
    }

    #[test]
    fn many_tenants_hold_no_more_than_one_batch() {
        let mut bench = Bench::new();
        for n in 0..20 {
            bench.push(&n.to_string(), 10);
        }
        assert!(bench.queue.open.len() < 10);
    }

    #[test]
    fn the_cursor_waits_for_all_before_it() {
        let mut bench = Bench::new();
        bench.push("", 100);
        bench.push("", 100);
        let (first, second) = (bench.next().unwrap().0, bench.next().unwrap().0);
        bench.settle(second, DELIVERED);
        assert_eq!(bench.queue.reached(), None);
        bench.settle(first, DELIVERED);
        assert_eq!(bench.queue.reached(), Some(Position::new(1, 2)));
        assert!(bench.queue.is_empty());
    }

    #[test]
    fn what_is_held_is_bounded() {
        let mut bench = Bench::new();
        while bench.queue.wants() {
            bench.push("", 50);
        }
        assert_eq!(bench.pushed, 6);
        let (id, _) = bench.next().unwrap();
        bench.settle(id, DELIVERED);
        assert!(bench.queue.wants());
    }

    #[test]
    fn a_backend_that_is_down_is_asked_by_one_request_until_it_answers() {
        let mut bench = Bench::new();
        (0..4).for_each(|_| bench.push("", 100));
        let (first, second) = (bench.next().unwrap().0, bench.next().unwrap().0);
        assert_eq!(bench.settle(first, retry()), [Event::Down { error: "down".to_owned() }]);
        assert_eq!(bench.settle(second, retry()), []);
        assert!(bench.metrics.is_down());
        assert_eq!(bench.next(), None);
        assert_eq!(bench.queue.due(), Some(bench.now + Duration::from_millis(500)));
        bench.after(500);
        let (probe, _) = bench.next().unwrap();
        assert_eq!(bench.next(), None);
        assert_eq!(bench.settle(probe, DELIVERED), [Event::Up { after: Duration::from_millis(500) }]);
        assert!(bench.next().is_some() && bench.next().is_some());
        assert_eq!(bench.metrics.last_error().as_deref(), Some("down"));
    }

    #[test]
    fn nothing_is_lost_by_failures_that_pass() {
        let mut bench = Bench::new();
        (0..10).for_each(|_| bench.push("", 40));
        for round in 0.. {
            bench.after(10_000);
            let Some((id, _)) = bench.next() else { break };
            bench.settle(id, if round % 3 == 0 { DELIVERED } else { retry() });
        }
        assert_eq!(bench.balance(), (40, 0, 0));
        assert_eq!(bench.queue.reached(), Some(Position::new(1, 10)));
        assert!(bench.metrics.retries() >= 8);
    }

    /// Sends for so many minutes; requests with a piece of 66 bytes fail, the others as `others` say.
    fn send_with_a_poisoned_piece(bench: &mut Bench, minutes: u64, others: fn(u64) -> Outcome) -> Vec<Event> {
        let mut events = Vec::new();
        let end = bench.now + Duration::from_secs(60 * minutes);
        for round in 0.. {
            if bench.now >= end {
                break;
            }
            while bench.queue.wants() && bench.queue.ready.len() < 4 {
                bench.push("", 40);
            }
            match bench.next() {
                Some((id, sizes)) => {
                    let outcome = if sizes.contains(&66) { retry() } else { others(round) };
                    events.extend(bench.settle(id, outcome));
                    bench.after(10);
                }
                None => bench.after(100),
            }
        }
        events
    }

    #[test]
    fn what_a_backend_never_takes_while_it_takes_all_else_is_given_up_alone() {
        let mut bench = Bench::new();
        bench.push("", 30);
        bench.push("", 66);
        let mut events = send_with_a_poisoned_piece(&mut bench, 15, |_| DELIVERED);
        events.retain(|event| matches!(event, Event::Rejected { .. }));
        let [Event::Rejected { trace, spans: 6, error }] = &events[..] else { panic!("{events:?}") };
        assert_eq!(*trace, TraceId([2; 16]));
        assert!(error.contains("while others were taken: down"), "{error}");
        assert_eq!(bench.metrics.lost(Lost::Rejected), 6);
        assert!(bench.queue.reached().unwrap() > Position::new(1, 1_000));
    }

    #[test]
    fn a_backend_that_is_down_or_fails_at_random_loses_nothing() {
        let down = |_| retry();
        let at_random = |round| if round % 10 == 0 { DELIVERED } else { retry() };
        for others in [down, at_random] {
            let mut bench = Bench::new();
            let events = send_with_a_poisoned_piece(&mut bench, 60, others);
            assert!(!events.iter().any(|event| matches!(event, Event::Rejected { .. })), "{events:?}");
            assert_eq!(bench.metrics.lost(Lost::Rejected), 0);
        }
    }

    #[test]
    fn what_is_settled_behind_a_piece_that_is_not_does_not_grow_without_end() {
        let mut bench = Bench::new();
        bench.push("", 66);
        let (stuck, _) = {
            bench.after(300);
            bench.next().unwrap()
        };
        while bench.queue.wants() {
            bench.push("", 100);
            let (id, _) = bench.next().unwrap();
            bench.settle(id, DELIVERED);
        }
        assert_eq!(bench.pushed as usize, PIECES_MAX);
        bench.settle(stuck, DELIVERED);
        assert!(bench.queue.wants());
    }

    #[test]
    fn partial_success_is_counted_and_not_sent_again() {
        let mut bench = Bench::new();
        bench.push("", 100);
        let (id, _) = bench.next().unwrap();
        let events = bench.settle(id, Outcome::Delivered { rejected: 3, message: "three".to_owned() });
        assert_eq!(
            events,
            [Event::Rejected { trace: TraceId([1; 16]), spans: 3, error: "three".to_owned() }]
        );
        assert_eq!(bench.balance(), (7, 3, 0));
        assert!(bench.queue.is_empty());
    }

    #[test]
    fn one_bad_piece_does_not_take_the_others_with_it() {
        let mut bench = Bench::new();
        (0..5).for_each(|n| bench.push("", 10 + n));
        bench.queue.flush();
        while let Some((id, sizes)) = bench.next() {
            bench.settle(id, if sizes.contains(&12) { refused() } else { DELIVERED });
        }
        assert_eq!(bench.balance(), (4, 1, 0));
        assert_eq!(bench.queue.reached(), Some(Position::new(1, 5)));
    }

    #[test]
    fn a_backend_that_refuses_everything_is_not_asked_for_each_piece() {
        let mut bench = Bench::new();
        let mut requests = 0;
        for _ in 0..100 {
            (0..10).for_each(|_| bench.push("", 10));
            while let Some((id, _)) = bench.next() {
                bench.settle(id, refused());
                requests += 1;
            }
        }
        assert_eq!(bench.balance(), (0, 1000, 0));
        assert!(requests < 150, "{requests}");
    }

    #[test]
    fn a_large_piece_is_sent_in_parts_and_passed_when_all_are_settled() {
        use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
        use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
        use prost::Message;

        let mut bench = Bench::new();
        let span = Span { name: "x".repeat(60), ..Default::default() };
        let scope = ScopeSpans { spans: vec![span; 5], ..Default::default() };
        let resource_spans = vec![ResourceSpans { scope_spans: vec![scope], ..Default::default() }];
        let otlp: Bytes = ExportTraceServiceRequest { resource_spans }.encode_to_vec().into();
        bench.pushed = 1;
        bench.push_otlp("", 5, otlp);
        for left in (0..5).rev() {
            let (id, sizes) = bench.next().unwrap();
            assert_eq!(sizes.len(), 1);
            assert_eq!(bench.queue.reached(), None);
            bench.settle(id, DELIVERED);
            assert_eq!(bench.metrics.pending().spans, left);
        }
        assert_eq!(bench.queue.reached(), Some(Position::new(1, 1)));
        assert!(bench.queue.is_empty());
    }
}
