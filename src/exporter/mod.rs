//! Sends what was kept.
pub mod metrics;
pub mod otlp;
