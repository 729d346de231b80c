//! Faults that the product does not have, planted to see that a run would find them. Each is what a disk, a
//! file or a stage would look like if one line of the product were wrong; the product knows nothing of them.

use std::path::{Path, PathBuf};

use prost::Message;
use tailwater::log::record::{self, Damage};
use tailwater::log::{SegmentHeader, SimDisk, Storage, segment};
use tailwater::proto::{Piece, Reason, State};
use tailwater::trace::Position;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// The input log's syncs do nothing.
    SyncSkipped,
    /// What a kept trace has sent is said to reach into the next record.
    ThroughTooFar,
    /// Segments are deleted before the state that makes them dispensable is there.
    DeleteBeforeState,
    /// A record is indexed after its successor.
    IndexOutOfOrder,
    /// A kept trace is missing in the state.
    KeptForgotten,
    /// The state does not say which numbers were used.
    NumberReused,
    /// A cursor is in front of what was delivered.
    CursorAhead,
    /// Each record of a group is taken for a whole group.
    HalfGroup,
    /// A record that was cut off is completed with zeros, and its checksum made to fit.
    TornBelieved,
    /// An upload that is repeated gets another name.
    OtherName,
    /// What a full outbox gives up is counted one short.
    EvictedMiscounted,
    /// The state says nothing of durations that were learned.
    SketchForgotten,
    /// The first piece of a large trace says that all of it has left.
    PieceForgotten,
    /// A reload says that it has changed the policies, and has not.
    ReloadHalf,
    /// A start forgets what a policy may keep at most.
    BudgetForgotten,
    /// A read that fails is taken for the end of the file.
    ReadErrorAsEnd,
    /// A write that found no room is taken for written.
    FullIgnored,
    /// A new exporter gets what was kept before it.
    NewFromOldest,
    /// Damage is not counted.
    DamageUncounted,
    /// A drain forgets what is not due.
    DrainForgets,
}

impl Plant {
    pub const ALL: [Self; 20] = [
        Self::SyncSkipped,
        Self::ThroughTooFar,
        Self::DeleteBeforeState,
        Self::IndexOutOfOrder,
        Self::KeptForgotten,
        Self::NumberReused,
        Self::CursorAhead,
        Self::HalfGroup,
        Self::TornBelieved,
        Self::OtherName,
        Self::EvictedMiscounted,
        Self::SketchForgotten,
        Self::PieceForgotten,
        Self::ReloadHalf,
        Self::BudgetForgotten,
        Self::ReadErrorAsEnd,
        Self::FullIgnored,
        Self::NewFromOldest,
        Self::DamageUncounted,
        Self::DrainForgets,
    ];

    /// What is read of a file instead of what it holds.
    pub fn misread(self, path: &Path, content: impl FnOnce() -> Vec<u8>) -> Option<Vec<u8>> {
        let name = path.file_name()?.to_str()?;
        match self {
            Self::ThroughTooFar if name == "state" => rewritten(content(), |state| {
                let through = state.live.iter_mut().filter_map(|live| live.through.as_mut());
                through.for_each(|through| through.offset += 300);
            }),
            Self::KeptForgotten if name == "state" => rewritten(content(), |state| {
                state.live.sort_by_key(|live| live.trace.map(|trace| trace.low));
                state.live.truncate(state.live.len() / 2);
            }),
            Self::NumberReused if name == "state" => rewritten(content(), |state| state.input_segment = 0),
            Self::SketchForgotten if name == "state" => rewritten(content(), |state| state.sketches.clear()),
            Self::CursorAhead => further(content(), name.strip_prefix("cursor.")?),
            _ => None,
        }
    }
}

/// A state file with another state in it.
fn rewritten(file: Vec<u8>, change: impl FnOnce(&mut State)) -> Option<Vec<u8>> {
    let mut state = State::decode(file.get(8..)?).ok()?;
    change(&mut state);
    let body = state.encode_to_vec();
    Some([&file[..4], &crc32c::crc32c(&body).to_le_bytes(), &body].concat())
}

/// A cursor file that stands at the next segment.
fn further(mut file: Vec<u8>, exporter: &str) -> Option<Vec<u8>> {
    let segment = read_cursor(&file)?.segment + 1;
    file[8..12].copy_from_slice(&segment.to_le_bytes());
    file[12..16].copy_from_slice(&[0; 4]);
    sign(&mut file, exporter);
    Some(file)
}

