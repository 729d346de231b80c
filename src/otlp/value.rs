//! Attributes and their values, read in place.

use std::borrow::Cow;
use std::fmt::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::check::plain_pair;
use super::schema::{any_value, key_value, list};
use super::wire::{DEPTH_MAX, Field, Fields};

/// A message that may be spread over several fields of the one that holds it: as in protobuf, they count as one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Message<'a> {
    Whole(&'a [u8]),
    Joined { outer: &'a [u8], key: u32 },
}

impl<'a> Message<'a> {
    pub(super) const EMPTY: Self = Self::Whole(&[]);

    /// This message with one more part, found in `outer` under `key`.
    pub(super) fn and(self, part: &'a [u8], outer: &'a [u8], key: u32) -> Self {
        if matches!(self, Self::Whole([])) { Self::Whole(part) } else { Self::Joined { outer, key } }
    }

    /// The message that `outer` holds under `key`.
    pub(super) fn within(outer: &'a [u8], key: u32) -> Self {
        let parts = Fields::new(outer).filter(|field| field.key == key);
        parts.fold(Self::EMPTY, |message, part| message.and(part.bytes(), outer, key))
    }

    pub(super) fn fields(self) -> MessageFields<'a> {
        match self {
            Self::Whole(message) => {
                MessageFields { outer: Fields::new(&[]), key: 0, inner: Fields::new(message) }
            }
            Self::Joined { outer, key } => {
                MessageFields { outer: Fields::new(outer), key, inner: Fields::new(&[]) }
            }
        }
    }

    /// The messages or strings of a repeated field.
    pub(super) fn repeated(self, key: u32) -> impl Iterator<Item = &'a [u8]> + Clone {
        self.fields().filter(move |field| field.key == key).map(|field| field.bytes())
    }

    /// A string or bytes field; the last one wins.
    pub(super) fn bytes(self, key: u32) -> &'a [u8] {
        self.repeated(key).last().unwrap_or_default()
    }

    /// A number field; the last one wins.
    pub(super) fn number(self, key: u32) -> u64 {
        self.fields().filter(|field| field.key == key).last().map_or(0, |field| field.number())
    }

    pub(super) fn text(self, key: u32) -> Cow<'a, str> {
        String::from_utf8_lossy(self.bytes(key))
    }

    pub(super) fn attributes(self, key: u32) -> impl Iterator<Item = KeyValueView<'a>> + Clone {
        self.repeated(key).map(KeyValueView::new)
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct MessageFields<'a> {
    outer: Fields<'a>,
    key: u32,
    inner: Fields<'a>,
}

impl<'a> Iterator for MessageFields<'a> {
    type Item = Field<'a>;

    #[inline]
    fn next(&mut self) -> Option<Field<'a>> {
        loop {
            if let Some(field) = self.inner.next() {
                return Some(field);
            }
            let part = self.outer.find(|field| field.key == self.key)?;
            self.inner = Fields::new(part.bytes());
        }
    }
}

/// An attribute.
#[derive(Clone, Copy, Debug)]
pub struct KeyValueView<'a> {
    key: &'a [u8],
    value: Message<'a>,
}

impl<'a> KeyValueView<'a> {
    #[inline]
    fn new(message: &'a [u8]) -> Self {
        match plain_pair(message) {
            Some((key, value)) => Self { key, value: Message::Whole(value) },
            None => Self::of_any_shape(message),
        }
    }

    fn of_any_shape(message: &'a [u8]) -> Self {
        let mut view = Self { key: &[], value: Message::EMPTY };
        for field in Fields::new(message) {
            match field.key {
                key_value::KEY => view.key = field.bytes(),
                key_value::VALUE => view.value = view.value.and(field.bytes(), message, key_value::VALUE),
                _ => {}
            }
        }
        view
    }

    pub fn key(&self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.key)
    }

    pub fn key_bytes(&self) -> &'a [u8] {
        self.key
    }

    pub fn value(&self) -> ValueView<'a> {
        ValueView::new(self.value)
    }
}

