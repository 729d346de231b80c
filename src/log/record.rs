//! One record: header, tenant, body; the same bytes in memory and in a file.
//!
//! ```text
//!  0  magic         u32     finds the next record when a length is damaged
//!  4  crc32c        u32     of everything from byte 8 to the end of the body
//!  8  body length   u32
//! 12  tenant length u16
//! 14  kind          u8      the caller's
//! 15  flags         u8      bit 0: more records of this group follow
//! 16  arrival_ms    u64
//! 24  member        u32     place in its group, from 0
//! 28  tenant, then body
//! ```
//!
//! All integers are little-endian. The checksum covers the lengths, so a flipped bit anywhere is found.

use std::ops::Range;

/// Bytes of a record before its tenant.
pub const RECORD_HEADER: usize = 28;
/// The longest record there is, header and tenant included. A longer one cannot be written, so a longer length is damage.
pub const RECORD_MAX: usize = 64 << 20;
/// Tenants are header values; a longer one is damage.
pub const TENANT_MAX: usize = 4096;

/// Not ASCII and not valid UTF-8, so it does not occur in text.
pub(super) const MAGIC: [u8; 4] = [0xF7, b'T', b'w', 0xFD];

const MORE: u8 = 1;

/// What a caller stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub arrival_ms: u64,
    pub tenant: &'a str,
    pub kind: u8,
    /// Further records of the same group follow.
    pub more: bool,
    /// Place in its group, from 0.
    pub member: u32,
    pub body: &'a [u8],
}

/// The record cannot be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record of {bytes} bytes for a tenant name of {tenant} bytes is larger than a log takes")]
pub struct RecordTooLarge {
    pub bytes: usize,
    pub tenant: usize,
}

/// Header and tenant of one record: what stands before its body. Made outside every lock, because it
/// carries the checksum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head(Vec<u8>);

impl Head {
    pub fn new(record: &Record<'_>) -> Result<Self, RecordTooLarge> {
        let len = record_len(record.tenant.len(), record.body.len());
        if len > RECORD_MAX || record.tenant.len() > TENANT_MAX {
            return Err(RecordTooLarge { bytes: len, tenant: record.tenant.len() });
        }
        let mut head = Vec::with_capacity(RECORD_HEADER + record.tenant.len());
        head.extend_from_slice(&MAGIC);
        head.extend_from_slice(&[0; 4]);
        head.extend_from_slice(&(record.body.len() as u32).to_le_bytes());
        head.extend_from_slice(&(record.tenant.len() as u16).to_le_bytes());
        head.push(record.kind);
        head.push(if record.more { MORE } else { 0 });
        head.extend_from_slice(&record.arrival_ms.to_le_bytes());
        head.extend_from_slice(&record.member.to_le_bytes());
        head.extend_from_slice(record.tenant.as_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&head[8..]), record.body);
        head[4..8].copy_from_slice(&crc.to_le_bytes());
        Ok(Self(head))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn into_vec(self) -> Vec<u8> {
        self.0
    }
}

/// Bytes of a record with a tenant and a body of these lengths.
pub const fn record_len(tenant_len: usize, body_len: usize) -> usize {
    RECORD_HEADER + tenant_len + body_len
}

/// A record's header, read. Ranges count from the record's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed<'a> {
    pub arrival_ms: u64,
    pub tenant: &'a str,
    pub kind: u8,
    pub more: bool,
    pub member: u32,
    pub body_at: usize,
    /// Bytes of the whole record.
    pub len: usize,
}

impl Parsed<'_> {
    pub fn body(&self) -> Range<usize> {
        self.body_at..self.len
    }
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    #[error("no record begins here")]
    Magic,
    #[error("a length is beyond every limit")]
    Length,
    #[error("the checksum does not match")]
    Checksum,
    /// The bytes end before the record does; it needs this many.
    #[error("the record ends beyond the bytes that exist: it needs {0}")]
    Short(usize),
}

