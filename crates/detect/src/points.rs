//! From samples to points: one complete measurement of a signal over a window.
//!
//! Problem: a scrape arrives in several requests, instances are scraped at different moments, each at its own pace,
//! and counters are reset, appear and vanish. A measurement of whatever has arrived is often one of half a service.
//!
//! Model: a *group* is all series of one family about one entity (and one called entity); its *members* are the
//! processes or targets that report them; a *cell* is one series in one group. A group makes one point a window. The
//! windows lie on a grid in telemetry's time of the entity; the step is the configured window, or the interval of the
//! slowest member if that is longer. A window covers, for each series, the time from its last reading in the window
//! before to its last reading in this one, so that points share no samples and members may have different phases. It
//! is complete when all series that report have done so, or when the entity's time is a grace past its end; what is
//! silent then is missing, later forgotten.
//!
//! Guarantees: the points are the same for any division of the same samples into batches, and for any order that keeps
//! the order within a series and is late by less than the grace. Time of one entity does not move another's; a reading
//! from the future counts as one of now. The cost of a sample does not depend on how much is known.

mod cell;
mod group;
mod maker;
mod member;
mod quantile;
mod registry;
mod request_windows;
mod signal_point;
mod slab;
mod start;
mod stream;
mod sums;
#[cfg(test)]
mod tests;
mod window;

use wardroom_domain::sample::is_stale;
use wardroom_domain::{Entity, Labels, SignalId, SignalKind};
use wardroom_signals::{Direction, Outcome, Part, SeriesUse, SignalUnit};

use self::cell::{Cell, is_passive};
use self::registry::{REPLICA_LABELS, is_count, short_hash};
use crate::durations::{BOUNDS, Counts};

pub(crate) use self::maker::PointMaker;
pub(crate) use self::signal_point::{GroupIndex, PartHandle, SignalPoint, SignalSlot, StreamHandle};

/// What is appended to the metric of a signal whose value is a share of a limit.
pub(crate) const SHARE_SUFFIX: &str = "/limit";
/// A reading that is further in the future than this counts as one of now, in ms.
const MAX_AHEAD_MS: i64 = 5_000;

impl PointMaker {
    /// Says when the next readings were received: none of them moves time much further than that.
    pub(crate) const fn begin_batch(&mut self, received_ms: i64) {
        self.latest_ms = received_ms.saturating_add(MAX_AHEAD_MS);
    }

    /// Adds a series. The handles stay valid until [`PointMaker::remove_series`].
    pub(crate) fn add_series(&mut self, uses: &[SeriesUse], labels: &Labels) -> Vec<PartHandle> {
        let is_delta = labels.get("__temporality__") == Some("delta");
        let replica = REPLICA_LABELS.iter().find_map(|name| labels.get(name)).map(short_hash);
        let metric = short_hash(labels.name());
        let mut handles = Vec::with_capacity(uses.len());
        for (series_use, index) in uses.iter().zip(0..) {
            let same_series = replica.map(|_| self.replica_id(labels, index));
            let scale = if is_count(series_use.part) { 0 } else { self.scale(series_use.scale, series_use.offset) };
            let member = self.member(series_use);
            let mut cell = Cell::new(member, series_use.part, scale, is_delta || series_use.is_delta);
            (cell.replicas, cell.replica) = (same_series.unwrap_or_default(), replica.unwrap_or_default());
            cell.metric = metric;
            handles.push(self.add_cell(member, cell));
        }
        handles
    }

    /// Adds a histogram whose counts are given by [`PointMaker::observe_counts`].
    pub(crate) fn add_histogram(&mut self, series_use: &SeriesUse, outcome: Outcome) -> Vec<PartHandle> {
        let member = self.member(&SeriesUse { part: Part::Bucket(0.0, outcome), ..series_use.clone() });
        let bounds = BOUNDS.iter().copied().chain([f64::INFINITY]);
        bounds.map(|bound| self.add_cell(member, Cell::new(member, Part::Bucket(bound, outcome), 0, false))).collect()
    }

