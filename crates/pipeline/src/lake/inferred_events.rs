//! Writes the events that detection infers to `silver.events`: deployments, restarts, kills, settings, scaling.
//!
//! What senders report comes from the bus by the event writer. An inferred event is of no request: it is known by its
//! id, and each id is written once (`wardroom_lake`). Detection keeps the newest ten thousand events in its checkpoint,
//! so that a restart writes what the last process did not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use wardroom_domain::{Event, EventKind, TenantId, Timestamp};
use wardroom_lake::{Error, Lake};

use crate::state::tenants::{SELF_TENANT, Tenants};

/// Detection replaces an inferred deployment by a better sign of it within this time of telemetry, in ms.
const SETTLED_MS: i64 = 240_000;
/// The same by the clock, where telemetry has ended.
const MAX_WAIT: Duration = Duration::from_secs(1800);

/// Writes inferred events, and remembers which.
#[derive(Debug, Default)]
pub struct InferredEventWriter {
    /// By tenant the events of detection that are in the table, by time and id; `None` if the table has to be asked.
    written: BTreeMap<TenantId, Option<BTreeSet<(Timestamp, String)>>>,
}

impl InferredEventWriter {
    /// Writes the new events of all tenants. `offset` is the bus offset up to which detection has processed.
    ///
    /// # Errors
    /// Returns an error if the table cannot be read or written; the next call tries again.
    pub async fn write(&mut self, lake: &Lake, tenants: &Tenants, offset: u64, now: Timestamp) -> Result<(), Error> {
        for (tenant, state) in tenants.all().into_iter().filter(|(tenant, _)| tenant.as_str() != SELF_TENANT) {
            let view = state.view();
            let settled_before = Timestamp::from_millis(view.engine.watermark_ms().saturating_sub(SETTLED_MS));
            let all = view.engine.events(Timestamp::from_nanos(i64::MIN), Timestamp::from_nanos(i64::MAX));
            let mut events: Vec<Event> = all.into_iter().filter(|event| event.source == Event::INFERRED).collect();
            events.retain(|event| is_settled(event, settled_before, now));
            let Some(oldest) = events.first().map(|event| event.at) else { continue };
            let written = self.written.entry(tenant.clone()).or_default();
            let known = match written.take() {
                Some(known) => known,
                None => {
                    let ids = lake.inferred_event_ids(&tenant, oldest).await?;
                    let is_written = |event: &&Event| ids.contains(&event.id());
                    events.iter().filter(is_written).map(|event| (event.at, event.id())).collect()
                }
            };
            // What detection has forgotten is not asked for again.
            let mut known: BTreeSet<_> = known.into_iter().filter(|(at, _)| *at >= oldest).collect();
            events.retain(|event| !known.contains(&(event.at, event.id())));
            if !events.is_empty() {
                // After an error `written` is `None`: the events may be in the table or not.
                lake.append_inferred_events(&tenant, &events, offset, now).await?;
                known.extend(events.iter().map(|event| (event.at, event.id())));
            }
            *written = Some(known);
        }
        Ok(())
    }
}

/// Returns whether detection will not replace an event any more.
fn is_settled(event: &Event, settled_before: Timestamp, now: Timestamp) -> bool {
    event.kind != EventKind::Deployment || event.at <= settled_before || event.at <= now.minus(MAX_WAIT)
}

#[cfg(test)]
mod tests {
    use wardroom_domain::{Batch, LogEntry, Severity};

    use super::*;
    use crate::config::Config;
    use crate::detection::evaluate::evaluate;

    const START_MS: i64 = 1_795_255_038_000;

    fn observe_setting(tenants: &Tenants, seconds: i64) {
        let at = Timestamp::from_millis(START_MS + seconds * 1000);
        let message = format!("config reloaded key=pool.size from=50 to={}", 51 + seconds);
        let (service, labels) = ("web".to_owned(), wardroom_domain::Labels::default());
        let log = LogEntry { at, severity: Severity::Info, message, service, labels };
        let batch = Batch { received_at: Some(at), logs: vec![log], ..Batch::default() };
        drop(evaluate(&Config::default(), &tenants.get(&TenantId::main()), &batch));
    }

    async fn ids(lake: &Lake) -> usize {
        lake.inferred_event_ids(&TenantId::main(), Timestamp::from_millis(0)).await.unwrap().len()
    }

    #[tokio::test]
    async fn each_event_is_written_once_also_by_the_next_process() {
        let dir = tempfile::tempdir().unwrap();
        let lake = Lake::open(&wardroom_lake::Config::default(), dir.path()).await.unwrap();
        let (tenants, now) = (Tenants::new(Config::default()), Timestamp::from_millis(START_MS + 100_000));
        let mut writer = InferredEventWriter::default();
        writer.write(&lake, &tenants, 1, now).await.unwrap();
        let mut expected = 0;
        for seconds in 0..3 {
            observe_setting(&tenants, seconds);
            expected += 1;
            for _ in 0..2 {
                writer.write(&lake, &tenants, 2, now).await.unwrap();
                let usage = lake.table_usage(&TenantId::main(), now).await.unwrap();
                let rows = usage.iter().find(|found| found.table == "silver.events").map(|found| found.rows);
                assert_eq!(rows, Some(expected));
            }
            // A process that has detection's checkpoint and has not written anything.
            writer = InferredEventWriter::default();
        }
        assert_eq!(ids(&lake).await as u64, expected);
    }

    #[test]
    fn an_inferred_deployment_waits_for_a_better_sign() {
        let event = |kind| Event {
            at: Timestamp::from_millis(START_MS),
            entity: wardroom_domain::Entity::service("web"),
            kind,
            source: Event::INFERRED.to_owned(),
            attributes: wardroom_domain::Labels::default(),
        };
        let at = |seconds: i64| Timestamp::from_millis(START_MS + seconds * 1000);
        let is_settled = |kind, settled_before, now| is_settled(&event(kind), at(settled_before), at(now));
        assert!(is_settled(EventKind::Restart, -240, 0));
        assert!(!is_settled(EventKind::Deployment, -1, 239));
        assert!(is_settled(EventKind::Deployment, 0, 240));
        assert!(is_settled(EventKind::Deployment, -1, 1800), "nothing more arrives");
    }
}
