//! How far each exporter has come in the outbox: one small file an exporter.
//!
//! Everything before a cursor has met its fate at that backend. The end of the process loses nothing of it that was
//! noted, a loss of power the steps since it was last saved; neither ever invents one. What is lost is sent again.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::known::Known;
use crate::log::storage::{self, Open, Storage};
use crate::trace::Position;

const PREFIX: &str = "cursor.";
const MAGIC: [u8; 4] = *b"TWCU";
const VERSION: u16 = 1;
/// magic, version, two zero bytes, segment, offset, crc32c of all before and the exporter's name; little endian.
const LEN: usize = 20;
/// Behind what is saved stands, in the same form, what is only noted: a torn write cannot hurt the other.
const NOTE_AT: u64 = LEN as u64;
/// No version of the file is longer.
const LEN_MAX: usize = 4096;
/// Where everything lies ahead.
const OLDEST: Position = Position::new(0, 0);

/// The cursor of one exporter, shared by it and by who deletes segments.
#[derive(Debug)]
pub struct Cursor {
    exporter: Arc<str>,
    path: PathBuf,
    storage: Arc<dyn Storage>,
    reached: AtomicU64,
    /// The lock is held over the writing, so that an older position never replaces a newer one.
    file: Mutex<InFile>,
}

/// What the file says.
#[derive(Clone, Copy, Debug)]
struct InFile {
    saved: Position,
    /// Not synced; never before what is saved.
    noted: Position,
}

impl Cursor {
    /// Everything before it is settled.
    pub fn position(&self) -> Position {
        Position::from_u64(self.reached.load(Ordering::Acquire))
    }

    /// What survives a crash: nothing before it is read again.
    pub fn saved(&self) -> Position {
        self.file.lock().saved
    }

    pub fn exporter(&self) -> &str {
        &self.exporter
    }

    /// Never goes back.
    pub fn advance(&self, to: Position) {
        self.reached.fetch_max(to.to_u64(), Ordering::AcqRel);
    }

    /// Makes the position durable, if it has moved. Blocks on the disk.
    pub fn save(&self) -> io::Result<()> {
        let mut file = self.file.lock();
        let position = self.position();
        if position > file.saved {
            self.write(position)?;
            *file = InFile { saved: position, noted: position };
        }
        Ok(())
    }

    /// Writes the position, if it has moved, so that it survives the end of the process. Syncs nothing.
    pub fn note(&self) -> io::Result<()> {
        let mut file = self.file.lock();
        let position = self.position();
        if position > file.noted {
            let opened = self.storage.open(&self.path, Open::Write)?;
            opened.write_at(NOTE_AT, &[IoSlice::new(&encode(position, &self.exporter))])?;
            file.noted = position;
        }
        Ok(())
    }

    fn write(&self, position: Position) -> io::Result<()> {
        storage::write_new(&*self.storage, &self.path, &encode(position, &self.exporter))
    }
}

/// The cursors of all configured exporters.
#[derive(Clone, Debug)]
pub struct Cursors(Vec<Arc<Cursor>>);

impl Cursors {
    /// Reads `dir/cursor.<exporter>` of every exporter. One whose file is gone or damaged starts where the last state
    /// saw it, else at the oldest segment; one that is new at `head`. Files of exporters that are not configured any
    /// more are removed.
    pub fn open(
        storage: &Arc<dyn Storage>,
        dir: &Path,
        exporters: &[String],
        known: &Known,
        head: Position,
    ) -> io::Result<Self> {
        remove_strangers(&**storage, dir, exporters)?;
        // What is read here counts as saved, so a life that was killed after a rename must have it made durable.
        storage.sync_dir(dir)?;
        let open = |exporter: &String| open_one(storage, dir, exporter, known, head).map(Arc::new);
        exporters.iter().map(open).collect::<io::Result<_>>().map(Self)
    }

