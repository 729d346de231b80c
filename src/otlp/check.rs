//! Checks messages to their depth: framing, wire types, nesting, UTF-8.
//!
//! Every message is read once and nothing is allocated. `room` is how many more messages may be entered within the one
//! at hand, so that nesting is refused where prost refuses it.

use super::keys::{Unwatched, Watch};
use super::schema::{any_value, entity_ref, event, key_value, link, list, resource, scope, span, status};
use super::wire::{Cursor, DEPTH_MAX, Expected, Fault};

/// Room within the messages that stand at a known depth.
pub(super) const REQUEST_ROOM: u32 = DEPTH_MAX;
pub(super) const RESOURCE_SPANS_ROOM: u32 = REQUEST_ROOM - 1;
pub(super) const SCOPE_SPANS_ROOM: u32 = RESOURCE_SPANS_ROOM - 1;
const RESOURCE_ROOM: u32 = RESOURCE_SPANS_ROOM - 1;
const SCOPE_ROOM: u32 = SCOPE_SPANS_ROOM - 1;
const SPAN_ROOM: u32 = SCOPE_SPANS_ROOM - 1;

/// The fields of a span that are looked at; the last of each wins.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SpanFields<'a> {
    pub(super) trace_id: &'a [u8],
    pub(super) span_id: &'a [u8],
    pub(super) parent: &'a [u8],
    pub(super) trace_state: &'a [u8],
    pub(super) name: &'a [u8],
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) kind: i32,
    pub(super) status: i32,
    pub(super) flags: u32,
}

/// Counts what is passed on but not as it came, and shows attributes.
#[derive(Debug, Default)]
pub(super) struct Checker<W = Unwatched> {
    pub(super) watch: W,
    /// Strings that are not UTF-8.
    pub(super) strings_replaced: u32,
}

/// Whose attribute it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Span,
    EventOrLink,
    Other,
}

impl<'a, W: Watch<'a>> Checker<W> {
    pub(super) fn new(watch: W) -> Self {
        Self { watch, strings_replaced: 0 }
    }

    #[inline(always)]
    pub(super) fn text(&mut self, text: &[u8]) {
        if !is_ascii(text) {
            self.long_text(text);
        }
    }

    #[inline(never)]
    fn long_text(&mut self, text: &[u8]) {
        self.strings_replaced += u32::from(simdutf8::basic::from_utf8(text).is_err());
    }

