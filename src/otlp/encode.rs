//! Writes the spans that leave as one request, by copying.
//!
//! Spans are grouped by equal resource, then by equal scope, in order of first appearance. Resource, scope and span
//! leave byte by byte as they came, unknown fields included, but for the trace state of an edited span and for strings
//! that are not UTF-8.

use std::borrow::Cow;
use std::hash::BuildHasher;
use std::ops::Range;

use hashbrown::{DefaultHashBuilder, HashSet, HashTable};

use super::lossy::{self, Kind};
use super::outline::{self, Outline};
use super::schema::{request, resource_spans, scope_spans, span};
use super::tracestate::{self, ThEdit};
use super::view::locate;
use super::wire::{Cursor, Fields, field_len, put_bytes, put_bytes_header};

/// A span that leaves, in the request it came with.
#[derive(Clone, Copy, Debug)]
pub struct PieceSpan<'a> {
    /// The request.
    pub body: &'a [u8],
    /// Where the span message begins in the request.
    pub at: u32,
    pub len: u32,
    pub edit: ThEdit,
    /// A scan of the request has found no string to replace.
    pub utf8: bool,
    /// Of the request. Without one the request is walked over.
    pub outline: Outline<'a>,
}

impl<'a> PieceSpan<'a> {
    fn message(&self) -> &'a [u8] {
        let start = self.at as usize;
        self.body.get(start..start + self.len as usize).unwrap_or_default()
    }
}

/// Appends an encoded `ExportTraceServiceRequest` with these spans to `out`.
///
/// The spans are ones that a scan of their request has visited. A span that is given twice is written twice.
pub fn piece(spans: &[PieceSpan<'_>], out: &mut Vec<u8>) {
    let mut piece = Piece::default();
    for span in spans {
        piece.add(span);
    }
    piece.write(out);
}

/// What is to be written: groups in order of first appearance, and the spans with the number of their scope.
#[derive(Debug, Default)]
struct Piece<'a> {
    hash: DefaultHashBuilder,
    resource_numbers: HashTable<usize>,
    scope_numbers: HashTable<usize>,
    resources: Vec<Group>,
    scopes: Vec<ScopeGroup>,
    spans: Vec<(usize, Source<'a>)>,
    /// Headers, and spans that do not leave as they stand in their request.
    bytes: Vec<u8>,
    /// Distinct fields of requests beside their resources.
    requests: HashSet<Vec<u8>>,
    /// The same in order of first appearance.
    unknown: Vec<u8>,
    last: Option<Place<'a>>,
}

/// A message that holds items, to be written with a header of its own fields.
#[derive(Debug)]
struct Group {
    /// Its fields beside the items as they came: groups with equal ones are the same. Of `Piece::bytes`.
    came: Range<usize>,
    /// The same as they leave.
    header: Range<usize>,
    /// Header and items.
    len: usize,
}

#[derive(Debug)]
struct ScopeGroup {
    resource: usize,
    group: Group,
}

#[derive(Debug)]
enum Source<'a> {
    Request(&'a [u8]),
    /// Of `Piece::bytes`.
    Rewritten(Range<usize>),
}

/// Where the last span stood: the next one most often stands beside it.
#[derive(Debug)]
struct Place<'a> {
    body: &'a [u8],
    scope_spans: Range<usize>,
    scope: usize,
}

impl<'a> Piece<'a> {
    fn add(&mut self, span: &PieceSpan<'a>) {
        let Some(scope) = self.scope_of(span) else { return };
        let source = self.source(span);
        let len = match &source {
            Source::Request(message) => message.len(),
            Source::Rewritten(range) => range.len(),
        };
        self.scopes[scope].group.len += field_len(len);
        self.spans.push((scope, source));
    }

    fn scope_of(&mut self, span: &PieceSpan<'a>) -> Option<usize> {
        let at = span.at as usize;
        let same_body = self.last.as_ref().filter(|last| std::ptr::eq(last.body, span.body));
        if let Some(last) = same_body.filter(|last| last.scope_spans.contains(&at)) {
            return Some(last.scope);
        }
        if same_body.is_none() && span.outline.is_empty() {
            self.add_request(span.body);
        }
        let (scope_spans, scope) = match span.outline.place_of(span.at) {
            Some(place) => self.outlined_scope(span, place),
            None => self.located_scope(span)?,
        };
        self.last = Some(Place { body: span.body, scope_spans, scope });
        Some(scope)
    }

