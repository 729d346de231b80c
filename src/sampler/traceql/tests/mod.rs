mod any_text;
mod large;

use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{Span, Status};

use super::*;
use crate::sampler::testing::{SECOND_0, Trace, array, attribute, span, text, unit_spans, unread};
use crate::sampler::{ConditionText, Keep, Policies, PolicyConfig, ReadSpans, Slow, Spans, UnitSpan};
use crate::trace::Share;

pub(super) fn policies(condition: &str) -> Policies {
    let config = PolicyConfig {
        name: "asked".to_owned().try_into().unwrap(),
        matches: Some(ConditionText(condition.to_owned())),
        unless: None,
        slower_than: None,
        keep: Keep::Share(Share::EVERYTHING),
        shadow: false,
    };
    Policies::compile(&[config], 1).unwrap()
}

fn matches(condition: &str, trace: &Trace) -> bool {
    trace.judge(&policies(condition), &Slow::new(&[]), None).kept
}

/// A trace of one span with these attributes.
fn with(attributes: impl IntoIterator<Item = (&'static str, Any)>) -> Trace {
    let mut root = span(1, "op");
    root.attributes = attributes.into_iter().map(|(key, value)| attribute(key, value)).collect();
    Trace::of([root])
}

fn compiled(condition: &str) -> Result<query::Stages, QueryError> {
    query::compile(condition, &parser::parse(condition)?)
}

fn refused(condition: &str) -> QueryError {
    match compiled(condition) {
        Ok(_) => panic!("{condition} is not refused"),
        Err(error) => error,
    }
}

#[test]
fn intrinsics_have_two_spellings() {
    let mut root = span(1, "GET /cart");
    root.kind = 2;
    root.status = Some(Status { code: 2, message: "no stock".to_owned() });
    root.flags = 257;
    root.trace_state = "vendor=1,tier=gold".to_owned();
    let trace = Trace::default().with("shop", root).with("db", span(2, "select"));
    for condition in [
        r#"{ name = "GET /cart" && span:name = "GET /cart" }"#,
        "{ kind = server && span:kind = server }",
        "{ status = error && span:status = error }",
        r#"{ statusMessage = "no stock" && span:statusMessage =~ "no .*" }"#,
        "{ duration = 10ms && span:duration >= 10ms }",
        r#"{ rootName = "GET /cart" && trace:rootName != "select" && name = "select" }"#,
        r#"{ rootServiceName = "shop" && trace:rootService = "shop" && resource.service.name = "db" }"#,
        "{ traceDuration <= 10ms && trace:duration > 9ms }",
        r#"{ span:id = "0202020202020202" && span:parentID = "0101010101010101" }"#,
        r#"{ trace:id = "07070707070707070707070707070707" }"#,
        r#"{ parent = nil && name =~ "GET.*" }"#,
        "{ parent != nil && status = unset }",
        "{ span:sampled = true }",
        r#"{ tracestate.tier = "gold" }"#,
        "{ name = rootName }",
        "{ }",
    ] {
        assert!(matches(condition, &trace), "{condition}");
    }
    for condition in [
        r#"{ name = "select" && status = error }"#,
        r#"{ rootServiceName = "db" }"#,
        "{ span:parentID = nil && name = \"select\" }",
        "{ false }",
        r#"{ tracestate.tier != "gold" }"#,
    ] {
        assert!(!matches(condition, &trace), "{condition}");
    }
}

#[test]
fn what_is_absent_matches_nothing_but_nil() {
    let absent = with([]);
    for condition in [
        r#"{ span.zone != "eu" }"#,
        r#"{ span.zone !~ "eu" }"#,
        "{ span.n > 0 || span.n <= 0 }",
        "{ span.flag }",
        "{ !span.flag }",
        "{ span.n + 1 > 0 }",
        "{ span.zone != nil }",
    ] {
        assert!(!matches(condition, &absent), "{condition}");
    }
    assert!(matches("{ span.zone = nil && nil = .zone }", &absent));
    assert!(matches(r#"{ !(span.zone = "eu") }"#, &absent));
    assert!(matches(r#"{ span.zone != "eu" }"#, &with([("zone", text("us"))])));
}

#[test]
fn of_an_array_one_element_matches_and_a_negation_needs_all() {
    let odd = with([("shards", array([1, 3, 5].map(Any::IntValue)))]);
    assert!(matches("{ span.shards = 3 && span.shards > 4 && 5 = span.shards }", &odd));
    assert!(!matches("{ span.shards = 2 }", &odd));
    assert!(!matches("{ span.shards != 3 }", &odd));
    assert!(matches("{ span.shards != 2 }", &odd));
    let names = with([("names", array([text("alpha"), text("beta")]))]);
    assert!(matches(r#"{ span.names =~ "al.*" && span.names !~ "g.*" }"#, &names));
    assert!(!matches(r#"{ span.names !~ "al.*" }"#, &names));
}

#[test]
fn values_of_another_type_are_not_true_and_stop_nobody() {
    let many = with([("size", text("many")), ("flag", text("yes")), ("raw", Any::BytesValue(vec![1]))]);
    for condition in
        ["{ span.size * 2 > 10 }", "{ span.size != 3 }", "{ span.flag = false }", "{ span.raw = 1 }"]
    {
        assert!(!matches(condition, &many), "{condition}");
    }
    assert!(matches("{ span.raw != nil }", &many));
    assert!(!matches(r#"{ span.shard =~ ".*" }"#, &with([("shard", Any::IntValue(7))])));
}

#[test]
fn numbers_are_calculated_and_compared_as_numbers() {
    let trace =
        with([("a", Any::IntValue(7)), ("f", Any::DoubleValue(5.0)), ("big", Any::IntValue(i64::MAX))]);
    for condition in [
        "{ span.a * 2 + 1 = 15 }",
        "{ span.a / 2 = 3 && span.a % 4 = 3 }",
        "{ span.f / 2 = 2.5 && span.f >= 1 && span.f <= 100 }",
        "{ 2 ^ 3 ^ 2 = 512 }",
        "{ -span.a = -7 && -span.a < 0 }",
        "{ span.big = 9223372036854775807 && span.big > 9223372036854775806 }",
        "{ duration * 2 = 20ms && duration + 1ms < 12ms }",
        "{ 1 + 2 * 3 = 7 && (1 + 2) * 3 = 9 }",
        "{ !(span.a / 0 > 0) }",
        "{ span.a > -2147483648 }",
    ] {
        assert!(matches(condition, &trace), "{condition}");
    }
}

#[test]
fn and_and_or_bind_alike_from_left_to_right() {
    let trace = with([]);
    assert!(!matches("{ true || false && false }", &trace));
    assert!(matches("{ true || (false && false) }", &trace));
    assert!(matches("{ false && false || true }", &trace));
}

#[test]
fn regular_expressions_are_anchored_at_both_ends() {
    let trace = with([("url.path", text("/liveness")), ("rpc.service", text("grpc.v1.HealthCheck"))]);
    assert!(!matches(r#"{ span.url.path =~ "/live" }"#, &trace));
    assert!(matches(r#"{ span.url.path =~ ".*(/live).*" }"#, &trace));
    assert!(matches(r#"{ span.rpc.service =~ ".*(v[0-9]+.HealthCheck$).*" }"#, &trace));
    assert!(!matches(r#"{ span.rpc.service =~ ".*(^Health|v1$).*" }"#, &trace));
    assert!(matches(r#"{ span.url.path =~ `/live|/liveness` }"#, &trace));
}

#[test]
fn events_links_and_scopes_can_be_asked_for() {
    let mut root = span(1, "op");
    let event = |name: &str, after: u64, value: i64| Event {
        time_unix_nano: SECOND_0 + after,
        name: name.to_owned(),
        attributes: vec![attribute("n", Any::IntValue(value))],
        ..Event::default()
    };
    root.events = vec![event("first", 1_000, 1), event("exception", 5_000_000, 2)];
    root.links = vec![Link { trace_id: vec![0xab; 16], span_id: vec![0xcd; 8], ..Link::default() }];
    let scope = InstrumentationScope {
        name: "lib".to_owned(),
        version: "1.2".to_owned(),
        attributes: vec![attribute("lang", text("rust"))],
        ..InstrumentationScope::default()
    };
    let trace = Trace::default().within(vec![attribute("cluster", text("a"))], scope, root);
    for condition in [
        r#"{ event:name = "exception" && event.n = 1 }"#,
        "{ event:timeSinceStart > 4ms && event:timeSinceStart < 2us }",
        r#"{ link:traceID = "abababababababababababababababab" && link:spanID =~ "cdcd.*" }"#,
        r#"{ instrumentation:name = "lib" && instrumentation:version = "1.2" && instrumentation.lang = "rust" }"#,
        r#"{ resource.cluster = "a" && .cluster = "a" && .lang = "rust" && .n = 2 }"#,
        "{ event.n != nil && event.m = nil && link.n = nil }",
    ] {
        assert!(matches(condition, &trace), "{condition}");
    }
    assert!(!matches(r#"{ span.cluster = "a" }"#, &trace));
}

#[test]
fn the_nearest_scope_speaks_for_an_attribute_without_scope() {
    let mut root = span(1, "op");
    root.attributes = vec![attribute("zone", text("span")), attribute("zone", text("last"))];
    let resource = vec![attribute("zone", text("resource"))];
    let trace = Trace::default().within(resource, InstrumentationScope::default(), root);
    assert!(matches(r#"{ .zone = "last" && resource.zone = "resource" }"#, &trace));
    assert!(!matches(r#"{ .zone = "resource" || .zone = "span" }"#, &trace));
}

#[test]
fn terms_of_one_spanset_must_hold_of_one_span() {
    let mut child = span(2, "child");
    child.status = Some(Status { code: 2, ..Status::default() });
    child.attributes = vec![attribute("a", Any::IntValue(1))];
    let mut root = span(1, "root");
    root.attributes = vec![attribute("b", Any::IntValue(1))];
    let trace = Trace::of([root, child]);
    assert!(matches("{ status = error && span.a = 1 }", &trace));
    assert!(!matches("{ status = error && span.b = 1 }", &trace));
    assert!(!matches("{ span.a = 1 && span.b = 1 }", &trace));
    assert!(matches("{ span.a = 2 || span.b = 1 }", &trace));
    assert!(matches(r#"{ rootName = "root" && status = error && span.a = 1 }"#, &trace));
    assert!(!matches(r#"{ rootName = "child" && status = error }"#, &trace));
}

#[test]
fn names_that_are_not_utf_8_are_compared_as_they_leave() {
    let trace = Trace::of([span(1, "caf\u{e9}")]);
    let mut body = prost::Message::encode_to_vec(&trace.request);
    let place = body.windows(2).position(|pair| pair == "\u{e9}".as_bytes()).unwrap();
    body[place] = 0xff;
    let policies = policies("{ name = \"caf\u{fffd}\u{fffd}\" }");
    let mut bits = 0;
    let mut folding = policies.folding();
    crate::otlp::scan_for(policies.keys(), &body, |facts, seen| bits |= folding.fold(facts, seen)).unwrap();
    assert_eq!(bits, 1);
}

#[test]
fn mistakes_say_what_was_found_and_what_was_expected() {
    for (condition, column, said) in [
        ("", 1, "the condition ends here, expected a condition such as"),
        ("status = error", 1, "found `status`, expected a condition"),
        ("{ status = failed }", 12, "found `failed`, expected a field or a value"),
        ("{ status = error", 17, "the condition ends here, expected `}`"),
        ("{ status = error } }", 20, "found `}`, expected the end"),
        ("{ status > error }", 10, "found a status"),
        ("{ status = \"error\" }", 10, "found a status (ok, error, unset) compared with a text"),
        ("{ name = 5 }", 8, "found a text compared with a number"),
        ("{ duration }", 3, "found a duration, expected a condition"),
        ("{ span.a && 5 }", 13, "found a number, expected a condition"),
        ("{ name =~ 5 }", 11, "expected a regular expression in quotes"),
        ("{ duration =~ \"5\" }", 12, "found a duration, expected a text"),
        ("{ span.path =~ \"/a(b\" }", 16, "`/a(b` is no regular expression: unclosed group"),
        ("{ span.a = }", 12, "found `}`, expected a field or a value"),
        ("{ nil = nil }", 3, "expected a field"),
        ("{ span.a > nil }", 10, "expected `= nil` or `!= nil`"),
        ("{ parent = 5 }", 10, "found a span compared"),
        ("{ \"a\" + 1 = 2 }", 3, "found a text, expected a number"),
        ("!{ span.zone = \"internal\" }", 1, "under `unless`"),
        ("{ } | rate()", 7, "`rate()`: it belongs to queries"),
        ("{ } | select(name)", 7, "`select()`: it belongs to queries"),
        ("{ } | quantile_over_time(duration, .9)", 7, "belongs to queries"),
        ("{ } with (most_recent=true)", 5, "hints"),
        ("{ span:nme = 1 }", 3, "`span:nme`, which is no intrinsic"),
        ("{ name > 5 && duration = \"x\" }", 8, "found a text compared with a number"),
        ("{ name = nil }", 3, "a field that every span has"),
        ("{ nestedSetParent < 0 }", 3, "a root is `parent = nil`"),
        ("{ childCount = \"many\" }", 14, "found a number compared with a text"),
        ("select(name)", 1, "`select()`: it belongs to queries"),
        ("{ } | count()", 7, "a number that is compared with nothing"),
        ("{ } | count() | { }", 7, "a number that is compared with nothing"),
        ("{ } | count(name) > 1", 13, "count() takes nothing"),
        ("{ } | max() > 1", 11, "expected a field or a value"),
        ("{ } | max(name) > 1", 11, "found a text, expected a number"),
        ("{ } | sum(3) > 1", 11, "ask something of a span"),
        ("{ } | by(1)", 10, "ask something of a span"),
        ("{ } | by(parent)", 10, "found a span, expected a value"),
        ("{ } | by()", 10, "expected a field or a value"),
        ("{ } | nothing() > 1", 7, "expected a condition such as"),
        ("coalesce() | { }", 1, "nothing to join yet"),
        ("3 = 2", 1, "expected an aggregate such as count()"),
        ("{ } + { }", 5, "found `+` between spansets"),
        ("{ } = { }", 5, "found `=` between spansets"),
        ("{ } > 3", 5, "between spans and a number"),
        ("count() > 3 && { }", 13, "expected the comparison in parentheses"),
        ("count() && count()", 9, "found `&&` between numbers"),
        ("({ } | by(name)) >> { }", 1, "expected `| coalesce()` after it"),
        ("({ } | by(name) | count()) > 3", 1, "expected `| coalesce()` after it"),
        ("{ } | { } with(sample=0.1)", 11, "hints"),
        ("{ } >> ", 8, "the condition ends here"),
        ("({ } || { }", 12, "expected `)` or an operator"),
        ("{ } | -count() > 1", 7, "expected a number after it"),
        ("{ } | count() > 1 & { }", 19, "`&`, which TraceQL does not know"),
    ] {
        let error = refused(condition);
        assert_eq!(error.column, column, "{condition}: {error}");
        assert!(error.message.contains(said), "{condition}: {error}");
        assert!(error.offset <= condition.len());
    }
}

/// Half of what a thread has.
#[test]
fn size_and_depth_are_bounded() {
    std::thread::Builder::new().stack_size(1 << 20).spawn(ask_the_deepest).unwrap().join().unwrap();
}

fn ask_the_deepest() {
    let nested = |open: &str, inner: &str, close: &str, times| {
        format!("{}{inner}{}", open.repeat(times), close.repeat(times))
    };
    for deepest in [
        format!("{{ {} }}", nested("(1 + ", "1", ")", 22) + " > 0"),
        format!("{{ {} }}", nested("!(.a && ", "true", ")", 12)),
        nested("({ } >> ", "{ }", ")", 22),
        nested("(count() > 0 | ", "{ }", ")", 45),
        format!("{{ }}{}", " > { }".repeat(48)),
    ] {
        assert!(compiled(&deepest).is_ok(), "{deepest}: {:?}", compiled(&deepest).err());
        matches(&deepest, &with([]));
    }
    for text in [
        "(".repeat(60_000),
        "{".to_owned() + &"(".repeat(1_000),
        "{".to_owned() + &"!".repeat(1_000),
        format!("{{ 1{} = 2 }}", "+1".repeat(1_000)),
        format!("{{ }}{}", " >> { }".repeat(1_000)),
        format!("count(){} > 1", " + 1".repeat(1_000)),
        format!("{}{{ }}{}", "({ } && ".repeat(1_000), ")".repeat(1_000)),
        format!("{}{{ }}{}", "(count() > 1 | ".repeat(1_000), ")".repeat(1_000)),
        "-".repeat(60_000),
        "{ } | count() > ".repeat(3_000),
    ] {
        assert!(parser::parse(&text).is_err());
    }
    for text in [
        vec!["{ span.a = 1 }"; 2_000].join(" || "),
        vec!["{ span.a = 1 }"; 2_000].join(" && "),
        vec!["{ span.a = 1 }"; 2_000].join(" | "),
        vec!["count() > 1"; 2_000].join(" | "),
    ] {
        assert!(compiled(&text).is_ok());
        assert!(!matches(&text, &with([])));
    }
    let long = format!("{{ {} }}", vec!["span.a = 1"; 2_000].join(" || "));
    assert!(parser::parse(&long).is_ok());
    refused(r#"{ name =~ "(a{1000}){1000}" }"#);
}

/// A trace of these spans: number, parent, name.
fn family<'a>(spans: impl IntoIterator<Item = (u8, u8, &'a str)>) -> Trace {
    Trace::of(spans.into_iter().map(|(number, parent, name)| Span {
        parent_span_id: if parent == 0 { vec![] } else { vec![parent; 8] },
        ..span(number, name)
    }))
}

#[test]
fn spansets_joined_outside_of_braces_may_hold_of_different_spans() {
    let trace = family([(1, 0, "a"), (2, 1, "b")]);
    assert!(!matches("{ name = `a` && name = `b` }", &trace));
    assert!(matches("{ name = `a` } && { name = `b` }", &trace));
    assert!(!matches("{ name = `a` } && { name = `c` }", &trace));
    assert!(matches("{ name = `c` } || { name = `b` }", &trace));
    assert!(!matches("{ name = `a` } || { name = `b` } && { name = `c` }", &trace));
    assert!(matches("{ name = `a` } || ({ name = `b` } && { name = `c` })", &trace));
    assert!(matches("{ name = `a` } && ({ } | count() = 2)", &trace));
    assert!(matches("{ name = `a` } | { parent = nil } | coalesce()", &trace));
    assert!(!matches("{ name = `a` } | { name = `b` }", &trace));
}

#[test]
fn structural_operators_select_the_right_side() {
    // a (b (c, d), e); f hangs on a span that is not there.
    let trace = family([(1, 0, "a"), (2, 1, "b"), (3, 2, "c"), (4, 2, "d"), (5, 1, "e"), (6, 9, "f")]);
    let selects = |query: &str, names: &str| {
        for name in ["a", "b", "c", "d", "e", "f"] {
            let condition = format!("{query} | {{ name = `{name}` }}");
            assert_eq!(matches(&condition, &trace), names.contains(name), "{condition}");
        }
    };
    selects("{ } > { }", "bcde");
    selects("{ } < { }", "ab");
    selects("{ name = `a` } >> { }", "bcde");
    selects("{ name = `b` } >> { }", "cd");
    selects("{ name = `d` } << { }", "ab");
    selects("{ } ~ { }", "cdbe");
    selects("{ name = `c` } ~ { }", "d");
    selects("{ name = `b` } !> { }", "abef");
    selects("{ name = `c` } !< { }", "acdef");
    selects("{ name = `a` } !>> { }", "af");
    selects("{ name = `c` } !<< { }", "cdef");
    selects("{ name = `c` } !~ { }", "abcef");
    selects("{ name = `x` } !>> { name = `f` }", "f");
    selects("{ name = `b` } &> { name =~ `c|e` }", "bc");
    selects("{ name = `a` } &>> { name = `d` }", "ad");
    selects("{ name = `d` } &<< { name =~ `a|e` }", "ad");
    selects("{ name = `c` } &< { name =~ `a|b` }", "bc");
    selects("{ name =~ `c|f` } &~ { name =~ `d|a` }", "cd");
    selects("{ name = `a` } > { } > { }", "cd");
    selects("{ name = `a` } >> { name = `c` } && { name = `f` }", "cf");
    selects("({ name = `a` } | count() = 1) >> ({ name = `c` })", "c");
}

#[test]
fn parents_that_go_in_circles_end() {
    let circle = family([(1, 2, "a"), (2, 1, "b"), (3, 1, "c"), (4, 4, "d")]);
    assert!(matches("{ name = `a` } > { name = `b` }", &circle));
    assert!(matches("{ name = `b` } >> { name = `a` }", &circle));
    assert!(matches("{ name = `a` } >> { name = `c` }", &circle));
    assert!(!matches("{ name = `b` } >> { name = `c` }", &circle));
    assert!(!matches("{ name = `d` } > { name = `d` }", &circle));
    assert!(matches("{ } !<< { name = `d` }", &circle));
}

#[test]
fn spans_that_share_an_id_share_what_is_below_it() {
    let shared = family([(1, 0, "root"), (2, 1, "client"), (2, 1, "server"), (3, 2, "query")]);
    for name in ["client", "server", "root"] {
        assert!(matches(&format!("{{ name = `{name}` }} >> {{ name = `query` }}"), &shared), "{name}");
    }
    assert!(matches("{ name = `server` && childCount = 1 }", &shared));
    assert!(matches("{ name = `client` && childCount = 1 }", &shared));
}

#[test]
fn aggregates_are_compared() {
    let number = |value: i64| attribute("n", Any::IntValue(value));
    let spans = (1..=4).map(|n| Span { attributes: vec![number(n.into())], ..span(n, "op") });
    let trace = Trace::of(spans.chain([span(5, "none")]));
    for condition in [
        "{ } | count() = 5",
        "count() > 4",
        "{ name = `op` } | count() = 4 | { span.n = 4 }",
        "{ } | sum(span.n) = 10 | avg(span.n) = 2.5 | min(span.n) = 1 | max(span.n) = 4",
        "{ } | max(duration) = 10ms | sum(duration) = 50ms | avg(duration) >= 10ms",
        "{ } | max(span.n * 2) = 8",
        "{ } | sum(span.n) / count() = 2",
        "{ } | max(span.n) - min(span.n) = 3",
        "1 + 1 < count()",
        "{ } | count() > -1",
        "({ span.n > 3 } | count()) < ({ span.n <= 3 } | count())",
        "({ span.n > 9 } | count()) = 0",
        "({ } | count()) + ({ } | sum(span.n)) = 15",
        "{ } | by(name) | count() = 1",
        "{ } | by(span.n > 2) | count() = 2",
        "{ } | by(name) | count() > 1 | coalesce() | count() = 4",
        "by(span.n) | { name = `none` }",
        "{ } | by(name) | { } > { }",
    ] {
        assert!(matches(condition, &trace), "{condition}");
    }
    for condition in [
        "{ false } | count() = 0",
        "{ span.n > 9 } | sum(span.n) >= 0",
        "{ name = `none` } | max(span.n) > 0",
        "{ } | by(name) | count() = 5",
        "({ span.n > 9 } | max(span.n)) = 0",
        "{ span.n = 1 } | by(name) | { } > { }",
    ] {
        assert!(!matches(condition, &trace), "{condition}");
    }
}

#[test]
fn a_span_that_was_sent_twice_is_one() {
    let trace = Trace::of([span(1, "a"), span(2, "b"), span(2, "b")]);
    assert!(matches("{ } | count() = 2", &trace));
    assert!(matches("{ childCount = 1 } | count() = 1", &trace));
    assert!(!matches("{ } ~ { }", &trace));
    assert!(matches("{ } | sum(duration) = 20ms", &trace));
}

#[test]
fn a_parent_can_be_asked_for_its_attributes() {
    let mut root = span(1, "root");
    root.attributes = vec![attribute("zone", text("eu"))];
    let trace = Trace::default().with("shop", root).with("db", span(2, "select"));
    for condition in [
        r#"{ name = "select" && parent.zone = "eu" && parent.span.zone = "eu" }"#,
        r#"{ parent.resource.service.name = "shop" && resource.service.name = "db" }"#,
        r#"{ name = "root" && parent.zone = nil }"#,
        r#"{ parent.service.name != resource.service.name }"#,
    ] {
        assert!(matches(condition, &trace), "{condition}");
    }
    assert!(!matches(r#"{ parent.resource.zone = "eu" }"#, &trace));
    assert!(!matches(r#"{ name = "root" && parent.zone = "eu" }"#, &trace));
}

/// Reads all spans but the last.
struct Partly<'a>(Vec<UnitSpan<'a>>);

impl Spans for Partly<'_> {
    fn root(&self) -> Option<UnitSpan<'_>> {
        self.0.root()
    }

    fn read(&self) -> ReadSpans<'_> {
        ReadSpans { spans: self.0[..self.0.len() - 1].to_vec(), complete: false }
    }
}

#[test]
fn of_a_unit_that_is_not_read_whole_only_what_the_part_proves_is_true() {
    let mut root = span(1, "a");
    root.attributes = vec![attribute("n", Any::IntValue(1))];
    let trace = Trace::of([root, span(2, "b"), span(3, "c")]);
    let body = prost::Message::encode_to_vec(&trace.request);
    let spans = Partly(unit_spans(&body));
    let unit = unread(&spans);
    for (condition, expected) in [
        ("{ span.n = 1 }", true),
        ("{ name = `c` }", false),
        ("{ span.n = 1 } && { name = `a` }", true),
        ("{ } > { name = `b` }", true),
        ("{ } > { name = `c` }", false),
        ("{ } !> { }", false),
        ("{ } | count() > 1", true),
        ("{ } | count() > 2", false),
        ("{ } | count() < 9", false),
        ("{ } | count() = 2", false),
        ("{ } | max(duration) >= 10ms | 1s > min(duration) | by(name)", true),
        ("{ } | avg(duration) > 1ns", false),
        ("{ childCount >= 0 }", false),
        ("{ } | max(childCount) >= 0", false),
        ("({ } !> { } | count() > 0) || { span.n = 1 }", true),
    ] {
        let kept = policies(condition).judge(&unit, &Slow::new(&[])).kept;
        assert_eq!(kept, expected, "{condition}");
    }
}

/// Three spans that must not be read.
struct Three;

impl Spans for Three {
    fn root(&self) -> Option<UnitSpan<'_>> {
        None
    }

    fn read(&self) -> ReadSpans<'_> {
        panic!("read although there are too few")
    }

    fn at_most(&self) -> u64 {
        3
    }
}

#[test]
fn of_fewer_spans_than_are_counted_none_is_read() {
    for condition in [
        "{ } | count() > 3",
        "{ status = error } | by(name) | count() >= 4",
        "{ } | 5 = count() | { kind = server }",
        "{ name = `a` } | 4 < count() | coalesce()",
        "({ } | count() > 9) && ({ span.n = 1 } | avg(duration) > 1s)",
    ] {
        assert!(!policies(condition).judge(&unread(&Three), &Slow::new(&[])).kept, "{condition}");
    }
}
