use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Status;
use prost::Message;

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

/// Spans of which the last is new; says how many were read.
#[derive(Debug)]
struct Counted<'a>(Vec<crate::sampler::UnitSpan<'a>>, std::cell::Cell<usize>);

impl Counted<'_> {
    fn shown(&self, from: usize) -> crate::sampler::ReadSpans<'_> {
        self.1.set(self.1.get() + self.0.len() - from);
        crate::sampler::ReadSpans { spans: self.0[from..].to_vec(), complete: true }
    }
}

impl crate::sampler::Spans for Counted<'_> {
    fn root(&self) -> Option<crate::sampler::UnitSpan<'_>> {
        self.0.root()
    }

    fn read(&self) -> crate::sampler::ReadSpans<'_> {
        self.shown(0)
    }

    fn read_new(&self) -> Option<crate::sampler::ReadSpans<'_>> {
        Some(self.shown(self.0.len() - 1))
    }
}

#[test]
fn of_a_dropped_unit_only_new_spans_are_read_where_they_alone_can_change_the_answer() {
    let gold = |mut span: opentelemetry_proto::tonic::trace::v1::Span| {
        span.status = Some(Status { message: "gold".to_owned(), ..Status::default() });
        span
    };
    let trace = |last| Trace::of((1..10).map(|number| span(number, "op")).chain([last]));
    let asked = |policy: &str, trace: &Trace| {
        let policies =
            policies(&format!("[{{ name: a, {policy}, keep: 100% }}, {{ name: rest, keep: 0% }}]"));
        trace.with_unit(&policies, &Slow::new(&[]), Some(PolicyId(1)), |unit| {
            let body = trace.request.encode_to_vec();
            let spans = Counted(crate::sampler::testing::unit_spans(&body), std::cell::Cell::default());
            let kept = policies.judge(&Unit { spans: &spans, ..unit }, &Slow::new(&[])).kept;
            (kept, spans.1.get())
        })
    };
    let (news, none) = (trace(gold(span(10, "op"))), trace(span(10, "op")));
    for policy in [
        "match: '{ statusMessage = `gold` }'",
        "match: '{ name = `op` && statusMessage = `gold` || event:name = `x` }'",
    ] {
        assert_eq!(asked(policy, &news), (true, 1), "{policy}");
        assert_eq!(asked(policy, &none), (false, 1), "{policy}");
    }
    for policy in [
        "match: '{ statusMessage = `gold` } && { name = `op` && kind != client && .x = nil }'",
        "match: '{ statusMessage = `gold` }', unless: '{ name = `absent` }'",
        "match: '{ statusMessage = `gold` } | count() = 1'",
        "match: '{ traceDuration < 1h && statusMessage = `gold` }'",
    ] {
        assert_eq!(asked(policy, &news), (true, 10), "{policy}");
        assert!(!asked(policy, &none).0, "{policy}");
    }
    assert_eq!(asked("match: '{ status = error }'", &none), (false, 0));
}

