//! How the counts are shown.

use super::exemplars::Exemplar;
use super::names::Name;
use super::stripe::Counts;
use super::{Red, buckets};
use crate::telemetry::metrics::{self, Families, Source};

impl Red {
    /// What all stripes have counted, by number of the series.
    pub(super) fn counted(&self) -> Vec<Counts> {
        let mut counted: Vec<Counts> = Vec::new();
        for stripe in &self.stripes {
            let stripe = stripe.lock();
            let counts = stripe.counts();
            counted.resize(counted.len().max(counts.len()), Counts::default());
            counted.iter_mut().zip(counts).for_each(|(sum, counts)| sum.add(counts));
        }
        counted
    }
}

impl Source for Red {
    fn collect(&self, out: &mut Families) {
        // A series has its name before it is counted.
        let counted = self.counted();
        let names = self.names.read();
        let help = "Combinations of service, span name and kind with series of their own.";
        out.gauge("tailwater_red_series", help, &[], names.len() as f64);
        let help =
            "So many combinations have series of their own at most; the others are counted under (other).";
        out.gauge("tailwater_red_series_limit", help, &[], names.max() as f64);
        let of_series = names.all().iter().zip(&counted).enumerate();
        for (number, (name, counts)) in of_series.filter(|(_, (_, counts))| counts.calls > 0) {
            self.show(out, number as u32, name, counts);
        }
    }
}

impl Red {
    fn show(&self, out: &mut Families, number: u32, name: &Name, counts: &Counts) {
        let labels = [
            ("tenant", name.tenant.as_str()),
            ("service", name.service.as_str()),
            ("span", name.span.as_str()),
            ("kind", name.kind),
        ];
        let exemplars = self.exemplars.lock();
        out.counter(
            "tailwater_red_calls_total",
            "Spans of all traffic, before sampling.",
            &labels,
            counts.calls,
        );
        let help = "Spans of all traffic with status error, before sampling.";
        let example = exemplars.of_errors(number).map(shown);
        out.counter_with_example("tailwater_red_errors_total", help, &labels, counts.errors, example);
        let bounds =
            (0..buckets::COUNT).filter_map(|bucket| Some((buckets::bound(bucket)?, counts.buckets[bucket])));
        let bounds: Vec<(f64, u64)> = bounds.collect();
        let examples = (0..buckets::COUNT).map(|bucket| exemplars.of_bucket(number, bucket).map(shown));
        out.histogram_with_examples(
            "tailwater_red_duration_seconds",
            "Durations of spans of all traffic, before sampling.",
            &labels,
            &bounds,
            counts.buckets.iter().sum(),
            counts.nanoseconds as f64 / 1e9,
            examples.collect(),
        );
    }
}

fn shown(exemplar: &Exemplar) -> metrics::Example {
    let value = exemplar.duration.map_or(1.0, |nanoseconds| nanoseconds as f64 / 1e9);
    metrics::Example { trace: exemplar.trace, value, at_ms: exemplar.at_ms }
}
