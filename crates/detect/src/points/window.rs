//! When a group's windows begin and end, and what is made of one.

use std::collections::BTreeMap;

use wardroom_signals::Part;

use super::cell::{Closing, NEVER, Taken, is_counter, is_passive};
use super::group::{Group, MAX_STEP_MS, ValueStep};
use super::maker::PointMaker;
use super::member::{Member, due_ms};
use super::request_windows::RequestStep;
use super::signal_point::{GroupIndex, PartHandle, SignalPoint, SignalSlot};
use super::start::START_GRACE_MS;
use super::sums::Sums;
use crate::point::Point;

/// A group begins again after this time without readings, in ms.
const MAX_SILENCE_MS: i64 = 300_000;
const MINUTE_MS: i64 = 60_000;
/// Minutes with readings that are remembered for an entity whose windows do not end.
const MAX_MINUTES: usize = 3000;

/// All that the members of a group say about one window.
#[derive(Debug, Default)]
struct Step {
    requests: RequestStep,
    values: ValueStep,
    covered_ms: i64,
    traffic: Option<f64>,
    reported: bool,
}

impl PointMaker {
    /// Adds a member that begins to report, or does so again, to the list of its group.
    #[cold]
    pub(super) fn list_member(&mut self, index: u32, at_ms: i64) {
        let Some(member) = self.members.get_mut(index) else { return };
        let Some(group) = self.groups.get_mut(member.group) else { return };
        member.is_listed = true;
        group.members.push(index);
        if group.is_started {
            member.begin_window(group.begin_ms, group.end_ms);
            return;
        }
        group.deadline_ms = group.deadline_ms.min(at_ms.min(self.latest_ms) + START_GRACE_MS);
        if let Some(time) = self.entities.get_mut(group.key.0) {
            time.deadline_ms = time.deadline_ms.min(group.deadline_ms);
        }
    }

    /// Counts a series that the current window waits for no more.
    #[inline]
    pub(super) fn settle(&mut self, member: u32) {
        let Some(member) = self.members.get_mut(member).filter(|member| member.waiting > 0) else { return };
        member.waiting -= 1;
        if member.waiting > 0 {
            return;
        }
        let Some(group) = self.groups.get_mut(member.group) else { return };
        group.waiting = group.waiting.saturating_sub(1);
        if group.waiting == 0 {
            self.ready.push(member.group);
        }
    }

    /// Waits for the next reading of a series whose first one came just after its window was complete.
    #[cold]
    pub(super) fn wait_for_late(&mut self, part: PartHandle, member: u32) {
        let (Some(cell), Some(member)) = (self.cells.get_mut(part.0), self.members.get_mut(member)) else { return };
        if cell.read_ms() <= due_ms(member.interval_ms, member.begin_ms) {
            return;
        }
        (cell.is_live, cell.is_settled) = (true, false);
        member.waiting += 1;
        if member.waiting == 1
            && let Some(group) = self.groups.get_mut(member.group)
        {
            group.waiting += 1;
            group.is_waiting = true;
        }
    }

    /// Moves the time of a member and of its entity by a reading.
    #[inline]
    pub(super) fn move_time(&mut self, member: u32, replica: u32, at_ms: i64, is_marker: bool) {
        let Some(member) = self.members.get_mut(member) else { return };
        let is_used = !is_marker && (replica == 0 || member.follows(replica, at_ms));
        let knows_interval = is_used && member.record_time(at_ms);
        if knows_interval && member.end_ms == NEVER {
            self.ready.push(member.group);
        }
        let entity = member.entity;
        self.touch(entity, at_ms);
    }

    /// Moves the time of an entity.
    #[inline]
    pub(super) fn touch(&mut self, entity: u32, at_ms: i64) {
        let at_ms = at_ms.min(self.latest_ms);
        let Some(time) = self.entities.get_mut(entity) else { return };
        if !time.is_touched {
            time.is_touched = true;
            self.touched.push(entity);
        }
        time.newest_ms = time.newest_ms.max(at_ms);
        let minute = at_ms.div_euclid(MINUTE_MS);
        if time.minutes.last() != Some(&minute)
            && let Err(index) = time.minutes.binary_search(&minute)
            && time.minutes.len() < MAX_MINUTES
        {
            time.minutes.insert(index, minute);
        }
    }

    /// Prepares an entity for the next batch.
    pub(super) fn finish_entity(&mut self, index: u32) {
        let Some(time) = self.entities.get_mut(index) else { return };
        time.is_touched = false;
        if time.newest_ms >= time.deadline_ms {
            let groups = time.groups.iter().filter_map(|group| self.groups.get(*group));
            time.deadline_ms = groups.map(|group| group.deadline_ms).min().unwrap_or(i64::MAX);
        }
        let oldest = (time.newest_ms - 3 * MINUTE_MS).div_euclid(MINUTE_MS);
        let old = time.minutes.partition_point(|minute| *minute < oldest);
        time.minutes.drain(..old);
    }

