//! Divides a piece that is larger than a request may be.
//!
//! Between resources where possible; a resource that is itself too large is divided between its scopes, then between
//! their spans, each part with the envelope of its resource and scope. A single span is never divided. The parts hold
//! the same spans in the same order; unknown fields of an envelope go with every part that repeats it.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use prost::encoding::{self, WireType};

/// A field of every level that holds the level below: `ExportTraceServiceRequest.resource_spans`.
const RESOURCE_SPANS: u32 = 1;
/// `ResourceSpans.scope_spans`.
const SCOPE_SPANS: u32 = 2;
/// `ScopeSpans.spans`.
const SPANS: u32 = 2;

/// An ExportTraceServiceRequest and the number of its spans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) otlp: Bytes,
    pub(super) spans: u32,
}

/// Parts of at most `limit` bytes, except where one span with its envelope is larger, or where the envelope takes more
/// than half of that: then twice the envelope, so that all parts together are about twice the piece at most.
///
/// Bytes that are no request come back as they are: the backend shall say so.
pub(super) fn split(piece: &Bytes, limit: usize) -> Vec<Part> {
    divide(piece, limit)
        .unwrap_or_else(|| vec![Part { otlp: piece.clone(), spans: count(piece).unwrap_or(0) }])
}

fn divide(piece: &Bytes, limit: usize) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    let mut open = Part { otlp: Bytes::new(), spans: 0 };
    let mut from = 0;
    for field in Fields::of(piece) {
        let Field { number, whole, value } = field?;
        let spans = if number == RESOURCE_SPANS { spans_of_resource(&piece[value.clone()])? } else { 0 };
        if whole.end - from > limit && !open.otlp.is_empty() {
            parts.push(std::mem::replace(&mut open, Part { otlp: Bytes::new(), spans: 0 }));
            from = whole.start;
        }
        if whole.len() > limit && number == RESOURCE_SPANS {
            divide_resource(&piece[value], limit, &mut parts)?;
            from = whole.end;
        } else {
            open = Part { otlp: piece.slice(from..whole.end), spans: open.spans + spans };
        }
    }
    if !open.otlp.is_empty() {
        parts.push(open);
    }
    Some(parts)
}

fn divide_resource(resource: &[u8], limit: usize, parts: &mut Vec<Part>) -> Option<()> {
    let (envelope, scopes) = open_envelope(resource, SCOPE_SPANS)?;
    let mut part = ResourcePart { envelope: &envelope, scopes: BytesMut::new(), spans: 0 };
    for scope in scopes {
        let (scope_envelope, spans) = open_envelope(scope, SPANS)?;
        let limit = limit.max(2 * (envelope.len() + scope_envelope.len()));
        let mut chosen = BytesMut::new();
        let mut count = 0;
        for span in spans {
            let size = envelope.len() + part.scopes.len() + scope_envelope.len() + chosen.len() + span.len();
            if size > limit && part.spans + count > 0 {
                part.add_scope(&scope_envelope, &chosen, count);
                parts.push(part.close());
                chosen.clear();
                count = 0;
            }
            put_field(SPANS, &[span], &mut chosen);
            count += 1;
        }
        part.add_scope(&scope_envelope, &chosen, count);
    }
    if part.spans > 0 {
        parts.push(part.close());
    }
    Some(())
}

/// What goes into one part of a resource.
struct ResourcePart<'a> {
    envelope: &'a [u8],
    scopes: BytesMut,
    spans: u32,
}

impl ResourcePart<'_> {
    fn add_scope(&mut self, envelope: &[u8], spans: &[u8], count: u32) {
        if count > 0 {
            put_field(SCOPE_SPANS, &[envelope, spans], &mut self.scopes);
            self.spans += count;
        }
    }

    fn close(&mut self) -> Part {
        let mut otlp = BytesMut::with_capacity(self.envelope.len() + self.scopes.len() + 16);
        put_field(RESOURCE_SPANS, &[self.envelope, &self.scopes], &mut otlp);
        self.scopes.clear();
        Part { otlp: otlp.freeze(), spans: std::mem::take(&mut self.spans) }
    }
}

fn put_field(number: u32, parts: &[&[u8]], out: &mut BytesMut) {
    encoding::encode_key(number, WireType::LengthDelimited, out);
    encoding::encode_varint(parts.iter().map(|part| part.len() as u64).sum(), out);
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// The values of the fields `inner` of a message, and all its other fields as they are.
fn open_envelope(message: &[u8], inner: u32) -> Option<(Vec<u8>, Vec<&[u8]>)> {
    let (mut envelope, mut values) = (Vec::new(), Vec::new());
    for field in Fields::of(message) {
        let Field { number, whole, value } = field?;
        if number == inner {
            values.push(&message[value]);
        } else {
            envelope.extend_from_slice(&message[whole]);
        }
    }
    Some((envelope, values))
}

/// Spans in a request; `None` if it is none.
fn count(request: &[u8]) -> Option<u32> {
    sum_inner(request, RESOURCE_SPANS, spans_of_resource)
}

fn spans_of_resource(resource: &[u8]) -> Option<u32> {
    sum_inner(resource, SCOPE_SPANS, |scope| sum_inner(scope, SPANS, |_| Some(1)))
}

fn sum_inner(message: &[u8], inner: u32, of: impl Fn(&[u8]) -> Option<u32>) -> Option<u32> {
    let mut sum = 0;
    for field in Fields::of(message) {
        let Field { number, value, .. } = field?;
        if number == inner {
            sum += of(&message[value])?;
        }
    }
    Some(sum)
}

/// A field of a message: with its tag, and what a length-delimited one holds.
struct Field {
    number: u32,
    whole: Range<usize>,
    value: Range<usize>,
}

/// The fields of a message in order; `None` once where it is broken, then the end.
struct Fields<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    fn of(message: &'a [u8]) -> Self {
        Self { message, at: 0 }
    }

    fn read(&self) -> Option<Field> {
        let mut rest = &self.message[self.at..];
        let (number, wire) = encoding::decode_key(&mut rest).ok()?;
        let length = match wire {
            WireType::LengthDelimited => usize::try_from(encoding::decode_varint(&mut rest).ok()?).ok()?,
            WireType::ThirtyTwoBit => 4,
            WireType::SixtyFourBit => 8,
            WireType::Varint => {
                encoding::decode_varint(&mut rest).ok()?;
                0
            }
            WireType::StartGroup | WireType::EndGroup => return None,
        };
        let start = self.message.len() - rest.len();
        let end = start.checked_add(length).filter(|end| *end <= self.message.len())?;
        Some(Field { number, whole: self.at..end, value: start..end })
    }
}

