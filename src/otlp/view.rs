//! Reads requests in place, without decoding them.
//!
//! Meant for what [`scan`](fn@super::scan) has accepted: there, every value is the one that prost would decode. On other
//! bytes a view ends at what is broken; nothing here fails or panics. Strings that are not UTF-8 are read with U+FFFD
//! in place of what is not.

use std::borrow::Cow;

use super::schema::{
    event, link, request as export, resource, resource_spans, scope, scope_spans, span, status,
};
use super::value::Message;
pub use super::value::{ArrayView, KeyValueView, KvListView, ValueView};
use super::wire::Fields;
use crate::trace::{SpanId, TraceId};

/// The resources of an encoded `ExportTraceServiceRequest`.
pub fn request(body: &[u8]) -> impl Iterator<Item = ResourceSpansView<'_>> + Clone {
    Message::Whole(body).repeated(export::RESOURCE_SPANS).map(ResourceSpansView::new)
}

/// Where a span stands in its request.
#[derive(Clone, Copy, Debug)]
pub struct Located<'a> {
    pub resource_spans: ResourceSpansView<'a>,
    pub scope_spans: ScopeSpansView<'a>,
}

/// The `ResourceSpans` and the `ScopeSpans` that hold the span message at `at`; what does not hold it is skipped by its
/// length.
pub fn locate(body: &[u8], at: u32) -> Option<Located<'_>> {
    let at = body.as_ptr().addr() + at as usize;
    let holds =
        |message: &&[u8]| (message.as_ptr().addr()..message.as_ptr().addr() + message.len()).contains(&at);
    let resource_spans = Message::Whole(body).repeated(export::RESOURCE_SPANS).find(holds)?;
    let scope_spans = Message::Whole(resource_spans).repeated(resource_spans::SCOPE_SPANS).find(holds)?;
    Some(Located {
        resource_spans: ResourceSpansView::new(resource_spans),
        scope_spans: ScopeSpansView::new(scope_spans),
    })
}

/// A `ResourceSpans` message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResourceSpansView<'a> {
    message: &'a [u8],
}

impl<'a> ResourceSpansView<'a> {
    pub fn new(message: &'a [u8]) -> Self {
        Self { message }
    }

    pub fn as_bytes(&self) -> &'a [u8] {
        self.message
    }

    pub fn resource(&self) -> ResourceView<'a> {
        ResourceView { message: Message::within(self.message, resource_spans::RESOURCE) }
    }

    pub fn schema_url(&self) -> Cow<'a, str> {
        Message::Whole(self.message).text(resource_spans::SCHEMA_URL)
    }

    pub fn scope_spans(&self) -> impl Iterator<Item = ScopeSpansView<'a>> + Clone + use<'a> {
        Message::Whole(self.message).repeated(resource_spans::SCOPE_SPANS).map(ScopeSpansView::new)
    }
}

/// A `Resource`, merged if it came in parts.
#[derive(Clone, Copy, Debug)]
pub struct ResourceView<'a> {
    message: Message<'a>,
}

impl<'a> ResourceView<'a> {
    /// The whole message, unless it came in parts.
    pub fn as_bytes(&self) -> Option<&'a [u8]> {
        match self.message {
            Message::Whole(message) => Some(message),
            Message::Joined { .. } => None,
        }
    }

    pub fn attributes(&self) -> impl Iterator<Item = KeyValueView<'a>> + Clone + use<'a> {
        self.message.attributes(resource::ATTRIBUTE)
    }

    /// `service.name`, of several the last; empty if there is none.
    pub fn service_name(&self) -> Cow<'a, str> {
        let named = self.attributes().filter(|attribute| attribute.key_bytes() == b"service.name");
        match named.last().map(|attribute| attribute.value()) {
            Some(ValueView::String(name)) => String::from_utf8_lossy(name),
            _ => Cow::Borrowed(""),
        }
    }

    pub fn dropped_attributes(&self) -> u32 {
        self.message.number(resource::DROPPED_ATTRIBUTES) as u32
    }
}

