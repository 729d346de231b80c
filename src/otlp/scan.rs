//! Scans a request once: checks all of it, finds its spans, copies nothing.
//!
//! What passes is what prost would decode, but for two things: a span that is broken inside or wrongly identified is
//! stepped over and counted, and strings that are not UTF-8 pass and are counted, to be replaced on the way out.

use std::fmt;

use super::check::{Checker, REQUEST_ROOM, RESOURCE_SPANS_ROOM, SCOPE_SPANS_ROOM, SpanFields};
use super::keys::{Keys, Seen, Unwatched, Watch};
use super::schema::{request, resource_spans, scope_spans};
use super::view::{ResourceSpansView, ScopeSpansView};
use super::wire::{Cursor, Expected, Fault};
use crate::trace::{SpanId, TraceId};

/// What one pass finds in a span; borrowed from the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanFacts<'a> {
    /// Where the span message begins in the request, after its tag and length.
    pub at: u32,
    pub len: u32,
    pub trace_id: TraceId,
    pub span_id: SpanId,
    /// None where the field is absent, empty or all zero.
    pub parent: Option<SpanId>,
    /// Nanoseconds since the Unix epoch; 0 = unset.
    pub start: u64,
    /// Nanoseconds since the Unix epoch; 0 = unset.
    pub end: u64,
    pub kind: i32,
    pub status: i32,
    pub flags: u32,
    /// UTF-8, unless the request has strings to be replaced.
    pub name: &'a [u8],
    /// UTF-8, unless the request has strings to be replaced.
    pub trace_state: &'a [u8],
    /// The span message.
    pub message: &'a [u8],
    pub resource_spans: ResourceSpansView<'a>,
    pub scope_spans: ScopeSpansView<'a>,
}

/// What a scan went over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// Spans that were visited.
    pub spans: u32,
    /// Spans that were stepped over.
    pub rejected: u32,
    pub first_rejection: Option<SpanFault>,
    /// Strings that are not UTF-8, at any depth of what was not rejected.
    pub strings_replaced: u32,
}

/// Why a span is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanFault {
    TraceIdLength(usize),
    TraceIdZero,
    SpanIdLength(usize),
    SpanIdZero,
    ParentLength(usize),
    /// Broken inside.
    Broken(Malformed),
}

impl fmt::Display for SpanFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // What is no hex in JSON comes as one byte.
            Self::TraceIdLength(1) => write!(f, "trace_id is not 32 hexadecimal digits"),
            Self::TraceIdLength(len) => write!(f, "trace_id has {len} bytes, expected 16"),
            Self::TraceIdZero => write!(f, "trace_id is all zero"),
            Self::SpanIdLength(1) => write!(f, "span_id is not 16 hexadecimal digits"),
            Self::SpanIdLength(len) => write!(f, "span_id has {len} bytes, expected 8"),
            Self::SpanIdZero => write!(f, "span_id is all zero"),
            Self::ParentLength(1) => write!(f, "parent_span_id is not 16 hexadecimal digits or none"),
            Self::ParentLength(len) => write!(f, "parent_span_id has {len} bytes, expected 8 or none"),
            Self::Broken(broken) => write!(f, "span is broken: {broken}"),
        }
    }
}

/// Bytes that are not an OTLP trace request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at byte {offset}: expected {expected}")]
pub struct Malformed {
    /// From the start of the request.
    pub offset: usize,
    pub expected: &'static str,
}

/// Visits every span of an encoded `ExportTraceServiceRequest` that can be stored, in order.
///
/// # Errors
///
/// The framing is broken at the level of the request, a resource or a scope: the request is to be refused whole, and
/// what was visited before is to be forgotten.
pub fn scan<'a>(body: &'a [u8], mut visit: impl FnMut(&SpanFacts<'a>)) -> Result<Scanned, Malformed> {
    scan_with(Unwatched, body, |span, _| visit(span))
}

/// As [`scan`], and shows what it has seen of the attributes that have these keys.
///
/// # Errors
///
/// Those of [`scan`].
pub fn scan_for<'a>(
    keys: &Keys,
    body: &'a [u8],
    mut visit: impl FnMut(&SpanFacts<'a>, &Seen<'_, 'a>),
) -> Result<Scanned, Malformed> {
    if keys.is_empty() {
        return scan_with(Unwatched, body, |span, _| visit(span, &Seen::NOTHING));
    }
    scan_with(Seen::new(keys), body, visit)
}

