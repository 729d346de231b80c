//! What is known of roots without their bytes: which operation each is of, and what its clocks say.

use std::borrow::Cow;

use crate::buffer::Root;
use crate::otlp::{OtState, ResourceSpansView, SpanFacts};
use crate::sampler::{OperationKey, OperationName, Slow, UnitSpan};
use crate::trace::TenantId;

/// Finds the operations of roots. The service of a resource is read once for those that follow one another.
#[derive(Debug)]
pub(super) struct Operations<'s, 'a> {
    slow: &'s Slow,
    tenant: TenantId,
    /// The resource of the last root, and its service as the sampler knows it.
    last: Option<(ResourceSpansView<'a>, u64)>,
}

impl<'s, 'a> Operations<'s, 'a> {
    pub(super) fn new(slow: &'s Slow, tenant: TenantId) -> Self {
        Self { slow, tenant, last: None }
    }

    /// `state` is what its trace state says.
    pub(super) fn root(&mut self, root: &SpanFacts<'a>, state: &OtState) -> Root {
        let service = self.service(root.resource_spans);
        Root {
            start: root.start,
            operation: self.slow.operation_of(service, &utf8(root.name)).to_words(),
            is_negative: root.end < root.start,
            is_weighed: state.th.is_some(),
        }
    }

    fn service(&mut self, resource_spans: ResourceSpansView<'a>) -> u64 {
        if let Some((last, service)) = &self.last
            && std::ptr::eq(last.as_bytes(), resource_spans.as_bytes())
        {
            return *service;
        }
        let service = self.slow.service(self.tenant, &resource_spans.resource().service_name());
        self.last = Some((resource_spans, service));
        service
    }
}

/// A name as readers see it. Nearly every one is as it should be.
fn utf8(name: &[u8]) -> Cow<'_, [u8]> {
    if name.is_ascii() {
        return Cow::Borrowed(name);
    }
    Cow::Owned(String::from_utf8_lossy(name).into_owned().into_bytes())
}

/// The names that an operation goes by.
pub(super) struct Names<'a> {
    service: Cow<'a, str>,
    name: Cow<'a, str>,
}

impl<'a> Names<'a> {
    pub(super) fn of(root: &UnitSpan<'a>) -> Self {
        Self { service: root.resource_spans.resource().service_name(), name: root.span.name() }
    }

    pub(super) fn key(&self, tenant: TenantId) -> OperationKey<'_> {
        OperationKey { tenant, service: &self.service, name: &self.name }
    }

    pub(super) fn to_name(&self, tenant: TenantId) -> OperationName {
        self.key(tenant).into()
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::otlp;
    use crate::sampler::testing::{Trace, span};
    use crate::sampler::{Operation, UnitSpan};

    #[test]
    fn roots_are_known_by_service_and_name_whatever_came_before_them() {
        let (first, mut second) = (span(1, "GET /"), span(1, "GET /"));
        second.trace_state = "ot=th:8".to_owned();
        second.end_time_unix_nano = second.start_time_unix_nano - 1;
        let trace = Trace::default().with("shop", first).with("cart", second).with("shop", span(1, "POST /"));
        let body = trace.request.encode_to_vec();
        let (slow, tenant) = (Slow::new(&[]), TenantId(3));
        let mut operations = Operations::new(&slow, tenant);
        let mut roots = Vec::new();
        otlp::scan(&body, |facts| {
            let state = otlp::ot(facts.trace_state);
            let root = operations.root(facts, &state);
            let names = Names::of(&UnitSpan::of(facts));
            assert_eq!(Operation::from_words(root.operation), slow.operation(names.key(tenant)));
            assert_eq!(Operations::new(&slow, tenant).root(facts, &state), root, "alone");
            roots.push(root);
        })
        .unwrap();
        assert_eq!([0, 1, 2].map(|n| roots[n].is_weighed), [false, true, false]);
        assert_eq!([0, 1, 2].map(|n| roots[n].is_negative), [false, true, false]);
        assert!(roots[0].operation != roots[1].operation && roots[0].operation != roots[2].operation);
    }
}
