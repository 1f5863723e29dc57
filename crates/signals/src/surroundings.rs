//! The entities around some others, with the relations between them.

use std::collections::{BTreeSet, VecDeque};

use wardroom_domain::{Entity, Relation, RelationKind};

use crate::graph::EntityGraph;

/// Entities and the relations between them, by canonical names.
pub struct Surroundings {
    /// The entities, those where the search began included.
    pub entities: BTreeSet<Entity>,
    /// The relations that were followed.
    pub relations: Vec<Relation>,
}

/// Follows relations from some canonical entities: at most `down` to what they depend on, and at most `up` to what
/// depends on them. No further relations are followed once there are `max_entities`.
pub fn surroundings(
    graph: &EntityGraph,
    starts: BTreeSet<Entity>,
    down: u32,
    up: u32,
    max_entities: usize,
) -> Surroundings {
    let mut entities: BTreeSet<Entity> = starts.clone();
    let mut relations = BTreeSet::new();
    let mut queue: VecDeque<(Entity, u32, u32)> = starts.into_iter().map(|entity| (entity, down, up)).collect();
    while let Some((entity, down, up)) = queue.pop_front() {
        if entities.len() >= max_entities {
            break;
        }
        let outgoing = graph.relations_from(&entity).into_iter().map(|(kind, other)| (kind, other, true));
        let incoming = graph.relations_to(&entity).into_iter().map(|(kind, other)| (kind, other, false));
        for (kind, other, is_outgoing) in outgoing.chain(incoming) {
            let other = graph.canonical(&other);
            if other == entity {
                continue;
            }
            // The fault of a part shows at the whole, so parts are looked at like dependencies.
            let is_dependency = is_outgoing != (kind == RelationKind::PartOf);
            if (is_dependency && down == 0) || (!is_dependency && up == 0) {
                continue;
            }
            let (from, to) =
                if is_outgoing { (entity.clone(), other.clone()) } else { (other.clone(), entity.clone()) };
            relations.insert(Relation { from, kind, to });
            if entities.insert(other.clone()) {
                let (down, up) = if is_dependency { (down - 1, up) } else { (down, up - 1) };
                queue.push_back((other, down, up));
            }
        }
    }
    Surroundings { entities, relations: relations.into_iter().collect() }
}
