//! Watches when traces are judged: none may be judged younger than the configuration says.

use std::collections::BTreeMap;

use tailwater::buffer::{Key, Known, State};
use tailwater::pipeline::Simulation;
use tailwater::trace::TenantId;

use crate::plan::Plan;
use crate::traffic::{TENANTS, Trace, Traffic};

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
}

/// Traces that wait, by number.
#[derive(Debug, Default)]
pub struct Watch(BTreeMap<usize, Waiting>);

impl Watch {
    /// A life begins, with what it has recovered.
    pub fn begin(instance: &Simulation, traffic: &Traffic, now_ms: u64) -> Self {
        let mut watch = Self::default();
        for number in 0..traffic.traces.len() {
            watch.look(instance, traffic, number, now_ms, true);
        }
        watch
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
        let fresh = Waiting { since_ms: now_ms, unjudged: 0, first, root_ms: None, recovered };
        let waiting = self.0.entry(number).or_insert(fresh);
        waiting.unjudged = known.unjudged;
        if known.root_seen {
            waiting.root_ms.get_or_insert(now_ms);
        }
    }

    /// The judge has looked. An error names a trace that was judged too young.
    pub fn judged(
        &mut self,
        instance: &Simulation,
        traffic: &mut Traffic,
        plan: &Plan,
        now_ms: u64,
    ) -> Result<Vec<usize>, String> {
        let mut judged = Vec::new();
        for (number, mut waiting) in std::mem::take(&mut self.0) {
            let known = known(instance, &traffic.traces[number]);
            let left = known.as_ref().map_or(0, |known| known.unjudged);
            if left < waiting.unjudged {
                judged.push(number);
                traffic.traces[number].judged = true;
                waiting.check(number, plan, now_ms)?;
                waiting = Waiting {
                    since_ms: now_ms,
                    unjudged: left,
                    first: false,
                    root_ms: None,
                    recovered: false,
                };
            }
            if left > 0 {
                self.0.insert(number, waiting);
            }
        }
        Ok(judged)
    }
}

impl Waiting {
    fn check(&self, number: usize, plan: &Plan, now_ms: u64) -> Result<(), String> {
        let waits = plan.waits;
        let root_due = self.root_ms.map(|root_ms| root_ms + waits.after_root_ms);
        let wait_due = if self.recovered { waits.after_root_ms } else { waits.max_wait_ms };
        let due_ms = match self.first && !plan.pressure {
            true => root_due.unwrap_or(u64::MAX).min(self.since_ms + wait_due),
            false => self.since_ms + waits.after_root_ms,
        };
        if now_ms < due_ms {
            return Err(format!("trace {number} is judged {} ms too early: {self:?}", due_ms - now_ms));
        }
        Ok(())
    }
}

fn known(instance: &Simulation, trace: &Trace) -> Option<Known> {
    let tenant: TenantId = instance.engine().tenant(TENANTS[trace.tenant]).ok()?;
    instance.engine().buffer.known(Key { trace: trace.id, tenant })
}
