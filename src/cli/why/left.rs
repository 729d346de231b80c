//! Spans of a trace that have left: in the outbox, and in Parquet.

use std::io;
use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use crate::exporter::outbox;
use crate::exporter::parquet::lookup::Stored;
use crate::log::{Disk, GroupItem};
use crate::otlp;
use crate::proto;
use crate::telemetry::why::Draw;
use crate::trace::{Position, Randomness, Reason, Threshold, TraceId, WeightRule};

/// Spans that left together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Left {
    /// `outbox`, or the name of an object.
    pub(super) place: String,
    pub(super) tenant: String,
    pub(super) policy: String,
    pub(super) reason: String,
    /// Judged as one unit: the root was seen.
    pub(super) whole: bool,
    /// Nothing of the trace had left memory when it was judged.
    pub(super) complete: bool,
    pub(super) spans: u64,
    /// How many of the original traffic each stands for.
    pub(super) weight: f64,
    pub(super) draw: Draw,
    pub(super) judged_at: String,
}

impl Left {
    fn of_piece(piece: &proto::Piece, tenant: &str) -> Self {
        let threshold = Threshold(piece.threshold);
        let zero = WeightRule::from(piece.weight_rule()) == WeightRule::Zero;
        Self {
            place: "outbox".to_owned(),
            tenant: tenant.to_owned(),
            policy: piece.policy.clone(),
            reason: Reason::from(piece.reason()).name().to_owned(),
            whole: piece.whole,
            complete: piece.complete,
            spans: u64::from(piece.spans),
            weight: if zero { 0.0 } else { threshold.weight() },
            draw: Draw::new(Randomness(piece.randomness), Some(threshold)),
            judged_at: time(piece.decided_at_ms),
        }
    }

    /// A row has no randomness of its own: it is the one that its span carries, else that of the ID. A span without a
    /// threshold and of weight 0 says nothing about the draw.
    pub(super) fn of_rows(trace: TraceId, stored: Stored) -> Self {
        let carried = otlp::ot(stored.trace_state.as_bytes());
        let threshold = carried.th.or((stored.weight == 1.0).then_some(Threshold::ALWAYS));
        Self {
            draw: Draw::new(carried.rv.unwrap_or(Randomness::of_trace(trace)), threshold),
            place: stored.object,
            tenant: stored.tenant,
            policy: stored.policy,
            reason: stored.reason,
            whole: stored.whole,
            complete: stored.complete,
            spans: stored.spans,
            weight: stored.weight,
            judged_at: time(stored.decided_at_ms),
        }
    }
}

pub(super) fn time(unix_ms: u64) -> String {
    let time = i64::try_from(unix_ms).ok().and_then(DateTime::<Utc>::from_timestamp_millis);
    time.unwrap_or_default().to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// What waits for an exporter, or was delivered a moment ago. A running instance may be writing: what is not whole yet is
/// passed over.
pub(super) fn in_outbox(data: &Path, trace: TraceId, tenant: Option<&str>) -> io::Result<Vec<Left>> {
    if !data.join("outbox").try_exists()? {
        return Ok(Vec::new());
    }
    let mut reader = outbox::recover(Arc::new(Disk), data, Position::default());
    let mut left = Vec::new();
    while let Some(item) = reader.next()? {
        let GroupItem::Group(group) = item else { continue };
        let wanted = |name: &str| tenant.is_none_or(|tenant| tenant == name);
        for record in group.records.iter().filter(|record| wanted(&record.tenant)) {
            let piece = outbox::read_piece(record).filter(|piece| piece.trace_id[..] == trace.0);
            left.extend(piece.map(|piece| Left::of_piece(&piece, &record.tenant)));
        }
    }
    Ok(left)
}
