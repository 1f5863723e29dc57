//! What an entity depends on and what depends on it, over a bounded number of steps.

use std::collections::BTreeMap;

use wardroom_domain::Entity;
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
        Self {
            dependencies: Self::dependencies_of(entity, graph),
            dependents: graph.dependents(entity, MAX_HOPS, MAX_ENTITIES).into_iter().collect(),
        }
    }

    /// Returns what an entity depends on.
    pub(crate) fn dependencies_of(entity: &Entity, graph: &EntityGraph) -> BTreeMap<Entity, u32> {
        graph.dependencies(entity, MAX_HOPS, MAX_ENTITIES).into_iter().collect()
    }
}
