//! Texts made from the command line's definition.

use std::io::Write;

use clap::Command;
use clap_complete::Shell;

use super::Failure;

pub(super) fn completions(mut command: Command, shell: Shell) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, "tailwater", &mut text);
    Ok(std::io::stdout().write_all(&text)?)
}

pub(super) fn man(command: Command) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command).render(&mut text)?;
    Ok(std::io::stdout().write_all(&text)?)
}
