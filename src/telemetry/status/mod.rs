//! `/status`: one page for a person who wants to know whether it works, and the same as JSON.
//!
//! [`Status`] is what is told, [`page`] how it looks. Whoever knows the stages fills it in as a [`Tells`].

mod page;
mod rates;

pub use rates::{Counts, History, Rates};

use serde::Serialize;

use super::{Balance, Notice, PolicyCounts};

/// Who can tell how the process is doing. Asked when somebody looks.
pub trait Tells: Send + Sync {
    fn status(&self) -> Status;
}

/// How a process is doing. Counts are those of this process life.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Status {
    pub version: &'static str,
    /// Of the data directory.
    pub instance: String,
    /// Unix milliseconds.
    pub now_ms: u64,
    pub uptime_seconds: u64,
    /// Why requests are not taken; nothing when they are.
    pub unready: Option<String>,
    /// Seconds of traffic that the memory log holds.
    pub window_seconds: f64,
    /// Over the last minute, or since the start.
    pub rates: Rates,
    pub memory: Memory,
    pub disk: Disk,
    pub policies: Vec<Policy>,
    pub ledger: Balance,
    /// Terms that came less terms that went: 0 when the books balance.
    pub difference: i64,
    pub judged: Judged,
    pub exporters: Vec<Exporter>,
    pub largest_traces: Vec<Trace>,
    pub refused: Vec<Refused>,
    pub rejected: Vec<Rejected>,
    /// Bytes of the logs that could not be read back, by cause.
    pub lost_bytes: Vec<Rejected>,
    /// What a person should look at, in sentences.
    pub concerns: Vec<String>,
    /// Warnings and errors of the log, newest first.
    pub notices: Vec<Notice>,
}

/// The memory budget, in bytes, and what is in it.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Memory {
    pub limit_bytes: u64,
    pub log_and_index_bytes: u64,
    pub in_flight_bytes: u64,
    pub traces: u64,
    pub spans: u64,
}

/// The disk budget, in bytes.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Disk {
    pub limit_bytes: u64,
    pub input_bytes: u64,
    pub outbox_bytes: u64,
}

/// A policy, `none` for what no policy matched.
#[derive(Clone, Debug, Serialize)]
pub struct Policy {
    pub name: String,
    #[serde(flatten)]
    pub counts: PolicyCounts,
}

/// How units came to be judged.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Judged {
    pub units: u64,
    pub without_root: u64,
    /// Dropped traces that were kept later.
    pub upgraded: u64,
    /// Because memory was short.
    pub by_pressure: u64,
    pub mean_wait_ms: u64,
}

/// What one exporter has done, in spans.
#[derive(Clone, Debug, Serialize)]
pub struct Exporter {
    pub name: String,
    /// The last request or upload worked.
    pub up: bool,
    pub delivered: u64,
    pub pending: u64,
    pub pending_bytes: u64,
    pub lost: u64,
    pub last_error: Option<String>,
}

/// A trace in memory.
#[derive(Clone, Debug, Serialize)]
pub struct Trace {
    pub trace_id: String,
    pub tenant: String,
    /// Of the spans that came since it is in memory.
    pub bytes: u64,
    pub state: &'static str,
}

/// Requests refused whole.
#[derive(Clone, Debug, Serialize)]
pub struct Refused {
    pub cause: &'static str,
    pub requests: u64,
    pub bytes: u64,
}

/// An amount with its cause: spans refused by partial success, or bytes that are lost.
#[derive(Clone, Debug, Serialize)]
pub struct Rejected {
    pub cause: &'static str,
    pub amount: u64,
}

impl Status {
    /// As a page of HTML, which needs nothing else.
    pub fn page(&self) -> String {
        page::Page(self).to_string()
    }
}
