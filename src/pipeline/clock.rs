//! Time as the pipeline sees it: passed in, so that a test or a simulation can hold it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::buffer::{Now, Tick};

/// Ticks of a process begin here: none is that of an entry that has no deadline.
const FIRST_TICK_MS: u64 = 1000;

/// The two clocks of a process.
pub trait Clock: std::fmt::Debug + Send + Sync {
    /// Arrival: Unix milliseconds.
    fn arrival_ms(&self) -> u64;

    /// Deadlines: milliseconds of a clock that never goes back and begins to run with [`Clock::start`].
    fn elapsed_ms(&self) -> u64;

    /// The ports are open: nothing recovered is due sooner than `after_root` from here.
    fn start(&self);

    fn now(&self) -> Now {
        Now { tick: Tick::from_ms(FIRST_TICK_MS + self.elapsed_ms()), ms: self.arrival_ms() }
    }
}

/// The clocks of one life over a time that is set by hand and outlives it.
#[derive(Debug)]
pub struct HandClock {
    begin_ms: u64,
    now_ms: Arc<AtomicU64>,
    started_ms: OnceLock<u64>,
}

impl HandClock {
    /// `now_ms` counts from `begin_ms`, in Unix time.
    pub fn new(begin_ms: u64, now_ms: &Arc<AtomicU64>) -> Arc<Self> {
        Arc::new(Self { begin_ms, now_ms: now_ms.clone(), started_ms: OnceLock::new() })
    }
}

impl Clock for HandClock {
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

/// The clocks of the machine.
#[derive(Debug, Default)]
pub struct SystemClock(OnceLock<Instant>);

impl Clock for SystemClock {
    fn arrival_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        since.as_millis() as u64
    }

    fn elapsed_ms(&self) -> u64 {
        self.0.get().map_or(0, |started| started.elapsed().as_millis() as u64)
    }

    fn start(&self) {
        self.0.get_or_init(Instant::now);
    }
}
