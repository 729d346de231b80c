//! Who is whose parent, child, sibling, ancestor or descendant.
//!
//! Spans are joined by what they name as their parent, through one table of ids. A span that names itself has no
//! parent here. Spans that share an id are one place in the tree, below the parent that the first of them names. Places
//! that lie above each other in a circle have nothing above them but what their own spans name: a circle ends nothing and
//! never loops.
//!
//! Places are numbered so that all below one are a range, which makes every question a search in sorted numbers: a
//! question about k spans takes O(k log k), however deep or wide the trace is.

use hashbrown::HashMap;

use super::ast::{Form, Relation};
use crate::sampler::unit::UnitSpan;
use crate::trace::SpanId;

const NONE: u32 = u32::MAX;

/// The places of the spans of a unit.
pub(crate) struct Family {
    /// By span.
    places: Vec<Place>,
    /// By id: those that spans have and those that they name as parents.
    ids: Vec<Id>,
}

/// Where a span stands: numbers of ids.
#[derive(Clone, Copy)]
struct Place {
    own: u32,
    parent: u32,
}

/// What lies below an id is numbered `enter + 1..=last`.
struct Id {
    enter: u32,
    last: u32,
    /// The first span that has it.
    span: u32,
    /// Spans that name it as their parent.
    children: u32,
}

impl Family {
    /// Of all `spans`; only the `distinct` ones are counted.
    pub(crate) fn new(spans: &[UnitSpan<'_>], distinct: &[u32]) -> Self {
        let mut numbers: HashMap<SpanId, u32, foldhash::fast::RandomState> = HashMap::default();
        let mut number = |id: SpanId| {
            let next = numbers.len() as u32;
            *numbers.entry(id).or_insert(next)
        };
        let places: Vec<Place> = spans
            .iter()
            .map(|UnitSpan { span, .. }| {
                let own = span.span_id();
                let parent = span.parent().filter(|parent| *parent != own);
                Place { own: number(own), parent: parent.map_or(NONE, &mut number) }
            })
            .collect();
        let count = numbers.len();
        let mut up = vec![NONE; count];
        let mut ids: Vec<Id> =
            (0..count).map(|_| Id { enter: 0, last: 0, span: NONE, children: 0 }).collect();
        for &span in distinct {
            let Place { own, parent } = places[span as usize];
            let id = &mut ids[own as usize];
            id.span = id.span.min(span);
            if parent != NONE {
                ids[parent as usize].children += 1;
                let above = &mut up[own as usize];
                *above = if *above == NONE { parent } else { *above };
            }
        }
        number_below(&mut up, &mut ids);
        Self { places, ids }
    }

    /// How many spans name it as their parent.
    pub(crate) fn children(&self, span: u32) -> u32 {
        self.ids[self.places[span as usize].own as usize].children
    }

    /// The span that it names as its parent.
    pub(crate) fn parent(&self, span: u32) -> Option<u32> {
        let id = self.ids.get(self.places[span as usize].parent as usize)?;
        (id.span != NONE).then_some(id.span)
    }

    /// What the operator selects of two ascending lists of spans, ascending.
    pub(crate) fn related(&self, relation: Relation, form: Form, left: &[u32], right: &[u32]) -> Vec<u32> {
        let mut found = self.with_partner(relation, right, left, form != Form::Negated);
        if form == Form::Union {
            found.extend(self.with_partner(relation.inverse(), left, right, true));
            found.sort_unstable();
            found.dedup();
        }
        found
    }

    /// The `spans` that stand so to one of the `others`; or, if not `wanted`, to none.
    fn with_partner(&self, relation: Relation, spans: &[u32], others: &[u32], wanted: bool) -> Vec<u32> {
        let partners = Partners::new(self, relation, others);
        spans.iter().copied().filter(|span| partners.has(self, *span) == wanted).collect()
    }

    fn own(&self, span: u32) -> u32 {
        self.places[span as usize].own
    }

    fn above(&self, span: u32) -> Option<u32> {
        let parent = self.places[span as usize].parent;
        (parent != NONE).then_some(parent)
    }
}

impl Relation {
    fn inverse(self) -> Self {
        match self {
            Self::Child => Self::Parent,
            Self::Parent => Self::Child,
            Self::Descendant => Self::Ancestor,
            Self::Ancestor => Self::Descendant,
            Self::Sibling => Self::Sibling,
        }
    }
}

/// Spans, arranged for one question about others.
enum Partners<'a> {
    /// Their ids, sorted: asked for parents.
    Own(Vec<u32>),
    /// The ids above them, sorted: asked for children.
    Above(Vec<u32>),
    /// The ranges they cover, by their begin, each reaching as far as any that begins before it: asked for ancestors.
    Cover(Vec<(u32, u32)>),
    /// The numbers of what lies above them, sorted: asked for descendants.
    Entered(Vec<u32>),
    /// The spans, and the ids above them, sorted with repetition.
    Beside(&'a [u32], Vec<u32>),
}

impl<'a> Partners<'a> {
    fn new(family: &Family, relation: Relation, others: &'a [u32]) -> Self {
        let above = || sorted(others.iter().filter_map(|span| family.above(*span)).collect());
        match relation {
            Relation::Child => Self::Own(sorted(others.iter().map(|span| family.own(*span)).collect())),
            Relation::Parent => Self::Above(above()),
            Relation::Descendant => Self::Cover(cover(family, others)),
            Relation::Ancestor => {
                let entered = above().into_iter().map(|id| family.ids[id as usize].enter).collect();
                Self::Entered(sorted(entered))
            }
            Relation::Sibling => Self::Beside(others, above()),
        }
    }

