//! Whether this process takes requests, and if not, why.

use std::sync::Arc;

use parking_lot::Mutex;

/// Shared by the pipeline, which sets it, and `/readyz`, which tells it.
#[derive(Clone, Debug)]
pub struct Readiness {
    reason: Arc<Mutex<Option<String>>>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self { reason: Arc::new(Mutex::new(Some("starting".to_owned()))) }
    }
}

impl Readiness {
    /// Not ready: "starting".
    pub fn new() -> Self {
        Self::default()
    }

    pub fn ready(&self) {
        *self.reason.lock() = None;
    }

    /// Not ready, from now until [`Self::ready`]: "recovering", "shutting down" …
    pub fn unready(&self, reason: impl Into<String>) {
        *self.reason.lock() = Some(reason.into());
    }

    /// Why this process is not ready; `None` when it is.
    pub fn reason(&self) -> Option<String> {
        self.reason.lock().clone()
    }
}
