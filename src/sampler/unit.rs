//! What is judged: the spans of one unit and what the buffer knows of them.

use super::slow::Operation;
use crate::otlp::{ResourceSpansView, ScopeSpansView, SpanFacts, SpanView};
use crate::trace::{PolicyId, Randomness};

/// Spans that are judged together.
///
/// Most units are decided by what is known without their bytes; `spans` is read only by conditions that need those, and
/// once for all of them.
#[derive(Clone, Copy)]
pub struct Unit<'a> {
    /// What the spans' folds gave, OR-ed. None: folded under another generation of policies.
    pub bits: Option<u32>,
    pub randomness: Randomness,
    /// Of the root. None: no root, so nothing of it is slow.
    pub operation: Option<Operation>,
    /// Nanoseconds. None: no root, or its start is unset.
    pub duration: Option<u64>,
    /// Unix nanoseconds; 0 or [`u64::MAX`]: no span has one.
    pub earliest_start: u64,
    /// Unix nanoseconds.
    pub latest_end: u64,
    pub spans: &'a dyn Spans,
    /// Judged again: the policy that dropped it gives the same answer.
    pub dropped_by: Option<PolicyId>,
    /// Judged again: shadows have counted it.
    pub again: bool,
    /// When it is judged: milliseconds of a clock that does not go back.
    pub now_ms: u64,
}

/// How large a unit is, as budgets count it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    pub spans: u64,
    /// Of the span messages.
    pub bytes: u64,
}

impl Size {
    /// Of spans with messages of these lengths.
    pub fn of(lengths: impl Iterator<Item = u32>) -> Self {
        lengths.fold(Self::default(), |size, length| Self {
            spans: size.spans + 1,
            bytes: size.bytes + u64::from(length),
        })
    }
}

/// A span within its resource and instrumentation scope.
#[derive(Clone, Copy, Debug)]
pub struct UnitSpan<'a> {
    pub span: SpanView<'a>,
    pub resource_spans: ResourceSpansView<'a>,
    pub scope_spans: ScopeSpansView<'a>,
}

impl<'a> UnitSpan<'a> {
    /// Where a scan is at.
    pub fn of(facts: &SpanFacts<'a>) -> Self {
        let SpanFacts { message, resource_spans, scope_spans, .. } = *facts;
        Self { span: SpanView::new(message), resource_spans, scope_spans }
    }
}

/// Reads the spans of a unit, when asked.
pub trait Spans {
    /// The root, if there is one.
    fn root(&self) -> Option<UnitSpan<'_>>;

    /// The spans, or as many of them as a judgement may read: those that are new, then the newest others.
    fn read(&self) -> ReadSpans<'_>;

    /// There are no more than these, as far as is known without reading them.
    fn at_most(&self) -> u64 {
        u64::MAX
    }

    /// Of a unit that is judged again, those of its spans that no judgement has seen. None: they are not told apart.
    fn read_new(&self) -> Option<ReadSpans<'_>> {
        None
    }

    /// Asked by budgets of spans and bytes.
    fn size(&self) -> Size {
        let spans = self.read().spans;
        let bytes = spans.iter().map(|span| span.span.as_bytes().len() as u64).sum();
        Size { spans: spans.len() as u64, bytes }
    }
}

/// Spans of a unit.
#[derive(Clone, Debug, Default)]
pub struct ReadSpans<'a> {
    pub spans: Vec<UnitSpan<'a>>,
    /// There are no others.
    pub complete: bool,
}

impl Spans for [UnitSpan<'_>] {
    /// The first without a parent.
    fn root(&self) -> Option<UnitSpan<'_>> {
        self.iter().find(|span| span.span.parent().is_none()).copied()
    }

    fn read(&self) -> ReadSpans<'_> {
        ReadSpans { spans: self.to_vec(), complete: true }
    }
}

impl Spans for Vec<UnitSpan<'_>> {
    fn root(&self) -> Option<UnitSpan<'_>> {
        self.as_slice().root()
    }

    fn read(&self) -> ReadSpans<'_> {
        self.as_slice().read()
    }
}

impl std::fmt::Debug for Unit<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unit")
            .field("bits", &self.bits)
            .field("randomness", &self.randomness)
            .field("operation", &self.operation)
            .field("duration", &self.duration)
            .field("dropped_by", &self.dropped_by)
            .finish_non_exhaustive()
    }
}

impl Unit<'_> {
    /// From the earliest start to the latest end, in nanoseconds.
    pub fn trace_duration(&self) -> Option<u64> {
        let unset = self.earliest_start == 0 || self.earliest_start == u64::MAX;
        (!unset).then(|| self.latest_end.saturating_sub(self.earliest_start))
    }
}