    fn outlined_scope(&mut self, span: &PieceSpan<'_>, place: outline::Place) -> (Range<usize>, usize) {
        let came = self.bytes.len();
        copy_around(span.body, &place.resource_spans, &place.scopes, &mut self.bytes);
        let resource = self.resource(came, span.utf8);
        let came = self.bytes.len();
        copy_around(span.body, &place.scope_spans, &place.spans, &mut self.bytes);
        (place.scope_spans, self.scope(resource, came, span.utf8))
    }

    fn located_scope(&mut self, span: &PieceSpan<'_>) -> Option<(Range<usize>, usize)> {
        let located = locate(span.body, span.at)?;
        let came = self.bytes.len();
        copy_header(located.resource_spans.as_bytes(), resource_spans::SCOPE_SPANS, &mut self.bytes);
        let resource = self.resource(came, span.utf8);
        let came = self.bytes.len();
        let message = located.scope_spans.as_bytes();
        copy_header(message, scope_spans::SPAN, &mut self.bytes);
        let start = message.as_ptr().addr() - span.body.as_ptr().addr();
        Some((start..start + message.len(), self.scope(resource, came, span.utf8)))
    }

    /// Takes over what a request holds beside resources, once.
    fn add_request(&mut self, body: &[u8]) {
        let mut unknown = Vec::new();
        copy_header(body, request::RESOURCE_SPANS, &mut unknown);
        if !unknown.is_empty() && !self.requests.contains(&unknown) {
            self.unknown.extend_from_slice(&unknown);
            self.requests.insert(unknown);
        }
    }

    /// The number of the resource whose fields were appended from `came` on.
    fn resource(&mut self, came: usize, utf8: bool) -> usize {
        let (header, known) =
            (&self.bytes[came..], |number: &usize| &self.bytes[self.resources[*number].came.clone()]);
        let hash = self.hash.hash_one(header);
        if let Some(&number) = self.resource_numbers.find(hash, |number| known(number) == header) {
            self.bytes.truncate(came);
            return number;
        }
        let number = self.resources.len();
        self.resource_numbers.insert_unique(hash, number, |number| self.hash.hash_one(known(number)));
        let group = self.group(came, Kind::ResourceSpans, utf8);
        self.resources.push(group);
        number
    }

    /// The number of the scope whose fields were appended from `came` on.
    fn scope(&mut self, resource: usize, came: usize, utf8: bool) -> usize {
        let known = |number: &usize| {
            let scope = &self.scopes[*number];
            (scope.resource, &self.bytes[scope.group.came.clone()])
        };
        let header = (resource, &self.bytes[came..]);
        let hash = self.hash.hash_one(header);
        if let Some(&number) = self.scope_numbers.find(hash, |number| known(number) == header) {
            self.bytes.truncate(came);
            return number;
        }
        let number = self.scopes.len();
        self.scope_numbers.insert_unique(hash, number, |number| self.hash.hash_one(known(number)));
        let group = self.group(came, Kind::ScopeSpans, utf8);
        self.scopes.push(ScopeGroup { resource, group });
        number
    }

    /// A group whose header is what was appended from `came` on.
    fn group(&mut self, came: usize, kind: Kind, utf8: bool) -> Group {
        let came = came..self.bytes.len();
        let mut header = came.clone();
        if !utf8 && lossy::is_needed(kind, &self.bytes[came.clone()]) {
            let replaced = lossy::replace(kind, &self.bytes[came.clone()]);
            self.bytes.extend_from_slice(&replaced);
            header = came.end..self.bytes.len();
        }
        Group { came, len: header.len(), header }
    }

