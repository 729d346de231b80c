//! `tailwater convert`, and `tailwater check` on what it wrote.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const RULES: &str = "RulesVersion: 2
Samplers:
  __default__:
    RulesBasedSampler:
      Rules:
        - Name: errors
          SampleRate: 1
          Conditions: [{ Field: error, Operator: exists }]
        - Name: health
          Drop: true
          Conditions: [{ Field: root.http.route, Operator: starts-with, Value: /health }]
        - Name: rest
          SampleRate: 25
";

fn tailwater(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tailwater"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A child that refuses its arguments reads nothing.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn check(file: &Path) -> Output {
    tailwater(&["check", file.to_str().unwrap()], "")
}

#[test]
fn a_written_file_passes_check() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tailwater.yaml");
    let output =
        tailwater(&["convert", "--from", "refinery", "--output", file.to_str().unwrap(), "-"], RULES);
    assert!(output.status.success(), "{}", said(&output));
    assert!(output.stdout.is_empty());
    assert!(
        said(&output).contains("3 policies written, 0 left out, 0 only nearly the same"),
        "{}",
        said(&output)
    );
    let checked = check(&file);
    assert!(checked.status.success(), "{}", said(&checked));
    assert!(String::from_utf8_lossy(&checked.stdout).contains("3 policies"));
}

#[test]
fn what_is_left_out_is_told_beside_the_file_with_line_and_count() {
    let policies = "policies:\n\
        - { name: errors, type: status_code, status_code: { status_codes: [ERROR] } }\n\
        - { name: lists, type: ottl_condition, ottl_condition: { span: ['Len(name) > 3'] } }\n\
        decision_wait: 20s\n";
    let output = tailwater(&["convert", "--from", "collector", "-"], policies);
    assert!(output.status.success(), "{}", said(&output));
    let (text, told) = (String::from_utf8_lossy(&output.stdout), said(&output));
    assert!(text.contains("- name: errors") && text.contains("line 3, policy lists"), "{text}");
    assert!(
        told.contains("standard input:3: left out: policy lists") && told.contains("1 left out"),
        "{told}"
    );
}

#[test]
fn what_the_collector_refuses_is_refused_with_a_caret_and_a_code() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("otel.yaml");
    std::fs::write(&file, "policies:\n  - { name: a, type: coin_toss }\n").unwrap();
    let output = tailwater(&["convert", "--from", "collector", file.to_str().unwrap()], "");
    assert_eq!(output.status.code(), Some(2));
    assert!(
        said(&output).contains("otel.yaml:2:") && said(&output).contains("^^^^^^^^^"),
        "{}",
        said(&output)
    );
    assert!(output.stdout.is_empty());
}
