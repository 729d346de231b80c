//! Gathers the rows of one row group.
//!
//! A row is little more than numbers: text is numbered once where it repeats, and what a row shares with its
//! resource, its scope or its piece is held once for each of those.

use super::attributes::Attributes;
use super::lists::{Events, Links, hexadecimal};
use super::schema;
use super::shared::{Pieces, Resources, Scopes};
use super::source::Piece;
use super::span::{Contents, Scope, Span};
use super::texts::{NULL, Texts};

/// The rows of one row group, column by column.
#[derive(Debug)]
pub(super) struct RowGroup {
    pub(super) rows: usize,
    /// Of the Span messages that the rows were read from.
    pub(super) bytes: usize,
    /// Attributes that lost to another of the same key.
    pub(super) duplicate_keys: u64,
    pub(super) trace_ids: Texts,
    /// Of the last row, as it came: the rows of a trace stand together.
    last_trace_id: Vec<u8>,
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

impl RowGroup {
    pub(super) fn new() -> Self {
        Self {
            rows: 0,
            bytes: 0,
            duplicate_keys: 0,
            trace_ids: Texts::numbered(),
            last_trace_id: Vec::new(),
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
        self.weights.push(self.weight(piece, span));
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

    /// That of the row before, if it is of the same piece and has the same trace state.
    fn weight(&self, piece: &Piece, span: &Span<'_>) -> f64 {
        let repeats = |values: &[u32]| matches!(values, [.., before, last] if before == last);
        match self.weights.last() {
            Some(&weight) if repeats(&self.piece_of_row) && repeats(&self.trace_states.values) => weight,
            _ => crate::otlp::weight(span.trace_state, piece.rule, piece.threshold),
        }
    }

    fn identity(&mut self, span: &Span<'_>) {
        let mut hex = [0; 32];
        match self.trace_ids.values.last() {
            Some(&number) if self.last_trace_id == span.trace_id => self.trace_ids.values.push(number),
            _ => {
                self.trace_ids.push(hexadecimal(span.trace_id, &mut hex));
                self.last_trace_id.clear();
                self.last_trace_id.extend_from_slice(span.trace_id);
            }
        }
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
        self.rows = 0;
        self.bytes = 0;
        self.duplicate_keys = 0;
        self.trace_ids.clear();
        self.span_ids.clear();
        self.parents.clear();
        self.starts.clear();
        self.ends.clear();
        self.names.clear();
        self.kinds.clear();
        self.status_codes.clear();
        self.status_messages.clear();
        self.trace_states.clear();
        self.flags.clear();
        self.attributes.clear();
        self.exception_types.clear();
        self.dropped_attributes.clear();
        self.events.clear();
        self.dropped_events.clear();
        self.links.clear();
        self.dropped_links.clear();
        self.weights.clear();
        self.roots.clear();
        self.resources.clear();
        self.resource_of_row.clear();
        self.scopes.clear();
        self.scope_of_row.clear();
        self.pieces.clear();
        self.piece_of_row.clear();
    }
}

/// Where a piece's parts stand in the row group.
#[derive(Debug)]
pub(super) struct PieceInGroup {
    number: u32,
    /// For each scope of the piece: its resource and itself.
    scopes: Vec<(u32, u32)>,
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

fn range<'c, T>(all: &'c [T], range: &std::ops::Range<u32>) -> &'c [T] {
    &all[range.start as usize..range.end as usize]
}
