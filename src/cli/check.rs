//! `tailwater check`: what starting would refuse, without starting.

use std::io::Write;
use std::path::Path;

use super::{Failure, read};
use crate::pipeline::check_place;

/// Shows warnings and fails on mistakes. Without a file there is nothing to be wrong.
pub(super) fn run(file: Option<&Path>) -> Result<(), Failure> {
    let Some(file) = file else {
        return Err(Failure::Usage("check: no file given, expected tailwater check FILE".to_owned()));
    };
    let loaded = read(file)?;
    let name = file.display().to_string();
    let mut out = std::io::stdout().lock();
    for warning in &loaded.warnings {
        writeln!(out, "warning: {}", warning.in_file(&name))?;
    }
    // The machine that checks a file need not be the one that runs on it.
    if let Err(error) = check_place(&loaded.config.data.path) {
        writeln!(out, "warning: {name}: {error:#}")?;
    }
    let policies = loaded.config.policies.len();
    writeln!(out, "{name}: ok, {policies} {}", if policies == 1 { "policy" } else { "policies" })?;
    Ok(())
}
