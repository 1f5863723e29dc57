//! One group of series: all members' series of one family about one entity, and its windows.

use serde::{Deserialize, Serialize};
use wardroom_domain::{Entity, SignalKind};
use wardroom_signals::{Direction, SignalUnit};

use super::cell::NEVER;
use super::request_windows::RequestWindows;
use super::stream::Stream;
use super::sums::{MemberValue, Sums};
use crate::point::{Flow, Point};

/// Longest step of the windows, in ms.
pub(super) const MAX_STEP_MS: i64 = 600_000;
/// Bounds of the time that a window waits for readings after its end, in ms of the entity's time. Senders cut a scrape
/// into requests and send them within seconds.
const GRACE_MS: (i64, i64) = (10_000, 60_000);

/// What a group is about: entity, called entity, kind, resource, family.
pub(super) type GroupKey = (u32, Option<Entity>, SignalKind, String, String);

/// One group of series.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Group {
    pub(super) key: GroupKey,
    pub(super) unit: SignalUnit,
    pub(super) direction: Direction,
    /// Members that report, or did so lately.
    pub(super) members: Vec<u32>,
    /// Number of all members.
    pub(super) known_members: u32,
    pub(super) is_started: bool,
    /// Step of the windows, in ms.
    pub(super) step_ms: i64,
    /// Current window, in ms.
    pub(super) begin_ms: i64,
    pub(super) end_ms: i64,
    /// The entity's time at which the group is looked at if nothing happened before, in ms.
    pub(super) deadline_ms: i64,
    /// Members with series that the window still waits for.
    pub(super) waiting: u32,
    /// Whether the window waits, or waited, for any series.
    pub(super) is_waiting: bool,
    /// Time of the newest reading in a window that is over, in ms.
    pub(super) last_read_ms: i64,
    /// Whether values are shares of limits.
    has_share: bool,
    /// Time of the newest point, in ms.
    last_at_ms: i64,
    /// Set if it counts requests.
    pub(super) requests: Option<Box<RequestWindows>>,
    /// Set if its requests arrive one by one.
    pub(super) stream: Option<Box<Stream>>,
}

/// The values of the members in one window.
#[derive(Debug, Default)]
pub(super) struct ValueStep {
    /// Time of the newest reading, in ms.
    pub(super) at_ms: Option<i64>,
    pub(super) members: u32,
    pub(super) missing: u32,
    values: Vec<MemberValue>,
    /// What goes through the queue of the member with the most work.
    flow: Option<(f64, Flow)>,
    is_mean: bool,
}

impl Group {
    pub(super) fn new(key: GroupKey, unit: SignalUnit, direction: Direction) -> Self {
        Self {
            key,
            unit,
            direction,
            members: Vec::new(),
            known_members: 0,
            is_started: false,
            step_ms: MAX_STEP_MS,
            begin_ms: NEVER,
            end_ms: NEVER,
            deadline_ms: i64::MAX,
            waiting: 0,
            is_waiting: false,
            last_read_ms: NEVER,
            has_share: false,
            last_at_ms: NEVER,
            requests: None,
            stream: None,
        }
    }

    /// Begins the window that ends with the first multiple of the step that is at least a step away.
    pub(super) fn begin_window(&mut self, begin_ms: i64) {
        let step_ms = self.step_ms;
        self.begin_ms = begin_ms;
        self.end_ms = (begin_ms + step_ms).div_euclid(step_ms) * step_ms;
        if self.end_ms < begin_ms + step_ms {
            self.end_ms += step_ms;
        }
        self.deadline_ms = self.end_ms + step_ms.clamp(GRACE_MS.0, GRACE_MS.1);
    }

