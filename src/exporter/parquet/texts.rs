//! Columns of text in the making.

use super::dictionary::Dictionary;

/// Stands for a value that is not there.
pub(super) const NULL: u32 = u32::MAX;

/// Values of one column of text, in order.
#[derive(Debug)]
pub(super) struct Texts {
    pub(super) store: Store,
    /// One a value: its number in the dictionary, or where it begins; or [`NULL`].
    pub(super) values: Vec<u32>,
}

/// How the values of a column are held, and written.
#[derive(Debug)]
pub(super) enum Store {
    /// For what repeats.
    Numbered(Dictionary),
    /// For what does not: one after the other as they came, and nothing is looked up.
    Joined(Vec<u8>),
}

impl Texts {
    pub(super) fn numbered() -> Self {
        Self { store: Store::Numbered(Dictionary::default()), values: Vec::new() }
    }

    pub(super) fn joined() -> Self {
        Self { store: Store::Joined(Vec::new()), values: Vec::new() }
    }

    /// Stores `value` and says what stands for it.
    #[inline]
    pub(super) fn store(&mut self, value: &[u8]) -> u32 {
        match &mut self.store {
            Store::Numbered(dictionary) => dictionary.number(value),
            Store::Joined(bytes) => {
                let start = bytes.len() as u32;
                bytes.extend_from_slice(value);
                start
            }
        }
    }

    /// What a number stands for, if values are numbered.
    #[inline]
    pub(super) fn get(&self, number: u32) -> Option<&[u8]> {
        match &self.store {
            Store::Numbered(dictionary) => Some(dictionary.get(number)),
            Store::Joined(_) => None,
        }
    }

    #[inline]
    pub(super) fn push(&mut self, value: &[u8]) {
        let stored = match (&self.store, self.values.last()) {
            // Many rows have what the row before has: then nothing is looked up.
            (Store::Numbered(dictionary), Some(&last)) if last != NULL && dictionary.get(last) == value => {
                last
            }
            _ => self.store(value),
        };
        self.values.push(stored);
    }

    /// Sets the value of a row, the last so far; rows that were passed over have none.
    #[inline]
    pub(super) fn set(&mut self, row: usize, value: &[u8]) {
        let stored = self.store(value);
        self.fill(row);
        self.values.truncate(row);
        self.values.push(stored);
    }

    /// Gives rows up to `rows` no value if they were passed over.
    pub(super) fn fill(&mut self, rows: usize) {
        if self.values.len() < rows {
            self.values.resize(rows, NULL);
        }
    }

    pub(super) fn clear(&mut self) {
        self.values.clear();
        match &mut self.store {
            Store::Numbered(dictionary) => dictionary.clear(),
            Store::Joined(bytes) => bytes.clear(),
        }
    }
}
