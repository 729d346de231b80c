//! Watches when traces are judged: none may be judged younger than the configuration says.

use std::collections::BTreeMap;

use tailwater::buffer::{Key, Known, State};
use tailwater::pipeline::Simulation;
use tailwater::trace::TenantId;

use crate::plan::Plan;
use crate::traffic::{TENANTS, Trace, Traffic, Waits};

/// A trace with spans that wait.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    since_ms: u64,
    unjudged: u32,
    first: bool,
    /// When its root came, or came back with a restart.
    root_ms: Option<u64>,
    /// Of an earlier life: it has waited before.
    recovered: bool,
    /// In force when it began to wait, and when its root came.
    waits: Waits,
    root_waits: Waits,
}

/// Traces that wait, by number.
#[derive(Debug)]
pub struct Watch {
    waiting: BTreeMap<usize, Waiting>,
    /// In force.
    waits: Waits,
}

impl Watch {
    /// A life begins, with what it has recovered.
    pub fn begin(instance: &Simulation, traffic: &Traffic, waits: Waits, now_ms: u64) -> Self {
        let mut watch = Self { waiting: BTreeMap::new(), waits };
        for number in 0..traffic.traces.len() {
            watch.look(instance, traffic, number, now_ms, true);
        }
        watch
    }

    /// Waits that begin from now on are these.
    pub fn reloaded(&mut self, waits: Waits) {
        self.waits = waits;
    }

    /// Spans of a trace have been received.
    pub fn received(&mut self, instance: &Simulation, traffic: &Traffic, number: usize, now_ms: u64) {
        self.look(instance, traffic, number, now_ms, false);
    }

    fn look(
        &mut self,
        instance: &Simulation,
        traffic: &Traffic,
        number: usize,
        now_ms: u64,
        recovered: bool,
    ) {
        let Some(known) = known(instance, &traffic.traces[number]).filter(|known| known.unjudged > 0) else {
            return;
        };
        let first = known.state == State::Open && !traffic.traces[number].judged;
        let fresh = Waiting { first, recovered, ..Waiting::begin(self.waits, now_ms) };
        let waiting = self.waiting.entry(number).or_insert(fresh);
        waiting.unjudged = known.unjudged;
        if known.root_seen && waiting.root_ms.is_none() {
            (waiting.root_ms, waiting.root_waits) = (Some(now_ms), self.waits);
        }
    }

    /// The judge has looked; returns traces, and how many of their spans were judged. An error names one that
    /// was judged too young.
    pub fn judged(
        &mut self,
        instance: &Simulation,
        traffic: &mut Traffic,
        plan: &Plan,
        now_ms: u64,
    ) -> Result<Vec<(usize, u32)>, String> {
        let mut judged = Vec::new();
        for (number, mut waiting) in std::mem::take(&mut self.waiting) {
            let trace = &mut traffic.traces[number];
            let left = known(instance, trace).map_or(0, |known| known.unjudged);
            if left < waiting.unjudged {
                judged.push((number, waiting.unjudged - left));
                trace.judged = true;
                let fills_a_piece = plan.piece_bytes.is_some_and(|bytes| trace.bytes() >= bytes.into());
                if !fills_a_piece {
                    waiting.check(number, plan, self.waits, now_ms)?;
                }
                waiting = Waiting { unjudged: left, ..Waiting::begin(self.waits, now_ms) };
            }
            if left > 0 {
                self.waiting.insert(number, waiting);
            }
        }
        Ok(judged)
    }

    /// All that waits is judged, whenever it would be due.
    pub fn drained(&mut self, traffic: &mut Traffic) {
        for number in std::mem::take(&mut self.waiting).into_keys() {
            (traffic.traces[number].judged, traffic.traces[number].early) = (true, true);
        }
    }
}

impl Waiting {
    fn begin(waits: Waits, now_ms: u64) -> Self {
        Self {
            since_ms: now_ms,
            unjudged: 0,
            first: false,
            root_ms: None,
            recovered: false,
            waits,
            root_waits: waits,
        }
    }

    fn check(&self, number: usize, plan: &Plan, in_force: Waits, now_ms: u64) -> Result<(), String> {
        let root_due = self.root_ms.map(|root_ms| root_ms + self.root_waits.after_root_ms);
        let waits = [self.waits, self.root_waits, in_force].map(|waits| waits.after_root_ms);
        let after_root_ms = waits.into_iter().min().unwrap_or_default();
        let wait_ms = if self.recovered { after_root_ms } else { self.waits.max_wait_ms };
        let due_ms = match self.first && !plan.pressure {
            true => root_due.unwrap_or(u64::MAX).min(self.since_ms + wait_ms),
            false => self.since_ms + after_root_ms,
        };
        if now_ms < due_ms {
            return Err(format!("trace {number} is judged {} ms too early: {self:?}", due_ms - now_ms));
        }
        Ok(())
    }
}

/// What an instance knows of a trace.
pub fn known(instance: &Simulation, trace: &Trace) -> Option<Known> {
    let tenant: TenantId = instance.engine().tenant(TENANTS[trace.tenant]).ok()?;
    instance.engine().buffer.known(Key { trace: trace.id, tenant })
}
