//! The answer: for people, and as JSON.

use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;

use serde::Serialize;

use super::left::{self, Left};
use crate::pipeline::waiting::Waiting;
use crate::telemetry::why::{Account, Draw, Operation, State, Testimony, Verdict};
use crate::trace::TraceId;

/// What became of the trace, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Fate {
    Waiting,
    Kept,
    Dropped,
    /// Judged by units, none of which has been kept.
    ByUnits,
    /// Nobody knows of it.
    Unknown,
}

/// Whom was asked.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Instance {
    url: String,
    /// Why it did not answer.
    error: Option<String>,
    testimony: Option<Testimony>,
}

impl Instance {
    pub(super) fn new(url: String, asked: anyhow::Result<Testimony>) -> Self {
        match asked {
            Ok(testimony) => Self { url, error: None, testimony: Some(testimony) },
            Err(error) => Self { url, error: Some(format!("{error:#}")), testimony: None },
        }
    }
}

/// What was read.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Looked {
    /// None: the instance answered.
    pub(super) input: Option<PathBuf>,
    pub(super) outbox: PathBuf,
    pub(super) parquet: Option<String>,
    pub(super) objects: usize,
    pub(super) failures: Vec<String>,
}

/// See the module.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    trace: String,
    fate: Fate,
    says: String,
    instance: Instance,
    /// In the input log of an instance that does not answer.
    waits: Vec<Waiting>,
    left: Vec<Left>,
    looked: Looked,
}

impl Report {
    pub(super) fn new(
        trace: TraceId,
        instance: Instance,
        waits: Vec<Waiting>,
        left: Vec<Left>,
        looked: Looked,
    ) -> Self {
        let mut fate = fate(instance.testimony.as_ref(), &left);
        if fate == Fate::Unknown && !waits.is_empty() {
            fate = Fate::Waiting;
        }
        let says = says(fate, &instance);
        Self { trace: trace.to_string(), fate, says, instance, waits, left, looked }
    }
}

/// A trace that has left was kept, whatever of it waits still.
fn fate(testimony: Option<&Testimony>, left: &[Left]) -> Fate {
    let states = || testimony.iter().flat_map(|testimony| &testimony.traces).map(|account| account.state);
    let any = |state| states().any(|one| one == state);
    if !left.is_empty() || any(State::Kept) {
        return Fate::Kept;
    }
    let others =
        [(State::Waiting, Fate::Waiting), (State::Stream, Fate::ByUnits), (State::Dropped, Fate::Dropped)];
    others.into_iter().find(|(state, _)| any(*state)).map_or(Fate::Unknown, |(_, fate)| fate)
}

fn says(fate: Fate, instance: &Instance) -> String {
    match (fate, &instance.testimony) {
        (Fate::Kept, _) => "kept".to_owned(),
        (Fate::Waiting, Some(_)) => "waiting, not judged yet".to_owned(),
        (Fate::Waiting, None) => {
            "waiting: in the input log, not judged yet; the next start judges it".to_owned()
        }
        (Fate::Dropped, _) => "dropped".to_owned(),
        (Fate::ByUnits, _) => "judged by units, none of which was kept so far".to_owned(),
        (Fate::Unknown, Some(testimony)) => {
            let window = time(testimony.window_seconds.floor());
            format!("not kept; judged more than {window} ago, or never seen")
        }
        (Fate::Unknown, None) => {
            "not kept, or never seen; without a running instance nobody knows what was dropped".to_owned()
        }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.trace, self.says)?;
        for account in self.instance.testimony.iter().flat_map(|testimony| &testimony.traces) {
            show(account, f)?;
        }
        for Waiting { spans, root_seen, came_ms, .. } in &self.waits {
            let root = if *root_seen { "its root among them" } else { "without a root" };
            let since = left::time(*came_ms);
            line(
                f,
                "waiting",
                format_args!("{spans} spans in the input log, {root}, the first since {since}"),
            )?;
        }
        for left in &self.left {
            line(f, "left", left)?;
        }
        match &self.instance.error {
            None => line(f, "asked", format_args!("the instance at {}", self.instance.url))?,
            Some(error) => {
                line(f, "asked", format_args!("no running instance at {}: {error}", self.instance.url))?;
            }
        }
        if let Some(input) = &self.looked.input {
            line(f, "read", input.display())?;
        }
        line(f, "read", self.looked.outbox.display())?;
        if let Some(url) = &self.looked.parquet {
            line(f, "read", format_args!("{} objects of {url}", self.looked.objects))?;
        }
        self.looked.failures.iter().try_for_each(|failure| line(f, "warning", failure))
    }
}

fn line(f: &mut Formatter<'_>, what: &str, text: impl Display) -> fmt::Result {
    writeln!(f, "  {what:<10} {text}")
}

fn show(account: &Account, f: &mut Formatter<'_>) -> fmt::Result {
    if !account.tenant.is_empty() {
        line(f, "tenant", &account.tenant)?;
    }
    let unit = if account.whole { "one unit, its root was seen" } else { "its root was not seen" };
    line(f, "unit", unit)?;
    match account.spans {
        None => line(f, "memory", "its spans have left memory, its verdict is remembered")?,
        Some(spans) => {
            let complete = if account.complete { "complete" } else { "not complete: some have left memory" };
            line(f, "memory", format_args!("{spans} spans, {complete}"))?;
        }
    }
    if let Some(due) = account.due_in_seconds {
        line(f, "waiting", format_args!("{} spans, due in {}", account.waiting_spans, time(due)))?;
    }
    if let Some(verdict) = &account.verdict {
        show_verdict(account.state, verdict, f)?;
    }
    account.operation.iter().try_for_each(|operation| show_operation(operation, f))
}

