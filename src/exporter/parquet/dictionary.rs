//! Distinct byte strings in the order of their first appearance: a Parquet dictionary page in the making.

use std::borrow::Cow;
use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// Numbers distinct strings. Order, and so the page, depends on what was seen only, never on hashes.
#[derive(Debug, Default)]
pub(super) struct Dictionary {
    numbers: HashTable<u32>,
    /// PLAIN encoding: each value after its length.
    page: Vec<u8>,
    /// Where each value begins in the page, and its length.
    places: Vec<(u32, u32)>,
    hasher: RandomState,
}

impl Dictionary {
    /// The number of `value`, new or known. What is not UTF-8 is stored with replacement characters.
    pub(super) fn number(&mut self, value: &[u8]) -> u32 {
        let hash = self.hasher.hash_one(value);
        let (page, places) = (&self.page, &self.places);
        if let Some(known) = self.numbers.find(hash, |&number| stored(page, places, number) == value) {
            return *known;
        }
        self.insert(hash, value)
    }

    #[cold]
    fn insert(&mut self, hash: u64, value: &[u8]) -> u32 {
        let number = self.places.len() as u32;
        let text = text(value);
        let len = text.len() as u32;
        self.page.extend_from_slice(&len.to_le_bytes());
        self.places.push((self.page.len() as u32, len));
        self.page.extend_from_slice(text.as_bytes());
        let (page, places, hasher) = (&self.page, &self.places, &self.hasher);
        self.numbers.insert_unique(hash, number, |&other| hasher.hash_one(stored(page, places, other)));
        number
    }

    #[inline]
    pub(super) fn get(&self, number: u32) -> &[u8] {
        stored(&self.page, &self.places, number)
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn page(&self) -> &[u8] {
        &self.page
    }

    pub(super) fn clear(&mut self) {
        self.numbers.clear();
        self.page.clear();
        self.places.clear();
    }
}

#[inline]
fn stored<'a>(page: &'a [u8], places: &[(u32, u32)], number: u32) -> &'a [u8] {
    let (start, len) = places[number as usize];
    &page[start as usize..][..len as usize]
}

/// As UTF-8, whatever it is: with replacement characters where it is not.
pub(super) fn text(value: &[u8]) -> Cow<'_, str> {
    match simdutf8::basic::from_utf8(value) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(value),
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
