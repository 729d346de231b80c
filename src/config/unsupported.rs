//! Keys and values that the documentation promises and this version does not have yet. They are refused, never
//! ignored. This is the only list of them; a row goes when its feature comes.

use serde_saphyr::Location;

use super::tree::{Entry, Kind, Node};

/// Where a row applies, by path: `*` stands for one step.
struct Row {
    path: &'static str,
    /// What is refused of the key.
    when: When,
}

enum When {
    Present,
    Is(&'static str),
}

const ROWS: &[Row] = &[
    Row { path: "buffer.root", when: When::Present },
    Row { path: "data.when_full", when: When::Is("lose_oldest") },
    Row { path: "receivers.kafka", when: When::Present },
];

/// What of the document is not supported yet: where it stands, and a sentence.
pub(super) fn find(document: &Node) -> Vec<(Location, String)> {
    let mut found = Vec::new();
    document.visit("", &mut |path, entry| {
        let row = ROWS.iter().find(|row| covers(row.path, path) && row.when.holds(&entry.value));
        if let Some(row) = row {
            let at = if matches!(row.when, When::Present) { entry.key_at } else { entry.value.at };
            found.push((at, row.sentence(entry)));
        }
    });
    found
}

impl Row {
    fn sentence(&self, entry: &Entry) -> String {
        match self.when {
            When::Present => format!("\"{}\" is not supported yet", entry.key),
            When::Is(value) => format!("\"{}: {value}\" is not supported yet", entry.key),
        }
    }
}

impl When {
    fn holds(&self, value: &Node) -> bool {
        match (self, &value.kind) {
            (Self::Present, _) => true,
            (Self::Is(refused), Kind::Scalar(value)) => refused == value,
            _ => false,
        }
    }
}

fn covers(pattern: &str, path: &str) -> bool {
    let (mut pattern, mut path) = (pattern.split('.'), path.split('.'));
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return true,
            (Some(expected), Some(step)) if expected == "*" || expected == step => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_covered_step_by_step() {
        assert!(covers("policies.*.shadow", "policies.3.shadow"));
        assert!(!covers("policies.*.shadow", "policies.3.keep.shadow"));
    }
}
