//! Which series there are. A series is a number; the first [`KINDS`] are those of what has none of its own.

use std::collections::{HashMap, HashSet};

/// Service and span name of what is beyond the bound.
pub const OTHER: &str = "(other)";

/// Longer names are cut: a label is no place for a text.
pub(super) const NAME_BYTES_MAX: usize = 256;

pub(super) const KINDS: [&str; 6] = ["unspecified", "internal", "server", "client", "producer", "consumer"];

/// The labels of a series.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Name {
    pub(super) tenant: String,
    pub(super) service: String,
    pub(super) span: String,
    pub(super) kind: &'static str,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Names {
    names: Vec<Name>,
    /// Numbers whose series are gone.
    free: Vec<u32>,
    /// By keyed hash of what a span says, before anything is cut or replaced.
    by_hash: HashMap<u64, u32, foldhash::fast::RandomState>,
    by_name: HashMap<Name, u32, foldhash::fast::RandomState>,
    max: usize,
}

/// The number of what has no series of its own.
pub(super) fn other(kind: i32) -> u32 {
    u32::try_from(kind).ok().filter(|kind| (*kind as usize) < KINDS.len()).unwrap_or(0)
}

/// Whether a number is of those that have no series of their own.
pub(super) fn is_shared(number: u32) -> bool {
    (number as usize) < KINDS.len()
}

impl Names {
    pub(super) fn new(max: u32) -> Self {
        let other = |kind: &&'static str| Name {
            tenant: String::new(),
            service: OTHER.to_owned(),
            span: OTHER.to_owned(),
            kind,
        };
        Self {
            names: KINDS.iter().map(other).collect(),
            free: Vec::new(),
            by_hash: HashMap::default(),
            by_name: HashMap::default(),
            max: max as usize,
        }
    }

    pub(super) fn find(&self, key: u64) -> Option<u32> {
        self.by_hash.get(&key).copied()
    }

    /// No series and no other spelling of one has room.
    pub(super) fn is_full(&self) -> bool {
        self.by_name.len() >= self.max || self.by_hash.len() >= 2 * self.max
    }

    /// Makes a series, unless there is no room. Spans whose names differ only in what labels do not show share one.
    pub(super) fn add(
        &mut self,
        key: u64,
        tenant: &str,
        service: &str,
        span: &[u8],
        kind: i32,
    ) -> Option<u32> {
        // Somebody may have been faster.
        if let Some(number) = self.find(key) {
            return Some(number);
        }
        if self.is_full() {
            return None;
        }
        let span = cut(&String::from_utf8_lossy(&span[..span.len().min(2 * NAME_BYTES_MAX)]));
        let kind = KINDS[other(kind) as usize];
        let name = Name { tenant: tenant.to_owned(), service: cut(service), span, kind };
        let number = match self.by_name.get(&name) {
            Some(number) => *number,
            None => {
                let number = self.place(name.clone());
                self.by_name.insert(name, number);
                number
            }
        };
        self.by_hash.insert(key, number);
        Some(number)
    }

    fn place(&mut self, name: Name) -> u32 {
        if let Some(number) = self.free.pop() {
            self.names[number as usize] = name;
            return number;
        }
        self.names.push(name);
        self.names.len() as u32 - 1
    }

    /// Lets series go, whose numbers may be given to others.
    pub(super) fn remove(&mut self, gone: &HashSet<u32>) {
        self.by_hash.retain(|_, number| !gone.contains(number));
        // A number is freed once, however often its series is called idle.
        let free = &mut self.free;
        self.by_name.retain(|_, number| {
            let stays = !gone.contains(number);
            free.extend((!stays).then_some(*number));
            stays
        });
    }

    /// In the order of their numbers.
    pub(super) fn all(&self) -> &[Name] {
        &self.names
    }

    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// Those that are not shared.
    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }
}

fn cut(name: &str) -> String {
    name[..name.floor_char_boundary(NAME_BYTES_MAX)].to_owned()
}
