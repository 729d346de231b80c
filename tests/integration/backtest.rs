//! `tailwater backtest` on each kind of input, against what is known of the traffic, and against what a live instance
//! did with the same.

use std::collections::HashSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use super::support::{
    Random, Sender, Setup, Tailwater, Trace, WITHIN, eventually, files_below, request, rows_below,
};

const TRACES: usize = 2_000;
/// Every so many fail.
const FAILS: usize = 20;

fn traffic() -> Vec<Trace> {
    let mut random = Random(11);
    let trace = |n: usize| {
        let trace = Trace::new(&mut random);
        if n.is_multiple_of(FAILS) { trace.failed() } else { trace }
    };
    (0..TRACES).map(trace).collect()
}

/// A file of policies: errors, and a share of the rest.
fn policies(folder: &Path, name: &str, rest: &str) -> String {
    let path = folder.join(name);
    let text = format!(
        "buffer: {{ memory: 256MiB, after_root: 1s, max_wait: 3s, hindsight: 60s }}\npolicies:\n  \
         - {{ name: errors, match: \"{{ status = error }}\", keep: 100% }}\n  - {{ name: rest, keep: {rest} }}\n"
    );
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn backtest(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tailwater")).arg("backtest").args(arguments).output().unwrap()
}

fn report(new: &str, old: Option<&str>, input: &Path) -> Value {
    let mut arguments = vec!["--json", "--config", new];
    arguments.extend(old.into_iter().flat_map(|old| ["--against", old]));
    let input = input.display().to_string();
    arguments.push(&input);
    let output = backtest(&arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Traces that are kept by `errors` and by `rest`.
fn kept(outcome: &Value) -> (u64, u64) {
    let of = |policy: usize| outcome["policies"][policy]["kept"]["traces"].as_u64().unwrap();
    (of(0), of(1))
}

/// How many of those without an error have so high a randomness.
fn above(traffic: &[Trace], keep: f64) -> u64 {
    let threshold = ((1.0 - keep) * (1u64 << 56) as f64).round() as u64;
    let healthy = traffic.iter().filter(|trace| !trace.failed);
    healthy.filter(|trace| trace.randomness() >= threshold).count() as u64
}

fn failed(traffic: &[Trace]) -> u64 {
    traffic.iter().filter(|trace| trace.failed).count() as u64
}

fn change(report: &Value, from: (&str, bool), to: (&str, bool)) -> u64 {
    let is = |side: &Value, (policy, kept): (&str, bool)| side["policy"] == policy && side["kept"] == kept;
    let changes = report["changes"].as_array().unwrap();
    let found = changes.iter().find(|change| is(&change["from"], from) && is(&change["to"], to));
    found.map_or(0, |change| change["traces"].as_u64().unwrap())
}

/// An instance that has taken, judged and delivered it, in two lives.
async fn lived(traffic: &[Trace]) -> Tailwater {
    let setup = Setup { disk: "2GiB, input_keep: 1h", ..Setup::default() };
    let mut tailwater = setup.start().await;
    let mut sender = Sender::to(&tailwater);
    let (first, second) = traffic.split_at(traffic.len() / 2);
    for traces in first.chunks(50) {
        sender.deliver(&request(traces)).await;
    }
    assert!(tailwater.terminate().await.success());
    tailwater.start().await;
    for traces in second.chunks(50) {
        sender.deliver(&request(traces)).await;
    }
    tailwater.judged().await;
    eventually("the first life's input is past", WITHIN, async || {
        (!files_below(&tailwater.data().join("past")).is_empty()).then_some(())
    })
    .await;
    tailwater.drain().await;
    tailwater
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_log_and_the_parquet_beside_it_tell_what_policies_keep() {
    let traffic = traffic();
    let tailwater = lived(&traffic).await;
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (policies(folder.path(), "old.yaml", "5%"), policies(folder.path(), "new.yaml", "25%"));
    let data = tailwater.data();

    let log = report(&new, Some(&old), &data);
    assert_eq!(log["input"]["kind"], "input log");
    assert_eq!(log["input"]["traces"], TRACES);
    assert_eq!(log["input"]["spans"], TRACES * 3);
    assert_eq!(kept(&log["old"]), (failed(&traffic), above(&traffic, 0.05)));
    assert_eq!(kept(&log["new"]), (failed(&traffic), above(&traffic, 0.25)));
    let more = above(&traffic, 0.25) - above(&traffic, 0.05);
    assert_eq!(change(&log, ("rest", false), ("rest", true)), more);
    assert_eq!(log["changes"].as_array().unwrap().len(), 1, "nothing else changes hands: {log}");

    // What the running instance kept is what the old policies keep.
    let rows = rows_below(&tailwater.parquet());
    let lived: HashSet<_> = rows.iter().map(|row| row.trace_id.clone()).collect();
    assert_eq!(lived.len() as u64, failed(&traffic) + above(&traffic, 0.05));
    assert_eq!(log["old"]["kept"]["spans"], rows.len());

    assert_eq!(report(&old, Some(&old), &data)["changes"], serde_json::json!([]));
    parquet(&traffic, &tailwater.parquet(), folder.path(), &old);
}

fn parquet(traffic: &[Trace], parquet: &Path, folder: &Path, old: &str) {
    let same = report(old, Some(old), parquet);
    assert_eq!(same["input"]["kind"], "kept Parquet");
    assert_eq!(same["changes"], serde_json::json!([]));
    let (errors, rest) = (failed(traffic), above(traffic, 0.05));
    assert_eq!(kept(&same["new"]), (errors, rest), "all that was kept is there");
    let remarks = same["remarks"].to_string();
    assert!(remarks.contains("sampling_weight"), "{remarks}");
    let fewer = report(&policies(folder, "fewer.yaml", "2%"), Some(old), parquet);
    assert_eq!(
        kept(&fewer["new"]),
        (errors, above(traffic, 0.02)),
        "what a smaller share keeps is known exactly"
    );
    let more = report(&policies(folder, "more.yaml", "50%"), Some(old), parquet);
    assert_eq!(kept(&more["new"]), (errors, 10 * rest), "each stands for ten that a larger share would keep");
    let junk = b"PAR1 no more than this PAR1";
    std::fs::write(parquet.join("damaged.parquet"), junk).unwrap();
    let damaged = report(old, Some(old), parquet);
    assert_eq!(kept(&damaged["new"]), (errors, rest), "the others are read");
    assert_eq!(damaged["input"]["lost_bytes"], junk.len());
}

#[test]
fn otlp_json_lines_tell_what_policies_keep_plain_and_packed() {
    let traffic = traffic();
    let folder = tempfile::tempdir().unwrap();
    let mut lines = Vec::new();
    for traces in traffic.chunks(25) {
        serde_json::to_writer(&mut lines, &request(traces)).unwrap();
        lines.push(b'\n');
    }
    lines.extend_from_slice(b"{\"resourceMetrics\":[]}\nnot json\n");
    let (plain, packed) = (folder.path().join("traces.json"), folder.path().join("traces.json.gz"));
    std::fs::write(&plain, &lines).unwrap();
    let file = std::fs::File::create(&packed).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    gzip.write_all(&lines).unwrap();
    gzip.finish().unwrap();
    let zstd = folder.path().join("traces.json.zst");
    std::fs::write(&zstd, zstd::encode_all(&lines[..], 1).unwrap()).unwrap();

    let (old, new) = (policies(folder.path(), "old.yaml", "5%"), policies(folder.path(), "new.yaml", "25%"));
    for input in [&plain, &packed, &zstd] {
        let found = report(&new, Some(&old), input);
        assert_eq!(found["input"]["kind"], "OTLP JSON lines");
        assert_eq!(found["input"]["traces"], TRACES);
        assert_eq!(found["input"]["lost_bytes"], "not json\n".len());
        assert_eq!(kept(&found["new"]), (failed(&traffic), above(&traffic, 0.25)));
        assert_eq!(kept(&found["old"]), (failed(&traffic), above(&traffic, 0.05)));
    }
    let cut = folder.path().join("cut.json.gz");
    let bytes = std::fs::read(&packed).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() * 2 / 3]).unwrap();
    let found = report(&new, None, &cut);
    let traces = found["input"]["traces"].as_u64().unwrap();
    assert!(
        (TRACES as u64 / 3..TRACES as u64).contains(&traces),
        "what lies before the cut is read: {traces}"
    );
    assert!(found["input"]["lost_bytes"].as_u64().unwrap() > 0);
    let input = plain.display().to_string();
    let table = backtest(&["--config", &new, "--against", &new, &input]);
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("errors") && table.contains("What changes hands: 0 of 2,000 traces"), "{table}");
}

#[test]
fn what_is_no_input_is_refused_with_what_is_expected() {
    let folder = tempfile::tempdir().unwrap();
    let new = policies(folder.path(), "new.yaml", "25%");
    let said = |arguments: &[&str]| {
        let output = backtest(arguments);
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let empty = said(&["--config", &new, empty.to_str().unwrap()]);
    assert!(empty.contains("neither an input log"), "{empty}");
    let other = said(&["--config", &new, &new]);
    assert!(other.contains("neither Parquet nor OTLP JSON lines"), "{other}");
    let pretty = folder.path().join("pretty.json");
    std::fs::write(&pretty, "{\n  \"resourceSpans\": []\n}\n").unwrap();
    let pretty = said(&["--config", &new, pretty.to_str().unwrap()]);
    assert!(pretty.contains("bytes that are no OTLP JSON lines"), "{pretty}");
    let damaged = folder.path().join("damaged.parquet");
    std::fs::write(&damaged, "PAR1").unwrap();
    let damaged = said(&["--config", &new, damaged.to_str().unwrap()]);
    assert!(damaged.contains("is no Parquet that can be read"), "{damaged}");
    let none = said(&[folder.path().to_str().unwrap()]);
    assert!(none.contains("--config NEW"), "{none}");
}