    /// Adds a source of requests that arrive one by one, or returns the known one.
    pub(crate) fn stream(&mut self, entity: &Entity, peer: Option<&Entity>, family: &str) -> StreamHandle {
        let entity = self.entity(entity);
        let key = (entity, peer.cloned(), SignalKind::Traffic, String::new(), family.to_owned());
        let index = self.group(key, SignalUnit::PerSecond, Direction::Neutral);
        if let Some(group) = self.groups.get_mut(index) {
            group.requests.get_or_insert_default();
            group.stream.get_or_insert_default();
        }
        StreamHandle(index)
    }

    /// Adds a reading, or a stale marker.
    #[inline]
    pub(crate) fn observe(&mut self, part: PartHandle, at_ms: i64, value: f64) {
        let Some(cell) = self.cells.get(part.0) else { return };
        let (member_index, passive) = (cell.member, is_passive(cell.part));
        if !passive && self.members.get(member_index).is_some_and(|member| !member.is_listed) {
            self.list_member(member_index, at_ms);
        }
        let (Some(cell), Some(member)) = (self.cells.get_mut(part.0), self.members.get(member_index)) else { return };
        let (is_marker, replica) = (is_stale(value), cell.replica);
        let value = match self.scales.get(cell.scale as usize) {
            Some((factor, offset)) if cell.scale != 0 && !is_marker => value * factor + offset,
            _ => value,
        };
        let is_newest = cell.push(at_ms, value, member.due_ms, member.end_ms);
        if passive {
            // No window of its own: the newest limit counts.
            if !member.is_listed {
                cell.take(at_ms, i64::MAX, i64::MAX);
            }
            return self.touch(member.entity, at_ms);
        }
        let closes = is_newest && cell.is_live && !cell.is_settled && (is_marker || at_ms > member.due_ms);
        cell.is_settled |= closes;
        let may_be_late = is_newest && !cell.is_live && member.was_waited_for && at_ms <= member.begin_ms;
        let is_late = may_be_late && cell.begin_late(member.begin_ms);
        if closes {
            self.settle(member_index);
        } else if is_late {
            self.wait_for_late(part, member_index);
        }
        self.move_time(member_index, replica, at_ms, is_marker);
    }

    /// Adds the cumulative counts of a histogram.
    pub(crate) fn observe_counts(&mut self, parts: &[PartHandle], at_ms: i64, counts: &Counts) {
        parts.iter().zip(counts).for_each(|(part, count)| self.observe(*part, at_ms, *count));
    }

    /// Adds one request that ended at `at_ms`.
    pub(crate) fn observe_request(&mut self, stream: StreamHandle, at_ms: i64, seconds: f64, failed: bool) {
        let (latest_ms, step_ms) = (self.latest_ms, self.settings.window_ms);
        let Some(group) = self.groups.get_mut(stream.0) else { return };
        let entity = group.key.0;
        let Some(stream) = &mut group.stream else { return };
        stream.add(at_ms.min(latest_ms), seconds, failed, group.end_ms, step_ms);
        let deadline_ms = (!group.is_started && group.deadline_ms == i64::MAX).then(|| at_ms.min(latest_ms) + step_ms);
        if let Some(deadline_ms) = deadline_ms {
            group.deadline_ms = deadline_ms;
        }
        self.touch(entity, at_ms);
        if let (Some(deadline_ms), Some(time)) = (deadline_ms, self.entities.get_mut(entity)) {
            time.deadline_ms = time.deadline_ms.min(deadline_ms);
        }
    }

