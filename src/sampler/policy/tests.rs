use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Status;

use super::*;
use crate::sampler::PolicyConfig;
use crate::sampler::slow::OperationKey;
use crate::sampler::testing::{Trace, attribute, policies, span, text};
use crate::trace::TenantId;

const DEFAULT: &str = r"
- { name: errors, match: '{ status = error }', keep: 100% }
- { name: health-checks, match: '{ rootName =~ `GET /(healthz|readyz)` }', keep: 0% }
- { name: slow, slower_than: p95, keep: 100% }
- { name: rest, keep: 5% }
";

fn failing(number: u8) -> opentelemetry_proto::tonic::trace::v1::Span {
    let mut span = span(number, "pay");
    span.status = Some(Status { code: 2, ..Status::default() });
    span
}

fn verdict(policies: &Policies, trace: &Trace) -> (String, bool) {
    let decision = trace.judge(policies, &Slow::new(&[]), None);
    (policies.name(decision.policy).to_owned(), decision.kept)
}

fn refused(yaml: &str) -> CompileError {
    let configs: Vec<PolicyConfig> = serde_saphyr::from_str(yaml).unwrap();
    Policies::compile(&configs, 1).unwrap_err()
}

fn unread(yaml: &str) -> String {
    serde_saphyr::from_str::<Vec<PolicyConfig>>(yaml).unwrap_err().to_string()
}

#[test]
fn the_first_policy_that_matches_decides() {
    let policies = policies(DEFAULT);
    let probe = |child| Trace::of([span(1, "GET /healthz"), child]);
    assert_eq!(verdict(&policies, &probe(span(2, "x"))), ("health-checks".to_owned(), false));
    assert_eq!(verdict(&policies, &probe(failing(2))), ("errors".to_owned(), true));
    // The randomness of 07…07 lies below the threshold of 5 %.
    assert_eq!(verdict(&policies, &Trace::of([span(1, "GET /cart")])), ("rest".to_owned(), false));
}

#[test]
fn what_no_policy_matches_is_dropped_under_the_name_none() {
    let policies = policies("[{ name: errors, match: '{ status = error }', keep: 100% }]");
    assert_eq!(verdict(&policies, &Trace::of([span(1, "op")])), ("none".to_owned(), false));
}

#[test]
fn a_share_compares_randomness_with_its_threshold() {
    let policies = policies("[{ name: half, keep: 50% }]");
    let trace = |byte: u8| {
        let mut root = span(1, "op");
        root.trace_id[9] = byte;
        Trace::of([root])
    };
    let slow = Slow::new(&[]);
    let decision = trace(0x80).judge(&policies, &slow, None);
    assert!(decision.kept && decision.threshold.encode().is_some_and(|th| th.as_bytes() == b"8"));
    assert!(!trace(0x7f).judge(&policies, &slow, None).kept);
}

#[test]
fn the_policy_that_dropped_a_unit_gives_the_same_answer_again() {
    let policies = policies(
        "[{ name: errors, match: '{ status = error }', keep: 100% }, { name: some, match: '{ name = `op` }', keep: 100% }]",
    );
    let slow = Slow::new(&[]);
    let again = Some(PolicyId(1));
    let fine = Trace::of([span(1, "op")]).judge(&policies, &slow, again);
    assert_eq!((fine.policy, fine.kept), (PolicyId(1), false));
    let failed = Trace::of([span(1, "op"), failing(2)]).judge(&policies, &slow, again);
    assert_eq!((failed.policy, failed.kept), (PolicyId(0), true));
}

#[test]
fn match_unless_and_slower_than_must_all_hold() {
    let policies = policies(
        "[{ name: slow-orders, match: '{ span.route = `/order` }', unless: '{ span.user = `robot` }', slower_than: p95, keep: 100% }]",
    );
    let slow = Slow::new(&policies.percentiles());
    let operation = OperationKey { tenant: TenantId(0), service: "svc", name: "POST" };
    for _ in 0..300 {
        slow.observe(operation, 100_000_000, 1_000_000);
    }
    slow.publish(1_000_000);
    let trace = |millis: u64, user: &str, route: &str| {
        let mut root = span(1, "POST");
        root.end_time_unix_nano = root.start_time_unix_nano + millis * 1_000_000;
        root.attributes = vec![attribute("route", text(route))];
        let mut child = span(2, "pay");
        child.attributes = vec![attribute("user", text(user)), attribute("n", Any::IntValue(1))];
        Trace::of([root, child]).judge(&policies, &slow, None).kept
    };
    assert!(trace(130, "alice", "/order"));
    assert!(!trace(95, "alice", "/order"));
    assert!(!trace(130, "robot", "/order"));
    assert!(!trace(130, "alice", "/list"));
}

#[test]
fn more_conditions_than_bits_are_still_answered() {
    let yaml: String = (0..40)
        .map(|n| format!("- {{ name: p{n}, match: '{{ name = `op {n}` }}', keep: 100% }}\n"))
        .collect();
    let policies = policies(&yaml);
    for n in [0, 31, 32, 39] {
        let trace = Trace::of([span(1, &format!("op {n}"))]);
        assert_eq!(verdict(&policies, &trace), (format!("p{n}"), true));
    }
}

#[test]
fn a_list_that_cannot_be_used_is_refused_with_its_place() {
    assert_eq!(refused("[]").path(), "policies");
    let broken =
        refused("[{ name: ok, keep: 5% }, { name: broken, match: '{ status = failed }', keep: 5% }]");
    assert_eq!((broken.path(), broken.offset), ("policies[1].match".to_owned(), 11));
    assert!(broken.message.contains("column 12: found `failed`"), "{broken}");
    let twice = refused("[{ name: a, keep: 5% }, { name: a, keep: 5% }]");
    assert_eq!(twice.path(), "policies[1].name");
    let shadow = refused("[{ name: a, keep: 5%, shadow: true }]");
    assert!(shadow.message.contains("not supported yet"));
}

#[test]
fn a_value_that_cannot_be_read_is_refused_with_line_and_column() {
    for (yaml, said) in [
        ("- name: a\n  keep: 5\n", "expected"),
        ("- name: a\n  keep: 120%\n", "expected"),
        ("- name: a\n  keep: 100/s\n", "not supported yet"),
        ("- name: a\n  keep: { share: 1%, at_most: 5/s }\n", "not supported yet"),
        ("- name: a\n  keep: 5%\n  slower_than: 95\n", "expected a percentile such as p95"),
        ("- name: a\n  keep: 5%\n  matches: '{ }'\n", "matches"),
        ("- name: none\n  keep: 5%\n", "expected another name"),
        ("- name: a\n", "keep"),
    ] {
        let error = unread(yaml);
        assert!(error.contains(said) && error.contains("line"), "{yaml}: {error}");
    }
}

#[test]
fn a_drop_before_errors_or_about_any_span_is_warned_of() {
    assert_eq!(policies(DEFAULT).warnings(), []);
    let warned = |yaml: &str| {
        policies(yaml).warnings().iter().map(|warning| (warning.policy, warning.key)).collect::<Vec<_>>()
    };
    let before = "[{ name: p, match: '{ rootName = `x` }', keep: 0% }, { name: e, match: '{ status = error }', keep: 100% }]";
    assert_eq!(warned(before), [(0, "keep")]);
    assert_eq!(warned("[{ name: p, match: '{ name = `x` }', keep: 0% }]"), [(0, "match")]);
    assert_eq!(warned("[{ name: p, match: '{ name = `x` && parent = nil }', keep: 0% }]"), []);
    assert_eq!(warned("[{ name: rest, keep: 0% }]"), []);
}
