//! What the policies are shown: spans in their requests, read where they lie.
//!
//! A trace that came as one is shown by what was folded while its spans came; their bytes are read when a condition
//! asks. What is judged apart from the rest of its trace was read before, so it is
//! folded from its bytes.

use std::cell::OnceCell;

use super::engine::{Engine, Request};
use super::operations::Operations;
use crate::buffer::{Candidate, Judgement, Root, SpanRef, Which};
use crate::otlp::{self, Outline, Seen, SpanFacts, SpanView};
use crate::sampler::{Policies, ReadSpans, Size, Spans, UnitSpan};
use crate::trace::Position;

/// A span in its request.
#[derive(Clone, Debug)]
pub(super) struct Located {
    pub(super) request: Request,
    /// Of the span message in the request.
    pub(super) at: u32,
    pub(super) len: u32,
}

/// Finds spans in the log. The request that holds one often holds the next.
pub(super) struct Finder<'a> {
    engine: &'a Engine,
    /// The segment and the request of the last.
    last: Option<(u32, Request)>,
}

impl<'a> Finder<'a> {
    pub(super) fn new(engine: &'a Engine) -> Self {
        Self { engine, last: None }
    }

    pub(super) fn find(&mut self, span: SpanRef) -> Option<Located> {
        let Position { segment, offset } = span.position();
        let holds = |(of, request): &(u32, Request)| {
            *of == segment && (request.at..request.at + request.body.len() as u32).contains(&offset)
        };
        if !self.last.as_ref().is_some_and(holds) {
            self.last = Some((segment, self.engine.request_of(span.position())?));
        }
        let (_, request) = self.last.clone()?;
        Some(Located { at: offset - request.at, len: span.len(), request })
    }
}

impl Located {
    pub(super) fn of(engine: &Engine, span: SpanRef) -> Option<Self> {
        Finder::new(engine).find(span)
    }

    pub(super) fn message(&self) -> &[u8] {
        &self.request.body[self.at as usize..(self.at + self.len) as usize]
    }

    pub(super) fn view(&self) -> SpanView<'_> {
        SpanView::new(self.message())
    }

    pub(super) fn unit_span(&self) -> Option<UnitSpan<'_>> {
        let place = Outline::new(&self.request.outline).locate(&self.request.body, self.at)?;
        Some(UnitSpan {
            span: self.view(),
            resource_spans: place.resource_spans,
            scope_spans: place.scope_spans,
        })
    }
}

/// What a decision rests on.
#[derive(Clone, Copy)]
pub(super) struct Evidence<'a> {
    pub(super) root: Option<Root>,
    /// None: folded under other policies.
    pub(super) bits: Option<u32>,
    /// Unix nanoseconds; `u64::MAX` if no span has a start.
    pub(super) earliest_start: u64,
    /// Unix nanoseconds, 0 if no span has an end.
    pub(super) latest_end: u64,
    pub(super) spans: &'a dyn Spans,
}

impl Evidence<'_> {
    /// From the start of the root to the latest end; none without a start.
    pub(super) fn duration_ns(&self) -> Option<u64> {
        let start = self.root?.start;
        (start != 0).then(|| self.latest_end.saturating_sub(start))
    }
}

/// Spans that were read, folded as ingest would have.
#[derive(Debug)]
pub(super) struct ReadUnit<'a> {
    root: Option<&'a Located>,
    spans: Vec<&'a Located>,
    bits: u32,
    earliest_start: u64,
    latest_end: u64,
}

impl<'a> ReadUnit<'a> {
    /// Its root may have been read before.
    pub(super) fn fold(
        root: Option<&'a Located>,
        spans: impl Iterator<Item = &'a Located>,
        policies: &Policies,
    ) -> Self {
        let mut unit = Self { root, spans: Vec::new(), bits: 0, earliest_start: u64::MAX, latest_end: 0 };
        let mut folding = policies.folding();
        for located in spans {
            let Some(facts) = facts(located) else { continue };
            unit.bits |= folding.fold(&facts, &Seen::NOTHING);
            if facts.start != 0 {
                unit.earliest_start = unit.earliest_start.min(facts.start);
            }
            unit.latest_end = unit.latest_end.max(facts.end);
            unit.spans.push(located);
        }
        unit
    }

