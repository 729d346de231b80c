//! The disk of a run: a [`SimDisk`] behind a fuse. Power or process is gone between any two operations, or in
//! the midst of a write; planted faults sit here too.

use std::io::{self, ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tailwater::log::{File, Open, SimDisk, Storage};

use crate::plant::{self, Plant};
use crate::random::Random;

/// When an end comes: after so many operations on paths that hold a word.
#[derive(Clone, Copy, Debug)]
pub struct Fuse {
    pub on: &'static str,
    pub after: u64,
}

/// Words that tell by which way a path is written.
pub const PATHS: [&str; 5] = ["cursor.", "input", "outbox", "state", "parquet.part"];

#[derive(Debug)]
struct Wiring {
    fuse: Option<Fuse>,
    blown: bool,
    operations: u64,
    torn_writes: u64,
    random: Random,
    /// Nothing more fits into files whose path holds this word.
    full: Option<&'static str>,
    /// Writes that a full disk refused, in the order of [`PATHS`].
    refused: [u64; PATHS.len()],
    /// So many reads of files whose path holds this word fail.
    unreadable: Option<(&'static str, u32)>,
    failed_reads: u64,
    /// Segment files that were begun in this life.
    created: Vec<PathBuf>,
}

/// Clones are the same disk.
#[derive(Clone, Debug)]
pub struct Rig {
    pub disk: SimDisk,
    pub plant: Option<Plant>,
    wiring: Arc<Mutex<Wiring>>,
}

impl Rig {
    pub fn new(seed: u64, plant: Option<Plant>) -> Self {
        let wiring = Wiring {
            fuse: None,
            blown: false,
            operations: 0,
            torn_writes: 0,
            full: None,
            refused: [0; PATHS.len()],
            unreadable: None,
            failed_reads: 0,
            created: Vec::new(),
            random: Random::new(seed ^ 0xD15C),
        };
        Self { disk: SimDisk::new(seed), plant, wiring: Arc::new(Mutex::new(wiring)) }
    }

    /// A new life begins, which ends by this fuse at the latest.
    pub fn arm(&self, fuse: Option<Fuse>) {
        let mut wiring = self.wiring.lock();
        wiring.fuse = fuse;
        wiring.blown = false;
        wiring.created.clear();
    }

    pub fn is_blown(&self) -> bool {
        self.wiring.lock().blown
    }

    pub fn operations(&self) -> u64 {
        self.wiring.lock().operations
    }

    pub fn torn_writes(&self) -> u64 {
        self.wiring.lock().torn_writes
    }

    /// From now on nothing more fits into files whose path holds a word.
    pub fn fill(&self, word: &'static str) {
        self.wiring.lock().full = Some(word);
    }

    /// The next reads of files whose path holds a word fail.
    pub fn fail_reads(&self, word: &'static str, reads: u32) {
        self.wiring.lock().unreadable = Some((word, reads));
    }

    /// What ails it goes away.
    pub fn heal(&self) {
        self.disk.set_capacity(None);
        self.disk.fail_writes(0);
        self.disk.fail_syncs(0);
        let mut wiring = self.wiring.lock();
        (wiring.full, wiring.unreadable) = (None, None);
    }

    /// Writes that a full disk refused, in the order of [`PATHS`], and reads that failed.
    pub fn refused(&self) -> ([u64; PATHS.len()], u64) {
        let wiring = self.wiring.lock();
        (wiring.refused, wiring.failed_reads)
    }

    /// Files that got their names since this was asked last.
    pub fn created(&self) -> Vec<PathBuf> {
        std::mem::take(&mut self.wiring.lock().created)
    }

    /// Before anything is changed on the disk.
    fn operate(&self, path: &Path) -> io::Result<()> {
        let mut wiring = self.wiring.lock();
        wiring.operations += 1;
        if let Some(fuse) = wiring.fuse.as_mut().filter(|fuse| holds(path, fuse.on)) {
            match fuse.after.checked_sub(1) {
                Some(left) => fuse.after = left,
                None => wiring.blown = true,
            }
        }
        if wiring.blown { Err(io::Error::other("the end of this life")) } else { Ok(()) }
    }

    /// How many bytes of a write find room before there is none. None: all.
    fn fitting(&self, path: &Path, bytes: usize) -> Option<usize> {
        let mut wiring = self.wiring.lock();
        wiring.full.filter(|word| holds(path, word))?;
        Some(wiring.random.below(bytes as u64 + 1) as usize)
    }

    fn count_refused(&self, path: &Path) {
        let at = PATHS.iter().position(|word| holds(path, word));
        at.into_iter().for_each(|at| self.wiring.lock().refused[at] += 1);
    }

    fn fails_to_read(&self, path: &Path) -> bool {
        let mut wiring = self.wiring.lock();
        let Some((_, left)) =
            wiring.unreadable.as_mut().filter(|(word, left)| *left > 0 && holds(path, word))
        else {
            return false;
        };
        *left -= 1;
        wiring.failed_reads += 1;
        true
    }

    fn wrap(&self, path: &Path, file: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(RigFile { rig: self.clone(), path: path.to_owned(), file })
    }
}

fn holds(path: &Path, word: &str) -> bool {
    path.to_str().is_some_and(|path| path.contains(word))
}

impl Storage for Rig {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        if how == Open::CreateNew || how == Open::Truncate {
            self.operate(path)?;
        }
        let file = self.disk.open(path, how)?;
        if how == Open::CreateNew {
            self.wiring.lock().created.push(path.to_owned());
        }
        if let (Some(plant), Open::Read) = (self.plant, how)
            && let Some(content) = plant.misread(path, || self.disk.content(path).unwrap_or_default())
        {
            return Ok(Arc::new(Frozen(content)));
        }
        Ok(self.wrap(path, file))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<(String, u64)>> {
        self.disk.list(dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.operate(path)?;
        self.disk.remove(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operate(to)?;
        self.wiring.lock().created.push(to.to_owned());
        self.disk.rename(from, to)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.operate(dir)?;
        self.disk.sync_dir(dir)
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        self.disk.try_lock(path)
    }

    fn available(&self, path: &Path) -> Option<u64> {
        self.disk.available(path)
    }

    fn writable(&self, dir: &Path) -> io::Result<()> {
        self.disk.writable(dir)
    }
}

#[derive(Debug)]
struct RigFile {
    rig: Rig,
    path: PathBuf,
    file: Arc<dyn File>,
}

impl RigFile {
    /// What a planted fault does with a write, or before it.
    fn planted(&self, plant: Plant, parts: &[IoSlice<'_>]) -> Option<Vec<u8>> {
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        if plant == Plant::DeleteBeforeState && holds(&self.path, "state.new") {
            for path in plant::dispensable(&bytes, &self.rig.disk) {
                _ = self.rig.disk.remove(&path);
            }
        }
        match plant {
            Plant::HalfGroup if holds(&self.path, "outbox") => Some(plant::apart(bytes)),
            Plant::PieceForgotten if holds(&self.path, "outbox") => Some(plant::through_all(bytes)),
            _ => None,
        }
    }

    fn write_what_fits(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let len = parts.iter().map(|part| part.len()).sum();
        let Some(fits) = self.rig.fitting(&self.path, len) else { return self.file.write_at(offset, parts) };
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        self.file.write_at(offset, &[IoSlice::new(&bytes[..fits])])?;
        Err(ErrorKind::StorageFull.into())
    }

    /// The end comes in the midst of a write.
    fn tear(&self, offset: u64, parts: &[IoSlice<'_>]) {
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let mut wiring = self.rig.wiring.lock();
        wiring.torn_writes += 1;
        let survives = wiring.random.below(bytes.len() as u64 + 1) as usize;
        _ = self.file.write_at(offset, &[IoSlice::new(&bytes[..survives])]);
    }
}

impl File for RigFile {
    fn write_at(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let changed = self.rig.plant.and_then(|plant| self.planted(plant, parts));
        let changed = changed.as_deref().map(IoSlice::new);
        let parts = changed.as_ref().map_or(parts, std::slice::from_ref);
        let lived = !self.rig.is_blown();
        if let Err(end) = self.rig.operate(&self.path) {
            if lived {
                self.tear(offset, parts);
            }
            return Err(end);
        }
        let written = self.write_what_fits(offset, parts);
        if !written.as_ref().is_err_and(|error| error.kind() == ErrorKind::StorageFull) {
            return written;
        }
        self.rig.count_refused(&self.path);
        if self.rig.plant == Some(Plant::FullIgnored) { Ok(()) } else { written }
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        match (self.rig.fails_to_read(&self.path), self.rig.plant) {
            (false, _) => self.file.read_at(offset, into),
            (true, Some(Plant::ReadErrorAsEnd)) => Ok(0),
            (true, _) => Err(io::Error::other("a read fails")),
        }
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn sync(&self) -> io::Result<()> {
        self.rig.operate(&self.path)?;
        if self.rig.plant == Some(Plant::SyncSkipped) && holds(&self.path, "input") {
            return Ok(());
        }
        self.file.sync()
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.rig.operate(&self.path)?;
        self.file.truncate(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.rig.operate(&self.path)?;
        if self.rig.fitting(&self.path, 0).is_some() {
            return Err(ErrorKind::StorageFull.into());
        }
        self.file.allocate(len)
    }
}

/// A file as it was misread.
#[derive(Debug)]
struct Frozen(Vec<u8>);

impl File for Frozen {
    fn write_at(&self, _: u64, _: &[IoSlice<'_>]) -> io::Result<()> {
        Err(ErrorKind::PermissionDenied.into())
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let from = self.0.get(offset as usize..).unwrap_or(&[]);
        let len = from.len().min(into.len());
        into[..len].copy_from_slice(&from[..len]);
        Ok(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&self, _: u64) -> io::Result<()> {
        Err(ErrorKind::PermissionDenied.into())
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        Err(ErrorKind::PermissionDenied.into())
    }
}
