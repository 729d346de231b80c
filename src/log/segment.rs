//! A segment: its header, its file's name, and the segments of a folder.
//!
//! ```text
//!  0  magic             8 bytes
//!  8  version           u16
//! 10  version, inverted u16     so that a flipped bit is not taken for a newer format
//! 12  number            u32
//! 16  uuid              16 bytes
//! 32  opened_ms         u64
//! 40  attributes length u32
//! 44  crc32c            u32     of bytes 0..44 and the attributes
//! 48  attributes                opaque here
//! ```
//!
//! Magic and both versions stand at the same place in every version of the format.

use super::storage::{File, Open, Storage};
use bytes::Bytes;
use std::fmt::Write as _;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// The format that this program writes, and the newest that it reads.
pub const VERSION: u16 = 1;
/// Bytes of a segment header without attributes: where the first record of an input segment begins.
pub const SEGMENT_HEADER: usize = 48;
/// Attributes are a few words; a longer length is damage.
pub const ATTRIBUTES_MAX: usize = 1 << 20;

const MAGIC: [u8; 8] = *b"\xF5TAILWTR";
const SUFFIX: &str = ".log";

/// What stands before a segment's records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Begins at 1, never used twice.
    pub number: u32,
    pub uuid: Uuid,
    pub opened_ms: u64,
    /// The caller's; empty in input segments.
    pub attributes: Bytes,
}

/// Why a segment's header cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    #[error("it ends within its header")]
    Short,
    #[error("it does not begin as a segment")]
    Magic,
    #[error("its header is damaged")]
    Damaged,
    #[error("its header says that it is segment {0}")]
    WrongNumber(u32),
    #[error("it has format version {0}, this program reads up to {VERSION}: start a newer program")]
    NewerVersion(u16),
}

impl SegmentHeader {
    /// Bytes of the header: the offset of the segment's first record.
    pub fn encoded_len(&self) -> usize {
        SEGMENT_HEADER + self.attributes.len()
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.encoded_len());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&(!VERSION).to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(self.uuid.as_bytes());
        out.extend_from_slice(&self.opened_ms.to_le_bytes());
        out.extend_from_slice(&(self.attributes.len() as u32).to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&out), &self.attributes);
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&self.attributes);
        out
    }

    /// Reads a header from a segment's first bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderFault> {
        let (fixed, rest) = bytes.split_first_chunk::<SEGMENT_HEADER>().ok_or(HeaderFault::Short)?;
        let attributes = rest.get(..attributes_len(fixed)?).ok_or(HeaderFault::Short)?;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&fixed[..44]), attributes);
        if crc.to_le_bytes() != fixed[44..48] {
            return Err(HeaderFault::Damaged);
        }
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&fixed[16..32]);
        let mut opened_ms = [0; 8];
        opened_ms.copy_from_slice(&fixed[32..40]);
        Ok(Self {
            number: u32_at(fixed, 12),
            uuid: Uuid::from_bytes(uuid),
            opened_ms: u64::from_le_bytes(opened_ms),
            attributes: Bytes::copy_from_slice(attributes),
        })
    }

    /// Reads the header of a file that is named as segment `number`.
    pub fn read(file: &dyn File, number: u32) -> io::Result<Result<Self, HeaderFault>> {
        let mut fixed = [0; SEGMENT_HEADER];
        let read = file.read_at(0, &mut fixed)?;
        if read < SEGMENT_HEADER {
            return Ok(Err(HeaderFault::Short));
        }
        let len = match attributes_len(&fixed) {
            Ok(len) => len,
            Err(fault) => return Ok(Err(fault)),
        };
        let mut bytes = vec![0; SEGMENT_HEADER + len];
        let read = file.read_at(0, &mut bytes)?;
        Ok(Self::decode(&bytes[..read]).and_then(|header| match header.number == number {
            true => Ok(header),
            false => Err(HeaderFault::WrongNumber(header.number)),
        }))
    }
}

