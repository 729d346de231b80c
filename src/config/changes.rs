//! Which changes of a file can be put in force at once, and which need a restart.
//!
//! Values decide, not their spelling: `20GiB` and `20480MiB` are the same, and so are a default and its absence.

use std::collections::BTreeMap;

use serde_saphyr::Location;

use super::expand::quoted;
use super::tree::{Kind, Node};
use super::{Config, ConfigError, Loaded, Mistake, read};

/// A file as it was read, to find the places of its keys.
#[derive(Clone, Debug)]
pub struct Document {
    pub(super) file: String,
    pub(super) text: String,
    pub(super) root: Node,
}

impl Document {
    /// Of no file at all.
    fn absent() -> Self {
        let root = Node { at: Location::UNKNOWN, kind: Kind::Empty };
        Self { file: "built-in defaults".to_owned(), text: String::new(), root }
    }

    /// As it stands in the file.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl From<Config> for Loaded {
    fn from(config: Config) -> Self {
        Self { config, warnings: Vec::new(), document: Document::absent() }
    }
}

impl Loaded {
    /// Refuses, at its place in this file, every key that differs from `old` and that a running instance cannot change.
    pub fn changes_without_restart(&self, old: &Self) -> Result<(), ConfigError> {
        if self.document.text.trim().is_empty() && !old.document.text.trim().is_empty() {
            return Err(ConfigError::of_file(&self.document.file, "the file is empty"));
        }
        if unchangeable(&self.config, &old.config) == old.config {
            return Ok(());
        }
        let mistakes = self.mistakes(old);
        Err(ConfigError { file: self.document.file.clone(), mistakes })
    }

    fn mistakes(&self, old: &Self) -> Vec<Mistake> {
        let (new_leaves, old_leaves) = (leaves(&self.document.root), leaves(&old.document.root));
        let mut paths: Vec<&String> = new_leaves.keys().chain(old_leaves.keys()).collect();
        paths.sort();
        paths.dedup();
        let differs = |path: &&String| {
            let (new, old) = (new_leaves.get(*path), old_leaves.get(*path));
            !can_change(path) && new != old && !same_meaning(path, new, old)
        };
        let mut mistakes: Vec<Mistake> =
            paths.into_iter().filter(differs).map(|path| self.mistake(path)).collect();
        if mistakes.is_empty() {
            mistakes.push(mistake(Location::UNKNOWN, "this change needs a restart".to_owned()));
        }
        mistakes.sort_by_key(|mistake| (mistake.line, mistake.column));
        mistakes
    }

    /// Without the line itself: it may hold a secret, and logs are read by many.
    fn mistake(&self, path: &str) -> Mistake {
        let mut above = path;
        loop {
            if let Some(node) = self.document.root.get(above) {
                let gone = if above == path { "" } else { ", and is gone" };
                return mistake(node.at, format!("{path} needs a restart{gone}"));
            }
            let Some((parent, _)) = above.rsplit_once('.') else { break };
            above = parent;
        }
        mistake(Location::UNKNOWN, format!("{path} needs a restart, and is gone"))
    }
}

fn mistake(at: Location, message: String) -> Mistake {
    Mistake { line: at.line() as usize, column: at.column() as usize, message, excerpt: None }
}

/// The new configuration with the old one's policies and waits: what is left is what a restart needs.
fn unchangeable(new: &Config, old: &Config) -> Config {
    let mut new = new.clone();
    new.policies.clone_from(&old.policies);
    new.buffer.after_root = old.buffer.after_root;
    new.buffer.max_wait = old.buffer.max_wait;
    new
}

fn can_change(path: &str) -> bool {
    let section = path.split('.').next();
    section == Some("policies") || matches!(path, "buffer.after_root" | "buffer.max_wait")
}

/// Values by path; what is empty counts as a value.
fn leaves(root: &Node) -> BTreeMap<String, Option<String>> {
    let mut leaves = BTreeMap::new();
    collect(root, String::new(), &mut leaves);
    leaves
}

