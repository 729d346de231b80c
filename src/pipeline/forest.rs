//! How the spans that one judgement looks at hang together: one table of identifiers, the units among the
//! new ones, and what stands above and below them.
//!
//! Spans may share an identifier, miss their parent or be each other's parents: whatever senders do, each new
//! span belongs to exactly one unit, and every walk ends.

use std::collections::HashMap;

use crate::trace::SpanId;

/// What a span is to the judgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It came since the trace was opened, or re-opened.
    New,
    /// It was judged before and has not left.
    Unsent,
    /// It has left.
    Sent,
}

/// A span, as far as structure goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub(super) id: SpanId,
    pub(super) parent: Option<SpanId>,
    pub(super) standing: Standing,
}

/// New spans that are judged together: a local root with all below it. Without a root they are each other's
/// parents, or below such.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) root: Option<usize>,
    pub(super) members: Vec<usize>,
}

const NONE: u32 = u32::MAX;

/// A node and its links: identifiers are numbered, nodes chained by their own and by their parent's number.
#[derive(Debug)]
struct Linked {
    standing: Standing,
    /// Number of its identifier, and of its parent's if a node has that.
    id: u32,
    parent: u32,
    /// The next node of the same identifier, and of the same parent.
    same: u32,
    sibling: u32,
}

/// See the module. Nodes keep the numbers in which they were given.
#[derive(Debug, Default)]
pub(super) struct Forest {
    nodes: Vec<Linked>,
    /// First node of an identifier, and first child below it.
    first: Vec<u32>,
    child: Vec<u32>,
}

impl Forest {
    /// The nodes stand in the order of the log.
    pub(super) fn new(nodes: &[Node]) -> Self {
        let mut ids: HashMap<SpanId, u32, foldhash::fast::RandomState> = HashMap::default();
        for node in nodes {
            let next = ids.len() as u32;
            ids.entry(node.id).or_insert(next);
        }
        let mut forest = Self {
            nodes: Vec::with_capacity(nodes.len()),
            first: vec![NONE; ids.len()],
            child: vec![NONE; ids.len()],
        };
        for node in nodes {
            let parent = node.parent.and_then(|parent| ids.get(&parent).copied()).unwrap_or(NONE);
            let standing = node.standing;
            forest.nodes.push(Linked { standing, id: ids[&node.id], parent, same: NONE, sibling: NONE });
        }
        // Backwards, so that chains are in the order of the log.
        for number in (0..forest.nodes.len()).rev() {
            let Linked { id, parent, .. } = forest.nodes[number];
            forest.nodes[number].same = std::mem::replace(&mut forest.first[id as usize], number as u32);
            if parent != NONE {
                let child = &mut forest.child[parent as usize];
                forest.nodes[number].sibling = std::mem::replace(child, number as u32);
            }
        }
        forest
    }

    pub(super) fn standing(&self, node: usize) -> Standing {
        self.nodes[node].standing
    }

    /// The spans that a span names as its parent.
    pub(super) fn parents(&self, node: usize) -> impl Iterator<Item = usize> {
        let parent = self.nodes[node].parent;
        let first = if parent == NONE { NONE } else { self.first[parent as usize] };
        self.chain(first, |linked| linked.same)
    }

    /// The spans that name this one as their parent.
    pub(super) fn children(&self, node: usize) -> impl Iterator<Item = usize> {
        self.chain(self.child[self.nodes[node].id as usize], |linked| linked.sibling)
    }

    fn chain(&self, first: u32, next: fn(&Linked) -> u32) -> impl Iterator<Item = usize> {
        let found = |number: u32| (number != NONE).then_some(number as usize);
        std::iter::successors(found(first), move |number| found(next(&self.nodes[*number])))
    }

    /// The units among the new spans, by their first span.
    pub(super) fn units(&self) -> Vec<Shape> {
        let mut unit_of = vec![NONE; self.nodes.len()];
        let mut units: Vec<Shape> = Vec::new();
        let mut path = Vec::new();
        let mut on_path = vec![false; self.nodes.len()];
        for start in (0..self.nodes.len()).filter(|number| self.standing(*number) == Standing::New) {
            let mut at = start;
            let unit = loop {
                if unit_of[at] != NONE {
                    break unit_of[at];
                }
                path.push(at);
                on_path[at] = true;
                let root = match self.parents(at).find(|parent| self.standing(*parent) == Standing::New) {
                    Some(parent) if !on_path[parent] => {
                        at = parent;
                        continue;
                    }
                    Some(_) => None,
                    None => Some(at),
                };
                units.push(Shape { root, members: Vec::new() });
                break units.len() as u32 - 1;
            };
            for node in path.drain(..) {
                on_path[node] = false;
                unit_of[node] = unit;
            }
        }
        for (node, unit) in unit_of.iter().enumerate().filter(|(_, unit)| **unit != NONE) {
            units[*unit as usize].members.push(node);
        }
        units
    }
}

