//! How the windows of a group begin: the pace of its members must be known first.

use super::cell::is_passive;
use super::group::Group;
use super::maker::PointMaker;
use super::member::{Member, due_ms};

/// A group begins this long after its first reading, so that readings of the same scrape that come late are in its
/// first window, in ms.
pub(super) const START_GRACE_MS: i64 = 15_000;
/// Members whose first reading is within this time after that of the group decide on its first step, in ms.
const FIRST_MEMBERS_MS: i64 = 5_000;
/// Longest time that a group waits for the second readings of its first members, which show their interval, in ms.
const MAX_START_MS: i64 = 150_000;

impl PointMaker {
    /// Begins the first window once the interval of the first members is known.
    pub(super) fn start(&mut self, group: &mut Group, now_ms: i64) {
        let members = || group.members.iter().filter_map(|index| self.members.get(*index));
        let Some(first_ms) = members().map(|member| member.oldest_ms).filter(|oldest_ms| *oldest_ms < i64::MAX).min()
        else {
            return self.start_stream(group);
        };
        let mut step_ms = self.settings.window_ms;
        let mut deadline_ms = first_ms + START_GRACE_MS;
        for member in members().filter(|member| is_first(member, first_ms)) {
            match member.first_gap_ms(first_ms + MAX_START_MS) {
                Some(gap_ms) => step_ms = step_ms.max(gap_ms),
                None => deadline_ms = first_ms + MAX_START_MS,
            }
        }
        let begin_ms = (first_ms + step_ms - 1).div_euclid(step_ms) * step_ms;
        if now_ms < deadline_ms {
            group.deadline_ms = deadline_ms;
        } else if now_ms < begin_ms + START_GRACE_MS && !self.has_begun(group, first_ms, begin_ms) {
            // Looked at again with the next reading.
            group.deadline_ms = now_ms;
        } else {
            self.begin(group, first_ms, begin_ms);
            group.step_ms = step_ms;
            group.begin_window(begin_ms);
            self.begin_members(group);
        }
    }

    /// Takes what was read before the first window.
    fn begin(&mut self, group: &mut Group, first_ms: i64, begin_ms: i64) {
        (group.is_started, group.last_read_ms) = (true, begin_ms);
        for index in &group.members {
            let Some(member) = self.members.get_mut(*index) else { continue };
            if is_first(member, first_ms) {
                member.interval_ms = member.first_gap_ms(first_ms + MAX_START_MS).unwrap_or_default();
            }
            member.begin_window(first_ms, begin_ms);
            for cell in &member.cells {
                let Some(cell) = self.cells.get_mut(*cell) else { continue };
                let oldest_ms = cell.oldest_pending_ms().unwrap_or(i64::MAX);
                let reported = cell.take(first_ms, member.due_ms, begin_ms).reported;
                cell.is_live = (reported || oldest_ms <= first_ms + FIRST_MEMBERS_MS) && !is_passive(cell.part);
                if reported && cell.is_live {
                    member.last_ms = member.last_ms.max(cell.read_ms());
                    member.is_gone = false;
                }
            }
            member.settle_times(begin_ms);
        }
    }

    /// Returns whether the first series have their last reading before the first window.
    fn has_begun(&self, group: &Group, first_ms: i64, begin_ms: i64) -> bool {
        let mut members = group.members.iter().filter_map(|index| self.members.get(*index));
        members.all(|member| {
            let due_ms = due_ms(member.first_gap_ms(first_ms + MAX_START_MS).unwrap_or_default(), begin_ms);
            let mut cells = member.cells.iter().filter_map(|cell| self.cells.get(*cell));
            cells.all(|cell| {
                let oldest_ms = cell.oldest_pending_ms().unwrap_or(i64::MAX);
                oldest_ms > first_ms + FIRST_MEMBERS_MS || cell.closing(due_ms).is_some()
            })
        })
    }
}

/// Returns whether a member is one of those that decide on the first step of its group.
const fn is_first(member: &Member, first_ms: i64) -> bool {
    member.oldest_ms <= first_ms + FIRST_MEMBERS_MS
}
