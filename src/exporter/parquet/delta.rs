//! Parquet's DELTA_BINARY_PACKED encoding, of numbers and of the lengths of DELTA_LENGTH_BYTE_ARRAY.
//!
//! <https://parquet.apache.org/docs/file-format/data-pages/encodings/#DELTAENC>

use super::hybrid::{pack, varint};

const BLOCK: usize = 128;
const MINI_BLOCK: usize = 32;

/// Appends the lengths of values that begin at `starts`, one after the other, the last ending at `end`.
pub(super) fn encode_lengths(starts: &[u32], end: u32, out: &mut Vec<u8>) {
    let ends = starts.iter().skip(1).chain([&end]);
    let lengths = starts.iter().zip(ends).map(|(&start, &end)| i64::from(end) - i64::from(start));
    encode(starts.len(), lengths, |delta| delta, out);
}

pub(super) fn encode_longs(values: &[i64], out: &mut Vec<u8>) {
    encode(values.len(), values.iter().copied(), |delta| delta, out);
}

/// Differences wrap around within the type.
pub(super) fn encode_ints(values: &[i32], out: &mut Vec<u8>) {
    encode(values.len(), values.iter().copied().map(i64::from), |delta| i64::from(delta as i32), out);
}

/// Appends `count` numbers.
#[inline]
fn encode(count: usize, mut values: impl Iterator<Item = i64>, wrap: impl Fn(i64) -> i64, out: &mut Vec<u8>) {
    varint(BLOCK as u64, out);
    varint((BLOCK / MINI_BLOCK) as u64, out);
    varint(count as u64, out);
    let mut last = values.next().unwrap_or(0);
    zigzag(last, out);
    let mut deltas = [0i64; BLOCK];
    let mut left = count.saturating_sub(1);
    while left > 0 {
        let deltas = &mut deltas[..left.min(BLOCK)];
        for (delta, value) in deltas.iter_mut().zip(&mut values) {
            *delta = wrap(value.wrapping_sub(last));
            last = value;
        }
        block(deltas, out);
        left -= deltas.len();
    }
}

fn block(deltas: &[i64], out: &mut Vec<u8>) {
    let least = deltas.iter().copied().min().unwrap_or(0);
    zigzag(least, out);
    let widths = out.len();
    out.extend_from_slice(&[0; BLOCK / MINI_BLOCK]);
    if deltas.iter().all(|&delta| delta == least) {
        return;
    }
    for (n, deltas) in deltas.chunks(MINI_BLOCK).enumerate() {
        let mut above = [0u64; MINI_BLOCK];
        let mut any = 0;
        for (above, delta) in above.iter_mut().zip(deltas) {
            *above = delta.wrapping_sub(least) as u64;
            any |= *above;
        }
        let width = (u64::BITS - any.leading_zeros()) as u8;
        out[widths + n] = width;
        pack(&above, MINI_BLOCK, width, out);
    }
}

fn zigzag(value: i64, out: &mut Vec<u8>) {
    varint((value << 1 ^ value >> 63) as u64, out);
}