/// Walks over a forest that visit each span once, however many begin.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    forest: &'a Forest,
    visited: Vec<bool>,
}

impl<'a> Walk<'a> {
    pub(super) fn over(forest: &'a Forest) -> Self {
        Self { forest, visited: vec![false; forest.nodes.len()] }
    }

    /// What stands above a span and no walk has visited yet.
    pub(super) fn above(&mut self, node: usize) -> Vec<usize> {
        self.from(node, |forest, node, out| out.extend(forest.parents(node)))
    }

    /// What stands below a span and no walk has visited yet.
    pub(super) fn below(&mut self, node: usize) -> Vec<usize> {
        self.from(node, |forest, node, out| out.extend(forest.children(node)))
    }

    fn from(&mut self, node: usize, next: fn(&Forest, usize, &mut Vec<usize>)) -> Vec<usize> {
        let (mut found, mut open) = (Vec::new(), Vec::new());
        next(self.forest, node, &mut open);
        while let Some(node) = open.pop() {
            if !std::mem::replace(&mut self.visited[node], true) {
                found.push(node);
                next(self.forest, node, &mut open);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Standing::{New, Sent, Unsent};

    fn forest(nodes: &[(u8, u8, Standing)]) -> Forest {
        let id = |n: u8| SpanId([n; 8]);
        let node = |&(n, parent, standing): &(u8, u8, Standing)| Node {
            id: id(n),
            parent: (parent != 0).then(|| id(parent)),
            standing,
        };
        Forest::new(&nodes.iter().map(node).collect::<Vec<_>>())
    }

    fn shapes(nodes: &[(u8, u8, Standing)]) -> Vec<(Option<usize>, Vec<usize>)> {
        forest(nodes).units().into_iter().map(|shape| (shape.root, shape.members)).collect()
    }

    #[test]
    fn a_span_whose_parent_is_not_among_the_new_ones_starts_a_unit() {
        let nodes = [(2, 1, New), (4, 1, New), (3, 2, New), (5, 4, New), (6, 5, New)];
        assert_eq!(shapes(&nodes), [(Some(0), vec![0, 2]), (Some(1), vec![1, 3, 4])]);
        let below_an_old_one = [(2, 1, Unsent), (3, 2, New), (4, 3, Sent), (5, 4, New)];
        assert_eq!(shapes(&below_an_old_one), [(Some(1), vec![1]), (Some(3), vec![3])]);
    }

    #[test]
    fn a_child_that_came_before_its_parent_belongs_to_it() {
        assert_eq!(shapes(&[(3, 2, New), (2, 1, New)]), [(Some(1), vec![0, 1])]);
    }

    #[test]
    fn spans_that_are_each_others_parents_are_one_unit_without_a_root() {
        let nodes = [(1, 2, New), (2, 1, New), (3, 2, New), (7, 7, New)];
        assert_eq!(shapes(&nodes), [(None, vec![0, 1, 2]), (None, vec![3])]);
    }

    #[test]
    fn spans_of_one_identifier_are_told_apart() {
        let nodes = [(2, 1, Sent), (2, 1, New), (3, 2, New)];
        assert_eq!(shapes(&nodes), [(Some(1), vec![1, 2])]);
        let forest = forest(&nodes);
        assert_eq!(forest.parents(2).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(forest.children(0).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn walks_go_up_and_down_and_visit_each_span_once() {
        let nodes =
            [(1, 0, Unsent), (2, 1, Unsent), (3, 2, New), (4, 3, Unsent), (5, 4, Sent), (6, 2, Unsent)];
        let forest = forest(&nodes);
        assert_eq!(Walk::over(&forest).above(2), [1, 0]);
        let mut down = Walk::over(&forest);
        assert_eq!(down.below(2), [3, 4]);
        assert_eq!(down.below(1), [5, 2], "what was visited is not visited again");
    }

    #[test]
    fn a_walk_in_a_circle_ends() {
        let forest = forest(&[(1, 2, New), (2, 1, New)]);
        assert_eq!(Walk::over(&forest).below(0).len(), 2);
    }

    #[test]
    fn a_long_chain_is_one_unit() {
        let nodes: Vec<Node> = (1..200_000_u64)
            .map(|n| Node {
                id: SpanId(n.to_be_bytes()),
                parent: Some(SpanId((n + 1).to_be_bytes())),
                standing: New,
            })
            .collect();
        let units = Forest::new(&nodes).units();
        assert_eq!((units.len(), units[0].root, units[0].members.len()), (1, Some(199_998), 199_999));
    }
}
