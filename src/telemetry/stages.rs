//! How the counters of the stages are shown. The stages know nothing of it.

use super::{Families, Source};
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_is_shown_before_it_happens() {
        let mut families = Families::default();
        receiver::Metrics::default().collect(&mut families);
        let text = String::from_utf8(families.encode().unwrap()).unwrap();
        let line = "tailwater_receiver_refused_requests_total{cause=\"malformed\"} 0";
        assert!(text.contains(line), "{line} in {text}");
    }
}
