//! Kept traces. A piece comes whole, at the moment at which it was judged.
//!
//! Files are read in the order of their names, which is that of their opening; of one file all traces are held. One that
//! cannot be read is counted lost, unless none can.

use std::path::{Path, PathBuf};
use std::vec::IntoIter;

use anyhow::Context;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};
use percent_encoding::percent_decode_str;
use prost::Message;

use super::{Arrival, Arrivals};
use crate::exporter::parquet::{Restored, restore};
use crate::trace::TraceId;

pub(super) struct Files {
    ahead: IntoIter<PathBuf>,
    /// Of the current file, by time.
    arrivals: IntoIter<Arrival>,
    now_ms: u64,
    read: u64,
    lost: u64,
    /// Why the first file could not be read, as long as none could.
    fault: Option<anyhow::Error>,
}

impl Files {
    pub(super) fn new(files: Vec<PathBuf>) -> Self {
        Self {
            ahead: files.into_iter(),
            arrivals: Vec::new().into_iter(),
            now_ms: 0,
            read: 0,
            lost: 0,
            fault: None,
        }
    }
}

impl Arrivals for Files {
    fn next(&mut self) -> anyhow::Result<Option<Arrival>> {
        loop {
            if let Some(mut arrival) = self.arrivals.next() {
                self.now_ms = self.now_ms.max(arrival.at_ms);
                arrival.at_ms = self.now_ms;
                return Ok(Some(arrival));
            }
            let Some(file) = self.ahead.next() else {
                let nothing_read = self.fault.take().filter(|_| self.lost == self.read);
                return nothing_read.map_or(Ok(None), Err);
            };
            let at = || format!("read {}", file.display());
            let bytes = std::fs::metadata(&file).with_context(at)?.len();
            self.read += bytes;
            match arrivals_of(&file).with_context(at) {
                Ok(arrivals) => self.arrivals = arrivals.into_iter(),
                Err(fault) => {
                    self.lost += bytes;
                    self.fault.get_or_insert(fault);
                }
            }
        }
    }

    fn bytes_read(&self) -> u64 {
        self.read
    }

    fn lost_bytes(&self) -> u64 {
        self.lost
    }
}

/// The pieces of a file by the time of their judgement.
fn arrivals_of(file: &Path) -> anyhow::Result<Vec<Arrival>> {
    let tenant = tenant_of(file);
    let mut arrivals = Vec::new();
    let mut piece: Option<Piece> = None;
    for restored in restore(file)? {
        let restored = restored?;
        if piece.as_ref().is_none_or(|piece| !piece.holds(&restored)) {
            arrivals.extend(piece.take().and_then(|piece| piece.arrival(&tenant)));
        }
        piece.get_or_insert_default().push(restored);
    }
    arrivals.extend(piece.and_then(|piece| piece.arrival(&tenant)));
    arrivals.sort_by_key(|arrival| arrival.at_ms);
    Ok(arrivals)
}

/// From the folder `tenant=…`, if there is one.
fn tenant_of(file: &Path) -> String {
    let steps = file.iter().filter_map(|step| step.to_str());
    let tenant = steps.filter_map(|step| step.strip_prefix("tenant=")).next_back();
    tenant.map(|name| percent_decode_str(name).decode_utf8_lossy().into_owned()).unwrap_or_default()
}

/// Spans of one trace that were judged together.
#[derive(Default)]
struct Piece {
    trace: Vec<u8>,
    decided_ms: u64,
    weight: f64,
    request: ExportTraceServiceRequest,
}

impl Piece {
    fn holds(&self, restored: &Restored) -> bool {
        self.trace == restored.span.trace_id && self.decided_ms == restored.decided_ms
    }

    fn push(&mut self, restored: Restored) {
        let Restored { resource, resource_schema_url, scope, scope_schema_url, span, weight, decided_ms } =
            restored;
        self.trace.clone_from(&span.trace_id);
        self.decided_ms = decided_ms;
        self.weight = self.weight.max(weight);
        let groups = &mut self.request.resource_spans;
        let same = |group: &ResourceSpans| {
            group.resource.as_ref() == Some(&resource) && group.schema_url == resource_schema_url
        };
        if !groups.last().is_some_and(same) {
            let schema_url = resource_schema_url;
            groups.push(ResourceSpans { resource: Some(resource), schema_url, ..ResourceSpans::default() });
        }
        let Some(group) = groups.last_mut() else { return };
        let same =
            |spans: &ScopeSpans| spans.scope.as_ref() == Some(&scope) && spans.schema_url == scope_schema_url;
        if !group.scope_spans.last().is_some_and(same) {
            let schema_url = scope_schema_url;
            group.scope_spans.push(ScopeSpans { scope: Some(scope), schema_url, ..ScopeSpans::default() });
        }
        if let Some(spans) = group.scope_spans.last_mut() {
            spans.spans.push(span);
        }
    }

    fn arrival(self, tenant: &str) -> Option<Arrival> {
        let trace = TraceId(self.trace.try_into().ok()?);
        Some(Arrival {
            at_ms: self.decided_ms,
            tenant: tenant.to_owned(),
            body: self.request.encode_to_vec().into(),
            weight: Some((trace, self.weight)),
        })
    }
}
