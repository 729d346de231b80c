//! Follows the configuration file while an instance runs: on SIGHUP, and whenever its text is another.

use std::path::{Path, PathBuf};

use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

use super::Failure;
use super::watch::Watch;
use crate::config::{self, ConfigError, Loaded};
use crate::pipeline::Pipeline;
use crate::telemetry::logging;

/// The file as it was last read.
#[derive(Debug)]
pub(super) struct Follower {
    file: PathBuf,
    text: String,
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
        Self { file: file.to_owned(), text, log_in_file: read.unwrap_or_else(|_| log.clone()), log }
    }

    /// The text of the file, if it is another than before.
    fn changed(&mut self) -> bool {
        let Ok(text) = std::fs::read_to_string(&self.file) else { return true };
        std::mem::replace(&mut self.text, text.clone()) != text
    }

    fn read(&mut self) -> Result<Loaded, ConfigError> {
        let unreadable = |error| ConfigError::of_file(&self.file.display().to_string(), format!("{error}"));
        let text = std::fs::read_to_string(&self.file).map_err(unreadable)?;
        let loaded = config::inspect(&text, &self.file);
        self.text = text;
        let mut loaded = loaded?;
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
