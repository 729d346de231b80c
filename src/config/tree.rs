//! The YAML document as written, with the position of every key and value.
//!
//! Typed values know neither where they stood nor which keys were left out; a message about them needs both.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

/// One value of the document.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) at: Location,
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Empty,
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_at: Location,
    pub(crate) value: Node,
}

impl Node {
    /// The value at a path such as `policies.2.match`.
    pub(crate) fn get(&self, path: &str) -> Option<&Self> {
        let mut node = self;
        for step in path.split('.').filter(|step| !step.is_empty()) {
            node = match &node.kind {
                Kind::List(items) => items.get(step.parse::<usize>().ok()?)?,
                Kind::Map(entries) => &entries.iter().find(|entry| entry.key == step)?.value,
                Kind::Empty | Kind::Scalar(_) => return None,
            };
        }
        Some(node)
    }

    /// Visits every key with its path, in order of appearance.
    pub(crate) fn visit<'a>(&'a self, path: &str, visit: &mut impl FnMut(&str, &'a Entry)) {
        let join = |step: &str| if path.is_empty() { step.to_owned() } else { format!("{path}.{step}") };
        match &self.kind {
            Kind::Empty | Kind::Scalar(_) => {}
            Kind::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    item.visit(&join(&index.to_string()), visit);
                }
            }
            Kind::Map(entries) => {
                for entry in entries {
                    let path = join(&entry.key);
                    visit(&path, entry);
                    entry.value.visit(&path, visit);
                }
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Kind>::deserialize(deserializer)?;
        Ok(Self { at: spanned.referenced, kind: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KindVisitor)
    }
}

struct KindVisitor;

impl<'de> Visitor<'de> for KindVisitor {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a list or keys with values")
    }

    fn visit_unit<E>(self) -> Result<Kind, E> {
        Ok(Kind::Empty)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Kind, E> {
        Ok(Kind::Scalar(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Kind, E> {
        Ok(Kind::Scalar(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Kind, E> {
        Ok(Kind::Scalar(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Kind, E> {
        Ok(Kind::Scalar(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Kind, E> {
        Ok(Kind::Scalar(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Kind, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Kind::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Kind, A::Error> {
        let mut map = Vec::new();
        while let Some((key, value)) = entries.next_entry::<Spanned<String>, Node>()? {
            map.push(Entry { key: key.value, key_at: key.referenced, value });
        }
        Ok(Kind::Map(map))
    }
}
