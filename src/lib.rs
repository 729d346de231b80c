//! Tailwater: a tail-based sampling tier for OpenTelemetry traces. This is the architecture page.
//!
//! ```text
//!  SDKs, Collectors                                                     Tempo, any OTLP backend
//!        |                                                                        ^
//!        v                                                                        |
//!   [receiver] --request--> [pipeline::Engine] ----------> [sampler] --piece--> [exporter]
//!   gRPC, HTTP, JSON        scan (otlp), append (log),     policies,            outbox, cursors,
//!   rejection               index (buffer)                 learned p95          OTLP, Parquet
//!                                |        ^                   ^                   |
//!                                v        |                   |                   v
//!                           data/input    +---- due traces ---+              data/outbox, S3
//! ```
//!
//! A request is scanned once on the wire, never decoded, and kept whole in the log: in memory and in a file,
//! the same bytes at the same place. The index holds 16 bytes a span. When a trace is due, its policies are
//! asked; if it is kept, its spans are copied out of the log into the outbox, which every exporter reads with
//! a cursor of its own. What is dropped is never touched again: its bytes leave with their segment.
//!
//! # What must always hold
//!
//! - **Order.** Positions in the log are handed out, written and indexed in one order; a snapshot ends before
//!   the first record that is not yet both.
//! - **Acknowledged means stored.** An answer leaves when the record is written (or synced). Nothing is deleted
//!   before what replaces it is synced: outbox, then state, then deletion.
//! - **Exactly once into the outbox.** A kept trace remembers how far it was sent (`through`); a restart reads
//!   the log again through the function that receives and skips what lies before.
//! - **Bounded.** Log, index and requests in flight fit `buffer.memory`; both logs fit `data.disk`. What does
//!   not fit is refused to its sender, who is told when to come back.
//! - **Books balance.** accepted + recovered + upgraded = kept + dropped + buffered + duplicate + lost, in
//!   spans, for each life of a process.
//!
//! # Reading order
//!
//! [`trace`] has the words everything is said in. [`otlp`] is the wire: scan, views, trace state, encoding.
//! [`log`] is the segmented log, used for input and outbox. Then the stages in the order of the data:
//! [`receiver`], [`buffer`], [`sampler`], [`exporter`]. They do not know each other: [`pipeline`] connects them,
//! recovers and drains, and is the only folder that spawns tasks and threads. [`telemetry`] tells what happens;
//! [`config`] composes the sections that the stages own; [`convert`] writes them from the
//! configuration of other samplers; [`backtest`] judges traffic that is over; [`cli`] is what a person types.
//!
//! `trace`, `otlp`, `buffer` and `sampler` are plain values: no I/O, no runtime, no clock; `now` is passed in.
//! Disks are reached through [`log::Storage`] alone, time through [`pipeline::Clock`], so that both can fail on
//! purpose in a test.

pub mod backtest;
pub mod buffer;
pub mod cli;
pub mod config;
pub mod convert;
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