fn scan_with<'a, W: Watch<'a>>(
    watch: W,
    body: &'a [u8],
    visit: impl FnMut(&SpanFacts<'a>, &W),
) -> Result<Scanned, Malformed> {
    if u32::try_from(body.len()).is_err() {
        return Err(Malformed { offset: body.len(), expected: Expected::Size.text() });
    }
    let start = body.as_ptr().addr();
    let mut scan = Scan { start, checker: Checker::new(watch), scanned: Scanned::default(), visit };
    scan.request(body).map_err(|fault| malformed(start, fault))?;
    scan.scanned.strings_replaced = scan.checker.strings_replaced;
    Ok(scan.scanned)
}

#[cold]
fn malformed(start: usize, fault: Fault) -> Malformed {
    Malformed { offset: fault.address - start, expected: fault.expected.text() }
}

struct Scan<W, V> {
    /// Address of the request.
    start: usize,
    checker: Checker<W>,
    scanned: Scanned,
    visit: V,
}

impl<'a, W: Watch<'a>, V: FnMut(&SpanFacts<'a>, &W)> Scan<W, V> {
    fn request(&mut self, body: &'a [u8]) -> Result<(), Fault> {
        let mut cursor = Cursor::new(body);
        while !cursor.is_empty() {
            match cursor.key()? {
                request::RESOURCE_SPANS => self.resource_spans(cursor.bytes()?)?,
                key => cursor.unknown(key, request::KNOWN, REQUEST_ROOM)?,
            }
        }
        Ok(())
    }

    fn resource_spans(&mut self, message: &'a [u8]) -> Result<(), Fault> {
        let mut cursor = Cursor::new(message);
        while !cursor.is_empty() {
            match cursor.key()? {
                resource_spans::RESOURCE => self.checker.resource(cursor.bytes()?)?,
                resource_spans::SCOPE_SPANS => self.scope_spans(message, cursor.bytes()?)?,
                resource_spans::SCHEMA_URL => self.checker.text(cursor.bytes()?),
                key => cursor.unknown(key, resource_spans::KNOWN, RESOURCE_SPANS_ROOM)?,
            }
        }
        Ok(())
    }

    fn scope_spans(&mut self, resource_spans: &'a [u8], message: &'a [u8]) -> Result<(), Fault> {
        let mut cursor = Cursor::new(message);
        while !cursor.is_empty() {
            match cursor.key()? {
                scope_spans::SPAN => self.span(resource_spans, message, cursor.bytes()?),
                scope_spans::SCOPE => self.checker.scope(cursor.bytes()?)?,
                scope_spans::SCHEMA_URL => self.checker.text(cursor.bytes()?),
                key => cursor.unknown(key, scope_spans::KNOWN, SCOPE_SPANS_ROOM)?,
            }
        }
        Ok(())
    }

    fn span(&mut self, resource_spans: &'a [u8], scope_spans: &'a [u8], message: &'a [u8]) {
        let replaced_before = self.checker.strings_replaced;
        let fields = match self.checker.span(message) {
            Ok(fields) => fields,
            Err(fault) => {
                return self.reject(SpanFault::Broken(malformed(self.start, fault)), replaced_before);
            }
        };
        let (Some(trace_id), Some(span_id), Some(parent)) =
            (TraceId::valid(fields.trace_id), SpanId::valid(fields.span_id), parent(fields.parent))
        else {
            return self.reject(identity_fault(&fields), replaced_before);
        };
        self.scanned.spans += 1;
        let facts = SpanFacts {
            at: (message.as_ptr().addr() - self.start) as u32,
            len: message.len() as u32,
            trace_id,
            span_id,
            parent,
            start: fields.start,
            end: fields.end,
            kind: fields.kind,
            status: fields.status,
            flags: fields.flags,
            name: fields.name,
            trace_state: fields.trace_state,
            message,
            resource_spans: ResourceSpansView::new(resource_spans),
            scope_spans: ScopeSpansView::new(scope_spans),
        };
        (self.visit)(&facts, &self.checker.watch);
    }

    /// Counts a span that is stepped over; its strings are not passed on, so they are not counted.
    #[cold]
    fn reject(&mut self, fault: SpanFault, replaced_before: u32) {
        self.checker.strings_replaced = replaced_before;
        self.scanned.rejected += 1;
        self.scanned.first_rejection.get_or_insert(fault);
    }
}

/// None if the length is wrong; no parent if it is empty or all zero.
#[inline]
fn parent(bytes: &[u8]) -> Option<Option<SpanId>> {
    matches!(bytes.len(), 0 | 8).then(|| SpanId::valid(bytes))
}

#[cold]
fn identity_fault(fields: &SpanFields<'_>) -> SpanFault {
    match (fields.trace_id.len(), fields.span_id.len()) {
        (16, _) if TraceId::valid(fields.trace_id).is_none() => SpanFault::TraceIdZero,
        (16, 8) if SpanId::valid(fields.span_id).is_none() => SpanFault::SpanIdZero,
        (16, 8) => SpanFault::ParentLength(fields.parent.len()),
        (16, len) => SpanFault::SpanIdLength(len),
        (len, _) => SpanFault::TraceIdLength(len),
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
    use prost::Message;

    use super::*;

    fn body(spans: Vec<Span>) -> Vec<u8> {
        let scope_spans = vec![ScopeSpans { spans, ..Default::default() }];
        let resource_spans = vec![ResourceSpans { scope_spans, ..Default::default() }];
        ExportTraceServiceRequest { resource_spans }.encode_to_vec()
    }

    fn span(trace_id: &[u8], span_id: &[u8], parent: &[u8]) -> Span {
        Span {
            trace_id: trace_id.to_vec(),
            span_id: span_id.to_vec(),
            parent_span_id: parent.to_vec(),
            ..Default::default()
        }
    }

    #[test]
    fn a_span_with_wrong_identifiers_is_stepped_over_and_said_why() {
        for (wrong, reason) in [
            (span(&[1; 15], &[2; 8], &[]), "trace_id has 15 bytes, expected 16"),
            (span(&[0], &[2; 8], &[]), "trace_id is not 32 hexadecimal digits"),
            (span(&[0; 16], &[2; 8], &[]), "trace_id is all zero"),
            (span(&[1; 16], &[2; 7], &[]), "span_id has 7 bytes, expected 8"),
            (span(&[1; 16], &[0; 8], &[]), "span_id is all zero"),
            (span(&[1; 16], &[2; 8], &[3; 9]), "parent_span_id has 9 bytes, expected 8 or none"),
        ] {
            let body = body(vec![wrong, span(&[1; 16], &[4; 8], &[])]);
            let mut visited = Vec::new();
            let scanned = scan(&body, |span| visited.push(span.span_id)).unwrap();
            assert_eq!((scanned.spans, scanned.rejected), (1, 1));
            assert_eq!(scanned.first_rejection.unwrap().to_string(), reason);
            assert_eq!(visited, [SpanId([4; 8])]);
        }
    }

    #[test]
    fn a_parent_of_zeros_is_none() {
        let body = body(vec![span(&[1; 16], &[2; 8], &[0; 8]), span(&[1; 16], &[2; 8], &[3; 8])]);
        let mut parents = Vec::new();
        scan(&body, |span| parents.push(span.parent)).unwrap();
        assert_eq!(parents, [None, Some(SpanId([3; 8]))]);
    }

    #[test]
    fn a_span_that_is_broken_inside_costs_itself_alone() {
        let mut body = body(vec![span(&[1; 16], &[2; 8], &[]), span(&[1; 16], &[3; 8], &[])]);
        // the last length in the request is that of the second span's id
        let at = body.len() - 9;
        body[at] = 9;
        let scanned = scan(&body, |_| ()).unwrap();
        assert_eq!((scanned.spans, scanned.rejected), (1, 1));
        let expected = "a length that ends within the message";
        assert_eq!(scanned.first_rejection, Some(SpanFault::Broken(Malformed { offset: at, expected })));
    }

    #[test]
    fn a_request_that_is_broken_around_its_spans_is_refused_whole() {
        let mut body = body(vec![span(&[1; 16], &[2; 8], &[])]);
        body.extend_from_slice(&[0x0a, 0x05, 0x00]);
        let malformed = scan(&body, |_| ()).unwrap_err();
        let offset = body.len() - 2;
        let expected = format!("at byte {offset}: expected a length that ends within the message");
        assert_eq!(malformed.to_string(), expected);
    }
}
