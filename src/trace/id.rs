//! W3C trace and span identifiers.

use std::fmt;

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
    fn an_identifier_is_written_in_lower_case_hexadecimal() {
        assert_eq!(SpanId([0xab, 0, 0, 0, 0, 0, 0, 1]).to_string(), "ab00000000000001");
    }
}
