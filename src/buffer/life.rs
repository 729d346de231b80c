//! The life of a trace as a pure value: which state follows which, and what is asked on the way.
//!
//! One rule stands behind the table: a judged trace that gets spans is re-opened, and its verdict can only
//! rise. A verdict holds for `hindsight` after it was made; a trace that still gets spans later is a stream
//! of units, each judged for itself.
//!
//! ```text
//! (none)   --span-->            OPEN
//! OPEN     --due, root seen-->  KEPT | DROPPED      one unit
//! OPEN     --due, no root-->    STREAM              by units
//! KEPT     --span, due-->       KEPT                the new spans follow, no policy is asked
//! DROPPED  --span, due-->       DROPPED | KEPT      all that is reachable is judged again
//! KEPT | DROPPED  --span, verdict older than hindsight-->  STREAM
//! STREAM   --span, due-->       STREAM              the new spans by units
//! STREAM   --its first root, due-->  KEPT | DROPPED one unit with all that is reachable and has not left;
//!                               dropped although a unit was kept: the root leaves alone
//! any      --no span of it left in the log-->  FORGOTTEN: what was kept is remembered
//! FORGOTTEN  --span-->          the remembered state, else OPEN
//! ```

/// Where a trace stands between judgements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// Not judged yet.
    Open,
    /// Judged and sent.
    Kept,
    /// Judged and not sent; still reachable while its spans are in the log.
    Dropped,
    /// Judged by units, each for itself.
    Stream,
}

impl State {
    /// As shown to people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Kept => "kept",
            Self::Dropped => "dropped",
            Self::Stream => "stream",
        }
    }
}

/// What a span does to the trace that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It joins the spans that wait already.
    Joins,
    /// The trace was judged: it waits again, for `after_root`.
    Reopens,
    /// As [`Self::Reopens`], but the verdict is too old to hold: from now on units are judged.
    Streams,
}

/// What a judgement asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// The policies, about a trace with its root: one unit.
    Whole,
    /// The policies, about each unit among the new spans.
    Units,
    /// The policies, about one unit: the root of a stream with all that has not left.
    Root,
    /// The policies, about all that is reachable of a trace they dropped.
    Again,
    /// Nothing: the new spans follow the verdict that holds.
    Follow,
}

/// What leaves of a stream whose root came and was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// Units of it were kept: they can be read in their place.
    RootLeaves,
    NothingLeaves,
}

/// The verdict's age is that of the moment the span arrived; `waiting`: unjudged spans are there already.
pub(super) fn on_span(state: State, waiting: bool, age_ms: u64, hindsight_ms: u64) -> Arrival {
    match state {
        State::Open => Arrival::Joins,
        _ if waiting => Arrival::Joins,
        State::Kept | State::Dropped if age_ms >= hindsight_ms => Arrival::Streams,
        State::Kept | State::Dropped | State::Stream => Arrival::Reopens,
    }
}

/// What is asked of a trace that is due. `root`: its root is among what is judged, or was before.
pub(super) fn on_due(state: State, root: bool) -> Judgement {
    match (state, root) {
        (State::Open, true) => Judgement::Whole,
        (State::Open | State::Stream, false) => Judgement::Units,
        (State::Stream, true) => Judgement::Root,
        (State::Dropped, _) => Judgement::Again,
        (State::Kept, _) => Judgement::Follow,
    }
}

/// The state after a judgement. Units leave a stream, whatever became of them; a follower's trace was kept
/// and stays so.
pub(super) fn on_verdict(judgement: Judgement, kept: bool) -> State {
    match (judgement, kept) {
        (Judgement::Units, _) => State::Stream,
        (Judgement::Follow, _) | (_, true) => State::Kept,
        (_, false) => State::Dropped,
    }
}

/// What becomes of a root whose stream was dropped; `unit_kept`: something of it has left before.
pub fn on_root_dropped(unit_kept: bool) -> Dropped {
    if unit_kept { Dropped::RootLeaves } else { Dropped::NothingLeaves }
}

/// Whether a trace whose last span leaves the log is remembered: kept ones, and streams of which a unit was
/// kept. A drop leaves nothing: shares are a pure function of the trace.
pub(super) fn on_forgotten(state: State, unit_kept: bool) -> bool {
    matches!(state, State::Kept) || matches!(state, State::Stream) && unit_kept
}

#[cfg(test)]
mod tests {
    use super::*;

    const HINDSIGHT: u64 = 300_000;
    const YOUNG: u64 = HINDSIGHT - 1;

    #[test]
    fn every_arrow_of_a_span() {
        for (state, waiting, age, expected) in [
            (State::Open, true, 0, Arrival::Joins),
            (State::Open, true, HINDSIGHT, Arrival::Joins),
            (State::Kept, false, 0, Arrival::Reopens),
            (State::Kept, false, YOUNG, Arrival::Reopens),
            (State::Kept, false, HINDSIGHT, Arrival::Streams),
            (State::Kept, true, YOUNG, Arrival::Joins),
            (State::Kept, true, HINDSIGHT, Arrival::Joins),
            (State::Dropped, false, YOUNG, Arrival::Reopens),
            (State::Dropped, false, HINDSIGHT, Arrival::Streams),
            (State::Dropped, true, YOUNG, Arrival::Joins),
            (State::Dropped, true, HINDSIGHT, Arrival::Joins),
            (State::Stream, false, 0, Arrival::Reopens),
            (State::Stream, false, HINDSIGHT, Arrival::Reopens),
            (State::Stream, true, HINDSIGHT, Arrival::Joins),
        ] {
            assert_eq!(on_span(state, waiting, age, HINDSIGHT), expected, "{state:?} {waiting} {age}");
        }
    }

    #[test]
    fn every_arrow_of_a_judgement() {
        use Judgement::{Again, Follow, Root, Units, Whole};
        for (state, root, judgement, if_kept, if_dropped) in [
            (State::Open, true, Whole, State::Kept, State::Dropped),
            (State::Open, false, Units, State::Stream, State::Stream),
            (State::Stream, false, Units, State::Stream, State::Stream),
            (State::Stream, true, Root, State::Kept, State::Dropped),
            (State::Dropped, true, Again, State::Kept, State::Dropped),
            (State::Dropped, false, Again, State::Kept, State::Dropped),
            (State::Kept, true, Follow, State::Kept, State::Kept),
            (State::Kept, false, Follow, State::Kept, State::Kept),
        ] {
            assert_eq!(on_due(state, root), judgement, "{state:?} {root}");
            assert_eq!(on_verdict(judgement, true), if_kept, "{judgement:?} kept");
            assert_eq!(on_verdict(judgement, false), if_dropped, "{judgement:?} dropped");
        }
    }

    #[test]
    fn the_root_of_a_dropped_stream_leaves_if_a_unit_was_kept() {
        assert_eq!(on_root_dropped(true), Dropped::RootLeaves);
        assert_eq!(on_root_dropped(false), Dropped::NothingLeaves);
    }

    #[test]
    fn only_what_was_sent_is_remembered() {
        for (state, unit_kept, remembered) in [
            (State::Kept, true, true),
            (State::Stream, true, true),
            (State::Stream, false, false),
            (State::Dropped, false, false),
            (State::Dropped, true, false),
        ] {
            assert_eq!(on_forgotten(state, unit_kept), remembered, "{state:?} {unit_kept}");
        }
    }
}
