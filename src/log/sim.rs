//! A disk in memory that fails on request: for tests and for deterministic simulation of every module.
//!
//! It keeps apart what was written and what was synced. [`SimDisk::crash`] is a loss of power: synced content
//! and synced names stay, of the rest a seeded choice survives, possibly torn or out of order. Without a crash
//! everything written stays: that is the end of a process. No thread, no clock, no randomness but the seed.

use super::storage::{File, Open, Storage};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The disk; clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    names: BTreeMap<PathBuf, usize>,
    /// What the names are after a crash, as far as that is certain.
    synced_names: BTreeMap<PathBuf, usize>,
    nodes: Vec<Node>,
    locks: BTreeSet<PathBuf>,
    random: u64,
    /// Raised by a crash or a restart: handles and locks from before are dead.
    life: u64,
    capacity: Option<u64>,
    failing_writes: u32,
    failing_syncs: u32,
    /// So many reads until one fails.
    failing_read: Option<u32>,
    counts: Counts,
}

/// What was asked of the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub writes: u64,
    pub syncs: u64,
    pub dir_syncs: u64,
    pub bytes_written: u64,
}

#[derive(Clone, Debug, Default)]
struct Node {
    content: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<Change>,
    reserved: u64,
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write(at, bytes) => {
                content.resize(content.len().max(at + bytes.len()), 0);
                content[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            Self::Truncate(len) => content.resize(*len, 0),
        }
    }

    fn torn(&self, random: u64) -> Option<Self> {
        match self {
            Self::Write(at, bytes) if !bytes.is_empty() => {
                Some(Self::Write(*at, bytes[..random as usize % bytes.len()].to_vec()))
            }
            _ => None,
        }
    }
}

impl Node {
    fn apply(&mut self, change: Change) {
        change.apply(&mut self.content);
        self.unsynced.push(change);
    }

    fn space(&self) -> u64 {
        self.reserved.max(self.content.len() as u64)
    }
}

impl SimDisk {
    pub fn new(seed: u64) -> Self {
        let inner = Inner {
            names: BTreeMap::new(),
            synced_names: BTreeMap::new(),
            nodes: Vec::new(),
            locks: BTreeSet::new(),
            random: seed,
            life: 0,
            capacity: None,
            failing_writes: 0,
            failing_syncs: 0,
            failing_read: None,
            counts: Counts::default(),
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// As the trait object that modules take.
    pub fn storage(&self) -> Arc<dyn Storage> {
        Arc::new(self.clone())
    }

    /// Power is lost: open handles die, locks fall, what was not synced may be gone or torn.
    pub fn crash(&self) {
        let mut inner = self.inner.lock();
        inner.restart();
        inner.choose_names();
        for index in 0..inner.nodes.len() {
            inner.choose_content(index);
        }
    }

    /// The process ends: open handles die, locks fall, what was written stays.
    pub fn kill(&self) {
        self.inner.lock().restart();
    }

    /// Bytes that all files together may take from now on; `None`: no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.inner.lock().capacity = bytes;
    }

    /// Bytes that all files take, reserved room included.
    pub fn used(&self) -> u64 {
        self.inner.lock().used()
    }

    /// The next `count` writes fail with an I/O error.
    pub fn fail_writes(&self, count: u32) {
        self.inner.lock().failing_writes = count;
    }

    /// The next `count` syncs of a file or a folder fail with an I/O error.
    pub fn fail_syncs(&self, count: u32) {
        self.inner.lock().failing_syncs = count;
    }

    /// One read fails with an I/O error, after `good` that do not.
    pub fn fail_read(&self, good: u32) {
        self.inner.lock().failing_read = Some(good);
    }

    pub fn counts(&self) -> Counts {
        self.inner.lock().counts
    }

    /// A file's content as readers see it.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let inner = self.inner.lock();
        inner.names.get(path).map(|index| inner.nodes[*index].content.clone())
    }

