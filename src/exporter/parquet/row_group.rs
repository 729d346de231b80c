//! Gathers the rows of one row group.
//!
//! A row is little more than numbers: text is numbered once where it repeats, and what a row shares with its
//! resource, its scope or its piece is held once for each of those.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::attributes::Attributes;
use super::schema;
use super::source::Piece;
use super::span::{Attribute, Contents, Scope, Span, attributes};
use super::texts::{NULL, Texts};
use super::value::Value;
use super::wire::Fields;
use crate::trace::Reason;

/// The rows of one row group, column by column.
#[derive(Debug)]
pub(super) struct RowGroup {
    pub(super) rows: usize,
    /// Of the Span messages that the rows were read from.
    pub(super) bytes: usize,
    /// Attributes that lost to another of the same key.
    pub(super) duplicate_keys: u64,
    pub(super) trace_ids: Texts,
    pub(super) span_ids: Texts,
    pub(super) parents: Texts,
    pub(super) starts: Vec<i64>,
    pub(super) ends: Vec<i64>,
    pub(super) names: Texts,
    pub(super) kinds: Texts,
    pub(super) status_codes: Texts,
    pub(super) status_messages: Texts,
    pub(super) trace_states: Texts,
    pub(super) flags: Vec<i32>,
    pub(super) attributes: Attributes,
    pub(super) exception_types: Texts,
    pub(super) dropped_attributes: Vec<i32>,
    pub(super) events: Events,
    pub(super) dropped_events: Vec<i32>,
    pub(super) links: Links,
    pub(super) dropped_links: Vec<i32>,
    pub(super) weights: Vec<f64>,
    pub(super) roots: Vec<bool>,
    pub(super) resources: Resources,
    pub(super) resource_of_row: Vec<u32>,
    pub(super) scopes: Scopes,
    pub(super) scope_of_row: Vec<u32>,
    pub(super) pieces: Pieces,
    pub(super) piece_of_row: Vec<u32>,
}

#[derive(Debug)]
pub(super) struct Events {
    /// Where each row's events end.
    pub(super) row_ends: Vec<u32>,
    pub(super) times: Vec<i64>,
    pub(super) names: Texts,
    pub(super) attributes: Attributes,
    pub(super) dropped_attributes: Vec<i32>,
}

#[derive(Debug)]
pub(super) struct Links {
    /// Where each row's links end.
    pub(super) row_ends: Vec<u32>,
    pub(super) trace_ids: Texts,
    pub(super) span_ids: Texts,
    pub(super) trace_states: Texts,
    pub(super) attributes: Attributes,
    pub(super) dropped_attributes: Vec<i32>,
    pub(super) flags: Vec<i32>,
}

/// The distinct resources of the row group.
#[derive(Debug)]
pub(super) struct Resources {
    known: Known,
    pub(super) attributes: Attributes,
    pub(super) dropped_attributes: Vec<i32>,
    pub(super) schema_urls: Texts,
}

/// The distinct scopes of the row group.
#[derive(Debug)]
pub(super) struct Scopes {
    known: Known,
    pub(super) names: Texts,
    pub(super) versions: Texts,
    pub(super) attributes: Attributes,
    pub(super) dropped_attributes: Vec<i32>,
    pub(super) schema_urls: Texts,
}

/// What the pieces of the row group say of all their spans.
#[derive(Debug)]
pub(super) struct Pieces {
    pub(super) starts: Vec<i64>,
    pub(super) durations: Vec<i64>,
    pub(super) spans: Vec<i32>,
    pub(super) errors: Vec<i32>,
    pub(super) root_services: Texts,
    pub(super) root_names: Texts,
    pub(super) policies: Texts,
    pub(super) reasons: Texts,
    pub(super) wholes: Vec<bool>,
    pub(super) completes: Vec<bool>,
    pub(super) lates: Vec<bool>,
    pub(super) decided: Vec<i64>,
}

/// Messages seen so far, numbered.
#[derive(Debug, Default)]
struct Known {
    numbers: HashMap<Vec<u8>, u32, RandomState>,
    key: Vec<u8>,
}

