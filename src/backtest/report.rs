//! What a backtest found, as a table and as JSON.

use std::fmt;

use serde_json::{Value, json};

use super::compare::{Change, compare};
use super::input::{Kind, Source};
use super::tally::{Amount, Outcome};

/// Rows of the table of changes.
const CHANGES_SHOWN: usize = 20;

/// The outcomes of one input, under the names of their files.
#[derive(Debug)]
pub struct Report<'a> {
    source: &'a Source,
    new: (&'a str, &'a Outcome),
    old: Option<(&'a str, &'a Outcome)>,
    changes: Vec<Change>,
    /// A policy asks for durations that are learned.
    learns: bool,
}

impl<'a> Report<'a> {
    pub fn new(
        source: &'a Source,
        new: (&'a str, &'a Outcome),
        old: Option<(&'a str, &'a Outcome)>,
        learns: bool,
    ) -> Self {
        let changes = old.map(|(_, old)| compare(old, new.1)).unwrap_or_default();
        Self { source, new, old, changes, learns }
    }

    fn covered_ms(&self) -> u64 {
        let read = &self.new.1.read;
        read.last_ms.saturating_sub(read.first_ms)
    }

    /// Sentences that must stand beside the numbers.
    fn remarks(&self) -> Vec<String> {
        let read = &self.new.1.read;
        let mut remarks = Vec::new();
        let mut say = |condition: bool, text: String| remarks.extend(condition.then_some(text));
        let sampled = self.source.kind() == Kind::Parquet;
        say(
            sampled,
            "The input is what an instance kept: what it dropped is unknown. Where the new policies keep a larger share \
             than the old ones did, traces count by their sampling_weight; budgets and learned durations see the \
             kept traffic alone."
                .to_owned(),
        );
        say(
            self.learns,
            "slower_than learns from this input alone, so nothing is slow until 200 observations of an operation are \
             published."
                .to_owned(),
        );
        say(
            self.source.kind() == Kind::JsonLines,
            "The lines do not say when they came: a request comes when half of its spans have ended."
                .to_owned(),
        );
        say(
            self.covered_ms() < 600_000,
            format!("The input covers {}: a day is a bold estimate.", duration(self.covered_ms())),
        );
        say(read.refused > 0, format!("{} requests could not be judged and are missing.", read.refused));
        say(read.rejected > 0, format!("{} spans are not OTLP and are missing.", read.rejected));
        say(read.lost_bytes > 0, format!("{} of the input cannot be read.", bytes(read.lost_bytes as f64)));
        say(
            read.waits > 0,
            format!("Memory was short: senders would have been told to come back {} times.", read.waits),
        );
        remarks
    }

    /// For programs. Amounts are those of the input, and a day at its rate.
    pub fn to_json(&self) -> Value {
        let read = &self.new.1.read;
        let covered = self.covered_ms();
        let outcome = |(file, outcome): (&str, &Outcome)| {
            let policy = |policy: &super::tally::PolicyOutcome| {
                json!({
                    "name": policy.name,
                    "matched_traces": policy.matched,
                    "kept": amount(policy.kept),
                    "kept_per_day": amount(policy.kept.per_day(covered)),
                })
            };
            json!({
                "file": file,
                "policies": outcome.policies.iter().map(policy).collect::<Vec<_>>(),
                "kept": amount(outcome.kept()),
                "kept_per_day": amount(outcome.kept().per_day(covered)),
            })
        };
        let fate = |(policy, kept): &(String, bool)| json!({ "policy": policy, "kept": kept });
        let change = |change: &Change| json!({ "from": fate(&change.from), "to": fate(&change.to), "traces": change.traces });
        json!({
            "input": {
                "path": self.source.path().display().to_string(),
                "kind": self.source.kind().to_string(),
                "requests": read.requests, "spans": read.spans, "traces": self.new.1.traces(),
                "rejected_spans": read.rejected, "refused_requests": read.refused, "lost_bytes": read.lost_bytes,
                "first_ms": read.first_ms, "last_ms": read.last_ms,
            },
            "new": outcome(self.new),
            "old": self.old.map(outcome),
            "changes": self.old.map(|_| self.changes.iter().map(change).collect::<Vec<_>>()),
            "remarks": self.remarks(),
        })
    }

