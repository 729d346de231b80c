//! Protocol Buffers on the wire: a cursor over borrowed bytes that checks what it steps over, and fields read in place.
//!
//! What is refused is what prost refuses, down to the limit of nested messages, so that whatever passes here can be
//! decoded by anyone.

/// How many messages may stand in one another, as in prost.
pub(super) const DEPTH_MAX: u32 = 100;

pub(super) const VARINT: u32 = 0;
pub(super) const FIXED64: u32 = 1;
pub(super) const BYTES: u32 = 2;
pub(super) const GROUP: u32 = 3;
pub(super) const GROUP_END: u32 = 4;
pub(super) const FIXED32: u32 = 5;

/// The key of a field: its number and its wire type.
pub(super) const fn key(number: u32, wire_type: u32) -> u32 {
    number << 3 | wire_type
}

/// What should have stood where a message is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    Varint,
    Key,
    WireType,
    Length,
    Fixed,
    GroupEnd,
    Depth,
    Size,
}

impl Expected {
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Varint => "a varint of at most 10 bytes and 64 bits",
            Self::Key => "a field number from 1 to 536870911 and a known wire type",
            Self::WireType => "the wire type that this field has in OTLP",
            Self::Length => "a length that ends within the message",
            Self::Fixed => "a number of 4 or 8 bytes",
            Self::GroupEnd => "the end of the group that was begun",
            Self::Depth => "at most 100 messages in one another",
            Self::Size => "a request of less than 4 GiB",
        }
    }
}

/// Where in memory a message is broken, and how.
///
/// The address is only ever subtracted from that of the request: that spares the cursor a second number to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) address: usize,
    pub(super) expected: Expected,
}

/// What is left to read of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    #[inline(always)]
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline(always)]
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[cold]
    pub(super) fn fault(&self, expected: Expected) -> Fault {
        Fault { address: self.rest.as_ptr().addr(), expected }
    }

    #[inline(always)]
    pub(super) fn varint(&mut self) -> Result<u64, Fault> {
        match self.rest {
            [low @ 0..0x80, rest @ ..] => {
                self.rest = rest;
                Ok(u64::from(*low))
            }
            [low, high @ 0..0x80, rest @ ..] => {
                self.rest = rest;
                Ok(u64::from(*low & 0x7f) | u64::from(*high) << 7)
            }
            _ => self.long_varint(),
        }
    }

    #[inline(never)]
    fn long_varint(&mut self) -> Result<u64, Fault> {
        let mut value = 0;
        for (place, &byte) in self.rest.iter().take(10).enumerate() {
            if place == 9 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                self.rest = &self.rest[place + 1..];
                return Ok(value);
            }
        }
        Err(self.fault(Expected::Varint))
    }

    /// The next field's key.
    #[inline(always)]
    pub(super) fn key(&mut self) -> Result<u32, Fault> {
        match self.rest {
            [key @ 8..0x80, rest @ ..] => {
                self.rest = rest;
                Ok(u32::from(*key))
            }
            _ => self.long_key(),
        }
    }

    #[inline(never)]
    fn long_key(&mut self) -> Result<u32, Fault> {
        let start = *self;
        let key = u32::try_from(self.varint()?).ok().filter(|&key| key >= key_of_first_field());
        key.ok_or_else(|| start.fault(Expected::Key))
    }

    /// A length and that many bytes.
    #[inline(always)]
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Fault> {
        let start = *self;
        let len = self.varint()?;
        let parts = usize::try_from(len).ok().and_then(|len| self.rest.split_at_checked(len));
        let (bytes, rest) = parts.ok_or_else(|| start.fault(Expected::Length))?;
        self.rest = rest;
        Ok(bytes)
    }

    #[inline(always)]
    pub(super) fn fixed64(&mut self) -> Result<u64, Fault> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or_else(|| self.fault(Expected::Fixed))?;
        self.rest = rest;
        Ok(u64::from_le_bytes(*bytes))
    }

    #[inline(always)]
    pub(super) fn fixed32(&mut self) -> Result<u32, Fault> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or_else(|| self.fault(Expected::Fixed))?;
        self.rest = rest;
        Ok(u32::from_le_bytes(*bytes))
    }

    /// Steps over a field that this program does not know: one with a number above `known`. `room` is how many more
    /// messages may be entered here.
    #[inline(never)]
    pub(super) fn unknown(&mut self, key: u32, known: u32, room: u32) -> Result<(), Fault> {
        if key >> 3 <= known {
            return Err(self.fault(Expected::WireType));
        }
        self.skip(key, room)
    }

    fn skip(&mut self, key: u32, room: u32) -> Result<(), Fault> {
        if room == 0 {
            return Err(self.fault(Expected::Depth));
        }
        match key & 7 {
            VARINT => self.varint().map(drop),
            FIXED64 => self.fixed64().map(drop),
            BYTES => self.bytes().map(drop),
            GROUP => self.skip_group(key, room),
            GROUP_END => Err(self.fault(Expected::GroupEnd)),
            FIXED32 => self.fixed32().map(drop),
            _ => Err(self.fault(Expected::Key)),
        }
    }

    fn skip_group(&mut self, begin: u32, room: u32) -> Result<(), Fault> {
        loop {
            let at = *self;
            let key = self.key()?;
            if key & 7 == GROUP_END {
                return if key >> 3 == begin >> 3 { Ok(()) } else { Err(at.fault(Expected::GroupEnd)) };
            }
            self.skip(key, room - 1)?;
        }
    }
}

