use prost::Message;
use serde_json::{Value, json};

use super::*;
use crate::receiver::json::to_protobuf;

fn read(text: &str) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest::decode(to_protobuf(text.as_bytes()).unwrap()).unwrap()
}

fn refusal(text: &str) -> String {
    to_protobuf(text.as_bytes()).unwrap_err().to_string()
}

/// A request with this one span.
fn spanning(span: Value) -> String {
    json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": [span] }] }] }).to_string()
}

fn first_span(text: &str) -> Span {
    read(text).resource_spans.remove(0).scope_spans.remove(0).spans.remove(0)
}

#[test]
fn json_with_every_kind_of_value_equals_protobuf() {
    let mut sent = request(3);
    // The serializer of opentelemetry-proto writes infinity as null.
    for span in &mut sent.resource_spans[0].scope_spans[0].spans {
        span.attributes.retain(|attribute| !["double", "empty"].contains(&attribute.key.as_str()));
    }
    let text = serde_json::to_string(&sent).unwrap();
    assert_eq!(read(&text), sent);
}

#[test]
fn protobuf_is_about_half_the_text() {
    let sent = request(200);
    let text = serde_json::to_string(&sent).unwrap();
    let share = to_protobuf(text.as_bytes()).unwrap().len() as f64 / text.len() as f64;
    println!("protobuf / text = {share:.3}");
    assert!(share < 0.55, "{share}");
}

#[test]
fn numbers_come_as_strings_and_as_numbers() {
    let values = json!([
        { "intValue": "9223372036854775807" },
        { "intValue": -9_223_372_036_854_775_808_i64 },
        { "intValue": 1.0 },
        { "doubleValue": 1 },
        { "doubleValue": "NaN" },
        { "doubleValue": "-Infinity" },
        { "doubleValue": "1.5" },
    ]);
    let attributes = json!([{ "key": "all", "value": { "arrayValue": { "values": values } } }]);
    let span = first_span(&spanning(json!({
        "startTimeUnixNano": "18446744073709551615", "endTimeUnixNano": 7, "flags": 257, "droppedLinksCount": "3",
        "attributes": attributes,
    })));
    assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (u64::MAX, 7));
    assert_eq!((span.flags, span.dropped_links_count), (257, 3));
    let Some(any_value::Value::ArrayValue(array)) = span.attributes[0].value.clone().unwrap().value else {
        panic!("{:?}", span.attributes);
    };
    let values: Vec<String> =
        array.values.iter().map(|value| format!("{:?}", value.value.as_ref().unwrap())).collect();
    assert_eq!(
        values,
        [
            "IntValue(9223372036854775807)",
            "IntValue(-9223372036854775808)",
            "IntValue(1)",
            "DoubleValue(1.0)",
            "DoubleValue(NaN)",
            "DoubleValue(-inf)",
            "DoubleValue(1.5)",
        ]
    );
}

#[test]
fn enumerations_come_as_numbers_and_by_name() {
    let span = first_span(&spanning(json!({ "kind": 3, "status": { "code": "STATUS_CODE_ERROR" } })));
    assert_eq!((span.kind, span.status.unwrap().code), (3, 2));
    let span = first_span(&spanning(json!({ "kind": "SPAN_KIND_CONSUMER", "status": { "code": 1 } })));
    assert_eq!((span.kind, span.status.unwrap().code), (5, 1));
}

#[test]
fn ids_are_hex_of_either_case() {
    let span = first_span(&spanning(
        json!({ "traceId": "5B8EFFF798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174" }),
    ));
    assert_eq!(span.trace_id[..3], [0x5b, 0x8e, 0xff]);
    assert_eq!(span.span_id[7], 0x74);
    assert!(span.parent_span_id.is_empty());
}

#[test]
fn a_wrong_id_makes_a_bad_span_and_no_refused_request() {
    for wrong in ["W47/95gDgQPSabYzgT/GDA==", "zz", "123", &"ab".repeat(40)] {
        let span = first_span(&spanning(json!({ "traceId": wrong, "spanId": "ab", "name": "still here" })));
        assert_eq!(span.trace_id.len(), 1, "{wrong}");
        assert_eq!(span.span_id.len(), 1);
        assert_eq!(span.name, "still here");
    }
}

#[test]
fn unknown_keys_and_nulls_are_ignored() {
    let text = r#"{"new":{"deep":[1,{}]},"resourceSpans":[{"resource":null,"scopeSpans":[{"spans":[
        {"name":null,"kind":null,"attributes":[{"key":"k","value":{"newValue":{"x":1}}},{"key":"n","value":{"stringValue":null}}],
         "trace_id":"aa","links":null}]}]}]}"#;
    let span = first_span(text);
    assert_eq!(span.attributes.len(), 2);
    assert!(
        span.attributes.iter().all(|attribute| attribute.value.clone().unwrap_or_default().value.is_none())
    );
    assert!(span.name.is_empty() && span.trace_id.is_empty());
}

