//! A diagnosis: ranked causes and the evidence for each.

use serde::{Deserialize, Serialize};

use crate::entity::Entity;
use crate::severity::Severity;
use crate::time::Timestamp;

/// Rule id of a cause whose mechanism no rule explains.
pub const UNKNOWN_RULE: &str = "unknown";

/// One observation with a stable id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "EvidenceJson", into = "EvidenceJson")]
pub struct Evidence {
    /// `signal:…`, `event:…`, `log:…`, `finding:…`: unique within the incident.
    pub id: String,
    /// What the observation is about.
    pub entity: Entity,
    /// Time of the observation.
    pub at: Timestamp,
    /// One-line summary. May quote telemetry: untrusted text.
    pub summary: String,
}

/// One candidate cause.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "CauseJson", into = "CauseJson")]
pub struct Cause {
    /// The entity at fault.
    pub entity: Entity,
    /// Id of the rule that names the mechanism, such as `connection-leak`; [`UNKNOWN_RULE`] if none fits.
    pub rule: String,
    /// Confidence, 0..1.
    pub confidence: f64,
    /// Explanation in one or two sentences, based only on the evidence below.
    pub reasoning: String,
    /// Ids of the [`Evidence`] in the same diagnosis.
    pub evidence: Vec<String>,
    /// Version of a deployment of the entity shortly before, if any.
    pub deployment: Option<String>,
    /// A changed setting that explains the failure: (key, old value, new value).
    pub setting: Option<(String, String, String)>,
    /// What a person should check next, most useful first.
    pub next_checks: Vec<String>,
    /// Why no action may be proposed although the cause ranks high, such as a dependency that cannot be seen.
    pub reservation: Option<String>,
}

impl Cause {
    /// Creates a cause without explanation and evidence.
    pub fn new(entity: Entity, rule: impl Into<String>, confidence: f64) -> Self {
        Self {
            entity,
            rule: rule.into(),
            confidence,
            reasoning: String::new(),
            evidence: Vec::new(),
            deployment: None,
            setting: None,
            next_checks: Vec::new(),
            reservation: None,
        }
    }
}

/// Ranked causes of an incident, best first. An empty list is a valid result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// Causes, best first; may be empty.
    pub causes: Vec<Cause>,
    /// The evidence that the causes refer to.
    pub evidence: Vec<Evidence>,
    /// Severity of the impact on users.
    pub severity: Severity,
    /// Description of the impact.
    pub impact: String,
}

impl Diagnosis {
    /// Returns the best cause.
    pub fn best(&self) -> Option<&Cause> {
        self.causes.first()
    }
}

/// The persisted form of [`Evidence`]. Builds before entities wrote `service` only; it is still written for one
/// version.
#[derive(Serialize, Deserialize)]
struct EvidenceJson {
    id: String,
    #[serde(default)]
    service: String,
    #[serde(default)]
    entity: Option<Entity>,
    at: Timestamp,
    summary: String,
}

impl From<Evidence> for EvidenceJson {
    fn from(Evidence { id, entity, at, summary }: Evidence) -> Self {
        Self { id, service: entity.name.clone(), entity: Some(entity), at, summary }
    }
}

impl From<EvidenceJson> for Evidence {
    fn from(json: EvidenceJson) -> Self {
        let EvidenceJson { id, service, entity, at, summary } = json;
        Self { id, entity: entity.unwrap_or_else(|| Entity::service(service)), at, summary }
    }
}

/// The persisted form of [`Cause`]. Builds before entities wrote `service` and `kind`, the names of six kinds of fault
/// that are now rule ids; both are still written for one version.
#[derive(Serialize, Deserialize)]
struct CauseJson {
    #[serde(default)]
    service: String,
    #[serde(default)]
    entity: Option<Entity>,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    rule: Option<String>,
    confidence: f64,
    reasoning: String,
    evidence: Vec<String>,
    deployment: Option<String>,
    setting: Option<(String, String, String)>,
    #[serde(default)]
    next_checks: Vec<String>,
    #[serde(default)]
    reservation: Option<String>,
}

impl From<Cause> for CauseJson {
    fn from(cause: Cause) -> Self {
        Self {
            service: cause.entity.name.clone(),
            entity: Some(cause.entity),
            kind: cause.rule.clone(),
            rule: Some(cause.rule),
            confidence: cause.confidence,
            reasoning: cause.reasoning,
            evidence: cause.evidence,
            deployment: cause.deployment,
            setting: cause.setting,
            next_checks: cause.next_checks,
            reservation: cause.reservation,
        }
    }
}

impl From<CauseJson> for Cause {
    fn from(json: CauseJson) -> Self {
        Self {
            entity: json.entity.unwrap_or_else(|| Entity::service(json.service)),
            rule: json.rule.unwrap_or(json.kind),
            confidence: json.confidence,
            reasoning: json.reasoning,
            evidence: json.evidence,
            deployment: json.deployment,
            setting: json.setting,
            next_checks: json.next_checks,
            reservation: json.reservation,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::EntityKind;

    /// As written by the build before entities.
    const FORMER: &str = r#"{"causes":[{"service":"cart","kind":"connection-leak","confidence":0.91,"reasoning":"r",
        "evidence":["signal:cart:errors"],"deployment":"2.0","setting":null}],"evidence":[{"id":"signal:cart:errors",
        "service":"cart","at":1795255200000000000,"summary":"31 % of requests fail"}],"severity":"critical",
        "impact":"Requests fail at cart."}"#;

    #[test]
    fn a_diagnosis_of_the_build_before_is_read() {
        let at = serde_json::to_value(Timestamp::from_millis(1_795_255_200_000)).unwrap().to_string();
        let diagnosis: Diagnosis = serde_json::from_str(&FORMER.replace("1795255200000000000", &at)).unwrap();
        let best = diagnosis.best().unwrap();
        assert_eq!((&best.entity, best.rule.as_str()), (&Entity::service("cart"), "connection-leak"));
        assert_eq!(diagnosis.evidence[0].entity, Entity::service("cart"));
    }

    #[test]
    fn entity_and_rule_survive_and_the_former_fields_are_written() {
        let entity = Entity { environment: "prod".into(), ..Entity::named(EntityKind::Database, "db-1") };
        let cause = Cause::new(entity.clone(), "disk-full", 0.7);
        let json = serde_json::to_value(&cause).unwrap();
        assert_eq!((json["service"].as_str(), json["kind"].as_str()), (Some("db-1"), Some("disk-full")));
        assert_eq!(serde_json::from_value::<Cause>(json).unwrap(), cause);
    }
}
