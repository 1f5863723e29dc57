//! Which incidents are due, found without looking at the others.

use std::collections::{BTreeMap, BTreeSet};

use wardroom_domain::{TenantId, Timestamp};

use crate::due::Due;

/// Tenant and key of an incident.
pub type IncidentId = (TenantId, String);

/// When each incident is due.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    dues: BTreeMap<IncidentId, Due>,
    by_time: BTreeSet<(Timestamp, IncidentId)>,
    /// Every tenant's telemetry has a time of its own.
    by_watermark: BTreeMap<TenantId, BTreeSet<(i64, String)>>,
}

impl Schedule {
    /// Notes when an incident is due, in place of what was noted before.
    pub fn set(&mut self, id: &IncidentId, due: Due) {
        self.remove(id);
        if due == Due::NEVER {
            return;
        }
        if let Some(at) = due.at {
            self.by_time.insert((at, id.clone()));
        }
        if let Some(due_ms) = due.watermark_ms {
            self.by_watermark.entry(id.0.clone()).or_default().insert((due_ms, id.1.clone()));
        }
        self.dues.insert(id.clone(), due);
    }

    /// Forgets an incident.
    pub fn remove(&mut self, id: &IncidentId) {
        let Some(due) = self.dues.remove(id) else { return };
        if let Some(at) = due.at {
            self.by_time.remove(&(at, id.clone()));
        }
        if let (Some(due_ms), Some(times)) = (due.watermark_ms, self.by_watermark.get_mut(&id.0)) {
            times.remove(&(due_ms, id.1.clone()));
            if times.is_empty() {
                self.by_watermark.remove(&id.0);
            }
        }
    }

    /// Returns the incidents that are due. `watermark_of` returns the telemetry time of a tenant, in ms; it is called
    /// once for each tenant for which that counts.
    pub fn due(&self, now: Timestamp, mut watermark_of: impl FnMut(&TenantId) -> i64) -> BTreeSet<IncidentId> {
        let past = self.by_time.iter().take_while(|(at, _)| *at <= now);
        let mut due: BTreeSet<IncidentId> = past.map(|(_, id)| id.clone()).collect();
        for (tenant, times) in &self.by_watermark {
            let watermark_ms = watermark_of(tenant);
            let past = times.iter().take_while(|(due_ms, _)| *due_ms <= watermark_ms);
            due.extend(past.map(|(_, key)| (tenant.clone(), key.clone())));
        }
        due
    }

    /// Returns the earliest wall time at which one is due.
    pub fn next_at(&self) -> Option<Timestamp> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Returns whether one is due at a telemetry time.
    pub fn waits_for_telemetry(&self) -> bool {
        !self.by_watermark.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_due() -> impl Strategy<Value = Due> {
        (proptest::option::of(0_i64..50), proptest::option::of(0_i64..50))
            .prop_map(|(at, watermark_ms)| Due { at: at.map(Timestamp::from_millis), watermark_ms })
    }

    fn any_id() -> impl Strategy<Value = IncidentId> {
        (0_u8..3, 0_u8..6).prop_map(|(tenant, key)| (TenantId::new(format!("t{tenant}")).unwrap(), format!("k{key}")))
    }

    proptest! {
        /// It finds what a look at every incident would find, whatever was noted and forgotten before.
        #[test]
        fn it_finds_what_a_look_at_every_incident_finds(
            changes in proptest::collection::vec((any_id(), proptest::option::of(any_due())), 0..60),
            now in 0_i64..50,
            watermarks in proptest::array::uniform3(0_i64..50),
        ) {
            let (mut schedule, mut model) = (Schedule::default(), BTreeMap::new());
            for (id, due) in changes {
                match due {
                    Some(due) => {
                        schedule.set(&id, due);
                        model.insert(id, due);
                    }
                    None => {
                        schedule.remove(&id);
                        model.remove(&id);
                    }
                }
            }
            let now = Timestamp::from_millis(now);
            let watermark_of = |tenant: &TenantId| {
                let number: usize = tenant.as_str().trim_start_matches('t').parse().unwrap();
                watermarks[number]
            };
            let expected: BTreeSet<IncidentId> =
                model.iter().filter(|(id, due)| due.is_past(now, watermark_of(&id.0))).map(|(id, _)| id.clone()).collect();
            prop_assert_eq!(schedule.due(now, watermark_of), expected);
            prop_assert_eq!(schedule.next_at(), model.values().filter_map(|due| due.at).min());
            prop_assert_eq!(schedule.waits_for_telemetry(), model.values().any(|due| due.watermark_ms.is_some()));
            for id in model.keys() {
                schedule.remove(id);
            }
            prop_assert_eq!(schedule, Schedule::default(), "nothing is left behind");
        }
    }
}
