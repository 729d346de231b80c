//! How often what was done to an instance.

use std::fmt;

use tailwater::buffer::State;

use crate::world::{End, World};

macro_rules! counts {
    ($($field:ident: $name:literal,)*) => {
        /// Sums over runs.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Counts {
            $(pub $field: u64,)*
        }

        impl Counts {
            fn rows(&mut self) -> Vec<(&'static str, &mut u64)> {
                vec![$(($name, &mut self.$field),)*]
            }
        }
    };
}

counts! {
    events: "events",
    lives: "lives",
    operations: "disk operations",
    kills: "kill -9",
    power_losses: "losses of power",
    orderly: "orderly ends",
    drains: "drains",
    crashes_in_recovery: "crashes in recovery",
    crashes_in_uploads: "crashes in uploads",
    torn_writes: "torn writes",
    disk_full: "full disks",
    full_input: "writes refused by a full disk: input",
    full_outbox: "writes refused by a full disk: outbox",
    full_state: "writes refused by a full disk: state",
    full_parquet: "writes refused by a full disk: Parquet",
    full_cursor: "writes refused by a full disk: cursors",
    failing_writes: "failing writes",
    failed_reads: "failed reads",
    failed_syncs: "failed syncs",
    failed_states: "states not kept",
    damaged_input: "bits flipped: input log",
    damaged_outbox: "bits flipped: outbox",
    damaged_cursor: "bits flipped: cursors",
    damaged_state: "bits flipped: state",
    refused_starts: "starts refused on ill disks",
    refusals: "requests refused",
    retries: "requests sent again",
    reloads: "reloads",
    states: "states kept",
    groups: "groups of several pieces",
    full_pieces: "pieces of traces that are larger than one",
    streams_recovered: "streams known after a start",
    kept_recovered: "kept traces known after a start",
    sketches_recovered: "sketches known after a start",
    slow_traces: "slow traces that had to leave",
    bounded: "traces kept within a budget",
    exporters_added: "exporters added",
    exporters_removed: "exporters removed",
    evicted: "spans given up by a full outbox",
    backend_failures: "backend failures",
    unanswered: "deliveries without an answer",
    refused_for_good: "requests refused for good",
    failed_uploads: "uploads failed",
    repeated_uploads: "uploads repeated",
    objects: "objects",
    spans_sent: "spans sent",
    spans_acknowledged: "spans acknowledged",
    spans_that_must_leave: "spans that had to leave",
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

    pub fn add(&mut self, mut other: Self) {
        for ((_, sum), (_, more)) in self.rows().into_iter().zip(other.rows()) {
            *sum += *more;
        }
    }
}

impl World {
    /// What the disk refused.
    pub fn count_refused(&mut self) {
        let ([cursor, input, outbox, state, parquet], failed_reads) = self.rig.refused();
        let counts = &mut self.counts;
        (counts.full_cursor, counts.full_input, counts.full_outbox) = (cursor, input, outbox);
        (counts.full_state, counts.full_parquet, counts.failed_reads) = (state, parquet, failed_reads);
        counts.full_pieces = self.pieces.full;
    }

    /// What was known of traces when a life began.
    pub fn count_recovered(&mut self) {
        let Some(life) = &self.life else { return };
        let buffer = &life.instance.engine().buffer;
        buffer.kept(|trace| match trace.state {
            State::Stream => self.counts.streams_recovered += 1,
            _ => self.counts.kept_recovered += 1,
        });
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counts = self.clone();
        counts.rows().iter().try_for_each(|(name, count)| writeln!(f, "{count:>12} {name}"))
    }
}
