//! What is known while points are made: series, members, groups, and the time of each entity.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wardroom_domain::Entity;

use super::cell::Cell;
use super::group::{Group, GroupKey};
use super::member::Member;
use super::slab::Slab;
use crate::Config;

/// Makes points of samples, for all series of a tenant.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PointMaker {
    #[serde(skip)]
    pub(super) settings: Settings,
    pub(super) cells: Slab<Cell>,
    pub(super) members: Slab<Member>,
    pub(super) groups: Slab<Group>,
    pub(super) entities: Slab<EntityTime>,
    /// Factor and offset from a sample to a part. The first one changes nothing.
    pub(super) scales: Vec<(f64, f64)>,
    /// Labels without the replica's → number of these series.
    pub(super) replica_ids: BTreeMap<u64, u32>,
    pub(super) next_replica_id: u32,
    #[serde(skip)]
    pub(super) ids: Ids,
    /// Entities with readings since the last call.
    pub(super) touched: Vec<u32>,
    /// Groups that may be complete.
    pub(super) ready: Vec<u32>,
    /// No reading moves time further than this.
    #[serde(skip, default = "unlimited")]
    pub(super) latest_ms: i64,
}

/// Indices by name; built again after loading.
#[derive(Debug, Default)]
pub(super) struct Ids {
    pub(super) entities: BTreeMap<Entity, u32>,
    pub(super) groups: BTreeMap<GroupKey, u32>,
    pub(super) members: BTreeMap<(u32, String), u32>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Settings {
    pub(super) window_ms: i64,
    pub(super) min_requests: f64,
}

/// Telemetry's time of one entity.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct EntityTime {
    pub(super) entity: Entity,
    pub(super) newest_ms: i64,
    pub(super) groups: Vec<u32>,
    /// Earliest deadline of its groups.
    pub(super) deadline_ms: i64,
    pub(super) is_touched: bool,
    /// Minutes with readings, back to the oldest open window.
    pub(super) minutes: Vec<i64>,
}

impl PointMaker {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            settings: Settings::of(config),
            cells: Slab::default(),
            members: Slab::default(),
            groups: Slab::default(),
            entities: Slab::default(),
            scales: vec![(1.0, 0.0)],
            replica_ids: BTreeMap::new(),
            next_replica_id: 1,
            ids: Ids::default(),
            touched: Vec::new(),
            ready: Vec::new(),
            latest_ms: i64::MAX,
        }
    }

    /// Completes a maker that was deserialized.
    pub(crate) fn restore(&mut self, config: &Config) {
        self.settings = Settings::of(config);
        self.ids.entities = self.entities.iter().map(|(index, time)| (time.entity.clone(), index)).collect();
        self.ids.groups = self.groups.iter().map(|(index, group)| (group.key.clone(), index)).collect();
        let members = self.members.iter();
        self.ids.members = members.map(|(index, member)| ((member.group, member.name.clone()), index)).collect();
    }
}

impl Settings {
    fn of(config: &Config) -> Self {
        Self { window_ms: i64::from(config.window_seconds) * 1000, min_requests: config.min_requests }
    }
}

const fn unlimited() -> i64 {
    i64::MAX
}