fn collect(node: &Node, path: String, leaves: &mut BTreeMap<String, Option<String>>) {
    let below = |step: &str| if path.is_empty() { step.to_owned() } else { format!("{path}.{step}") };
    match &node.kind {
        Kind::List(items) if !items.is_empty() => {
            for (index, item) in items.iter().enumerate() {
                collect(item, below(&index.to_string()), leaves);
            }
        }
        Kind::Map(entries) if !entries.is_empty() => {
            entries.iter().for_each(|entry| collect(&entry.value, below(&entry.key), leaves));
        }
        Kind::Scalar(value) => _ = leaves.insert(path, Some(value.clone())),
        _ => _ = leaves.insert(path, None),
    }
}

type Leaf<'a> = Option<&'a Option<String>>;

fn same_meaning(path: &str, new: Leaf<'_>, old: Leaf<'_>) -> bool {
    let (new, old) = (meaning(path, new), meaning(path, old));
    new.is_some() && new == old
}

/// The defaults with this one value. None: a value that says nothing alone.
fn meaning(path: &str, leaf: Leaf<'_>) -> Option<Config> {
    let Some(value) = leaf else { return Some(Config::default()) };
    let mut text = value.as_ref().map_or_else(|| "null".to_owned(), |value| quoted(value));
    for step in path.rsplit('.') {
        if step.parse::<usize>().is_ok() {
            return None;
        }
        text = format!("{{{step}: {text}}}");
    }
    read(&text).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::Path;

    use super::*;
    use crate::config::inspect_with;

    const OLD: &str = "data: { path: /data, disk: 20GiB }\nexporters:\n  otlp:\n    - name: tempo\n      endpoint: http://tempo:4317\n";

    fn loaded(text: &str) -> Loaded {
        inspect_with(text, Path::new("t.yaml"), HashMap::from([("DISK".to_owned(), "30GiB".to_owned())]))
            .unwrap_or_else(|error| panic!("{error}"))
    }

    fn refusal(old: &str, new: &str) -> String {
        loaded(new).changes_without_restart(&loaded(old)).unwrap_err().to_string()
    }

    #[test]
    fn policies_and_waits_need_no_restart() {
        let new =
            format!("{OLD}policies: [{{ name: a, keep: 1% }}]\nbuffer: {{ after_root: 2s, max_wait: 9s }}");
        loaded(&new).changes_without_restart(&loaded(OLD)).unwrap();
        loaded(OLD).changes_without_restart(&loaded(&new)).unwrap();
    }

    #[test]
    fn another_spelling_is_no_change() {
        let new = OLD.replace("20GiB", "20480MiB") + "# a comment\nbuffer: { memory: 50% }";
        loaded(&new).changes_without_restart(&loaded(OLD)).unwrap();
    }

    #[test]
    fn a_key_that_needs_a_restart_is_named_with_its_place() {
        let new = OLD.replace("20GiB", "\"${DISK}\"");
        assert_eq!(refusal(OLD, &new), "t.yaml:1:28: data.disk needs a restart");
        let new = OLD.replace("http://tempo:4317", "http://other:4317");
        assert_eq!(refusal(OLD, &new), "t.yaml:5:17: exporters.otlp.0.endpoint needs a restart");
    }

    #[test]
    fn every_such_key_is_named_and_no_other() {
        let new = OLD.replace("20GiB", "20480MiB").replace("/data", "/elsewhere")
            + "buffer: { hindsight: 9m, after_root: 1s }";
        let expected =
            "t.yaml:1:15: data.path needs a restart\nt.yaml:6:22: buffer.hindsight needs a restart";
        assert_eq!(refusal(OLD, &new), expected);
    }

    #[test]
    fn a_key_that_is_gone_is_named_where_it_stood() {
        let new = OLD.replace("data: { path: /data, disk: 20GiB }", "data: { disk: 20GiB }");
        assert_eq!(refusal(OLD, &new), "t.yaml:1:7: data.path needs a restart, and is gone");
    }

    #[test]
    fn a_file_that_has_become_empty_is_half_written() {
        assert_eq!(refusal(OLD, " \n"), "t.yaml: the file is empty");
    }

    #[test]
    fn a_secret_is_not_shown() {
        let with = |token: &str| {
            format!("{OLD}receivers: {{ otlp: {{ auth: {{ bearer_tokens: [\"{token}\"] }} }} }}\n")
        };
        let refusal = refusal(&with("secret-one"), &with("secret-two"));
        assert!(refusal.ends_with("receivers.otlp.auth.bearer_tokens.0 needs a restart"), "{refusal}");
        assert!(!refusal.contains("secret"), "{refusal}");
    }
}
