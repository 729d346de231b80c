//! `/metrics`: every source is asked when somebody looks.
//!
//! A metric is named `tailwater_<stage>_<thing>_<unit>[_total]`. Labels are names of enum variants or names
//! from the configuration file, never data from spans, but for the learned thresholds, which are bounded.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};

pub use super::openmetrics::Example;
use super::openmetrics::{self, Examples};
use super::panics;
use super::status::{Status, Tells};
use super::why::Witness;

/// Something with counters to show.
pub trait Source: Send + Sync {
    fn collect(&self, out: &mut Families);

    /// What somebody should mend though requests are taken, one sentence each.
    fn remarks(&self) -> Vec<String> {
        Vec::new()
    }
}

/// The metric families of one scrape.
#[derive(Debug, Default)]
pub struct Families {
    families: BTreeMap<String, MetricFamily>,
    /// By family and by the place of the metric in it.
    examples: BTreeMap<(String, usize), Examples>,
}

impl Families {
    pub fn counter(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: u64) {
        let mut counter = Counter::default();
        counter.set_value(value as f64);
        let mut metric = Metric::from_label(pairs(labels));
        metric.set_counter(counter);
        self.push(name, help, MetricType::COUNTER, metric);
    }

    /// A counter, and a trace that it counted.
    pub fn counter_with_example(
        &mut self,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
        value: u64,
        example: Option<Example>,
    ) {
        self.counter(name, help, labels, value);
        self.exemplify(name, vec![example]);
    }

    pub fn gauge(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: f64) {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        let mut metric = Metric::from_label(pairs(labels));
        metric.set_gauge(gauge);
        self.push(name, help, MetricType::GAUGE, metric);
    }

    /// A histogram from its buckets: upper bounds with the count of what lies in that bucket alone; what is
    /// above the last bound is in `count` only.
    pub fn histogram(
        &mut self,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
        buckets: &[(f64, u64)],
        count: u64,
        sum: f64,
    ) {
        let mut below = 0;
        let cumulative = buckets.iter().map(|&(bound, items)| {
            below += items;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(below);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(cumulative.collect());
        histogram.set_sample_count(count);
        histogram.set_sample_sum(sum);
        let mut metric = Metric::from_label(pairs(labels));
        metric.set_histogram(histogram);
        self.push(name, help, MetricType::HISTOGRAM, metric);
    }

    /// The same, with a trace for each bucket that has one; the last is that of what lies above all bounds.
    #[allow(clippy::too_many_arguments, reason = "what a histogram is made of")]
    pub fn histogram_with_examples(
        &mut self,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
        buckets: &[(f64, u64)],
        count: u64,
        sum: f64,
        examples: Vec<Option<Example>>,
    ) {
        self.histogram(name, help, labels, buckets, count, sum);
        self.exemplify(name, examples);
    }

    /// Of the metric that was pushed last.
    fn exemplify(&mut self, name: &str, examples: Examples) {
        if examples.iter().any(Option::is_some) {
            let place = self.families.get(name).map_or(0, |family| family.get_metric().len() - 1);
            self.examples.insert((name.to_owned(), place), examples);
        }
    }

    /// One counter for each cause; a family without a cause is not shown.
    pub fn tally(&mut self, name: &str, help: &str, label: &str, counts: &[(&str, u64)]) {
        for (cause, count) in counts {
            self.counter(name, help, &[(label, cause)], *count);
        }
    }

    fn push(&mut self, name: &str, help: &str, kind: MetricType, metric: Metric) {
        let family = self.families.entry(name.to_owned()).or_insert_with(|| {
            let mut family = MetricFamily::default();
            family.set_name(name.to_owned());
            family.set_help(help.to_owned());
            family.set_field_type(kind);
            family
        });
        family.mut_metric().push(metric);
    }

    /// The text format of OpenMetrics, which has room for exemplars.
    pub fn encode_openmetrics(self) -> String {
        openmetrics::encode(&self.families, &self.examples)
    }

    /// The text format of Prometheus, families in order of their names.
    pub fn encode(self) -> Result<Vec<u8>, prometheus::Error> {
        let families: Vec<MetricFamily> = self.families.into_values().collect();
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text)?;
        Ok(text)
    }
}

fn pairs(labels: &[(&str, &str)]) -> Vec<LabelPair> {
    let pair = |&(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.to_owned());
        pair
    };
    labels.iter().map(pair).collect()
}