impl Known {
    /// The number of these two together, and whether they are new.
    fn number(&mut self, message: &[u8], schema_url: &[u8]) -> (u32, bool) {
        self.key.clear();
        self.key.extend_from_slice(&(message.len() as u64).to_le_bytes());
        self.key.extend_from_slice(message);
        self.key.extend_from_slice(schema_url);
        if let Some(&number) = self.numbers.get(&self.key) {
            return (number, false);
        }
        let number = self.numbers.len() as u32;
        self.numbers.insert(self.key.clone(), number);
        (number, true)
    }
}

impl RowGroup {
    pub(super) fn new() -> Self {
        Self {
            rows: 0,
            bytes: 0,
            duplicate_keys: 0,
            trace_ids: Texts::numbered(),
            span_ids: Texts::joined(),
            parents: Texts::joined(),
            starts: Vec::new(),
            ends: Vec::new(),
            names: Texts::numbered(),
            kinds: Texts::numbered(),
            status_codes: Texts::numbered(),
            status_messages: Texts::numbered(),
            trace_states: Texts::numbered(),
            flags: Vec::new(),
            attributes: Attributes::new(schema::SPAN, Texts::joined()),
            exception_types: Texts::numbered(),
            dropped_attributes: Vec::new(),
            events: Events::new(),
            dropped_events: Vec::new(),
            links: Links::new(),
            dropped_links: Vec::new(),
            weights: Vec::new(),
            roots: Vec::new(),
            resources: Resources::new(),
            resource_of_row: Vec::new(),
            scopes: Scopes::new(),
            scope_of_row: Vec::new(),
            pieces: Pieces::new(),
            piece_of_row: Vec::new(),
        }
    }

    /// Adds a piece's resources, scopes and verdict, which its rows will refer to.
    pub(super) fn begin_piece(&mut self, piece: &Piece, contents: &Contents<'_>) -> PieceInGroup {
        let scopes = contents.scopes.iter().map(|scope| self.scope(scope)).collect::<Vec<_>>();
        let root = contents.spans.iter().find(|span| span.is_root());
        let root = root.map(|span| {
            let (resource, _) = scopes[span.scope as usize];
            (span.name, self.resources.service_name(resource))
        });
        let number = self.pieces.add(piece, contents, root);
        PieceInGroup { number, scopes }
    }

    fn scope(&mut self, scope: &Scope<'_>) -> (u32, u32) {
        let (resource, duplicates) = self.resources.number(scope);
        let (scope, more) = self.scopes.number(scope);
        self.duplicate_keys += duplicates + more;
        (resource, scope)
    }

    pub(super) fn push(
        &mut self,
        piece: &Piece,
        place: &PieceInGroup,
        contents: &Contents<'_>,
        span: &Span<'_>,
    ) {
        let (resource, scope) = place.scopes[span.scope as usize];
        self.resource_of_row.push(resource);
        self.scope_of_row.push(scope);
        self.piece_of_row.push(place.number);
        self.identity(span);
        self.starts.push(span.start as i64);
        self.ends.push(span.end as i64);
        self.names.push(span.name);
        self.kinds.push(kind_name(span.kind).as_bytes());
        self.status_codes.push(status_name(span.status_code).as_bytes());
        self.status_messages.push(span.status_message);
        self.trace_states.push(span.trace_state);
        self.flags.push(span.flags as i32);
        self.weights.push(crate::otlp::weight(span.trace_state, piece.rule, piece.threshold));
        self.roots.push(span.is_root());
        self.dropped_attributes.push(span.dropped_attributes as i32);
        self.dropped_events.push(span.dropped_events as i32);
        self.dropped_links.push(span.dropped_links as i32);
        self.duplicate_keys += self.attributes.add(range(&contents.attributes, &span.attributes));
        self.add_events(range(&contents.events, &span.events));
        self.duplicate_keys += self.links.add(range(&contents.links, &span.links));
        self.bytes += span.len;
        self.rows += 1;
    }

    fn identity(&mut self, span: &Span<'_>) {
        let mut hex = [0; 32];
        self.trace_ids.push(hexadecimal(span.trace_id, &mut hex));
        self.span_ids.push(hexadecimal(span.span_id, &mut hex));
        if span.is_root() {
            self.parents.values.push(NULL);
        } else {
            self.parents.push(hexadecimal(span.parent, &mut hex));
        }
    }