/// What an `AnyValue` holds.
#[derive(Clone, Copy, Debug)]
pub enum ValueView<'a> {
    Empty,
    /// UTF-8, unless the sender wrote something else.
    String(&'a [u8]),
    Bool(bool),
    Int(i64),
    Double(f64),
    Array(ArrayView<'a>),
    KvList(KvListView<'a>),
    Bytes(&'a [u8]),
}

impl<'a> ValueView<'a> {
    /// From an `AnyValue` message.
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self::new(Message::Whole(message))
    }

    /// The last field wins, except that lists that follow one another are one list.
    fn new(message: Message<'a>) -> Self {
        let mut value = Self::Empty;
        for (place, field) in message.fields().enumerate() {
            value = match field.key {
                any_value::STRING => Self::String(field.bytes()),
                any_value::BOOL => Self::Bool(field.number() != 0),
                any_value::INT => Self::Int(field.number() as i64),
                any_value::DOUBLE => Self::Double(f64::from_bits(field.number())),
                any_value::BINARY => Self::Bytes(field.bytes()),
                any_value::STRING_INDEX => Self::Empty,
                any_value::ARRAY if !matches!(value, Self::Array(_)) => {
                    Self::Array(ArrayView(List { message, skip: place, key: field.key }))
                }
                any_value::KEY_VALUES if !matches!(value, Self::KvList(_)) => {
                    Self::KvList(KvListView(List { message, skip: place, key: field.key }))
                }
                _ => value,
            };
        }
        value
    }

    /// The string, if it is one; what is not UTF-8 in it is replaced.
    pub fn as_str(&self) -> Option<Cow<'a, str>> {
        if let Self::String(text) = *self { Some(String::from_utf8_lossy(text)) } else { None }
    }

    /// As text: a string as it is, bytes as base64, lists as JSON, nothing as an empty string.
    pub fn to_text(&self) -> Cow<'a, str> {
        match *self {
            Self::Empty => Cow::Borrowed(""),
            Self::String(text) => String::from_utf8_lossy(text),
            Self::Bytes(bytes) => Cow::Owned(BASE64_STANDARD.encode(bytes)),
            Self::Double(value) if !value.is_finite() => Cow::Borrowed(not_finite(value)),
            _ => {
                let mut json = String::new();
                self.to_json(&mut json);
                Cow::Owned(json)
            }
        }
    }

    /// Appends the value as JSON: bytes as base64, a double that is no number as a string, as in protobuf's JSON.
    pub fn to_json(&self, out: &mut String) {
        self.write_json(out, DEPTH_MAX);
    }

    /// `room` bounds the recursion; accepted requests never meet the bound.
    fn write_json(&self, out: &mut String, room: u32) {
        let written = match *self {
            Self::Bool(value) => write!(out, "{value}"),
            Self::Int(value) => write!(out, "{value}"),
            Self::Double(value) if value.is_finite() => write!(out, "{value:?}"),
            Self::Double(value) => write!(out, "\"{}\"", not_finite(value)),
            Self::Bytes(bytes) => write!(out, "\"{}\"", BASE64_STANDARD.encode(bytes)),
            Self::String(text) => {
                write_json_string(&String::from_utf8_lossy(text), out);
                Ok(())
            }
            Self::Array(array) if room > 0 => {
                let items = array.iter();
                write_json_items(out, ['[', ']'], items, |item, out| item.write_json(out, room - 1));
                Ok(())
            }
            Self::KvList(pairs) if room > 0 => {
                write_json_items(out, ['{', '}'], pairs.iter(), |pair, out| {
                    write_json_string(&pair.key(), out);
                    out.push(':');
                    pair.value().write_json(out, room - 1);
                });
                Ok(())
            }
            Self::Empty | Self::Array(_) | Self::KvList(_) => out.write_str("null"),
        };
        written.expect("writing to a string cannot fail");
    }
}

fn write_json_items<T>(
    out: &mut String,
    [open, close]: [char; 2],
    items: impl Iterator<Item = T>,
    write: impl Fn(T, &mut String),
) {
    out.push(open);
    for (place, item) in items.enumerate() {
        if place > 0 {
            out.push(',');
        }
        write(item, out);
    }
    out.push(close);
}

