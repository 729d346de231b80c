//! Makes requests of the lines of a scenario.

use std::collections::{BTreeMap, HashMap};

use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use prost::Message;
use serde_json::Value;

use crate::format::{self, Entries, Line, Scenario, nanos};

/// Second 0 of every scenario, in Unix seconds.
pub const SECOND_0: u64 = 1_700_000_000;

/// A field that claims more bytes than there are: number 15, 127 bytes.
const OVERRUN: [u8; 2] = [0x7a, 0x7f];

pub type Id = [u8; 16];

/// A span and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Placed {
    pub span: Span,
    pub resource: Resource,
    pub resource_schema: String,
    pub scope: Option<InstrumentationScope>,
    pub scope_schema: String,
}

/// A span as it will be sent.
#[derive(Clone, Debug)]
pub struct Sent {
    pub name: String,
    pub trace: Id,
    pub placed: Placed,
    pub valid: bool,
}

/// One export request.
#[derive(Debug, Default)]
pub struct Request {
    pub at_ms: u64,
    pub spans: Vec<Sent>,
    pub body: Vec<u8>,
}

/// What one line stands for at one moment.
struct Arrival<'a> {
    at_ns: i128,
    line: &'a Line,
    spans: Vec<Sent>,
}

/// The requests of a scenario in order.
pub fn requests(scenario: &Scenario) -> Vec<Request> {
    let mut arrivals = arrivals(scenario);
    arrivals.sort_by_key(|arrival| arrival.at_ns);
    let mut groups: Vec<Vec<Arrival<'_>>> = Vec::new();
    let mut open: HashMap<(i128, String), usize> = HashMap::new();
    for arrival in arrivals {
        let Some(request) = &arrival.line.request else {
            groups.push(vec![arrival]);
            continue;
        };
        let group = *open.entry((arrival.at_ns, request.to_string())).or_insert(groups.len());
        if group == groups.len() {
            groups.push(Vec::new());
        }
        groups[group].push(arrival);
    }
    groups.into_iter().map(request).collect()
}

fn arrivals(scenario: &Scenario) -> Vec<Arrival<'_>> {
    let mut maker = Maker { ids: &scenario.traces, lines: HashMap::new(), moments: HashMap::new() };
    let mut arrivals = Vec::new();
    for line in &scenario.spans {
        let at_ns = (line.at * 1e9).round() as i128;
        let Some(trace) = &line.trace else {
            arrivals.push(Arrival { at_ns, line, spans: Vec::new() });
            continue;
        };
        let base = u128::from_str_radix(&scenario.traces[trace], 16).expect("a trace ID is hexadecimal");
        let Some(repeat) = line.repeat else {
            let spans = maker.spans(line, trace, base.to_be_bytes(), at_ns, None);
            arrivals.push(Arrival { at_ns, line, spans });
            continue;
        };
        let every = line.every.as_deref().map_or(0, nanos);
        for number in 0..repeat {
            let at_ns = at_ns + i128::from(number) * every;
            let id = generated_id(base, line.ids.as_deref(), number).to_be_bytes();
            let spans = maker.spans(line, trace, id, at_ns, Some(Number { number, of: repeat, base }));
            arrivals.push(Arrival { at_ns, line, spans });
        }
    }
    arrivals
}

