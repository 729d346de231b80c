//! Attributes of spans, resources, scopes, events or links on their way into columns.

use super::schema::Promoted;
use super::span::Attribute;
use super::texts::{NULL, Texts};
use super::value::{Kind, Value};

/// The attributes of many owners, one after the other: their maps and their promoted columns.
#[derive(Debug)]
pub(super) struct Attributes {
    table: &'static [Promoted],
    /// The entries of all maps.
    pub(super) keys: Texts,
    pub(super) values: Texts,
    /// Where each owner's entries end.
    pub(super) ends: Vec<u32>,
    pub(super) kinds: Kinds,
    /// One for each of the table.
    pub(super) promoted: Vec<Column>,
    /// By the number of the key.
    known: Vec<Known>,
    /// The present owner's keys.
    winners: Vec<Winner>,
    scratch: Vec<u8>,
}

/// The entries of the sibling maps: kinds of the values that are not strings.
#[derive(Debug)]
pub(super) struct Kinds {
    pub(super) keys: Texts,
    pub(super) values: Texts,
    pub(super) ends: Vec<u32>,
    /// By kind: its number among the values.
    numbers: [u32; Kind::COUNT],
}

/// A promoted column, one value an owner.
#[derive(Debug)]
pub(super) enum Column {
    Text(Texts),
    Integer(Vec<Option<i32>>),
}

/// What is known of a key.
#[derive(Debug)]
struct Known {
    /// The last owner that had it, and where it stands among the winners.
    owner: u32,
    slot: u32,
    /// The key that followed it last time: most owners have the same keys in the same order.
    next: u32,
    /// Its number among the keys of the sibling map.
    in_kinds: u32,
    promotion: Option<Promotion>,
}

/// A key and the place of its last attribute.
#[derive(Clone, Copy, Debug)]
struct Winner {
    key: u32,
    at: u32,
    promotion: Option<Promotion>,
}

#[derive(Clone, Copy, Debug)]
struct Promotion {
    column: u8,
    /// Under the present name, not an older one.
    own: bool,
}

/// Which columns an owner's attributes name, one bit a column.
#[derive(Clone, Copy, Default)]
struct Named {
    own: u32,
    old: u32,
}

