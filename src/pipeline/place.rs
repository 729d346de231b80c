//! The data directory: whose it is, and what lies where in it.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tracing::warn;
use uuid::Uuid;

use super::{Lock, Settings};
use crate::log::{Disk, Storage, storage};

/// A data directory that is ours while this exists.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) data: PathBuf,
    pub(super) input: PathBuf,
    pub(super) outbox: PathBuf,
    pub(super) state: PathBuf,
    /// Random, made once.
    pub(super) instance: Uuid,
    pub(super) lock: Lock,
}

impl Place {
    /// Creates and locks the directory.
    pub(super) fn open(settings: &Settings, data: &Path) -> anyhow::Result<Self> {
        let storage = &*settings.storage;
        let at = || data.display();
        storage.create_dir_all(data).with_context(|| expected(data))?;
        for dir in [data, &data.join("input"), &data.join("outbox")] {
            usable(storage, dir)?;
        }
        let locked = storage.try_lock(&data.join("lock")).with_context(|| format!("lock {}", at()))?;
        let Some(lock) = locked else {
            bail!("{} is in use by another process; every instance needs a data directory of its own", at())
        };
        let place = |name| data.join(name);
        Ok(Self {
            data: data.to_owned(),
            input: place("input"),
            outbox: place("outbox"),
            state: place("state"),
            instance: instance(storage, data, settings.new_uuid)?,
            lock: Lock(lock),
        })
    }
}

/// A folder that is not there yet is made later.
fn usable(storage: &dyn Storage, dir: &Path) -> anyhow::Result<()> {
    match storage.writable(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).with_context(|| expected(dir)),
        _ => Ok(()),
    }
}

fn expected(dir: &Path) -> String {
    format!("data.path: expected a folder in which this process may create files, found {}", dir.display())
}

/// Whether a data directory could be at `data`; nothing is created.
pub fn check_place(data: &Path) -> anyhow::Result<()> {
    let mut above = data.ancestors().map(|dir| if dir.as_os_str().is_empty() { Path::new(".") } else { dir });
    let there = above.find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    usable(&Disk, there)
}

/// Whose a data directory is; `None`: nobody's yet, or its identity is damaged.
pub(super) fn read_instance(storage: &dyn Storage, data: &Path) -> anyhow::Result<Option<Uuid>> {
    let path = data.join("id");
    let known = storage::read_all(storage, &path).with_context(|| format!("read {}", path.display()))?;
    Ok(known.and_then(|text| Uuid::try_parse_ascii(text.trim_ascii()).ok()))
}

fn instance(storage: &dyn Storage, data: &Path, new_uuid: fn() -> Uuid) -> anyhow::Result<Uuid> {
    if let Some(instance) = read_instance(storage, data)? {
        return Ok(instance);
    }
    let path = &data.join("id");
    if storage.exists(path)? {
        warn!(path = %path.display(), "the directory's identity is damaged and made anew");
    }
    let instance = new_uuid();
    storage::write_new(storage, path, format!("{instance}\n").as_bytes())
        .with_context(|| format!("write {}", path.display()))?;
    Ok(instance)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::SimDisk;

    #[test]
    fn a_directory_has_one_owner_and_one_identity() {
        let disk = SimDisk::new(1);
        let settings = Settings { storage: disk.storage(), ..Settings::default() };
        let first = Place::open(&settings, Path::new("data")).unwrap();
        let refused = Place::open(&settings, Path::new("data")).unwrap_err().to_string();
        assert!(refused.contains("in use by another process"), "{refused}");
        let instance = first.instance;
        drop(first);
        assert_eq!(Place::open(&settings, Path::new("data")).unwrap().instance, instance);
        disk.put(Path::new("data/id"), b"nonsense".to_vec());
        assert_ne!(Place::open(&settings, Path::new("data")).unwrap().instance, instance);
    }
}
