//! Signals: what a group of series says about an entity (D18).

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::entity::{Entity, EntityKind};
use crate::labels::{Labels, NAME_LABEL};

/// The kind of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SignalKind {
    /// Share of instances, replicas or probes that are up, 0..1.
    Availability,
    /// Share of requests that fail, 0..1; for a counter of failures alone, failures per second.
    Errors,
    /// Duration of requests, in seconds: the 99th percentile, or the mean where there are no buckets.
    Latency,
    /// Requests per second.
    Traffic,
    /// Use of a limited resource, as a share of its limit (0..1) where a limit is known, otherwise in its own unit.
    Saturation,
    /// Work that waits: items of a queue, lag of a consumer.
    Queue,
    /// Restarts and kills, as a count within the window.
    Restarts,
    /// Age of the newest success, in seconds.
    Freshness,
    /// Time until something expires, in seconds.
    Expiry,
    /// Error lines of a log, per second.
    Logs,
    /// Any other measurement that is watched against its own past only.
    Other,
}

impl SignalKind {
    /// All kinds.
    pub const ALL: [Self; 11] = [
        Self::Availability,
        Self::Errors,
        Self::Latency,
        Self::Traffic,
        Self::Saturation,
        Self::Queue,
        Self::Restarts,
        Self::Freshness,
        Self::Expiry,
        Self::Logs,
        Self::Other,
    ];

    /// Returns the spelling in JSON and in the name `signal:<kind>`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Availability => "availability",
            Self::Errors => "errors",
            Self::Latency => "latency",
            Self::Traffic => "traffic",
            Self::Saturation => "saturation",
            Self::Queue => "queue",
            Self::Restarts => "restarts",
            Self::Freshness => "freshness",
            Self::Expiry => "expiry",
            Self::Logs => "logs",
            Self::Other => "other",
        }
    }

    /// Parses a kind.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

impl fmt::Display for SignalKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Identifies one signal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SignalId {
    /// What the signal is about; for outgoing calls, the caller.
    pub entity: Entity,
    /// The other end, for signals of outgoing calls; `None` for what the entity itself does.
    pub peer: Option<Entity>,
    /// The kind.
    pub kind: SignalKind,
    /// What is measured, where a kind has several: `cpu`, `memory`, `connections`, `disk`, …; empty if it has one.
    pub resource: String,
    /// The metric family, or `spans` or `logs`.
    pub metric: String,
}

impl SignalId {
    /// Returns the labels used in anomalies, tables and the API; the metric name is `signal:<kind>`, and `service` has
    /// the entity's name whatever its kind.
    pub fn labels(&self) -> Labels {
        let entity = &self.entity;
        let mut pairs = vec![
            (NAME_LABEL, format!("signal:{}", self.kind.as_str())),
            ("entity_kind", entity.kind.as_str().to_owned()),
            ("cluster", entity.cluster.clone()),
            ("environment", entity.environment.clone()),
            ("namespace", entity.namespace.clone()),
            ("service", entity.name.clone()),
            ("resource", self.resource.clone()),
            ("metric", self.metric.clone()),
        ];
        if let Some(peer) = &self.peer {
            pairs.extend([
                ("peer_kind", peer.kind.as_str().to_owned()),
                ("peer_cluster", peer.cluster.clone()),
                ("peer_environment", peer.environment.clone()),
                ("peer_namespace", peer.namespace.clone()),
                ("peer_service", peer.name.clone()),
            ]);
        }
        Labels::new(pairs)
    }

    /// Returns the id with these labels, as [`SignalId::labels`] returns them; `None` for any other label set.
    pub fn from_labels(labels: &Labels) -> Option<Self> {
        let kind = SignalKind::parse(labels.name().strip_prefix("signal:")?)?;
        let text = |name: &str| labels.get(name).unwrap_or_default().to_owned();
        let entity = |kind: EntityKind, prefix: &str, name: &str| Entity {
            kind,
            cluster: text(&format!("{prefix}cluster")),
            environment: text(&format!("{prefix}environment")),
            namespace: text(&format!("{prefix}namespace")),
            name: text(name),
        };
        let peer_kind = labels.get("peer_kind").and_then(EntityKind::parse);
        Some(Self {
            entity: entity(EntityKind::parse(labels.get("entity_kind")?)?, "", "service"),
            peer: peer_kind.map(|kind| entity(kind, "peer_", "peer_service")),
            kind,
            resource: text("resource"),
            metric: text("metric"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_found_by_its_labels() {
        for kind in SignalKind::ALL {
            assert_eq!(SignalKind::parse(kind.as_str()), Some(kind));
            for peer in [None, Some(Entity::named(EntityKind::Cache, "redis"))] {
                let entity = Entity { namespace: "shop".into(), ..Entity::service("orders") };
                let id = SignalId { entity, peer, kind, resource: "cpu".into(), metric: "m".into() };
                assert_eq!(SignalId::from_labels(&id.labels()), Some(id));
            }
        }
        assert_eq!(SignalId::from_labels(&Labels::of(&[("__name__", "signal:none")])), None);
    }
}
