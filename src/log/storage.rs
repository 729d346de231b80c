//! The only way to touch a disk: logs, cursors, state, temporary files.
//!
//! Code that writes takes an `Arc<dyn Storage>`, so that a test can lose power, fill the disk or fail
//! an fsync where a real one cannot.

use std::fmt::Debug;
use std::fs::{self, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// Slices that one system call takes at most (`IOV_MAX`).
const SLICES_MAX: usize = 1024;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// To read what exists.
    Read,
    /// To read and write what exists.
    Write,
    /// To write what must not exist yet.
    CreateNew,
    /// To write from nothing, whether it exists or not.
    Truncate,
}

/// A folder tree that can be made durable.
pub trait Storage: Debug + Send + Sync {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>>;
    /// The files directly in `dir` with their lengths, by name; none if it does not exist.
    fn list(&self, dir: &Path) -> io::Result<Vec<(String, u64)>>;
    fn exists(&self, path: &Path) -> io::Result<bool>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Replaces what has the name `to`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Creates what is missing of the path, durably.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Makes the names in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Holds the file at `path` until the guard is dropped; `None` if another process holds it.
    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>>;
    /// Bytes that can still be written below `path`, where that is known.
    fn available(&self, path: &Path) -> Option<u64>;
    /// Whether `dir` is a folder in which this process may create files; if not, why.
    fn writable(&self, dir: &Path) -> io::Result<()>;
}

/// An open file. One writer at a time; readers beside it.
pub trait File: Debug + Send + Sync {
    /// Writes all parts, one after the other, at `offset`. After an error any of it may be there.
    fn write_at(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()>;
    /// Fills `into` as far as the file goes; fewer bytes mean its end.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;
    fn len(&self) -> io::Result<u64>;
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Makes the content durable (fdatasync).
    fn sync(&self) -> io::Result<()>;
    /// Sets the length and gives back what was reserved beyond it.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Reserves room for `len` bytes without changing the length, where the file system can.
    fn allocate(&self, len: u64) -> io::Result<()>;
}

/// Puts `bytes` at `path` so that after a crash either the old content is there or all of the new.
pub fn write_new(storage: &dyn Storage, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir =
        path.parent().ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "a path without a folder"))?;
    let name =
        path.file_name().ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "a path without a name"))?;
    let mut temporary = name.to_owned();
    temporary.push(".new");
    let temporary = dir.join(temporary);
    let file = storage.open(&temporary, Open::Truncate)?;
    file.write_at(0, &[IoSlice::new(bytes)])?;
    file.sync()?;
    storage.rename(&temporary, path)?;
    storage.sync_dir(dir)
}