    pub fn get(&self, exporter: &str) -> Option<&Arc<Cursor>> {
        self.0.iter().find(|cursor| cursor.exporter() == exporter)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Cursor>> {
        self.0.iter()
    }

    /// The smallest saved position; past everything if there is no exporter.
    pub fn low(&self) -> Position {
        self.0.iter().map(|cursor| cursor.saved()).min().unwrap_or(Position::MAX)
    }
}

/// The cursor files in `dir` by exporter, as far as they can be read; nothing is opened to be written.
pub fn found(storage: &dyn Storage, dir: &Path) -> io::Result<Vec<(String, Option<Position>)>> {
    let mut found = Vec::new();
    for (name, _) in storage.list(dir)? {
        let Some(exporter) = name.strip_prefix(PREFIX).filter(|name| !name.ends_with(".new")) else {
            continue;
        };
        let path = dir.join(&name);
        let bytes = read(storage, &path)?.unwrap_or_default();
        let position = decode(&bytes, exporter).map_err(|version| later(&path, version))?;
        found.push((exporter.to_owned(), position));
    }
    Ok(found)
}

fn open_one(
    storage: &Arc<dyn Storage>,
    dir: &Path,
    exporter: &str,
    known: &Known,
    head: Position,
) -> io::Result<Cursor> {
    let path = dir.join(format!("{PREFIX}{exporter}"));
    let file = read(&**storage, &path)?;
    let read = match &file {
        Some(bytes) => decode(bytes, exporter).map_err(|version| later(&path, version))?,
        None => None,
    };
    let position = match read {
        Some(position) => position,
        // Rather again than never.
        None => match known.cursor(exporter) {
            Some(seen) => {
                told(exporter, seen, "cursor file is gone or damaged, it is set back to the last state")
            }
            None if file.is_none() && !known.is_lost => head,
            None => told(exporter, OLDEST, "cursor file is gone or damaged, all that waits is sent again"),
        },
    };
    let (exporter, storage) = (exporter.into(), storage.clone());
    let reached = AtomicU64::new(position.to_u64());
    let file_says = Mutex::new(InFile { saved: position, noted: position });
    let cursor = Cursor { exporter, path, storage, reached, file: file_says };
    // A new exporter must not be new again after a crash: it would begin at a later head. And what is noted counts as
    // saved from now on.
    if read.is_none() || file.is_some_and(|file| file.len() > LEN) {
        cursor.write(position)?;
    }
    Ok(cursor)
}

fn told(exporter: &str, position: Position, what: &'static str) -> Position {
    tracing::warn!(exporter, ?position, "{what}");
    position
}

fn later(path: &Path, version: u16) -> io::Error {
    let path = path.display();
    let text = format!("{path}: it has format version {version}, this program reads up to {VERSION}");
    io::Error::new(io::ErrorKind::Unsupported, text)
}

/// The file, unless it is so large that it is none of ours.
fn read(storage: &dyn Storage, path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match storage.open(path, Open::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = vec![0; LEN_MAX];
    let read = file.read_at(0, &mut bytes)?;
    bytes.truncate(read);
    Ok(Some(bytes))
}

fn remove_strangers(storage: &dyn Storage, dir: &Path, exporters: &[String]) -> io::Result<()> {
    for (name, _) in storage.list(dir)? {
        let Some(exporter) = name.strip_prefix(PREFIX) else { continue };
        if exporters.iter().any(|known| known == exporter) {
            continue;
        }
        if !exporter.ends_with(".new") {
            tracing::warn!(exporter, "exporter is not configured any more, what waits for it is given up");
        }
        storage.remove(&dir.join(&name))?;
    }
    Ok(())
}

/// The exporter's name is in it: one cursor is never taken for another.
fn checksum(before: &[u8], exporter: &str) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(before), exporter.as_bytes())
}

