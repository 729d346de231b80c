//! Parquet's DELTA_BINARY_PACKED encoding, for the lengths of DELTA_LENGTH_BYTE_ARRAY.
//!
//! <https://parquet.apache.org/docs/file-format/data-pages/encodings/#DELTAENC>

use super::hybrid::{pack, varint, width};

const BLOCK: usize = 128;
const MINI_BLOCK: usize = 32;

/// Appends the lengths of values that begin at `starts`, one after the other, the last ending at `end`.
pub(super) fn encode_lengths(starts: &[u32], end: usize, out: &mut Vec<u8>) {
    let length = |n: usize| {
        let next = starts.get(n + 1).map_or(end, |&next| next as usize);
        next as i64 - i64::from(starts[n])
    };
    varint(BLOCK as u64, out);
    varint((BLOCK / MINI_BLOCK) as u64, out);
    varint(starts.len() as u64, out);
    let mut last = if starts.is_empty() { 0 } else { length(0) };
    zigzag(last, out);
    let mut deltas = [0i64; BLOCK];
    for begin in (1..starts.len()).step_by(BLOCK) {
        let count = BLOCK.min(starts.len() - begin);
        for (n, delta) in deltas[..count].iter_mut().enumerate() {
            let next = length(begin + n);
            *delta = next - last;
            last = next;
        }
        block(&deltas[..count], out);
    }
}

fn block(deltas: &[i64], out: &mut Vec<u8>) {
    let least = deltas.iter().copied().min().unwrap_or(0);
    zigzag(least, out);
    let widths = out.len();
    out.extend_from_slice(&[0; BLOCK / MINI_BLOCK]);
    for (n, deltas) in deltas.chunks(MINI_BLOCK).enumerate() {
        let mut above = [0u32; MINI_BLOCK];
        for (above, delta) in above.iter_mut().zip(deltas) {
            *above = (delta - least) as u32;
        }
        let width = width(above.iter().copied().max().unwrap_or(0));
        out[widths + n] = width;
        pack(&above, MINI_BLOCK, width, out);
    }
}

fn zigzag(value: i64, out: &mut Vec<u8>) {
    varint((value << 1 ^ value >> 63) as u64, out);
}
