//! The life of a trace as a pure value: which state follows which, and what is asked on the way.
//!
//! One rule stands behind the table: a judged trace that gets spans is re-opened, and its verdict can
//! only rise. A verdict holds for `hindsight` after it was made; after that the trace begins anew.
//!
//! ```text
//! (none)    --span-->  OPEN
//! OPEN      --due-->   KEPT | DROPPED              one unit, whole if its root was seen
//! KEPT      --span, due-->  KEPT                   the new spans follow, no policy is asked
//! DROPPED   --span, due-->  DROPPED | KEPT         all that is reachable is judged again
//! KEPT | DROPPED  --span, verdict older than hindsight-->  OPEN, with the new spans alone
//! any       --its last span leaves the log-->  FORGOTTEN: kept ones are remembered
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
    /// The verdict is too old to hold: the spans from this one on are judged for themselves.
    Restarts,
}

/// What a judgement asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// The policies, about one unit. Whole: its root was seen.
    Unit { whole: bool },
    /// The policies, about all that is reachable of a trace they dropped.
    Again,
    /// Nothing: the new spans follow the verdict that holds.
    Follow,
}

/// The verdict's age is that of the moment the span arrived; `waiting`: unjudged spans are there already.
pub(super) fn on_span(state: State, waiting: bool, age_ms: u64, hindsight_ms: u64) -> Arrival {
    match state {
        State::Open => Arrival::Joins,
        _ if waiting => Arrival::Joins,
        _ if age_ms < hindsight_ms => Arrival::Reopens,
        _ => Arrival::Restarts,
    }
}

/// What is asked of a trace that is due.
pub(super) fn on_due(state: State, root_seen: bool) -> Judgement {
    match state {
        State::Open | State::Stream => Judgement::Unit { whole: root_seen },
        State::Dropped => Judgement::Again,
        State::Kept => Judgement::Follow,
    }
}

/// The state after a judgement. A follower's trace was kept and stays so.
pub(super) fn on_verdict(judgement: Judgement, kept: bool) -> State {
    match (judgement, kept) {
        (Judgement::Follow, _) | (_, true) => State::Kept,
        (_, false) => State::Dropped,
    }
}

/// Whether a trace whose last span leaves the log is remembered. A drop leaves nothing: shares are a
/// pure function of the trace.
pub(super) fn on_forgotten(state: State) -> bool {
    matches!(state, State::Kept | State::Stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HINDSIGHT: u64 = 300_000;

    #[test]
    fn every_arrow_of_a_span() {
        let young = HINDSIGHT - 1;
        let old = HINDSIGHT;
        for (state, waiting, age, expected) in [
            (State::Open, true, 0, Arrival::Joins),
            (State::Open, true, old, Arrival::Joins),
            (State::Kept, false, 0, Arrival::Reopens),
            (State::Kept, false, young, Arrival::Reopens),
            (State::Kept, false, old, Arrival::Restarts),
            (State::Kept, true, young, Arrival::Joins),
            (State::Kept, true, old, Arrival::Joins),
            (State::Dropped, false, young, Arrival::Reopens),
            (State::Dropped, false, old, Arrival::Restarts),
            (State::Dropped, true, young, Arrival::Joins),
            (State::Dropped, true, old, Arrival::Joins),
        ] {
            assert_eq!(on_span(state, waiting, age, HINDSIGHT), expected, "{state:?} {waiting} {age}");
        }
    }

    #[test]
    fn every_arrow_of_a_judgement() {
        for (state, root, judgement, if_kept, if_dropped) in [
            (State::Open, true, Judgement::Unit { whole: true }, State::Kept, State::Dropped),
            (State::Open, false, Judgement::Unit { whole: false }, State::Kept, State::Dropped),
            (State::Dropped, true, Judgement::Again, State::Kept, State::Dropped),
            (State::Dropped, false, Judgement::Again, State::Kept, State::Dropped),
            (State::Kept, true, Judgement::Follow, State::Kept, State::Kept),
            (State::Kept, false, Judgement::Follow, State::Kept, State::Kept),
        ] {
            assert_eq!(on_due(state, root), judgement);
            assert_eq!(on_verdict(judgement, true), if_kept);
            assert_eq!(on_verdict(judgement, false), if_dropped);
        }
    }

    #[test]
    fn only_what_was_sent_is_remembered() {
        assert!(on_forgotten(State::Kept));
        assert!(on_forgotten(State::Stream));
        assert!(!on_forgotten(State::Dropped));
    }
}
