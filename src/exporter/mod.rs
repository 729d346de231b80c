//! Sends what was kept.

pub mod parquet;