/// All of a small file; `None` if it does not exist.
pub fn read_all(storage: &dyn Storage, path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match storage.open(path, Open::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = vec![0; file.len()? as usize];
    let read = file.read_at(0, &mut bytes)?;
    bytes.truncate(read);
    Ok(Some(bytes))
}

/// The machine's own file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Storage for Disk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match how {
            Open::Read => {}
            Open::Write => _ = options.write(true),
            Open::CreateNew => _ = options.write(true).create_new(true),
            Open::Truncate => _ = options.write(true).create(true).truncate(true),
        }
        Ok(Arc::new(DiskFile(options.open(path)?)))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<(String, u64)>> {
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry?;
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == ErrorKind::NotFound => continue, // removed meanwhile
                Err(error) => return Err(error),
            };
            if let (true, Ok(name)) = (metadata.is_file(), entry.file_name().into_string()) {
                files.push((name, metadata.len()));
            }
        }
        files.sort();
        Ok(files)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        fs::exists(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let missing: Vec<&Path> = dir.ancestors().take_while(|path| !path.exists()).collect();
        fs::create_dir_all(dir)?;
        for parent in missing.into_iter().filter_map(Path::parent) {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            self.sync_dir(parent)?;
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn available(&self, path: &Path) -> Option<u64> {
        let stat = rustix::fs::statvfs(path).ok()?;
        Some(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn writable(&self, dir: &Path) -> io::Result<()> {
        use rustix::fs::{Access, access};
        if !fs::metadata(dir)?.is_dir() {
            return Err(ErrorKind::NotADirectory.into());
        }
        Ok(access(dir, Access::WRITE_OK | Access::EXEC_OK)?)
    }
}

#[derive(Debug)]
struct DiskFile(fs::File);

impl File for DiskFile {
    fn write_at(&self, mut offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        for chunk in parts.chunks(SLICES_MAX) {
            offset = write_chunk(&self.0, offset, chunk)?;
        }
        Ok(())
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < into.len() {
            match self.0.read_at(&mut into[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        allocate(&self.0, len)
    }
}

/// Writes one chunk of at most [`SLICES_MAX`] parts; returns the offset behind it.
fn write_chunk(file: &fs::File, mut offset: u64, chunk: &[IoSlice<'_>]) -> io::Result<u64> {
    let total: usize = chunk.iter().map(|part| part.len()).sum();
    let mut written = write_vectored(file, offset, chunk)?;
    offset += written as u64;
    if written == total {
        return Ok(offset);
    }
    // A short write, which is rare (a full disk, a signal): finish part by part.
    for part in chunk {
        let done = written.min(part.len());
        written -= done;
        file.write_all_at(&part[done..], offset)?;
        offset += (part.len() - done) as u64;
    }
    Ok(offset)
}

fn write_vectored(file: &fs::File, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    loop {
        match rustix::io::pwritev(file, parts, offset) {
            Ok(written) => return Ok(written),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(target_os = "linux")]
fn allocate(file: &fs::File, len: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::Errno;
    match fallocate(file, FallocateFlags::KEEP_SIZE, 0, len) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(target_os = "linux"))]
fn allocate(_: &fs::File, _: u64) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_parts_than_one_system_call_takes_are_all_written() {
        let dir = tempfile::tempdir().unwrap();
        let file = Disk.open(&dir.path().join("f"), Open::CreateNew).unwrap();
        let parts: Vec<[u8; 3]> = (0..2500u32).map(|n| [n as u8, (n >> 8) as u8, 7]).collect();
        let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        file.write_at(5, &slices).unwrap();
        let mut back = vec![0; 7600];
        assert_eq!(file.read_at(5, &mut back).unwrap(), 7500);
        assert_eq!(back[..7500], parts.concat());
    }

    #[test]
    fn a_lock_is_held_once_and_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = Disk.try_lock(&path).unwrap();
        assert!(held.is_some());
        assert!(Disk.try_lock(&path).unwrap().is_none());
        drop(held);
        assert!(Disk.try_lock(&path).unwrap().is_some());
    }

    #[test]
    fn folders_are_created_with_all_that_is_missing_above_them() {
        let dir = tempfile::tempdir().unwrap();
        Disk.create_dir_all(&dir.path().join("a/b/c")).unwrap();
        Disk.create_dir_all(&dir.path().join("a/b/c")).unwrap();
        assert!(Disk.exists(&dir.path().join("a/b/c")).unwrap());
    }

    #[test]
    fn a_folder_is_writable_and_a_file_or_nothing_is_not() {
        let dir = tempfile::tempdir().unwrap();
        Disk.writable(dir.path()).unwrap();
        fs::write(dir.path().join("file"), b"").unwrap();
        let kind = |name: &str| Disk.writable(&dir.path().join(name)).unwrap_err().kind();
        assert_eq!((kind("file"), kind("none")), (ErrorKind::NotADirectory, ErrorKind::NotFound));
    }

    #[test]
    fn reserving_room_keeps_the_length() {
        let dir = tempfile::tempdir().unwrap();
        let file = Disk.open(&dir.path().join("f"), Open::CreateNew).unwrap();
        file.allocate(1 << 20).unwrap();
        assert_eq!(file.len().unwrap(), 0);
    }

    #[test]
    fn write_new_replaces_and_leaves_no_second_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        write_new(&Disk, &path, b"old").unwrap();
        write_new(&Disk, &path, b"new one").unwrap();
        assert_eq!(read_all(&Disk, &path).unwrap().unwrap(), b"new one");
        assert_eq!(Disk.list(dir.path()).unwrap(), [("state".to_owned(), 7)]);
        assert!(Disk.available(dir.path()).unwrap() > 0);
    }
}
