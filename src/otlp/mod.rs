//! OTLP on the wire: scanned, read in place, spliced, written; never decoded.

#[cfg(test)]
#[path = "../../benches/workload.rs"]
mod workload;