fn split_mix(seed: u64, index: u64) -> u64 {
    let z = seed.wrapping_add((index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

fn generated_id(base: u128, how: Option<&str>, number: u64) -> u128 {
    let seed = base as u64;
    match how.unwrap_or("sequence") {
        "sequence" => base.wrapping_add(number.into()),
        "random" => {
            u128::from(split_mix(seed, 2 * number)) << 64 | u128::from(split_mix(seed, 2 * number + 1))
        }
        "random64" => split_mix(seed, number).into(),
        other => panic!("ids: {other} is unknown"),
    }
}

/// Which of the traces of a line with `repeat`.
#[derive(Clone, Copy)]
struct Number {
    number: u64,
    of: u64,
    base: u128,
}

struct Maker<'a> {
    ids: &'a BTreeMap<String, String>,
    /// Lines seen of a trace.
    lines: HashMap<Id, u64>,
    /// When the spans of a trace start that say nothing else.
    moments: HashMap<Id, i128>,
}

impl Maker<'_> {
    fn spans(&mut self, line: &Line, name: &str, id: Id, at_ns: i128, number: Option<Number>) -> Vec<Sent> {
        let place = self.lines.entry(id).or_default();
        *place += 1;
        let first = line.span.as_ref().map_or(*place, format::span_id);
        let template = self.span(line, id, at_ns, number);
        (first..first + line.fan.unwrap_or(1))
            .map(|span_id| {
                let mut span = Span { span_id: span_id.to_be_bytes().to_vec(), ..template.clone() };
                match line.broken.as_deref() {
                    None | Some("inside") => {}
                    Some("trace_id") => span.trace_id.truncate(15),
                    Some("span_id") => span.span_id.truncate(7),
                    Some(other) => panic!("broken: {other} is unknown"),
                }
                let valid = line.broken.is_none() && id != [0; 16];
                Sent { name: name.to_owned(), trace: id, placed: placed(line, span), valid }
            })
            .collect()
    }

    fn span(&mut self, line: &Line, id: Id, at_ns: i128, number: Option<Number>) -> Span {
        let duration = duration(line.duration.as_ref(), number);
        let moment = *self.moments.entry(id).or_insert(at_ns - duration);
        let start = line.start.as_deref().filter(|start| *start != "unset").map_or(moment, nanos);
        let end = line.end.as_deref().filter(|end| *end != "unset").map_or(start + duration, nanos);
        let unix = |at: i128| (i128::from(SECOND_0) * 1_000_000_000 + at) as u64;
        let set = |text: &Option<String>, at| if text.as_deref() == Some("unset") { 0 } else { unix(at) };
        let mut attributes = attributes(&line.attributes);
        if line.pad > 0 {
            attributes.push(attribute("pad", &Value::String("x".repeat(line.pad))));
        }
        Span {
            trace_id: id.to_vec(),
            trace_state: trace_state(line, number),
            parent_span_id: line.parent.as_ref().map_or(Vec::new(), id_bytes),
            flags: line.flags.unwrap_or(1),
            name: line.name.clone().unwrap_or_else(|| "op".to_owned()),
            kind: kind(line.kind.as_deref()).into(),
            start_time_unix_nano: set(&line.start, start),
            end_time_unix_nano: set(&line.end, end),
            attributes,
            events: line.events.iter().map(|event| self::event(event, unix(start))).collect(),
            links: line.links.iter().map(|link| self.link(link)).collect(),
            status: status(line.status.as_deref()),
            ..Span::default()
        }
    }

    fn link(&self, link: &format::Link) -> Link {
        let id = u128::from_str_radix(&self.ids[&link.trace], 16).expect("a trace ID is hexadecimal");
        Link {
            trace_id: id.to_be_bytes().to_vec(),
            span_id: link.span.as_ref().map_or_else(|| 1u64.to_be_bytes().to_vec(), id_bytes),
            attributes: attributes(&link.attributes),
            ..Link::default()
        }
    }
}

fn id_bytes(value: &Value) -> Vec<u8> {
    format::span_id(value).to_be_bytes().to_vec()
}

fn trace_state(line: &Line, number: Option<Number>) -> String {
    match (line.rv.as_deref(), number) {
        (Some("random"), Some(Number { number, base, .. })) => {
            format!("ot=rv:{:014x}", split_mix(base as u64, number) & ((1 << 56) - 1))
        }
        (None, _) => line.tracestate.clone(),
        (other, _) => panic!("rv: {other:?} is unknown"),
    }
}

fn duration(value: Option<&Value>, number: Option<Number>) -> i128 {
    let generator = match value {
        None => return nanos("10ms"),
        Some(Value::String(text)) => return nanos(text),
        Some(generator) => generator,
    };
    let Number { number, of, .. } = number.expect("a generator stands in a line with repeat");
    let listed = |key: &str| -> Option<Vec<i128>> {
        let list = generator.get(key)?.as_array()?;
        Some(list.iter().map(|item| nanos(item.as_str().expect("a duration"))).collect())
    };
    if let Some(cycle) = listed("cycle") {
        return cycle[number as usize % cycle.len()];
    }
    let ends = listed("uniform").expect("uniform or cycle");
    let place = i128::from(number * 7919 % of);
    ends[0] + (ends[1] - ends[0]) * place / i128::from(of - 1)
}

fn kind(text: Option<&str>) -> SpanKind {
    match text.unwrap_or("internal") {
        "unspecified" => SpanKind::Unspecified,
        "internal" => SpanKind::Internal,
        "server" => SpanKind::Server,
        "client" => SpanKind::Client,
        "producer" => SpanKind::Producer,
        "consumer" => SpanKind::Consumer,
        other => panic!("kind: {other} is unknown"),
    }
}

fn status(text: Option<&str>) -> Option<Status> {
    let code = match text.unwrap_or("unset") {
        "unset" => return None,
        "ok" => 1,
        "error" => 2,
        other => panic!("status: {other} is unknown"),
    };
    Some(Status { code, ..Status::default() })
}

fn event(event: &format::Event, start: u64) -> Event {
    let after = event.after.as_deref().map_or(0, nanos);
    Event {
        time_unix_nano: start + after as u64,
        name: event.name.clone(),
        attributes: attributes(&event.attributes),
        ..Event::default()
    }
}

fn attributes(entries: &Entries) -> Vec<KeyValue> {
    entries.iter().map(|(key, value)| attribute(key, value)).collect()
}

fn attribute(key: &str, value: &Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(any(value)) }), ..KeyValue::default() }
}

