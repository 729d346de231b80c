//! What `/metrics` shows of the engine, the judge and the keeper.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::budget::Budget;
use super::disk::DiskBudget;
use super::engine::Engine;
use super::judge::JudgeTallies;
use super::keeper::KeeperTallies;
use super::past::Past;
use crate::exporter::metrics::{Lost, Obstacle};
use crate::exporter::outbox::{Outbox, Subscription};
use crate::telemetry::{Families, Source};

/// See the module.
pub(super) struct PipelineMetrics {
    pub(super) engine: Arc<Engine>,
    pub(super) budget: Arc<Budget>,
    pub(super) disk: Arc<DiskBudget>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) judge: Arc<JudgeTallies>,
    pub(super) keeper: Arc<KeeperTallies>,
    pub(super) past: Arc<Past>,
}

impl Source for PipelineMetrics {
    fn collect(&self, out: &mut Families) {
        self.window(out);
        self.judgements(out);
        self.policies(out);
        self.randomness(out);
        self.disk(out);
        self.exporters(out);
        self.slow(out);
    }

    fn remarks(&self) -> Vec<String> {
        let mut remarks: Vec<String> = self.outbox.subscriptions().filter_map(remark).collect();
        if let Some(failure) = &*self.keeper.failure.lock() {
            remarks.push(format!("the state cannot be kept, and nothing is deleted meanwhile: {failure}"));
        }
        remarks
    }
}

/// What an exporter is kept from its work by.
fn remark(subscription: &Subscription) -> Option<String> {
    let (exporter, metrics) = (subscription.cursor.exporter(), &subscription.metrics);
    let what = match metrics.obstacle()? {
        Obstacle::Backend => "takes nothing",
        Obstacle::Disk => "cannot use this machine's disk",
        Obstacle::Defect => "has a defect and is tried again",
    };
    let (spans, error) = (metrics.pending().spans, metrics.last_error().unwrap_or_default());
    Some(format!("exporter {exporter} {what}, {spans} spans wait: {error}"))
}

impl PipelineMetrics {
    fn window(&self, out: &mut Families) {
        let memory = &self.engine.memory;
        let help = "Seconds of traffic that the memory log holds.";
        out.gauge("tailwater_buffer_window_seconds", help, &[], self.engine.window_ms() as f64 / 1e3);
        let counts = self.engine.buffer.counts();
        out.gauge("tailwater_buffer_traces", "Traces with a span in the log.", &[], counts.traces as f64);
        out.gauge("tailwater_buffer_spans", "Spans in the log.", &[], counts.spans as f64);
        for (part, bytes) in [("log_and_index", memory.bytes()), ("in_flight", self.budget.in_flight())] {
            let help = "Bytes charged to the memory budget.";
            out.gauge("tailwater_buffer_memory_bytes", help, &[("part", part)], bytes as f64);
        }
        let limit = self.budget.limit() as f64;
        out.gauge("tailwater_buffer_memory_limit_bytes", "The memory budget.", &[], limit);
        let wire = memory.wire_bytes() as f64;
        out.gauge("tailwater_buffer_log_bytes", "Bytes of requests in the memory log.", &[], wire);
        let late = self.engine.tallies.late_spans.load(Relaxed);
        let help = "Spans that came after the first judgement of their trace.";
        out.counter("tailwater_buffer_late_spans_total", help, &[], late);
        let retired = self.keeper.segments_retired.load(Relaxed);
        out.counter("tailwater_buffer_segments_retired_total", "Segments that left memory.", &[], retired);
        let replaced = self.engine.tallies.strings_replaced.load(Relaxed);
        let help = "Strings that were not UTF-8.";
        out.counter("tailwater_receiver_strings_replaced_total", help, &[], replaced);
    }