    fn add_events(&mut self, messages: &[&[u8]]) {
        for message in messages {
            let first = self.exception_types.values.len() <= self.rows;
            if let Some(exception) = self.events.add(message, &mut self.duplicate_keys).filter(|_| first) {
                self.exception_types.set(self.rows, exception);
            }
        }
        self.events.row_ends.push(self.events.times.len() as u32);
    }

    /// Forgets all rows; keeps its memory.
    pub(super) fn clear(&mut self) {
        *self = Self::new();
    }
}

/// Where a piece's parts stand in the row group.
#[derive(Debug)]
pub(super) struct PieceInGroup {
    number: u32,
    /// For each scope of the piece: its resource and itself.
    scopes: Vec<(u32, u32)>,
}

impl Resources {
    fn new() -> Self {
        Self {
            known: Known::default(),
            attributes: Attributes::new(schema::RESOURCE, Texts::numbered()),
            dropped_attributes: Vec::new(),
            schema_urls: Texts::numbered(),
        }
    }

    fn number(&mut self, scope: &Scope<'_>) -> (u32, u64) {
        let (number, new) = self.known.number(scope.resource, scope.resource_schema_url);
        if !new {
            return (number, 0);
        }
        self.schema_urls.push(scope.resource_schema_url);
        self.dropped_attributes.push(count(scope.resource, 2));
        let all: Vec<_> = attributes(scope.resource, 1).collect();
        (number, self.attributes.add(&all))
    }

    /// The text that stands in the column `service_name`.
    fn service_name(&self, resource: u32) -> Option<Vec<u8>> {
        let super::attributes::Column::Text(names) = &self.attributes.promoted[schema::SERVICE_NAME] else {
            return None;
        };
        let stored = *names.values.get(resource as usize)?;
        match &names.store {
            super::texts::Store::Numbered(dictionary) if stored != NULL => {
                Some(dictionary.get(stored).to_vec())
            }
            _ => None,
        }
    }
}

impl Scopes {
    fn new() -> Self {
        Self {
            known: Known::default(),
            names: Texts::numbered(),
            versions: Texts::numbered(),
            attributes: Attributes::new(&[], Texts::numbered()),
            dropped_attributes: Vec::new(),
            schema_urls: Texts::numbered(),
        }
    }

    fn number(&mut self, scope: &Scope<'_>) -> (u32, u64) {
        let (number, new) = self.known.number(scope.scope, scope.schema_url);
        if !new {
            return (number, 0);
        }
        let (mut name, mut version): (&[u8], &[u8]) = (&[], &[]);
        for (number, field) in Fields(scope.scope) {
            match number {
                1 => name = field.bytes(),
                2 => version = field.bytes(),
                _ => {}
            }
        }
        self.names.push(name);
        self.versions.push(version);
        self.schema_urls.push(scope.schema_url);
        self.dropped_attributes.push(count(scope.scope, 4));
        let all: Vec<_> = attributes(scope.scope, 3).collect();
        (number, self.attributes.add(&all))
    }
}

impl Events {
    fn new() -> Self {
        Self {
            row_ends: Vec::new(),
            times: Vec::new(),
            names: Texts::numbered(),
            attributes: Attributes::new(&[], Texts::numbered()),
            dropped_attributes: Vec::new(),
        }
    }

    /// Adds an Event message; returns the `exception.type` it has.
    fn add<'a>(&mut self, message: &'a [u8], duplicate_keys: &mut u64) -> Option<&'a [u8]> {
        let (mut time, mut name, mut dropped) = (0, &[][..], 0);
        let mut all: Vec<Attribute<'a>> = Vec::new();
        for (number, field) in Fields(message) {
            match number {
                1 => time = field.number() as i64,
                2 => name = field.bytes(),
                3 => all.push(Attribute::read(field.bytes())),
                4 => dropped = field.number() as i32,
                _ => {}
            }
        }
        self.times.push(time);
        self.names.push(name);
        self.dropped_attributes.push(dropped);
        *duplicate_keys += self.attributes.add(&all);
        let exception = all.iter().rfind(|attribute| attribute.key == b"exception.type")?;
        match Value::read(exception.value) {
            Value::String(text) => Some(text),
            _ => None,
        }
    }
}

impl Links {
    fn new() -> Self {
        Self {
            row_ends: Vec::new(),
            trace_ids: Texts::numbered(),
            span_ids: Texts::joined(),
            trace_states: Texts::numbered(),
            attributes: Attributes::new(&[], Texts::numbered()),
            dropped_attributes: Vec::new(),
            flags: Vec::new(),
        }
    }

