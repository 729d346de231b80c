//! Follows the configuration file while an instance runs: on SIGHUP, and whenever its text is another.

use std::path::{Path, PathBuf};

use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

use super::Failure;
use super::watch::Watch;
use crate::config::{self, ConfigError, Loaded};
use crate::pipeline::Pipeline;
use crate::telemetry::logging;

/// The text of a file, or why it cannot be read.
type Seen = Result<String, String>;

/// The file as it was last read.
#[derive(Debug)]
pub(super) struct Follower {
    file: PathBuf,
    seen: Seen,
    /// The command line may say otherwise than the file.
    log: logging::Config,
    log_in_file: logging::Config,
}

impl Follower {
    /// `loaded` is what the process starts with.
    pub(super) fn new(file: &Path, loaded: &Loaded) -> Self {
        let text = loaded.document.text().to_owned();
        let read = config::inspect(&text, file).map(|read| read.config.log);
        let log = loaded.config.log.clone();
        Self { file: file.to_owned(), log_in_file: read.unwrap_or_else(|_| log.clone()), log, seen: Ok(text) }
    }

    fn look(&self) -> Seen {
        std::fs::read_to_string(&self.file).map_err(|error| error.to_string())
    }

    /// Whether the file is another than before. One that cannot be read is so once, however often its folder changes.
    fn changed(&mut self) -> bool {
        let seen = self.look();
        let changed = seen != self.seen;
        self.seen = seen;
        changed
    }

    fn read(&mut self) -> Result<Loaded, ConfigError> {
        self.seen = self.look();
        let unreadable =
            |error: &String| ConfigError::of_file(&self.file.display().to_string(), error.as_str());
        let text = self.seen.as_ref().map_err(unreadable)?;
        let mut loaded = config::inspect(text, &self.file)?;
        if loaded.config.log == self.log_in_file {
            loaded.config.log.clone_from(&self.log);
        }
        Ok(loaded)
    }
}

/// Never returns but when signals cannot be heard.
pub(super) async fn follow(follower: Option<Follower>, pipeline: &Pipeline) -> Failure {
    let mut hang_up = match signal(SignalKind::hangup()) {
        Ok(hang_up) => hang_up,
        Err(error) => return error.into(),
    };
    let Some(mut follower) = follower else {
        while hang_up.recv().await.is_some() {
            warn!("the built-in defaults are in force, there is no file to read again");
        }
        return std::future::pending().await;
    };
    let mut watch = watch(&follower.file);
    // It may have changed while the instance came up.
    let mut look = true;
    loop {
        if !look {
            tokio::select! {
                _ = hang_up.recv() => {}
                () = changed(&mut watch) => look = true,
            }
        }
        if !std::mem::take(&mut look) || follower.changed() {
            reload(&mut follower, pipeline).await;
        }
    }
}

fn watch(file: &Path) -> Option<Watch> {
    let watch = Watch::new(file);
    watch.inspect_err(|error| warn!(%error, "the folder of the file cannot be watched, send SIGHUP")).ok()
}

async fn changed(watch: &mut Option<Watch>) {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}

async fn reload(follower: &mut Follower, pipeline: &Pipeline) {
    let read = follower.read();
    let told = read.as_ref().ok().cloned();
    match pipeline.reload(read).await {
        Ok(generation) => {
            let Some(Loaded { config, warnings, .. }) = told else { return };
            let file = follower.file.display().to_string();
            for warning in warnings {
                warn!(file, line = warning.line(), "{}", warning.message());
            }
            let names: Vec<&str> = config.policies.iter().map(|policy| policy.name.as_str()).collect();
            let (after_root, max_wait) = (config.buffer.after_root, config.buffer.max_wait);
            let policies = names.join(", ");
            info!(generation, policies, %after_root, %max_wait, "configuration reloaded");
        }
        Err(refused) => error!(error = %refused, "changed configuration refused, the old one stays in force"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_read_is_another_file_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t.yaml");
        let text = "buffer: { max_wait: 30s }\n";
        std::fs::write(&file, text).unwrap();
        let mut follower = Follower::new(&file, &config::inspect(text, &file).unwrap());
        assert!(!follower.changed());
        for unreadable in [None, Some([0xff, 0xfe])] {
            match unreadable {
                None => std::fs::remove_file(&file).unwrap(),
                Some(bytes) => std::fs::write(&file, bytes).unwrap(),
            }
            assert!(follower.changed());
            assert!(follower.read().is_err());
            assert!(!follower.changed());
        }
        std::fs::write(&file, text).unwrap();
        assert!(follower.changed());
        assert!(follower.read().is_ok());
    }
}
