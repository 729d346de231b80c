//! What a row has a list of: events and links.

use super::attributes::Attributes;
use super::span::Attribute;
use super::texts::Texts;
use super::value::Value;
use super::wire::Fields;

#[derive(Debug)]
pub(super) struct Events {
    /// Where each row's events end.
    pub(super) row_ends: Vec<u32>,
    pub(super) times: Vec<i64>,
    pub(super) names: Texts,
    pub(super) attributes: Attributes,
    pub(super) dropped_attributes: Vec<i32>,
}

#[derive(Debug)]
pub(super) struct Links {
    /// Where each row's links end.
    pub(super) row_ends: Vec<u32>,
    pub(super) trace_ids: Texts,
    pub(super) span_ids: Texts,
    pub(super) trace_states: Texts,
    pub(super) attributes: Attributes,
    pub(super) dropped_attributes: Vec<i32>,
    pub(super) flags: Vec<i32>,
}

impl Events {
    pub(super) fn new() -> Self {
        Self {
            row_ends: Vec::new(),
            times: Vec::new(),
            names: Texts::numbered(),
            attributes: Attributes::new(&[], Texts::numbered()),
            dropped_attributes: Vec::new(),
        }
    }

    /// Adds an Event message; returns the `exception.type` it has.
    pub(super) fn add<'a>(&mut self, message: &'a [u8], duplicate_keys: &mut u64) -> Option<&'a [u8]> {
        let (mut time, mut name, mut dropped) = (0, &[][..], 0);
        let mut all: Vec<Attribute<'a>> = Vec::new();
        for (number, field) in Fields(message) {
            match number {
                1 => time = field.number() as i64,
                2 => name = field.bytes(),
                3 => all.push(Attribute::read(field.bytes())),
                4 => dropped = field.number() as i32,
                _ => {}
            }
        }
        self.times.push(time);
        self.names.push(name);
        self.dropped_attributes.push(dropped);
        *duplicate_keys += self.attributes.add(&all);
        let exception = all.iter().rfind(|attribute| attribute.key == b"exception.type")?;
        match Value::read(exception.value) {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn clear(&mut self) {
        self.row_ends.clear();
        self.times.clear();
        self.names.clear();
        self.attributes.clear();
        self.dropped_attributes.clear();
    }
}

impl Links {
    pub(super) fn new() -> Self {
        Self {
            row_ends: Vec::new(),
            trace_ids: Texts::numbered(),
            span_ids: Texts::joined(),
            trace_states: Texts::numbered(),
            attributes: Attributes::new(&[], Texts::numbered()),
            dropped_attributes: Vec::new(),
            flags: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, messages: &[&[u8]]) -> u64 {
        let mut duplicates = 0;
        for message in messages {
            duplicates += self.add_link(message);
        }
        self.row_ends.push(self.flags.len() as u32);
        duplicates
    }

    fn add_link(&mut self, message: &[u8]) -> u64 {
        let (mut trace_id, mut span_id, mut trace_state) = (&[][..], &[][..], &[][..]);
        let (mut dropped, mut flags) = (0, 0);
        let mut all = Vec::new();
        for (number, field) in Fields(message) {
            match number {
                1 => trace_id = field.bytes(),
                2 => span_id = field.bytes(),
                3 => trace_state = field.bytes(),
                4 => all.push(Attribute::read(field.bytes())),
                5 => dropped = field.number() as i32,
                6 => flags = field.number() as i32,
                _ => {}
            }
        }
        let mut hex = [0; 32];
        self.trace_ids.push(hexadecimal(trace_id, &mut hex));
        self.span_ids.push(hexadecimal(span_id, &mut hex));
        self.trace_states.push(trace_state);
        self.dropped_attributes.push(dropped);
        self.flags.push(flags);
        self.attributes.add(&all)
    }

    pub(super) fn clear(&mut self) {
        self.row_ends.clear();
        self.trace_ids.clear();
        self.span_ids.clear();
        self.trace_states.clear();
        self.attributes.clear();
        self.dropped_attributes.clear();
        self.flags.clear();
    }
}

/// The identifier in lower case; what is longer than an identifier can be is cut.
pub(super) fn hexadecimal<'b>(id: &[u8], text: &'b mut [u8; 32]) -> &'b [u8] {
    let id = &id[..id.len().min(16)];
    let (words, rest) = id.as_chunks();
    let (eights, _) = text.as_chunks_mut();
    for (word, eight) in words.iter().zip(&mut *eights) {
        *eight = digits(u32::from_be_bytes(*word)).to_be_bytes();
    }
    if !rest.is_empty() {
        let mut word = [0; 4];
        word[..rest.len()].copy_from_slice(rest);
        eights[words.len()] = digits(u32::from_be_bytes(word)).to_be_bytes();
    }
    &text[..2 * id.len()]
}

/// The digits of a word, all at once: its halves of bytes are drawn apart, then those above 9 moved on to the letters.
fn digits(word: u32) -> u64 {
    let word = u64::from(word);
    let word = (word | word << 16) & 0x0000_ffff_0000_ffff;
    let word = (word | word << 8) & 0x00ff_00ff_00ff_00ff;
    let word = (word | word << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    let letters = (word + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
    word + 0x3030_3030_3030_3030 + letters * u64::from(b'a' - b'9' - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_of_any_length_are_written_in_lower_case() {
        let id: Vec<u8> = (0..16).map(|n: u8| n.wrapping_mul(0x1d) ^ 0xf0).collect();
        for len in 0..=16 {
            let expected: String = id[..len].iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hexadecimal(&id[..len], &mut [0; 32]), expected.as_bytes());
        }
        assert_eq!(hexadecimal(&[0x9a; 20], &mut [0; 32]), "9a".repeat(16).as_bytes());
    }
}