/// A `ScopeSpans` message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScopeSpansView<'a> {
    message: &'a [u8],
}

impl<'a> ScopeSpansView<'a> {
    pub fn new(message: &'a [u8]) -> Self {
        Self { message }
    }

    pub fn as_bytes(&self) -> &'a [u8] {
        self.message
    }

    pub fn scope(&self) -> ScopeView<'a> {
        ScopeView { message: Message::within(self.message, scope_spans::SCOPE) }
    }

    pub fn schema_url(&self) -> Cow<'a, str> {
        Message::Whole(self.message).text(scope_spans::SCHEMA_URL)
    }

    /// All spans, those too that a scan rejects.
    pub fn spans(&self) -> impl Iterator<Item = SpanView<'a>> + Clone + use<'a> {
        Message::Whole(self.message).repeated(scope_spans::SPAN).map(SpanView::new)
    }
}

/// An `InstrumentationScope`, merged if it came in parts.
#[derive(Clone, Copy, Debug)]
pub struct ScopeView<'a> {
    message: Message<'a>,
}

impl<'a> ScopeView<'a> {
    pub fn name(&self) -> Cow<'a, str> {
        self.message.text(scope::NAME)
    }

    pub fn version(&self) -> Cow<'a, str> {
        self.message.text(scope::VERSION)
    }

    pub fn attributes(&self) -> impl Iterator<Item = KeyValueView<'a>> + Clone + use<'a> {
        self.message.attributes(scope::ATTRIBUTE)
    }

    pub fn dropped_attributes(&self) -> u32 {
        self.message.number(scope::DROPPED_ATTRIBUTES) as u32
    }
}

/// A `Span`. Its own fields are read once, when the view is made; attributes, events and links when they are asked for.
#[derive(Clone, Copy, Debug)]
pub struct SpanView<'a> {
    message: &'a [u8],
    trace_id: &'a [u8],
    span_id: &'a [u8],
    parent: &'a [u8],
    trace_state: &'a [u8],
    name: &'a [u8],
    start: u64,
    end: u64,
    kind: i32,
    flags: u32,
    dropped_attributes: u32,
    dropped_events: u32,
    dropped_links: u32,
    status: Message<'a>,
}

impl<'a> SpanView<'a> {
    pub fn new(message: &'a [u8]) -> Self {
        let mut view = Self {
            message,
            trace_id: &[],
            span_id: &[],
            parent: &[],
            trace_state: &[],
            name: &[],
            start: 0,
            end: 0,
            kind: 0,
            flags: 0,
            dropped_attributes: 0,
            dropped_events: 0,
            dropped_links: 0,
            status: Message::EMPTY,
        };
        for field in Fields::new(message) {
            match field.key {
                span::TRACE_ID => view.trace_id = field.bytes(),
                span::SPAN_ID => view.span_id = field.bytes(),
                span::PARENT => view.parent = field.bytes(),
                span::TRACE_STATE => view.trace_state = field.bytes(),
                span::NAME => view.name = field.bytes(),
                span::START => view.start = field.number(),
                span::END => view.end = field.number(),
                span::KIND => view.kind = field.number() as i32,
                span::FLAGS => view.flags = field.number() as u32,
                span::DROPPED_ATTRIBUTES => view.dropped_attributes = field.number() as u32,
                span::DROPPED_EVENTS => view.dropped_events = field.number() as u32,
                span::DROPPED_LINKS => view.dropped_links = field.number() as u32,
                span::STATUS => view.status = view.status.and(field.bytes(), message, span::STATUS),
                _ => {}
            }
        }
        view
    }

