//! Whether this process takes requests, and if not, why.

use std::sync::Arc;

use parking_lot::Mutex;

/// Shared by the pipeline, which sets it, and `/readyz`, which tells it.
#[derive(Clone, Debug)]
pub struct Readiness {
    reasons: Arc<Mutex<Reasons>>,
}

#[derive(Debug)]
struct Reasons {
    /// Of the process's life: starting, recovering, shutting down.
    life: Option<String>,
    /// While it runs.
    trouble: Option<String>,
}

impl Default for Readiness {
    fn default() -> Self {
        let reasons = Reasons { life: Some("starting".to_owned()), trouble: None };
        Self { reasons: Arc::new(Mutex::new(reasons)) }
    }
}

impl Readiness {
    /// Not ready: "starting".
    pub fn new() -> Self {
        Self::default()
    }

    pub fn ready(&self) {
        self.reasons.lock().life = None;
    }

    /// Not ready, from now until [`Self::ready`]: "recovering", "shutting down" …
    pub fn unready(&self, reason: impl Into<String>) {
        self.reasons.lock().life = Some(reason.into());
    }

    /// What keeps a running process from its work; `None`: nothing any more.
    pub fn trouble(&self, reason: Option<String>) {
        self.reasons.lock().trouble = reason;
    }

    /// Why this process is not ready; `None` when it is.
    pub fn reason(&self) -> Option<String> {
        let reasons = self.reasons.lock();
        reasons.life.clone().or_else(|| reasons.trouble.clone())
    }
}
