//! Limits of the graph of entities.

/// Limits of an [`EntityGraph`](crate::EntityGraph).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GraphLimits {
    /// Maximum number of entities; the one that was not seen for the longest time makes room.
    pub max_entities: usize,
    /// Maximum number of relations; further ones are not recorded.
    pub max_relations: usize,
    /// An entity that was not seen for this long is forgotten, in ms.
    pub max_age_ms: i64,
}

impl Default for GraphLimits {
    fn default() -> Self {
        Self { max_entities: 50_000, max_relations: 200_000, max_age_ms: 24 * 3_600_000 }
    }
}
