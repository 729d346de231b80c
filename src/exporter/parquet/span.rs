//! A piece's spans, each read once and in place.

use std::ops::Range;

use super::wire::{Field, Fields, short};

/// What one piece holds, in the order it was sent.
#[derive(Debug, Default)]
pub(super) struct Contents<'a> {
    pub(super) scopes: Vec<Scope<'a>>,
    pub(super) spans: Vec<Span<'a>>,
    /// The attributes of all spans; each span knows its range.
    pub(super) attributes: Vec<Attribute<'a>>,
    /// The Event messages of all spans.
    pub(super) events: Vec<&'a [u8]>,
    /// The Link messages of all spans.
    pub(super) links: Vec<&'a [u8]>,
}

/// A ScopeSpans with the resource it came under, as messages: equal bytes are equal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope<'a> {
    pub(super) resource: &'a [u8],
    pub(super) resource_schema_url: &'a [u8],
    pub(super) scope: &'a [u8],
    pub(super) schema_url: &'a [u8],
}

#[derive(Clone, Debug, Default)]
pub(super) struct Span<'a> {
    /// Index into [`Contents::scopes`].
    pub(super) scope: u32,
    /// Bytes of the message.
    pub(super) len: usize,
    pub(super) trace_id: &'a [u8],
    pub(super) span_id: &'a [u8],
    pub(super) parent: &'a [u8],
    pub(super) trace_state: &'a [u8],
    pub(super) flags: u32,
    pub(super) name: &'a [u8],
    pub(super) kind: i32,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) status_code: i32,
    pub(super) status_message: &'a [u8],
    pub(super) attributes: Range<u32>,
    pub(super) events: Range<u32>,
    pub(super) links: Range<u32>,
    pub(super) dropped_attributes: u32,
    pub(super) dropped_events: u32,
    pub(super) dropped_links: u32,
}

/// A key and its AnyValue message; no value is an empty value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attribute<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: Option<&'a [u8]>,
}

impl Span<'_> {
    pub(super) fn is_root(&self) -> bool {
        self.parent.iter().all(|&byte| byte == 0)
    }

    pub(super) fn is_error(&self) -> bool {
        self.status_code == 2
    }
}

impl<'a> Attribute<'a> {
    #[inline]
    pub(super) fn read(message: &'a [u8]) -> Self {
        // Nearly all are a short key and a short value.
        if let Some((key, rest)) = short(message, 1)
            && let Some((value, [])) = short(rest, 2)
        {
            return Self { key, value: Some(value) };
        }
        let mut attribute = Self { key: &[], value: None };
        for (number, field) in Fields(message) {
            match number {
                1 => attribute.key = field.bytes(),
                2 => attribute.value = Some(field.bytes()),
                _ => {}
            }
        }
        attribute
    }
}

/// The messages under field `number`, read as attributes.
pub(super) fn attributes(message: &[u8], number: u64) -> impl Iterator<Item = Attribute<'_>> {
    Fields(message)
        .filter(move |(found, _)| *found == number)
        .map(|(_, field)| Attribute::read(field.bytes()))
}

impl<'a> Contents<'a> {
    /// Reads an `ExportTraceServiceRequest` into the memory of an emptied `spare`.
    pub(super) fn read(request: &'a [u8], spare: Self) -> Self {
        let mut contents = spare;
        for (number, field) in Fields(request) {
            if number == 1 {
                contents.add_resource_spans(field.bytes());
            }
        }
        contents
    }

    /// Empties it for another request.
    pub(super) fn recycle<'b>(self) -> Contents<'b> {
        Contents {
            scopes: recycled(self.scopes),
            spans: recycled(self.spans),
            attributes: recycled(self.attributes),
            events: recycled(self.events),
            links: recycled(self.links),
        }
    }

    fn add_resource_spans(&mut self, message: &'a [u8]) {
        let (mut resource, mut schema_url): (&[u8], &[u8]) = (&[], &[]);
        for (number, field) in Fields(message) {
            match number {
                1 => resource = field.bytes(),
                3 => schema_url = field.bytes(),
                _ => {}
            }
        }
        for (number, field) in Fields(message) {
            if number == 2 {
                self.add_scope_spans(field.bytes(), resource, schema_url);
            }
        }
    }

    fn add_scope_spans(&mut self, message: &'a [u8], resource: &'a [u8], resource_schema_url: &'a [u8]) {
        let mut scope = Scope { resource, resource_schema_url, scope: &[], schema_url: &[] };
        let number_of_scope = self.scopes.len() as u32;
        for (number, field) in Fields(message) {
            match number {
                1 => scope.scope = field.bytes(),
                2 => self.add_span(field.bytes(), number_of_scope),
                3 => scope.schema_url = field.bytes(),
                _ => {}
            }
        }
        self.scopes.push(scope);
    }

    fn add_span(&mut self, message: &'a [u8], scope: u32) {
        let attributes = self.attributes.len() as u32;
        let events = self.events.len() as u32;
        let links = self.links.len() as u32;
        let mut span = Span { scope, len: message.len(), ..Span::default() };
        for (number, field) in Fields(message) {
            match number {
                9 => self.attributes.push(Attribute::read(field.bytes())),
                11 => self.events.push(field.bytes()),
                13 => self.links.push(field.bytes()),
                _ => span.set(number, field),
            }
        }
        span.attributes = attributes..self.attributes.len() as u32;
        span.events = events..self.events.len() as u32;
        span.links = links..self.links.len() as u32;
        self.spans.push(span);
    }
}

/// An empty vector in the same memory: collecting a vector's own iterator allocates nothing, and what is of the same shape
/// may differ in its lifetime.
fn recycled<T, U>(mut used: Vec<T>) -> Vec<U> {
    used.clear();
    used.into_iter().map(|_| unreachable!("it is empty")).collect()
}

impl<'a> Span<'a> {
    #[inline]
    fn set(&mut self, number: u64, field: Field<'a>) {
        match number {
            1 => self.trace_id = field.bytes(),
            2 => self.span_id = field.bytes(),
            3 => self.trace_state = field.bytes(),
            4 => self.parent = field.bytes(),
            5 => self.name = field.bytes(),
            6 => self.kind = field.number() as i32,
            7 => self.start = field.number(),
            8 => self.end = field.number(),
            10 => self.dropped_attributes = field.number() as u32,
            12 => self.dropped_events = field.number() as u32,
            14 => self.dropped_links = field.number() as u32,
            15 => self.set_status(field.bytes()),
            16 => self.flags = field.number() as u32,
            _ => {}
        }
    }

    fn set_status(&mut self, message: &'a [u8]) {
        for (number, field) in Fields(message) {
            match number {
                2 => self.status_message = field.bytes(),
                3 => self.status_code = field.number() as i32,
                _ => {}
            }
        }
    }
}
