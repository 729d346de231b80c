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
        self.finder.find(message).is_some()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Key {}
