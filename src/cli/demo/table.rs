//! What the demo shows: kept and dropped by policy, and what "slow" has come to mean.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use crate::pipeline::{Operation, Stats};

/// Operations shown at most.
const OPERATIONS: usize = 10;

/// One frame.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) seconds: u64,
    pub(super) of: u64,
    pub(super) sent: u64,
    pub(super) stats: &'a Stats,
}

impl fmt::Display for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let balance = &self.stats.balance;
        writeln!(
            f,
            "{} s of {} s   sent {}   accepted {}   waiting for their verdict {}",
            self.seconds,
            self.of,
            thousands(self.sent),
            thousands(balance.accepted),
            thousands(balance.buffered)
        )?;
        self.policies(f)?;
        self.operations(f)
    }
}

impl View<'_> {
    fn policies(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |f: &mut fmt::Formatter<'_>, cells: [&str; 5]| {
            let [name, traces_kept, traces_dropped, spans_kept, spans_dropped] = cells;
            writeln!(
                f,
                "  {name:<16}{traces_kept:>13}{traces_dropped:>16}{spans_kept:>12}{spans_dropped:>15}"
            )
        };
        writeln!(f)?;
        row(f, ["policy", "traces kept", "traces dropped", "spans kept", "spans dropped"])?;
        for (name, counts) in &self.stats.policies {
            let cells = [counts.kept_units, counts.dropped_units, counts.kept, counts.dropped].map(thousands);
            let is_idle_none = name == "none" && counts.kept + counts.dropped == 0;
            if !is_idle_none {
                row(f, [name, &cells[0], &cells[1], &cells[2], &cells[3]])?;
            }
        }
        let judged = self.stats.balance.kept + self.stats.balance.dropped;
        if judged > 0 {
            let share = self.stats.balance.kept as f64 * 100.0 / judged as f64;
            writeln!(f, "  {share:.1} % of the judged spans are kept")?;
        }
        Ok(())
    }

    fn operations(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut learned: Vec<&Operation> =
            self.stats.operations.iter().filter(|operation| operation.threshold.is_some()).collect();
        writeln!(f)?;
        if learned.is_empty() {
            return writeln!(
                f,
                "  still learning how long each operation takes (200 traces of it are needed)"
            );
        }
        learned.sort_by(|a, b| b.observations.cmp(&a.observations).then_with(|| a.name.cmp(&b.name)));
        learned.truncate(OPERATIONS);
        writeln!(f, "  {:<40}{:>14}{:>14}", "operation", "slow above", "traces seen")?;
        for operation in learned {
            let name = format!("{}: {}", operation.service, operation.name);
            let threshold = operation.threshold.unwrap_or_default();
            writeln!(f, "  {name:<40}{:>14}{:>14}", time(threshold), thousands(operation.observations))?;
        }
        Ok(())
    }
}

/// One line of SQL for the files of the demo; its result says what the sampling kept and what it stands for.
pub(super) fn query(glob: &Path) -> String {
    format!(
        "SELECT policy, count(DISTINCT trace_id) AS traces, count(*) AS spans_kept, \
         round(sum(sampling_weight)) AS spans_they_stand_for FROM '{}' GROUP BY ALL ORDER BY ALL",
        glob.display()
    )
}

/// Three digits, with the unit that suits them.
fn time(duration: Duration) -> String {
    let ms = duration.as_secs_f64() * 1e3;
    match ms {
        ms if ms >= 1e4 => format!("{:.1} s", ms / 1e3),
        ms if ms >= 100.0 => format!("{ms:.0} ms"),
        ms if ms >= 10.0 => format!("{ms:.1} ms"),
        ms => format!("{ms:.2} ms"),
    }
}

/// 1234567 as 1,234,567.
fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Balance, PolicyCounts};

    #[test]
    fn numbers_are_grouped_and_times_have_their_unit() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
        let times = [412, 21_500, 312_000, 12_300_000].map(|us| time(Duration::from_micros(us)));
        assert_eq!(times, ["0.41 ms", "21.5 ms", "312 ms", "12.3 s"]);
    }

    #[test]
    fn a_frame_shows_policies_and_what_slow_means() {
        let counts = PolicyCounts { kept: 80, dropped: 0, kept_units: 12, dropped_units: 0 };
        let operation = Operation {
            service: "storefront".to_owned(),
            name: "POST /checkout".to_owned(),
            observations: 1_500,
            threshold: Some(Duration::from_millis(312)),
        };
        let stats = Stats {
            balance: Balance { kept: 80, dropped: 720, ..Balance::default() },
            policies: vec![("errors".to_owned(), counts), ("none".to_owned(), PolicyCounts::default())],
            operations: vec![operation],
            ..Stats::default()
        };
        let frame = View { seconds: 3, of: 40, sent: 6_000, stats: &stats }.to_string();
        assert!(
            frame.contains("errors                     12               0          80              0"),
            "{frame}"
        );
        assert!(!frame.contains("none"), "{frame}");
        assert!(frame.contains("10.0 % of the judged spans are kept"), "{frame}");
        assert!(
            frame.contains("storefront: POST /checkout                      312 ms         1,500"),
            "{frame}"
        );
    }
}
