//! What people did about an incident whose plan was not carried out: the other half of shadow mode.
//!
//! Telemetry shows changes of the entity at fault after the proposal: another version, another setting, another number
//! of instances, a restart. A new version and a setting usually restart a process, too, so the most telling change
//! counts. A process that crashes restarts by itself, so a restart counts only where a single one was seen.

use wardroom_domain::{Entity, Event, EventKind, Timestamp};

/// Parts of the names of operations, and the change that telemetry shows after them.
const OPERATIONS: [(&str, EventKind); 13] = [
    ("rollback", EventKind::Deployment),
    ("undo", EventKind::Deployment),
    ("revert", EventKind::Deployment),
    ("image", EventKind::Deployment),
    ("traffic", EventKind::Deployment),
    ("flag", EventKind::Flag),
    ("setting", EventKind::Setting),
    ("limit", EventKind::Setting),
    ("scale", EventKind::Scale),
    ("size", EventKind::Scale),
    ("restart", EventKind::Restart),
    ("delete", EventKind::Restart),
    ("reset", EventKind::Restart),
];
/// The most telling change first.
const CHANGES: [EventKind; 5] =
    [EventKind::Flag, EventKind::Setting, EventKind::Deployment, EventKind::Scale, EventKind::Restart];

/// Returns the change that telemetry shows after an operation; `None` if it shows none.
pub(crate) fn change_of(operation: &str) -> Option<EventKind> {
    OPERATIONS.iter().find(|(part, _)| operation.contains(part)).map(|(_, kind)| *kind)
}

/// Returns the most telling change of an entity since a time.
pub fn change_seen(events: &[Event], entity: &Entity, since: Timestamp) -> Option<EventKind> {
    let seen = |kind: EventKind| {
        let is_same = |event: &&Event| event.kind == kind && event.entity == *entity && event.at >= since;
        events.iter().filter(is_same).count()
    };
    CHANGES.into_iter().find(|kind| match seen(*kind) {
        0 => false,
        1 => true,
        _ => *kind != EventKind::Restart,
    })
}

#[cfg(test)]
mod tests {
    use wardroom_domain::Labels;

    use super::*;

    fn event(kind: EventKind, name: &str, second: i64) -> Event {
        let (entity, at) = (Entity::service(name), Timestamp::from_millis(second * 1000));
        Event { at, entity, kind, source: Event::INFERRED.into(), attributes: Labels::of(&[]) }
    }

    #[test]
    fn the_most_telling_change_of_the_entity_counts() {
        let since = Timestamp::from_millis(10_000);
        let cart = Entity::service("cart");
        let restart = || event(EventKind::Restart, "cart", 12);
        let cases = [
            (vec![], None),
            (vec![restart()], Some(EventKind::Restart)),
            (vec![restart(), event(EventKind::Deployment, "cart", 12)], Some(EventKind::Deployment)),
            (vec![restart(), event(EventKind::Restart, "cart", 14)], None),
            (vec![event(EventKind::Setting, "other", 12)], None),
            (vec![event(EventKind::Setting, "cart", 9)], None),
        ];
        for (events, expected) in cases {
            assert_eq!(change_seen(&events, &cart, since), expected, "{events:?}");
        }
    }

    #[test]
    fn operations_and_what_they_change() {
        let found = ["restart", "rollout_restart", "rollback", "set_image", "settings", "scale", "cancel_backend"];
        use EventKind as K;
        let expected = [Some(K::Restart), Some(K::Restart), Some(K::Deployment), Some(K::Deployment), Some(K::Setting)];
        assert_eq!(found.map(change_of)[..5], expected);
        assert_eq!(found.map(change_of)[5..], [Some(K::Scale), None]);
    }
}
