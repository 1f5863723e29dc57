//! What an entity depends on and what depends on it, within limits.

use std::collections::{BTreeSet, VecDeque};

use wardroom_domain::{Entity, RelationKind};

use super::store::{Id, Node, Store};

/// The direction of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// To what an entity depends on.
    Dependencies,
    /// To what depends on an entity.
    Dependents,
}

/// Searches breadth-first; returns canonical entities with the number of relations to them, nearest first. The fault of
/// a part shows at the whole and the other way round, but what was reached as the whole of a part does not lead to its
/// other parts. A step costs as much as the relations it follows, not as many as an entity has.
pub(super) fn around(
    store: &Store,
    entity: &Entity,
    direction: Direction,
    max_hops: u32,
    max_entities: usize,
) -> Vec<(Entity, u32)> {
    let Some(start) = store.resolve_canonical(entity) else { return Vec::new() };
    let mut visited = BTreeSet::from([start]);
    let mut queue = VecDeque::from([(start, 0, false)]);
    let mut found = Vec::new();
    while let Some((id, hops, is_whole)) = queue.pop_front() {
        if hops >= max_hops {
            break;
        }
        for node in store.members(id).into_iter().filter_map(|member| store.node(member)) {
            for (next, as_whole) in steps(node, direction, is_whole) {
                if found.len() >= max_entities {
                    return found;
                }
                let next = store.canonical_id(next);
                if visited.insert(next)
                    && let Some(node) = store.node(next)
                {
                    found.push((node.entity.clone(), hops + 1));
                    queue.push_back((next, hops + 1, as_whole));
                }
            }
        }
    }
    found
}

/// The entities one relation away, each with whether it is reached as the whole of a part.
fn steps(node: &Node, direction: Direction, is_whole: bool) -> Box<dyn Iterator<Item = (Id, bool)> + '_> {
    let parts = (RelationKind::PartOf, Id::MIN)..=(RelationKind::PartOf, Id::MAX);
    match direction {
        Direction::Dependencies => {
            let direct = node.out.iter().map(|(kind, to)| (*to, *kind == RelationKind::PartOf));
            let parts = node.inn.range(parts).filter(move |_| !is_whole).map(|(_, part)| (*part, false));
            Box::new(direct.chain(parts))
        }
        Direction::Dependents => {
            let is_other_part = move |kind: RelationKind| is_whole && kind == RelationKind::PartOf;
            let direct = node.inn.iter().filter(move |(kind, _)| !is_other_part(*kind));
            let wholes = node.out.range(parts).map(|(_, whole)| (*whole, true));
            Box::new(direct.map(|(_, from)| (*from, false)).chain(wholes))
        }
    }
}
