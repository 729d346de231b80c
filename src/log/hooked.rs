//! A storage that asks a test before it does anything: to fail it, to hold it up, to note its order.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{File, Open, Storage};

type Hook = Arc<dyn Fn(&str, &Path) -> io::Result<()> + Send + Sync>;

/// Asks before each `open`, `write`, `sync`, `rename` (by the new name), `remove` and `writable`.
pub(crate) struct Hooked {
    inner: Arc<dyn Storage>,
    before: Hook,
}

struct HookedFile {
    inner: Arc<dyn File>,
    path: PathBuf,
    before: Hook,
}

impl std::fmt::Debug for Hooked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

impl std::fmt::Debug for HookedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

impl Hooked {
    pub(crate) fn over(
        inner: Arc<dyn Storage>,
        before: impl Fn(&str, &Path) -> io::Result<()> + Send + Sync + 'static,
    ) -> Arc<dyn Storage> {
        Arc::new(Self { inner, before: Arc::new(before) })
    }
}

impl Storage for Hooked {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        (self.before)("open", path)?;
        let inner = self.inner.open(path, how)?;
        Ok(Arc::new(HookedFile { inner, path: path.to_owned(), before: self.before.clone() }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<(String, u64)>> {
        self.inner.list(dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.inner.exists(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        (self.before)("remove", path)?;
        self.inner.remove(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        (self.before)("rename", to)?;
        self.inner.rename(from, to)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.inner.create_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.sync_dir(dir)
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        self.inner.try_lock(path)
    }

    fn available(&self, path: &Path) -> Option<u64> {
        self.inner.available(path)
    }

    fn writable(&self, dir: &Path) -> io::Result<()> {
        (self.before)("writable", dir)?;
        self.inner.writable(dir)
    }
}

impl File for HookedFile {
    fn write_at(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<()> {
        (self.before)("write", &self.path)?;
        self.inner.write_at(offset, parts)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.inner.read_at(offset, into)
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn sync(&self) -> io::Result<()> {
        (self.before)("sync", &self.path)?;
        self.inner.sync()
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.inner.truncate(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.inner.allocate(len)
    }
}