    fn has(&self, family: &Family, span: u32) -> bool {
        match self {
            Self::Own(ids) => family.above(span).is_some_and(|id| ids.binary_search(&id).is_ok()),
            Self::Above(ids) => ids.binary_search(&family.own(span)).is_ok(),
            Self::Cover(ranges) => family.above(span).is_some_and(|id| {
                let entered = family.ids[id as usize].enter;
                let begun = ranges.partition_point(|(enter, _)| *enter <= entered);
                begun > 0 && ranges[begun - 1].1 >= entered
            }),
            Self::Entered(entered) => {
                let Id { enter, last, .. } = family.ids[family.own(span) as usize];
                let first = entered.partition_point(|entered| *entered < enter);
                entered.get(first).is_some_and(|entered| *entered <= last)
            }
            Self::Beside(others, ids) => family.above(span).is_some_and(|id| {
                let first = ids.partition_point(|other| *other < id);
                let count = ids[first..].partition_point(|other| *other == id);
                count > usize::from(others.binary_search(&span).is_ok())
            }),
        }
    }
}

fn cover(family: &Family, spans: &[u32]) -> Vec<(u32, u32)> {
    let range = |span: &u32| {
        let id = &family.ids[family.own(*span) as usize];
        (id.enter, id.last)
    };
    let mut ranges: Vec<(u32, u32)> = spans.iter().map(range).collect();
    ranges.sort_unstable();
    let mut reached = 0;
    for (_, last) in &mut ranges {
        reached = reached.max(*last);
        *last = reached;
    }
    ranges
}

fn sorted(mut numbers: Vec<u32>) -> Vec<u32> {
    numbers.sort_unstable();
    numbers
}

/// Numbers the ids so that all below one follow it, and takes away what is above the ids of a circle.
fn number_below(up: &mut [u32], ids: &mut [Id]) {
    let leaves_first = peeled(up);
    let mut size = vec![1; up.len()];
    for &id in &leaves_first {
        let above = up[id as usize];
        if above != NONE {
            size[above as usize] += size[id as usize];
        }
    }
    let mut free = vec![0; up.len()];
    let mut free_at_top = 0;
    for &id in leaves_first.iter().rev() {
        let id = id as usize;
        let cursor = match up[id] {
            NONE => &mut free_at_top,
            above => &mut free[above as usize],
        };
        let enter = *cursor;
        *cursor += size[id];
        free[id] = enter + 1;
        ids[id].enter = enter;
        ids[id].last = enter + size[id] - 1;
    }
}

/// The ids in an order that has what is below before what is above. What remains when leaf after leaf is taken lies on
/// circles: those ids come last, with nothing above them.
fn peeled(up: &mut [u32]) -> Vec<u32> {
    let mut below = vec![0_u32; up.len()];
    up.iter().filter(|above| **above != NONE).for_each(|above| below[*above as usize] += 1);
    let mut order: Vec<u32> = (0..up.len() as u32).filter(|id| below[*id as usize] == 0).collect();
    let mut next = 0;
    while let Some(&id) = order.get(next) {
        next += 1;
        let above = up[id as usize];
        if above != NONE {
            below[above as usize] -= 1;
            if below[above as usize] == 0 {
                order.push(above);
            }
        }
    }
    for id in 0..up.len() {
        if below[id] > 0 {
            up[id] = NONE;
            order.push(id as u32);
        }
    }
    order
}