/// Checks what all versions share, then the length of the attributes.
fn attributes_len(fixed: &[u8; SEGMENT_HEADER]) -> Result<usize, HeaderFault> {
    if fixed[..8] != MAGIC {
        return Err(HeaderFault::Magic);
    }
    let version = u16::from_le_bytes([fixed[8], fixed[9]]);
    if u16::from_le_bytes([fixed[10], fixed[11]]) != !version || version == 0 {
        return Err(HeaderFault::Damaged);
    }
    if version > VERSION {
        return Err(HeaderFault::NewerVersion(version));
    }
    let len = u32_at(fixed, 40) as usize;
    if len > ATTRIBUTES_MAX { Err(HeaderFault::Damaged) } else { Ok(len) }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// A segment's file name: names sort as numbers do.
pub fn file_name(number: u32) -> String {
    let mut name = String::with_capacity(14);
    _ = write!(name, "{number:010}{SUFFIX}");
    name
}

pub fn path(dir: &Path, number: u32) -> PathBuf {
    dir.join(file_name(number))
}

/// The number in a segment's file name; `None` for any other file.
pub fn number_of(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(SUFFIX)?;
    let plain = digits.len() == 10 && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

/// A segment file with a readable header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    pub number: u32,
    pub uuid: Uuid,
    pub opened_ms: u64,
    pub attributes: Bytes,
    /// Bytes of the file.
    pub len: u64,
    pub path: PathBuf,
}

impl SegmentInfo {
    /// Where its records begin.
    pub fn records_at(&self) -> u32 {
        (SEGMENT_HEADER + self.attributes.len()) as u32
    }
}

/// A segment file whose header says nothing; its records may still be readable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    pub number: u32,
    pub path: PathBuf,
    pub len: u64,
    pub fault: HeaderFault,
}

/// The segment files of a folder, each list in order of number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segments {
    pub readable: Vec<SegmentInfo>,
    pub unreadable: Vec<Unreadable>,
}

impl Segments {
    /// The highest number in use, readable or not.
    pub fn highest(&self) -> Option<u32> {
        let readable = self.readable.last().map(|segment| segment.number);
        readable.max(self.unreadable.last().map(|segment| segment.number))
    }
}

/// The segments in `dir`, with their headers.
///
/// Errors: the folder cannot be read, or a segment was written by a newer program
/// ([`io::ErrorKind::Unsupported`]), whose records must be neither guessed nor deleted.
pub fn segments(storage: &dyn Storage, dir: &Path) -> io::Result<Segments> {
    let mut found = Segments::default();
    for (number, len) in numbers(storage, dir)? {
        let path = path(dir, number);
        let file = match storage.open(&path, Open::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue, // deleted meanwhile
            Err(error) => return Err(error),
        };
        match SegmentHeader::read(&*file, number)? {
            Ok(SegmentHeader { uuid, opened_ms, attributes, .. }) => {
                found.readable.push(SegmentInfo { number, uuid, opened_ms, attributes, len, path });
            }
            Err(fault @ HeaderFault::NewerVersion(_)) => {
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    format!("{}: {fault}", path.display()),
                ));
            }
            Err(fault) => found.unreadable.push(Unreadable { number, path, len, fault }),
        }
    }
    Ok(found)
}

