//! Parquet's RLE / bit-packing hybrid, the encoding of levels and of dictionary numbers.
//!
//! <https://parquet.apache.org/docs/file-format/data-pages/encodings/#RLE>

/// Values are packed, and looked at, in groups of so many.
const GROUP: usize = 8;
/// Shorter runs are packed like other values.
const RUN_MIN: usize = 2 * GROUP;

/// Bits that hold every value up to `max`.
pub(super) fn width(max: u32) -> u8 {
    (u32::BITS - max.leading_zeros()) as u8
}

/// Appends `values`, each of at most `width` bits.
pub(super) fn encode<T: Copy + Eq + Into<u64>>(values: &[T], width: u8, out: &mut Vec<u8>) {
    let mut literals = 0;
    let mut at = 0;
    while let Some(group) = values[at..].first_chunk() {
        if !uniform(group, group[0]) {
            at += GROUP;
            continue;
        }
        let run = run_len(&values[at..]);
        if run >= RUN_MIN {
            pack_groups(&values[literals..at], width, out);
            repeat(values[at], run, width, out);
            literals = at + run;
        }
        at += run;
    }
    pack_groups(&values[literals..], width, out);
}

#[inline]
fn uniform<T: Copy + Eq>(group: &[T; GROUP], value: T) -> bool {
    group.iter().fold(true, |same, &other| same & (other == value))
}

/// Length of the run at the start, in whole groups unless it goes to the end.
fn run_len<T: Copy + Eq>(values: &[T]) -> usize {
    let (groups, rest) = values.as_chunks::<GROUP>();
    let run = groups.iter().take_while(|group| uniform(group, values[0])).count() * GROUP;
    let to_the_end = run == values.len() - rest.len() && rest.iter().all(|&value| value == values[0]);
    if to_the_end { values.len() } else { run }
}

fn repeat<T: Into<u64>>(value: T, times: usize, width: u8, out: &mut Vec<u8>) {
    varint((times as u64) << 1, out);
    let value: u64 = value.into();
    out.extend_from_slice(&value.to_le_bytes()[..usize::from(width.div_ceil(8))]);
}

/// Groups of eight; the last is filled up with zeros.
fn pack_groups<T: Copy + Into<u64>>(values: &[T], width: u8, out: &mut Vec<u8>) {
    if values.is_empty() {
        return;
    }
    let groups = values.len().div_ceil(GROUP);
    varint((groups as u64) << 1 | 1, out);
    pack(values, groups * GROUP, width, out);
}

/// Values of `width` bits one after the other, lowest bit first, and zeros up to `places`, a multiple of eight.
pub(super) fn pack<T: Copy + Into<u64>>(values: &[T], places: usize, width: u8, out: &mut Vec<u8>) {
    let end = out.len() + places / GROUP * usize::from(width);
    out.reserve(end - out.len() + size_of::<u64>());
    let (groups, rest) = values.as_chunks();
    if width <= 8 {
        groups.iter().for_each(|group| pack_group(group, width, out));
        pack_any(rest, width, out);
    } else {
        pack_any(values, width, out);
    }
    out.resize(end, 0);
}

/// Eight values, which fit into a word together.
#[inline]
fn pack_group<T: Copy + Into<u64>>(group: &[T; GROUP], width: u8, out: &mut Vec<u8>) {
    let bits = group.iter().rev().fold(0, |bits, &value| bits << width | value.into());
    let end = out.len() + usize::from(width);
    out.extend_from_slice(&bits.to_le_bytes());
    out.truncate(end);
}

fn pack_any<T: Copy + Into<u64>>(values: &[T], width: u8, out: &mut Vec<u8>) {
    let width = u32::from(width);
    let (mut bits, mut held) = (0u64, 0);
    for &value in values {
        let value: u64 = value.into();
        bits |= value << held;
        held += width;
        if held >= u64::BITS {
            out.extend_from_slice(&bits.to_le_bytes());
            held -= u64::BITS;
            bits = value.checked_shr(width - held).unwrap_or(0);
        }
    }
    out.extend_from_slice(&bits.to_le_bytes());
}

pub(super) fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(bytes: &[u8], width: u8, count: usize) -> Vec<u32> {
        let (mut values, mut at) = (Vec::new(), 0);
        while values.len() < count {
            let (mut header, mut shift) = (0u64, 0);
            loop {
                header |= u64::from(bytes[at] & 0x7f) << shift;
                shift += 7;
                at += 1;
                if bytes[at - 1] < 0x80 {
                    break;
                }
            }
            if header & 1 == 0 {
                let mut value = [0; 4];
                let len = usize::from(width.div_ceil(8));
                value[..len].copy_from_slice(&bytes[at..at + len]);
                at += len;
                values.extend(std::iter::repeat_n(u32::from_le_bytes(value), (header >> 1) as usize));
            } else {
                let bit = |n: usize| u32::from(bytes[at + n / 8] >> (n % 8) & 1);
                let number = |n: usize| {
                    (0..usize::from(width)).map(|b| bit(n * usize::from(width) + b) << b).sum::<u32>()
                };
                values.extend((0..(header >> 1) as usize * 8).map(number));
                at += (header >> 1) as usize * usize::from(width);
            }
        }
        values.truncate(count);
        values
    }

    proptest! {
        #[test]
        fn what_is_encoded_reads_back(
            runs in proptest::collection::vec((0u32..5000, 1usize..40), 0..60),
            extra in 0u8..3,
        ) {
            let values: Vec<u32> = runs.iter().flat_map(|&(value, n)| std::iter::repeat_n(value, n)).collect();
            let width = width(values.iter().copied().max().unwrap_or(0)) + extra;
            let mut bytes = Vec::new();
            encode(&values, width, &mut bytes);
            prop_assert_eq!(decode(&bytes, width, values.len()), values);
        }
    }

    #[test]
    fn a_long_run_costs_a_few_bytes() {
        let mut bytes = Vec::new();
        encode(&[1u8; 10_000], 1, &mut bytes);
        assert!(bytes.len() <= 4, "{bytes:?}");
    }
}
