//! The fields of OTLP traces, as keys on the wire, and the highest field number that each message knows.
//!
//! As opentelemetry-proto 0.33 has them: what is known there is checked here, the rest is passed on unread.

use super::wire::{BYTES, FIXED32, FIXED64, VARINT, key};

macro_rules! message {
    ($(#[$doc:meta])* $name:ident, $known:literal: $($field:ident = $number:literal $wire_type:ident,)*) => {
        $(#[$doc])*
        pub(super) mod $name {
            use super::*;

            pub(in crate::otlp) const KNOWN: u32 = $known;
            $(pub(in crate::otlp) const $field: u32 = key($number, $wire_type);)*
        }
    };
}

message! { request, 1:
    RESOURCE_SPANS = 1 BYTES,
}
message! { resource_spans, 3:
    RESOURCE = 1 BYTES,
    SCOPE_SPANS = 2 BYTES,
    SCHEMA_URL = 3 BYTES,
}
message! { resource, 3:
    ATTRIBUTE = 1 BYTES,
    DROPPED_ATTRIBUTES = 2 VARINT,
    ENTITY_REF = 3 BYTES,
}
message! { entity_ref, 4:
    SCHEMA_URL = 1 BYTES,
    TYPE = 2 BYTES,
    ID_KEY = 3 BYTES,
    DESCRIPTION_KEY = 4 BYTES,
}
message! { scope_spans, 3:
    SCOPE = 1 BYTES,
    SPAN = 2 BYTES,
    SCHEMA_URL = 3 BYTES,
}
message! { scope, 4:
    NAME = 1 BYTES,
    VERSION = 2 BYTES,
    ATTRIBUTE = 3 BYTES,
    DROPPED_ATTRIBUTES = 4 VARINT,
}
message! { span, 16:
    TRACE_ID = 1 BYTES,
    SPAN_ID = 2 BYTES,
    TRACE_STATE = 3 BYTES,
    PARENT = 4 BYTES,
    NAME = 5 BYTES,
    KIND = 6 VARINT,
    START = 7 FIXED64,
    END = 8 FIXED64,
    ATTRIBUTE = 9 BYTES,
    DROPPED_ATTRIBUTES = 10 VARINT,
    EVENT = 11 BYTES,
    DROPPED_EVENTS = 12 VARINT,
    LINK = 13 BYTES,
    DROPPED_LINKS = 14 VARINT,
    STATUS = 15 BYTES,
    FLAGS = 16 FIXED32,
}
message! { status, 3:
    MESSAGE = 2 BYTES,
    CODE = 3 VARINT,
}
message! { event, 4:
    TIME = 1 FIXED64,
    NAME = 2 BYTES,
    ATTRIBUTE = 3 BYTES,
    DROPPED_ATTRIBUTES = 4 VARINT,
}
message! { link, 6:
    TRACE_ID = 1 BYTES,
    SPAN_ID = 2 BYTES,
    TRACE_STATE = 3 BYTES,
    ATTRIBUTE = 4 BYTES,
    DROPPED_ATTRIBUTES = 5 VARINT,
    FLAGS = 6 FIXED32,
}
message! { key_value, 3:
    KEY = 1 BYTES,
    VALUE = 2 BYTES,
    KEY_INDEX = 3 VARINT,
}
message! { any_value, 8:
    STRING = 1 BYTES,
    BOOL = 2 VARINT,
    INT = 3 VARINT,
    DOUBLE = 4 FIXED64,
    ARRAY = 5 BYTES,
    KEY_VALUES = 6 BYTES,
    BINARY = 7 BYTES,
    STRING_INDEX = 8 VARINT,
}
message! {
    /// `ArrayValue` of values and `KeyValueList` of pairs.
    list, 1:
    ITEM = 1 BYTES,
}
