//! What counts as a root beside spans without a parent, for traces whose true root goes elsewhere.
//!
//! Asked of every span that comes in and has a parent: what the scan answers is folded first, and the bytes of
//! a span are read only where that leaves it open.

use super::config::ConditionText;
use super::traceql::{Asked, Condition, Folding, Folds, QueryError};
use super::unit::{ReadSpans, Spans, Unit, UnitSpan};
use crate::otlp::{Seen, SpanFacts};
use crate::trace::Randomness;

/// A compiled `buffer.root`.
#[derive(Debug)]
pub struct RootCondition {
    condition: Condition,
    folds: Folds,
}

/// A text that says nothing of a span, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("buffer.root: {message}")]
pub struct RootError {
    /// Byte offset into the text.
    pub offset: usize,
    pub message: String,
}

impl From<QueryError> for RootError {
    fn from(query: QueryError) -> Self {
        Self { offset: query.offset, message: query.to_string() }
    }
}

impl RootCondition {
    pub fn compile(text: &ConditionText) -> Result<Self, RootError> {
        let mut folds = Folds::default();
        let condition = Condition::compile(&text.0, &mut folds)?;
        if !condition.asks_beyond_root {
            let message = format!(
                "found `{}`, which asks nothing of a span that has a parent; expected a condition such as \
                 {{ kind = server }}",
                text.0
            );
            return Err(RootError { offset: 0, message });
        }
        Ok(Self { condition, folds })
    }

    /// Asks one span after the other.
    pub fn asking(&self) -> Roots<'_, '_> {
        Roots { condition: &self.condition, folds: &self.folds, folding: self.folds.folding() }
    }
}

/// Tells roots among the spans of a scan.
#[derive(Debug)]
pub struct Roots<'r, 's> {
    condition: &'r Condition,
    folds: &'r Folds,
    folding: Folding<'r, 's>,
}

impl<'s> Roots<'_, 's> {
    /// Whether the span counts as a root.
    pub fn holds(&mut self, facts: &SpanFacts<'s>) -> bool {
        // The scan looks out for the keys of the policies.
        let bits = self.folding.fold(facts, &Seen::NOTHING);
        let unit = Unit {
            bits: Some(bits),
            randomness: Randomness::default(),
            operation: None,
            duration: None,
            earliest_start: facts.start,
            latest_end: facts.end,
            spans: &OneSpan(*facts),
            dropped_by: None,
            again: false,
            now_ms: 0,
        };
        self.condition.holds(&Asked::new(&unit), self.folds)
    }
}

/// The one span of a unit.
struct OneSpan<'a>(SpanFacts<'a>);

impl Spans for OneSpan<'_> {
    /// Whether it is one is what is asked.
    fn root(&self) -> Option<UnitSpan<'_>> {
        None
    }

    fn read(&self) -> ReadSpans<'_> {
        ReadSpans { spans: vec![UnitSpan::of(&self.0)], complete: true }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::trace::v1::Span;
    use prost::Message;

    use super::*;
    use crate::otlp;
    use crate::sampler::testing::{Trace, span};

    fn compile(text: &str) -> Result<RootCondition, RootError> {
        RootCondition::compile(&ConditionText(text.to_owned()))
    }

    /// Which spans, by service and kind, count as roots.
    fn roots(text: &str, spans: &[(&str, i32)]) -> Vec<bool> {
        let condition = compile(text).unwrap();
        let trace = spans.iter().fold(Trace::default(), |trace, (service, kind)| {
            trace.with(service, Span { kind: *kind, ..span(2, "GET /") })
        });
        let body = trace.request.encode_to_vec();
        let mut found = Vec::new();
        let mut asking = condition.asking();
        otlp::scan(&body, |facts| found.push(asking.holds(facts))).unwrap();
        found
    }

    const SERVER: i32 = 2;
    const CLIENT: i32 = 3;

    #[test]
    fn a_root_is_named_by_what_the_scan_finds_and_by_bytes() {
        let spans = [("gateway", SERVER), ("gateway", CLIENT), ("cart", SERVER)];
        assert_eq!(roots("{ kind = server }", &spans), [true, false, true]);
        let text = r#"{ kind = server && resource.service.name = "gateway" }"#;
        assert_eq!(roots(text, &spans), [true, false, false]);
        assert_eq!(roots(r#"{ resource.service.name = "cart" }"#, &spans), [false, false, true]);
    }

    #[test]
    fn a_condition_that_asks_nothing_of_a_span_is_refused() {
        assert_eq!(compile("{ kind = }").unwrap_err().offset, 9);
        for text in [r#"{ rootName = "GET /" }"#, "{ parent = nil }"] {
            assert!(compile(text).unwrap_err().message.contains("asks nothing of a span"), "{text}");
        }
    }
}
