//! Sends what was kept to where it is read.
//!
//! Reading order: [`outbox`] holds what was kept, [`cursor`] says how far each exporter has come in it, [`metrics`]
//! what became of it, [`known`] what the last state knew of it; [`otlp`] sends it to a backend.

pub mod cursor;
pub mod known;
pub mod metrics;
pub mod otlp;
pub mod outbox;
pub mod parquet;
mod tail;

#[cfg(test)]
mod tests;
