//! Events (D19): deployments, settings, scaling, alerts, CI runs and chain events are one type, with one way through.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::batch::Deployment;
use crate::canonical::sha256_hex;
use crate::entity::Entity;
use crate::labels::Labels;
use crate::time::Timestamp;

/// Attribute with the version of a deployment.
pub const DEPLOYED_VERSION: &str = "version";
/// Attribute with the state of a deployment.
pub const DEPLOYED_STATUS: &str = "status";
/// Length of an event's id, in hexadecimal digits.
const ID_DIGITS: usize = 16;

/// The kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A version of something began to run.
    Deployment,
    /// A process or container started again.
    Restart,
    /// A container was killed because its memory limit was reached.
    OomKill,
    /// A setting changed.
    Setting,
    /// The number of instances changed.
    Scale,
    /// An alert of another system fired or ended.
    Alert,
    /// A CI run or job ended.
    CiRun,
    /// An event of the Kubernetes API.
    Kubernetes,
    /// A feature flag changed.
    Flag,
    /// An event of a blockchain.
    Chain,
}

impl EventKind {
    /// Returns the spelling in JSON and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "deployment",
            Self::Restart => "restart",
            Self::OomKill => "oom_kill",
            Self::Setting => "setting",
            Self::Scale => "scale",
            Self::Alert => "alert",
            Self::CiRun => "ci_run",
            Self::Kubernetes => "kubernetes",
            Self::Flag => "flag",
            Self::Chain => "chain",
        }
    }
}

/// One event: something that happened once, at a low rate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Event {
    /// When it happened.
    pub at: Timestamp,
    /// What it happened to.
    pub entity: Entity,
    /// The kind.
    pub kind: EventKind,
    /// Who says so: `ingest` (a sender's API call), `inferred` (from metrics, traces or logs), or the protocol's name.
    pub source: String,
    /// Details: `version`, `previous_version`, `status`, `key`, `from`, `to`, `reason`, … Untrusted text.
    pub attributes: Labels,
}

impl Event {
    /// Source of events that a sender reports.
    pub const REPORTED: &'static str = "ingest";
    /// Source of events that metrics, traces or logs show.
    pub const INFERRED: &'static str = "inferred";

    /// Returns the id: 16 hexadecimal digits, equal for equal events, also in other builds and processes.
    pub fn id(&self) -> String {
        let Self { at, entity, kind, source, attributes } = self;
        let at = at.nanos().to_string();
        let names = [&entity.cluster, &entity.environment, &entity.namespace, &entity.name, source];
        let words = [at.as_str(), entity.kind.as_str(), kind.as_str()];
        let mut bytes = Vec::new();
        for part in words.into_iter().chain(names.into_iter().map(String::as_str)) {
            bytes.extend_from_slice(part.as_bytes());
            // A byte that no text has ends each part.
            bytes.push(0xff);
        }
        for (name, value) in attributes.iter() {
            for part in [name, value] {
                bytes.extend_from_slice(part.as_bytes());
                bytes.push(0xff);
            }
        }
        let mut id = sha256_hex(&bytes);
        id.truncate(ID_DIGITS);
        id
    }
}

impl Deployment {
    /// Returns the event of a deployment that a sender reports.
    pub fn event(&self) -> Event {
        let mut attributes = vec![(DEPLOYED_VERSION, self.version.as_str()), (DEPLOYED_STATUS, self.status.as_str())];
        attributes.extend(self.metadata.iter());
        Event {
            at: self.at,
            entity: Entity::service(self.service.clone()),
            kind: EventKind::Deployment,
            source: Event::REPORTED.to_owned(),
            attributes: Labels::new(attributes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_events_have_one_id_and_different_ones_two() {
        let deployment = Deployment {
            at: Timestamp::from_millis(1_795_255_038_000),
            service: "web".into(),
            version: "2".into(),
            status: "success".into(),
            metadata: Labels::of(&[("team", "a")]),
        };
        let event = deployment.event();
        // Tables have it: a change of the function would write events twice after an upgrade.
        assert_eq!(event.id(), "f92df169d5c8d371");
        let in_prod = Event { entity: Entity { environment: "prod".into(), ..event.entity.clone() }, ..event.clone() };
        let moved = Event { entity: Entity { namespace: "prod".into(), ..event.entity.clone() }, ..event.clone() };
        let restart = Event { kind: EventKind::Restart, ..event.clone() };
        let ids = [&event, &in_prod, &moved, &restart].map(Event::id);
        assert!((1..4).all(|n| !ids[..n].contains(&ids[n])), "{ids:?}");
    }
}