    /// Puts a file there, durable at once: to start from, or to damage.
    pub fn put(&self, path: &Path, content: Vec<u8>) {
        let mut inner = self.inner.lock();
        let index = inner.nodes.len();
        inner.nodes.push(Node { synced: content.clone(), content, ..Node::default() });
        inner.names.insert(path.to_owned(), index);
        inner.synced_names.insert(path.to_owned(), index);
    }
}

impl Inner {
    fn restart(&mut self) {
        self.life += 1;
        self.locks.clear();
    }

    /// splitmix64: <https://prng.di.unimi.it/splitmix64.c>
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn coin(&mut self) -> bool {
        self.random() & 1 == 0
    }

    /// Each name whose folder was not synced since is, by a coin, the old or the new.
    fn choose_names(&mut self) {
        let touched: BTreeSet<PathBuf> = self.names.keys().chain(self.synced_names.keys()).cloned().collect();
        for name in touched {
            let (new, old) = (self.names.get(&name).copied(), self.synced_names.get(&name).copied());
            let survivor = if new == old || self.coin() { new } else { old };
            match survivor {
                Some(index) => _ = self.names.insert(name.clone(), index),
                None => _ = self.names.remove(&name),
            }
        }
        self.synced_names = self.names.clone();
    }

    /// Of the changes since the last sync a prefix survives, or any of them; the last may be torn.
    fn choose_content(&mut self, index: usize) {
        let mut node = std::mem::take(&mut self.nodes[index]);
        let in_order = self.coin();
        for change in std::mem::take(&mut node.unsynced) {
            match self.random() % 3 {
                0 if in_order => break,
                0 => {}
                1 => {
                    let random = self.random();
                    if let Some(torn) = change.torn(random) {
                        torn.apply(&mut node.synced);
                    }
                    if in_order {
                        break;
                    }
                }
                _ => change.apply(&mut node.synced),
            }
        }
        node.content = node.synced.clone();
        node.reserved = 0;
        self.nodes[index] = node;
    }

    fn used(&self) -> u64 {
        let live: BTreeSet<usize> = self.names.values().copied().collect();
        live.iter().map(|index| self.nodes[*index].space()).sum()
    }

    /// How many of `wanted` further bytes fit.
    fn fitting(&self, wanted: u64) -> u64 {
        self.capacity.map_or(wanted, |capacity| wanted.min(capacity.saturating_sub(self.used())))
    }