    /// The whole message.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.message
    }

    /// All zero in a span that a scan rejects for it.
    pub fn trace_id(&self) -> TraceId {
        TraceId::valid(self.trace_id).unwrap_or_default()
    }

    /// All zero in a span that a scan rejects for it.
    pub fn span_id(&self) -> SpanId {
        SpanId::valid(self.span_id).unwrap_or_default()
    }

    pub fn parent(&self) -> Option<SpanId> {
        SpanId::valid(self.parent)
    }

    pub fn trace_state(&self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.trace_state)
    }

    pub fn trace_state_bytes(&self) -> &'a [u8] {
        self.trace_state
    }

    pub fn flags(&self) -> u32 {
        self.flags
    }

    pub fn name(&self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.name)
    }

    pub fn name_bytes(&self) -> &'a [u8] {
        self.name
    }

    pub fn kind(&self) -> i32 {
        self.kind
    }

    /// Nanoseconds since the Unix epoch; 0 = unset.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Nanoseconds since the Unix epoch; 0 = unset.
    pub fn end(&self) -> u64 {
        self.end
    }

    pub fn status_code(&self) -> i32 {
        self.status.number(status::CODE) as i32
    }

    pub fn status_message(&self) -> Cow<'a, str> {
        self.status.text(status::MESSAGE)
    }

    pub fn attributes(&self) -> impl Iterator<Item = KeyValueView<'a>> + Clone + use<'a> {
        Message::Whole(self.message).attributes(span::ATTRIBUTE)
    }

    pub fn events(&self) -> impl Iterator<Item = EventView<'a>> + Clone + use<'a> {
        Message::Whole(self.message)
            .repeated(span::EVENT)
            .map(|event| EventView { message: Message::Whole(event) })
    }

    pub fn links(&self) -> impl Iterator<Item = LinkView<'a>> + Clone + use<'a> {
        Message::Whole(self.message)
            .repeated(span::LINK)
            .map(|link| LinkView { message: Message::Whole(link) })
    }

    pub fn dropped_attributes(&self) -> u32 {
        self.dropped_attributes
    }

    pub fn dropped_events(&self) -> u32 {
        self.dropped_events
    }

    pub fn dropped_links(&self) -> u32 {
        self.dropped_links
    }
}

/// The trace state of a span message, without reading more of it than its keys and lengths.
pub fn trace_state(span: &[u8]) -> &[u8] {
    let mut trace_state: &[u8] = &[];
    for field in Fields::new(span).filter(|field| field.key == span::TRACE_STATE) {
        trace_state = field.bytes();
    }
    trace_state
}

/// A `Span.Event`.
#[derive(Clone, Copy, Debug)]
pub struct EventView<'a> {
    message: Message<'a>,
}

impl<'a> EventView<'a> {
    /// Nanoseconds since the Unix epoch.
    pub fn time(&self) -> u64 {
        self.message.number(event::TIME)
    }

    pub fn name(&self) -> Cow<'a, str> {
        self.message.text(event::NAME)
    }

    pub fn attributes(&self) -> impl Iterator<Item = KeyValueView<'a>> + Clone + use<'a> {
        self.message.attributes(event::ATTRIBUTE)
    }

    pub fn dropped_attributes(&self) -> u32 {
        self.message.number(event::DROPPED_ATTRIBUTES) as u32
    }
}

/// A `Span.Link`. Its identifiers are as the sender wrote them, of any length.
#[derive(Clone, Copy, Debug)]
pub struct LinkView<'a> {
    message: Message<'a>,
}

impl<'a> LinkView<'a> {
    pub fn trace_id(&self) -> &'a [u8] {
        self.message.bytes(link::TRACE_ID)
    }

    pub fn span_id(&self) -> &'a [u8] {
        self.message.bytes(link::SPAN_ID)
    }

    pub fn trace_state(&self) -> Cow<'a, str> {
        self.message.text(link::TRACE_STATE)
    }

    pub fn flags(&self) -> u32 {
        self.message.number(link::FLAGS) as u32
    }

    pub fn attributes(&self) -> impl Iterator<Item = KeyValueView<'a>> + Clone + use<'a> {
        self.message.attributes(link::ATTRIBUTE)
    }

    pub fn dropped_attributes(&self) -> u32 {
        self.message.number(link::DROPPED_ATTRIBUTES) as u32
    }
}