    fn judgements(&self, out: &mut Families) {
        let mut judged = 0;
        for (reason, count) in self.judge.by_reason() {
            judged += count;
            let help = "Judgements, by what made them due.";
            out.counter("tailwater_sampler_judgements_total", help, &[("reason", reason)], count);
        }
        let waited = self.judge.waited_ms.load(Relaxed);
        let help = "Milliseconds from the opening of a trace to its judgement.";
        out.histogram("tailwater_sampler_wait_milliseconds", help, &[], &[], judged, waited as f64);
        for (name, help, tally) in [
            ("rootless_units", "Traces judged without a root.", &self.judge.rootless),
            ("lone_roots", "Units of a root and nothing else.", &self.judge.lone_roots),
            ("upgrades", "Traces of which a drop became a keep.", &self.judge.upgrades),
            ("inconsistent_spans", "Spans whose th was above their randomness.", &self.judge.inconsistent),
            (
                "untimed_roots",
                "Roots of judged traces without a start: such a trace has no duration.",
                &self.judge.untimed,
            ),
            (
                "negative_roots",
                "Roots of judged traces that end before they start: a duration of 0.",
                &self.judge.negative,
            ),
            (
                "partly_read_units",
                "Units too large for the conditions on them to be asked of all their spans.",
                &self.judge.partly_read,
            ),
        ] {
            out.counter(&format!("tailwater_sampler_{name}_total"), help, &[], tally.load(Relaxed));
        }
    }

    fn policies(&self, out: &mut Families) {
        let in_force = self.engine.policies.load();
        for shadow in in_force.policies.shadows() {
            for (verdict, units) in [("kept", shadow.kept), ("dropped", shadow.dropped)] {
                let labels = [("policy", shadow.policy), ("verdict", verdict)];
                let help =
                    "Traces and units that a shadow policy would have decided, by what it would have said.";
                out.counter("tailwater_sampler_shadowed_units_total", help, &labels, units);
            }
        }
        for (policy, keep) in in_force.policies.current_keeps(self.engine.clock.elapsed_ms()) {
            let labels = [("policy", policy)];
            let help = "Share of what a policy matches that it keeps now.";
            out.gauge("tailwater_sampler_keep_probability", help, &labels, keep.probability);
            if let Some(keys) = keep.keys {
                let help = "Keys of a policy that have a budget of their own.";
                out.gauge("tailwater_sampler_budget_keys", help, &labels, keys as f64);
            }
        }
    }

    fn randomness(&self, out: &mut Families) {
        let shares = self.judge.uniformity.shares();
        for (part, share) in shares.iter().flatten().enumerate() {
            let help = "Share of recent traces by the sixteenth of their randomness; even is 0.0625.";
            let labels = [("sixteenth", &*format!("{part:x}"))];
            out.gauge("tailwater_sampler_randomness_share", help, &labels, *share);
        }
        let skewed = f64::from(u8::from(self.judge.skewed.load(Relaxed)));
        let help = "1: a sixteenth of randomness has more than twice or less than half its share of traces.";
        out.gauge("tailwater_sampler_randomness_skewed", help, &[], skewed);
    }

    fn disk(&self, out: &mut Families) {
        let (input, outbox) = (self.disk.input_bytes(), self.outbox.log().bytes_on_disk());
        for (log, bytes) in [("input", input), ("outbox", outbox), ("past", self.past.bytes())] {
            out.gauge("tailwater_log_disk_bytes", "Bytes of a log on disk.", &[("log", log)], bytes as f64);
        }
        for (log, stalled) in [
            ("input", self.engine.input.as_ref().is_some_and(|input| input.stalled().is_some())),
            ("outbox", self.outbox.log().stalled().is_some()),
        ] {
            let help = "1: the disk refuses writes; they are tried again.";
            out.gauge("tailwater_log_stalled", help, &[("log", log)], f64::from(u8::from(stalled)));
        }
        let limit = self.disk.limit() as f64;
        out.gauge("tailwater_log_disk_limit_bytes", "The disk budget, for both logs.", &[], limit);
        if let Some(free) = self.disk.available() {
            let help = "Bytes that the disk below the logs can still take.";
            out.gauge("tailwater_log_disk_free_bytes", help, &[], free as f64);
        }
        let refuses = f64::from(u8::from(self.disk.refuses()));
        out.gauge("tailwater_log_disk_full", "1: senders are refused for want of disk.", &[], refuses);
        let low = self.keeper.low_water_segment.load(Relaxed);
        let behind = u64::from(self.engine.frontier().segment).saturating_sub(low);
        let help = "Segments between the low-water of the last state and the end of the input log.";
        out.gauge("tailwater_log_low_water_lag_segments", help, &[], behind as f64);
        let bytes = self.keeper.state_bytes.load(Relaxed) as f64;
        out.gauge("tailwater_pipeline_state_bytes", "Size of the last state file.", &[], bytes);
        for (outcome, tally) in
            [("written", &self.keeper.states_written), ("failed", &self.keeper.state_failures)]
        {
            let help = "State files, by outcome.";
            out.counter(
                "tailwater_pipeline_states_total",
                help,
                &[("outcome", outcome)],
                tally.load(Relaxed),
            );
        }
    }

