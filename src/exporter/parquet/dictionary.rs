//! Distinct byte strings in the order of their first appearance: a Parquet dictionary page in the making.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// Numbers distinct strings. Order, and so the page, depends on what was seen only, never on hashes.
#[derive(Debug, Default)]
pub(super) struct Dictionary {
    numbers: HashTable<u32>,
    /// PLAIN encoding: each value after its length.
    page: Vec<u8>,
    /// Where each value's length stands in the page.
    starts: Vec<u32>,
    hasher: RandomState,
}

impl Dictionary {
    /// The number of `value`, new or known. What is not UTF-8 is stored with replacement characters.
    #[inline]
    pub(super) fn number(&mut self, value: &[u8]) -> u32 {
        let hash = self.hasher.hash_one(value);
        let (page, starts) = (&self.page, &self.starts);
        if let Some(known) = self.numbers.find(hash, |&number| stored(page, starts, number) == value) {
            return *known;
        }
        self.insert(hash, value)
    }

    #[cold]
    fn insert(&mut self, hash: u64, value: &[u8]) -> u32 {
        let number = self.starts.len() as u32;
        let start = self.page.len();
        self.starts.push(start as u32);
        self.page.extend_from_slice(&[0; 4]);
        append_text(&mut self.page, value);
        let len = (self.page.len() - start - 4) as u32;
        self.page[start..start + 4].copy_from_slice(&len.to_le_bytes());
        let (page, starts, hasher) = (&self.page, &self.starts, &self.hasher);
        self.numbers.insert_unique(hash, number, |&other| hasher.hash_one(stored(page, starts, other)));
        number
    }

    pub(super) fn get(&self, number: u32) -> &[u8] {
        stored(&self.page, &self.starts, number)
    }

    pub(super) fn len(&self) -> usize {
        self.starts.len()
    }

    pub(super) fn page(&self) -> &[u8] {
        &self.page
    }

    pub(super) fn clear(&mut self) {
        self.numbers.clear();
        self.page.clear();
        self.starts.clear();
    }
}

fn stored<'a>(page: &'a [u8], starts: &[u32], number: u32) -> &'a [u8] {
    let number = number as usize;
    let start = starts[number] as usize + 4;
    let end = starts.get(number + 1).map_or(page.len(), |&next| next as usize);
    &page[start..end]
}

/// Appends `value`, as UTF-8 whatever it is.
#[inline]
pub(super) fn append_text(text: &mut Vec<u8>, value: &[u8]) {
    // Most text is short and ASCII, which is faster to ask first.
    if value.is_ascii() || simdutf8::basic::from_utf8(value).is_ok() {
        text.extend_from_slice(value);
    } else {
        text.extend_from_slice(String::from_utf8_lossy(value).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_strings_share_a_number_and_the_page_lists_them_once() {
        let mut dictionary = Dictionary::default();
        let numbers = [&b"a"[..], b"", b"a", b"bc"].map(|value| dictionary.number(value));
        assert_eq!(numbers, [0, 1, 0, 2]);
        assert_eq!(dictionary.page(), b"\x01\0\0\0a\0\0\0\0\x02\0\0\0bc");
        assert_eq!(dictionary.get(2), b"bc");
    }

    #[test]
    fn what_is_not_utf8_is_stored_with_replacement_characters() {
        let mut dictionary = Dictionary::default();
        let number = dictionary.number(b"a\xff");
        assert_eq!(dictionary.get(number), "a\u{fffd}".as_bytes());
    }
}
