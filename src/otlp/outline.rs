//! Where resources and scopes stand in a request, noted while the request is at hand.
//!
//! A span that leaves takes the fields of its resource and its scope along. To find them is to walk over all spans of
//! the request, which by then are out of every cache; an outline says where they are. Only a request whose resources,
//! scopes and spans each stand side by side has one: that is how SDKs and collectors write them.

use std::ops::Range;

use super::schema::{request, resource_spans, scope_spans};
use super::view::{Located, ResourceSpansView, ScopeSpansView, locate};
use super::wire::{Cursor, Fields};

/// Words of a scope: four ranges.
const WORDS: usize = 8;

/// The outline of a request; empty if it has none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outline<'a>(&'a [u32]);

/// Where a scope and its resource stand in the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) resource_spans: Range<usize>,
    /// The fields of the resource that hold scopes.
    pub(super) scopes: Range<usize>,
    pub(super) scope_spans: Range<usize>,
    /// The fields of the scope that hold spans.
    pub(super) spans: Range<usize>,
}

impl<'a> Outline<'a> {
    /// From the words that [`Outline::note`] has made of the same request.
    pub fn new(words: &'a [u32]) -> Self {
        Self(words)
    }

    /// The outline of a request that a scan has accepted, in words to be kept beside it.
    pub fn note(body: &[u8]) -> Vec<u32> {
        let mut words = Vec::new();
        let resources = run(body, request::RESOURCE_SPANS, |message| {
            note_resource(message, message.as_ptr().addr() - body.as_ptr().addr(), &mut words)
        });
        if resources == Some(0..body.len()) { words } else { Vec::new() }
    }

    /// As [`locate`], without a walk over the request if this has noted it.
    pub fn locate<'b>(&self, body: &'b [u8], at: u32) -> Option<Located<'b>> {
        let Some(place) = self.place_of(at) else { return locate(body, at) };
        Some(Located {
            resource_spans: ResourceSpansView::new(body.get(place.resource_spans)?),
            scope_spans: ScopeSpansView::new(body.get(place.scope_spans)?),
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where the scope that holds the span at `at` stands.
    pub(super) fn place_of(&self, at: u32) -> Option<Place> {
        let (scopes, _) = self.0.as_chunks::<WORDS>();
        let scope = scopes.get(scopes.partition_point(|scope| scope[5] <= at))?;
        let range = |n: usize| scope[n] as usize..scope[n + 1] as usize;
        Some(Place { resource_spans: range(0), scopes: range(2), scope_spans: range(4), spans: range(6) })
    }
}

fn note_resource(message: &[u8], at: usize, words: &mut Vec<u32>) -> Option<()> {
    let first = words.len();
    let scopes = run(message, resource_spans::SCOPE_SPANS, |scope| {
        let spans = run(scope, scope_spans::SPAN, |_| Some(()))?;
        let at = at + (scope.as_ptr().addr() - message.as_ptr().addr());
        let range = [at, at + scope.len(), at + spans.start, at + spans.end];
        words.extend([0; 4].into_iter().chain(range.map(|word| word as u32)));
        Some(())
    })?;
    let range = [at, at + message.len(), at + scopes.start, at + scopes.end].map(|word| word as u32);
    words[first..].chunks_exact_mut(WORDS).for_each(|scope| scope[..4].copy_from_slice(&range));
    Some(())
}

/// The fields of a message that hold its items, if nothing stands between them.
fn run<'a>(
    message: &'a [u8],
    items: u32,
    mut visit: impl FnMut(&'a [u8]) -> Option<()>,
) -> Option<Range<usize>> {
    let mut run = 0..0;
    let mut cursor = Cursor::new(message);
    while !cursor.is_empty() {
        let (before, at) = (cursor.rest(), message.len() - cursor.rest().len());
        if cursor.key() == Ok(items) {
            visit(cursor.bytes().ok()?)?;
            if run.is_empty() {
                run.start = at;
            } else if run.end != at {
                return None;
            }
            run.end = message.len() - cursor.rest().len();
        } else {
            let mut field = Fields::new(before);
            field.next()?;
            cursor = field.cursor();
        }
    }
    Some(run)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::wire::put_bytes;
    use crate::otlp::workload::Generator;
    use crate::otlp::{locate, scan};

    #[test]
    fn an_outline_finds_what_a_walk_finds() {
        let body = Generator::new(5).request(300);
        let words = Outline::note(&body);
        scan(&body, |span| {
            let place = Outline::new(&words).place_of(span.at).unwrap();
            let located = locate(&body, span.at).unwrap();
            assert_eq!(&body[place.resource_spans], located.resource_spans.as_bytes());
            assert_eq!(&body[place.scope_spans], located.scope_spans.as_bytes());
            let again = Outline::new(&words).locate(&body, span.at).unwrap();
            assert_eq!(again.scope_spans.as_bytes(), located.scope_spans.as_bytes());
            assert_eq!(again.resource_spans.as_bytes(), located.resource_spans.as_bytes());
            assert!(place.spans.contains(&(span.at as usize)));
        })
        .unwrap();
    }

    #[test]
    fn a_request_whose_items_are_not_side_by_side_has_none() {
        let mut scope = Vec::new();
        put_bytes(scope_spans::SPAN, b"", &mut scope);
        put_bytes(scope_spans::SCOPE, b"", &mut scope);
        let outline = |scope: &[u8]| {
            let (mut resource, mut body) = (Vec::new(), Vec::new());
            put_bytes(resource_spans::SCOPE_SPANS, scope, &mut resource);
            put_bytes(request::RESOURCE_SPANS, &resource, &mut body);
            let noted = Outline::note(&body).len() / WORDS;
            put_bytes(0x7a, b"a field beside the resources", &mut body);
            (noted, Outline::note(&body).len())
        };
        assert_eq!(outline(&scope), (1, 0));
        put_bytes(scope_spans::SPAN, b"", &mut scope);
        assert_eq!(outline(&scope), (0, 0));
    }
}