const fn key_of_first_field() -> u32 {
    key(1, VARINT)
}

/// A field of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'a> {
    /// Number and wire type.
    pub(super) key: u32,
    pub(super) payload: Payload<'a>,
    /// All of it, key and length included.
    pub(super) raw: &'a [u8],
}

/// What a field holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Payload<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Group,
}

impl<'a> Field<'a> {
    /// Empty if the field holds no bytes.
    #[inline]
    pub(super) fn bytes(&self) -> &'a [u8] {
        if let Payload::Bytes(bytes) = self.payload { bytes } else { &[] }
    }

    /// 0 if the field holds no number.
    #[inline]
    pub(super) fn number(&self) -> u64 {
        if let Payload::Number(number) = self.payload { number } else { 0 }
    }
}

/// The fields of a message, up to the first that is broken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a> {
    cursor: Cursor<'a>,
}

impl<'a> Fields<'a> {
    #[inline]
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self { cursor: Cursor::new(message) }
    }

    /// What is not read yet.
    pub(super) fn cursor(&self) -> Cursor<'a> {
        self.cursor
    }

    #[inline]
    fn read(&mut self) -> Result<Field<'a>, Fault> {
        let start = self.cursor.rest();
        let key = self.cursor.key()?;
        let payload = match key & 7 {
            VARINT => Payload::Number(self.cursor.varint()?),
            FIXED64 => Payload::Number(self.cursor.fixed64()?),
            BYTES => Payload::Bytes(self.cursor.bytes()?),
            FIXED32 => Payload::Number(u64::from(self.cursor.fixed32()?)),
            _ => {
                self.cursor.skip(key, DEPTH_MAX)?;
                Payload::Group
            }
        };
        let raw = &start[..start.len() - self.cursor.rest().len()];
        Ok(Field { key, payload, raw })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    #[inline]
    fn next(&mut self) -> Option<Field<'a>> {
        if self.cursor.is_empty() {
            return None;
        }
        let field = self.read().ok();
        if field.is_none() {
            self.cursor = Cursor::new(&[]);
        }
        field
    }
}

/// Bytes that a field of `len` bytes takes with a key of one byte.
pub(super) fn field_len(len: usize) -> usize {
    1 + varint_len(len) + len
}

fn varint_len(value: usize) -> usize {
    (value | 1).ilog2() as usize / 7 + 1
}

/// Appends key and length of a field whose bytes are about to follow.
pub(super) fn put_bytes_header(key: u32, len: usize, out: &mut Vec<u8>) {
    put_varint(u64::from(key), out);
    put_varint(len as u64, out);
}

/// Appends a field of bytes.
pub(super) fn put_bytes(key: u32, bytes: &[u8], out: &mut Vec<u8>) {
    put_bytes_header(key, bytes.len(), out);
    out.extend_from_slice(bytes);
}

fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_varint_has_at_most_64_bits() {
        for (bytes, expected) in [
            (&[0x7f][..], Some(0x7f)),
            (&[0x80, 0x01], Some(0x80)),
            (&[0x80, 0x00], Some(0)),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], Some(u64::MAX)),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], None),
            (&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01], None),
            (&[0x80], None),
            (&[], None),
        ] {
            assert_eq!(Cursor::new(bytes).varint().ok(), expected, "{bytes:x?}");
        }
    }

    #[test]
    fn a_group_ends_with_its_own_number() {
        let group = [0x1b, 0x08, 0x01, 0x1c];
        assert!(Cursor::new(&group[1..]).skip(0x1b, 2).is_ok());
        assert!(Cursor::new(&[0x08, 0x01, 0x24]).skip(0x1b, 2).is_err());
        assert!(Cursor::new(&[0x08, 0x01]).skip(0x1b, 2).is_err(), "it does not end");
        assert!(Cursor::new(&group[1..]).skip(0x1b, 1).is_err(), "too deep");
        assert_eq!(Fields::new(&group).next().unwrap().raw, group);
    }

    #[test]
    fn fields_end_at_what_is_broken() {
        let numbers =
            Fields::new(&[0x08, 0x01, 0x12, 0x01, 0x61, 0x1a, 0x05, 0x00]).map(|field| field.key >> 3);
        assert_eq!(numbers.collect::<Vec<_>>(), [1, 2]);
    }
}
