//! The entities that telemetry names, which of them are one thing under several names, and how they depend on each
//! other.
//!
//! ```text
//! observe(entity, aliases, relations) ──► names: key → entities that have it ──► canonical(entity)
//!                                    └──► edges: calls, uses, runs-on, part-of ──► path, connected
//! ```
//!
//! An entity is known under its name and its aliases: addresses, DNS names, pods. Entities of a common name are one if
//! their kinds allow it and cluster, environment and namespace do not differ; where a name could mean two things, it
//! joins neither. Everything is kept incrementally: a new entity is compared with the few that share one of its names.

mod around;
mod identity;
mod limits;
mod paths;
mod state;
mod store;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use wardroom_domain::{Entity, Relation, RelationKind};

pub use limits::GraphLimits;
pub use state::GraphState;
use store::Store;

/// A graph of entities. Clones are handles of the same graph, so that readers need no other lock.
#[derive(Clone, Debug, Default)]
pub struct EntityGraph {
    store: Arc<RwLock<Store>>,
}

impl EntityGraph {
    /// Creates an empty graph. Each of `declared` lists names of one thing, the best known first.
    pub fn new(limits: GraphLimits, declared: &[Vec<String>]) -> Self {
        Self { store: Arc::new(RwLock::new(Store::new(limits, declared))) }
    }

    /// Records an entity, its further names and its relations, at a time in ms. Entities of relations are recorded as
    /// well.
    pub fn observe(&self, entity: &Entity, aliases: &[String], relations: &[Relation], at_ms: i64) {
        self.write().observe(entity, aliases, relations, at_ms);
    }

    /// Records that a known entity was seen at a time in ms. Costs one look-up.
    pub fn touch(&self, entity: &Entity, at_ms: i64) {
        self.write().touch(entity, at_ms);
    }

    /// Forgets what was not seen for [`GraphLimits::max_age_ms`] before a time in ms. Costs nothing if nothing is old.
    pub fn evict(&self, now_ms: i64) {
        self.write().evict(now_ms);
    }

    /// Returns the entity under its best known name: that of the service for an instance, that of the server for the
    /// address of a database.
    pub fn canonical(&self, entity: &Entity) -> Entity {
        let store = self.read();
        let known = store.resolve(entity).and_then(|id| store.node(store.canonical_id(id)));
        known.map_or_else(|| entity.clone(), |node| node.entity.clone())
    }

    /// Returns whether two entities are one.
    pub fn is_same(&self, a: &Entity, b: &Entity) -> bool {
        let store = self.read();
        a == b || store.resolve_canonical(a).is_some_and(|id| Some(id) == store.resolve_canonical(b))
    }

    /// Returns all entities that are one with an entity, itself included.
    pub fn members(&self, entity: &Entity) -> Vec<Entity> {
        let store = self.read();
        let Some(id) = store.resolve_canonical(entity) else { return vec![entity.clone()] };
        let members = store.members(id).into_iter().filter_map(|member| store.node(member));
        members.map(|node| node.entity.clone()).collect()
    }

    /// Returns what an entity depends on, by canonical names.
    pub fn relations_from(&self, entity: &Entity) -> Vec<(RelationKind, Entity)> {
        self.read().relations(entity, store::Side::From)
    }

    /// Returns what depends on an entity, by canonical names.
    pub fn relations_to(&self, entity: &Entity) -> Vec<(RelationKind, Entity)> {
        self.read().relations(entity, store::Side::To)
    }

    /// Returns what an entity depends on, directly or not: their faults may show at it. Canonical names with the number
    /// of relations to them, nearest first; at most `max_entities`, at most `max_hops` relations away.
    pub fn dependencies(&self, entity: &Entity, max_hops: u32, max_entities: usize) -> Vec<(Entity, u32)> {
        around::around(&self.read(), entity, around::Direction::Dependencies, max_hops, max_entities)
    }

    /// Returns what depends on an entity, directly or not: its faults may show at them. As [`Self::dependencies`].
    pub fn dependents(&self, entity: &Entity, max_hops: u32, max_entities: usize) -> Vec<(Entity, u32)> {
        around::around(&self.read(), entity, around::Direction::Dependents, max_hops, max_entities)
    }

    /// Returns the number of relations along which a fault of `to` shows at `from`: from the dependent to its
    /// dependency, by calls, uses, runs-on and part-of. `Some(0)` if they are one; `None` without a path.
    pub fn path(&self, from: &Entity, to: &Entity) -> Option<u32> {
        paths::path(&self.read(), from, to)
    }

    /// Returns whether a fault may show at both: one depends on the other, or both on a third.
    pub fn connected(&self, a: &Entity, b: &Entity) -> bool {
        paths::connected(&self.read(), a, b)
    }

    /// Returns a number that changes whenever entities, names or relations change.
    pub fn version(&self) -> u64 {
        self.read().version()
    }

    /// Returns the number of entities and of relations.
    pub fn len(&self) -> (usize, usize) {
        self.read().len()
    }

    /// Returns whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.len().0 == 0
    }

    /// Returns what to keep.
    pub fn state(&self) -> GraphState {
        self.read().state()
    }

    /// Creates a graph from what was kept.
    pub fn from_state(limits: GraphLimits, declared: &[Vec<String>], state: &GraphState) -> Self {
        let mut store = Store::new(limits, declared);
        for (entity, aliases, seen_ms) in &state.entities {
            store.observe(entity, aliases, &[], *seen_ms);
        }
        let entity = |index: u32| state.entities.get(index as usize);
        for (from, kind, to) in &state.relations {
            if let (Some((from, _, from_ms)), Some((to, _, to_ms))) = (entity(*from), entity(*to)) {
                let relation = Relation { from: from.clone(), kind: *kind, to: to.clone() };
                store.relate(&relation, (*from_ms).min(*to_ms));
            }
        }
        Self { store: Arc::new(RwLock::new(store)) }
    }

    fn read(&self) -> RwLockReadGuard<'_, Store> {
        self.store.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Store> {
        self.store.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
