//! The biography of the process: arguments, then what they ask for.

use std::process::ExitCode;

use clap::Parser;
use tailwater::cli::Arguments;

fn main() -> ExitCode {
    Arguments::parse().run()
}