    /// Ends the windows of a group that are complete.
    pub(super) fn advance(&mut self, index: u32, points: &mut Vec<SignalPoint>) {
        let Some(mut group) = self.groups.lend(index) else { return };
        let now_ms = self.entities.get(group.key.0).map_or(NEVER, |time| time.newest_ms);
        if !group.is_started {
            self.start(&mut group, now_ms);
        }
        while group.is_started && self.is_complete(&group, now_ms) {
            let mut emit = |slot, point| points.push(SignalPoint { group: GroupIndex(index), slot, point });
            if group.stream.is_some() {
                self.end_stream_window(&mut group, &mut emit);
            }
            let reported = group.known_members > 0 && self.end_window(&mut group, &mut emit);
            self.next_window(&mut group, now_ms, reported);
            if !group.is_started {
                self.start(&mut group, now_ms);
            }
        }
        let (entity, deadline_ms) = (group.key.0, group.deadline_ms);
        self.groups.restore(index, group);
        if let Some(time) = self.entities.get_mut(entity) {
            time.deadline_ms = time.deadline_ms.min(deadline_ms);
        }
    }

    fn is_complete(&self, group: &Group, now_ms: i64) -> bool {
        if now_ms >= group.deadline_ms {
            return true;
        }
        group.waiting == 0 && group.is_waiting && group.stream.is_none()
    }

    pub(super) fn start_stream(&self, group: &mut Group) {
        let Some(end_ms) = group.stream.as_ref().and_then(|stream| stream.oldest_end_ms()) else {
            group.deadline_ms = i64::MAX;
            return;
        };
        group.is_started = true;
        group.step_ms = self.settings.window_ms;
        group.begin_window(end_ms - group.step_ms);
    }

    /// Begins the window after the current one. Windows without readings are skipped.
    fn next_window(&mut self, group: &mut Group, now_ms: i64, reported: bool) {
        let end_ms = group.end_ms;
        let members = || group.members.iter().filter_map(|index| self.members.get(*index));
        let reporting = members().filter(|member| !member.is_gone);
        if let Some(interval_ms) = reporting.map(|member| member.interval_ms).max() {
            group.step_ms = self.settings.window_ms.max(interval_ms).min(MAX_STEP_MS);
        }
        let step_ms = group.step_ms;
        let is_silent = !reported && group.stream.is_none();
        let oldest_ms = if is_silent { self.oldest_pending_ms(group) } else { None };
        let next_ms = if is_silent {
            oldest_ms.unwrap_or(now_ms) - 1
        } else if group.stream.is_some() && now_ms - end_ms > 2 * MINUTE_MS {
            self.next_minute_ms(group.key.0, end_ms).unwrap_or(now_ms)
        } else {
            end_ms
        };
        let begin_ms = end_ms.max(next_ms.min(now_ms - 1).div_euclid(step_ms) * step_ms);
        if is_silent && begin_ms > group.last_read_ms + MAX_SILENCE_MS {
            return self.stop(group, oldest_ms);
        }
        group.begin_window(begin_ms);
        if is_silent {
            group.begin_ms = group.end_ms - group.step_ms;
        }
        self.begin_members(group);
    }

    fn oldest_pending_ms(&self, group: &Group) -> Option<i64> {
        let members = group.members.iter().filter_map(|index| self.members.get(*index));
        let cells = members.flat_map(|member| &member.cells).filter_map(|index| self.cells.get(*index));
        cells.filter_map(|cell| cell.oldest_pending_ms()).min()
    }

    /// Stops the windows of a group that was silent for long: the next readings begin as the first ones did.
    fn stop(&mut self, group: &mut Group, oldest_ms: Option<i64>) {
        (group.is_started, group.is_waiting, group.waiting) = (false, false, 0);
        (group.begin_ms, group.end_ms) = (NEVER, NEVER);
        group.deadline_ms = oldest_ms.map_or(i64::MAX, |oldest_ms| oldest_ms + START_GRACE_MS);
        let members = std::mem::take(&mut group.members);
        group.members = members.into_iter().filter(|index| self.stop_member(*index)).collect();
    }

    /// Returns whether the member has readings of a later window, so that it stays listed.
    fn stop_member(&mut self, index: u32) -> bool {
        let Some(member) = self.members.get_mut(index) else { return false };
        member.stop();
        member.is_listed = false;
        for cell in &member.cells {
            if let Some(cell) = self.cells.get_mut(*cell) {
                cell.is_live = false;
                member.is_listed |= !is_passive(cell.part) && cell.oldest_pending_ms().is_some();
            }
        }
        member.is_listed
    }

