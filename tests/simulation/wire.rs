//! The little of OTLP that a run writes and reads back. Written for itself, so that a mistake of the product's
//! own code is not made twice.

use std::hash::{DefaultHasher, Hasher};

/// A span that came out: its number, and a hash of all but the trace state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    pub id: u64,
    pub hash: u64,
}

/// What a span of a run says.
#[derive(Clone, Copy, Debug)]
pub struct Plain {
    pub trace: [u8; 16],
    pub id: u64,
    /// 0: it is a root.
    pub parent: u64,
    pub error: bool,
    pub start_ns: u64,
    pub duration_ms: u64,
    /// Bytes of its name.
    pub name: usize,
}

pub fn span(plain: &Plain) -> Vec<u8> {
    let mut out = Vec::with_capacity(80 + plain.name);
    bytes(1, &plain.trace, &mut out);
    bytes(2, &plain.id.to_be_bytes(), &mut out);
    if plain.parent != 0 {
        bytes(4, &plain.parent.to_be_bytes(), &mut out);
    }
    bytes(5, &vec![b'a'; plain.name], &mut out);
    fixed(7, plain.start_ns, &mut out);
    fixed(8, plain.start_ns + 1_000_000 * plain.duration_ms, &mut out);
    if plain.error {
        bytes(15, &[3 << 3, 2], &mut out);
    }
    out
}

/// A request of these spans of a service, under one resource and one scope.
pub fn request(service: &str, spans: &[&[u8]]) -> Vec<u8> {
    let mut scope_spans = Vec::new();
    spans.iter().for_each(|span| bytes(2, span, &mut scope_spans));
    let mut value = Vec::new();
    bytes(1, service.as_bytes(), &mut value);
    let mut attribute = Vec::new();
    bytes(1, b"service.name", &mut attribute);
    bytes(2, &value, &mut attribute);
    let mut resource = Vec::new();
    bytes(1, &attribute, &mut resource);
    let mut resource_spans = Vec::new();
    bytes(1, &resource, &mut resource_spans);
    bytes(2, &scope_spans, &mut resource_spans);
    let mut out = Vec::new();
    bytes(1, &resource_spans, &mut out);
    out
}

/// The spans of a request. None: it is not OTLP.
pub fn read(request: &[u8]) -> Option<Vec<Seen>> {
    let mut seen = Vec::new();
    each(request, &mut |number, resource_spans| match number {
        1 => each(resource_spans, &mut |number, scope_spans| match number {
            2 => each(scope_spans, &mut |number, span| match number {
                2 => look(span).map(|span| seen.push(span)),
                _ => Some(()),
            }),
            _ => Some(()),
        }),
        _ => None,
    })?;
    Some(seen)
}

/// What will be seen of a span.
pub fn look(span: &[u8]) -> Option<Seen> {
    let (mut id, mut hasher) = (0, DefaultHasher::new());
    each(span, &mut |number, value| {
        if number == 2 {
            id = u64::from_be_bytes(value.try_into().ok()?);
        }
        if number != 3 {
            hasher.write_u32(number);
            hasher.write(value);
        }
        Some(())
    })?;
    (id != 0).then(|| Seen { id, hash: hasher.finish() })
}

fn bytes(number: u32, value: &[u8], out: &mut Vec<u8>) {
    varint(u64::from(number << 3 | 2), out);
    varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

fn fixed(number: u32, value: u64, out: &mut Vec<u8>) {
    varint(u64::from(number << 3 | 1), out);
    out.extend_from_slice(&value.to_le_bytes());
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Every field of a message with its bytes; numbers are eight bytes or a varint's.
fn each(mut message: &[u8], field: &mut dyn FnMut(u32, &[u8]) -> Option<()>) -> Option<()> {
    while !message.is_empty() {
        let key = take_varint(&mut message)?;
        let value = match key & 7 {
            0 => {
                let before = message;
                take_varint(&mut message)?;
                &before[..before.len() - message.len()]
            }
            1 => message.split_off(..8)?,
            2 => {
                let len = take_varint(&mut message)? as usize;
                message.split_off(..len)?
            }
            5 => message.split_off(..4)?,
            _ => return None,
        };
        field((key >> 3) as u32, value).filter(|()| key >> 3 != 0)?;
    }
    Some(())
}

fn take_varint(from: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *from.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}