/// Numbers and lengths of the segment files in `dir`, ascending; nothing is opened.
pub fn numbers(storage: &dyn Storage, dir: &Path) -> io::Result<Vec<(u32, u64)>> {
    let files = storage.list(dir)?;
    let mut numbers: Vec<_> = files.iter().filter_map(|(name, len)| Some((number_of(name)?, *len))).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// The number for the next segment: above every file's and above `highest_known`.
pub fn next_number(storage: &dyn Storage, dir: &Path, highest_known: u32) -> io::Result<u32> {
    let highest = numbers(storage, dir)?.last().map_or(0, |(number, _)| *number);
    highest.max(highest_known).checked_add(1).ok_or_else(|| {
        let text = format!("{}: no segment number is left above {highest}", dir.display());
        io::Error::new(io::ErrorKind::InvalidData, text)
    })
}

/// What a file is called on its way to the name that its header gives.
const MOVED: &str = ".moved";

/// Gives files that have one another's names their own again, as their headers say. Returns how many.
///
/// Positions name records by the number of their file; read under a wrong one they would be taken for others.
/// What is not `ours` stays where it is.
pub fn straighten(
    storage: &dyn Storage,
    dir: &Path,
    ours: impl Fn(&SegmentHeader) -> bool,
) -> io::Result<usize> {
    let mut strays = Vec::new();
    let mut taken = Vec::new();
    for (number, _) in numbers(storage, dir)? {
        let file = storage.open(&path(dir, number), Open::Read)?;
        match SegmentHeader::read(&*file, number)? {
            Err(HeaderFault::WrongNumber(own)) => {
                if SegmentHeader::read(&*file, own)?.is_ok_and(|header| ours(&header)) {
                    strays.push((number, own));
                }
            }
            _ => taken.push(number),
        }
    }
    strays.retain(|(_, own)| !taken.contains(own));
    let owners: Vec<u32> = strays.iter().map(|(_, own)| *own).collect();
    strays.retain(|(_, own)| owners.iter().filter(|other| *other == own).count() == 1);
    for (number, own) in &strays {
        storage.rename(&path(dir, *number), &moved(dir, *own))?;
    }
    let unfinished =
        storage.list(dir)?.into_iter().filter_map(|(name, _)| number_of(name.strip_suffix(MOVED)?));
    for own in unfinished {
        if !storage.exists(&path(dir, own))? {
            storage.rename(&moved(dir, own), &path(dir, own))?;
        }
    }
    if !strays.is_empty() {
        storage.sync_dir(dir)?;
    }
    Ok(strays.len())
}

/// Writes a header again that is damaged in its file. False: it is whole, or the file is not this segment.
pub fn heal(storage: &dyn Storage, dir: &Path, header: &SegmentHeader) -> io::Result<bool> {
    let path = path(dir, header.number);
    if !storage.exists(&path)? {
        return Ok(false);
    }
    let file = storage.open(&path, Open::Write)?;
    let damaged = matches!(
        SegmentHeader::read(&*file, header.number)?,
        Err(HeaderFault::Magic | HeaderFault::Damaged | HeaderFault::Short)
    );
    if damaged && file.len()? >= header.encoded_len() as u64 {
        file.write_at(0, &[IoSlice::new(&header.encode())])?;
        file.sync()?;
        return Ok(true);
    }
    Ok(false)
}

fn moved(dir: &Path, number: u32) -> PathBuf {
    dir.join(file_name(number) + MOVED)
}

/// Removes the segment files below `number`, and adds what they held to `freed`: also if the next cannot be removed.
pub fn delete_below(storage: &dyn Storage, dir: &Path, number: u32, freed: &mut u64) -> io::Result<()> {
    for (old, len) in numbers(storage, dir)?.into_iter().take_while(|(old, _)| *old < number) {
        storage.remove(&path(dir, old))?;
        *freed += len;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::sim::SimDisk;

    fn header(number: u32) -> SegmentHeader {
        let attributes = Bytes::from_static(b"url");
        SegmentHeader { number, uuid: Uuid::from_u128(7), opened_ms: 1_700_000_000_000, attributes }
    }

    #[test]
    fn the_last_number_is_not_passed() {
        let disk = SimDisk::new(1);
        let dir = Path::new("log");
        disk.put(&path(dir, u32::MAX), Vec::new());
        let error = next_number(&*disk.storage(), dir, 0).unwrap_err();
        assert!(error.to_string().contains("no segment number is left"), "{error}");
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        assert_eq!(SegmentHeader::decode(&header(5).encode()), Ok(header(5)));
        assert_eq!(header(5).encode().len(), header(5).encoded_len());
    }

    #[test]
    fn one_flipped_bit_in_a_header_is_found_and_is_not_a_newer_version() {
        let bytes = header(5).encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let fault = SegmentHeader::decode(&flipped).unwrap_err();
            assert!(!matches!(fault, HeaderFault::NewerVersion(_)), "bit {bit}: {fault}");
        }
    }

    #[test]
    fn a_header_that_ends_early_is_short() {
        let bytes = header(5).encode();
        for len in 0..bytes.len() {
            assert_eq!(SegmentHeader::decode(&bytes[..len]), Err(HeaderFault::Short), "{len} bytes");
        }
    }

    #[test]
    fn a_folder_lists_readable_and_unreadable_segments_and_nothing_else() {
        let disk = SimDisk::new(1);
        let dir = Path::new("input");
        disk.put(&path(dir, 2), header(2).encode());
        disk.put(&path(dir, 10), header(10).encode());
        disk.put(&path(dir, 3), header(4).encode());
        disk.put(&path(dir, 4), vec![0; 100]);
        disk.put(&dir.join("next.spare"), vec![0; 9]);
        disk.put(&dir.join("12.log"), vec![0; 9]);
        let found = segments(&disk, dir).unwrap();
        assert_eq!(found.readable.iter().map(|segment| segment.number).collect::<Vec<_>>(), [2, 10]);
        let faults: Vec<_> =
            found.unreadable.iter().map(|segment| (segment.number, &segment.fault)).collect();
        assert_eq!(faults, [(3, &HeaderFault::WrongNumber(4)), (4, &HeaderFault::Magic)]);
        assert_eq!(next_number(&disk, dir, 3).unwrap(), 11);
        assert_eq!(next_number(&disk, dir, 30).unwrap(), 31);
    }

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let disk = SimDisk::new(1);
        let mut bytes = header(1).encode();
        bytes[8..10].copy_from_slice(&2u16.to_le_bytes());
        bytes[10..12].copy_from_slice(&(!2u16).to_le_bytes());
        disk.put(&path(Path::new("input"), 1), bytes);
        let error = segments(&disk, Path::new("input")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert!(error.to_string().contains("input/0000000001.log: it has format version 2"), "{error}");
    }

    #[test]
    fn files_that_have_one_anothers_names_get_their_own_again() {
        let disk = SimDisk::new(1);
        let dir = Path::new("input");
        for (name, number) in [(1, 1), (2, 5), (5, 3), (3, 2), (7, 1), (8, 9)] {
            disk.put(&path(dir, name), header(number).encode());
        }
        disk.put(&moved(dir, 6), header(6).encode()); // a crash came between
        assert_eq!(straighten(&disk, dir, |_| false).unwrap(), 0);
        assert_eq!(straighten(&disk, dir, |_| true).unwrap(), 4);
        let found = segments(&disk, dir).unwrap();
        let readable: Vec<u32> = found.readable.iter().map(|segment| segment.number).collect();
        assert_eq!(readable, [1, 2, 3, 5, 6, 9]);
        assert_eq!(found.unreadable[0].fault, HeaderFault::WrongNumber(1), "a copy keeps the wrong name");
        assert_eq!(straighten(&disk, dir, |_| true).unwrap(), 0);
    }

    #[test]
    fn a_damaged_header_is_made_again_where_it_is_known() {
        let disk = SimDisk::new(1);
        let dir = Path::new("outbox");
        let mut damaged = header(5).encode();
        damaged[20] ^= 1;
        disk.put(&path(dir, 5), [damaged, vec![7; 9]].concat());
        assert!(heal(&disk, dir, &header(5)).unwrap());
        assert_eq!(disk.content(&path(dir, 5)).unwrap(), [header(5).encode(), vec![7; 9]].concat());
        assert!(!heal(&disk, dir, &header(5)).unwrap() && !heal(&disk, dir, &header(6)).unwrap());
    }

    #[test]
    fn only_segments_below_the_number_are_deleted() {
        let disk = SimDisk::new(1);
        let dir = Path::new("input");
        for number in 1..=3 {
            disk.put(&path(dir, number), vec![0; 10]);
        }
        let mut freed = 0;
        delete_below(&disk, dir, 3, &mut freed).unwrap();
        assert_eq!(freed, 20);
        assert_eq!(numbers(&disk, dir).unwrap(), [(3, 10)]);
    }
}