fn write_json_string(text: &str, out: &mut String) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\x1f' => {
                write!(out, "\\u{:04x}", u32::from(letter)).expect("writing to a string cannot fail");
            }
            _ => out.push(letter),
        }
    }
    out.push('"');
}

/// The names of protobuf's JSON.
fn not_finite(value: f64) -> &'static str {
    if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    }
}

/// The fields under `key` that stand at or after place `skip`, as one list.
#[derive(Clone, Copy, Debug)]
struct List<'a> {
    message: Message<'a>,
    skip: usize,
    key: u32,
}

impl<'a> List<'a> {
    fn items(self) -> impl Iterator<Item = &'a [u8]> + Clone {
        let parts = self.message.fields().skip(self.skip).filter(move |field| field.key == self.key);
        parts.flat_map(|part| Message::Whole(part.bytes()).repeated(list::ITEM))
    }
}

/// The values of an array.
#[derive(Clone, Copy, Debug)]
pub struct ArrayView<'a>(List<'a>);

impl<'a> ArrayView<'a> {
    pub fn iter(self) -> impl Iterator<Item = ValueView<'a>> + Clone {
        self.0.items().map(|item| ValueView::new(Message::Whole(item)))
    }
}

/// The pairs of a list of keys and values.
#[derive(Clone, Copy, Debug)]
pub struct KvListView<'a>(List<'a>);

impl<'a> KvListView<'a> {
    pub fn iter(self) -> impl Iterator<Item = KeyValueView<'a>> + Clone {
        self.0.items().map(KeyValueView::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(message: &[u8]) -> ValueView<'_> {
        ValueView::new(Message::Whole(message))
    }

    #[test]
    fn values_are_text_and_json() {
        let list = [
            0x2a, 27, // array of
            0x0a, 6, 0x0a, 4, b'a', b'"', b'\n', 0xff, // a string with all that is special
            0x0a, 2, 0x18, 5, // 5
            0x0a, 4, 0x3a, 2, 1, 2, // bytes
            0x0a, 5, 0x32, 3, 0x0a, 1, 0x00, // broken pairs
            0x0a, 0, // nothing
        ];
        assert_eq!(value(&list).to_text(), "[\"a\\\"\\n\u{fffd}\",5,\"AQI=\",{\"\":null},null]");
        assert_eq!(value(&[0x0a, 2, b'h', b'i']).to_text(), "hi");
        assert_eq!(value(&[0x10, 1]).to_text(), "true");
        assert_eq!(value(&[0x21, 0, 0, 0, 0, 0, 0, 0xf8, 0x7f]).to_text(), "NaN");
        assert_eq!(value(&[0x21, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f]).to_text(), "1.5");
        assert_eq!(value(&[0x3a, 1, 0xff]).to_text(), "/w==");
        assert_eq!(value(&[]).to_text(), "");
    }

    #[test]
    fn the_last_value_wins_and_lists_in_a_row_are_one() {
        assert_eq!(value(&[0x18, 5, 0x10, 1]).to_text(), "true");
        let one_and_two = [0x2a, 4, 0x0a, 2, 0x18, 1, 0x2a, 4, 0x0a, 2, 0x18, 2];
        assert_eq!(value(&one_and_two).to_text(), "[1,2]");
        let interrupted = [0x2a, 4, 0x0a, 2, 0x18, 1, 0x18, 9, 0x2a, 4, 0x0a, 2, 0x18, 2];
        assert_eq!(value(&interrupted).to_text(), "[2]");
    }

    #[test]
    fn bytes_that_nest_without_end_are_read_without_end() {
        let mut nested = Vec::new();
        for _ in 0..10_000 {
            let mut outer = vec![0x2a];
            prost::encoding::encode_varint(nested.len() as u64, &mut outer);
            outer.extend_from_slice(&nested);
            nested = vec![0x0a];
            prost::encoding::encode_varint(outer.len() as u64, &mut nested);
            nested.extend_from_slice(&outer);
        }
        let mut json = String::new();
        ValueView::new(Message::Whole(&nested[4..])).to_json(&mut json);
        assert!(json.len() < 1000);
    }
}
