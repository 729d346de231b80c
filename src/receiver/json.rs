//! OTLP/JSON, written as protobuf.
use super::Rejection;
use bytes::Bytes;
pub(super) fn converted_len_max(text: usize) -> usize {
    text
}
pub(super) fn to_protobuf(_text: &[u8]) -> Result<Bytes, Rejection> {
    Err(Rejection::Unsupported("JSON".into()))
}
