//! How the counters of the stages are shown. The stages know nothing of it.

use std::sync::Arc;

use super::{Families, Source};
use crate::exporter::metrics::{self as exporter, Lost};
use crate::receiver;

impl Source for receiver::Metrics {
    fn collect(&self, out: &mut Families) {
        for (transport, outcome, requests) in self.requests().filter(|(_, _, requests)| *requests > 0) {
            out.counter(
                "tailwater_receiver_requests_total",
                "Requests answered.",
                &[("transport", transport.label()), ("outcome", outcome.label())],
                requests,
            );
        }
        for (cause, requests) in self.refused_requests() {
            out.counter(
                "tailwater_receiver_refused_requests_total",
                "Requests refused whole.",
                &[("cause", cause.label())],
                requests,
            );
        }
        for (cause, bytes) in self.refused_bytes() {
            out.counter(
                "tailwater_receiver_refused_bytes_total",
                "Bytes of requests refused whole, as far as they were read.",
                &[("cause", cause.label())],
                bytes,
            );
        }
    }
}

/// The book of one exporter, by its name.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub exporter: String,
    pub counters: Arc<exporter::Metrics>,
}

impl Delivery {
    pub fn lost(&self) -> u64 {
        Lost::ALL.into_iter().map(|cause| self.counters.lost(cause)).sum()
    }

    /// `kept + pending at start − (delivered + pending + lost)`, in spans; 0 when the book balances.
    pub fn difference(&self, kept: u64) -> i128 {
        let counters = &self.counters;
        let came = i128::from(kept) + i128::from(counters.pending_at_start());
        let went = [counters.delivered(), counters.pending().spans, self.lost()];
        came - went.into_iter().map(i128::from).sum::<i128>()
    }
}

impl Source for Delivery {
    fn collect(&self, out: &mut Families) {
        let name = self.exporter.as_str();
        let label = [("exporter", name)];
        let (counters, pending) = (&self.counters, self.counters.pending());
        let totals = [
            ("tailwater_exporter_delivered_spans_total", "Spans delivered.", counters.delivered()),
            ("tailwater_exporter_batches_total", "Batches whose fate is known.", counters.batches()),
            ("tailwater_exporter_retries_total", "Requests sent again.", counters.retries()),
            (
                "tailwater_exporter_lost_bytes_total",
                "Outbox bytes this exporter could not read.",
                counters.lost_bytes(),
            ),
        ];
        for (metric, help, value) in totals {
            out.counter(metric, help, &label, value);
        }
        for cause in Lost::ALL {
            out.counter(
                "tailwater_exporter_lost_spans_total",
                "Kept spans that this exporter will never deliver.",
                &[("exporter", name), ("cause", cause.name())],
                counters.lost(cause),
            );
        }
        let levels = [
            (
                "tailwater_exporter_pending_spans",
                "Kept spans that wait for this exporter.",
                pending.spans as f64,
            ),
            (
                "tailwater_exporter_pending_bytes",
                "Outbox bytes that wait for this exporter.",
                pending.bytes as f64,
            ),
            (
                "tailwater_exporter_pending_at_start_spans",
                "Spans that waited when the process started.",
                counters.pending_at_start() as f64,
            ),
            (
                "tailwater_exporter_up",
                "0 while the last request or upload has failed.",
                f64::from(u8::from(!counters.is_down())),
            ),
        ];
        for (metric, help, value) in levels {
            out.gauge(metric, help, &label, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_is_shown_before_it_happens() {
        let mut families = Families::default();
        receiver::Metrics::default().collect(&mut families);
        Delivery { exporter: "tempo".to_owned(), counters: Arc::default() }.collect(&mut families);
        let text = String::from_utf8(families.encode().unwrap()).unwrap();
        for line in [
            "tailwater_receiver_refused_requests_total{cause=\"malformed\"} 0",
            "tailwater_exporter_lost_spans_total{exporter=\"tempo\",cause=\"rejected\"} 0",
            "tailwater_exporter_up{exporter=\"tempo\"} 1",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