    fn add(&mut self, messages: &[&[u8]]) -> u64 {
        let mut duplicates = 0;
        for message in messages {
            duplicates += self.add_link(message);
        }
        self.row_ends.push(self.flags.len() as u32);
        duplicates
    }

    fn add_link(&mut self, message: &[u8]) -> u64 {
        let (mut trace_id, mut span_id, mut trace_state) = (&[][..], &[][..], &[][..]);
        let (mut dropped, mut flags) = (0, 0);
        let mut all = Vec::new();
        for (number, field) in Fields(message) {
            match number {
                1 => trace_id = field.bytes(),
                2 => span_id = field.bytes(),
                3 => trace_state = field.bytes(),
                4 => all.push(Attribute::read(field.bytes())),
                5 => dropped = field.number() as i32,
                6 => flags = field.number() as i32,
                _ => {}
            }
        }
        let mut hex = [0; 32];
        self.trace_ids.push(hexadecimal(trace_id, &mut hex));
        self.span_ids.push(hexadecimal(span_id, &mut hex));
        self.trace_states.push(trace_state);
        self.dropped_attributes.push(dropped);
        self.flags.push(flags);
        self.attributes.add(&all)
    }
}

impl Pieces {
    fn new() -> Self {
        Self {
            starts: Vec::new(),
            durations: Vec::new(),
            spans: Vec::new(),
            errors: Vec::new(),
            root_services: Texts::numbered(),
            root_names: Texts::numbered(),
            policies: Texts::numbered(),
            reasons: Texts::numbered(),
            wholes: Vec::new(),
            completes: Vec::new(),
            lates: Vec::new(),
            decided: Vec::new(),
        }
    }

    fn add(&mut self, piece: &Piece, contents: &Contents<'_>, root: Option<(&[u8], Option<Vec<u8>>)>) -> u32 {
        let number = self.spans.len();
        let started = contents.spans.iter().filter(|span| span.start != 0);
        let start = started.clone().map(|span| span.start).min().unwrap_or(0);
        let end = started.map(|span| span.end).max().unwrap_or(0);
        self.starts.push(start as i64);
        self.durations.push(end.saturating_sub(start) as i64);
        self.spans.push(contents.spans.len() as i32);
        self.errors.push(contents.spans.iter().filter(|span| span.is_error()).count() as i32);
        if let Some((name, service)) = root {
            self.root_names.set(number, name);
            if let Some(service) = service {
                self.root_services.set(number, &service);
            }
        }
        self.policies.push(piece.policy.as_bytes());
        self.reasons.push(piece.reason.name().as_bytes());
        self.wholes.push(piece.whole);
        self.completes.push(piece.complete);
        self.lates.push(piece.reason == Reason::Late);
        self.decided.push(piece.decided_at_ms as i64 * 1_000);
        number as u32
    }
}

/// `Server` is written `SERVER`; a number that the protocol does not name is written as it is.
fn kind_name(kind: i32) -> std::borrow::Cow<'static, str> {
    match kind {
        0 => "UNSPECIFIED".into(),
        1 => "INTERNAL".into(),
        2 => "SERVER".into(),
        3 => "CLIENT".into(),
        4 => "PRODUCER".into(),
        5 => "CONSUMER".into(),
        other => other.to_string().into(),
    }
}

fn status_name(code: i32) -> std::borrow::Cow<'static, str> {
    match code {
        0 => "UNSET".into(),
        1 => "OK".into(),
        2 => "ERROR".into(),
        other => other.to_string().into(),
    }
}

fn count(message: &[u8], number: u64) -> i32 {
    Fields(message).filter(|(found, _)| *found == number).last().map_or(0, |(_, field)| field.number() as i32)
}

fn range<'c, T>(all: &'c [T], range: &std::ops::Range<u32>) -> &'c [T] {
    &all[range.start as usize..range.end as usize]
}

/// The identifier in lower case; what is longer than an identifier can be is cut.
fn hexadecimal<'b>(id: &[u8], text: &'b mut [u8; 32]) -> &'b [u8] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, two) in id.iter().zip(text.chunks_exact_mut(2)) {
        two.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    &text[..2 * id.len().min(16)]
}
