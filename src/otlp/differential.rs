//! Scan, views and encoding against prost, on requests with a fault or an oddity somewhere.

use crate::otlp;

#[path = "../../tests/fuzz/check.rs"]
#[allow(unreachable_pub, reason = "the fuzz target includes it too")]
mod check;

use check::{Outcome, check};

use super::wire::{BYTES, Fields, key, put_bytes};
use super::workload::Generator;

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// Changes bytes without regard to what they mean.
fn scramble(rng: &mut Rng, body: &mut Vec<u8>) {
    let at = rng.below(body.len());
    match rng.below(6) {
        0 | 1 if !body.is_empty() => body[at] ^= 1 << rng.below(8),
        2 if !body.is_empty() => body[at] = [0, 0xff, 0x80, 0x7f, 0x0a, 0x12][rng.below(6)],
        3 => body.truncate(at),
        4 => body.insert(at, rng.next() as u8),
        _ => drop(body.drain(at..(at + rng.below(9)).min(body.len()))),
    }
}

/// Changes the fields of a message somewhere within `message`, and all lengths around it to fit.
fn rearrange(rng: &mut Rng, message: &[u8]) -> Vec<u8> {
    let mut fields: Vec<Vec<u8>> = Fields::new(message).map(|field| field.raw.to_vec()).collect();
    let messages: Vec<usize> = Fields::new(message)
        .enumerate()
        .filter(|(_, field)| field.bytes().len() > 1)
        .map(|(at, _)| at)
        .collect();
    if !messages.is_empty() && rng.below(6) > 0 {
        let at = messages[rng.below(messages.len())];
        let field = Fields::new(&fields[at]).next().unwrap();
        let mut changed = Vec::new();
        put_bytes(field.key, &rearrange(rng, field.bytes()), &mut changed);
        fields[at] = changed;
        return fields.concat();
    }
    let at = rng.below(fields.len());
    match rng.below(6) {
        0 if !fields.is_empty() => fields.push(fields[at].clone()),
        1 if !fields.is_empty() => drop(fields.remove(at)),
        2 if fields.len() > 1 => fields.swap(0, at),
        3 if !fields.is_empty() => fields[at][0] ^= 1 + rng.below(7) as u8,
        4 if !fields.is_empty() => scramble(rng, &mut fields[at]),
        _ => fields.insert(at, odd_field(rng)),
    }
    fields.concat()
}

/// A field that SDKs do not write: of any number and wire type, or a group, or one that nests deeply.
fn odd_field(rng: &mut Rng) -> Vec<u8> {
    let number = [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 15, 16, 17, 300, (1 << 29) - 1][rng.below(15)];
    let mut field = Vec::new();
    match rng.below(6) {
        0 => put_number(&mut field, number << 3, rng.next() >> rng.below(64)),
        1 => {
            put_number(&mut field, number << 3 | 3, 0x08);
            put_number(&mut field, 0x05, number << 3 | 4);
        }
        2 => put_bytes(key(number as u32, BYTES), &rng.next().to_le_bytes()[..rng.below(9)], &mut field),
        3 => put_bytes(key(number as u32, BYTES), &odd_field(rng), &mut field),
        4 => field = nested(rng),
        _ => {
            put_number(&mut field, number << 3 | [1, 5][rng.below(2)], 0x08);
            field.extend_from_slice(&rng.next().to_le_bytes()[..[3, 7][rng.below(2)]]);
        }
    }
    field
}

fn put_number(out: &mut Vec<u8>, key: u64, value: u64) {
    prost::encoding::encode_varint(key, out);
    prost::encoding::encode_varint(value, out);
}

/// Lists or groups within one another, about as deep as is allowed.
fn nested(rng: &mut Rng) -> Vec<u8> {
    let depth = 85 + rng.below(20);
    if rng.below(2) == 0 {
        return [[0xa3, 0x06].repeat(depth), [0xa4, 0x06].repeat(depth)].concat();
    }
    let mut value = Vec::new();
    for _ in 0..depth / 2 {
        let mut array = Vec::new();
        put_bytes(key(1, BYTES), &value, &mut array);
        value.clear();
        put_bytes(key(5, BYTES), &array, &mut value);
    }
    let mut pair = Vec::new();
    put_bytes(key(2, BYTES), &value, &mut pair);
    let mut attribute = Vec::new();
    put_bytes(key(9, BYTES), &pair, &mut attribute);
    attribute
}

#[test]
fn mutated_requests_are_read_as_prost_reads_them() {
    let mut rng = Rng(1);
    let mut generator = Generator::new(1);
    let mut outcomes = [0; 3];
    for round in 0..30_000 {
        let mut body = generator.request(1 + round % 3);
        for _ in 0..1 + rng.below(3) {
            if rng.below(4) == 0 {
                scramble(&mut rng, &mut body);
            } else {
                body = rearrange(&mut rng, &body);
            }
        }
        outcomes[check(&body) as usize] += 1;
    }
    let [accepted, mended, refused] = outcomes;
    assert!(accepted > 3000 && mended > 3000 && refused > 1000, "{outcomes:?}");
}

#[test]
fn requests_as_senders_write_them_are_accepted() {
    let mut generator = Generator::new(2);
    for spans in [1, 2, 20, 512] {
        assert_eq!(check(&generator.request(spans)), Outcome::Accepted);
    }
    assert_eq!(check(&[]), Outcome::Accepted);
}

#[test]
fn nesting_is_refused_where_prost_refuses_it() {
    for groups in 90..105 {
        let nested = [[0xa3, 0x06].repeat(groups), [0xa4, 0x06].repeat(groups)].concat();
        let outcome = check(&nested);
        assert_eq!(outcome, if groups <= 100 { Outcome::Accepted } else { Outcome::Refused }, "{groups}");
    }
}
