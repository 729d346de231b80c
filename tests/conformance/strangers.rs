//! Whether the runner notices what it does not know: files, keys, expectations. Otherwise a scenario could hold because
//! nobody looked at it.

use crate::{Counts, Verdict, load, run_one};

/// A file and what is in it; each alone must fail.
const STRANGERS: [(&str, &str); 6] = [
    ("notes.txt", "not a scenario"),
    ("key-of-a-file.yaml", "{ about: x, strange: 1, scenarios: [] }"),
    (
        "key-of-a-scenario.yaml",
        "{ about: x, scenarios: [{ name: a, source: contract, traces: {}, expect: {}, strange: 1 }] }",
    ),
    (
        "key-of-a-span.yaml",
        "{ about: x, scenarios: [{ name: a, source: contract, traces: { t: '4bf92f3577b34da6a380020304050601' }, \
         tailwater: { policies: [{ name: p, keep: 100% }] }, spans: [{ at: 0, trace: t, strange: 1 }], expect: {} }] }",
    ),
    (
        "key-of-an-expectation.yaml",
        "{ about: x, scenarios: [{ name: a, source: contract, traces: { t: '4bf92f3577b34da6a380020304050601' }, \
         tailwater: { policies: [{ name: p, keep: 100% }] }, spans: [{ at: 0, trace: t }], \
         expect: { t: { verdict: kept, strange: 1 } } }] }",
    ),
    (
        "counter.yaml",
        "{ about: x, scenarios: [{ name: a, source: contract, traces: { t: '4bf92f3577b34da6a380020304050601' }, \
         tailwater: { policies: [{ name: p, keep: 100% }] }, spans: [{ at: 0, trace: t }], \
         expect: { t: { verdict: kept }, counters: { strange: 1 } } }] }",
    ),
];

/// Counts a failure for each that passes.
pub fn are_noticed(counts: &mut Counts) {
    for (file, text) in STRANGERS {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(file), text).unwrap();
        let mut noticed = Counts { quiet: true, ..Counts::default() };
        let fails = |verdict: Verdict| matches!(verdict, Verdict::Run(faults) if !faults.is_empty());
        let scenarios = load(folder.path(), &mut noticed);
        if noticed.failed == 0 && !scenarios.iter().any(|scenario| fails(run_one(scenario))) {
            counts.failed(file, &["what the runner does not know is passed over".to_owned()]);
        }
    }
}
