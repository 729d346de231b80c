//! Scenarios that are not run, each with its reason. A row goes when what it waits for is there.

pub const SKIPPED: &[(&str, &str)] = &[];
