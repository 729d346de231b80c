//! The language of the integration tests.

mod backend;
mod ledger;
mod metrics;
#[allow(dead_code, reason = "unit tests want more of it")]
mod object_store;
mod random;
mod rows;
mod sender;
mod table;
mod tailwater;
mod trace;

use std::time::Duration;

pub use backend::{Backend, Fault, free_address};
pub use ledger::Ledger;
pub use metrics::Metrics;
pub use object_store::{ObjectStore, StoreFault};
pub use random::Random;
pub use rows::{Row, counts_below, files_below, hex, rows_below, to_hex};
pub use sender::{Sender, told};
pub use table::{assert_row_is, read_with_duckdb, read_with_parquet_crate};
pub use tailwater::{BESIDE, ERRORS_AND_HALF, KEEP_ALL, Setup, Tailwater};
pub use trace::*;

/// Of what must come about, however slow the machine is.
pub const WITHIN: Duration = Duration::from_secs(120);

/// Asks every 50 ms until there is an answer; panics, naming what was waited for, if there is none in time.
pub async fn eventually<T>(what: &str, within: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + within;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(tokio::time::Instant::now() < deadline, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// An HTTP client that talks plain HTTP to this machine.
pub fn http_client() -> reqwest::Client {
    // Needed to build a client at all; a second call finds the provider of the first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().timeout(Duration::from_secs(30)).build().unwrap()
}

/// How long tests that outlast a fault keep it up: seconds, or the whole time with `TAILWATER_LONG` set.
pub fn long(short: Duration, whole: Duration) -> Duration {
    if std::env::var_os("TAILWATER_LONG").is_some() { whole } else { short }
}
