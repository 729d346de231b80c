//! What tests that turn an instance by hand have in common.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use tailwater::pipeline::Clock;

/// A clock that is set by hand, of one life of a process.
#[derive(Debug)]
pub struct SimClock {
    begin_ms: u64,
    now_ms: Arc<AtomicU64>,
    started_ms: OnceLock<u64>,
}

impl SimClock {
    /// `now_ms` counts from `begin_ms`, in Unix milliseconds.
    pub fn new(begin_ms: u64, now_ms: Arc<AtomicU64>) -> Arc<Self> {
        Arc::new(Self { begin_ms, now_ms, started_ms: OnceLock::new() })
    }
}

impl Clock for SimClock {
    fn arrival_ms(&self) -> u64 {
        self.begin_ms + self.now_ms.load(Relaxed)
    }

    fn elapsed_ms(&self) -> u64 {
        self.started_ms.get().map_or(0, |started| self.now_ms.load(Relaxed) - started)
    }

    fn start(&self) {
        self.started_ms.get_or_init(|| self.now_ms.load(Relaxed));
    }
}
