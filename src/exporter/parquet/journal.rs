//! Which uploads in parts were begun, so that the next life can abort those that this one leaves behind.
//!
//! Parts that nobody completes are in no listing of objects and cost money. A store forgets them when it is told to, which
//! needs no right to list them: their names stand in one small file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::log::Storage;
use crate::log::storage::{read_all, write_new};

/// Beyond so many the oldest is forgotten: then the bucket's own rules must remove its parts.
const BEGUN_MAX: usize = 16;

/// The file; clones are the same.
#[derive(Clone, Debug)]
pub struct Journal {
    storage: Arc<dyn Storage>,
    path: PathBuf,
}

/// An upload in parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begun {
    /// Of the store, as the segment's header has it.
    pub(super) url: String,
    /// Of the object.
    pub(super) path: String,
    pub(super) id: String,
}

impl Journal {
    /// `data`: the data folder.
    pub fn new(storage: Arc<dyn Storage>, data: &Path) -> Self {
        Self { storage, path: data.join("parquet.uploads") }
    }

    /// Those whose end is not known. A file that cannot be read says nothing.
    pub(super) fn list(&self) -> Vec<Begun> {
        let bytes = read_all(&*self.storage, &self.path).ok().flatten().unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    pub(super) fn add(&self, begun: Begun) -> io::Result<()> {
        let mut all = self.list();
        all.push(begun);
        let forgotten = all.len().saturating_sub(BEGUN_MAX);
        self.write(&all[forgotten..])
    }

    pub(super) fn remove(&self, begun: &Begun) -> io::Result<()> {
        let mut all = self.list();
        all.retain(|other| other != begun);
        self.write(&all)
    }

    fn write(&self, all: &[Begun]) -> io::Result<()> {
        if all.is_empty() {
            return if self.storage.exists(&self.path)? { self.storage.remove(&self.path) } else { Ok(()) };
        }
        write_new(&*self.storage, &self.path, &serde_json::to_vec(all)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::SimDisk;

    fn begun(id: usize) -> Begun {
        Begun { url: "s3://traces".into(), path: "a.parquet".into(), id: id.to_string() }
    }

    #[test]
    fn what_was_begun_survives_a_loss_of_power_until_it_has_ended() {
        let disk = SimDisk::new(1);
        let journal = || Journal::new(disk.storage(), Path::new("data"));
        disk.storage().create_dir_all(Path::new("data")).unwrap();
        (1..4).for_each(|id| journal().add(begun(id)).unwrap());
        journal().remove(&begun(2)).unwrap();
        disk.crash();
        assert_eq!(journal().list(), [begun(1), begun(3)]);
        journal().remove(&begun(1)).unwrap();
        journal().remove(&begun(3)).unwrap();
        assert!(journal().list().is_empty());
        assert!(disk.storage().list(Path::new("data")).unwrap().is_empty());
    }

    #[test]
    fn it_does_not_grow_without_end_and_takes_no_nonsense() {
        let disk = SimDisk::new(1);
        disk.storage().create_dir_all(Path::new("data")).unwrap();
        let journal = Journal::new(disk.storage(), Path::new("data"));
        (0..40).for_each(|id| journal.add(begun(id)).unwrap());
        assert_eq!(journal.list().len(), BEGUN_MAX);
        assert_eq!(journal.list()[0], begun(24));
        disk.put(Path::new("data/parquet.uploads"), b"[{".to_vec());
        assert!(journal.list().is_empty());
    }
}