/// Text that is not UTF-8 stands here as senders' readers will see it.
pub fn any(value: &Value) -> Any {
    match value {
        Value::String(text) => Any::StringValue(text.clone()),
        Value::Bool(truth) => Any::BoolValue(*truth),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => Any::IntValue(integer),
            None => Any::DoubleValue(number.as_f64().expect("a number")),
        },
        Value::Array(items) => {
            let values = items.iter().map(|item| AnyValue { value: Some(any(item)) }).collect();
            Any::ArrayValue(ArrayValue { values })
        }
        raw => Any::StringValue(String::from_utf8_lossy(&raw_bytes(raw)).into_owned()),
    }
}

/// The bytes of `{ utf8: '…' }`.
fn raw_bytes(value: &Value) -> Vec<u8> {
    let hex = value.get("utf8").and_then(Value::as_str).expect("an attribute value or utf8");
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("utf8 is hexadecimal");
    (0..hex.len()).step_by(2).map(byte).collect()
}

fn placed(line: &Line, span: Span) -> Placed {
    let service = Value::String(line.service.clone().unwrap_or_else(|| "svc".to_owned()));
    let mut of_resource = vec![attribute("service.name", &service)];
    of_resource.extend(attributes(&line.resource));
    let scope = InstrumentationScope {
        name: line.scope.name.clone(),
        version: line.scope.version.clone(),
        attributes: attributes(&line.scope.attributes),
        ..InstrumentationScope::default()
    };
    Placed {
        span,
        resource: Resource { attributes: of_resource, ..Resource::default() },
        resource_schema: line.schema_url.clone(),
        scope: (scope != InstrumentationScope::default()).then_some(scope),
        scope_schema: line.scope.schema_url.clone(),
    }
}

/// Spans of one scope, encoded.
struct OfScope<'a> {
    first: &'a Placed,
    spans: Vec<u8>,
}

struct OfResource<'a> {
    first: &'a Placed,
    scopes: Vec<OfScope<'a>>,
}

