//! Traces for tests: made with prost, read through views.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value::Value as Any,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;

use super::{OperationKey, Policies, Slow, Spans, Unit, UnitSpan};
use crate::otlp;
use crate::trace::{Decision, PolicyId, Randomness, TenantId, TraceId};

pub(crate) const SECOND_0: u64 = 1_700_000_000_000_000_000;

pub(crate) fn attribute(key: &str, value: Any) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

pub(crate) fn text(value: &str) -> Any {
    Any::StringValue(value.to_owned())
}

pub(crate) fn array(values: impl IntoIterator<Item = Any>) -> Any {
    let values = values.into_iter().map(|value| AnyValue { value: Some(value) }).collect();
    Any::ArrayValue(ArrayValue { values })
}

/// A span of 10 ms: a root if it has number 1, else its child.
pub(crate) fn span(number: u8, name: &str) -> Span {
    Span {
        trace_id: vec![7; 16],
        span_id: vec![number; 8],
        parent_span_id: if number == 1 { vec![] } else { vec![1; 8] },
        name: name.to_owned(),
        start_time_unix_nano: SECOND_0,
        end_time_unix_nano: SECOND_0 + 10_000_000,
        status: Some(Status::default()),
        ..Span::default()
    }
}

/// A unit of which nothing is known before its spans are read.
pub(crate) fn unread(spans: &dyn Spans) -> Unit<'_> {
    Unit {
        bits: None,
        randomness: Randomness::of_trace(TraceId([0xff; 16])),
        operation: None,
        duration: None,
        earliest_start: 0,
        latest_end: 0,
        spans,
        dropped_by: None,
        again: false,
        now_ms: 0,
    }
}

/// The spans of one trace, each with its service and instrumentation scope.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    pub(crate) request: ExportTraceServiceRequest,
}

impl Trace {
    pub(crate) fn of(spans: impl IntoIterator<Item = Span>) -> Self {
        spans.into_iter().fold(Self::default(), |trace, span| trace.with("svc", span))
    }

    pub(crate) fn with(self, service: &str, span: Span) -> Self {
        self.within(vec![attribute("service.name", text(service))], InstrumentationScope::default(), span)
    }

    pub(crate) fn within(mut self, resource: Vec<KeyValue>, scope: InstrumentationScope, span: Span) -> Self {
        self.request.resource_spans.push(ResourceSpans {
            resource: Some(Resource { attributes: resource, ..Resource::default() }),
            scope_spans: vec![ScopeSpans { scope: Some(scope), spans: vec![span], ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        });
        self
    }

    /// What the policies say of it, by folded bits and again from bytes alone: they must agree.
    pub(crate) fn judge(&self, policies: &Policies, slow: &Slow, dropped_by: Option<PolicyId>) -> Decision {
        self.with_unit(policies, slow, dropped_by, |unit| {
            let folded = policies.judge(&unit, slow);
            let from_bytes = policies.judge(&Unit { bits: None, again: true, ..unit }, slow);
            assert_eq!(folded, from_bytes, "bits and bytes disagree");
            folded
        })
    }

    /// What the policies say of it at a moment, asked once: budgets count.
    pub(crate) fn judge_at(&self, policies: &Policies, now_ms: u64, again: bool) -> Decision {
        let slow = Slow::new(&[]);
        self.with_unit(policies, &slow, None, |unit| policies.judge(&Unit { now_ms, again, ..unit }, &slow))
    }

    pub(crate) fn with_unit<T>(
        &self,
        policies: &Policies,
        slow: &Slow,
        dropped_by: Option<PolicyId>,
        judge: impl FnOnce(Unit<'_>) -> T,
    ) -> T {
        let body = self.request.encode_to_vec();
        let mut bits = 0;
        let (mut earliest_start, mut latest_end) = (u64::MAX, 0);
        let mut folding = policies.folding();
        otlp::scan_for(policies.keys(), &body, |facts, seen| {
            bits |= folding.fold(facts, seen);
            earliest_start = earliest_start.min(if facts.start == 0 { u64::MAX } else { facts.start });
            latest_end = latest_end.max(facts.end);
        })
        .unwrap();
        let spans = unit_spans(&body);
        let root = spans.iter().find(|span| span.span.parent().is_none()).copied();
        let service = root.map(|root| service_of(&root)).unwrap_or_default();
        let name = root.map(|root| root.span.name()).unwrap_or_default();
        let unit = Unit {
            bits: Some(bits),
            randomness: Randomness::of_trace(spans[0].span.trace_id()),
            operation: root.map(|_| {
                slow.operation(OperationKey { tenant: TenantId(0), service: &service, name: &name })
            }),
            duration: root.map(|root| latest_end.saturating_sub(root.span.start())),
            earliest_start,
            latest_end,
            spans: &spans,
            dropped_by,
            again: dropped_by.is_some(),
            now_ms: 0,
        };
        judge(unit)
    }
}

pub(crate) fn unit_spans(body: &[u8]) -> Vec<UnitSpan<'_>> {
    let mut spans = Vec::new();
    for resource_spans in otlp::request(body) {
        for scope_spans in resource_spans.scope_spans() {
            spans.extend(scope_spans.spans().map(|span| UnitSpan { span, resource_spans, scope_spans }));
        }
    }
    spans
}

fn service_of(span: &UnitSpan<'_>) -> String {
    let mut attributes = span.resource_spans.resource().attributes();
    let service = attributes.find(|attribute| attribute.key_bytes() == b"service.name");
    service.map(|service| service.value().to_text().into_owned()).unwrap_or_default()
}

/// Compiles a YAML list of policies.
pub(crate) fn policies(yaml: &str) -> Policies {
    Policies::compile(&serde_saphyr::from_str::<Vec<super::PolicyConfig>>(yaml).unwrap(), 1).unwrap()
}
