//! Randomness of traces whose identifiers have none: a keyed hash of the identifier.
//!
//! [SipHash-2-4](https://www.aumasson.jp/siphash/siphash.pdf), written out so that it is the same on every instance
//! and in every version.

use super::{Randomness, TraceId};

/// The key of a deployment: instances that have the same agree about every trace.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashKey([u64; 2]);

impl std::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashKey")
    }
}

impl HashKey {
    /// From a text of any length.
    pub fn of(text: &str) -> Self {
        Self([1, 2].map(|half| sip([half, 0], text.as_bytes())))
    }

    /// The low 56 bits of the hash of the identifier.
    pub fn randomness(self, trace: TraceId) -> Randomness {
        Randomness(sip(self.0, &trace.0) & ((1 << 56) - 1))
    }
}

fn sip(key: [u64; 2], bytes: &[u8]) -> u64 {
    let [k0, k1] = key;
    let mut state = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    let mut compress = |word: u64| {
        state[3] ^= word;
        (0..2).for_each(|_| round(&mut state));
        state[0] ^= word;
    };
    let (words, rest) = bytes.as_chunks::<8>();
    words.iter().for_each(|word| compress(u64::from_le_bytes(*word)));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    last[7] = bytes.len() as u8;
    compress(u64::from_le_bytes(last));
    state[2] ^= 0xff;
    (0..4).for_each(|_| round(&mut state));
    state.into_iter().fold(0, |hash, word| hash ^ word)
}

fn round([a, b, c, d]: &mut [u64; 4]) {
    *a = a.wrapping_add(*b);
    *b = b.rotate_left(13) ^ *a;
    *a = a.rotate_left(32);
    *c = c.wrapping_add(*d);
    *d = d.rotate_left(16) ^ *c;
    *a = a.wrapping_add(*d);
    *d = d.rotate_left(21) ^ *a;
    *c = c.wrapping_add(*b);
    *b = b.rotate_left(17) ^ *c;
    *c = c.rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_its_paper() {
        // Appendix A: key 00 01 … 0f, message 00 01 … 0e.
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        let message: Vec<u8> = (0..15).collect();
        assert_eq!(sip(key, &message), 0xa129_ca61_49be_45e5);
    }

    #[test]
    fn randomness_is_the_same_for_the_same_key_and_another_for_another() {
        let trace = TraceId([7; 16]);
        let randomness = HashKey::of("tailwater").randomness(trace);
        assert_eq!(randomness, HashKey::of("tailwater").randomness(trace));
        assert_ne!(randomness, HashKey::of("other").randomness(trace));
        assert!(randomness.0 < 1 << 56);
        assert_eq!(randomness, Randomness(PINNED), "{randomness:x?}");
    }

    /// A change of it would make instances of two versions disagree.
    const PINNED: u64 = 0xd1_ae22_08b7_698f;

    #[test]
    fn identifiers_that_count_up_are_spread_evenly() {
        let key = HashKey::of("tailwater");
        let mut parts = [0u32; 16];
        for n in 0..160_000_u128 {
            parts[(key.randomness(TraceId(n.to_be_bytes())).0 >> 52) as usize] += 1;
        }
        assert!(parts.iter().all(|part| (9_600..10_400).contains(part)), "{parts:?}");
    }
}
