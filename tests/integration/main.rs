//! The process, on port 0, through real clients: what no smaller test can show.
//!
//! `support` is a small language, so that what differs is all one sees in a test. A [`support::Tailwater`] is the
//! real binary as a child process; a [`support::Backend`] decodes what it gets with opentelemetry-proto's generated
//! server, never with our own scan. Every test ends by asserting the ledger.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(unreachable_pub, reason = "modules of one test binary")]

mod support;

mod backend;
mod backtest;
mod bad_input;
mod convert;
mod crash;
mod disk;
mod kills;
mod monitoring;
mod parquet;
mod pressure;
mod red;
mod reload;
mod resend;
mod sdk;
mod statistics;
mod stores;
mod websocket;
mod why;
