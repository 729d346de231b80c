//! The configuration of a scenario as a file: one key to a line, so that the place of a mistake can be told.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tailwater::config::{self, Config};

/// The text, and of every path such as `policies[0].match` the first and the last line.
pub struct Text {
    pub text: String,
    lines: BTreeMap<String, (usize, usize)>,
}

/// `tailwater` of a scenario over the defaults of a run.
pub fn text(tailwater: &Value) -> Text {
    let mut whole = json!({
        "data": { "path": "data" },
        "buffer": { "memory": "256MiB", "after_root": "10s", "max_wait": "60s", "hindsight": "5m" },
        "exporters": { "otlp": [{ "name": "backend", "endpoint": "http://backend:4317" }] },
    });
    for (key, value) in tailwater.as_object().expect("tailwater is a mapping") {
        match value.as_object() {
            Some(section) => section.iter().for_each(|(inner, value)| whole[key][inner] = value.clone()),
            None => whole[key] = value.clone(),
        }
    }
    Text::of(&whole)
}

/// The configuration to run.
pub fn config(tailwater: &Value) -> anyhow::Result<Config> {
    let mut tailwater = tailwater.clone();
    let buffer = tailwater.get_mut("buffer").and_then(Value::as_object_mut);
    let memory = buffer.and_then(|buffer| buffer.remove("memory"));
    let mut config = config::load(&text(&tailwater).text, "scenario.yaml".as_ref())?;
    if let Some(memory) = memory {
        // Less than a file may ask for, so that a scenario can fill it: requests are small here.
        config.buffer.memory = serde_json::from_value(memory)?;
    }
    Ok(config)
}

impl Text {
    pub fn of(value: &Value) -> Self {
        let mut text = Self { text: String::new(), lines: BTreeMap::new() };
        text.write("", value);
        text
    }

    /// Whether a line belongs to a path, or to what should have held it.
    pub fn holds(&self, path: &str, line: usize) -> bool {
        let parent = path.rfind(['.', '[']).map_or("", |at| &path[..at]);
        let lines = self.lines.get(path).or_else(|| self.lines.get(parent));
        lines.is_some_and(|(first, last)| (*first..=*last).contains(&line))
    }

    fn write(&mut self, path: &str, value: &Value) {
        let first = self.line();
        match value {
            Value::Object(entries) if !entries.is_empty() => {
                self.text.push_str("{\n");
                for (number, (key, value)) in entries.iter().enumerate() {
                    let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    self.text.push_str(&format!("{}: ", json!(key)));
                    self.write(&inner, value);
                    self.text.push_str(if number + 1 < entries.len() { ",\n" } else { "\n" });
                }
                self.text.push('}');
            }
            Value::Array(items) if !items.is_empty() => {
                self.text.push_str("[\n");
                for (number, item) in items.iter().enumerate() {
                    self.write(&format!("{path}[{number}]"), item);
                    self.text.push_str(if number + 1 < items.len() { ",\n" } else { "\n" });
                }
                self.text.push(']');
            }
            scalar => self.text.push_str(&scalar.to_string()),
        }
        let last = self.line();
        self.lines.insert(path.to_owned(), (first, last));
    }

    fn line(&self) -> usize {
        self.text.matches('\n').count() + 1
    }
}
