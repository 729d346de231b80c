//! Reads the values of a foreign file, and says where what is wrong stands.

use serde_saphyr::Location;

use crate::config::{Entry, Kind, Mistake, Node, Source};

/// A mapping of the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Section<'a> {
    pub(super) source: Source<'a>,
    pub(super) at: Location,
    entries: &'a [Entry],
}

pub(super) fn line(at: Location) -> usize {
    at.line() as usize
}

impl<'a> Section<'a> {
    /// Nothing at all counts as a mapping without keys.
    pub(super) fn new(source: Source<'a>, node: &'a Node) -> Result<Self, Mistake> {
        match &node.kind {
            Kind::Map(entries) => Ok(Self { source, at: node.at, entries }),
            Kind::Empty => Ok(Self { source, at: node.at, entries: &[] }),
            _ => Err(source.mistake(node.at, "expected keys with values")),
        }
    }

    pub(super) fn entries(&self) -> &'a [Entry] {
        self.entries
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Node> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        (!matches!(entry.value.kind, Kind::Empty)).then_some(&entry.value)
    }

    /// Where the key stands, else the section.
    pub(super) fn place(&self, key: &str) -> Location {
        self.entries.iter().find(|entry| entry.key == key).map_or(self.at, |entry| entry.key_at)
    }

    pub(super) fn mistake(&self, key: &str, message: impl Into<String>) -> Mistake {
        let at = self.get(key).map_or_else(|| self.place(key), |node| node.at);
        self.source.mistake(at, message)
    }

    pub(super) fn section(&self, key: &str) -> Result<Option<Self>, Mistake> {
        self.get(key).map(|node| Self::new(self.source, node)).transpose()
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>, Mistake> {
        self.get(key).map(|node| scalar(self.source, node)).transpose()
    }

    pub(super) fn needed_text(&self, key: &str) -> Result<&'a str, Mistake> {
        let text = self.text(key)?.filter(|text| !text.is_empty());
        text.ok_or_else(|| self.mistake(key, format!("expected a {key}")))
    }

    pub(super) fn integer(&self, key: &str) -> Result<Option<i64>, Mistake> {
        let number = |text: &str| {
            let refusal = || self.mistake(key, format!("found \"{text}\", expected a whole number"));
            text.replace('_', "").parse().map_err(|_| refusal())
        };
        self.text(key)?.map(number).transpose()
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, Mistake> {
        let number = |text: &str| {
            let refusal = || self.mistake(key, format!("found \"{text}\", expected a number"));
            text.replace('_', "").parse().ok().filter(|number: &f64| number.is_finite()).ok_or_else(refusal)
        };
        self.text(key)?.map(number).transpose()
    }

    pub(super) fn boolean(&self, key: &str) -> Result<bool, Mistake> {
        let truth_of = |text| {
            let refusal = || self.mistake(key, format!("found \"{text}\", expected true or false"));
            truth(text).ok_or_else(refusal)
        };
        self.text(key)?.map_or(Ok(false), truth_of)
    }

    pub(super) fn list(&self, key: &str) -> Result<&'a [Node], Mistake> {
        match self.get(key) {
            None => Ok(&[]),
            Some(node) => items(self.source, node),
        }
    }

    pub(super) fn texts(&self, key: &str) -> Result<Vec<&'a str>, Mistake> {
        self.list(key)?.iter().map(|node| scalar(self.source, node)).collect()
    }

    /// A sentence about each key that is none of these.
    pub(super) fn unknown(&self, known: &[&str]) -> impl Iterator<Item = String> {
        let unknown: Vec<&Entry> = self.others(known).collect();
        unknown.into_iter().map(|entry| {
            format!(
                "left out: {} (line {}): this key is not known to the converter",
                entry.key,
                line(entry.key_at)
            )
        })
    }

    /// The keys that are none of these.
    pub(super) fn others(&self, known: &[&str]) -> impl Iterator<Item = &'a Entry> {
        self.entries.iter().filter(move |entry| !known.contains(&entry.key.as_str()))
    }
}

pub(super) fn items<'a>(source: Source<'a>, node: &'a Node) -> Result<&'a [Node], Mistake> {
    match &node.kind {
        Kind::List(items) => Ok(items),
        Kind::Empty => Ok(&[]),
        _ => Err(source.mistake(node.at, "expected a list")),
    }
}

/// As Go's YAML reads a boolean.
pub(super) fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "y" | "on" => Some(true),
        "false" | "no" | "n" | "off" => Some(false),
        _ => None,
    }
}

pub(super) fn scalar<'a>(source: Source<'a>, node: &'a Node) -> Result<&'a str, Mistake> {
    match &node.kind {
        Kind::Scalar(text) => Ok(text),
        _ => Err(source.mistake(node.at, "expected a single value")),
    }
}

/// Whether a value stands in quotes: `"500"` is a text, `500` a number.
pub(super) fn is_quoted(source: Source<'_>, node: &Node) -> bool {
    source.raw(node.at).starts_with(['"', '\''])
}
