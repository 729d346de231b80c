//! Writes JSON values as protobuf fields, led by the schema.

use std::fmt;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use serde::de::{
    DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor,
};

use super::schema::{Field, Kind, Message};

/// What is written for an ID that is not hex.
const NOT_HEX: [u8; 1] = [0];

/// Both alphabets are read, padded or not, as protobuf's own JSON does.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Writes the fields of one message, without a tag and a length before them.
pub(super) struct Fields<'o> {
    pub(super) message: &'static Message,
    pub(super) out: &'o mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Fields<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} as an object", self.message.name)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(field) = map.next_key_seed(Key(self.message))? {
            match field {
                Some(field) => map.next_value_seed(Value::of(field, self.out))?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// Finds the field that a key names.
struct Key(&'static Message);

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Option<&'static Field>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Option<&'static Field>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a key of {}", self.0.name)
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.fields.iter().find(|field| field.key == key))
    }
}

/// Writes the value of one field; of an array, each element.
struct Value<'o> {
    field: &'static Field,
    /// An array is expected.
    array: bool,
    /// Zero and empty are written too.
    explicit: bool,
    out: &'o mut Vec<u8>,
}

impl<'o> Value<'o> {
    fn of(field: &'static Field, out: &'o mut Vec<u8>) -> Self {
        Self { field, array: field.repeated, explicit: field.explicit, out }
    }

    fn element(field: &'static Field, out: &'o mut Vec<u8>) -> Self {
        Self { field, array: false, explicit: true, out }
    }

    /// The kind of a single value; none if an array is expected.
    fn kind(&self) -> Option<Kind> {
        (!self.array).then_some(self.field.kind)
    }

    fn key(&mut self, wire: WireType) {
        encode_key(self.field.number, wire, self.out);
    }

    fn varint(mut self, value: u64) {
        if value != 0 || self.explicit {
            self.key(WireType::Varint);
            encode_varint(value, self.out);
        }
    }

    fn fixed32(mut self, value: u32) {
        if value != 0 || self.explicit {
            self.key(WireType::ThirtyTwoBit);
            self.out.extend_from_slice(&value.to_le_bytes());
        }
    }

    fn fixed64(mut self, value: u64) {
        if value != 0 || self.explicit {
            self.key(WireType::SixtyFourBit);
            self.out.extend_from_slice(&value.to_le_bytes());
        }
    }

    fn bytes(mut self, value: &[u8]) {
        if !value.is_empty() || self.explicit {
            self.key(WireType::LengthDelimited);
            encode_varint(value.len() as u64, self.out);
            self.out.extend_from_slice(value);
        }
    }

    fn id(self, hex: &str) {
        match unhex(hex, &mut [0; 32]) {
            Some(id) => self.bytes(id),
            None => self.bytes(&NOT_HEX),
        }
    }

    /// Writes an integer where the field can hold it.
    fn integer<E: Error>(self, value: i128) -> Result<(), E> {
        let out_of_range = |this: &Self| E::custom(format_args!("{value} is not {}", this.expected()));
        match self.kind() {
            Some(Kind::Double) => self.fixed64((value as f64).to_bits()),
            Some(Kind::Int64) => match i64::try_from(value) {
                Ok(value) => self.varint(value as u64),
                Err(_) => return Err(out_of_range(&self)),
            },
            Some(Kind::Fixed64) => match u64::try_from(value) {
                Ok(value) => self.fixed64(value),
                Err(_) => return Err(out_of_range(&self)),
            },
            Some(Kind::Uint32 | Kind::Fixed32 | Kind::Enumeration(_)) => match u32::try_from(value) {
                Ok(value) if matches!(self.field.kind, Kind::Fixed32) => self.fixed32(value),
                Ok(value) => self.varint(u64::from(value)),
                Err(_) => return Err(out_of_range(&self)),
            },
            _ => return Err(E::custom(format_args!("found {value}, expected {}", self.expected()))),
        }
        Ok(())
    }

    /// What an error says is expected.
    fn expected(&self) -> String {
        let what = match self.field.kind {
            Kind::Message(message) => message.name,
            Kind::String => "a string",
            Kind::Id => "hex digits",
            Kind::Base64 => "base64",
            Kind::Bool => "true or false",
            Kind::Uint32 | Kind::Fixed32 => "an integer of 32 bits",
            Kind::Int64 => "a signed integer of 64 bits",
            Kind::Fixed64 => "an integer of 64 bits",
            Kind::Double => "a number",
            Kind::Enumeration(_) => "a value of the enumeration",
        };
        let array = if self.array { "an array of " } else { "" };
        format!("{array}{what} for {:?}", self.field.key)
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.kind() {
            // By way of `visit_some`: a null is no string.
            Some(Kind::String) => deserializer.deserialize_option(self),
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.expected())
    }

