//! What an entity depends on and what depends on it, over a bounded number of steps.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use wardroom_domain::{Entity, RelationKind};
use wardroom_signals::EntityGraph;

/// Maximum number of relations between a cause and its symptom.
const MAX_HOPS: u32 = 8;
/// Maximum number of entities found in each direction, so that a finding costs little in a graph of any size.
const MAX_ENTITIES: usize = 1000;

/// The entities around one, with their distances in relations.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    /// What it depends on: their faults may show at it.
    pub(crate) dependencies: BTreeMap<Entity, u32>,
    /// What depends on it: its faults may show at them.
    pub(crate) dependents: BTreeMap<Entity, u32>,
}

impl Reach {
    /// Searches the graph around an entity in its canonical form.
    pub(crate) fn of(entity: &Entity, graph: &EntityGraph) -> Self {
        // The fault of a part, such as a file system, shows at the whole, and the other way round. But what was reached
        // as the whole of a part does not lead to its other parts.
        let is_part_of = |kind: RelationKind| kind == RelationKind::PartOf;
        let dependencies = search(entity, |at, is_whole| {
            let direct = graph.relations_from(at).into_iter().map(|(kind, to)| (to, is_part_of(kind)));
            let parts = graph.relations_to(at).into_iter().filter(|(kind, _)| is_part_of(*kind) && !is_whole);
            direct.chain(parts.map(|(_, part)| (part, false))).collect()
        });
        let dependents = search(entity, |at, is_whole| {
            let direct = graph.relations_to(at).into_iter().filter(|(kind, _)| !(is_whole && is_part_of(*kind)));
            let wholes = graph.relations_from(at).into_iter().filter(|(kind, _)| is_part_of(*kind));
            direct.map(|(_, from)| (from, false)).chain(wholes.map(|(_, whole)| (whole, true))).collect()
        });
        Self { dependencies, dependents }
    }
}

/// Breadth-first search; returns what was found with its distance. `neighbours` is asked with an entity and whether it
/// was reached as the whole of a part, and answers the same.
fn search(start: &Entity, neighbours: impl Fn(&Entity, bool) -> BTreeSet<(Entity, bool)>) -> BTreeMap<Entity, u32> {
    let mut found = BTreeMap::new();
    let mut queue = VecDeque::from([(start.clone(), false, 0)]);
    while let Some((at, is_whole, hops)) = queue.pop_front() {
        if hops >= MAX_HOPS {
            break;
        }
        // Ordered, so that equal graphs give equal results at the limit.
        for (entity, as_whole) in neighbours(&at, is_whole) {
            if found.len() >= MAX_ENTITIES {
                return found;
            }
            if entity != *start && !found.contains_key(&entity) {
                found.insert(entity.clone(), hops + 1);
                queue.push_back((entity, as_whole, hops + 1));
            }
        }
    }
    found
}