/// All sources of one process. Clones show the same.
#[derive(Clone, Default)]
pub struct Telemetry {
    sources: Arc<RwLock<Vec<Arc<dyn Source>>>>,
    teller: Arc<RwLock<Option<Arc<dyn Tells>>>>,
    witness: Arc<OnceLock<Arc<dyn Witness>>>,
}

impl Telemetry {
    pub fn new() -> Self {
        Self::default()
    }

    /// Shows this source from now on.
    pub fn register(&self, source: Arc<dyn Source>) {
        self.sources.write().push(source);
    }

    /// Who fills the status page from now on.
    pub fn tell(&self, teller: Arc<dyn Tells>) {
        *self.teller.write() = Some(teller);
    }

    /// How the process is doing; nothing until someone can tell.
    pub fn status(&self) -> Option<Status> {
        let teller = self.teller.read().clone();
        teller.map(|teller| teller.status())
    }

    /// Has this witness answer for traces from now on.
    pub fn call(&self, witness: Arc<dyn Witness>) {
        // The first stays: there is one in a process.
        let _ = self.witness.set(witness);
    }

    /// None: the instance is not ready.
    pub fn witness(&self) -> Option<&dyn Witness> {
        self.witness.get().map(Arc::as_ref)
    }

    /// Asks every source.
    pub fn collect(&self) -> Families {
        let mut families = Families::default();
        for source in self.sources.read().iter() {
            source.collect(&mut families);
        }
        families
    }

    /// What somebody should mend though requests are taken.
    pub fn remarks(&self) -> Vec<String> {
        self.sources.read().iter().flat_map(|source| source.remarks()).collect()
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").field("sources", &self.sources.read().len()).finish()
    }
}

/// The build and the start time of this process.
#[derive(Debug)]
pub struct Process {
    pub started_unix_seconds: f64,
}

impl Source for Process {
    fn collect(&self, out: &mut Families) {
        let labels = [("version", env!("CARGO_PKG_VERSION"))];
        out.gauge("tailwater_build_info", "Always 1; the labels say what runs.", &labels, 1.0);
        out.gauge(
            "process_start_time_seconds",
            "When this process started, in Unix seconds.",
            &[],
            self.started_unix_seconds,
        );
        let help = "Panics of any thread or task; each is a defect of this program.";
        out.counter("tailwater_process_panics_total", help, &[], panics::count());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(families: Families) -> String {
        String::from_utf8(families.encode().unwrap()).unwrap()
    }

    #[test]
    fn one_family_holds_all_its_labels_from_every_source() {
        struct Pair(&'static str);
        impl Source for Pair {
            fn collect(&self, out: &mut Families) {
                out.counter("tailwater_x_total", "An x.", &[("who", self.0)], 2);
            }
        }
        let telemetry = Telemetry::new();
        telemetry.register(Arc::new(Pair("a")));
        telemetry.register(Arc::new(Pair("b")));
        let text = text(telemetry.collect());
        assert_eq!(text.matches("# TYPE tailwater_x_total counter").count(), 1, "{text}");
        assert!(text.contains("tailwater_x_total{who=\"a\"} 2"), "{text}");
        assert!(text.contains("tailwater_x_total{who=\"b\"} 2"), "{text}");
    }

    #[test]
    fn histogram_buckets_are_cumulative_and_end_at_infinity() {
        let mut families = Families::default();
        families.histogram("h_seconds", "An h.", &[], &[(1.0, 2), (5.0, 3)], 6, 12.5);
        let text = text(families);
        for line in ["h_seconds_bucket{le=\"1\"} 2", "h_seconds_bucket{le=\"5\"} 5", "h_seconds_count 6"] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(text.contains("h_seconds_bucket{le=\"+Inf\"} 6"), "{text}");
    }

    #[test]
    fn label_values_are_escaped() {
        let mut families = Families::default();
        families.gauge("g", "A g.", &[("operation", "GET \"x\"\n")], 1.0);
        assert!(text(families).contains(r#"g{operation="GET \"x\"\n"} 1"#));
    }
}
