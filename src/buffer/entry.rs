//! What is known of one trace while it has a span in the log.

use std::hash::{Hash, Hasher};

use super::deadlines::Tick;
use super::departed::Departed;
use super::kept::Remembered;
use super::life::{self, State};
use super::refs;
use crate::trace::{PolicyId, Position, Randomness, TenantId, TraceId};

/// A trace of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    pub trace: TraceId,
    pub tenant: TenantId,
}

impl Hash for Key {
    /// As three integers: the derived form would hash a length as well.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let id = u128::from_le_bytes(self.trace.0);
        state.write_u64(id as u64);
        state.write_u64((id >> 64) as u64);
        state.write_u16(self.tenant.0);
    }
}

/// Predicate bits folded under the policies of this generation; another says nothing of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(pub u16);

impl Generation {
    /// Bits of several generations, or none.
    pub const MIXED: Self = Self(u16::MAX);
}

/// What the spans of a unit say together, folded as they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Conditions that some span fulfils, folded under the policies of `generation`.
    pub bits: u32,
    pub generation: Generation,
    /// Unix nanoseconds; `u64::MAX` if no span has a start.
    pub earliest_start: u64,
    /// Unix nanoseconds, 0 if no span has an end.
    pub latest_end: u64,
    explicit: ExplicitRandomness,
}

/// The `rv` of the trace state: the root's, else the smallest seen. In one word, of which randomness takes 56 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ExplicitRandomness(u64);

impl ExplicitRandomness {
    const SEEN: u64 = 1 << 62;
    const OF_ROOT: u64 = 1 << 63;

    fn fold(&mut self, rv: Randomness, of_root: bool) {
        match (self.get(), of_root) {
            (Some(_), _) if self.0 & Self::OF_ROOT != 0 => {}
            (_, true) => self.0 = rv.0 | Self::SEEN | Self::OF_ROOT,
            (Some(least), false) => self.0 = least.min(rv).0 | Self::SEEN,
            (None, false) => self.0 = rv.0 | Self::SEEN,
        }
    }

    fn get(self) -> Option<Randomness> {
        (self.0 & Self::SEEN != 0).then_some(Randomness(self.0 & !(Self::SEEN | Self::OF_ROOT)))
    }
}

impl Summary {
    pub(super) fn of(generation: Generation) -> Self {
        Self {
            bits: 0,
            generation,
            earliest_start: u64::MAX,
            latest_end: 0,
            explicit: ExplicitRandomness::default(),
        }
    }

    pub(super) fn fold(&mut self, span: &Arriving, is_root: bool, generation: Generation) {
        self.bits |= span.bits;
        if self.generation != generation {
            self.generation = Generation::MIXED;
        }
        if span.start != 0 {
            self.earliest_start = self.earliest_start.min(span.start);
        }
        self.latest_end = self.latest_end.max(span.end);
        if let Some(rv) = span.randomness {
            self.explicit.fold(rv, is_root);
        }
    }

    /// Section 7 of the contract: explicit randomness, else the low 56 bits of the trace ID.
    pub fn randomness(&self, trace: TraceId) -> Randomness {
        self.explicit.get().unwrap_or_else(|| Randomness::of_trace(trace))
    }
}

/// What is known of a root without its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Root {
    /// Unix nanoseconds, 0: unset.
    pub start: u64,
    /// What its unit is compared with. Opaque here: the sampler knows it.
    pub operation: [u64; 2],
    /// It ends before it starts.
    pub is_negative: bool,
    /// Its trace state has a `th`.
    pub is_weighed: bool,
}

/// A span as the index takes it in.
#[derive(Clone, Copy, Debug)]
pub struct Arriving {
    /// Offset and length of the span message in its request's body.
    pub at: u32,
    pub len: u32,
    pub bits: u32,
    /// Unix nanoseconds, 0: unset.
    pub start: u64,
    pub end: u64,
    /// A valid `rv` in its trace state.
    pub randomness: Option<Randomness>,
}

/// What was learned of a unit's duration, so that it can be corrected. Opaque here: the sampler reads it.
pub type Lesson = [u64; 2];

const NO_LESSON: Lesson = [0; 2];