    /// Returns the time of a point and the length of its window, given its newest reading.
    pub(super) fn point_time(&mut self, newest_ms: i64, covered_ms: i64) -> (i64, i64) {
        let step_ms = self.step_ms;
        let at_ms = newest_ms.max(self.last_at_ms.saturating_add(1));
        let since_ms = at_ms.saturating_sub(self.last_at_ms);
        self.last_at_ms = at_ms;
        (at_ms, if since_ms <= 2 * step_ms { since_ms } else { step_ms.max(covered_ms) })
    }

    /// Adds the value of a member that reported.
    pub(super) fn add_value(&self, step: &mut ValueStep, sums: &Sums) -> Option<f64> {
        let value = sums.value(self.key.2, self.unit)?;
        step.values.push(value);
        let (added, drained) = sums.flow();
        if (added.is_some() || drained.is_some()) && step.flow.is_none_or(|(most, _)| value.value > most) {
            step.flow = Some((value.value, Flow { added, drained }));
        }
        step.is_mean |= sums.is_up();
        // A share is not held: whether it is one must not depend on the window.
        (!value.is_share && value.limit.is_none()).then_some(value.value)
    }

    /// Adds the value that a member had before, since no reading was due in this window.
    pub(super) fn hold_value(step: &mut ValueStep, value: f64) {
        step.values.push(MemberValue { value, limit: None, is_share: false });
    }

    /// Returns the value of the group, and whether it is a share of a limit.
    pub(super) fn value_point(&mut self, step: ValueStep, covered_ms: i64) -> Option<(bool, Point)> {
        self.has_share |= step.values.iter().any(|value| value.is_share);
        let newest_ms = step.at_ms?;
        let is_share = self.has_share;
        let values = step.values.iter().filter(|value| value.is_share == is_share);
        let worst = |a: &MemberValue, b: &MemberValue| {
            if self.direction == Direction::Low && !is_share { b.value < a.value } else { b.value > a.value }
        };
        let sum = |values: &mut dyn Iterator<Item = &MemberValue>| values.map(|value| value.value).sum::<f64>();
        let result = match self.key.2 {
            SignalKind::Traffic | SignalKind::Restarts => (values.clone().next().is_some()).then(|| MemberValue {
                value: sum(&mut values.clone()),
                limit: None,
                is_share: false,
            }),
            SignalKind::Availability if step.is_mean => {
                let count = values.clone().count();
                (count > 0).then(|| MemberValue {
                    value: sum(&mut values.clone()) / count as f64,
                    limit: None,
                    is_share: false,
                })
            }
            _ => values.copied().reduce(|a, b| if worst(&a, &b) { b } else { a }),
        }?;
        let (at_ms, window_ms) = self.point_time(newest_ms, covered_ms);
        let point = Point {
            at_ms,
            window_ms,
            value: result.value,
            limit: result.limit,
            members: step.members,
            missing: step.missing,
            flow: step.flow.map(|(_, flow)| flow),
            requests: None,
            tail: None,
        };
        Some((is_share, point))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group() -> Group {
        let key = (0, None, SignalKind::Saturation, String::new(), "m".to_owned());
        Group::new(key, SignalUnit::Number, Direction::High)
    }

    #[test]
    fn windows_end_at_multiples_of_the_step_and_are_not_shorter() {
        let mut group = group();
        for (begin_ms, step_ms, end_ms) in [(0, 15, 15), (15, 15, 30), (30, 60, 120), (120, 60, 180), (7, 5, 15)] {
            group.step_ms = step_ms * 1000;
            group.begin_window(begin_ms * 1000);
            assert_eq!(group.end_ms, end_ms * 1000, "{begin_ms} {step_ms}");
        }
    }

    #[test]
    fn times_of_points_rise() {
        let mut group = group();
        group.step_ms = 15_000;
        group.begin_window(0);
        assert_eq!(group.point_time(14_000, 0), (14_000, 15_000));
        assert_eq!(group.point_time(29_000, 0), (29_000, 15_000));
        assert_eq!(group.point_time(20_000, 0).0, 29_001);
        assert_eq!(group.point_time(600_000, 570_000), (600_000, 570_000));
    }
}
