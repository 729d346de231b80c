//! `tailwater convert`: a Tailwater file from what other samplers are configured with.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use super::{Failure, say};
use crate::config;
use crate::convert::{self, Converted, Format, Kind};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Whose configuration it is.
    #[arg(long, value_enum)]
    from: Format,
    /// The file; - reads standard input.
    file: PathBuf,
    /// Write here instead of to standard output.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Of several processors or environments, this one.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
}

/// The file goes to standard output; what became of the rest is said beside it, with a count.
pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let (text, name) = read(&options.file)?;
    let converted = convert::convert(options.from, &text, &name, options.only.as_deref())?;
    match &options.output {
        Some(path) => std::fs::write(path, &converted.text)
            .map_err(|error| Failure::Usage(format!("write {}: {error}", path.display())))?,
        None => std::io::stdout().write_all(converted.text.as_bytes())?,
    }
    tell(&converted, &name);
    recheck(&converted.text, options.output.as_deref());
    Ok(())
}

fn read(file: &Path) -> Result<(String, String), Failure> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        return Ok((text, "standard input".to_owned()));
    }
    let name = file.display().to_string();
    let text =
        std::fs::read_to_string(file).map_err(|error| Failure::Usage(format!("read {name}: {error}")))?;
    Ok((text, name))
}

fn tell(converted: &Converted, name: &str) {
    for note in converted.notes.iter().filter(|note| note.kind != Kind::Settled) {
        say(format_args!("{name}:{}: {}: {}: {}", note.line, note.kind, note.what, note.why));
    }
    let (left_out, differs) = (converted.count(Kind::LeftOut), converted.count(Kind::Differs));
    let policies = converted.policies;
    say(format_args!("{policies} policies written, {left_out} left out, {differs} only nearly the same"));
}

/// What `tailwater check` would say. A file that names variables is for the machine that has them.
fn recheck(text: &str, output: Option<&Path>) {
    let name = output.unwrap_or(Path::new("the written file"));
    if text.contains("${") {
        return say(format_args!("it names environment variables: run tailwater check where they are set"));
    }
    if let Err(error) = config::inspect(text, name) {
        say(format_args!("tailwater check would refuse it:\n{error}"));
    }
}