/// Reads the record that begins at the first byte, without its checksum: for bytes that never left memory.
pub fn parse(bytes: &[u8]) -> Result<Parsed<'_>, Damage> {
    let len = claimed_len(bytes)?;
    if bytes.len() < len {
        return Err(Damage::Short(len));
    }
    let tenant_end = RECORD_HEADER + usize::from(u16_at(bytes, 12));
    let tenant = std::str::from_utf8(&bytes[RECORD_HEADER..tenant_end]).map_err(|_| Damage::Checksum)?;
    Ok(Parsed {
        arrival_ms: u64::from(u32_at(bytes, 16)) | u64::from(u32_at(bytes, 20)) << 32,
        tenant,
        kind: bytes[14],
        more: bytes[15] & MORE != 0,
        member: u32_at(bytes, 24),
        body_at: tenant_end,
        len,
    })
}

/// Reads the record that begins at the first byte and proves that it is the one that was written.
pub fn parse_checked(bytes: &[u8]) -> Result<Parsed<'_>, Damage> {
    let len = claimed_len(bytes)?;
    if bytes.len() < len {
        return Err(Damage::Short(len));
    }
    if crc32c::crc32c(&bytes[8..len]) != u32_at(bytes, 4) {
        return Err(Damage::Checksum);
    }
    parse(bytes)
}

/// What the header says the record's length is; needs [`RECORD_HEADER`] bytes.
pub(super) fn claimed_len(bytes: &[u8]) -> Result<usize, Damage> {
    if bytes.len() < RECORD_HEADER {
        return Err(Damage::Short(RECORD_HEADER));
    }
    if bytes[..4] != MAGIC {
        return Err(Damage::Magic);
    }
    let tenant_len = usize::from(u16_at(bytes, 12));
    let len = record_len(tenant_len, u32_at(bytes, 8) as usize);
    if len > RECORD_MAX || tenant_len > TENANT_MAX || bytes[15] & !MORE != 0 {
        return Err(Damage::Length);
    }
    Ok(len)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(record: &Record<'_>) -> Vec<u8> {
        [Head::new(record).unwrap().as_bytes(), record.body].concat()
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            arrival_ms: u64, tenant in ".{0,20}", kind: u8, more: bool, member: u32,
            body in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let record = Record { arrival_ms, tenant: &tenant, kind, more, member, body: &body };
            let bytes = encode(&record);
            prop_assert_eq!(bytes.len(), record_len(tenant.len(), body.len()));
            let parsed = parse_checked(&bytes).unwrap();
            prop_assert_eq!(parsed.arrival_ms, arrival_ms);
            prop_assert_eq!(parsed.tenant, &tenant);
            prop_assert_eq!((parsed.kind, parsed.more, parsed.member), (kind, more, member));
            prop_assert_eq!(&bytes[parsed.body()], &body);
        }
    }

    #[test]
    fn one_flipped_bit_anywhere_is_found() {
        let record = Record { arrival_ms: 9, tenant: "acme", kind: 3, more: true, member: 2, body: b"spans" };
        let bytes = encode(&record);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(parse_checked(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_length_beyond_every_limit_is_damage_before_anything_is_read() {
        let record = Record { arrival_ms: 0, tenant: "", kind: 0, more: false, member: 0, body: b"" };
        let mut bytes = encode(&record);
        bytes[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(parse_checked(&bytes), Err(Damage::Length));
        assert_eq!(parse_checked(&bytes[..10]), Err(Damage::Short(RECORD_HEADER)));
    }

    #[test]
    fn a_record_larger_than_a_reader_takes_is_refused() {
        let body = vec![0; RECORD_MAX - RECORD_HEADER];
        let fits = Record { arrival_ms: 0, tenant: "", kind: 0, more: false, member: 0, body: &body };
        assert!(Head::new(&fits).is_ok());
        assert!(Head::new(&Record { tenant: "t", ..fits }).is_err());
    }
}
