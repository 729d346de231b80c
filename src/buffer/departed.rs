//! What a trace owns once something of it has left: the verdict that speaks for it and, if it is judged by
//! units, the verdicts by which they left.
//!
//! The list is short: units that one judgement keeps by one verdict share a place in it, and a reference to a
//! span names that place in eight spare bits. When all places are taken the oldest verdict gives its own up;
//! what comes below its units is judged for itself then.

use std::sync::Arc;

use crate::trace::{Position, Threshold, WeightRule};

/// The verdict by which spans of a trace were sent, and by which those that follow will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// By name: the list of policies may have changed since.
    pub policy: Arc<str>,
    pub threshold: Threshold,
    /// Of the spans that follow.
    pub rule: WeightRule,
}

/// A verdict by which units of a stream left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentUnit {
    pub sent: Sent,
    /// When it was made: arrival clock, Unix milliseconds.
    pub when_ms: u64,
}

/// How a span of a stream has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// It has not, unless all before it have.
    None,
    /// By its unit's verdict, or below a kept unit: what comes below it follows the verdict of this number.
    Unit(UnitNumber),
    /// So that others can be read in their place: nothing follows it.
    Alone,
}

/// A place in a stream's list of verdicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnitNumber(u8);

/// Places in the list.
pub const UNITS_MAX: usize = 254;

impl UnitNumber {
    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }

    /// Of the list, if it is as long.
    pub fn of(self, units: &[SentUnit]) -> Option<&SentUnit> {
        units.get(usize::from(self.0))
    }
}

impl Mark {
    pub(super) const fn to_bits(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Unit(UnitNumber(number)) => number + 1,
            Self::Alone => u8::MAX,
        }
    }

    pub(super) const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::None,
            u8::MAX => Self::Alone,
            number => Self::Unit(UnitNumber(number - 1)),
        }
    }
}

/// See the module. Boxed in the entry: most traces leave nothing.
#[derive(Debug)]
pub(super) struct Departed {
    /// The verdict of the trace, or of the unit that a stream kept last.
    pub(super) last: Sent,
    pub(super) units: Vec<SentUnit>,
    /// All spans before this have left, whatever their marks say.
    pub(super) all_before: Position,
}

/// A place for a new verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) number: UnitNumber,
    /// It belonged to another verdict: spans that name it must forget that.
    pub(super) taken: bool,
}

impl Departed {
    pub(super) fn new(last: Sent) -> Self {
        Self { last, units: Vec::new(), all_before: Position::default() }
    }

    /// What it costs in memory.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + 16 + self.units.capacity() * size_of::<SentUnit>()
    }

    /// All of the trace before `through` has left by one verdict.
    pub(super) fn all_left(&mut self, sent: Sent, through: Position) {
        self.last = sent;
        self.units = Vec::new();
        self.all_before = through;
    }

    /// A place for units that leave now by this verdict.
    pub(super) fn place(&mut self, sent: &Sent, when_ms: u64) -> Place {
        let unit = SentUnit { sent: sent.clone(), when_ms };
        let index = match self.units.iter().position(|known| *known == unit) {
            Some(known) => return Place { number: UnitNumber(known as u8), taken: false },
            None if self.units.len() < UNITS_MAX => self.units.len(),
            None => self.oldest(),
        };
        let taken = index < self.units.len();
        if taken {
            self.units[index] = unit;
        } else {
            self.units.push(unit);
        }
        Place { number: UnitNumber(index as u8), taken }
    }

    fn oldest(&self) -> usize {
        let by_age = self.units.iter().enumerate().min_by_key(|(_, unit)| unit.when_ms);
        by_age.map_or(0, |(index, _)| index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(policy: &str) -> Sent {
        Sent { policy: policy.into(), threshold: Threshold(0), rule: WeightRule::Threshold }
    }

    #[test]
    fn a_mark_survives_its_bits() {
        for bits in 0..=u8::MAX {
            assert_eq!(Mark::from_bits(bits).to_bits(), bits);
        }
    }

    #[test]
    fn units_that_leave_together_by_one_verdict_share_a_place() {
        let mut departed = Departed::new(sent("a"));
        let first = departed.place(&sent("a"), 1).number;
        assert_eq!(departed.place(&sent("a"), 1).number, first);
        assert_ne!(departed.place(&sent("b"), 1).number, first);
        assert_ne!(departed.place(&sent("a"), 2).number, first);
        assert_eq!(departed.units.len(), 3);
        assert_eq!(first.of(&departed.units).map(|unit| unit.when_ms), Some(1));
    }

    #[test]
    fn the_oldest_verdict_gives_its_place_up() {
        let mut departed = Departed::new(sent("a"));
        let places: Vec<Place> =
            (0..UNITS_MAX as u64).map(|at| departed.place(&sent("a"), 10 + at)).collect();
        assert!(places.iter().all(|place| !place.taken));
        let place = departed.place(&sent("b"), 1000);
        assert_eq!(place, Place { number: places[0].number, taken: true });
        assert_eq!(departed.units.len(), UNITS_MAX);
    }
}