/// The checksum of a cursor file is that of its exporter's name too.
fn sign(file: &mut Vec<u8>, exporter: &str) {
    file.truncate(16);
    let crc = crc32c::crc32c_append(crc32c::crc32c(file), exporter.as_bytes());
    file.extend_from_slice(&crc.to_le_bytes());
}

fn read_cursor(file: &[u8]) -> Option<Position> {
    let word =
        |at: usize| file.get(at..at + 4).map(|word| u32::from_le_bytes(word.try_into().expect("four")));
    Some(Position::new(word(8)?, word(12)?))
}

/// The cursor of an exporter for which everything lies ahead.
pub fn oldest_cursor(exporter: &str) -> Vec<u8> {
    let mut file = vec![0; 20];
    file[..4].copy_from_slice(b"TWCU");
    file[4] = 1;
    sign(&mut file, exporter);
    file
}

/// What may be deleted once this state is there: all that it covers and every cursor has passed.
pub fn dispensable(state: &[u8], disk: &SimDisk) -> Vec<PathBuf> {
    let Some(state) = state.get(8..).and_then(|body| State::decode(body).ok()) else { return Vec::new() };
    let position =
        |position: Option<tailwater::proto::Position>| position.map(Position::from).unwrap_or_default();
    let covered = position(state.outbox_covered).min(slowest(disk));
    let below = [("data/input", position(state.low_water)), ("data/outbox", covered)];
    let mut paths = Vec::new();
    for (dir, low) in below {
        let numbers = segment::numbers(disk as &dyn Storage, Path::new(dir)).unwrap_or_default();
        let below = numbers.into_iter().filter(|(number, _)| *number < low.segment);
        paths.extend(below.map(|(number, _)| segment::path(Path::new(dir), number)));
    }
    paths
}

/// What the cursor says that is furthest behind.
fn slowest(disk: &SimDisk) -> Position {
    let files = disk.list(Path::new("data")).unwrap_or_default();
    let cursors = files.iter().filter(|(name, _)| name.starts_with("cursor.") && !name.ends_with(".new"));
    let read = |name: &String| read_cursor(&disk.content(&Path::new("data").join(name))?);
    cursors.filter_map(|(name, _)| read(name)).min().unwrap_or_default()
}

/// Records in a row, none of which says that it belongs to another.
pub fn apart(mut bytes: Vec<u8>) -> Vec<u8> {
    let mut at = 0;
    while let Ok(len) = record::claimed_len(&bytes[at..]) {
        if at + len > bytes.len() {
            break;
        }
        let one = &mut bytes[at..at + len];
        one[15] = 0;
        one[24..28].fill(0);
        seal(one);
        at += len;
    }
    bytes
}

/// Pieces of traces that are larger than one, each of which says that the whole trace has left.
pub fn through_all(mut bytes: Vec<u8>) -> Vec<u8> {
    let mut at = 0;
    while let Ok(len) = record::claimed_len(&bytes[at..]) {
        let Some(one) = bytes.get_mut(at..at + len) else { break };
        let body = record::parse_checked(one).map(|parsed| parsed.body());
        if let Some((body, mut piece)) = body.ok().and_then(|body| Some((body.clone(), piece(&one[body])?))) {
            piece.through_offset += 4_000;
            let changed = piece.encode_to_vec();
            if changed.len() == body.len() {
                one[body].copy_from_slice(&changed);
                seal(one);
            }
        }
        at += len;
    }
    bytes
}

fn piece(body: &[u8]) -> Option<Piece> {
    Piece::decode(body).ok().filter(|piece| piece.reason() == Reason::Full)
}

/// Makes the checksum of a record fit.
fn seal(one: &mut [u8]) {
    let crc = crc32c::crc32c(&one[8..]);
    one[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// Completes what was cut off in the outbox, as if its reader did not ask for checksums.
pub fn complete_torn_records(disk: &SimDisk) {
    let dir = Path::new("data/outbox");
    for (number, _) in segment::numbers(disk as &dyn Storage, dir).unwrap_or_default() {
        let path = segment::path(dir, number);
        let mut file = disk.content(&path).unwrap_or_default();
        let Ok(header) = SegmentHeader::decode(&file) else { continue };
        let mut at = header.encoded_len();
        while let Ok(len) = record::claimed_len(&file[at.min(file.len())..]) {
            file.resize(file.len().max(at + len), 0);
            if record::parse_checked(&file[at..at + len]).is_err_and(|damage| damage == Damage::Checksum) {
                seal(&mut file[at..at + len]);
            }
            at += len;
        }
        disk.put(&path, file);
    }
}
