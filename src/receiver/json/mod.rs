//! OTLP/JSON, written as protobuf while it is parsed.
//!
//! One pass over the text; nothing is held but the protobuf. The rules are those of OTLP/JSON: lowerCamelCase keys,
//! unknown ones ignored, `null` is absent; IDs in hex; bytes in base64; integers as numbers or strings; enumerations as
//! numbers (and, because senders do, by name). A string is passed on as its bytes: what is no UTF-8, or half of a surrogate
//! pair (JavaScript that cuts a text leaves one), is the scan's to replace, as in protobuf, and costs nobody the request. An ID that is not hex makes a bad span, not a refused request: it is
//! written as one zero byte, and the scan rejects IDs of that length.
//!
//! <https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>

mod schema;
mod write;

use bytes::Bytes;
use serde::de::DeserializeSeed;

use super::Rejection;

/// The most bytes of protobuf that a text of so many bytes becomes.
///
/// A value with its tag is never longer than its text with its key and punctuation, but for what length prefixes grow:
/// a byte every 16 KiB. Requests measure 0.3 to 0.5 of their text, so this is charged only while a text is converted; what is stored is charged as what it is.
pub(super) fn converted_len_max(text: usize) -> usize {
    text + text / 1024 + 16
}

/// Converts an `ExportTraceServiceRequest`.
pub(crate) fn to_protobuf(text: &[u8]) -> Result<Bytes, Rejection> {
    let malformed = |error: serde_json::Error| Rejection::Malformed(format!("JSON: {error}"));
    let mut out = Vec::with_capacity(converted_len_max(text.len()));
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    write::Fields { message: &schema::REQUEST, out: &mut out }
        .deserialize(&mut deserializer)
        .map_err(malformed)?;
    deserializer.end().map_err(malformed)?;
    debug_assert!(out.len() <= converted_len_max(text.len()));
    Ok(out.into())
}
