//! The persisted form of the graph of entities.

use serde::{Deserialize, Serialize};
use wardroom_domain::{Entity, RelationKind};

/// What is kept of a graph: everything else follows from it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GraphState {
    /// Entities with their aliases and the time of their newest observation, in the order of those times.
    pub entities: Vec<(Entity, Vec<String>, i64)>,
    /// Relations by the indexes of their ends.
    pub relations: Vec<(u32, RelationKind, u32)>,
}