    /// Returns the start of the first minute with telemetry of an entity that ends after a time.
    fn next_minute_ms(&self, entity: u32, after_ms: i64) -> Option<i64> {
        let minutes = &self.entities.get(entity)?.minutes;
        let index = minutes.partition_point(|minute| (minute + 1) * MINUTE_MS <= after_ms);
        minutes.get(index).map(|minute| minute * MINUTE_MS)
    }

    /// Begins the current window for the members and counts what it waits for.
    pub(super) fn begin_members(&mut self, group: &mut Group) {
        (group.waiting, group.is_waiting) = (0, false);
        for index in &group.members {
            let Some(member) = self.members.get_mut(*index) else { continue };
            member.begin_window(group.begin_ms, group.end_ms);
            member.was_waited_for = member.is_waited_for;
            (member.waiting, member.is_waited_for) = (0, false);
            for cell in &member.cells {
                let Some(cell) = self.cells.get_mut(*cell) else { continue };
                cell.is_live &= !cell.has_ended;
                if !cell.is_live {
                    continue;
                }
                cell.is_settled = cell.closing(member.due_ms).is_some();
                member.waiting += u32::from(!cell.is_settled);
                member.is_waited_for = true;
            }
            group.is_waiting |= member.is_waited_for;
            group.waiting += u32::from(member.waiting > 0);
        }
    }

    /// Returns the time up to which readings of series that the window does not wait for belong to it: such a reading
    /// may arrive just before or just after the window is complete, which must not matter.
    fn others_until_ms(&self, group: &Group) -> i64 {
        let mut complete_ms = NEVER;
        for member in group.members.iter().filter_map(|index| self.members.get(*index)) {
            let cells = member.cells.iter().filter_map(|cell| self.cells.get(*cell));
            for cell in cells.filter(|cell| cell.is_live) {
                let Some(closing) = cell.closing(member.due_ms) else { return group.end_ms };
                complete_ms = complete_ms.max(closing.at_ms);
            }
        }
        if complete_ms == NEVER { group.end_ms } else { group.end_ms.min(complete_ms - 1) }
    }

    fn end_stream_window(&mut self, group: &mut Group, emit: &mut impl FnMut(SignalSlot, Point)) {
        let (Some(stream), Some(requests)) = (&mut group.stream, &mut group.requests) else { return };
        let step = stream.take(group.begin_ms, group.end_ms);
        // No telemetry at all is not the same as no requests.
        let minutes = (group.begin_ms.div_euclid(MINUTE_MS), group.end_ms.div_euclid(MINUTE_MS));
        let is_alive = self.entities.get(group.key.0).is_some_and(|time| {
            time.minutes.binary_search(&minutes.0).is_ok() || time.minutes.binary_search(&minutes.1).is_ok()
        });
        if is_alive {
            requests.add(&step, self.settings.min_requests, emit);
        }
    }

    /// Ends the current window: makes its points. Returns whether a member reported.
    fn end_window(&mut self, group: &mut Group, emit: &mut impl FnMut(SignalSlot, Point)) -> bool {
        let mut step = Step::default();
        let others_until_ms = self.others_until_ms(group);
        for position in 0..group.members.len() {
            self.take_member(group, group.members[position], others_until_ms, &mut step);
        }
        group.members.retain(|index| self.members.get(*index).is_some_and(|member| member.is_listed));
        if !step.reported {
            return false;
        }
        self.mark_live(group);
        group.last_read_ms = group.last_read_ms.max(step.values.at_ms.unwrap_or(NEVER));
        let Step { mut requests, values, covered_ms, traffic, .. } = step;
        let mut windows = group.requests.take();
        if let Some(windows) = &mut windows {
            if let Some(newest_ms) = values.at_ms {
                (requests.at_ms, requests.window_ms) = group.point_time(newest_ms, covered_ms);
                (requests.members, requests.missing, requests.traffic) = (values.members, values.missing, traffic);
                windows.add(&requests, self.settings.min_requests, emit);
            }
        } else if let Some((is_share, point)) = group.value_point(values, covered_ms) {
            emit(if is_share { SignalSlot::Share } else { SignalSlot::Value }, point);
        }
        group.requests = windows;
        true
    }