    fn index(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn read_allowed(&mut self) -> io::Result<()> {
        let Some(good) = self.failing_read else { return Ok(()) };
        self.failing_read = good.checked_sub(1);
        if good == 0 { Err(io::Error::other("injected read failure")) } else { Ok(()) }
    }

    fn sync_allowed(&mut self) -> io::Result<()> {
        if self.failing_syncs > 0 {
            self.failing_syncs -= 1;
            return Err(io::Error::other("injected sync failure"));
        }
        Ok(())
    }
}

impl Storage for SimDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let mut inner = self.inner.lock();
        let known = inner.names.get(path).copied();
        let index = match (how, known) {
            (Open::Read | Open::Write, None) => return Err(ErrorKind::NotFound.into()),
            (Open::CreateNew, Some(_)) => return Err(ErrorKind::AlreadyExists.into()),
            (Open::Read | Open::Write, Some(index)) => index,
            (Open::Truncate, Some(index)) => {
                inner.nodes[index].apply(Change::Truncate(0));
                inner.nodes[index].reserved = 0;
                index
            }
            (Open::CreateNew | Open::Truncate, None) => {
                inner.nodes.push(Node::default());
                let index = inner.nodes.len() - 1;
                inner.names.insert(path.to_owned(), index);
                index
            }
        };
        let writes = how != Open::Read;
        Ok(Arc::new(SimFile { inner: self.inner.clone(), index, writes, life: inner.life }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<(String, u64)>> {
        let inner = self.inner.lock();
        let in_dir = inner.names.iter().filter(|(path, _)| path.parent() == Some(dir));
        let named = in_dir.filter_map(|(path, index)| {
            Some((path.file_name()?.to_str()?.to_owned(), inner.nodes[*index].content.len() as u64))
        });
        Ok(named.collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.inner.lock().names.contains_key(path))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.lock().names.remove(path).map(|_| ()).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.inner.lock();
        let index = inner.index(from)?;
        inner.names.remove(from);
        inner.names.insert(to.to_owned(), index);
        Ok(())
    }

    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.sync_allowed()?;
        inner.counts.dir_syncs += 1;
        let in_dir = |path: &Path| path.parent() == Some(dir);
        inner.synced_names.retain(|path, _| !in_dir(path));
        let names: Vec<_> = inner
            .names
            .iter()
            .filter(|(path, _)| in_dir(path))
            .map(|(path, index)| (path.clone(), *index))
            .collect();
        inner.synced_names.extend(names);
        Ok(())
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        let mut inner = self.inner.lock();
        if !inner.locks.insert(path.to_owned()) {
            return Ok(None);
        }
        Ok(Some(Box::new(SimLock { inner: self.inner.clone(), path: path.to_owned(), life: inner.life })))
    }

    fn available(&self, _: &Path) -> Option<u64> {
        let inner = self.inner.lock();
        inner.capacity.map(|capacity| capacity.saturating_sub(inner.used()))
    }

    fn writable(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct SimLock {
    inner: Arc<Mutex<Inner>>,
    path: PathBuf,
    life: u64,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut inner = self.inner.lock();
        if inner.life == self.life {
            inner.locks.remove(&self.path);
        }
    }
}

#[derive(Debug)]
struct SimFile {
    inner: Arc<Mutex<Inner>>,
    index: usize,
    writes: bool,
    life: u64,
}

impl SimFile {
    fn alive<T>(&self, act: impl FnOnce(&mut Inner) -> io::Result<T>) -> io::Result<T> {
        let mut inner = self.inner.lock();
        if inner.life != self.life {
            return Err(io::Error::other("this handle is from before the crash"));
        }
        act(&mut inner)
    }

    fn writable(&self) -> io::Result<()> {
        if self.writes { Ok(()) } else { Err(ErrorKind::PermissionDenied.into()) }
    }
}

impl File for SimFile {
    fn write_at(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        self.writable()?;
        self.alive(|inner| {
            if inner.failing_writes > 0 {
                inner.failing_writes -= 1;
                return Err(io::Error::other("injected write failure"));
            }
            let mut bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
            let end = offset + bytes.len() as u64;
            let grows = end.saturating_sub(inner.nodes[self.index].space());
            let missing = grows - inner.fitting(grows);
            bytes.truncate(bytes.len().saturating_sub(missing as usize));
            inner.counts.writes += 1;
            inner.counts.bytes_written += bytes.len() as u64;
            inner.nodes[self.index].apply(Change::Write(offset as usize, bytes));
            if missing > 0 { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
        })
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.alive(|inner| {
            inner.read_allowed()?;
            let content = &inner.nodes[self.index].content;
            let from = content.get(offset as usize..).unwrap_or(&[]);
            let len = from.len().min(into.len());
            into[..len].copy_from_slice(&from[..len]);
            Ok(len)
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.alive(|inner| Ok(inner.nodes[self.index].content.len() as u64))
    }

    fn sync(&self) -> io::Result<()> {
        self.alive(|inner| {
            inner.sync_allowed()?;
            inner.counts.syncs += 1;
            let node = &mut inner.nodes[self.index];
            node.unsynced.clear();
            node.synced.clone_from(&node.content);
            Ok(())
        })
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.writable()?;
        self.alive(|inner| {
            let node = &mut inner.nodes[self.index];
            node.apply(Change::Truncate(len as usize));
            node.reserved = 0;
            Ok(())
        })
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.writable()?;
        self.alive(|inner| {
            let grows = len.saturating_sub(inner.nodes[self.index].space());
            if inner.fitting(grows) < grows {
                return Err(ErrorKind::StorageFull.into());
            }
            let node = &mut inner.nodes[self.index];
            node.reserved = node.reserved.max(len);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::storage::{read_all, write_new};

    fn write(disk: &SimDisk, path: &str, at: u64, bytes: &[u8]) -> io::Result<()> {
        let how = if disk.exists(Path::new(path)).unwrap() { Open::Write } else { Open::CreateNew };
        disk.open(Path::new(path), how)?.write_at(at, &[IoSlice::new(bytes)])
    }

    #[test]
    fn a_crash_keeps_what_was_synced_and_sometimes_loses_the_rest() {
        let mut lost = 0;
        for seed in 0..50 {
            let disk = SimDisk::new(seed);
            write(&disk, "d/f", 0, b"synced").unwrap();
            disk.open(Path::new("d/f"), Open::Read).unwrap().sync().unwrap();
            disk.sync_dir(Path::new("d")).unwrap();
            write(&disk, "d/f", 6, b" and not").unwrap();
            disk.crash();
            let content = disk.content(Path::new("d/f")).unwrap();
            assert!(content.starts_with(b"synced"));
            lost += usize::from(content.len() < 14);
        }
        assert!(lost > 5 && lost < 50, "{lost}");
    }

    #[test]
    fn a_name_that_was_not_synced_may_be_gone_though_its_content_was() {
        let gone = (0..50)
            .filter(|seed| {
                let disk = SimDisk::new(*seed);
                write(&disk, "d/f", 0, b"x").unwrap();
                disk.open(Path::new("d/f"), Open::Read).unwrap().sync().unwrap();
                disk.crash();
                disk.content(Path::new("d/f")).is_none()
            })
            .count();
        assert!(gone > 5 && gone < 45, "{gone}");
    }

    #[test]
    fn write_new_is_old_or_new_after_a_crash_at_any_point_and_new_once_it_returned() {
        for seed in 0..100 {
            let disk = SimDisk::new(seed);
            write_new(&disk, Path::new("d/state"), b"old").unwrap();
            if seed % 2 == 0 {
                disk.fail_syncs(1);
                assert!(write_new(&disk, Path::new("d/state"), b"newer").is_err());
                disk.crash();
                assert_eq!(read_all(&disk, Path::new("d/state")).unwrap().unwrap(), b"old");
            } else {
                write_new(&disk, Path::new("d/state"), b"newer").unwrap();
                disk.crash();
                assert_eq!(read_all(&disk, Path::new("d/state")).unwrap().unwrap(), b"newer");
            }
        }
    }

    #[test]
    fn a_full_disk_takes_what_fits_and_reserved_room_is_kept_for_its_file() {
        let disk = SimDisk::new(1);
        let reserved = disk.open(Path::new("d/r"), Open::CreateNew).unwrap();
        reserved.allocate(60).unwrap();
        disk.set_capacity(Some(100));
        let full = write(&disk, "d/f", 0, &[1; 50]).unwrap_err();
        assert_eq!(full.kind(), ErrorKind::StorageFull);
        assert_eq!(disk.content(Path::new("d/f")).unwrap().len(), 40);
        reserved.write_at(0, &[IoSlice::new(&[2; 60])]).unwrap();
        assert_eq!(disk.available(Path::new("d")), Some(0));
    }

    #[test]
    fn the_end_of_a_process_loses_nothing_but_locks_and_handles() {
        let disk = SimDisk::new(1);
        let file = disk.open(Path::new("d/f"), Open::CreateNew).unwrap();
        file.write_at(0, &[IoSlice::new(b"x")]).unwrap();
        let lock = disk.try_lock(Path::new("d/lock")).unwrap();
        assert!(disk.try_lock(Path::new("d/lock")).unwrap().is_none());
        disk.kill();
        let again = disk.try_lock(Path::new("d/lock")).unwrap();
        drop(lock);
        assert!(again.is_some() && disk.try_lock(Path::new("d/lock")).unwrap().is_none());
        assert!(file.write_at(1, &[]).is_err());
        assert_eq!(disk.content(Path::new("d/f")).unwrap(), b"x");
    }
}
