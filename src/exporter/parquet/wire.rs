//! The fields of a protobuf message, read in place.

/// One field's value. Groups do not occur in OTLP; they are passed over.
#[derive(Clone, Copy, Debug)]
pub(super) enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    #[inline]
    pub(super) fn number(self) -> u64 {
        match self {
            Self::Number(number) => number,
            Self::Bytes(_) => 0,
        }
    }

    #[inline]
    pub(super) fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Number(_) => &[],
        }
    }
}

/// The message of field `number` at the start of `message` and what follows it, if their lengths are short.
#[inline(always)]
pub(super) fn short(message: &[u8], number: u8) -> Option<(&[u8], &[u8])> {
    match message {
        [tag, len, rest @ ..] if *tag == number << 3 | 2 && *len < 0x80 => {
            rest.split_at_checked(usize::from(*len))
        }
        _ => None,
    }
}

/// The number in field `number`, if that is all of the message.
#[inline(always)]
pub(super) fn only_number(message: &[u8], number: u8) -> Option<u64> {
    let (&tag, rest) = message.split_first()?;
    let mut rest = Fields(rest);
    let value = if tag == number << 3 { rest.varint()? } else { return None };
    rest.0.is_empty().then_some(value)
}

/// Walks a message that was validated when it was accepted: what cannot be read ends the walk.
#[derive(Clone, Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, Field<'a>);

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        // Most fields are short bytes under a small number: their tag and their length are one byte each.
        if let [tag, len, rest @ ..] = self.0
            && tag & 0x87 == 2
            && *len < 0x80
            && let Some((bytes, rest)) = rest.split_at_checked(usize::from(*len))
        {
            self.0 = rest;
            return Some((u64::from(tag >> 3), Field::Bytes(bytes)));
        }
        self.any()
    }
}

impl<'a> Fields<'a> {
    #[inline(never)]
    fn any(&mut self) -> Option<(u64, Field<'a>)> {
        let tag = self.varint()?;
        let field = match tag & 7 {
            0 => Field::Number(self.varint()?),
            1 => Field::Number(u64::from_le_bytes(*self.chunk()?)),
            2 => {
                let len = usize::try_from(self.varint()?).ok()?;
                Field::Bytes(self.0.split_off(..len)?)
            }
            3 => return self.after_group(),
            5 => Field::Number(u64::from(u32::from_le_bytes(*self.chunk()?))),
            _ => return None,
        };
        Some((tag >> 3, field))
    }

    #[inline(always)]
    fn chunk<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (chunk, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(chunk)
    }

    #[inline(always)]
    fn varint(&mut self) -> Option<u64> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        if first < 0x80 { Some(u64::from(first)) } else { self.long_varint(first) }
    }

    /// The field after a group.
    #[cold]
    fn after_group(&mut self) -> Option<(u64, Field<'a>)> {
        self.pass_group()?;
        self.next()
    }

    #[cold]
    fn pass_group(&mut self) -> Option<()> {
        let mut depth = 1;
        while depth > 0 {
            let len = match self.varint()? & 7 {
                0 => self.varint().map(|_| 0)?,
                1 => 8,
                2 => usize::try_from(self.varint()?).ok()?,
                3 => {
                    depth += 1;
                    0
                }
                4 => {
                    depth -= 1;
                    0
                }
                5 => 4,
                _ => return None,
            };
            self.0.split_off(..len)?;
        }
        Some(())
    }

    fn long_varint(&mut self, first: u8) -> Option<u64> {
        let mut value = u64::from(first & 0x7f);
        for shift in (7..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }
}
