//! Counts requests for RED metrics: spans are noted while a request is scanned, and counted when it is accepted.

use std::cell::Cell;

use crate::otlp::{self, SpanFacts};
use crate::proto::Piece;
use crate::telemetry::red::{Call, Origin, Red};
use crate::trace::TraceId;

/// Notes for which a thread keeps room; the largest requests have many times more.
const NOTES_KEPT: usize = 1 << 14;

/// What will count of a span; its name lies in the request.
#[derive(Clone, Copy, Debug)]
struct Note {
    at: u32,
    name: (u32, u32),
    kind: i32,
    failed: bool,
    start: u64,
    end: u64,
}

/// Spans of one request, in its order.
#[derive(Debug, Default)]
pub(super) struct Notes(Vec<Note>);

thread_local! {
    /// Of the last request that was scanned.
    static NOTED: Cell<Notes> = Cell::default();
}

/// OTLP's `STATUS_CODE_ERROR`.
const ERROR: i32 = 2;

impl Notes {
    pub(super) fn begin() -> Self {
        let mut notes = NOTED.take();
        notes.0.clear();
        notes.0.shrink_to(NOTES_KEPT);
        notes
    }

    #[inline]
    pub(super) fn note(&mut self, body: &[u8], span: &SpanFacts<'_>) {
        let name_at = if span.name.is_empty() { 0 } else { span.name.as_ptr().addr() - body.as_ptr().addr() };
        self.0.push(Note {
            at: span.at,
            name: (name_at as u32, span.name.len() as u32),
            kind: span.kind,
            failed: span.status == ERROR,
            start: span.start,
            end: span.end,
        });
    }

    /// For [`count`] on this thread.
    pub(super) fn keep(self) {
        NOTED.set(self);
    }

    /// Every span with where it comes from; the service is looked up once a resource.
    fn visit<'a>(
        &self,
        red: &Red,
        tenant: &str,
        body: &'a [u8],
        mut visit: impl FnMut(Origin<'_>, Call<'a>),
    ) {
        let mut rest = self.0.as_slice();
        for resource_spans in otlp::request(body) {
            let bytes = resource_spans.as_bytes();
            let end = bytes.as_ptr().addr() - body.as_ptr().addr() + bytes.len();
            let (here, later) = rest.split_at(rest.partition_point(|note| (note.at as usize) < end));
            rest = later;
            if here.is_empty() {
                continue;
            }
            let service = resource_spans.resource().service_name();
            let origin = red.origin(tenant, &service);
            here.iter().for_each(|note| visit(origin, note.call(body)));
        }
    }
}

impl Note {
    #[inline]
    fn call<'a>(&self, body: &'a [u8]) -> Call<'a> {
        let (name_at, name_len) = self.name;
        let name = &body[name_at as usize..(name_at + name_len) as usize];
        Call { name, kind: self.kind, failed: self.failed, start: self.start, end: self.end }
    }
}

/// Counts the request that this thread has scanned last.
pub(super) fn count(red: &Red, tenant: &str, body: &[u8]) {
    let notes = NOTED.take();
    let mut counting = red.counting();
    notes.visit(red, tenant, body, |origin, call| counting.call(origin, call));
    NOTED.set(notes);
}

/// Spans that leave are examples of what was counted of them.
pub(super) fn examples(red: &Red, tenant: &str, pieces: &[Piece], now_ms: u64) {
    for piece in pieces {
        let Ok(trace) = <[u8; 16]>::try_from(&piece.trace_id[..]) else { continue };
        let mut notes = Notes::default();
        if otlp::scan(&piece.otlp, |span| notes.note(&piece.otlp, span)).is_ok() {
            notes.visit(red, tenant, &piece.otlp, |origin, call| {
                red.kept(origin, call, TraceId(trace), now_ms)
            });
        }
    }
}