    fn source(&mut self, span: &PieceSpan<'a>) -> Source<'a> {
        let message = span.message();
        let utf8 = if !span.utf8 && lossy::is_needed(Kind::Span, message) {
            Cow::Owned(lossy::replace(Kind::Span, message))
        } else if span.edit == ThEdit::Keep {
            return Source::Request(message);
        } else {
            Cow::Borrowed(message)
        };
        let start = self.bytes.len();
        splice_span(&utf8, span.edit, &mut self.bytes);
        Source::Rewritten(start..self.bytes.len())
    }

    fn write(mut self, out: &mut Vec<u8>) {
        // numbers follow first appearance, and the sort is stable
        self.spans.sort_by_key(|(scope, _)| (self.scopes[*scope].resource, *scope));
        for scope in &self.scopes {
            self.resources[scope.resource].len += field_len(scope.group.len);
        }
        out.reserve(
            self.unknown.len() + self.resources.iter().map(|resource| field_len(resource.len)).sum::<usize>(),
        );
        out.extend_from_slice(&self.unknown);
        let resource_of = |scope: usize| self.scopes[scope].resource;
        for spans in self.spans.chunk_by(|(left, _), (right, _)| resource_of(*left) == resource_of(*right)) {
            let group = &self.resources[resource_of(spans[0].0)];
            put_bytes_header(request::RESOURCE_SPANS, group.len, out);
            out.extend_from_slice(&self.bytes[group.header.clone()]);
            for spans in spans.chunk_by(|(left, _), (right, _)| left == right) {
                self.write_scope(&self.scopes[spans[0].0].group, spans, out);
            }
        }
    }

    fn write_scope(&self, group: &Group, spans: &[(usize, Source<'_>)], out: &mut Vec<u8>) {
        put_bytes_header(resource_spans::SCOPE_SPANS, group.len, out);
        out.extend_from_slice(&self.bytes[group.header.clone()]);
        for (_, source) in spans {
            let message = match source {
                Source::Request(message) => message,
                Source::Rewritten(range) => &self.bytes[range.clone()],
            };
            put_bytes(scope_spans::SPAN, message, out);
        }
    }
}

/// Appends a span message with an edited trace state; its other fields stay as they are and in order.
fn splice_span(message: &[u8], edit: ThEdit, out: &mut Vec<u8>) {
    if edit == ThEdit::Keep {
        return out.extend_from_slice(message);
    }
    let mut trace_state: &[u8] = &[];
    let (mut copied, mut read) = (0, 0);
    for field in Fields::new(message) {
        let end = read + field.raw.len();
        if field.key == span::TRACE_STATE {
            trace_state = field.bytes();
            out.extend_from_slice(&message[copied..read]);
            copied = end;
        }
        read = end;
    }
    out.extend_from_slice(&message[copied..]);
    let mut edited = Vec::with_capacity(trace_state.len() + 32);
    tracestate::splice(trace_state, edit, &mut edited);
    if !edited.is_empty() {
        put_bytes(span::TRACE_STATE, &edited, out);
    }
}

/// Appends a message without the run of its items.
fn copy_around(body: &[u8], message: &Range<usize>, items: &Range<usize>, out: &mut Vec<u8>) {
    out.extend_from_slice(body.get(message.start..items.start).unwrap_or_default());
    out.extend_from_slice(body.get(items.end..message.end).unwrap_or_default());
}

/// Appends the fields of a message that do not hold its items.
fn copy_header(message: &[u8], items: u32, out: &mut Vec<u8>) {
    let mut cursor = Cursor::new(message);
    let mut run = message;
    loop {
        let before = cursor.rest();
        if cursor.key() == Ok(items) {
            if run.len() > before.len() {
                out.extend_from_slice(&run[..run.len() - before.len()]);
            }
            if cursor.bytes().is_err() {
                return;
            }
            run = cursor.rest();
        } else {
            let mut field = Fields::new(before);
            if field.next().is_none() {
                return out.extend_from_slice(&run[..run.len() - before.len()]);
            }
            cursor = field.cursor();
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use opentelemetry_proto::tonic::common::v1::{
        AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList,
    };
    use opentelemetry_proto::tonic::resource::v1::Resource;
    use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::otlp::scan;
    use crate::otlp::workload::Generator;
    use crate::trace::Threshold;

    fn encoded(spans: &[PieceSpan<'_>]) -> Vec<u8> {
        let mut out = Vec::new();
        piece(spans, &mut out);
        out
    }

    fn all_spans(body: &[u8], edit: ThEdit) -> Vec<PieceSpan<'_>> {
        let mut spans = Vec::new();
        let utf8 = scan(body, |_| ()).unwrap().strings_replaced == 0;
        let outline = Outline::default();
        scan(body, |span| spans.push(PieceSpan { body, at: span.at, len: span.len, edit, utf8, outline }))
            .unwrap();
        spans
    }

    /// A span in its place: one span of one scope of one resource.
    fn places(body: &[u8]) -> Vec<ResourceSpans> {
        let mut places = Vec::new();
        for mut resource in ExportTraceServiceRequest::decode(body).unwrap().resource_spans {
            for mut scope in std::mem::take(&mut resource.scope_spans) {
                for span in std::mem::take(&mut scope.spans) {
                    let scope_spans = vec![ScopeSpans { spans: vec![span], ..scope.clone() }];
                    places.push(ResourceSpans { scope_spans, ..resource.clone() });
                }
            }
        }
        places
    }

    fn edited(mut place: ResourceSpans, edit: ThEdit) -> ResourceSpans {
        let trace_state = &mut place.scope_spans[0].spans[0].trace_state;
        let mut out = Vec::new();
        tracestate::splice(trace_state.as_bytes(), edit, &mut out);
        *trace_state = String::from_utf8(out).unwrap();
        place
    }

    fn edits() -> impl Strategy<Value = ThEdit> {
        prop_oneof![
            Just(ThEdit::Keep),
            Just(ThEdit::Erase),
            (0..1u64 << 56).prop_map(|th| ThEdit::Set(Threshold(th)))
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_piece_holds_its_spans_in_their_places(
            seed in 0..1000u64,
            size in 1..200usize,
            outlined: bool,
            picks in proptest::collection::vec((0..3usize, any::<prop::sample::Index>(), edits()), 0..60),
        ) {
            let mut generator = Generator::new(seed);
            let bodies = [generator.request(size), generator.request(size), generator.request(5)];
            let outlines = bodies.each_ref().map(|body| Outline::note(body));
            let spans = bodies.each_ref().map(|body| all_spans(body, ThEdit::Keep));
            let places = bodies.each_ref().map(|body| places(body));
            let mut picked = Vec::new();
            let mut expected = Vec::new();
            for (body, index, edit) in picks {
                let at = index.index(spans[body].len());
                let outline = if outlined { Outline::new(&outlines[body]) } else { Outline::default() };
                picked.push(PieceSpan { edit, outline, ..spans[body][at] });
                expected.push(edited(places[body][at].clone(), edit));
            }
            let out = encoded(&picked);
            let mut found = self::places(&out);
            let by_bytes = |place: &ResourceSpans| place.encode_to_vec();
            found.sort_by_key(by_bytes);
            expected.sort_by_key(by_bytes);
            prop_assert_eq!(found, expected);
            prop_assert_eq!(scan(&out, |_| ()).unwrap().spans as usize, picked.len());
        }
    }

    #[test]
    fn equal_resources_and_scopes_of_several_requests_become_one() {
        let mut generator = Generator::new(3);
        let body = generator.request(300);
        let copy = body.clone();
        let spans = [all_spans(&body, ThEdit::Keep), all_spans(&copy, ThEdit::Keep)].concat();
        let one = ExportTraceServiceRequest::decode(body.as_slice()).unwrap();
        let both = ExportTraceServiceRequest::decode(encoded(&spans).as_slice()).unwrap();
        assert_eq!(both.resource_spans.len(), one.resource_spans.len());
        for (both, one) in both.resource_spans.iter().zip(&one.resource_spans) {
            assert_eq!(both.scope_spans.len(), one.scope_spans.len());
            assert_eq!(both.scope_spans[0].spans.len(), 2 * one.scope_spans[0].spans.len());
        }
    }

    #[test]
    fn a_whole_request_leaves_as_it_came() {
        let body = Generator::new(4).request(40);
        let request = ExportTraceServiceRequest::decode(body.as_slice()).unwrap();
        let out = encoded(&all_spans(&body, ThEdit::Keep));
        assert_eq!(ExportTraceServiceRequest::decode(out.as_slice()).unwrap(), request);
    }

    fn field(key: u32, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put_bytes(key, bytes, &mut out);
        out
    }

    #[test]
    fn unknown_fields_survive_at_every_level() {
        const UNKNOWN: u32 = 99 << 3 | 2;
        let span = Span { trace_id: vec![1; 16], span_id: vec![2; 8], ..Default::default() };
        let span = [span.encode_to_vec(), field(UNKNOWN, b"in the span")].concat();
        let scope = [field(UNKNOWN, b"in the scope"), field(scope_spans::SPAN, &span)].concat();
        let resource =
            [field(UNKNOWN, b"in the resource"), field(resource_spans::SCOPE_SPANS, &scope)].concat();
        let body = [field(UNKNOWN, b"in the request"), field(request::RESOURCE_SPANS, &resource)].concat();
        assert_eq!(encoded(&all_spans(&body, ThEdit::Keep)), body);
        let out = encoded(&all_spans(&body, ThEdit::Set(Threshold(1 << 55))));
        let found = |text: &[u8]| out.windows(text.len()).any(|window| window == text);
        assert!(found(b"in the span") && found(b"ot=th:8"));
    }

    /// A request with `text` in every string that there is.
    fn all_strings(text: &str) -> ExportTraceServiceRequest {
        let any = |value| AnyValue { value: Some(value) };
        let string = any(Value::StringValue(text.to_owned()));
        let pair = |value| KeyValue { key: text.to_owned(), value: Some(value), ..Default::default() };
        let pairs = any(Value::KvlistValue(KeyValueList { values: vec![pair(string.clone())] }));
        let array = any(Value::ArrayValue(ArrayValue { values: vec![string, pairs] }));
        let attributes = vec![pair(array)];
        let entity = EntityRef {
            schema_url: text.to_owned(),
            r#type: text.to_owned(),
            id_keys: vec![text.to_owned(); 2],
            description_keys: vec![text.to_owned()],
        };
        let trace_state = text.to_owned();
        let link =
            Link { trace_state: trace_state.clone(), attributes: attributes.clone(), ..Default::default() };
        let span = Span {
            trace_id: vec![1; 16],
            span_id: vec![2; 8],
            trace_state,
            name: text.to_owned(),
            events: vec![Event {
                name: text.to_owned(),
                attributes: attributes.clone(),
                ..Default::default()
            }],
            links: vec![link],
            status: Some(Status { message: text.to_owned(), code: 2 }),
            attributes: attributes.clone(),
            ..Default::default()
        };
        let (name, version) = (text.to_owned(), text.to_owned());
        let scope =
            InstrumentationScope { name, version, attributes: attributes.clone(), ..Default::default() };
        let scope_spans =
            vec![ScopeSpans { scope: Some(scope), spans: vec![span], schema_url: text.to_owned() }];
        let resource = Some(Resource { attributes, entity_refs: vec![entity], ..Default::default() });
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans { resource, scope_spans, schema_url: text.to_owned() }],
        }
    }

    #[test]
    fn what_is_not_utf8_is_replaced_in_every_string() {
        let mut body = all_strings("a\u{fffd}b").encode_to_vec();
        let mut broken = 0;
        for at in 0..body.len() - 2 {
            if body[at..at + 3] == *"\u{fffd}".as_bytes() {
                body[at..at + 3].fill(0xff);
                broken += 1;
            }
        }
        assert_eq!(scan(&body, |_| ()).unwrap().strings_replaced, broken);
        let out = encoded(&all_spans(&body, ThEdit::Keep));
        let expected = all_strings("a\u{fffd}\u{fffd}\u{fffd}b");
        assert_eq!(ExportTraceServiceRequest::decode(out.as_slice()).unwrap(), expected);
    }
}
