//! Feeds any bytes to the scanner, the views and the encoder, and compares them with prost.
//!
//! `cargo fuzz run --fuzz-dir tests/fuzz -s none scan` (works on stable)

#![no_main]

use libfuzzer_sys::fuzz_target;
use tailwater::otlp;

#[path = "../check.rs"]
mod check;

fuzz_target!(|body: &[u8]| {
    check::check(body);
});