    fn exporters(&self, out: &mut Families) {
        for subscription in self.outbox.subscriptions() {
            let metrics = &subscription.metrics;
            let name = [("exporter", subscription.cursor.exporter())];
            let counters: [(&str, &str, u64); 8] = [
                ("delivered_spans", "Spans that the backend has.", metrics.delivered()),
                ("pending_at_start_spans", "Spans that waited at start.", metrics.pending_at_start()),
                ("batches", "Batches, or segments, whose fate is known.", metrics.batches()),
                ("retries", "Sendings that were repeated.", metrics.retries()),
                ("deaths", "Times its task has died and was begun again.", metrics.deaths()),
                ("repeated_spans", "Spans that count again after such a death.", metrics.repeated()),
                (
                    "duplicate_keys",
                    "Attributes that lost to a later one of the same key.",
                    metrics.duplicate_keys(),
                ),
                ("unreadable_bytes", "Bytes of the outbox that cannot be read.", metrics.lost_bytes()),
            ];
            for (thing, help, value) in counters {
                out.counter(&format!("tailwater_exporter_{thing}_total"), help, &name, value);
            }
            for cause in Lost::ALL {
                let labels = [name[0], ("cause", cause.name())];
                let help = "Spans that this exporter will not deliver.";
                out.counter("tailwater_exporter_lost_spans_total", help, &labels, metrics.lost(cause));
            }
            let pending = metrics.pending();
            let is = |obstacle| u64::from(metrics.obstacle() == Some(obstacle));
            let gauges = [
                ("pending_spans", "Spans that wait.", pending.spans),
                ("pending_bytes", "Bytes that wait.", pending.bytes),
                ("down", "1: the backend takes nothing.", is(Obstacle::Backend)),
                (
                    "stalled",
                    "1: this machine's disk keeps it from its work; it tries again.",
                    is(Obstacle::Disk),
                ),
            ];
            for (thing, help, value) in gauges {
                out.gauge(&format!("tailwater_exporter_{thing}"), help, &name, value as f64);
            }
        }
    }

    fn slow(&self, out: &mut Families) {
        let known = self.engine.slow.known();
        let operations = known.iter().filter(|known| known.name.is_some()).count();
        let help = "Operations whose durations are learned apart, at most 2,000; the others share those of their service.";
        out.gauge("tailwater_sampler_slow_operations", help, &[], operations as f64);
        for known in known {
            let name = known.name.as_deref().unwrap_or("(other)");
            let tenant = self.engine.tenant_name(known.tenant);
            for (percentile, threshold_ns) in &known.thresholds {
                let percentile = percentile.to_string();
                let labels = [
                    ("tenant", &*tenant),
                    ("service", &*known.service),
                    ("operation", name),
                    ("percentile", &*percentile),
                ];
                let help = "Above it a trace is slow for its operation.";
                out.gauge(
                    "tailwater_sampler_slow_threshold_seconds",
                    help,
                    &labels,
                    *threshold_ns as f64 / 1e9,
                );
            }
        }
    }
}
