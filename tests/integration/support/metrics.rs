//! What `/metrics` says.

use std::collections::BTreeMap;

/// One scrape: values by series, the series as written, such as `name{label="value"}`.
#[derive(Clone, Debug, Default)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    pub fn parse(text: &str) -> Self {
        let series = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let split = |line: &str| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse().unwrap())
        };
        Self(series.map(split).collect())
    }

    /// The sum of the series of this name that have all these labels; 0 if there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has =
            |series: &str, (label, value): &(&str, &str)| series.contains(&format!("{label}=\"{value}\""));
        let of_name = self.0.iter().filter(|(series, _)| series.split('{').next() == Some(name));
        of_name
            .filter(|(series, _)| labels.iter().all(|label| has(series, label)))
            .map(|(_, value)| value)
            .sum()
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.keys().any(|series| series.split('{').next() == Some(name))
    }
}
