//! Writes a Tailwater file from what other samplers are configured with.
//!
//! [`convert`] reads the `tail_sampling` processor of an OpenTelemetry Collector or the rules of Refinery. What it
//! writes says of each policy where it came from. Nothing is dropped in silence: what cannot be said is named in
//! the file and in [`Converted::notes`], what is only nearly the same says how it differs, and what the other
//! program itself would refuse is refused with its place.

mod collector;
mod emit;
mod expr;
mod policy;
mod refinery;
mod traceql;
mod yaml;

use std::fmt;

use crate::config::{ConfigError, Mistake, Source};

/// Whose configuration it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// An OpenTelemetry Collector's, whole or its tail_sampling section.
    Collector,
    /// Refinery's rules file; its config file can stand in the same document.
    Refinery,
}

impl Format {
    /// What every reader of the written file should know.
    fn explanation(self) -> &'static [&'static str] {
        match self {
            Self::Collector => &[
                "The Collector asks every policy, and one vote keeps a trace. Here the first policy that matches \
                 decides, so that every kept trace has one known weight: policies that drop come first, then the \
                 others by falling share.",
                "Shares are taken from the randomness of the trace ID (W3C trace context level 2), not from a \
                 salted hash: as many traces, but others.",
            ],
            Self::Refinery => &[
                "As in Refinery, rules are asked in order and the first that matches decides.",
                "Shares are taken from the randomness of the trace ID (W3C trace context level 2), not from a \
                 hash: as many traces, but others.",
            ],
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Collector => "collector",
            Self::Refinery => "refinery",
        })
    }
}

/// What became of a part of the foreign file that is no policy of its own in the written one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It cannot be said.
    LeftOut,
    /// It is said, and is nearly the same.
    Differs,
    /// It is settled otherwise.
    Settled,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LeftOut => "left out",
            Self::Differs => "differs",
            Self::Settled => "not needed",
        })
    }
}

/// One sentence about a place in the foreign file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub kind: Kind,
    /// From 1.
    pub line: usize,
    /// The key or the policy.
    pub what: String,
    pub why: String,
}

/// A Tailwater file.
#[derive(Clone, Debug)]
pub struct Converted {
    pub text: String,
    /// How many policies it has.
    pub policies: usize,
    /// By line.
    pub notes: Vec<Note>,
}

impl Converted {
    pub fn count(&self, kind: Kind) -> usize {
        self.notes.iter().filter(|note| note.kind == kind).count()
    }
}

/// Converts a file. `name` is for messages; `only` picks one of several processors or environments.
///
/// # Errors
///
/// All that the other program would refuse too, and a file of which nothing can be said.
pub fn convert(format: Format, text: &str, name: &str, only: Option<&str>) -> Result<Converted, ConfigError> {
    let source = Source { text };
    let drafted = match format {
        Format::Collector => collector::draft(source, only),
        Format::Refinery => refinery::draft(source, only),
    };
    let mut draft = drafted.map_err(|mistakes| ConfigError { file: name.to_owned(), mistakes })?;
    draft.notes.sort_by_key(|note| note.line);
    let text = emit::file(format, name, &draft);
    let of_policy = |written: &policy::Written| {
        let policy = written.draft.clone();
        policy.differs.into_iter().map(move |why| Note {
            kind: Kind::Differs,
            line: policy.line,
            what: format!("policy {}", policy.name),
            why,
        })
    };
    let mut notes = draft.notes;
    notes.extend(draft.policies.iter().flat_map(of_policy));
    notes.sort_by_key(|note| note.line);
    notes.dedup();
    Ok(Converted { text, policies: draft.policies.len(), notes })
}

/// Why a part of the foreign file does not become a policy.
#[derive(Debug)]
enum Trouble {
    /// The other program would refuse it too.
    Mistake(Mistake),
    /// Tailwater has no words for it.
    Unsayable(String),
}

impl From<Mistake> for Trouble {
    fn from(mistake: Mistake) -> Self {
        Self::Mistake(mistake)
    }
}

fn unsayable<T>(why: impl Into<String>) -> Result<T, Trouble> {
    Err(Trouble::Unsayable(why.into()))
}

#[cfg(test)]
mod any_text;
#[cfg(test)]
mod tests;
