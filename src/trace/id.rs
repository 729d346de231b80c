//! W3C trace and span identifiers.

use std::fmt;
use std::str::FromStr;

/// 16 bytes, never all zero once accepted.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId(pub [u8; 16]);

/// 8 bytes, never all zero once accepted.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId(pub [u8; 8]);

macro_rules! identifier {
    ($name:ident, $len:literal) => {
        impl $name {
            /// The identifier in `bytes`, if it has the right length and is not all zero.
            #[inline]
            pub fn valid(bytes: &[u8]) -> Option<Self> {
                let id: [u8; $len] = bytes.try_into().ok()?;
                (id != [0; $len]).then_some(Self(id))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

identifier!(TraceId, 16);
identifier!(SpanId, 8);

/// A text is no trace ID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("found `{found}`, expected up to 32 hexadecimal digits, not all of them 0")]
pub struct TraceIdError {
    found: String,
}

impl FromStr for TraceId {
    type Err = TraceIdError;

    /// In either case. Tempo and Jaeger leave zeros at the beginning away, and 64-bit identifiers have 16 digits.
    fn from_str(text: &str) -> Result<Self, TraceIdError> {
        let digits = text.len() <= 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let bits = u128::from_str_radix(text, 16).ok().filter(|bits| digits && *bits != 0);
        bits.map(|bits| Self(bits.to_be_bytes())).ok_or_else(|| TraceIdError { found: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_has_its_length_and_is_not_zero() {
        assert_eq!(SpanId::valid(&[1; 8]), Some(SpanId([1; 8])));
        assert_eq!(SpanId::valid(&[0; 8]), None);
        assert_eq!(TraceId::valid(&[1; 15]), None);
    }

    #[test]
    fn a_trace_id_is_read_in_either_case() {
        let id = TraceId(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736u128.to_be_bytes());
        assert_eq!("4bf92f3577b34da6a3ce929d0e0e4736".parse(), Ok(id));
        assert_eq!(id.to_string().to_uppercase().parse(), Ok(id));
        assert_eq!("4bf92f".parse(), Ok(TraceId(0x004b_f92f_u128.to_be_bytes())));
        let too_long = "04bf92f3577b34da6a3ce929d0e0e4736";
        for text in ["", "0", "+bf92f3577b34da6a3ce929d0e0e4736", "4bf92f-35", too_long] {
            assert!(text.parse::<TraceId>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_identifier_is_written_in_lower_case_hexadecimal() {
        assert_eq!(SpanId([0xab, 0, 0, 0, 0, 0, 0, 1]).to_string(), "ab00000000000001");
    }
}