#[test]
fn match_unless_and_slower_than_must_all_hold() {
    let policies = policies(
        "[{ name: slow-orders, match: '{ span.route = `/order` }', unless: '{ span.user = `robot` }', slower_than: p95, keep: 100% }]",
    );
    let slow = Slow::new(&policies.percentiles());
    let key = OperationKey { tenant: TenantId(0), service: "svc", name: "POST" };
    for _ in 0..300 {
        slow.observe(slow.operation(key), &|| Some(key.into()), 100_000_000, 1_000_000);
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
    assert_eq!(shadow.path(), "policies");
    assert!(shadow.message.contains("only shadow policies"));
}

#[test]
fn a_value_that_cannot_be_read_is_refused_with_line_and_column() {
    for (yaml, said) in [
        ("- name: a\n  keep: 5\n", "expected"),
        ("- name: a\n  keep: 120%\n", "expected"),
        ("- name: a\n  keep: 100/fortnight\n", "expected a rate such as 100/s"),
        ("- name: a\n  keep: { share: 1%, at_most: 5 }\n", "expected a rate such as 100/s"),
        ("- name: a\n  keep: { share: 1%, at_mots: 5/s }\n", "at_mots"),
        ("- name: a\n  keep: { share: 1% }\n", "expected at_least or at_most"),
        ("- name: a\n  keep: { at_least: 1/min }\n", "expected the share that it raises"),
        ("- name: a\n  keep: { at_most: 1/s, per: [nam] }\n", "expected a field of one span"),
        ("- name: a\n  keep: { at_most: 1/s, per: [rootName] }\n", "which is of a trace"),
        ("- name: a\n  keep: { at_most: 1/s, per: ['name = 5'] }\n", "expected a field of one span"),
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

/// Judges a trace at a moment, as often as asked, and says how often it was kept.
fn kept_of(policies: &Policies, trace: &Trace, now_ms: u64, times: usize) -> usize {
    (0..times).filter(|_| trace.judge_at(policies, now_ms, false).kept).count()
}

fn called(service: &str, name: &str) -> Trace {
    Trace::default().with(service, span(1, name))
}

#[test]
fn a_budget_is_told_apart_by_fields_of_the_root() {
    let policies = policies("[{ name: a, keep: { at_most: 5/s, per: [resource.service.name, name] } }]");
    assert!(kept_of(&policies, &called("shop", "GET /cart"), 1_000, 1_000) < 100);
    for (service, name) in [("shop", "GET /list"), ("billing", "GET /cart")] {
        assert_eq!(kept_of(&policies, &called(service, name), 1_000, 5), 5, "{service} {name}");
    }
    let keeps: Vec<_> = policies.current_keeps(1_000).collect();
    assert_eq!(keeps[0].1.keys, Some(3));
    assert!(keeps[0].1.probability < 0.02, "{keeps:?}");
}

#[test]
fn every_field_of_one_span_can_be_a_key() {
    let fields = [
        "name",
        "kind",
        "status",
        "duration",
        "statusMessage",
        "span:name",
        "span:id",
        ".any",
        "span.route",
        "resource.\"service name\"",
        "instrumentation:name",
        "instrumentation.x",
        "event:name",
        "event.x",
        "link.x",
        "tracestate.vendor",
    ];
    for field in fields {
        let read = crate::sampler::SpanField::try_from(field.to_owned());
        assert_eq!(read.map(|field| field.to_string()), Ok(field.to_owned()));
    }
}

#[test]
fn a_budget_of_spans_counts_the_spans_of_the_unit() {
    let policies = policies("[{ name: a, keep: 100 spans/s }]");
    let five = Trace::of((1..=5).map(|number| span(number, "op")));
    five.judge_at(&policies, 1_000, false);
    let second = five.judge_at(&policies, 1_000, false);
    assert_eq!(second.threshold, Threshold::ALWAYS, "5 spans of 100");
    kept_of(&policies, &five, 1_000, 38);
    let beyond = five.judge_at(&policies, 1_000, false);
    assert_eq!(beyond.threshold, Threshold::of("50%".parse().unwrap()), "200 spans in this second");
}

#[test]
fn a_unit_that_is_judged_again_does_not_draw_again() {
    let policies = policies("[{ name: a, keep: 0.001/s }]");
    let trace = Trace::of([span(1, "op")]);
    kept_of(&policies, &trace, 1_000, 100);
    let before: Vec<_> = policies.current_keeps(1_000).collect();
    let again = trace.judge(&policies, &Slow::new(&[]), Some(PolicyId(0)));
    assert_eq!((again.policy, again.kept), (PolicyId(0), false));
    assert_eq!(policies.current_keeps(1_000).collect::<Vec<_>>(), before);
}

#[test]
fn a_shadow_is_counted_where_it_stands_and_decides_nothing() {
    let policies = policies(
        "[{ name: errors, match: '{ status = error }', keep: 100% }, { name: all, keep: 100%, shadow: true }, { name: ops, match: '{ name = `op` }', keep: 0%, shadow: true }, { name: rest, keep: 0% }, { name: late, keep: 100%, shadow: true }]",
    );
    assert_eq!(verdict(&policies, &Trace::of([span(1, "op")])), ("rest".to_owned(), false));
    assert_eq!(verdict(&policies, &Trace::of([failing(1)])), ("errors".to_owned(), true));
    let trace = Trace::of([span(1, "other")]);
    trace.judge(&policies, &Slow::new(&[]), Some(PolicyId(3)));
    let counted: Vec<_> = policies.shadows().map(|it| (it.policy, it.kept, it.dropped)).collect();
    assert_eq!(counted, [("all", 1, 0), ("ops", 0, 1), ("late", 0, 0)]);
}

#[test]
fn a_new_list_goes_on_with_what_the_old_one_has_counted() {
    let yaml = "[{ name: trial, keep: 5%, shadow: true }, { name: a, keep: 1/s }, { name: b, keep: 1/s }]";
    let old = policies(yaml);
    let trace = Trace::of([span(1, "op")]);
    kept_of(&old, &trace, 1_000, 1_000);
    let new = policies(&yaml.replace("name: b, keep: 1/s", "name: b, keep: 2/s")).continuing(&old);
    let keeps: Vec<_> = new.current_keeps(1_000).map(|(_, keep)| keep.probability).collect();
    assert!(keeps[1] < 0.01 && keeps[2] == 1.0, "{keeps:?}");
    assert_eq!(new.shadows().map(|shadow| shadow.kept + shadow.dropped).collect::<Vec<_>>(), [1_000]);
}
