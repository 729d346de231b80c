//! Notices that a file may have changed.
//!
//! The folder is watched, not the file: editors write a new file and rename it, and a ConfigMap changes by a symlink
//! beside it (`..data`). If the file is a symlink, the folder it leads to is watched as well. What a change was is
//! not asked; whoever waits here reads the file and compares.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// A change is complete when nothing has happened for this long, or at the latest after [`SETTLED`].
const QUIET: Duration = Duration::from_millis(150);
const SETTLED: Duration = Duration::from_millis(900);

/// See the module.
#[derive(Debug)]
pub(super) struct Watch {
    file: PathBuf,
    watcher: RecommendedWatcher,
    folders: Vec<PathBuf>,
    events: Arc<Notify>,
}

impl Watch {
    pub(super) fn new(file: &Path) -> notify::Result<Self> {
        let events = Arc::new(Notify::new());
        let heard = events.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.is_ok_and(|event| !is_reading(event.kind)) {
                heard.notify_one();
            }
        })?;
        let mut watch = Self { file: file.to_owned(), watcher, folders: Vec::new(), events };
        watch.watcher.watch(folder_of(file), RecursiveMode::NonRecursive)?;
        watch.follow_link();
        Ok(watch)
    }

    /// Completes after the file may have changed, when the change seems to be complete.
    pub(super) async fn changed(&mut self) {
        self.events.notified().await;
        let settled = Instant::now() + SETTLED;
        while Instant::now() < settled && timeout(QUIET, self.events.notified()).await.is_ok() {}
        self.follow_link();
    }

    /// Watches the folder that the file is in, if a symlink leads to another one than it is named in.
    fn follow_link(&mut self) {
        let beside = folder_of(&self.file).canonicalize().ok();
        let target = self.file.canonicalize().ok().and_then(|file| file.parent().map(Path::to_owned));
        let wanted: Vec<PathBuf> =
            target.filter(|target| Some(target) != beside.as_ref()).into_iter().collect();
        if wanted == self.folders {
            return;
        }
        for gone in self.folders.drain(..) {
            // A folder that is deleted is not watched any more anyway.
            let _ = self.watcher.unwatch(&gone);
        }
        self.folders = wanted;
        for folder in &self.folders {
            let _ = self.watcher.watch(folder, RecursiveMode::NonRecursive);
        }
    }
}

fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Our own look at the file must not wake us.
fn is_reading(kind: EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    async fn hears(watch: &mut Watch) -> bool {
        timeout(Duration::from_secs(5), watch.changed()).await.is_ok()
    }

    #[tokio::test]
    async fn a_rename_over_the_file_is_heard_and_reading_it_is_not() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("t.yaml");
        fs::write(&file, "old").unwrap();
        let mut watch = Watch::new(&file).unwrap();
        fs::read(&file).unwrap();
        assert!(timeout(Duration::from_millis(300), watch.changed()).await.is_err());
        fs::write(folder.path().join("t.yaml~"), "new").unwrap();
        fs::rename(folder.path().join("t.yaml~"), &file).unwrap();
        assert!(hears(&mut watch).await);
    }

    #[tokio::test]
    async fn a_swap_of_the_link_beside_it_is_heard_again_and_again() {
        let folder = TempDir::new().unwrap();
        let at = |name: &str| folder.path().join(name);
        let publish = |version: &str| {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("t.yaml"), version).unwrap();
            symlink(version, at("..data_tmp")).unwrap();
            fs::rename(at("..data_tmp"), at("..data")).unwrap();
        };
        publish("..1");
        symlink("..data/t.yaml", at("t.yaml")).unwrap();
        let mut watch = Watch::new(&at("t.yaml")).unwrap();
        for version in ["..2", "..3"] {
            publish(version);
            assert!(hears(&mut watch).await, "{version}");
            assert_eq!(fs::read_to_string(at("t.yaml")).unwrap(), version);
        }
    }

    #[tokio::test]
    async fn a_change_behind_a_link_to_elsewhere_is_heard() {
        let (folder, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let (link, file) = (folder.path().join("t.yaml"), elsewhere.path().join("real.yaml"));
        fs::write(&file, "old").unwrap();
        symlink(&file, &link).unwrap();
        let mut watch = Watch::new(&link).unwrap();
        fs::write(&file, "new").unwrap();
        assert!(hears(&mut watch).await);
    }
}