    fn policies(&self, f: &mut fmt::Formatter<'_>, file: &str, outcome: &Outcome) -> fmt::Result {
        let covered = self.covered_ms();
        writeln!(f, "\n{file}")?;
        let head = ["policy", "decides of", "keeps a day:", "traces", "spans", "bytes"];
        row(f, head.map(str::to_owned))?;
        let mut line = |name: &str, matched: u64, kept: Amount| {
            let day = kept.per_day(covered);
            let cells =
                [count(matched as f64), String::new(), count(day.traces), count(day.spans), bytes(day.bytes)];
            let [matched, gap, traces, spans, bytes] = cells;
            row(f, [name.to_owned(), matched, gap, traces, spans, bytes])
        };
        for policy in &outcome.policies {
            if policy.name != "none" || policy.matched > 0 {
                line(&policy.name, policy.matched, policy.kept)?;
            }
        }
        line("all", outcome.traces(), outcome.kept())
    }

    fn changes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moved: u64 = self.changes.iter().map(|change| change.traces).sum();
        let all = self.new.1.traces();
        writeln!(f, "\nWhat changes hands: {} of {} traces", count(moved as f64), count(all as f64))?;
        let fate = |(policy, kept): &(String, bool)| {
            format!("{policy} ({})", if *kept { "kept" } else { "dropped" })
        };
        for change in self.changes.iter().take(CHANGES_SHOWN) {
            let (from, to) = (fate(&change.from), fate(&change.to));
            writeln!(f, "  {from:<32} -> {to:<32} {:>12}", count(change.traces as f64))?;
        }
        let hidden = self.changes.iter().skip(CHANGES_SHOWN);
        let rest: u64 = hidden.map(|change| change.traces).sum();
        if rest > 0 {
            writeln!(f, "  {:<68} {:>12}", "others", count(rest as f64))?;
        }
        Ok(())
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let read = &self.new.1.read;
        writeln!(
            f,
            "{} ({}): {} spans of {} traces in {} requests, {} of traffic",
            self.source.path().display(),
            self.source.kind(),
            count(read.spans as f64),
            count(self.new.1.traces() as f64),
            count(read.requests as f64),
            duration(self.covered_ms()),
        )?;
        if let Some((file, outcome)) = self.old {
            self.policies(f, file, outcome)?;
        }
        let (file, outcome) = self.new;
        self.policies(f, file, outcome)?;
        if self.old.is_some() {
            self.changes(f)?;
        }
        self.remarks().iter().try_for_each(|remark| write!(f, "\n{remark}\n"))
    }
}

fn row(f: &mut fmt::Formatter<'_>, [name, decides, gap, traces, spans, bytes]: [String; 6]) -> fmt::Result {
    writeln!(f, "  {name:<28}{decides:>14}{gap:>14}{traces:>14}{spans:>16}{bytes:>12}")
}

fn amount(amount: Amount) -> Value {
    let whole = |value: f64| value.round() as u64;
    json!({ "traces": whole(amount.traces), "spans": whole(amount.spans), "bytes": whole(amount.bytes) })
}

/// With commas between thousands.
fn count(value: f64) -> String {
    let digits = format!("{:.0}", value.max(0.0));
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn bytes(value: f64) -> String {
    let units = [("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)];
    let fits = units.into_iter().find(|(_, scale)| value >= *scale);
    fits.map_or_else(|| format!("{value:.0} B"), |(unit, scale)| format!("{:.1} {unit}", value / scale))
}

fn duration(ms: u64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        0..60 => format!("{}.{} s", seconds, ms % 1_000 / 100),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
    }
}