    /// Returns the points that are complete, by entity and group, oldest first.
    pub(crate) fn take_points(&mut self) -> Vec<SignalPoint> {
        let mut due = std::mem::take(&mut self.ready);
        let touched = std::mem::take(&mut self.touched);
        for time in touched.iter().filter_map(|index| self.entities.get(*index)) {
            if time.newest_ms >= time.deadline_ms {
                let groups = time
                    .groups
                    .iter()
                    .filter(|group| self.groups.get(**group).is_some_and(|group| group.deadline_ms <= time.newest_ms));
                due.extend(groups);
            }
        }
        due.sort_unstable();
        due.dedup();
        let mut points = Vec::new();
        due.iter().for_each(|group| self.advance(*group, &mut points));
        touched.iter().for_each(|entity| self.finish_entity(*entity));
        points
    }

    /// Returns the id of the signal that a slot of a group feeds.
    pub(crate) fn signal_id(&self, group: GroupIndex, slot: SignalSlot) -> Option<SignalId> {
        let (entity, peer, kind, resource, family) = &self.groups.get(group.0)?.key;
        let (kind, resource, metric) = match slot {
            SignalSlot::Traffic => (SignalKind::Traffic, resource.clone(), family.clone()),
            SignalSlot::Errors => (SignalKind::Errors, resource.clone(), family.clone()),
            SignalSlot::Failures => (SignalKind::Errors, qualified(resource, "failures"), family.clone()),
            SignalSlot::Latency => (SignalKind::Latency, resource.clone(), family.clone()),
            SignalSlot::Median => (SignalKind::Latency, qualified(resource, "median"), family.clone()),
            SignalSlot::Value => (*kind, resource.clone(), family.clone()),
            SignalSlot::Share => (*kind, resource.clone(), format!("{family}{SHARE_SUFFIX}")),
        };
        Some(SignalId {
            entity: self.entities.get(*entity)?.entity.clone(),
            peer: peer.clone(),
            kind,
            resource,
            metric,
        })
    }

    /// Returns the unit of a signal and which of its values are bad.
    pub(crate) fn definition(&self, group: GroupIndex, slot: SignalSlot) -> (SignalUnit, Direction) {
        match slot {
            SignalSlot::Traffic => (SignalUnit::PerSecond, Direction::Neutral),
            SignalSlot::Errors | SignalSlot::Share => (SignalUnit::Ratio, Direction::High),
            SignalSlot::Failures => (SignalUnit::PerSecond, Direction::High),
            SignalSlot::Latency | SignalSlot::Median => (SignalUnit::Seconds, Direction::High),
            SignalSlot::Value => {
                let group = self.groups.get(group.0);
                group.map_or((SignalUnit::Number, Direction::Neutral), |group| (group.unit, group.direction))
            }
        }
    }

    /// Removes a series.
    pub(crate) fn remove_series(&mut self, parts: &[PartHandle]) {
        for part in parts {
            let Some(cell) = self.cells.remove(part.0) else { continue };
            let Some(member) = self.members.get_mut(cell.member) else { continue };
            if let Some(index) = member.cells.iter().position(|known| *known == part.0) {
                member.cells.swap_remove(index);
            }
            let is_empty = member.cells.is_empty();
            if cell.is_live && !cell.is_settled {
                self.settle(cell.member);
            }
            if is_empty {
                self.remove_member(cell.member);
            }
        }
    }

    /// Removes a source of requests.
    pub(crate) fn remove_stream(&mut self, stream: StreamHandle) {
        if let Some(group) = self.groups.get_mut(stream.0) {
            group.stream = None;
            self.remove_group_if_empty(stream.0);
        }
    }

    /// Returns the number of series in signals, of groups and of entities.
    #[cfg(test)]
    pub(crate) fn sizes(&self) -> (usize, usize, usize) {
        (self.cells.len(), self.groups.len(), self.entities.len())
    }
}

/// Returns a resource with what is special about a signal of it.
fn qualified(resource: &str, what: &str) -> String {
    if resource.is_empty() { what.to_owned() } else { format!("{resource} {what}") }
}