#[test]
fn empty_values_are_values() {
    let attributes = json!([
        { "key": "s", "value": { "stringValue": "" } }, { "key": "b", "value": { "boolValue": false } },
        { "key": "i", "value": { "intValue": 0 } }, { "key": "a", "value": { "arrayValue": {} } },
        { "key": "y", "value": { "bytesValue": "" } },
    ]);
    let span = first_span(&spanning(json!({ "attributes": attributes })));
    assert!(span.attributes.iter().all(|attribute| attribute.value.clone().unwrap().value.is_some()));
}

#[test]
fn base64_of_both_alphabets_is_read() {
    for text in ["+/8=", "-_8=", "-_8", "+/8"] {
        let attributes = json!([{ "key": "k", "value": { "bytesValue": text } }]);
        let span = first_span(&spanning(json!({ "attributes": attributes })));
        let value = span.attributes[0].value.clone().unwrap().value.unwrap();
        assert_eq!(value, any_value::Value::BytesValue(vec![0xfb, 0xff]), "{text}");
    }
}

#[test]
fn an_empty_object_is_an_empty_request() {
    assert!(read("{}").resource_spans.is_empty());
}

#[test]
fn what_is_not_otlp_is_refused_with_its_place() {
    assert!(refusal("").contains("JSON"));
    assert!(refusal("[]").contains("ExportTraceServiceRequest"));
    assert!(refusal("{} x").contains("column 4"));
    assert!(refusal(r#"{"resourceSpans":{}}"#).contains("an array of ResourceSpans"));
    assert!(refusal(r#"{"resourceSpans":[7]}"#).contains("ResourceSpans"));
    assert!(refusal(&spanning(json!({ "name": 7 }))).contains("a string for \"name\""));
    assert!(refusal(&spanning(json!({ "kind": "SERVER" }))).contains("enumeration"));
    assert!(refusal(&spanning(json!({ "startTimeUnixNano": -1 }))).contains("-1"));
    assert!(refusal(&spanning(json!({ "startTimeUnixNano": "soon" }))).contains("soon"));
    assert!(refusal(&spanning(json!({ "droppedLinksCount": 4_294_967_296_u64 }))).contains("4294967296"));
    assert!(to_protobuf(b"{\"resourceSpans\":\"\xff\"}").is_err());
}

#[test]
fn half_a_surrogate_pair_and_broken_utf8_cost_nobody_the_request() {
    let text = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"cut \ud83d","kind":2},{"name":"whole \ud83d\ude00"}]}]}]}"#;
    let read = to_protobuf(text.as_bytes()).unwrap();
    let replaced = String::from_utf8_lossy(&read);
    assert!(replaced.contains("cut \u{fffd}") && replaced.contains("whole \u{1f600}"), "{replaced}");
    let broken = b"{\"resourceSpans\":[{\"scopeSpans\":[{\"spans\":[{\"name\":\"\xff!\"}]}]}]}";
    assert!(to_protobuf(broken).unwrap().windows(2).any(|bytes| bytes == b"\xff!"));
}

#[test]
fn depth_is_bounded() {
    let deep = |levels: usize| {
        let value = "{\"arrayValue\":{\"values\":[".repeat(levels) + "{}" + &"]}}".repeat(levels);
        let attribute = format!("{{\"key\":\"k\",\"value\":{value}}}");
        format!("{{\"resourceSpans\":[{{\"resource\":{{\"attributes\":[{attribute}]}}}}]}}")
    };
    assert!(to_protobuf(deep(20).as_bytes()).is_ok());
    assert!(refusal(&deep(2_000_000)).contains("recursion"));
}

#[test]
fn text_is_never_much_shorter_than_its_protobuf() {
    let many = |element: &str, count: usize| {
        format!(
            "{{\"resourceSpans\":[{{\"scopeSpans\":[{{\"spans\":[{}]}}]}}]}}",
            vec![element; count].join(",")
        )
    };
    let string = format!("{{\"name\":\"{}\"}}", "x".repeat(16_384));
    let lists = format!("{{\"links\":[{}]}}", vec!["{}"; 2_000].join(","));
    for element in
        ["{}", "{\"kind\":4294967295}", "{\"flags\":1}", "{\"startTimeUnixNano\":1}", &string, &lists]
    {
        for count in [1, 10, 3000] {
            let text = many(element, count);
            let length = to_protobuf(text.as_bytes()).unwrap().len();
            assert!(
                length <= crate::receiver::json::converted_len_max(text.len()),
                "{count} times {element:.40}"
            );
        }
    }
}

#[test]
fn doubles_are_read_exactly() {
    let mut state = 1u64;
    for _ in 0..10_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let double = f64::from_bits(state);
        if !double.is_finite() {
            continue;
        }
        let text = format!(
            "{{\"resourceSpans\":[{{\"resource\":{{\"attributes\":[{{\"value\":{{\"doubleValue\":{double:e}}}}}]}}}}]}}"
        );
        let resource = read(&text).resource_spans.remove(0).resource.unwrap();
        let value = resource.attributes[0].value.clone().unwrap().value.unwrap();
        assert_eq!(value, any_value::Value::DoubleValue(double), "{double:e}");
    }
}
