//! How far each exporter has come in the outbox: one small file an exporter.
//!
//! Everything before a cursor has met its fate at that backend. The end of the process loses nothing of it that was
//! noted, a loss of power the steps since it was last saved; neither ever invents one. What is lost is sent again.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::log::storage::{self, Open, Storage};
use crate::trace::Position;

const PREFIX: &str = "cursor.";
const MAGIC: [u8; 4] = *b"TWCU";
const VERSION: u16 = 1;
/// magic, version, two zero bytes, segment, offset, crc32c of all before; little endian.
const LEN: usize = 20;
/// Behind what is saved stands, in the same form, what is only noted: a torn write cannot hurt the other.
const NOTE_AT: u64 = LEN as u64;

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
            opened.write_at(NOTE_AT, &[IoSlice::new(&encode(position))])?;
            file.noted = position;
        }
        Ok(())
    }

    fn write(&self, position: Position) -> io::Result<()> {
        storage::write_new(&*self.storage, &self.path, &encode(position))
    }
}

/// The cursors of all configured exporters.
#[derive(Clone, Debug)]
pub struct Cursors(Vec<Arc<Cursor>>);

impl Cursors {
    /// Reads `dir/cursor.<exporter>` of every exporter. One without a file is new and starts at `head`; one whose file
    /// cannot be read starts at `oldest`; files of exporters that are not configured any more are removed.
    pub fn open(
        storage: &Arc<dyn Storage>,
        dir: &Path,
        exporters: &[String],
        oldest: Position,
        head: Position,
    ) -> io::Result<Self> {
        remove_strangers(&**storage, dir, exporters)?;
        let open = |exporter: &String| open_one(storage, dir, exporter, oldest, head).map(Arc::new);
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

fn open_one(
    storage: &Arc<dyn Storage>,
    dir: &Path,
    exporter: &str,
    oldest: Position,
    head: Position,
) -> io::Result<Cursor> {
    let path = dir.join(format!("{PREFIX}{exporter}"));
    let file = storage::read_all(&**storage, &path)?;
    let known = file.as_deref().map(decode);
    let position = match known {
        Some(Some(position)) => position,
        Some(None) => {
            tracing::warn!(exporter, "cursor file is damaged, all that the outbox holds is sent again");
            oldest
        }
        None => head,
    };
    let (exporter, storage) = (exporter.into(), storage.clone());
    let reached = AtomicU64::new(position.to_u64());
    let file_says = Mutex::new(InFile { saved: position, noted: position });
    let cursor = Cursor { exporter, path, storage, reached, file: file_says };
    // A new exporter must not be new again after a crash: it would begin at a later head. And what is noted counts as
    // saved from now on.
    if known.flatten().is_none() || file.is_some_and(|file| file.len() > LEN) {
        cursor.write(position)?;
    }
    Ok(cursor)
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

fn encode(position: Position) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
    bytes[8..12].copy_from_slice(&position.segment.to_le_bytes());
    bytes[12..16].copy_from_slice(&position.offset.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..16]);
    bytes[16..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// The later of what is saved and what is noted.
fn decode(bytes: &[u8]) -> Option<Position> {
    let (saved, noted) = bytes.split_at_checked(LEN)?;
    let note = if noted.is_empty() { None } else { decode_one(noted) };
    decode_one(saved).into_iter().chain(note).max()
}

fn decode_one(bytes: &[u8]) -> Option<Position> {
    let bytes: &[u8; LEN] = bytes.try_into().ok()?;
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let readable = bytes[..4] == MAGIC
        && bytes[4..6] == VERSION.to_le_bytes()
        && word(16) == crc32c::crc32c(&bytes[..16]);
    readable.then(|| Position::new(word(8), word(12)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::SimDisk;
    use crate::log::storage::Disk;

    const OLDEST: Position = Position::new(1, 0);
    const HEAD: Position = Position::new(9, 0);

    fn open(dir: &Path, exporters: &[&str]) -> Cursors {
        let exporters: Vec<String> = exporters.iter().map(|name| (*name).to_owned()).collect();
        let storage: Arc<dyn Storage> = Arc::new(Disk);
        Cursors::open(&storage, dir, &exporters, OLDEST, HEAD).unwrap()
    }

    #[test]
    fn a_new_exporter_starts_at_the_head_and_stays_there() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(open(dir.path(), &["a"]).low(), HEAD);
        let storage: Arc<dyn Storage> = Arc::new(Disk);
        let later = Cursors::open(&storage, dir.path(), &["a".into()], OLDEST, Position::new(20, 0)).unwrap();
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
            let open = || Cursors::open(&storage, Path::new("d"), &["a".into()], OLDEST, HEAD).unwrap();
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
}
