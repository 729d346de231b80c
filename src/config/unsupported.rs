//! Keys and values that the documentation promises and this version does not have yet. They are refused, never
//! ignored. This is the only list of them; a row goes when its feature comes.

use serde_saphyr::Location;

use super::tree::Node;

/// Where a row applies, by path: `*` stands for one step.
const PATHS: &[&str] = &["receivers.kafka"];

/// What of the document is not supported yet: where it stands, and a sentence.
pub(super) fn find(document: &Node) -> Vec<(Location, String)> {
    let mut found = Vec::new();
    document.visit("", &mut |path, entry| {
        if PATHS.iter().any(|pattern| covers(pattern, path)) {
            found.push((entry.key_at, format!("\"{}\" is not supported yet", entry.key)));
        }
    });
    found
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
