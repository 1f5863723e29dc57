//! Paths along which a fault shows: from a dependent to what it depends on.

use std::collections::{BTreeSet, VecDeque};

use wardroom_domain::{Entity, RelationKind};

use super::store::{Id, Store};

/// Maximum number of entities that a search visits.
const MAX_VISITED: usize = 50_000;
/// Maximum number of relations to a dependency that makes two entities connected.
const MAX_HOPS_TO_COMMON: u32 = 3;

pub(super) fn path(store: &Store, from: &Entity, to: &Entity) -> Option<u32> {
    if from == to {
        return Some(0);
    }
    let (from, to) = (store.resolve_canonical(from)?, store.resolve_canonical(to)?);
    search(store, from, u32::MAX, |id| id == to)
}

pub(super) fn connected(store: &Store, a: &Entity, b: &Entity) -> bool {
    if a == b {
        return true;
    }
    let (Some(a), Some(b)) = (store.resolve_canonical(a), store.resolve_canonical(b)) else { return false };
    if search(store, a, u32::MAX, |id| id == b).is_some() || search(store, b, u32::MAX, |id| id == a).is_some() {
        return true;
    }
    let mut dependencies = BTreeSet::new();
    search(store, a, MAX_HOPS_TO_COMMON, |id| {
        dependencies.insert(id);
        false
    });
    search(store, b, MAX_HOPS_TO_COMMON, |id| dependencies.contains(&id)).is_some()
}

/// Visits an entity and what it depends on, nearest first, until one is accepted; returns the number of relations to
/// it.
fn search(store: &Store, from: Id, max_hops: u32, mut accept: impl FnMut(Id) -> bool) -> Option<u32> {
    let mut visited = BTreeSet::from([from]);
    // With each entity, whether it was reached as the whole of a part: its other parts do not matter then.
    let mut queue = VecDeque::from([(from, 0, false)]);
    while let Some((id, hops, is_whole)) = queue.pop_front() {
        if accept(id) {
            return Some(hops);
        }
        if hops >= max_hops || visited.len() >= MAX_VISITED {
            continue;
        }
        for member in store.members(id) {
            let Some(node) = store.node(member) else { continue };
            let dependencies = node.out.iter().map(|(kind, to)| (*to, *kind == RelationKind::PartOf));
            // A fault of a part shows at the whole.
            let parts = node.inn.iter().filter(|(kind, _)| *kind == RelationKind::PartOf && !is_whole);
            for (next, as_whole) in dependencies.chain(parts.map(|(_, part)| (*part, false))) {
                let next = store.canonical_id(next);
                if visited.insert(next) {
                    queue.push_back((next, hops + 1, as_whole));
                }
            }
        }
    }
    None
}
