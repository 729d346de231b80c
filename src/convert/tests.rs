use super::*;
use crate::config;

fn collector(text: &str) -> Converted {
    passes_check(converted(Format::Collector, text))
}

fn refinery(text: &str) -> Converted {
    passes_check(converted(Format::Refinery, text))
}

fn converted(format: Format, text: &str) -> Converted {
    convert(format, text, "theirs.yaml", None).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// What `tailwater check` does, in an environment that has every variable.
fn passes_check(converted: Converted) -> Converted {
    let environment = [
        ("VIP_TIER", "platinum"),
        ("TOKEN", "secret"),
        ("PERCENT", "7.5"),
        ("LEAST", "500"),
        ("SLOW", "250"),
    ];
    let environment =
        environment.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    if let Err(error) = config::inspect_with(&converted.text, "ours.yaml".as_ref(), environment) {
        let unbuilt = |message: &str| message.contains("not supported yet");
        let wrong: Vec<_> = error.mistakes.iter().filter(|mistake| !unbuilt(&mistake.message)).collect();
        assert!(wrong.is_empty(), "{wrong:?}\n{}", converted.text);
    }
    converted
}

/// Of each policy its keys and values, joined.
fn policies(converted: &Converted) -> Vec<String> {
    let file: serde_json::Value = serde_saphyr::from_str(&converted.text).unwrap();
    let value = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let policy = |policy: &serde_json::Value| {
        let keys = ["name", "match", "unless", "keep"].into_iter().filter(|key| !policy[key].is_null());
        keys.map(|key| value(&policy[key])).collect::<Vec<_>>().join(" | ")
    };
    file["policies"].as_array().unwrap().iter().map(policy).collect()
}

/// One policy of the Collector, of the name p.
fn of_type(settings: &str) -> Converted {
    collector(&format!("policies: [{{ name: p, {settings} }}]"))
}

fn refused(format: Format, text: &str) -> (usize, String) {
    let error = convert(format, text, "theirs.yaml", None).unwrap_err();
    (error.mistakes[0].line, error.mistakes[0].message.clone())
}

#[test]
fn every_type_of_policy_has_its_condition() {
    let table = [
        ("type: always_sample", "p | 100%"),
        ("type: latency, latency: { threshold_ms: 5000 }", "p | { traceDuration > 5s } | 100%"),
        (
            "type: latency, latency: { threshold_ms: 250, upper_threshold_ms: 2000 }",
            "p | { traceDuration > 250ms && traceDuration <= 2s } | 100%",
        ),
        (
            "type: numeric_attribute, numeric_attribute: { key: n, min_value: -5 }",
            "p | { span.n >= -5 || resource.n >= -5 } | 100%",
        ),
        (
            "type: numeric_attribute, numeric_attribute: { key: n, max_value: 9, invert_match: true }",
            "p | { span.n <= 9 || resource.n <= 9 } | 100%",
        ),
        ("type: probabilistic, probabilistic: { sampling_percentage: 0.25 }", "p | 0.25%"),
        (
            "type: status_code, status_code: { status_codes: [ERROR, OK] }",
            "p | { status = error || status = ok } | 100%",
        ),
        (
            r#"type: string_attribute, string_attribute: { key: "a b", values: [it's] }"#,
            r#"p | { span."a b" = "it's" || resource."a b" = "it's" } | 100%"#,
        ),
        ("type: rate_limiting, rate_limiting: { spans_per_second: 35 }", "p | 35 spans/s"),
        ("type: bytes_limiting, bytes_limiting: { bytes_per_second: 5000000 }", "p | 5MB/s"),
        ("type: span_count, span_count: { min_spans: 2 }", "p | { } | count() >= 2 | 100%"),
        (
            "type: span_count, span_count: { min_spans: 2, max_spans: 20 }",
            "p | { } | count() >= 2 | count() <= 20 | 100%",
        ),
        (
            "type: boolean_attribute, boolean_attribute: { key: vip, value: true }",
            "p | { span.vip = true || resource.vip = true } | 100%",
        ),
        (
            "type: trace_state, trace_state: { key: tier, values: [gold] }",
            "p | { tracestate.tier = \"gold\" } | 100%",
        ),
        ("type: trace_flags", "p | { span:sampled = true } | 100%"),
        (
            "type: not, not: { not_sub_policy: { name: n, type: trace_flags } }",
            "p | { span:sampled = true } | 100%",
        ),
        (
            "type: drop, drop: { drop_sub_policy: [{ name: n, type: trace_flags }] }",
            "p | { span:sampled = true } | 0%",
        ),
    ];
    for (settings, policy) in table {
        assert_eq!(policies(&of_type(settings)), [policy], "{settings}");
    }
    let inverted =
        of_type("type: boolean_attribute, boolean_attribute: { key: b, value: true, invert_match: true }");
    let text = &inverted.text;
    assert!(text.contains("    unless: '{ ") && !text.contains("    match: "), "{text}");
}

#[test]
fn members_of_an_and_share_one_keep() {
    let both = of_type(
        "type: and, and: { and_sub_policy: [\
         { name: a, type: status_code, status_code: { status_codes: [ERROR] } },\
         { name: b, type: latency, latency: { threshold_ms: 1000 } },\
         { name: c, type: probabilistic, probabilistic: { sampling_percentage: 10 } },\
         { name: d, type: probabilistic, probabilistic: { sampling_percentage: 20 } },\
         { name: e, type: rate_limiting, rate_limiting: { spans_per_second: 50 } }] }",
    );
    let keep = r#"{"at_most":"50 spans/s","share":"10%"}"#;
    assert_eq!(policies(&both), [format!("p | {{ status = error && traceDuration > 1s }} | {keep}")]);
}

#[test]
fn drops_come_first_then_falling_shares_and_a_budget_of_all_does_not_hide_conditions() {
    let list = collector(
        "policies:\n\
         - { name: tenth, type: probabilistic, probabilistic: { sampling_percentage: 10 } }\n\
         - { name: limited, type: rate_limiting, rate_limiting: { spans_per_second: 9 } }\n\
         - name: half-of-gold\n  type: and\n  and:\n    and_sub_policy:\n\
         \x20     - { name: a, type: trace_state, trace_state: { key: tier, values: [gold] } }\n\
         \x20     - { name: b, type: probabilistic, probabilistic: { sampling_percentage: 50 } }\n\
         - { name: errors, type: status_code, status_code: { status_codes: [ERROR] } }\n\
         - { name: flagged, type: drop, drop: { drop_sub_policy: [{ name: f, type: trace_flags }] } }\n",
    );
    let names: Vec<String> =
        policies(&list).iter().map(|policy| policy.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(names, ["flagged", "errors", "half-of-gold", "limited", "tenth"]);
    assert_eq!(list.count(Kind::Differs), 2, "{:?}", list.notes);
    let hidden = list.notes.iter().find(|note| note.what == "policy tenth").unwrap();
    assert!(hidden.why.contains("never asked"), "{hidden:?}");
}

#[test]
fn what_cannot_be_said_is_named_with_its_line_and_counted() {
    let list = collector(
        "policies:\n\
         - { name: errors, type: status_code, status_code: { status_codes: [ERROR] } }\n\
         - { name: long, type: ottl_condition, ottl_condition: { span: ['Len(name) > 9'] } }\n\
         - name: half-dropped\n  type: drop\n  drop:\n    drop_sub_policy:\n\
         \x20     - { name: p, type: probabilistic, probabilistic: { sampling_percentage: 50 } }\n\
         decision_wait: 10s\nmaximum_trace_size_bytes: 5\nmade_up: 1\n",
    );
    let named: Vec<(usize, &str)> = list
        .notes
        .iter()
        .filter(|note| note.kind == Kind::LeftOut)
        .map(|note| (note.line, note.what.as_str()))
        .collect();
    let expected = [
        (3, "policy long (ottl_condition)"),
        (4, "policy half-dropped (drop)"),
        (10, "maximum_trace_size_bytes"),
        (11, "made_up"),
    ];
    assert_eq!(named, expected);
    for (line, what) in expected {
        assert!(list.text.contains(&format!("# - line {line}, {what}: ")), "{}", list.text);
    }
    assert_eq!(policies(&list).len(), 1);
}

#[test]
fn a_number_that_the_environment_says_stays_there_or_is_named() {
    let list = collector(
        "x-waits: &waits\n  decision_wait: ${env:WAIT:-20s}\nprocessors:\n  tail_sampling:\n    <<: *waits\n    \
         num_traces: ${env:TRACES}\n    policies:\n\
         \x20     - name: rest\n        type: probabilistic\n        probabilistic:\n          \
         sampling_percentage: ${env:PERCENT}\n\
         \x20     - name: failed\n        type: numeric_attribute\n        numeric_attribute:\n          \
         key: code\n          min_value: ${env:LEAST}\n\
         \x20     - name: slow\n        type: latency\n        latency:\n          threshold_ms: ${env:SLOW:-100}\n\
         \x20     - name: limited\n        type: rate_limiting\n        rate_limiting:\n          \
         spans_per_second: ${env:RATE}\n",
    );
    let expected = [
        "failed | { span.code >= ${LEAST} || resource.code >= ${LEAST} } | 100%",
        "slow | { traceDuration > ${SLOW:-100}ms } | 100%",
        "rest | ${PERCENT}%",
    ];
    assert_eq!(policies(&list), expected);
    assert!(list.text.contains("max_wait: 20s"), "{}", list.text);
    let left_out: Vec<&str> =
        list.notes.iter().filter(|note| note.kind == Kind::LeftOut).map(|note| note.what.as_str()).collect();
    assert_eq!(left_out, ["policy limited (rate_limiting)"]);
}

#[test]
fn keys_that_nobody_knows_are_named_wherever_they_stand() {
    let list = collector(
        "policies:\n\
         - { name: a, type: always_sample, made_up: 1 }\n\
         - { name: b, type: latency, latency: { threshold_ms: 5, made_up_too: 2 } }\n\
         - { name: c, type: drop, drop: { and_this: 1, drop_sub_policy: [{ name: d, type: trace_flags }] } }\n",
    );
    let rules = refinery(
        "RulesVersion: 2\nStrange: 1\nSamplers:\n  __default__:\n    RulesBasedSampler:\n      Odd: 1\n      Rules:\n\
         \x20     - Name: r\n        SampleRate: 2\n        Curious: 1\n        \
         Conditions: [{ Field: a, Operator: exists, Peculiar: 1 }]\n\
         \x20     - Name: s\n        Sampler: { EMADynamicSampler: { GoalSampleRate: 2, FieldList: [a], Weird: 1, Weight: 0.5 } }\n",
    );
    let named = |converted: &Converted, key: &str| {
        converted
            .notes
            .iter()
            .any(|note| note.what == key || note.why.contains(&format!("left out: {key} (line ")))
    };
    for key in ["made_up", "made_up_too", "and_this"] {
        assert!(named(&list, key), "{key}: {}", list.text);
    }
    for key in ["Strange", "Odd", "Curious", "Peculiar", "Weird"] {
        assert!(named(&rules, key), "{key}: {}", rules.text);
    }
    assert!(!named(&rules, "Weight") && rules.text.contains("not needed: Weight"), "{}", rules.text);
}

#[test]
fn of_alternatives_the_ones_that_can_be_said_are() {
    let list = of_type("type: ottl_condition, ottl_condition: { span: ['name == \"a\"', 'Len(name) > 9'] }");
    assert_eq!(policies(&list), ["p | { name = \"a\" } | 100%"]);
    let left_out = "left out, one of its conditions: `Len(name) > 9`";
    assert!(list.notes.iter().any(|note| note.why.starts_with(left_out)), "{:?}", list.notes);
}

#[test]
fn rates_as_large_as_they_can_be_are_divided_without_harm() {
    let list = collector(
        "policies:\n- name: p\n  type: composite\n  composite:\n    max_total_spans_per_second: 9223372036854775\n    \
         policy_order: [a]\n    composite_sub_policy: [{ name: a, type: always_sample }]\n    \
         rate_allocation: [{ policy: a, percent: 100 }]\n",
    );
    assert_eq!(policies(&list), ["a | 9223372036854775 spans/s"]);
}

#[test]
fn what_refinery_keeps_nothing_of_is_dropped() {
    for rate in ["", "SampleRate: 0, "] {
        let text = format!(
            "Samplers: {{ __default__: {{ RulesBasedSampler: {{ Rules: [{{ Name: r, {rate}Conditions: \
             [{{ Field: a, Operator: exists }}] }}] }} }} }}"
        );
        assert_eq!(policies(&refinery(&text)), ["r | { .a != nil } | 0%", "rest | 100%"], "{rate}");
    }
}

#[test]
fn rules_of_the_first_refinery_are_sent_to_its_own_converter() {
    for text in [
        "DryRun = false\nSampler = \"DeterministicSampler\"\nSampleRate = 1\n",
        "# rules\nSampler: EMADynamicSampler\nGoalSampleRate: 2\n",
    ] {
        let (line, message) = refused(Format::Refinery, text);
        assert!(line == 2 && message.contains("refinery convert rules"), "{line}: {message}");
    }
}

#[test]
fn a_file_of_which_nothing_can_be_said_is_refused_with_the_reasons() {
    let text =
        "policies: [{ name: long, type: ottl_condition, ottl_condition: { span: ['Len(name) > 9'] } }]";
    let (line, message) = refused(Format::Collector, text);
    assert_eq!(line, 1);
    assert!(message.contains("Len"), "{message}");
}

#[test]
fn waits_of_the_collector_become_those_of_the_buffer() {
    let policies = "policies: [{ name: a, type: always_sample }]";
    let buffer = |waits: &str| {
        let converted = collector(&format!("{waits}\n{policies}"));
        let lines = converted.text.lines().skip_while(|line| *line != "buffer:").skip(1);
        let key = |line: &str| line.split('#').next().unwrap().trim().to_owned();
        lines.take_while(|line| line.starts_with(' ')).map(key).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(buffer("decision_wait: 20s"), "after_root: 20s, max_wait: 20s");
    let rooted = buffer("decision_wait: 90s\ndecision_wait_after_root_received: 5s");
    assert_eq!(rooted, "after_root: 5s, max_wait: 90s");
    assert_eq!(buffer("decision_wait: 10m"), "after_root: 10m, max_wait: 10m, hindsight: 10m");
    assert_eq!(buffer("num_traces: 5"), "");
}

#[test]
fn one_processor_of_several_is_picked_by_name() {
    let text = "processors:\n  tail_sampling/a: { policies: [{ name: a, type: always_sample }] }\n  \
                tail_sampling/b: { policies: [{ name: b, type: trace_flags }] }\n  batch: {}\n";
    let (line, message) = refused(Format::Collector, text);
    assert_eq!(line, 3);
    assert!(message.contains("--only") && message.contains("tail_sampling/a"), "{message}");
    let picked = convert(Format::Collector, text, "c", Some("tail_sampling/b")).unwrap();
    assert_eq!(policies(&picked), ["b | { span:sampled = true } | 100%"]);
    assert!(convert(Format::Collector, text, "c", Some("tail_sampling/c")).is_err());
}

#[test]
fn names_that_come_twice_among_members_are_told_apart() {
    let list = collector(
        "policies:\n\
         - { name: none, type: status_code, status_code: { status_codes: [ERROR] } }\n\
         - name: mixed\n  type: composite\n  composite:\n    max_total_spans_per_second: 10\n    policy_order: [none, rest]\n\
         \x20   composite_sub_policy:\n\
         \x20     - { name: none, type: trace_flags }\n\
         \x20     - { name: rest, type: always_sample }\n\
         \x20   rate_allocation: [{ policy: none, percent: 70 }, { policy: rest, percent: 30 }]\n",
    );
    let expected = [
        "none-of-theirs | { status = error } | 100%",
        "none-of-theirs-2 | { span:sampled = true } | 7 spans/s",
        "rest | 3 spans/s",
    ];
    assert_eq!(policies(&list), expected);
}

/// One condition of Refinery, in a rule of its own.
fn condition(scope: &str, condition: &str) -> String {
    let text = format!(
        "Samplers:\n  __default__:\n    RulesBasedSampler:\n      Rules:\n        - Name: r\n          Scope: {scope}\n          \
         SampleRate: 10\n          Conditions: [{{ {condition} }}]\n"
    );
    let found = policies(&refinery(&text));
    assert_eq!(found[1], "rest | 100%");
    found[0].strip_prefix("r | ").unwrap().strip_suffix(" | 10%").unwrap().to_owned()
}

#[test]
fn operators_of_refinery_are_said_in_traceql() {
    let table = [
        ("Field: a, Operator: '=', Value: x", r#"{ .a = "x" }"#),
        ("Field: a, Operator: '=', Value: 5", "{ .a = 5 }"),
        ("Field: a, Operator: '=', Value: '5'", r#"{ .a = "5" }"#),
        ("Field: a, Operator: '=', Value: 5, Datatype: int", r#"{ .a = 5 || .a = "5" }"#),
        ("Field: a, Operator: '=', Value: true, Datatype: bool", r#"{ .a = true || .a = "true" }"#),
        ("Field: a, Operator: '!=', Value: x", r#"{ .a != nil && !(.a = "x") }"#),
        ("Field: a, Operator: '!=', Value: x, Datatype: string", r#"{ !(.a = "x") }"#),
        ("Field: a, Operator: '>=', Value: 1.5, Datatype: float", "{ .a >= 1.5 }"),
        ("Field: a, Operator: starts-with, Value: /v1.", r"{ .a =~ `/v1\..*` }"),
        ("Field: a, Operator: contains, Value: bot", r#"{ .a =~ ".*bot.*" }"#),
        ("Field: a, Operator: does-not-contain, Value: bot", r#"{ !(.a =~ ".*bot.*") }"#),
        ("Field: a, Operator: matches, Value: '^/api/'", r#"{ .a =~ "/api/.*" }"#),
        ("Field: a, Operator: exists", "{ .a != nil }"),
        ("Field: a, Operator: not-exists", "{ .a = nil }"),
        ("Field: a, Operator: in, Value: [x, y]", r#"{ .a = "x" || .a = "y" }"#),
        ("Field: a, Operator: not-in, Value: [x]", r#"{ !(.a = "x") }"#),
        ("Field: trace.parent_id, Operator: not-exists", "{ parent = nil }"),
        ("Operator: has-root-span, Value: true", "{ parent = nil }"),
        ("Operator: has-root-span, Value: True", "{ parent = nil }"),
        ("Field: a, Operator: in, Value: [5]", r#"{ .a = 5 || .a = "5" }"#),
        ("Field: '5xx', Operator: exists", r#"{ ."5xx" != nil }"#),
        ("Field: a, Operator: '>', Value: 99999999999999999999", "{ .a > 1e20 }"),
        ("Field: a, Operator: '=', Value: True", r#"{ .a = true || .a = "true" }"#),
        ("Field: error, Operator: '!=', Value: true", "{ .error = false }"),
        (
            "Field: error, Operator: '!=', Value: true, Datatype: string",
            "{ !(status = error || .error = true) }",
        ),
        ("Field: duration_ms, Operator: '>', Value: 1500", "{ duration > 1500ms }"),
        ("Field: status_code, Operator: '=', Value: 2", "{ status = error }"),
        ("Field: error, Operator: '=', Value: true", "{ status = error || .error = true }"),
        ("Field: service.name, Operator: '=', Value: api", r#"{ resource.service.name = "api" }"#),
        ("Field: meta.span_count, Operator: '>', Value: 300", "{ } | count() > 300"),
        ("Field: root.http.route, Operator: '=', Value: /", r#"{ parent = nil && .http.route = "/" }"#),
        ("Fields: [a, b], Operator: '=', Value: x", r#"{ .a = "x" || .b = "x" }"#),
    ];
    for (theirs, ours) in table {
        assert_eq!(condition("span", theirs), ours, "{theirs}");
    }
}

#[test]
fn the_scope_of_a_rule_says_whether_one_span_must_have_it_all() {
    let rule = |scope: &str| {
        let text = format!(
            "Samplers:\n  __default__:\n    RulesBasedSampler:\n      Rules:\n        - Name: r\n          Scope: {scope}\n          \
             Drop: true\n          Conditions:\n            - {{ Field: a, Operator: '=', Value: x }}\n            \
             - {{ Field: root.b, Operator: exists }}\n            - {{ Field: c, Operator: exists }}\n"
        );
        policies(&refinery(&text)).remove(0)
    };
    let root = "{ parent = nil && .b != nil }";
    assert_eq!(rule("span"), format!(r#"r | {{ .a = "x" && .c != nil }} && {root} | 0%"#));
    assert_eq!(rule("trace"), format!(r#"r | {{ .a = "x" }} && {root} && {{ .c != nil }} | 0%"#));
}

#[test]
fn every_sampler_of_refinery_keeps_what_comes_nearest() {
    let keyed = |share: &str, least: &str| {
        format!(r#"{{"at_least":"{least}","per":["resource.service.name",".http.route"],"share":"{share}"}}"#)
    };
    let fields = "FieldList: [service.name, http.route]";
    let table = [
        ("DeterministicSampler: { SampleRate: 4 }".to_owned(), "25%".to_owned()),
        (format!("DynamicSampler: {{ SampleRate: 20, {fields} }}"), keyed("5%", "2/min")),
        (
            format!("EMADynamicSampler: {{ GoalSampleRate: 10, AdjustmentInterval: 1m, {fields} }}"),
            keyed("10%", "1/min"),
        ),
        (format!("EMAThroughputSampler: {{ GoalThroughputPerSec: 70, {fields} }}"), "70 spans/s".to_owned()),
        ("WindowedThroughputSampler: { GoalThroughputPerSec: 7 }".to_owned(), "7 spans/s".to_owned()),
        ("TotalThroughputSampler: { GoalThroughputPerSec: 9 }".to_owned(), "9 spans/s".to_owned()),
    ];
    for (sampler, keep) in table {
        let converted = refinery(&format!("Samplers: {{ __default__: {{ {sampler} }} }}"));
        assert_eq!(policies(&converted), [format!("sampler | {keep}")], "{sampler}");
        assert_eq!(converted.count(Kind::Differs) > 0, sampler.contains("FieldList"), "{sampler}");
    }
}

#[test]
fn rules_keep_their_order_and_what_none_matches_is_kept() {
    let text = "TraceTimeout: 2m\nSendDelay: 5s\nSamplers:\n  __default__:\n    RulesBasedSampler:\n      Rules:\n        \
                - { Name: few, SampleRate: 50, Conditions: [{ Field: a, Operator: exists }] }\n        \
                - { Name: never, Drop: true, Conditions: [{ Field: b, Operator: exists }] }\n";
    let converted = refinery(text);
    assert_eq!(
        policies(&converted),
        ["few | { .a != nil } | 2%", "never | { .b != nil } | 0%", "rest | 100%"]
    );
    assert!(converted.text.contains("max_wait: 2m") && converted.text.contains("after_root: 5s"));
}

#[test]
fn environments_are_told_apart_by_resource_or_picked_by_name() {
    let text = "Samplers:\n  __default__: { DeterministicSampler: { SampleRate: 10 } }\n  \
                prod: { DeterministicSampler: { SampleRate: 2 } }\n";
    let both = refinery(text);
    let asked =
        r#"{ resource.deployment.environment.name = "prod" || resource.deployment.environment = "prod" }"#;
    assert_eq!(policies(&both), [format!("prod: sampler | {asked} | 50%"), "default | 10%".to_owned()]);
    assert_eq!(both.count(Kind::Differs), 1);
    let one = convert(Format::Refinery, text, "r", Some("prod")).unwrap();
    assert_eq!(policies(&one), ["sampler | 50%"]);
    assert!(convert(Format::Refinery, text, "r", Some("qa")).is_err());
}

#[test]
fn what_the_other_program_refuses_is_refused_at_its_line() {
    let rules = |rule: &str| {
        format!("Samplers:\n  __default__:\n    RulesBasedSampler:\n      Rules:\n      - {rule}\n")
    };
    let table = [
        (Format::Collector, "exporters: {}\n".to_owned(), "tail_sampling"),
        (Format::Collector, "policies: [{ type: always_sample }]".to_owned(), "name"),
        (
            Format::Collector,
            "policies: [{ name: a, type: latency, latency: { threshold_ms: soon } }]".to_owned(),
            "soon",
        ),
        (
            Format::Collector,
            "policies: [{ name: a, type: string_attribute, string_attribute: { values: [b] } }]".to_owned(),
            "key",
        ),
        (Format::Collector, "policies: [".to_owned(), ""),
        (Format::Refinery, "Rules: []".to_owned(), "Samplers"),
        (
            Format::Refinery,
            rules("{ Name: r, Conditions: [{ Field: a, Operator: like, Value: b }] }"),
            "like",
        ),
        (Format::Refinery, rules("{ Name: r, Scope: all }"), "all"),
        (Format::Refinery, rules("{ Name: r, Sampler: { MagicSampler: {} } }"), "MagicSampler"),
        (
            Format::Refinery,
            rules("{ Name: r, Conditions: [{ Field: a, Operator: matches, Value: '(' }] }"),
            "regular",
        ),
    ];
    for (format, text, word) in table {
        let (line, message) = refused(format, &text);
        assert!(line > 0 && message.contains(word), "{text}: {line} {message}");
    }
}

#[test]
fn a_whole_collector_configuration_moves_over() {
    let converted = collector(include_str!("../../tests/convert/collector.yaml"));
    assert_eq!(converted.text, include_str!("../../tests/convert/from-collector.yaml"));
    assert_eq!((converted.policies, converted.count(Kind::LeftOut)), (10, 5));
}

#[test]
fn refinerys_rules_move_over() {
    let converted = refinery(include_str!("../../tests/convert/refinery.yaml"));
    assert_eq!(converted.text, include_str!("../../tests/convert/from-refinery.yaml"));
    assert_eq!((converted.policies, converted.count(Kind::LeftOut)), (8, 0));
}
