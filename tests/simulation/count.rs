//! How often what was done to an instance.

use std::fmt;

use crate::world::End;

/// Sums over runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub events: u64,
    pub lives: u64,
    pub operations: u64,
    pub kills: u64,
    pub power_losses: u64,
    pub orderly: u64,
    pub crashes_in_recovery: u64,
    pub crashes_in_uploads: u64,
    pub torn_writes: u64,
    pub disk_full: u64,
    pub failing_writes: u64,
    pub failed_syncs: u64,
    pub failed_states: u64,
    pub refused_starts: u64,
    pub refusals: u64,
    pub retries: u64,
    pub reloads: u64,
    pub states: u64,
    pub groups: u64,
    pub backend_failures: u64,
    pub unanswered: u64,
    pub refused_for_good: u64,
    pub failed_uploads: u64,
    pub repeated_uploads: u64,
    pub objects: u64,
    pub spans_sent: u64,
    pub spans_acknowledged: u64,
    pub spans_that_must_leave: u64,
}

impl Counts {
    pub fn ended(&mut self, end: End) {
        match end {
            End::Kill => self.kills += 1,
            End::Power => self.power_losses += 1,
        }
    }

    pub fn crashes(&self) -> u64 {
        self.kills + self.power_losses
    }

    fn rows(&mut self) -> [(&'static str, &mut u64); 28] {
        [
            ("events", &mut self.events),
            ("lives", &mut self.lives),
            ("disk operations", &mut self.operations),
            ("kill -9", &mut self.kills),
            ("losses of power", &mut self.power_losses),
            ("orderly ends", &mut self.orderly),
            ("crashes in recovery", &mut self.crashes_in_recovery),
            ("crashes in uploads", &mut self.crashes_in_uploads),
            ("torn writes", &mut self.torn_writes),
            ("full disks", &mut self.disk_full),
            ("failing writes", &mut self.failing_writes),
            ("failed syncs", &mut self.failed_syncs),
            ("states not kept", &mut self.failed_states),
            ("starts refused on ill disks", &mut self.refused_starts),
            ("requests refused", &mut self.refusals),
            ("requests sent again", &mut self.retries),
            ("reloads", &mut self.reloads),
            ("states kept", &mut self.states),
            ("groups of several pieces", &mut self.groups),
            ("backend failures", &mut self.backend_failures),
            ("deliveries without an answer", &mut self.unanswered),
            ("requests refused for good", &mut self.refused_for_good),
            ("uploads failed", &mut self.failed_uploads),
            ("uploads repeated", &mut self.repeated_uploads),
            ("objects", &mut self.objects),
            ("spans sent", &mut self.spans_sent),
            ("spans acknowledged", &mut self.spans_acknowledged),
            ("spans that had to leave", &mut self.spans_that_must_leave),
        ]
    }

    pub fn add(&mut self, mut other: Self) {
        for ((_, sum), (_, more)) in self.rows().into_iter().zip(other.rows()) {
            *sum += *more;
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counts = self.clone();
        counts.rows().iter().try_for_each(|(name, count)| writeln!(f, "{count:>12} {name}"))
    }
}
