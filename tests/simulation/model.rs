//! What must have become of every span when a run is over: a model that knows what was sent, answered and
//! lost, and nothing of how the product works.

use tailwater::trace::Threshold;

use crate::backend::{ObjectStore, Sink};
use crate::plan::Plan;
use crate::traffic::{Name, Span, Trace, Traffic};

/// Pieces that were put into the outbox as one group.
#[derive(Debug)]
pub struct Group {
    pub trace: usize,
    pub at_ms: u64,
    pub stored: Stored,
}

/// Whether the outbox surely holds something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// Nothing is known yet.
    Waits,
    /// The outbox was synced since.
    Surely,
    /// The process ended before that.
    Perhaps,
}

/// All that a verdict on a run needs.
pub struct Model<'a> {
    pub plan: &'a Plan,
    pub traffic: &'a Traffic,
    pub sinks: &'a [Sink],
    pub store: &'a ObjectStore,
    pub groups: &'a [Group],
    /// Thresholds of the smallest and of the largest share that was in force.
    pub surely: Threshold,
    pub at_most: Threshold,
    /// Policies or waits were changed while traces waited.
    pub reloaded: bool,
    pub waits_changed: bool,
    /// The state was damaged: what has left may leave again.
    pub may_repeat: bool,
}

impl Model<'_> {
    /// The first thing that is wrong, or how many spans had to leave.
    pub fn check(&self) -> Result<u64, String> {
        let rows = self.rows();
        let mut left = 0;
        for (number, trace) in self.traffic.traces.iter().enumerate() {
            for (index, rows) in rows[number].iter().enumerate() {
                left += u64::from(self.check_span((number, index), trace, *rows)?);
            }
        }
        self.groups.iter().try_for_each(|group| self.check_group(group, &rows[group.trace]))?;
        Ok(left)
    }

    /// How often each span stands in an object.
    fn rows(&self) -> Vec<Vec<u32>> {
        let mut rows: Vec<Vec<u32>> =
            self.traffic.traces.iter().map(|trace| vec![0; trace.spans.len()]).collect();
        for seen in self.store.objects.values().flatten() {
            let (trace, index) = crate::traffic::name_of(seen.id);
            rows[trace][index] += 1;
        }
        rows
    }

    /// Whether it had to leave.
    fn check_span(&self, name: Name, trace: &Trace, rows: u32) -> Result<bool, String> {
        let span = &trace.spans[name.1];
        if rows > span.sends && !trace.damaged && !self.may_repeat {
            return Err(format!(
                "span {name:?} was sent {} times and stands {rows} times in objects",
                span.sends
            ));
        }
        if trace.synthetic {
            return Ok(false);
        }
        let somewhere = rows > 0 || self.sinks.iter().any(|sink| sink.taken.contains_key(&span.id));
        let no_error = !trace.spans.iter().any(|span| span.error && span.sends > 0);
        if somewhere && no_error && !trace.outlier && !self.at_most.keeps(trace.randomness) {
            return Err(format!("span {name:?} left, though no policy keeps its trace"));
        }
        let must_leave = self.must_leave(trace, span);
        if must_leave {
            let told =
                |wrong| format!("{wrong}: {:?}, error: {}, {:?}", trace.id, span.error, span.acknowledged);
            self.check_present(name, span, rows, span.first_begun_ms).map_err(told)?;
        }
        Ok(must_leave)
    }

    fn check_present(&self, name: Name, span: &Span, rows: u32, begun_ms: Option<u64>) -> Result<(), String> {
        if rows == 0 && !self.store.given_up.contains(&span.id) {
            return Err(format!("span {name:?} was acknowledged, its trace is kept, and it is in no object"));
        }
        let missing = |sink: &&Sink| {
            let known = sink.taken.contains_key(&span.id) || sink.refused.contains_key(&span.id);
            !known && !sink.given_up.contains(&span.id)
        };
        let mut wanting = self.sinks.iter().filter(|sink| sink.wants(begun_ms));
        match wanting.find(missing) {
            Some(sink) => Err(format!(
                "span {name:?} was acknowledged, its trace is kept, and {} never got it",
                sink.name
            )),
            None => Ok(()),
        }
    }

    /// An acknowledged span that some policy surely keeps.
    fn must_leave(&self, trace: &Trace, span: &Span) -> bool {
        let accounted = trace.excused || trace.damaged;
        let Some((received_ms, answered_ms)) = span.acknowledged.filter(|_| !accounted) else {
            return false;
        };
        let lucky = self.surely.keeps(trace.randomness);
        // Of a trace that is larger than what is read, an error may not be seen by policies that came after it.
        let read = !(self.reloaded && self.is_large(trace));
        lucky || (span.error && read) || self.shares_the_fate_of_an_error(trace, received_ms, answered_ms)
    }

    /// Of a trace whose root and one error came in time for its first judgement, all leaves that came in time
    /// too, or while the verdict held. What is early, late or forgotten under pressure is left open.
    fn shares_the_fate_of_an_error(&self, trace: &Trace, received_ms: u64, answered_ms: u64) -> bool {
        let waits = self.plan.waits;
        let begun = |span: &Span| span.first_begun_ms;
        let Some(first_ms) = trace.spans.iter().filter_map(begun).min() else { return false };
        let mut roots = trace.spans.iter().filter(|span| span.root);
        let Some(root) = roots.find(|root| root.acknowledged.is_some()) else { return false };
        let root_ms = begun(root).unwrap_or(u64::MAX);
        let due_ms = (first_ms + waits.max_wait_ms).min(root_ms.saturating_add(waits.after_root_ms));
        let in_time = |span: &Span| span.acknowledged.is_some_and(|(_, answered_ms)| answered_ms < due_ms);
        let errors = || trace.spans.iter().filter(|span| span.error);
        let Some(first_error_ms) = errors().filter_map(begun).min() else { return false };
        let Some(error) = errors().find(|error| in_time(error)).filter(|_| in_time(root)) else {
            return false;
        };
        let forgotten = self.plan.pressure || self.may_repeat;
        if forgotten || self.waits_changed || trace.early || self.is_large(trace) {
            return false;
        }
        let error_ms = error.acknowledged.map_or(u64::MAX, |(received_ms, _)| received_ms);
        let while_it_held = received_ms >= error_ms && received_ms < first_error_ms + waits.hindsight_ms;
        answered_ms < due_ms || while_it_held
    }

    /// It may be judged before its time, because it fills a piece.
    fn is_large(&self, trace: &Trace) -> bool {
        self.plan.piece_bytes.is_some_and(|bytes| trace.bytes() >= bytes.into())
    }

    /// All of a group or nothing. A backend may have seen a part of what a loss of power then took back.
    fn check_group(&self, group: &Group, rows: &[u32]) -> Result<(), String> {
        let Trace { spans, damaged, .. } = &self.traffic.traces[group.trace];
        if *damaged {
            return Ok(());
        }
        let number = group.trace;
        let objects = rows.iter().filter(|rows| **rows > 0).count();
        if objects != 0 && objects != spans.len() {
            return Err(format!("of group {number} {objects} of {} pieces are in objects", spans.len()));
        }
        if group.stored == Stored::Surely {
            return spans.iter().try_for_each(|span| {
                self.check_present(crate::traffic::name_of(span.id), span, objects as u32, Some(group.at_ms))
            });
        }
        for sink in self.sinks.iter().filter(|sink| !self.plan.power && sink.had_all()) {
            let got = |span: &&Span| sink.taken.contains_key(&span.id) || sink.refused.contains_key(&span.id);
            let got = spans.iter().filter(got).count();
            if got != 0 && got != spans.len() {
                return Err(format!("of group {number} {} got {got} of {} pieces", sink.name, spans.len()));
            }
        }
        Ok(())
    }
}
