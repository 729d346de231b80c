//! An attribute's value as text, and the kind that says how to read it back.
//!
//! | kind | text |
//! |---|---|
//! | none | a string, as it is |
//! | `i` | an integer in decimal |
//! | `d` | a double: the shortest decimal that reads back as the same; `NaN`, `inf`, `-inf` |
//! | `b` | `true`, `false` |
//! | `bytes` | base64 with padding |
//! | `json` | an array or a list of pairs as plain JSON. A double has a point or an exponent, an integer has neither |
//! | `otlp` | the same as OTLP/JSON, for what plain JSON cannot say: bytes, NaN and infinities, a key twice |
//!
//! An empty value is a null without a kind.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::span::Attribute;
use super::wire::{Fields, only_number, short};

/// What an AnyValue message says.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Empty,
    String(&'a [u8]),
    Bool(bool),
    Int(i64),
    Double(f64),
    /// An ArrayValue message.
    Array(&'a [u8]),
    /// A KeyValueList message.
    Pairs(&'a [u8]),
    Bytes(&'a [u8]),
}

/// What a value is that is not a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Int,
    Double,
    Bool,
    Bytes,
    Json,
    Otlp,
}

impl Kind {
    pub(super) const COUNT: usize = 6;

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Int => "i",
            Self::Double => "d",
            Self::Bool => "b",
            Self::Bytes => "bytes",
            Self::Json => "json",
            Self::Otlp => "otlp",
        }
    }
}

impl<'a> Value<'a> {
    /// The last of several, as protobuf has it.
    #[inline]
    pub(super) fn read(message: Option<&'a [u8]>) -> Self {
        let message = message.unwrap_or_default();
        match short(message, 1) {
            Some((text, [])) => Self::String(text),
            _ => Self::read_any(message),
        }
    }

    #[inline(never)]
    fn read_any(message: &'a [u8]) -> Self {
        if let Some(number) = only_number(message, 3) {
            return Self::Int(number as i64);
        }
        let mut value = Self::Empty;
        for (number, field) in Fields(message) {
            value = match number {
                1 => Self::String(field.bytes()),
                2 => Self::Bool(field.number() != 0),
                3 => Self::Int(field.number() as i64),
                4 => Self::Double(f64::from_bits(field.number())),
                5 => Self::Array(field.bytes()),
                6 => Self::Pairs(field.bytes()),
                7 => Self::Bytes(field.bytes()),
                _ => value,
            };
        }
        value
    }

    /// The text, written to `scratch` unless it stands in the message, and its kind. `None`: empty.
    #[inline(always)]
    pub(super) fn text<'b>(self, scratch: &'b mut Vec<u8>) -> Option<(&'b [u8], Option<Kind>)>
    where
        'a: 'b,
    {
        match self {
            Self::Empty => None,
            Self::String(text) => Some((text, None)),
            other => {
                scratch.clear();
                let kind = other.write(scratch);
                Some((scratch, kind))
            }
        }
    }

    /// Appends the text; returns its kind.
    #[inline(never)]
    pub(super) fn write(self, out: &mut Vec<u8>) -> Option<Kind> {
        let kind = match self {
            Self::Empty => return None,
            Self::String(text) => {
                out.extend_from_slice(text);
                return None;
            }
            Self::Bool(value) => {
                out.extend_from_slice(if value { b"true" } else { b"false" });
                Kind::Bool
            }
            Self::Int(value) => {
                integer(value, out);
                Kind::Int
            }
            Self::Double(value) => {
                double(value, out);
                Kind::Double
            }
            Self::Bytes(value) => {
                out.extend_from_slice(STANDARD.encode(value).as_bytes());
                Kind::Bytes
            }
            Self::Array(_) | Self::Pairs(_) if self.plain() => {
                json(self, out);
                Kind::Json
            }
            Self::Array(_) | Self::Pairs(_) => {
                otlp_json(self, out);
                Kind::Otlp
            }
        };
        Some(kind)
    }

    /// Plain JSON says all of it.
    fn plain(&self) -> bool {
        match *self {
            Self::Double(value) => value.is_finite(),
            Self::Bytes(_) => false,
            Self::Array(message) => elements(message).all(|value| value.plain()),
            Self::Pairs(message) => {
                let mut keys: Vec<&[u8]> = pairs(message).map(|pair| pair.key).collect();
                keys.sort_unstable();
                keys.windows(2).all(|two| two[0] != two[1])
                    && pairs(message).all(|pair| Value::read(pair.value).plain())
            }
            _ => true,
        }
    }
}