    pub(super) fn span(&mut self, message: &'a [u8]) -> Result<SpanFields<'a>, Fault> {
        self.watch.begin();
        let mut fields = SpanFields::default();
        let mut cursor = Cursor::new(message);
        while !cursor.is_empty() {
            match cursor.key()? {
                span::ATTRIBUTE => self.attribute(cursor.bytes()?, SPAN_ROOM - 1, Owner::Span)?,
                span::TRACE_ID => fields.trace_id = cursor.bytes()?,
                span::SPAN_ID => fields.span_id = cursor.bytes()?,
                span::PARENT => fields.parent = cursor.bytes()?,
                span::TRACE_STATE => {
                    fields.trace_state = cursor.bytes()?;
                    self.text(fields.trace_state);
                }
                span::NAME => {
                    fields.name = cursor.bytes()?;
                    self.text(fields.name);
                }
                span::KIND => fields.kind = cursor.varint()? as i32,
                span::START => fields.start = cursor.fixed64()?,
                span::END => fields.end = cursor.fixed64()?,
                span::FLAGS => fields.flags = cursor.fixed32()?,
                span::STATUS => self.status(cursor.bytes()?, &mut fields.status)?,
                span::EVENT => self.event(cursor.bytes()?)?,
                span::LINK => self.link(cursor.bytes()?)?,
                span::DROPPED_ATTRIBUTES | span::DROPPED_EVENTS | span::DROPPED_LINKS => {
                    _ = cursor.varint()?
                }
                key => cursor.unknown(key, span::KNOWN, SPAN_ROOM)?,
            }
        }
        Ok(fields)
    }

    #[inline(always)]
    fn status(&mut self, message: &[u8], code: &mut i32) -> Result<(), Fault> {
        let mut cursor = Cursor::new(message);
        while !cursor.is_empty() {
            match cursor.key()? {
                status::MESSAGE => self.text(cursor.bytes()?),
                status::CODE => *code = cursor.varint()? as i32,
                key => cursor.unknown(key, status::KNOWN, SPAN_ROOM - 1)?,
            }
        }
        Ok(())
    }

    fn event(&mut self, message: &'a [u8]) -> Result<(), Fault> {
        let room = SPAN_ROOM - 1;
        let mut cursor = Cursor::new(message);
        while !cursor.is_empty() {
            match cursor.key()? {
                event::ATTRIBUTE => self.attribute(cursor.bytes()?, room - 1, Owner::EventOrLink)?,
                event::NAME => self.text(cursor.bytes()?),
                event::TIME => _ = cursor.fixed64()?,
                event::DROPPED_ATTRIBUTES => _ = cursor.varint()?,
                key => cursor.unknown(key, event::KNOWN, room)?,
            }
        }
        Ok(())
    }

    fn link(&mut self, message: &'a [u8]) -> Result<(), Fault> {
        let room = SPAN_ROOM - 1;
        let mut cursor = Cursor::new(message);
        while !cursor.is_empty() {
            match cursor.key()? {
                link::ATTRIBUTE => self.attribute(cursor.bytes()?, room - 1, Owner::EventOrLink)?,
                link::TRACE_ID | link::SPAN_ID => _ = cursor.bytes()?,
                link::TRACE_STATE => self.text(cursor.bytes()?),
                link::DROPPED_ATTRIBUTES => _ = cursor.varint()?,
                link::FLAGS => _ = cursor.fixed32()?,
                key => cursor.unknown(key, link::KNOWN, room)?,
            }
        }
        Ok(())
    }

    pub(super) fn resource(&mut self, message: &'a [u8]) -> Result<(), Fault> {
        let mut cursor = Cursor::new(message);
        while !cursor.is_empty() {
            match cursor.key()? {
                resource::ATTRIBUTE => self.attribute(cursor.bytes()?, RESOURCE_ROOM - 1, Owner::Other)?,
                resource::DROPPED_ATTRIBUTES => _ = cursor.varint()?,
                resource::ENTITY_REF => self.entity_ref(cursor.bytes()?)?,
                key => cursor.unknown(key, resource::KNOWN, RESOURCE_ROOM)?,
            }
        }
        Ok(())
    }

    fn entity_ref(&mut self, message: &[u8]) -> Result<(), Fault> {
        use entity_ref::{DESCRIPTION_KEY, ID_KEY, KNOWN, SCHEMA_URL, TYPE};
        let mut cursor = Cursor::new(message);
        while !cursor.is_empty() {
            match cursor.key()? {
                SCHEMA_URL | TYPE | ID_KEY | DESCRIPTION_KEY => self.text(cursor.bytes()?),
                key => cursor.unknown(key, KNOWN, RESOURCE_ROOM - 1)?,
            }
        }
        Ok(())
    }

    pub(super) fn scope(&mut self, message: &'a [u8]) -> Result<(), Fault> {
        let mut cursor = Cursor::new(message);
        while !cursor.is_empty() {
            match cursor.key()? {
                scope::NAME | scope::VERSION => self.text(cursor.bytes()?),
                scope::ATTRIBUTE => self.attribute(cursor.bytes()?, SCOPE_ROOM - 1, Owner::Other)?,
                scope::DROPPED_ATTRIBUTES => _ = cursor.varint()?,
                key => cursor.unknown(key, scope::KNOWN, SCOPE_ROOM)?,
            }
        }
        Ok(())
    }

    /// A `KeyValue` near the top of a request. The shape that SDKs write is matched in one go: a key, then a value,
    /// every length in one byte; most values are strings.
    #[inline(always)]
    fn attribute(&mut self, message: &'a [u8], room: u32, owner: Owner) -> Result<(), Fault> {
        let Some((key, value)) = plain_pair(message) else { return self.key_value(message, room) };
        self.text(key);
        match owner {
            Owner::Span => self.watch.own(key, value),
            Owner::EventOrLink => self.watch.within(key),
            Owner::Other => {}
        }
        if let Some(text) = plain_string(value) {
            self.text(text);
            return Ok(());
        }
        self.any_value(value, room - 1)
    }

    #[inline(never)]
    fn key_value(&mut self, message: &'a [u8], room: u32) -> Result<(), Fault> {
        let mut cursor = Cursor::new(message);
        while !cursor.is_empty() {
            match cursor.key()? {
                key_value::KEY => {
                    let key = cursor.bytes()?;
                    self.text(key);
                    self.watch.somewhere(key);
                }
                key_value::VALUE => {
                    let room = enter(&cursor, room)?;
                    self.any_value(cursor.bytes()?, room)?;
                }
                key_value::KEY_INDEX => _ = cursor.varint()?,
                key => cursor.unknown(key, key_value::KNOWN, room)?,
            }
        }
        Ok(())
    }

    #[inline(never)]
    fn any_value(&mut self, message: &'a [u8], room: u32) -> Result<(), Fault> {
        let mut cursor = Cursor::new(message);
        while !cursor.is_empty() {
            match cursor.key()? {
                any_value::STRING => self.text(cursor.bytes()?),
                any_value::INT | any_value::BOOL | any_value::STRING_INDEX => _ = cursor.varint()?,
                any_value::DOUBLE => _ = cursor.fixed64()?,
                any_value::BINARY => _ = cursor.bytes()?,
                any_value::ARRAY => {
                    let room = enter(&cursor, room)?;
                    self.list(cursor.bytes()?, room, Self::any_value)?;
                }
                any_value::KEY_VALUES => {
                    let room = enter(&cursor, room)?;
                    self.list(cursor.bytes()?, room, Self::key_value)?;
                }
                key => cursor.unknown(key, any_value::KNOWN, room)?,
            }
        }
        Ok(())
    }

    fn list(
        &mut self,
        message: &'a [u8],
        room: u32,
        item: fn(&mut Self, &'a [u8], u32) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut cursor = Cursor::new(message);
        while !cursor.is_empty() {
            match cursor.key()? {
                list::ITEM => {
                    let room = enter(&cursor, room)?;
                    item(self, cursor.bytes()?, room)?;
                }
                key => cursor.unknown(key, list::KNOWN, room)?,
            }
        }
        Ok(())
    }
}

/// The room within a message that stands at the cursor.
#[inline(always)]
fn enter(cursor: &Cursor<'_>, room: u32) -> Result<u32, Fault> {
    room.checked_sub(1).ok_or_else(|| cursor.fault(Expected::Depth))
}

/// Key and value of a `KeyValue` that is nothing but these two, in this order, both shorter than 128 bytes.
#[inline(always)]
pub(super) fn plain_pair(message: &[u8]) -> Option<(&[u8], &[u8])> {
    const KEY: u8 = key_value::KEY as u8;
    const VALUE: u8 = key_value::VALUE as u8;
    let [KEY, key_len @ 0..0x80, rest @ ..] = message else { return None };
    let (key, [VALUE, value_len @ 0..0x80, value @ ..]) = rest.split_at_checked(usize::from(*key_len))?
    else {
        return None;
    };
    (value.len() == usize::from(*value_len)).then_some((key, value))
}

/// The string of an `AnyValue` that is nothing but a string shorter than 128 bytes.
#[inline(always)]
fn plain_string(value: &[u8]) -> Option<&[u8]> {
    const STRING: u8 = any_value::STRING as u8;
    let [STRING, len @ 0..0x80, text @ ..] = value else { return None };
    (text.len() == usize::from(*len)).then_some(text)
}

/// Eight bytes at a time, the last ones with an overlap: most strings here have 4 to 40 bytes.
#[inline(always)]
pub(super) fn is_ascii(text: &[u8]) -> bool {
    const HIGH_BITS: u64 = 0x8080_8080_8080_8080;
    let (words, _) = text.as_chunks::<8>();
    if let Some(last) = text.last_chunk::<8>() {
        let all = words.iter().fold(u64::from_le_bytes(*last), |all, word| all | u64::from_le_bytes(*word));
        return all & HIGH_BITS == 0;
    }
    match (text.first_chunk::<4>(), text.last_chunk::<4>()) {
        (Some(first), Some(last)) => {
            u64::from(u32::from_le_bytes(*first) | u32::from_le_bytes(*last)) & HIGH_BITS == 0
        }
        _ => text.iter().fold(0, |all, byte| all | byte) < 0x80,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ascii_is_told_at_every_length() {
        for len in 0..40 {
            let mut text = vec![b'a'; len];
            assert!(is_ascii(&text));
            for at in 0..len {
                text[at] = 0x80;
                assert!(!is_ascii(&text), "{at} of {len}");
                text[at] = b'a';
            }
        }
    }
}