/// Encodes by hand what stands above a span, so that it can be broken.
fn request(arrivals: Vec<Arrival<'_>>) -> Request {
    let mut resources: Vec<OfResource<'_>> = Vec::new();
    for arrival in &arrivals {
        for sent in &arrival.spans {
            scope_of(&mut resources, &sent.placed)
                .extend(field(2, &span_bytes(arrival.line, &sent.placed.span)));
        }
    }
    let said = |broken: &str| {
        let of_request = arrivals.iter().map(|arrival| arrival.line).filter(|line| line.trace.is_none());
        of_request.filter_map(|line| line.broken.as_deref()).any(|level| level == broken)
    };
    let overrun = |level: &str| if said(level) { &OVERRUN[..] } else { &[] };
    // The last scope and the last resource of the request are the broken ones.
    let (mut of_scope, mut of_resource) = (overrun("scope"), overrun("resource"));
    let mut encoded = Vec::new();
    for resource in resources.iter().rev() {
        let mut scopes = Vec::new();
        for scope in resource.scopes.iter().rev() {
            let mut bytes = scope.first.scope.as_ref().map_or(Vec::new(), |it| field(1, &it.encode_to_vec()));
            bytes.extend(&scope.spans);
            bytes.extend(text(3, &scope.first.scope_schema));
            bytes.extend(std::mem::take(&mut of_scope));
            scopes.push(field(2, &bytes));
        }
        let mut bytes = field(1, &resource.first.resource.encode_to_vec());
        bytes.extend(scopes.into_iter().rev().flatten());
        bytes.extend(text(3, &resource.first.resource_schema));
        bytes.extend(std::mem::take(&mut of_resource));
        encoded.push(field(1, &bytes));
    }
    let mut body: Vec<u8> = encoded.into_iter().rev().flatten().collect();
    body.extend(overrun("request"));
    match arrivals.iter().find_map(|arrival| arrival.line.empty.as_deref()) {
        None | Some("request") => {}
        Some("resources") => body.extend(field(1, &[])),
        Some(other) => panic!("empty: {other} is unknown"),
    }
    let at_ms = (arrivals[0].at_ns / 1_000_000) as u64;
    let spans = arrivals.into_iter().flat_map(|arrival| arrival.spans).collect();
    Request { at_ms, spans, body }
}

/// Where a span is appended: spans that agree in resource and scope stand together.
fn scope_of<'r, 'a>(resources: &'r mut Vec<OfResource<'a>>, placed: &'a Placed) -> &'r mut Vec<u8> {
    let same = |known: &OfResource<'_>| {
        known.first.resource == placed.resource && known.first.resource_schema == placed.resource_schema
    };
    let at = resources.iter().position(same).unwrap_or_else(|| {
        resources.push(OfResource { first: placed, scopes: Vec::new() });
        resources.len() - 1
    });
    let scopes = &mut resources[at].scopes;
    let same = |known: &OfScope<'_>| {
        known.first.scope == placed.scope && known.first.scope_schema == placed.scope_schema
    };
    let at = scopes.iter().position(same).unwrap_or_else(|| {
        scopes.push(OfScope { first: placed, spans: Vec::new() });
        scopes.len() - 1
    });
    &mut scopes[at].spans
}

/// The span's message, with the bytes in it that no decoded span can hold.
fn span_bytes(line: &Line, span: &Span) -> Vec<u8> {
    let mut span = span.clone();
    let mut raw = Vec::new();
    for attribute in &mut span.attributes {
        let Some(value) = line.attributes.get(&attribute.key).filter(|value| value.is_object()) else {
            continue;
        };
        let bytes = raw_bytes(value);
        let marker: String = (0..bytes.len()).map(|at| char::from(1 + at as u8 % 31)).collect();
        attribute.value = Some(AnyValue { value: Some(Any::StringValue(marker.clone())) });
        raw.push((marker.into_bytes(), bytes));
    }
    let mut encoded = span.encode_to_vec();
    for (marker, bytes) in raw {
        let at = encoded.windows(marker.len()).position(|window| window == marker).expect("it was put there");
        encoded[at..at + marker.len()].copy_from_slice(&bytes);
    }
    if line.broken.as_deref() == Some("inside") {
        encoded.extend(OVERRUN);
    }
    encoded
}

fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    prost::encoding::encode_varint(bytes.len() as u64, &mut out);
    out.extend_from_slice(bytes);
    out
}

fn text(number: u8, text: &str) -> Vec<u8> {
    if text.is_empty() { Vec::new() } else { field(number, text.as_bytes()) }
}