    pub(super) fn evidence(&self, mut operations: Operations<'_, 'a>) -> Evidence<'_> {
        let Self { bits, earliest_start, latest_end, .. } = *self;
        let root = self.root.and_then(facts);
        let latest_end = root.map_or(0, |root| root.end).max(latest_end);
        let root = root.map(|root| operations.root(&root, &otlp::ot(root.trace_state)));
        Evidence { root, bits: Some(bits), earliest_start, latest_end, spans: self }
    }
}

impl Spans for ReadUnit<'_> {
    fn root(&self) -> Option<UnitSpan<'_>> {
        self.root.and_then(Located::unit_span)
    }

    fn read(&self) -> ReadSpans<'_> {
        let newest_first = self.spans.iter().rev().filter_map(|located| located.unit_span());
        ReadSpans { spans: newest_first.collect(), complete: true }
    }

    fn at_most(&self) -> u64 {
        self.spans.len() as u64
    }

    fn size(&self) -> Size {
        Size::of(self.spans.iter().map(|located| located.len))
    }
}

/// What a scan finds in the span.
fn facts(located: &Located) -> Option<SpanFacts<'_>> {
    let UnitSpan { span, resource_spans, scope_spans } = located.unit_span()?;
    Some(SpanFacts {
        at: located.at,
        len: located.len,
        trace_id: span.trace_id(),
        span_id: span.span_id(),
        parent: span.parent(),
        start: span.start(),
        end: span.end(),
        kind: span.kind(),
        status: span.status_code(),
        flags: span.flags(),
        name: span.name_bytes(),
        trace_state: span.trace_state_bytes(),
        message: span.as_bytes(),
        resource_spans,
        scope_spans,
    })
}

/// The spans of a judgement, read when a condition asks for them: the newest that a piece has room for.
#[derive(Debug)]
pub(super) struct ReachableSpans<'a> {
    engine: &'a Engine,
    shard: usize,
    candidate: &'a Candidate,
    root: OnceCell<Option<Located>>,
    read: OnceCell<(Vec<Located>, bool)>,
    new: OnceCell<(Vec<Located>, bool)>,
}

impl<'a> ReachableSpans<'a> {
    /// A condition was not shown all of them.
    pub(super) fn partly_read(&self) -> bool {
        [&self.read, &self.new].into_iter().filter_map(OnceCell::get).any(|(_, complete)| !complete)
    }

    /// What is new is the newest: an earlier judgement has not seen it.
    fn newest(&self, which: Which) -> (Vec<Located>, bool) {
        let Self { engine, shard, candidate, .. } = *self;
        let piece_bytes = engine.buffer.piece_bytes();
        let newest = engine.buffer.stretch(shard, candidate, which, None, piece_bytes);
        let mut finder = Finder::new(engine);
        debug_assert!(newest.members.len() as u64 <= self.at_most(), "more spans than were counted");
        let located = newest.members.iter().filter_map(|member| finder.find(member.span));
        (located.collect(), newest.next.is_none())
    }

    pub(super) fn new(engine: &'a Engine, shard: usize, candidate: &'a Candidate) -> Self {
        let root = OnceCell::new();
        Self { engine, shard, candidate, root, read: OnceCell::new(), new: OnceCell::new() }
    }
}

impl Spans for ReachableSpans<'_> {
    fn root(&self) -> Option<UnitSpan<'_>> {
        let find = || Located::of(self.engine, self.candidate.root?.0);
        self.root.get_or_init(find).as_ref()?.unit_span()
    }

    fn read(&self) -> ReadSpans<'_> {
        shown(self.read.get_or_init(|| self.newest(Which::Unsent)))
    }

    fn read_new(&self) -> Option<ReadSpans<'_>> {
        let again = self.candidate.judgement == Judgement::Again;
        again.then(|| shown(self.new.get_or_init(|| self.newest(Which::New))))
    }

    fn at_most(&self) -> u64 {
        match self.candidate.judgement {
            Judgement::Whole => self.candidate.unjudged.into(),
            _ => u64::MAX,
        }
    }

    fn size(&self) -> Size {
        let Self { engine, shard, candidate, .. } = *self;
        let all = engine.buffer.stretch(shard, candidate, Which::Unsent, None, usize::MAX);
        Size::of(all.members.iter().map(|member| member.span.len()))
    }
}

fn shown((located, complete): &(Vec<Located>, bool)) -> ReadSpans<'_> {
    ReadSpans { spans: located.iter().filter_map(Located::unit_span).collect(), complete: *complete }
}
