//! The key of an attribute, ready to be looked for.

use memchr::memmem::Finder;

/// A key, which a look at the bytes of a span finds to be absent for a fraction of what reading its attributes costs.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    /// Large, while keys stand in many small nodes.
    finder: Box<Finder<'static>>,
}

impl Key {
    pub(super) fn new(key: &str) -> Self {
        Self { finder: Box::new(Finder::new(key.as_bytes()).into_owned()) }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.finder.needle()
    }

    /// False: no attribute of this message, or of one within it, has the key.
    pub(super) fn may_be_in(&self, message: &[u8]) -> bool {
        let mut from = 0;
        while let Some(found) = self.finder.find(&message[from..]) {
            let at = from + found;
            if self.may_begin_at(message, at) {
                return true;
            }
            from = at + 1;
        }
        false
    }

    /// A string stands behind its length; a zero there ends a length with needless digits.
    fn may_begin_at(&self, message: &[u8], at: usize) -> bool {
        let before = at.checked_sub(1).map(|before| usize::from(message[before]));
        before.is_some_and(|before| {
            before == self.as_bytes().len() || before == 0 || self.as_bytes().len() > 0x7f
        })
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Key {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_looked_for_behind_its_length() {
        let key = Key::new("zone");
        assert!(key.may_be_in(b"\x0a\x04zone"));
        assert!(key.may_be_in(b"\x0a\x84\x00zone"), "a length may be written in more bytes than it takes");
        assert!(key.may_be_in(b"\x0a\x08time.zone\x0a\x04zone"));
        assert!(!key.may_be_in(b"\x0a\x08zone.eu1"));
        assert!(!key.may_be_in(b"zone"));
        assert!(Key::new("aa").may_be_in(b"aa\x02aa"));
        assert!(Key::new("\u{2}\u{2}").may_be_in(b"\x02\x02\x02"), "occurrences may overlap");
        let long = "k".repeat(300);
        assert!(Key::new(&long).may_be_in(format!("\u{2}{long}").as_bytes()));
    }
}