fn show_verdict(state: State, verdict: &Verdict, f: &mut Formatter<'_>) -> fmt::Result {
    let judged = match state {
        State::Kept => "kept",
        State::Dropped => "dropped",
        State::Waiting | State::Stream => "judged",
    };
    line(f, "judged", format_args!("{judged} {} ago", time(verdict.age_seconds)))?;
    match &verdict.asks {
        Some(asks) => line(f, "policy", format_args!("{}: {asks}", verdict.policy))?,
        None => line(f, "policy", &verdict.policy)?,
    }
    line(f, "share", Shown(&verdict.draw))
}

fn show_operation(operation: &Operation, f: &mut Formatter<'_>) -> fmt::Result {
    let Operation { service, name, duration_seconds, thresholds } = operation;
    let duration = duration_seconds.map_or_else(|| "unknown".to_owned(), time);
    line(f, "duration", format_args!("{duration}, operation \"{name}\" of \"{service}\""))?;
    for above in thresholds {
        let percentile = &above.percentile;
        match above.seconds {
            Some(threshold) => {
                let slow = if above.slow { "slow" } else { "not slow" };
                let threshold = time(threshold);
                line(f, "slow", format_args!("{slow}: {percentile} is {threshold} now"))?;
            }
            None => {
                line(f, "slow", format_args!("not slow: {percentile} of its operation is not known yet"))?
            }
        }
    }
    Ok(())
}

/// R against T, as the draw compares them.
struct Shown<'a>(&'a Draw);

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Draw { randomness, threshold } = self.0;
        match threshold {
            // Both have as many digits, but that of nothing, which has one more place.
            Some(threshold) if (randomness.len(), randomness) >= (threshold.len(), threshold) => {
                write!(f, "R {randomness} >= T {threshold}: drawn")
            }
            Some(threshold) => write!(f, "R {randomness} < T {threshold}: not drawn"),
            None => write!(f, "R {randomness}, T is not known any more"),
        }
    }
}

impl Display for Left {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let unit = if self.whole { "judged as one unit" } else { "a unit without the root" };
        let complete = if self.complete { "complete" } else { "not complete" };
        let Self { spans, place, policy, reason, weight, judged_at, .. } = self;
        write!(f, "{spans} spans at {judged_at} by {policy} (reason {reason}), {unit}, {complete}, ")?;
        write!(f, "weight {weight}, {}, in {place}", Shown(&self.draw))
    }
}

/// Milliseconds below a second, tenths of a second below a minute.
fn time(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => format!("{:.3} ms", s * 1e3),
        s if s < 60.0 => format!("{s:.1} s"),
        s if s < 3_600.0 => format!("{:.0}m{:02.0}s", (s / 60.0).floor(), (s % 60.0).floor()),
        s => format!("{:.0}h{:02.0}m", (s / 3_600.0).floor(), (s % 3_600.0 / 60.0).floor()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{Randomness, Threshold};

    fn instance(window_seconds: f64, traces: Vec<Account>) -> Instance {
        Instance::new("http://x".to_owned(), Ok(Testimony { window_seconds, traces }))
    }

    fn account(state: State) -> Account {
        Account {
            tenant: String::new(),
            state,
            spans: Some(3),
            waiting_spans: 0,
            due_in_seconds: None,
            whole: true,
            complete: true,
            verdict: None,
            operation: None,
        }
    }

    fn report(instance: Instance) -> Report {
        Report::new(TraceId([1; 16]), instance, Vec::new(), Vec::new(), Looked::default())
    }

    #[test]
    fn what_nobody_knows_was_judged_before_the_window_or_never_seen() {
        let unknown = report(instance(272.9, Vec::new()));
        assert_eq!(unknown.says, "not kept; judged more than 4m32s ago, or never seen");
        let alone = report(Instance::new("http://x".to_owned(), Err(anyhow::anyhow!("connection refused"))));
        assert!(
            alone.says.starts_with("not kept, or never seen; without a running instance"),
            "{}",
            alone.says
        );
        assert!(alone.to_string().contains("no running instance at http://x: connection refused"));
    }

    #[test]
    fn each_state_has_its_word() {
        for (state, fate) in [
            (State::Waiting, Fate::Waiting),
            (State::Kept, Fate::Kept),
            (State::Dropped, Fate::Dropped),
            (State::Stream, Fate::ByUnits),
        ] {
            assert_eq!(report(instance(1.0, vec![account(state)])).fate, fate);
        }
    }

    #[test]
    fn the_draw_is_shown_as_it_went() {
        let shown = |r, t| Shown(&Draw::new(Randomness(r), Some(Threshold(t)))).to_string();
        assert_eq!(shown(0x10, 0x10), "R 00000000000010 >= T 00000000000010: drawn");
        assert_eq!(shown(0x0f, 0x10), "R 0000000000000f < T 00000000000010: not drawn");
        assert!(shown((1 << 56) - 1, 1 << 56).ends_with("< T 100000000000000: not drawn"));
    }
}