    /// Adds what one member says about the current window. One that is silent for long leaves the list.
    fn take_member(&mut self, group: &Group, index: u32, others_until_ms: i64, step: &mut Step) {
        let Some(member) = self.members.get_mut(index) else { return };
        let mut sums = Sums::default();
        let mut replicas: BTreeMap<u32, ((u32, Part), Taken, bool)> = BTreeMap::new();
        let (mut has_ended, mut is_idle) = (true, true);
        for cell in &member.cells {
            let Some(cell) = self.cells.get_mut(*cell) else { continue };
            let taken = match cell.closing(member.due_ms).filter(|_| cell.is_live) {
                Some(Closing { is_early_marker: true, at_ms }) => {
                    let until_ms = others_until_ms.max(at_ms);
                    cell.take(group.begin_ms, until_ms, until_ms)
                }
                None if !cell.is_live => {
                    // The first reading of a new series in the scrape that completes the window: it counts nothing yet.
                    let is_first = cell.first_ms() == Some(others_until_ms + 1);
                    let is_new = member.is_waited_for && is_first && is_counter(cell.part);
                    let until_ms = group.end_ms.min(others_until_ms + i64::from(is_new));
                    cell.take(group.begin_ms, until_ms, until_ms)
                }
                _ => cell.take(group.begin_ms, member.due_ms, group.end_ms),
            };
            if !is_passive(cell.part) {
                has_ended &= cell.has_ended;
                is_idle &= cell.oldest_pending_ms().is_none();
            }
            if cell.replicas == 0 {
                sums.add((cell.metric, cell.part), &taken, member, group.end_ms);
                continue;
            }
            let is_followed = cell.replica == member.replica;
            let rank = |taken: &Taken, is_followed: bool| {
                (is_followed && taken.covered_ms > 0, taken.covered_ms, is_followed, taken.level.map(|level| level.0))
            };
            let best = replicas.entry(cell.replicas).or_insert(((cell.metric, cell.part), taken, is_followed));
            if rank(&taken, is_followed) > rank(&best.1, best.2) {
                *best = ((cell.metric, cell.part), taken, is_followed);
            }
        }
        replicas.values().for_each(|(part, taken, _)| sums.add(*part, taken, member, group.end_ms));
        member.settle_times(others_until_ms);
        if sums.reported {
            member.last_ms = sums.newest_ms.unwrap_or(member.last_ms).max(member.last_ms);
        }
        let was_gone = member.is_gone && !sums.reported;
        let is_gone = was_gone || has_ended || member.is_silent(group.step_ms, group.end_ms);
        member.is_gone = is_gone;
        step.add(group, member, sums);
        if is_gone && is_idle {
            self.stop_member(index);
        }
    }

    /// Marks the series that the next window waits for: those that reported in the current one. One whose clock is
    /// behind is late in every window and never waited for.
    fn mark_live(&mut self, group: &Group) {
        for member in group.members.iter().filter_map(|index| self.members.get(*index)) {
            for cell in &member.cells {
                let Some(cell) = self.cells.get_mut(*cell) else { continue };
                let is_current = cell.has_reported && cell.read_ms() > due_ms(member.interval_ms, group.begin_ms);
                cell.is_live = is_current && !cell.has_ended && !is_passive(cell.part);
            }
        }
    }
}

impl Step {
    fn add(&mut self, group: &Group, member: &mut Member, mut sums: Sums) {
        if !sums.reported {
            // Between two readings nothing is missing.
            match member.held.filter(|_| !member.is_gone && member.is_not_due(member.last_ms, group.end_ms)) {
                Some(held) if group.requests.is_some() => {
                    self.values.members += 1;
                    *self.traffic.get_or_insert_default() += held;
                }
                Some(held) => {
                    self.values.members += 1;
                    Group::hold_value(&mut self.values, held);
                }
                None => self.values.missing += u32::from(!member.is_gone),
            }
            return;
        }
        self.reported = true;
        self.values.members += 1;
        self.values.at_ms = self.values.at_ms.max(sums.newest_ms);
        self.covered_ms = self.covered_ms.max(sums.covered_ms);
        if group.requests.is_none() {
            member.held = group.add_value(&mut self.values, &sums);
            return;
        }
        let requests = &mut self.requests;
        for (all, own) in requests.sources.iter_mut().zip(&sums.sources) {
            all.exists |= own.exists;
            all.has_outcome |= own.has_outcome;
            all.total += own.total;
            all.failed += own.failed;
        }
        if sums.covered_ms > 0
            && let Some(source) = sums.sources.iter().find(|source| source.exists)
        {
            let rate = source.total * 1000.0 / sums.covered_ms as f64;
            *self.traffic.get_or_insert_default() += rate;
            member.held = Some(rate);
        }
        if let Some(failures) = sums.failures {
            *requests.failures.get_or_insert_default() += failures;
            requests.failures_per_second += sums.failures_per_second;
        }
        if let Some(duration) = sums.duration {
            *requests.duration.get_or_insert_default() += duration;
        }
        requests.buckets.append(&mut sums.buckets);
        if let Some((q, seconds)) = sums.quantile.filter(|(_, seconds)| seconds.is_finite()) {
            let worst = requests.quantile.filter(|(_, worst)| *worst >= seconds);
            requests.quantile = worst.or(Some((q, seconds)));
        }
    }
}
