//! Runs the scenarios of this folder, or of the one that `TAILWATER_CONFORMANCE` names, and says of each
//! whether it holds. README.md describes their form.
//!
//! `cargo test --test conformance [-- WORDS]` runs those whose name contains the words. A scenario with a `collector`
//! part runs a second time, with the policies that the converter makes of it.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a test prints and fails")]
#![allow(unreachable_pub, reason = "modules of one test binary")]

#[path = "../common/mod.rs"]
mod common;

mod convert;
mod expect;
mod format;
mod run;
mod settings;
mod skipped;
mod traffic;

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use format::{Document, Scenario};
use serde_json::Value;

/// What may stand beside scenarios.
const OTHER_FILES: [&str; 4] = ["README.md", "lint.py", "threshold_vectors.csv", "threshold_vectors.py"];

/// Scenarios that run beside each other.
const AT_A_TIME: usize = 4;

#[derive(Default)]
struct Counts {
    passed: u32,
    failed: u32,
    skipped: u32,
}

/// What came of a scenario.
enum Verdict {
    Skipped(&'static str),
    /// With what differs.
    Run(Vec<String>),
}

impl Counts {
    fn told(&mut self, scenario: &Scenario, verdict: Verdict) {
        let name = &scenario.name;
        match verdict {
            Verdict::Skipped(reason) => {
                self.skipped += 1;
                println!("skipped  {name} ({reason})");
            }
            Verdict::Run(faults) if faults.is_empty() => {
                self.passed += 1;
                println!("ok       {name}");
            }
            Verdict::Run(faults) => self.failed(name, &faults),
        }
    }

    fn failed(&mut self, name: &str, faults: &[String]) {
        self.failed += 1;
        println!("FAILED   {name}");
        for fault in faults.iter().take(8) {
            println!("         {fault}");
        }
        if faults.len() > 8 {
            println!("         and {} more", faults.len() - 8);
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    let words = arguments.iter().find(|argument| !argument.starts_with('-'));
    let folder = std::env::var_os("TAILWATER_CONFORMANCE")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance"), PathBuf::from);
    let mut counts = Counts::default();
    let scenarios = load(&folder, &mut counts);
    let asked: Vec<&Scenario> =
        scenarios.iter().filter(|scenario| words.is_none_or(|words| scenario.name.contains(words))).collect();
    for (scenario, verdict) in asked.iter().zip(run_all(&asked)) {
        counts.told(scenario, verdict);
    }
    if words.is_none() {
        let names: HashSet<&str> = scenarios.iter().map(|scenario| scenario.name.as_str()).collect();
        for (name, _) in skipped::SKIPPED.iter().filter(|(name, _)| !names.contains(name)) {
            counts.failed(name, &["is to be skipped, but there is no such scenario".to_owned()]);
        }
    }
    println!("{} passed, {} failed, {} skipped", counts.passed, counts.failed, counts.skipped);
    if counts.failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The scenarios of all files; a file that cannot be read, or a name that comes twice, is a failure.
fn load(folder: &Path, counts: &mut Counts) -> Vec<Scenario> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut scenarios: Vec<Scenario> = Vec::new();
    for path in paths {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("yaml") => {}
            Some("rs") => continue,
            _ if OTHER_FILES.contains(&file.as_str()) => continue,
            _ => {
                counts.failed(&file, &["no file of this kind is expected here".to_owned()]);
                continue;
            }
        }
        let text = std::fs::read_to_string(&path).unwrap();
        match serde_saphyr::from_str::<Document>(&text) {
            Ok(document) => scenarios.extend(document.scenarios),
            Err(error) => counts.failed(&file, &[error.to_string()]),
        }
    }
    let mut names = HashSet::new();
    for scenario in &scenarios {
        if !names.insert(&scenario.name) {
            counts.failed(&scenario.name, &["the name comes twice".to_owned()]);
        }
    }
    scenarios
}

/// Several at a time: an instance waits for its logs' threads more than it computes.
fn run_all(scenarios: &[&Scenario]) -> Vec<Verdict> {
    let next = AtomicUsize::new(0);
    let verdicts: Vec<OnceLock<Verdict>> = scenarios.iter().map(|_| OnceLock::new()).collect();
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Relaxed);
                    let Some(scenario) = scenarios.get(number) else { break };
                    verdicts[number].get_or_init(|| run_one(scenario));
                }
            });
        }
    });
    verdicts.into_iter().map(|verdict| verdict.into_inner().expect("each was run")).collect()
}

fn run_one(scenario: &Scenario) -> Verdict {
    if let Some((_, reason)) = skipped::SKIPPED.iter().find(|(skipped, _)| *skipped == scenario.name) {
        return Verdict::Skipped(reason);
    }
    match catch_unwind(AssertUnwindSafe(|| faults(scenario))) {
        Ok(Ok(faults)) => Verdict::Run(faults),
        Ok(Err(error)) => Verdict::Run(vec![format!("{error:#}")]),
        Err(_) => Verdict::Run(vec!["it panicked".to_owned()]),
    }
}

fn faults(scenario: &Scenario) -> anyhow::Result<Vec<String>> {
    let converted = convert::policies(scenario);
    let mut faults = match &scenario.tailwater {
        Some(tailwater) => faults_with(scenario, tailwater)?,
        None => Vec::new(),
    };
    match converted {
        Err(fault) => faults.push(fault),
        Ok(Some(policies)) if scenario.tailwater.is_some() => {
            let tailwater = convert::replaced(scenario, &policies);
            let again = faults_with(scenario, &tailwater)?;
            faults.extend(again.into_iter().map(|fault| format!("converted: {fault}")));
        }
        Ok(_) => {}
    }
    Ok(faults)
}

fn faults_with(scenario: &Scenario, tailwater: &Value) -> anyhow::Result<Vec<String>> {
    if scenario.expect.contains_key("config") {
        return expect::refused_config(scenario);
    }
    let outcome = run::run(scenario, tailwater)?;
    expect::compare(scenario, &outcome)
}