/// See the module.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) state: State,
    /// A judgement looks at it now.
    pub(super) judging: bool,
    /// A root has come since it was opened, or since it became a stream.
    pub(super) root_seen: bool,
    /// Newest span.
    pub(super) head: u32,
    /// First root by position.
    pub(super) root: u32,
    pub(super) root_facts: Root,
    /// Segment in whose list it stands: never after its first unjudged span's.
    pub(super) listed: u32,
    /// Spans not judged yet, and their bytes.
    pub(super) unjudged: u32,
    pub(super) unjudged_bytes: u32,
    /// Bytes of the spans that came since it is in memory and do not wait; stops at 4 GiB.
    pub(super) bytes: u32,
    pub(super) due: Tick,
    /// When it was opened, or last re-opened; by a former life of the process: when this one began, since
    /// only from then on stragglers could come.
    pub(super) opened: Tick,
    /// Oldest span not judged yet, while there are any.
    pub(super) first_unjudged: Position,
    /// The end of the last snapshot that was judged: what lies before it is not judged a second time when the
    /// log is read again.
    pub(super) through: Position,
    pub(super) summary: Summary,
    /// Of the last verdict: arrival clock, Unix milliseconds.
    pub(super) judged_ms: u64,
    /// Which dropped it, under which generation of policies.
    pub(super) dropped_by: (PolicyId, Generation),
    /// Something of it has left.
    pub(super) departed: Option<Box<Departed>>,
    /// All zero: none.
    lesson: Lesson,
}

impl Entry {
    pub(super) fn open(key: Key, generation: Generation) -> Self {
        Self {
            key,
            state: State::Open,
            judging: false,
            root_seen: false,
            head: refs::NONE,
            root: refs::NONE,
            root_facts: Root::default(),
            listed: 0,
            unjudged: 0,
            unjudged_bytes: 0,
            bytes: 0,
            due: Tick::default(),
            opened: Tick::default(),
            first_unjudged: Position::default(),
            through: Position::default(),
            summary: Summary::of(generation),
            judged_ms: 0,
            dropped_by: (PolicyId::NONE, Generation::MIXED),
            departed: None,
            lesson: NO_LESSON,
        }
    }

    /// What a remembered trace becomes when a span of it comes.
    pub(super) fn recall(&mut self, remembered: Remembered) {
        self.state = remembered.state;
        self.judged_ms = remembered.judged_ms;
        self.through = remembered.through;
        self.departed = remembered.sent.map(|sent| {
            let units = remembered.units.into_vec();
            Box::new(Departed { last: sent, units, all_before: remembered.through })
        });
    }

    /// As it would be remembered.
    pub(super) fn remembered(&self) -> Remembered {
        let departed = self.departed.as_deref();
        Remembered {
            key: self.key,
            state: self.state,
            sent: departed.map(|departed| departed.last.clone()),
            units: departed.map(|departed| departed.units.as_slice()).unwrap_or_default().into(),
            judged_ms: self.judged_ms,
            through: self.through,
        }
    }

    /// The verdict no longer holds: units are judged from now on. The randomness of the trace stays.
    pub(super) fn begin_stream(&mut self) {
        self.state = State::Stream;
        self.root_seen = false;
        self.root = refs::NONE;
        self.lesson = NO_LESSON;
    }

    pub(super) fn lesson(&self) -> Option<Lesson> {
        (self.lesson != NO_LESSON).then_some(self.lesson)
    }

    pub(super) fn learn(&mut self, lesson: Option<Lesson>) {
        self.lesson = lesson.unwrap_or(NO_LESSON);
    }

    /// What it costs in memory beside its spans.
    pub(super) fn memory_bytes(&self) -> usize {
        super::TRACE_BYTES + self.departed.as_deref().map_or(0, Departed::bytes)
    }

    /// All spans before this have left.
    pub(super) fn all_before(&self) -> Position {
        self.departed.as_deref().map_or(Position::default(), |departed| departed.all_before)
    }

    /// Some of its spans have left and others not: the summary is not that of what can still leave.
    pub(super) fn divided(&self) -> bool {
        self.state != State::Kept && self.departed.is_some()
    }

    /// A restart must know of it: without that it would judge again what has left.
    pub(super) fn outlives_a_restart(&self) -> bool {
        self.departed.is_some() || self.state == State::Stream
    }

    /// It is remembered when its last span has left the log.
    pub(super) fn outlives_its_spans(&self) -> bool {
        life::on_forgotten(self.state, self.departed.is_some())
    }

    /// Which policy dropped it, or a unit of it last, and under which generation.
    pub(super) fn last_drop(&self) -> Option<(PolicyId, Generation)> {
        let has_dropped = match self.state {
            State::Dropped => true,
            State::Stream => self.dropped_by.1 != Generation::MIXED,
            State::Open | State::Kept => false,
        };
        has_dropped.then_some(self.dropped_by)
    }

    /// The policy that dropped it, if it would still be asked.
    pub(super) fn dropped_by(&self, generation: Generation) -> Option<PolicyId> {
        let (policy, under) = self.dropped_by;
        (self.state == State::Dropped && under == generation).then_some(policy)
    }
}
