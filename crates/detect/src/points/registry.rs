//! Entities, groups, members and series by name: adding and removing them.

use wardroom_domain::{Entity, Labels};
use wardroom_signals::{Direction, Part, SeriesUse, SignalUnit};

use super::cell::{Cell, NEVER};
use super::group::{Group, GroupKey};
use super::maker::{EntityTime, PointMaker};
use super::member::Member;
use super::signal_point::PartHandle;

/// Labels that tell replicas of one sender apart: they send the same series.
pub(super) const REPLICA_LABELS: [&str; 3] = ["prometheus_replica", "__replica__", "replica"];

impl PointMaker {
    pub(super) fn entity(&mut self, entity: &Entity) -> u32 {
        if let Some(known) = self.ids.entities.get(entity) {
            return *known;
        }
        let index = self.entities.insert(EntityTime {
            entity: entity.clone(),
            newest_ms: NEVER,
            groups: Vec::new(),
            deadline_ms: i64::MAX,
            is_touched: false,
            minutes: Vec::new(),
        });
        self.ids.entities.insert(entity.clone(), index);
        index
    }

    pub(super) fn group(&mut self, key: GroupKey, unit: SignalUnit, direction: Direction) -> u32 {
        if let Some(known) = self.ids.groups.get(&key) {
            return *known;
        }
        let entity = key.0;
        let index = self.groups.insert(Group::new(key.clone(), unit, direction));
        self.ids.groups.insert(key, index);
        if let Some(time) = self.entities.get_mut(entity) {
            time.groups.push(index);
        }
        index
    }

    pub(super) fn member(&mut self, series_use: &SeriesUse) -> u32 {
        let entity = self.entity(&series_use.entity);
        let SeriesUse { peer, kind, resource, family, .. } = series_use;
        let key = (entity, peer.clone(), *kind, resource.clone(), family.clone());
        let group_index = self.group(key, series_use.unit, series_use.direction);
        if is_of_requests(series_use.part)
            && let Some(group) = self.groups.get_mut(group_index)
        {
            group.requests.get_or_insert_default();
        }
        if let Some(known) = self.ids.members.get(&(group_index, series_use.member.clone())) {
            return *known;
        }
        let index = self.members.insert(Member::new(group_index, entity, series_use.member.clone()));
        self.ids.members.insert((group_index, series_use.member.clone()), index);
        if let Some(group) = self.groups.get_mut(group_index) {
            group.known_members += 1;
        }
        index
    }

    pub(super) fn add_cell(&mut self, member: u32, cell: Cell) -> PartHandle {
        let index = self.cells.insert(cell);
        if let Some(member) = self.members.get_mut(member) {
            member.cells.push(index);
        }
        PartHandle(index)
    }

    pub(super) fn scale(&mut self, factor: f64, offset: f64) -> u32 {
        let same = |known: &(f64, f64)| known.0 == factor && known.1 == offset;
        let known = self.scales.iter().position(same);
        known.unwrap_or_else(|| {
            self.scales.push((factor, offset));
            self.scales.len() - 1
        }) as u32
    }

    /// Returns a number that one use of a series has in common with that of others that differ in the replica only.
    pub(super) fn replica_id(&mut self, labels: &Labels, use_index: u8) -> u32 {
        let others = labels.iter().filter(|(name, _)| !REPLICA_LABELS.contains(name));
        let hash = others.fold(FNV_OFFSET, |hash, (name, value)| {
            [name.as_bytes(), &[0xff], value.as_bytes(), &[0xfe]].iter().fold(hash, |hash, bytes| fnv(hash, bytes))
        });
        let hash = fnv(hash, &[use_index]);
        let next = &mut self.next_replica_id;
        *self.replica_ids.entry(hash).or_insert_with(|| {
            *next += 1;
            *next - 1
        })
    }

    pub(super) fn remove_member(&mut self, index: u32) {
        let Some(member) = self.members.remove(index) else { return };
        self.ids.members.remove(&(member.group, member.name));
        if let Some(group) = self.groups.get_mut(member.group) {
            group.known_members -= 1;
            group.members.retain(|known| *known != index);
            if member.waiting > 0 {
                group.waiting = group.waiting.saturating_sub(1);
            }
        }
        self.remove_group_if_empty(member.group);
    }

    pub(super) fn remove_group_if_empty(&mut self, index: u32) {
        let is_empty = |group: &Group| group.known_members == 0 && group.stream.is_none();
        if !self.groups.get(index).is_some_and(is_empty) {
            return;
        }
        let Some(group) = self.groups.remove(index) else { return };
        let entity = group.key.0;
        self.ids.groups.remove(&group.key);
        self.ready.retain(|ready| *ready != index);
        let Some(time) = self.entities.get_mut(entity) else { return };
        time.groups.retain(|known| *known != index);
        if time.groups.is_empty() {
            self.touched.retain(|touched| *touched != entity);
            if let Some(time) = self.entities.remove(entity) {
                self.ids.entities.remove(&time.entity);
            }
        }
    }
}

/// Returns whether a part counts things: the factor of a use is that of its durations and values.
pub(super) const fn is_count(part: Part) -> bool {
    matches!(
        part,
        Part::Requests(_)
            | Part::Failures
            | Part::Bucket(..)
            | Part::DurationCount(_)
            | Part::Count
            | Part::Drained
            | Part::Added
    )
}

const fn is_of_requests(part: Part) -> bool {
    matches!(
        part,
        Part::Requests(_)
            | Part::Failures
            | Part::Bucket(..)
            | Part::DurationSum(_)
            | Part::DurationCount(_)
            | Part::Quantile(_)
    )
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a: the same in every build, since it is part of the saved state.
fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Returns a hash that is not 0.
pub(super) fn short_hash(text: &str) -> u32 {
    let hash = fnv(FNV_OFFSET, text.as_bytes());
    ((hash ^ (hash >> 32)) as u32).max(1)
}
