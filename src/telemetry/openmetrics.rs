//! The OpenMetrics text format, for those who ask for it: as Prometheus's own, with exemplars.
//!
//! <https://prometheus.io/docs/specs/om/open_metrics_spec/>

use std::collections::BTreeMap;
use std::fmt::Write;

use prometheus::proto::{Histogram, LabelPair, Metric, MetricFamily, MetricType};

use crate::trace::TraceId;

/// What is answered to whom accepts it.
pub(super) const MEDIA_TYPE: &str = "application/openmetrics-text";
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A trace that a sample counted, and what was measured of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Example {
    pub trace: TraceId,
    pub value: f64,
    pub at_ms: u64,
}

/// Examples of one metric: by bucket, or one of a counter.
pub(super) type Examples = Vec<Option<Example>>;

/// `examples` are by family and by the place of the metric in it.
pub(super) fn encode(
    families: &BTreeMap<String, MetricFamily>,
    examples: &BTreeMap<(String, usize), Examples>,
) -> String {
    let mut text = String::new();
    for (name, family) in families {
        head(&mut text, name, family);
        for (place, metric) in family.get_metric().iter().enumerate() {
            let examples = examples.get(&(name.clone(), place)).map(Vec::as_slice).unwrap_or_default();
            samples(&mut text, name, family.get_field_type(), metric, examples);
        }
    }
    text.push_str("# EOF\n");
    text
}

fn head(text: &mut String, name: &str, family: &MetricFamily) {
    let (kind, name) = match (family.get_field_type(), name.strip_suffix("_total")) {
        (MetricType::COUNTER, Some(name)) => ("counter", name),
        (MetricType::GAUGE, _) => ("gauge", name),
        (MetricType::HISTOGRAM, _) => ("histogram", name),
        _ => ("unknown", name),
    };
    write(text, format_args!("# TYPE {name} {kind}\n# HELP {name} {}\n", escaped(family.help())));
}

fn samples(text: &mut String, name: &str, kind: MetricType, metric: &Metric, examples: &[Option<Example>]) {
    let labels = metric.get_label();
    match kind {
        MetricType::COUNTER => {
            let value = metric.get_counter().get_value();
            line(text, name, labels, None, value, examples.first().copied().flatten());
        }
        MetricType::HISTOGRAM => histogram(text, name, labels, metric.get_histogram(), examples),
        _ => line(text, name, labels, None, metric.get_gauge().get_value(), None),
    }
}

fn histogram(
    text: &mut String,
    name: &str,
    labels: &[LabelPair],
    histogram: &Histogram,
    examples: &[Option<Example>],
) {
    let count = histogram.get_sample_count() as f64;
    let bounds =
        histogram.get_bucket().iter().map(|bucket| (bucket.upper_bound(), bucket.cumulative_count() as f64));
    let name_of_bucket = format!("{name}_bucket");
    for (place, (bound, below)) in bounds.chain([(f64::INFINITY, count)]).enumerate() {
        let example = examples.get(place).copied().flatten();
        line(text, &name_of_bucket, labels, Some(bound), below, example);
    }
    line(text, &format!("{name}_count"), labels, None, count, None);
    line(text, &format!("{name}_sum"), labels, None, histogram.get_sample_sum(), None);
}

fn line(
    text: &mut String,
    name: &str,
    labels: &[LabelPair],
    bound: Option<f64>,
    value: f64,
    example: Option<Example>,
) {
    text.push_str(name);
    let le = bound.map(|bound| ("le", number(bound)));
    let le = le.as_ref().map(|(name, value)| (*name, value.as_str()));
    let mut separator = '{';
    for (name, value) in labels.iter().map(|label| (label.name(), label.value())).chain(le) {
        write(text, format_args!("{separator}{name}=\"{}\"", escaped(value)));
        separator = ',';
    }
    if separator == ',' {
        text.push('}');
    }
    write(text, format_args!(" {}", number(value)));
    if let Some(Example { trace, value, at_ms }) = example {
        let (value, at) = (number(value), at_ms as f64 / 1e3);
        write(text, format_args!(" # {{trace_id=\"{trace}\"}} {value} {at:.3}"));
    }
    text.push('\n');
}

/// As the format has it: `1.0`, `+Inf`.
fn number(value: f64) -> String {
    match value {
        value if value == f64::INFINITY => "+Inf".to_owned(),
        value if value == f64::NEG_INFINITY => "-Inf".to_owned(),
        value => format!("{value:?}"),
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}

fn write(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("memory takes what is written");
}

#[cfg(test)]
mod tests {
    use super::super::metrics::Families;
    use super::*;

    #[test]
    fn every_kind_of_metric_is_written_as_the_format_has_it() {
        let mut families = Families::default();
        families.counter("tailwater_x_total", "An \"x\".", &[("who", "a\n\"b\"")], 2);
        families.gauge("tailwater_g", "A g.", &[], 0.5);
        let example = Example { trace: TraceId([0xab; 16]), value: 0.75, at_ms: 1_700_000_000_123 };
        let buckets = [(0.5, 2), (1.0, 3)];
        let examples = vec![None, Some(example), None];
        families.histogram_with_examples(
            "tailwater_h_seconds",
            "An h.",
            &[("a", "b")],
            &buckets,
            6,
            12.5,
            examples,
        );
        let expected = r#"# TYPE tailwater_g gauge
# HELP tailwater_g A g.
tailwater_g 0.5
# TYPE tailwater_h_seconds histogram
# HELP tailwater_h_seconds An h.
tailwater_h_seconds_bucket{a="b",le="0.5"} 2.0
tailwater_h_seconds_bucket{a="b",le="1.0"} 5.0 # {trace_id="abababababababababababababababab"} 0.75 1700000000.123
tailwater_h_seconds_bucket{a="b",le="+Inf"} 6.0
tailwater_h_seconds_count{a="b"} 6.0
tailwater_h_seconds_sum{a="b"} 12.5
# TYPE tailwater_x counter
# HELP tailwater_x An \"x\".
tailwater_x_total{who="a\n\"b\""} 2.0
# EOF
"#;
        assert_eq!(families.encode_openmetrics(), expected);
    }
}
