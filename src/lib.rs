//! Tailwater: a tail-based sampling tier for OpenTelemetry traces.

pub mod buffer;
pub mod cli;
pub mod config;
pub mod exporter;
pub mod log;
pub mod otlp;
pub mod pipeline;
pub mod proto;
pub mod receiver;
pub mod sampler;
pub mod telemetry;
pub mod trace;
pub mod units;
