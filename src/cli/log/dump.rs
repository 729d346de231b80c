//! Records as OTLP JSON, a request a line.

use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;

use crate::cli::{Failure, say};
use crate::exporter::outbox::read_piece;
use crate::log::{GroupItem, GroupReader, ReadItem, Reader, Storage, segment};
use crate::otlp;
use crate::trace::TraceId;

pub(super) fn run(
    storage: &Arc<dyn Storage>,
    data_dir: &Path,
    requests: bool,
    trace: Option<TraceId>,
) -> Result<(), Failure> {
    let mut lines = Lines { out: BufWriter::new(io::stdout().lock()), trace };
    let dir = data_dir.join(if requests { "input" } else { "outbox" });
    let numbers = segment::numbers(&**storage, &dir).with_context(|| format!("read {}", dir.display()))?;
    for (number, _) in numbers {
        let dumped = match requests {
            true => dump_requests(Reader::numbered(storage.clone(), &dir, number), &mut lines),
            false => dump_kept(GroupReader::numbered(storage.clone(), &dir, number), &mut lines),
        };
        match dumped {
            Err(error) if error.kind() == ErrorKind::NotFound => {} // deleted meanwhile
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()), // the reader has seen enough
            dumped => dumped?,
        }
    }
    Ok(lines.out.flush()?)
}

fn dump_requests(mut reader: Reader, lines: &mut Lines<impl Write>) -> io::Result<()> {
    while let Some(item) = reader.next()? {
        match item {
            ReadItem::Record(record) => lines.request(&record.body)?,
            ReadItem::Damaged { from, bytes } => {
                say(format_args!("{bytes} bytes at {from:?} cannot be read"))
            }
            ReadItem::BadHeader { segment, fault, .. } => say(format_args!("segment {segment}: {fault}")),
            ReadItem::TornTail { .. } => {}
        }
    }
    Ok(())
}

fn dump_kept(mut reader: GroupReader, lines: &mut Lines<impl Write>) -> io::Result<()> {
    while let Some(item) = reader.next()? {
        match item {
            GroupItem::Group(group) => {
                for piece in group.records.iter().filter_map(read_piece) {
                    if lines.trace.is_none_or(|wanted| piece.trace() == Some(wanted)) {
                        lines.request(&piece.otlp)?;
                    }
                }
            }
            GroupItem::Lost { from, bytes, .. } => {
                say(format_args!("{bytes} bytes at {from:?} cannot be read"));
            }
        }
    }
    Ok(())
}

struct Lines<W> {
    out: W,
    trace: Option<TraceId>,
}

impl<W: Write> Lines<W> {
    fn request(&mut self, body: &[u8]) -> io::Result<()> {
        let mut request = match ExportTraceServiceRequest::decode(&*otlp::in_utf8(body)) {
            Ok(request) => request,
            Err(error) => {
                say(format_args!("a record cannot be printed: {error}"));
                return Ok(());
            }
        };
        if let Some(trace) = self.trace {
            only(&mut request, trace);
        }
        if request.resource_spans.is_empty() {
            return Ok(());
        }
        serde_json::to_writer(&mut self.out, &request)?;
        self.out.write_all(b"\n")
    }
}

/// Leaves the spans of one trace, with what stands above them.
fn only(request: &mut ExportTraceServiceRequest, trace: TraceId) {
    for above in &mut request.resource_spans {
        for scope in &mut above.scope_spans {
            scope.spans.retain(|span| span.trace_id == trace.0);
        }
        above.scope_spans.retain(|scope| !scope.spans.is_empty());
    }
    request.resource_spans.retain(|above| !above.scope_spans.is_empty());
}
