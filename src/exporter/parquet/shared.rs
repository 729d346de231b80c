//! What many rows share, held once: resources, scopes and what pieces say of all their spans.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::attributes::{Attributes, Column};
use super::schema;
use super::source::Piece;
use super::span::{Contents, Scope, attributes};
use super::texts::{NULL, Texts};
use super::wire::Fields;
use crate::trace::Reason;

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

/// Messages seen so far, each with its schema URL, numbered.
#[derive(Debug, Default)]
struct Known {
    numbers: HashTable<u32>,
    /// One after the other.
    bytes: Vec<u8>,
    ends: Vec<Ends>,
    hasher: RandomState,
}

/// Where a message ends, and the schema URL after it.
#[derive(Clone, Copy, Debug, Default)]
struct Ends {
    message: usize,
    schema_url: usize,
}

impl Known {
    pub(super) fn clear(&mut self) {
        self.numbers.clear();
        self.bytes.clear();
        self.ends.clear();
    }

    /// The number of these two together, and whether they are new.
    fn number(&mut self, message: &[u8], schema_url: &[u8]) -> (u32, bool) {
        let hash = self.hasher.hash_one((message, schema_url));
        let same = |&number: &u32| stored(&self.bytes, &self.ends, number) == (message, schema_url);
        if let Some(&number) = self.numbers.find(hash, same) {
            return (number, false);
        }
        let number = self.ends.len() as u32;
        self.bytes.extend_from_slice(message);
        let message = self.bytes.len();
        self.bytes.extend_from_slice(schema_url);
        self.ends.push(Ends { message, schema_url: self.bytes.len() });
        let (bytes, ends, hasher) = (&self.bytes, &self.ends, &self.hasher);
        self.numbers.insert_unique(hash, number, |&other| hasher.hash_one(stored(bytes, ends, other)));
        (number, true)
    }
}

fn stored<'a>(bytes: &'a [u8], ends: &[Ends], number: u32) -> (&'a [u8], &'a [u8]) {
    let number = number as usize;
    let start = number.checked_sub(1).map_or(0, |before| ends[before].schema_url);
    let Ends { message, schema_url } = ends[number];
    (&bytes[start..message], &bytes[message..schema_url])
}

impl Resources {
    pub(super) fn new() -> Self {
        Self {
            known: Known::default(),
            attributes: Attributes::new(schema::RESOURCE, Texts::numbered()),
            dropped_attributes: Vec::new(),
            schema_urls: Texts::numbered(),
        }
    }

    pub(super) fn number(&mut self, scope: &Scope<'_>) -> (u32, u64) {
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
    pub(super) fn service_name(&self, resource: u32) -> Option<Vec<u8>> {
        let Column::Text(names) = &self.attributes.promoted[schema::SERVICE_NAME] else {
            return None;
        };
        let stored = *names.values.get(resource as usize)?;
        if stored == NULL { None } else { names.get(stored).map(<[u8]>::to_vec) }
    }

    pub(super) fn clear(&mut self) {
        self.known.clear();
        self.attributes.clear();
        self.dropped_attributes.clear();
        self.schema_urls.clear();
    }
}

impl Scopes {
    pub(super) fn new() -> Self {
        Self {
            known: Known::default(),
            names: Texts::numbered(),
            versions: Texts::numbered(),
            attributes: Attributes::new(&[], Texts::numbered()),
            dropped_attributes: Vec::new(),
            schema_urls: Texts::numbered(),
        }
    }

    pub(super) fn number(&mut self, scope: &Scope<'_>) -> (u32, u64) {
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

    pub(super) fn clear(&mut self) {
        self.known.clear();
        self.names.clear();
        self.versions.clear();
        self.attributes.clear();
        self.dropped_attributes.clear();
        self.schema_urls.clear();
    }
}

impl Pieces {
    pub(super) fn new() -> Self {
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

    pub(super) fn add(
        &mut self,
        piece: &Piece,
        contents: &Contents<'_>,
        root: Option<(&[u8], Option<Vec<u8>>)>,
    ) -> u32 {
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

    pub(super) fn clear(&mut self) {
        self.starts.clear();
        self.durations.clear();
        self.spans.clear();
        self.errors.clear();
        self.root_services.clear();
        self.root_names.clear();
        self.policies.clear();
        self.reasons.clear();
        self.wholes.clear();
        self.completes.clear();
        self.lates.clear();
        self.decided.clear();
    }
}

fn count(message: &[u8], number: u64) -> i32 {
    Fields(message).filter(|(found, _)| *found == number).last().map_or(0, |(_, field)| field.number() as i32)
}