fn encode(position: Position, exporter: &str) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
    bytes[8..12].copy_from_slice(&position.segment.to_le_bytes());
    bytes[12..16].copy_from_slice(&position.offset.to_le_bytes());
    let crc = checksum(&bytes[..16], exporter);
    bytes[16..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// The later of what is saved and what is noted. None: damaged. An error: the later version that has written it.
fn decode(bytes: &[u8], exporter: &str) -> Result<Option<Position>, u16> {
    let (saved, noted) = bytes.split_at(bytes.len().min(LEN));
    // A later version may be of any length.
    let whole = decode_one(bytes, exporter)?;
    Ok([whole, decode_one(saved, exporter)?, decode_one(noted, exporter)?].into_iter().flatten().max())
}

fn decode_one(bytes: &[u8], exporter: &str) -> Result<Option<Position>, u16> {
    let Some((before, crc)) = bytes.split_last_chunk::<4>() else { return Ok(None) };
    let whole = u32::from_le_bytes(*crc) == checksum(before, exporter);
    if !whole || before.len() < LEN - 4 || before[..4] != MAGIC {
        return Ok(None);
    }
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    match u16::from_le_bytes([bytes[4], bytes[5]]) {
        later if later > VERSION => Err(later),
        _ if bytes.len() != LEN => Ok(None),
        _ => Ok(Some(Position::new(word(8), word(12)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::SimDisk;
    use crate::log::storage::Disk;

    const HEAD: Position = Position::new(9, 0);

    fn open(dir: &Path, exporters: &[&str]) -> Cursors {
        let exporters: Vec<String> = exporters.iter().map(|name| (*name).to_owned()).collect();
        let storage: Arc<dyn Storage> = Arc::new(Disk);
        Cursors::open(&storage, dir, &exporters, &WHOLE, HEAD).unwrap()
    }

    const WHOLE: Known = Known { is_lost: false, segments: Vec::new(), cursors: Vec::new() };

    #[test]
    fn a_new_exporter_starts_at_the_head_and_stays_there() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(open(dir.path(), &["a"]).low(), HEAD);
        let storage: Arc<dyn Storage> = Arc::new(Disk);
        let later = Cursors::open(&storage, dir.path(), &["a".into()], &WHOLE, Position::new(20, 0)).unwrap();
        assert_eq!(later.low(), HEAD);
    }

    #[test]
    fn only_what_was_saved_survives() {
        let dir = tempfile::tempdir().unwrap();
        let cursors = open(dir.path(), &["a", "b"]);
        let a = cursors.get("a").unwrap();
        a.advance(Position::new(10, 7));
        a.save().unwrap();
        a.advance(Position::new(11, 0));
        a.advance(Position::new(3, 0));
        assert_eq!((a.position(), a.saved()), (Position::new(11, 0), Position::new(10, 7)));
        assert_eq!(cursors.low(), HEAD);
        assert_eq!(open(dir.path(), &["a", "b"]).get("a").unwrap().position(), Position::new(10, 7));
    }

    #[test]
    fn what_was_read_once_does_not_go_back_with_a_loss_of_power() {
        let (disk, dir, exporters) = (SimDisk::new(1), Path::new("data"), ["a".to_owned()]);
        let open = || Cursors::open(&disk.storage(), dir, &exporters, &WHOLE, HEAD).unwrap();
        open();
        let path = dir.join("cursor.a");
        let new = Position::new(12, 0);
        let storage = disk.storage();
        let file = storage.open(&path.with_extension("new"), Open::Truncate).unwrap();
        file.write_at(0, &[IoSlice::new(&encode(new, "a"))]).unwrap();
        file.sync().unwrap();
        // Killed before the folder is synced.
        storage.rename(&path.with_extension("new"), &path).unwrap();
        disk.kill();
        assert_eq!(open().get("a").unwrap().saved(), new);
        disk.crash();
        assert_eq!(open().get("a").unwrap().saved(), new);
    }

    #[test]
    fn the_cursor_of_a_removed_exporter_is_deleted() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path(), &["a", "b"]);
        open(dir.path(), &["b"]);
        let names: Vec<_> = Disk.list(dir.path()).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["cursor.b"]);
    }

    #[test]
    fn what_was_noted_survives_the_process_and_mostly_a_loss_of_power() {
        let mut survived = 0;
        for seed in 0..50 {
            let disk = SimDisk::new(seed);
            let storage = disk.storage();
            let open = || Cursors::open(&storage, Path::new("d"), &["a".into()], &WHOLE, HEAD).unwrap();
            storage.create_dir_all(Path::new("d")).unwrap();
            let cursors = open();
            let a = cursors.get("a").unwrap();
            a.advance(Position::new(10, 7));
            a.save().unwrap();
            a.advance(Position::new(11, 3));
            a.note().unwrap();
            disk.kill();
            assert_eq!(open().low(), Position::new(11, 3));
            let cursors = open();
            cursors.get("a").unwrap().advance(Position::new(12, 0));
            cursors.get("a").unwrap().note().unwrap();
            disk.crash();
            let after = open().low();
            assert!([Position::new(11, 3), Position::new(12, 0)].contains(&after), "{after:?}");
            survived += u32::from(after == Position::new(12, 0));
        }
        assert!((1..50).contains(&survived), "{survived}");
    }

    #[test]
    fn a_damaged_cursor_repeats_rather_than_skips() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path(), &["a"]);
        let path = dir.path().join("cursor.a");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[9] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(open(dir.path(), &["a"]).low(), OLDEST);
    }

    #[test]
    fn cursors_that_have_one_anothers_names_are_damaged() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path(), &["a", "b"]);
        std::fs::copy(dir.path().join("cursor.a"), dir.path().join("cursor.b")).unwrap();
        assert_eq!(open(dir.path(), &["b"]).low(), OLDEST);
    }

    #[test]
    fn a_cursor_that_is_gone_is_set_back_to_the_last_state() {
        let dir = tempfile::tempdir().unwrap();
        let seen = Position::new(5, 77);
        let known = Known { cursors: vec![("a".to_owned(), seen)], ..WHOLE };
        let storage: Arc<dyn Storage> = Arc::new(Disk);
        let exporters = ["a".to_owned(), "new".to_owned()];
        let cursors = Cursors::open(&storage, dir.path(), &exporters, &known, HEAD).unwrap();
        let at = |name| cursors.get(name).unwrap().position();
        assert_eq!((at("a"), at("new")), (seen, HEAD));
        let nothing = Known { is_lost: true, ..WHOLE };
        let cursors = Cursors::open(&storage, dir.path(), &["b".into()], &nothing, HEAD).unwrap();
        assert_eq!(cursors.low(), OLDEST, "without a state nobody knows who is new");
    }

    #[test]
    fn a_cursor_of_a_later_version_is_refused_and_a_flipped_bit_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cursor.a");
        let mut bytes = encode(HEAD, "a");
        bytes[4] = 2;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(open(dir.path(), &["a"]).low(), OLDEST);
        let crc = checksum(&bytes[..16], "a");
        bytes[16..].copy_from_slice(&crc.to_le_bytes());
        std::fs::write(&path, bytes).unwrap();
        let storage: Arc<dyn Storage> = Arc::new(Disk);
        let error = Cursors::open(&storage, dir.path(), &["a".into()], &WHOLE, HEAD).unwrap_err();
        assert!(error.to_string().contains("format version 2"), "{error}");
    }
}
