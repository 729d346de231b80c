//! Sends every kept piece to one OTLP backend.
mod backoff;
mod client;
mod config;
mod outcome;
mod queue;
mod split;

pub use config::Config;
