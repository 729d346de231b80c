//! What a judgement reads of its spans: once, when a condition first needs it, and for all conditions.

use std::cell::OnceCell;
use std::collections::HashSet;

use super::structure::Family;
use crate::sampler::unit::{ReadSpans, Unit, UnitSpan};

/// A unit that policies are asked about, and what was read of it so far.
pub(crate) struct Asked<'u> {
    pub(crate) unit: &'u Unit<'u>,
    table: OnceCell<SpanTable<'u>>,
    new: OnceCell<Option<Box<Self>>>,
}

impl<'u> Asked<'u> {
    pub(crate) fn new(unit: &'u Unit<'u>) -> Self {
        Self { unit, table: OnceCell::new(), new: OnceCell::new() }
    }

    /// The same unit, of which only the spans are read that came since these policies dropped it. None: it is not judged
    /// again, or not by them.
    pub(crate) fn new_alone(&self) -> Option<&Self> {
        self.unit.dropped_by?;
        let read = || {
            let table = SpanTable::of(self.unit.spans.read_new()?);
            Some(Box::new(Self { table: OnceCell::from(table), ..Self::new(self.unit) }))
        };
        self.new.get_or_init(read).as_deref()
    }

    pub(crate) fn table(&self) -> &SpanTable<'u> {
        self.table.get_or_init(|| SpanTable::of(self.unit.spans.read()))
    }
}

/// The spans of a unit, as far as they were read, each with a number.
#[derive(Default)]
pub(crate) struct SpanTable<'u> {
    pub(crate) spans: Vec<UnitSpan<'u>>,
    /// All spans of the unit are there.
    pub(crate) complete: bool,
    distinct: OnceCell<Vec<u32>>,
    family: OnceCell<Family>,
}

impl<'u> SpanTable<'u> {
    fn of(read: ReadSpans<'u>) -> Self {
        Self { spans: read.spans, complete: read.complete, ..Self::default() }
    }

    /// One span, whose relatives are not asked for.
    pub(crate) fn of_one(span: UnitSpan<'u>) -> Self {
        Self { spans: vec![span], complete: true, ..Self::default() }
    }
}

impl SpanTable<'_> {
    pub(crate) fn numbers(&self) -> std::ops::Range<u32> {
        0..self.spans.len() as u32
    }

    /// The spans in ascending order, of those that are the same byte by byte only one: senders repeat themselves.
    pub(crate) fn distinct(&self) -> &[u32] {
        self.distinct.get_or_init(|| {
            let mut seen: HashSet<&[u8], foldhash::fast::RandomState> = HashSet::default();
            let is_new = |number: &u32| seen.insert(self.spans[*number as usize].span.as_bytes());
            self.numbers().filter(is_new).collect()
        })
    }

    pub(crate) fn family(&self) -> &Family {
        self.family.get_or_init(|| Family::new(&self.spans, self.distinct()))
    }
}
