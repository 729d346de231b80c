//! Attributes that a scan looks out for, by their keys.

use super::value::ValueView;

/// Keys that can be told apart.
const KEYS_MAX: usize = 31;

/// The bit of all other keys.
const OTHERS: u32 = 1 << KEYS_MAX;

/// Marks that keys are sorted by.
const MARKS: usize = 64;

/// Keys that are asked about, each with a bit.
#[derive(Clone, Debug)]
pub struct Keys {
    keys: Vec<Box<[u8]>>,
    /// The bits of the keys that have a mark.
    by_mark: [u32; MARKS],
}

impl Default for Keys {
    fn default() -> Self {
        Self { keys: Vec::new(), by_mark: [0; MARKS] }
    }
}

impl Keys {
    /// The key's bit. Those that come when all are given away share one.
    pub fn add(&mut self, key: &[u8]) -> u32 {
        if let Some(known) = self.keys.iter().position(|known| **known == *key) {
            return 1 << known;
        }
        if key.is_empty() || self.keys.len() == KEYS_MAX {
            return OTHERS;
        }
        let bit = 1 << self.keys.len();
        self.keys.push(key.into());
        self.by_mark[mark(key)] |= bit;
        bit
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The number of a key that is asked about.
    #[inline(always)]
    fn number(&self, key: &[u8]) -> Option<usize> {
        let candidates = self.by_mark[mark(key)];
        if candidates == 0 { None } else { self.find(key, candidates) }
    }

    fn find(&self, key: &[u8], mut candidates: u32) -> Option<usize> {
        while candidates != 0 {
            let number = candidates.trailing_zeros() as usize;
            if *self.keys[number] == *key {
                return Some(number);
            }
            candidates &= candidates - 1;
        }
        None
    }
}

/// Most keys differ in their length or their last byte.
#[inline(always)]
fn mark(key: &[u8]) -> usize {
    let last = key.last().map_or(0, |last| usize::from(*last));
    (key.len() + last) % MARKS
}

/// Is shown the attributes of one span after the other.
pub(super) trait Watch<'a> {
    /// A span begins.
    fn begin(&mut self);

    /// The span at hand has this attribute.
    fn own(&mut self, key: &[u8], value: &'a [u8]);

    /// An event or a link of the span at hand has an attribute with this key.
    fn within(&mut self, key: &[u8]);

    /// An attribute with this key stands somewhere, in a shape that is not worth telling where.
    fn somewhere(&mut self, key: &[u8]);
}

/// Sees nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unwatched;

impl<'a> Watch<'a> for Unwatched {
    #[inline(always)]
    fn begin(&mut self) {}

    #[inline(always)]
    fn own(&mut self, _key: &[u8], _value: &'a [u8]) {}

    #[inline(always)]
    fn within(&mut self, _key: &[u8]) {}

    #[inline(always)]
    fn somewhere(&mut self, _key: &[u8]) {}
}

/// What a scan has seen of the attributes of one span that were asked about.
#[derive(Clone, Debug)]
pub struct Seen<'k, 'a> {
    keys: Option<&'k Keys>,
    /// Bits of the attributes of the span itself.
    own: u32,
    /// Bits of keys that an event or a link has.
    within: u32,
    /// Bits of keys that may be anywhere.
    somewhere: u32,
    /// The `AnyValue` messages of those in `own`.
    values: [&'a [u8]; KEYS_MAX],
}

/// An attribute of a span, as far as a scan has seen.
#[derive(Clone, Copy, Debug)]
pub enum Own<'a> {
    Absent,
    Value(ValueView<'a>),
    /// The bytes have to be read.
    Unsure,
}

impl Seen<'_, '_> {
    /// Of a span that was not scanned: everything may be there.
    pub const NOTHING: Self =
        Self { keys: None, own: 0, within: 0, somewhere: u32::MAX, values: [&[]; KEYS_MAX] };
}

impl<'k, 'a> Seen<'k, 'a> {
    pub(super) fn new(keys: &'k Keys) -> Self {
        Self { keys: Some(keys), own: 0, within: 0, somewhere: OTHERS, values: [&[]; KEYS_MAX] }
    }

    /// False: none of the keys with these bits is in the span, in its events or in its links.
    #[inline]
    pub fn may_have(&self, bits: u32) -> bool {
        (self.own | self.within | self.somewhere) & bits != 0
    }

    /// The span's own attribute of this key.
    pub fn own(&self, key: &[u8]) -> Own<'a> {
        let Some(number) = self.keys.and_then(|keys| keys.number(key)) else { return Own::Unsure };
        match 1 << number {
            bit if self.somewhere & bit != 0 => Own::Unsure,
            bit if self.own & bit != 0 => Own::Value(ValueView::of(self.values[number])),
            _ => Own::Absent,
        }
    }
}

impl<'a> Watch<'a> for Seen<'_, 'a> {
    #[inline(always)]
    fn begin(&mut self) {
        (self.own, self.within, self.somewhere) = (0, 0, OTHERS);
    }

    #[inline(always)]
    fn own(&mut self, key: &[u8], value: &'a [u8]) {
        if let Some(number) = self.keys.and_then(|keys| keys.number(key)) {
            self.own |= 1 << number;
            self.values[number] = value;
        }
    }

    #[inline(always)]
    fn within(&mut self, key: &[u8]) {
        if let Some(number) = self.keys.and_then(|keys| keys.number(key)) {
            self.within |= 1 << number;
        }
    }

    #[inline(always)]
    fn somewhere(&mut self, key: &[u8]) {
        if let Some(number) = self.keys.and_then(|keys| keys.number(key)) {
            self.somewhere |= 1 << number;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_told_from_others_of_its_mark() {
        let mut keys = Keys::default();
        assert_eq!([&b"ab"[..], b"cb", b"ab"].map(|key| keys.add(key)), [1, 2, 1]);
        for (key, number) in [(&b"ab"[..], Some(0)), (b"cb", Some(1)), (b"db", None), (b"ab ", None)] {
            assert_eq!(keys.number(key), number, "{key:?}");
        }
    }

    #[test]
    fn keys_without_a_bit_may_be_anywhere() {
        let mut keys = Keys::default();
        let bits: Vec<u32> = (0..=KEYS_MAX).map(|n| keys.add(n.to_string().as_bytes())).collect();
        assert_eq!(bits[KEYS_MAX - 1..], [1 << 30, OTHERS]);
        assert_eq!(keys.add(b""), OTHERS);
        let mut seen = Seen::new(&keys);
        seen.begin();
        assert!(seen.may_have(OTHERS) && !seen.may_have(1));
        assert!(matches!(seen.own(b"31"), Own::Unsure));
        assert!(matches!(seen.own(b"30"), Own::Absent));
    }
}
