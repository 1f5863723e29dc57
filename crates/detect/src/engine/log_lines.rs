//! Log lines and reported deployments.

use wardroom_domain::{Deployment, Entity, Event, EventKind, Labels, LogEntry};

use super::state::Engine;
use crate::events::INFERRED;
use crate::logs::setting_change;

/// Log lines of one resource are reported to the graph again after this time, in ms of telemetry's time.
const RESOURCE_INTERVAL_MS: i64 = 60_000;
/// Resources of log lines that are remembered; all are forgotten beyond.
const MAX_RESOURCES: usize = 2000;

impl Engine {
    /// Adds one log line.
    pub fn observe_log(&mut self, log: &LogEntry) {
        let at_ms = log.at.millis().min(self.cap_ms);
        let entity = self.entity_of_log(log, at_ms);
        self.limited.log_templates += u64::from(!self.logs.observe(&entity, log, at_ms));
        if let Some(change) = setting_change(&entity.name, &log.message) {
            let attributes = Labels::of(&[("key", &change.key), ("from", &change.from), ("to", &change.to)]);
            let at = log.at.min(wardroom_domain::Timestamp::from_millis(self.cap_ms));
            self.events.insert(Event { at, entity, kind: EventKind::Setting, source: INFERRED.to_owned(), attributes });
        }
        self.advance_watermark(at_ms);
    }

    /// Returns what wrote a line: by its attributes, and by the service that its protocol names.
    fn entity_of_log(&mut self, log: &LogEntry, at_ms: i64) -> Entity {
        if log.labels.as_bytes().is_empty() {
            return Entity::service(log.service.clone());
        }
        let key = (log.service.clone(), log.labels.clone());
        if let Some((entity, _)) = self
            .log_resources
            .get(&key)
            .filter(|(_, observed_ms)| at_ms < observed_ms.saturating_add(RESOURCE_INTERVAL_MS))
        {
            return entity.clone();
        }
        let found = self.catalog.resource_of_log(log);
        let entity = found.entity.unwrap_or_default();
        if !entity.is_empty() {
            self.graph.observe(&entity, &found.aliases, &found.relations, at_ms);
        }
        if self.log_resources.len() >= MAX_RESOURCES {
            self.log_resources.clear();
        }
        self.log_resources.insert(key, (entity.clone(), at_ms));
        entity
    }

    /// Adds one deployment.
    pub fn observe_deployment(&mut self, deployment: &Deployment) {
        self.advance_watermark(deployment.at.millis().min(self.cap_ms));
        self.events.insert(deployment.event());
    }
}
