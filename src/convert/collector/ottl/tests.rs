use super::*;

fn span(text: &str) -> String {
    condition(text, Context::Span).unwrap_or_else(|why| panic!("{text}: {why}")).0.as_str().to_owned()
}

#[test]
fn common_conditions_are_said_in_traceql() {
    let table = [
        (r#"attributes["http.route"] == "/order""#, r#"span.http.route = "/order""#),
        (r#"span.attributes["n"] >= 500"#, "span.n >= 500"),
        (
            r#"resource.attributes["service.name"] == "api" and name == "GET /""#,
            r#"resource.service.name = "api" && name = "GET /""#,
        ),
        (r#"IsMatch(attributes["url.path"], "^/health")"#, r#"span.url.path =~ "/health.*""#),
        ("status.code == STATUS_CODE_ERROR", "status = error"),
        ("status.code == 2 or kind == SPAN_KIND_SERVER", "status = error || kind = server"),
        (r#"kind.string != "Client""#, "kind != client"),
        ("end_time_unix_nano - start_time_unix_nano > 1500000000", "duration > 1500ms"),
        (r#"(end_time - start_time) >= Duration("2s")"#, "duration >= 2s"),
        ("Milliseconds(end_time - start_time) < 250", "duration < 250ms"),
        (r#"attributes["size"] * 2 > 10"#, "span.size * 2 > 10"),
        (r#"10 < attributes["size"]"#, "span.size > 10"),
        ("IsRootSpan()", "parent = nil"),
        (r#"parent_span_id != SpanID(0x0000000000000000)"#, "parent != nil"),
        (r#"attributes["k"] != nil"#, "span.k != nil"),
        (r#"trace_state["tier"] == "gold""#, r#"tracestate.tier = "gold""#),
        (r#"instrumentation_scope.name == "db""#, r#"instrumentation:name = "db""#),
        (r#"HasPrefix(name, "GET.")"#, r"name =~ `GET\..*`"),
        (r#"attributes["ok"] == true and true"#, "span.ok = true && true"),
    ];
    for (ottl, traceql) in table {
        assert_eq!(span(ottl), traceql, "{ottl}");
    }
}

#[test]
fn what_is_absent_is_unequal_as_in_ottl() {
    assert_eq!(span(r#"attributes["k"] != "v""#), r#"!(span.k = "v")"#);
    assert_eq!(span(r#"not (attributes["k"] == "v")"#), r#"!(span.k = "v")"#);
    assert_eq!(span(r#"not (attributes["k"] != "v")"#), r#"span.k = "v""#);
    assert_eq!(span(r#"not attributes["n"] < 5"#), "!(span.n < 5)");
    assert_eq!(span(r#"not IsMatch(attributes["k"], "v")"#), r#"!(span.k =~ ".*v.*")"#);
    assert_eq!(span(r#"name != "x""#), r#"name != "x""#);
}

#[test]
fn and_binds_before_or_and_not_goes_inside() {
    let either = span(r#"name == "a" or name == "b" and kind == SPAN_KIND_CLIENT"#);
    assert_eq!(either, r#"name = "a" || (name = "b" && kind = client)"#);
    let neither = span(r#"not (name == "a" or attributes["k"] == 1)"#);
    assert_eq!(neither, r#"name != "a" && !(span.k = 1)"#);
}

#[test]
fn conditions_on_events_say_where_they_differ() {
    let (inner, remarks) =
        condition(r#"name == "exception" and attributes["t"] != "x""#, Context::Event).unwrap();
    assert_eq!(inner.as_str(), r#"event:name = "exception" && event.t != "x""#);
    assert_eq!(remarks.len(), 2, "{remarks:?}");
    let (inner, remarks) = condition(r#"name != "retry""#, Context::Event).unwrap();
    assert_eq!((inner.as_str(), remarks.len()), (r#"event:name != "retry""#, 0));
}

#[test]
fn what_traceql_has_no_words_for_is_refused_by_name() {
    let table = [
        (r#"Len(attributes["list"]) > 3"#, "Len"),
        (r#"attributes["a"]["b"] == 1"#, "a"),
        ("dropped_attributes_count > 0", "dropped_attributes_count"),
        (r#"IsMatch(name, "(")"#, "regular expression"),
        (r#"attributes["a"]"#, "alone"),
        (r#"name == "a" && kind == 1"#, "&"),
        ("", "end"),
        ("1 == 1", "two values"),
    ];
    for (text, word) in table {
        let why = condition(text, Context::Span).unwrap_err();
        assert!(why.contains(word), "{text}: {why}");
    }
    let deep = format!("{}true{}", "(".repeat(500), ")".repeat(500));
    assert!(condition(&deep, Context::Span).unwrap_err().contains("deep"));
}
