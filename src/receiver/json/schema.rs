//! The messages of OTLP traces: JSON keys, field numbers, kinds.
//!
//! <https://github.com/open-telemetry/opentelemetry-proto/tree/main/opentelemetry/proto>

/// A message and what it can hold.
#[derive(Debug)]
pub(super) struct Message {
    /// What an error calls it.
    pub(super) name: &'static str,
    pub(super) fields: &'static [Field],
}

/// A field of a message.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) key: &'static str,
    pub(super) number: u32,
    pub(super) kind: Kind,
    pub(super) repeated: bool,
    /// Written even if it is zero or empty: a member of a `oneof`.
    pub(super) explicit: bool,
}

/// How a value is written, in JSON and in protobuf.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Message(&'static Message),
    String,
    /// Bytes in hex.
    Id,
    /// Bytes in base64.
    Base64,
    Bool,
    Uint32,
    Int64,
    Fixed32,
    Fixed64,
    Double,
    /// The names of the values 0, 1, ...
    Enumeration(&'static [&'static str]),
}

const fn one(key: &'static str, number: u32, kind: Kind) -> Field {
    Field { key, number, kind, repeated: false, explicit: false }
}

const fn many(key: &'static str, number: u32, kind: Kind) -> Field {
    Field { key, number, kind, repeated: true, explicit: false }
}

const fn member(key: &'static str, number: u32, kind: Kind) -> Field {
    Field { key, number, kind, repeated: false, explicit: true }
}

use Kind::{Base64, Bool, Double, Enumeration, Fixed32, Fixed64, Id, Int64, String as Text, Uint32};

pub(super) static REQUEST: Message = Message {
    name: "ExportTraceServiceRequest",
    fields: &[many("resourceSpans", 1, Kind::Message(&RESOURCE_SPANS))],
};

static RESOURCE_SPANS: Message = Message {
    name: "ResourceSpans",
    fields: &[
        one("resource", 1, Kind::Message(&RESOURCE)),
        many("scopeSpans", 2, Kind::Message(&SCOPE_SPANS)),
        one("schemaUrl", 3, Text),
    ],
};

static RESOURCE: Message = Message {
    name: "Resource",
    fields: &[
        many("attributes", 1, Kind::Message(&KEY_VALUE)),
        one("droppedAttributesCount", 2, Uint32),
        many("entityRefs", 3, Kind::Message(&ENTITY_REF)),
    ],
};

static ENTITY_REF: Message = Message {
    name: "EntityRef",
    fields: &[
        one("schemaUrl", 1, Text),
        one("type", 2, Text),
        many("idKeys", 3, Text),
        many("descriptionKeys", 4, Text),
    ],
};

static SCOPE_SPANS: Message = Message {
    name: "ScopeSpans",
    fields: &[
        one("scope", 1, Kind::Message(&SCOPE)),
        many("spans", 2, Kind::Message(&SPAN)),
        one("schemaUrl", 3, Text),
    ],
};

static SCOPE: Message = Message {
    name: "InstrumentationScope",
    fields: &[
        one("name", 1, Text),
        one("version", 2, Text),
        many("attributes", 3, Kind::Message(&KEY_VALUE)),
        one("droppedAttributesCount", 4, Uint32),
    ],
};

static SPAN: Message = Message {
    name: "Span",
    fields: &[
        one("traceId", 1, Id),
        one("spanId", 2, Id),
        one("traceState", 3, Text),
        one("parentSpanId", 4, Id),
        one("flags", 16, Fixed32),
        one("name", 5, Text),
        one("kind", 6, Enumeration(&SPAN_KINDS)),
        one("startTimeUnixNano", 7, Fixed64),
        one("endTimeUnixNano", 8, Fixed64),
        many("attributes", 9, Kind::Message(&KEY_VALUE)),
        one("droppedAttributesCount", 10, Uint32),
        many("events", 11, Kind::Message(&EVENT)),
        one("droppedEventsCount", 12, Uint32),
        many("links", 13, Kind::Message(&LINK)),
        one("droppedLinksCount", 14, Uint32),
        one("status", 15, Kind::Message(&STATUS)),
    ],
};

const SPAN_KINDS: [&str; 6] = [
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
];

static EVENT: Message = Message {
    name: "Event",
    fields: &[
        one("timeUnixNano", 1, Fixed64),
        one("name", 2, Text),
        many("attributes", 3, Kind::Message(&KEY_VALUE)),
        one("droppedAttributesCount", 4, Uint32),
    ],
};

static LINK: Message = Message {
    name: "Link",
    fields: &[
        one("traceId", 1, Id),
        one("spanId", 2, Id),
        one("traceState", 3, Text),
        many("attributes", 4, Kind::Message(&KEY_VALUE)),
        one("droppedAttributesCount", 5, Uint32),
        one("flags", 6, Fixed32),
    ],
};

static STATUS: Message = Message {
    name: "Status",
    fields: &[one("message", 2, Text), one("code", 3, Enumeration(&STATUS_CODES))],
};

const STATUS_CODES: [&str; 3] = ["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"];

static KEY_VALUE: Message =
    Message { name: "KeyValue", fields: &[one("key", 1, Text), one("value", 2, Kind::Message(&ANY_VALUE))] };

static ANY_VALUE: Message = Message {
    name: "AnyValue",
    fields: &[
        member("stringValue", 1, Text),
        member("boolValue", 2, Bool),
        member("intValue", 3, Int64),
        member("doubleValue", 4, Double),
        member("arrayValue", 5, Kind::Message(&ARRAY_VALUE)),
        member("kvlistValue", 6, Kind::Message(&KEY_VALUE_LIST)),
        member("bytesValue", 7, Base64),
    ],
};

static ARRAY_VALUE: Message =
    Message { name: "ArrayValue", fields: &[many("values", 1, Kind::Message(&ANY_VALUE))] };

static KEY_VALUE_LIST: Message =
    Message { name: "KeyValueList", fields: &[many("values", 1, Kind::Message(&KEY_VALUE))] };