impl Attributes {
    pub(super) fn new(table: &'static [Promoted], values: Texts) -> Self {
        let column = |promoted: &Promoted| match promoted.integer {
            true => Column::Integer(Vec::new()),
            false => Column::Text(Texts::numbered()),
        };
        Self {
            table,
            keys: Texts::numbered(),
            values,
            ends: Vec::new(),
            kinds: Kinds::new(),
            promoted: table.iter().map(column).collect(),
            known: Vec::new(),
            winners: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Adds the attributes of the next owner. Of a key that stands twice the last wins; returns how many lost.
    pub(super) fn add(&mut self, attributes: &[Attribute<'_>]) -> u64 {
        let owner = self.ends.len();
        let named = self.elect(owner as u32, attributes);
        let winners = std::mem::take(&mut self.winners);
        for &Winner { key, at, promotion } in &winners {
            let attribute = attributes[at as usize];
            match (Value::read(attribute.value), promotion) {
                (Value::String(text), None) => {
                    self.keys.values.push(key);
                    self.values.push(text);
                }
                (value, Some(promotion)) if self.promote(owner, promotion, named, value) => {}
                (value, _) => self.enter(key, attribute.key, value),
            }
        }
        self.ends.push(self.keys.values.len() as u32);
        self.kinds.ends.push(self.kinds.keys.values.len() as u32);
        self.winners = winners;
        (attributes.len() - self.winners.len()) as u64
    }

    fn elect(&mut self, owner: u32, attributes: &[Attribute<'_>]) -> Named {
        self.winners.clear();
        let mut named = Named::default();
        let mut previous = None;
        for (at, attribute) in attributes.iter().enumerate() {
            let key = self.number(attribute.key, previous);
            previous = Some(key);
            let known = &mut self.known[key as usize];
            if known.owner == owner {
                self.winners[known.slot as usize].at = at as u32;
                continue;
            }
            known.owner = owner;
            known.slot = self.winners.len() as u32;
            self.winners.push(Winner { key, at: at as u32, promotion: known.promotion });
            match known.promotion {
                Some(Promotion { column, own: true }) => named.own |= 1 << column,
                Some(Promotion { column, own: false }) => named.old |= 1 << column,
                None => {}
            }
        }
        named
    }

    /// The number of a key that comes after another.
    #[inline]
    fn number(&mut self, key: &[u8], previous: Option<u32>) -> u32 {
        let guess = previous.map_or(0, |previous| self.known[previous as usize].next);
        if (guess as usize) < self.known.len() && self.keys.get(guess) == Some(key) {
            return guess;
        }
        let number = self.keys.store(key);
        if number as usize == self.known.len() {
            let promotion = promotion(self.table, key);
            self.known.push(Known { owner: NULL, slot: 0, next: NULL, in_kinds: NULL, promotion });
        }
        if let Some(previous) = previous {
            self.known[previous as usize].next = number;
        }
        number
    }

    /// Puts a value into its column; true if that is its only home.
    fn promote(&mut self, owner: usize, promotion: Promotion, named: Named, value: Value<'_>) -> bool {
        let Promotion { column, own } = promotion;
        if !own && named.own & 1 << column != 0 {
            return false;
        }
        let fits = self.promoted[usize::from(column)].set(owner, value, &mut self.scratch);
        own && fits && named.old & 1 << column == 0
    }

    fn enter(&mut self, key: u32, name: &[u8], value: Value<'_>) {
        self.keys.values.push(key);
        if let Value::Empty = value {
            self.values.values.push(NULL);
            return;
        }
        if let Some(kind) = self.values.push_written(&mut self.scratch, |text| value.write(text)) {
            let known = &mut self.known[key as usize];
            if known.in_kinds == NULL {
                known.in_kinds = self.kinds.keys.store(name);
            }
            self.kinds.keys.values.push(known.in_kinds);
            self.kinds.push(kind);
        }
    }

    pub(super) fn clear(&mut self) {
        for texts in [&mut self.keys, &mut self.values, &mut self.kinds.keys, &mut self.kinds.values] {
            texts.clear();
        }
        self.ends.clear();
        self.kinds.ends.clear();
        self.kinds.numbers = [NULL; Kind::COUNT];
        self.known.clear();
        for column in &mut self.promoted {
            match column {
                Column::Text(texts) => texts.clear(),
                Column::Integer(values) => values.clear(),
            }
        }
    }
}

impl Kinds {
    fn new() -> Self {
        Self {
            keys: Texts::numbered(),
            values: Texts::numbered(),
            ends: Vec::new(),
            numbers: [NULL; Kind::COUNT],
        }
    }

    #[inline]
    fn push(&mut self, kind: Kind) {
        let number = &mut self.numbers[kind as usize];
        if *number == NULL {
            *number = self.values.store(kind.name().as_bytes());
        }
        self.values.values.push(*number);
    }
}

impl Column {
    /// Sets the owner's value, converted if need be; true if it is of the column's own kind.
    fn set(&mut self, owner: usize, value: Value<'_>, scratch: &mut Vec<u8>) -> bool {
        match self {
            Self::Text(texts) => {
                if let Some((text, _)) = value.text(scratch) {
                    texts.set(owner, text);
                }
                matches!(value, Value::String(_))
            }
            Self::Integer(values) => {
                let number = integer(value);
                if number.is_some() {
                    values.resize(owner, None);
                    values.push(number);
                }
                number.is_some() && matches!(value, Value::Int(_))
            }
        }
    }
}

fn integer(value: Value<'_>) -> Option<i32> {
    match value {
        Value::Int(number) => i32::try_from(number).ok(),
        Value::String(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    }
}

fn promotion(table: &[Promoted], key: &[u8]) -> Option<Promotion> {
    table.iter().enumerate().find_map(|(column, promoted)| {
        let own = promoted.name.as_bytes() == key;
        let old = promoted.old_names.iter().any(|name| name.as_bytes() == key);
        (own || old).then_some(Promotion { column: column as u8, own })
    })
}
