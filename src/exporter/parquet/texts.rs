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
            Store::Joined(bytes) => join(bytes, value),
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
        let stored = match &mut self.store {
            Store::Numbered(dictionary) => match self.values.last() {
                // Many rows have what the row before has: then nothing is looked up.
                Some(&last) if last != NULL && dictionary.get(last) == value => last,
                _ => dictionary.number(value),
            },
            Store::Joined(bytes) => join(bytes, value),
        };
        self.values.push(stored);
    }

    /// The same for a value that `write` appends: to `scratch`, if it must be looked up.
    #[inline]
    pub(super) fn push_written<R>(
        &mut self,
        scratch: &mut Vec<u8>,
        write: impl FnOnce(&mut Vec<u8>) -> R,
    ) -> R {
        if let Store::Joined(bytes) = &mut self.store {
            self.values.push(bytes.len() as u32);
            return write(bytes);
        }
        scratch.clear();
        let written = write(scratch);
        self.push(scratch);
        written
    }

    /// Sets the value of a row, the last so far; rows that were passed over have none.
    #[inline]
    pub(super) fn set(&mut self, row: usize, value: &[u8]) {
        let stored = self.store(value);
        self.values.resize(row, NULL);
        self.values.push(stored);
    }

    pub(super) fn clear(&mut self) {
        self.values.clear();
        match &mut self.store {
            Store::Numbered(dictionary) => dictionary.clear(),
            Store::Joined(bytes) => bytes.clear(),
        }
    }
}

#[inline]
fn join(bytes: &mut Vec<u8>, value: &[u8]) -> u32 {
    let start = bytes.len() as u32;
    bytes.extend_from_slice(value);
    start
}