fn elements(array: &[u8]) -> impl Iterator<Item = Value<'_>> {
    Fields(array).filter(|(number, _)| *number == 1).map(|(_, field)| Value::read(Some(field.bytes())))
}

fn pairs(list: &[u8]) -> impl Iterator<Item = Attribute<'_>> {
    super::span::attributes(list, 1)
}

fn integer(value: i64, out: &mut Vec<u8>) {
    if value < 0 {
        out.push(b'-');
    }
    let mut rest = value.unsigned_abs();
    if let Ok(short) = u32::try_from(rest)
        && short < 100_000_000
    {
        return up_to_eight_digits(short, out);
    }
    let start = out.len();
    out.resize(start + 1 + rest.checked_ilog10().unwrap_or(0) as usize, 0);
    for digit in out[start..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

/// Gathered in a word, the last digit uppermost.
#[inline]
fn up_to_eight_digits(mut rest: u32, out: &mut Vec<u8>) {
    let (mut text, mut end) = (0, out.len());
    loop {
        text = text << 8 | u64::from(u32::from(b'0') + rest % 10);
        end += 1;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&text.to_le_bytes());
    out.truncate(end);
}

/// As `{:?}` has it. Where that writes no exponent serde_json writes the same, several times as fast.
#[inline]
fn double(value: f64, out: &mut Vec<u8>) {
    if (1e-4..1e16).contains(&value.abs()) {
        serde_json::to_writer(out, &value).expect("a finite number is JSON and memory takes it");
    } else {
        put(out, format_args!("{value:?}"));
    }
}

fn json(value: Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Empty | Value::Bytes(_) => out.extend_from_slice(b"null"),
        Value::String(text) => quoted(text, out),
        Value::Bool(value) => put(out, format_args!("{value}")),
        Value::Int(value) => integer(value, out),
        Value::Double(value) => double(value, out),
        Value::Array(message) => list(out, b"[]", elements(message), json),
        Value::Pairs(message) => list(out, b"{}", pairs(message), |pair, out| {
            quoted(pair.key, out);
            out.push(b':');
            json(Value::read(pair.value), out);
        }),
    }
}

/// As <https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding> writes an AnyValue.
fn otlp_json(value: Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Empty => out.extend_from_slice(b"{}"),
        Value::String(text) => member(out, "stringValue", |out| quoted(text, out)),
        Value::Bool(value) => member(out, "boolValue", |out| put(out, format_args!("{value}"))),
        Value::Int(value) => member(out, "intValue", |out| put(out, format_args!("\"{value}\""))),
        Value::Double(value) => member(out, "doubleValue", |out| otlp_double(value, out)),
        Value::Bytes(value) => {
            member(out, "bytesValue", |out| put(out, format_args!("\"{}\"", STANDARD.encode(value))));
        }
        Value::Array(message) => member(out, "arrayValue", |out| {
            member(out, "values", |out| list(out, b"[]", elements(message), otlp_json));
        }),
        Value::Pairs(message) => member(out, "kvlistValue", |out| {
            member(out, "values", |out| list(out, b"[]", pairs(message), otlp_pair));
        }),
    }
}

fn otlp_double(value: f64, out: &mut Vec<u8>) {
    if value.is_nan() {
        out.extend_from_slice(b"\"NaN\"");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"\"Infinity\"" } else { b"\"-Infinity\"" });
    } else {
        double(value, out);
    }
}

fn otlp_pair(pair: Attribute<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"key\":");
    quoted(pair.key, out);
    if pair.value.is_some() {
        out.extend_from_slice(b",\"value\":");
        otlp_json(Value::read(pair.value), out);
    }
    out.push(b'}');
}

fn member(out: &mut Vec<u8>, name: &str, value: impl FnOnce(&mut Vec<u8>)) {
    put(out, format_args!("{{\"{name}\":"));
    value(out);
    out.push(b'}');
}

