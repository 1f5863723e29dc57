//! The entities that series and spans are about, by number, so that a series takes four bytes for its entity.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wardroom_domain::Entity;

/// One entity.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KnownEntity {
    pub(super) entity: Entity,
    /// Newest time of its telemetry, capped by the time of arrival, in ms.
    pub(super) newest_ms: i64,
}

/// All entities, by number.
#[derive(Debug, Default)]
pub(super) struct Entities {
    list: Vec<KnownEntity>,
    ids: BTreeMap<Entity, u32>,
}

impl Entities {
    /// Creates the table of saved entities.
    pub(super) fn from_list(list: Vec<KnownEntity>) -> Self {
        let ids = list.iter().zip(0..).map(|(known, id)| (known.entity.clone(), id)).collect();
        Self { list, ids }
    }

    /// Returns the number of an entity; adds it if it is new.
    pub(super) fn id(&mut self, entity: &Entity) -> u32 {
        if let Some(id) = self.ids.get(entity) {
            return *id;
        }
        let id = self.list.len() as u32;
        self.ids.insert(entity.clone(), id);
        self.list.push(KnownEntity { entity: entity.clone(), newest_ms: i64::MIN });
        id
    }

    /// Returns the number of a known entity.
    pub(super) fn find(&self, entity: &Entity) -> Option<u32> {
        self.ids.get(entity).copied()
    }

    /// Returns an entity by its number.
    pub(super) fn get(&self, id: u32) -> &Entity {
        static NONE: Entity = Entity {
            kind: wardroom_domain::EntityKind::Service,
            cluster: String::new(),
            environment: String::new(),
            namespace: String::new(),
            name: String::new(),
        };
        self.list.get(id as usize).map_or(&NONE, |known| &known.entity)
    }

    /// Records that an entity has telemetry of a time.
    #[inline]
    pub(super) fn touch(&mut self, id: u32, at_ms: i64) {
        if let Some(known) = self.list.get_mut(id as usize) {
            known.newest_ms = known.newest_ms.max(at_ms);
        }
    }

    /// Returns all entities, by number.
    pub(super) fn list(&self) -> &[KnownEntity] {
        &self.list
    }

    /// Keeps the marked entities and renumbers them densely, in their order.
    pub(super) fn retain(&mut self, keep: &[bool]) {
        super::dense_indices::retain_by(&mut self.list, keep);
        self.ids = self.list.iter().zip(0..).map(|(known, id)| (known.entity.clone(), id)).collect();
    }
}
