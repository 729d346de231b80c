//! What `/status` tells of the stages.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use uuid::Uuid;

use super::metrics::PipelineMetrics;
use crate::exporter::metrics::Lost;
use crate::receiver;
use crate::receiver::metrics::{Outcome, Transport};
use crate::telemetry::Readiness;
use crate::telemetry::notices::NOTICES;
use crate::telemetry::status::{
    Counts, Disk, Exporter, History, Judged, Memory, Policy, Refused, Rejected, Status, Tells, Trace,
};
use crate::trace::Reason;

/// Traces that are shown of the largest.
const LARGEST: usize = 10;

/// See the module.
pub(super) struct StageStatus {
    pub(super) stages: Arc<PipelineMetrics>,
    pub(super) receiver: Arc<receiver::Metrics>,
    pub(super) readiness: Readiness,
    pub(super) instance: Uuid,
    pub(super) history: History,
}

impl StageStatus {
    /// Notes the counters, for rates; about once a second.
    pub(super) fn note(&self) {
        self.history.note(self.stages.engine.clock.elapsed_ms(), self.counts());
    }

    fn counts(&self) -> Counts {
        let balance = self.stages.engine.ledger.balance();
        let accepted = |outcome| Transport::ALL.map(|transport| self.receiver.requested(transport, outcome));
        Counts {
            accepted_spans: balance.accepted,
            kept_spans: balance.kept,
            dropped_spans: balance.dropped,
            accepted_requests: accepted(Outcome::Accepted).iter().chain(&accepted(Outcome::Partial)).sum(),
            refused_requests: self.receiver.refused_requests().map(|(_, requests)| requests).sum(),
        }
    }

    fn policies(&self) -> Vec<Policy> {
        let by_policy = self.stages.engine.ledger.by_policy();
        by_policy.into_iter().map(|(name, counts)| Policy { name, counts }).collect()
    }

    fn judged(&self) -> Judged {
        let tallies = &self.stages.judge;
        let units: u64 = tallies.by_reason().map(|(_, count)| count).sum();
        let pressed = tallies.by_reason().find(|(reason, _)| *reason == Reason::Pressure.name());
        Judged {
            units,
            without_root: tallies.rootless.load(Relaxed),
            upgraded: tallies.upgrades.load(Relaxed),
            by_pressure: pressed.map_or(0, |(_, count)| count),
            mean_wait_ms: tallies.waited_ms.load(Relaxed).checked_div(units).unwrap_or(0),
        }
    }

    fn exporters(&self) -> Vec<Exporter> {
        let exporter = |subscription: &crate::exporter::outbox::Subscription| {
            let metrics = &subscription.metrics;
            let pending = metrics.pending();
            Exporter {
                name: subscription.cursor.exporter().to_owned(),
                up: metrics.obstacle().is_none(),
                delivered: metrics.delivered(),
                pending: pending.spans,
                pending_bytes: pending.bytes,
                lost: Lost::ALL.into_iter().map(|cause| metrics.lost(cause)).sum(),
                last_error: metrics.last_error(),
            }
        };
        self.stages.outbox.subscriptions().map(exporter).collect()
    }

    fn largest(&self) -> Vec<Trace> {
        let engine = &self.stages.engine;
        let trace = |large: crate::buffer::Large| Trace {
            trace_id: large.key.trace.to_string(),
            tenant: engine.tenant_name(large.key.tenant).to_string(),
            bytes: large.bytes,
            state: large.state.name(),
        };
        engine.buffer.largest(LARGEST).into_iter().map(trace).collect()
    }

    fn refused(&self) -> Vec<Refused> {
        let by_cause = self.receiver.refused_requests().zip(self.receiver.refused_bytes());
        by_cause
            .map(|((cause, requests), (_, bytes))| Refused { cause: cause.label(), requests, bytes })
            .collect()
    }

    fn concerns(&self, status: &Status) -> Vec<String> {
        let mut concerns = Vec::new();
        if status.rates.refused_requests > 0.0 {
            concerns.push("Senders are being refused: see the causes below.".to_owned());
        }
        for exporter in status.exporters.iter().filter(|exporter| !exporter.up) {
            concerns.push(format!("Exporter {} fails; what is kept waits for it on disk.", exporter.name));
        }
        for exporter in status.exporters.iter().filter(|exporter| exporter.lost > 0) {
            let spans = if exporter.lost == 1 { "span" } else { "spans" };
            concerns.push(format!(
                "Exporter {} will never deliver {} kept {spans}.",
                exporter.name, exporter.lost
            ));
        }
        if self.stages.judge.skewed.load(Relaxed) {
            concerns.push(
                "Trace IDs are not random in their low 56 bits: shares and weights are not true. Set randomness: hash."
                    .to_owned(),
            );
        }
        if status.difference != 0 {
            concerns.push(
                "The books do not balance: this is a defect, or something moved while they were read."
                    .to_owned(),
            );
        }
        if status.lost_bytes.iter().any(|lost| lost.amount > 0) {
            concerns.push("Part of the logs could not be read back at start.".to_owned());
        }
        concerns
    }
}

impl Tells for StageStatus {
    fn status(&self) -> Status {
        let PipelineMetrics { engine, budget, disk, outbox, .. } = &*self.stages;
        let amounts = |causes: Vec<(&'static str, u64)>| {
            causes.into_iter().map(|(cause, amount)| Rejected { cause, amount }).collect()
        };
        let (now_ms, elapsed_ms) = (engine.clock.arrival_ms(), engine.clock.elapsed_ms());
        let counts = engine.buffer.counts();
        let ledger = engine.ledger.balance();
        let mut status = Status {
            version: env!("CARGO_PKG_VERSION"),
            instance: self.instance.to_string(),
            now_ms,
            uptime_seconds: elapsed_ms / 1_000,
            unready: self.readiness.reason(),
            window_seconds: engine.window_ms() as f64 / 1e3,
            rates: self.history.rates(elapsed_ms, self.counts()),
            memory: Memory {
                limit_bytes: budget.limit() as u64,
                log_and_index_bytes: engine.memory.bytes() as u64,
                in_flight_bytes: budget.in_flight() as u64,
                traces: counts.traces,
                spans: counts.spans,
            },
            disk: Disk {
                limit_bytes: disk.limit(),
                input_bytes: disk.input_bytes(),
                outbox_bytes: outbox.log().bytes_on_disk(),
            },
            policies: self.policies(),
            ledger,
            difference: ledger.difference() as i64,
            judged: self.judged(),
            exporters: self.exporters(),
            largest_traces: self.largest(),
            refused: self.refused(),
            rejected: amounts(engine.ledger.rejected_by_cause()),
            lost_bytes: amounts(engine.ledger.lost_bytes_by_cause()),
            concerns: Vec::new(),
            notices: NOTICES.last(),
        };
        status.concerns = self.concerns(&status);
        status
    }
}