fn list<T>(
    out: &mut Vec<u8>,
    brackets: &[u8; 2],
    items: impl Iterator<Item = T>,
    write: impl Fn(T, &mut Vec<u8>),
) {
    out.push(brackets[0]);
    for (n, item) in items.enumerate() {
        if n > 0 {
            out.push(b',');
        }
        write(item, out);
    }
    out.push(brackets[1]);
}

fn quoted(text: &[u8], out: &mut Vec<u8>) {
    let text = String::from_utf8_lossy(text);
    serde_json::to_writer(&mut *out, &text).expect("a string is JSON and memory takes it");
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("memory takes what is written");
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList, any_value};
    use proptest::prelude::{prop_assert_eq, proptest};
    use prost::Message;

    fn any(value: any_value::Value) -> AnyValue {
        AnyValue { value: Some(value) }
    }

    fn written(value: any_value::Value) -> (String, Option<&'static str>) {
        let message = any(value).encode_to_vec();
        let mut scratch = Vec::new();
        let (text, kind) = Value::read(Some(&message)).text(&mut scratch).unwrap();
        (String::from_utf8(text.to_vec()).unwrap(), kind.map(Kind::name))
    }

    #[test]
    fn scalars_are_written_with_their_kind() {
        use any_value::Value::{BoolValue, BytesValue, DoubleValue, IntValue, StringValue};
        assert_eq!(written(StringValue("5".into())), ("5".into(), None));
        assert_eq!(written(IntValue(i64::MIN)), ("-9223372036854775808".into(), Some("i")));
        assert_eq!(written(IntValue(0)), ("0".into(), Some("i")));
        assert_eq!(written(IntValue(-99_999_999)), ("-99999999".into(), Some("i")));
        assert_eq!(written(IntValue(100_000_000)), ("100000000".into(), Some("i")));
        assert_eq!(written(DoubleValue(5.0)), ("5.0".into(), Some("d")));
        assert_eq!(written(DoubleValue(f64::NEG_INFINITY)), ("-inf".into(), Some("d")));
        assert_eq!(written(BoolValue(true)), ("true".into(), Some("b")));
        assert_eq!(written(BytesValue(vec![0xff])), ("/w==".into(), Some("bytes")));
    }

    proptest! {
        #[test]
        fn doubles_are_written_as_rust_shows_them(bits: u64, digits in -99_999_999i64..99_999_999, scale in 0..12) {
            for value in [f64::from_bits(bits), digits as f64, digits as f64 / 10f64.powi(scale)] {
                let mut text = Vec::new();
                double(value, &mut text);
                prop_assert_eq!(String::from_utf8(text).unwrap(), format!("{value:?}"));
            }
        }
    }

    #[test]
    fn a_list_is_plain_json_if_that_says_all_of_it() {
        use any_value::Value::{ArrayValue as A, BytesValue, DoubleValue, IntValue, StringValue};
        let array =
            |values: Vec<any_value::Value>| A(ArrayValue { values: values.into_iter().map(any).collect() });
        let plain = array(vec![StringValue("a\"".into()), IntValue(1), DoubleValue(1.0)]);
        assert_eq!(written(plain), (r#"["a\"",1,1.0]"#.into(), Some("json")));
        let bytes = array(vec![BytesValue(vec![1])]);
        assert_eq!(
            written(bytes),
            (r#"{"arrayValue":{"values":[{"bytesValue":"AQ=="}]}}"#.into(), Some("otlp"))
        );
    }

    #[test]
    fn a_key_that_stands_twice_is_not_plain_json() {
        use any_value::Value::{IntValue, KvlistValue};
        let pair = |n| KeyValue { key: "k".into(), value: Some(any(IntValue(n))), ..Default::default() };
        let once = KvlistValue(KeyValueList { values: vec![pair(1)] });
        assert_eq!(written(once), (r#"{"k":1}"#.into(), Some("json")));
        let twice = KvlistValue(KeyValueList { values: vec![pair(1), pair(2)] });
        assert_eq!(written(twice).1, Some("otlp"));
    }
}