    /// `null`
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    /// `null` where a string may stand.
    fn visit_none<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    /// A string as the bytes it is, whether they are UTF-8 or not.
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_bytes(self)
    }

    fn visit_bytes<E: Error>(self, value: &[u8]) -> Result<(), E> {
        self.bytes(value);
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        match self.kind() {
            Some(Kind::Bool) => self.varint(u64::from(value)),
            _ => return Err(E::invalid_type(Unexpected::Bool(value), &self)),
        }
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.integer(i128::from(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.integer(i128::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        match self.kind() {
            Some(Kind::Double) => self.fixed64(value.to_bits()),
            // To JSON, 1e3 and 1.0 are integers.
            _ if value.fract() == 0.0 && value.abs() <= 2f64.powi(64) => return self.integer(value as i128),
            _ => return Err(E::invalid_type(Unexpected::Float(value), &self)),
        }
        Ok(())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        let invalid = |this: &Self| E::invalid_value(Unexpected::Str(value), this);
        match self.kind() {
            Some(Kind::Id) => self.id(value),
            Some(Kind::Base64) => match BASE64.decode(value.replace('-', "+").replace('_', "/")) {
                Ok(bytes) => self.bytes(&bytes),
                Err(_) => return Err(invalid(&self)),
            },
            // Rust reads NaN, Infinity and -Infinity as JSON's protobuf mapping spells them.
            Some(Kind::Double) => match value.parse::<f64>() {
                Ok(number) => self.fixed64(number.to_bits()),
                Err(_) => return Err(invalid(&self)),
            },
            Some(Kind::Enumeration(names)) => match names.iter().position(|name| *name == value) {
                Some(number) => self.varint(number as u64),
                None => return Err(invalid(&self)),
            },
            Some(Kind::Uint32 | Kind::Int64 | Kind::Fixed32 | Kind::Fixed64) => match value.parse() {
                Ok(number) => return self.integer(number),
                Err(_) => return Err(invalid(&self)),
            },
            Some(Kind::String | Kind::Bool | Kind::Message(_)) | None => return Err(invalid(&self)),
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        if !self.array {
            return Err(A::Error::invalid_type(Unexpected::Seq, &self));
        }
        while elements.next_element_seed(Value::element(self.field, self.out))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, map: A) -> Result<(), A::Error> {
        let Some(Kind::Message(message)) = self.kind() else {
            return Err(A::Error::invalid_type(Unexpected::Map, &self));
        };
        self.key(WireType::LengthDelimited);
        let start = self.out.len();
        self.out.push(0);
        Fields { message, out: self.out }.visit_map(map)?;
        set_length(self.out, start);
        Ok(())
    }
}

/// Writes the length of what follows `start` there, in place of the one byte kept free for it.
fn set_length(out: &mut Vec<u8>, start: usize) {
    let length = (out.len() - start - 1) as u64;
    let wide = encoded_len_varint(length);
    if wide > 1 {
        let end = out.len();
        out.resize(end + wide - 1, 0);
        out.copy_within(start + 1..end, start + wide);
    }
    encode_varint(length, &mut &mut out[start..start + wide]);
}

/// The bytes that hex digits stand for, at most 32 of them.
fn unhex<'b>(hex: &str, buffer: &'b mut [u8; 32]) -> Option<&'b [u8]> {
    let (pairs, odd) = hex.as_bytes().as_chunks::<2>();
    if !odd.is_empty() || pairs.len() > buffer.len() {
        return None;
    }
    for (byte, [high, low]) in buffer.iter_mut().zip(pairs) {
        let digit = |digit: &u8| char::from(*digit).to_digit(16);
        *byte = (digit(high)? << 4 | digit(low)?) as u8;
    }
    Some(&buffer[..pairs.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_of_either_case_is_read() {
        assert_eq!(unhex("00fFA1", &mut [0; 32]), Some([0, 255, 161].as_slice()));
        assert_eq!(unhex("", &mut [0; 32]), Some([].as_slice()));
        for bad in ["0", "0g", "+1", "é", &"0".repeat(66)] {
            assert_eq!(unhex(bad, &mut [0; 32]), None, "{bad}");
        }
    }

    #[test]
    fn lengths_of_every_width_are_set() {
        for length in [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152] {
            let mut out = vec![7, 0];
            out.resize(2 + length, 9);
            set_length(&mut out, 1);
            let mut rest = &out[1..];
            assert_eq!(prost::encoding::decode_varint(&mut rest).unwrap(), length as u64);
            assert_eq!(rest, vec![9; length]);
        }
    }
}