impl Iterator for Fields<'_> {
    type Item = Option<Field>;

    fn next(&mut self) -> Option<Option<Field>> {
        if self.at == self.message.len() {
            return None;
        }
        let field = self.read();
        self.at = field.as_ref().map_or(self.message.len(), |field| field.whole.end);
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::{
        collector::trace::v1::ExportTraceServiceRequest,
        common::v1::InstrumentationScope,
        trace::v1::{ResourceSpans, ScopeSpans, Span},
    };
    use prost::Message;

    use super::*;

    /// Resources, each a list of scopes, each a list of sizes of spans.
    fn piece(resources: &[&[&[usize]]]) -> Bytes {
        let span = |size: &usize| Span { name: "x".repeat(*size), ..Default::default() };
        let scope = |(n, sizes): (usize, &&[usize])| ScopeSpans {
            scope: Some(InstrumentationScope { name: format!("scope {n}"), ..Default::default() }),
            spans: sizes.iter().map(span).collect(),
            schema_url: "scope schema".to_owned(),
        };
        let resource = |scopes: &&[&[usize]]| ResourceSpans {
            resource: None,
            scope_spans: scopes.iter().enumerate().map(scope).collect(),
            schema_url: "schema".to_owned(),
        };
        let resource_spans = resources.iter().map(resource).collect();
        ExportTraceServiceRequest { resource_spans }.encode_to_vec().into()
    }

    /// (resource schema, scope, scope schema, name length) of every span, in order.
    fn spans(parts: &[Part]) -> Vec<(String, String, String, usize)> {
        let mut all = Vec::new();
        for part in parts {
            let before = all.len();
            for resource in ExportTraceServiceRequest::decode(part.otlp.clone()).unwrap().resource_spans {
                for scope in resource.scope_spans {
                    let name = scope.scope.unwrap().name;
                    all.extend(scope.spans.iter().map(|span| {
                        (resource.schema_url.clone(), name.clone(), scope.schema_url.clone(), span.name.len())
                    }));
                }
            }
            assert_eq!(all.len() - before, part.spans as usize);
        }
        all
    }

    #[test]
    fn a_small_piece_stays_whole() {
        let piece = piece(&[&[&[10, 20]], &[&[30]]]);
        assert_eq!(split(&piece, 1000), [Part { otlp: piece, spans: 3 }]);
    }

    #[test]
    fn resources_are_kept_together_where_they_fit() {
        let piece = piece(&[&[&[300]], &[&[300]], &[&[300]]]);
        let parts = split(&piece, 800);
        assert_eq!(parts.iter().map(|part| part.spans).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(parts.iter().map(|part| &part.otlp[..]).collect::<Vec<_>>().concat(), piece);
    }

    #[test]
    fn a_resource_that_is_too_large_is_divided_with_its_envelopes() {
        let piece = piece(&[&[&[10]], &[&[100, 100, 100], &[100; 9], &[]], &[&[20]]]);
        let parts = split(&piece, 400);
        assert!(parts.len() > 3);
        assert!(parts.iter().all(|part| part.otlp.len() <= 480), "{parts:?}");
        assert_eq!(spans(&parts), spans(&split(&piece, usize::MAX)));
    }

    #[test]
    fn a_span_larger_than_the_limit_goes_alone() {
        let piece = piece(&[&[&[10, 5000, 10]]]);
        let parts = split(&piece, 400);
        assert_eq!(parts.iter().map(|part| part.spans).collect::<Vec<_>>(), [1, 1, 1]);
        assert_eq!(spans(&parts), spans(&split(&piece, usize::MAX)));
    }

    #[test]
    fn a_large_envelope_is_not_repeated_for_every_span() {
        let span = Span { name: "x".repeat(20), ..Default::default() };
        let scope = ScopeSpans { spans: vec![span; 1_000], ..Default::default() };
        let schema_url = "y".repeat(10_000);
        let resource = ResourceSpans { schema_url, scope_spans: vec![scope], ..Default::default() };
        let piece: Bytes =
            ExportTraceServiceRequest { resource_spans: vec![resource] }.encode_to_vec().into();
        let parts = split(&piece, 8_000);
        assert_eq!(parts.iter().map(|part| part.spans).sum::<u32>(), 1_000);
        assert!(parts.iter().map(|part| part.otlp.len()).sum::<usize>() < 3 * piece.len(), "{}", parts.len());
    }

    #[test]
    fn what_is_no_request_is_left_alone() {
        let piece = Bytes::from_static(&[0x0a, 0xff, 0x01, 0x00]);
        assert_eq!(split(&piece, 1), [Part { otlp: piece, spans: 0 }]);
    }
}
