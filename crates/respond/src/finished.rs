//! What is kept of an incident that has ended, for later training: what was seen, what was approved, what came of it.
//!
//! One row an incident, replaced when a person gives a verdict. It has no telemetry, only what the diagnosis cited.

use serde::{Deserialize, Serialize};
use wardroom_domain::{
    Cause, Entity, EventKind, IncidentState, Outcome, PolicyDecision, Principal, Severity, Timestamp, ToolCall,
    UNKNOWN_RULE,
};

use crate::people::change_of;
use crate::workflow::Workflow;

/// Format version that this build writes.
const FORMAT_VERSION: u8 = 1;

/// An incident that has ended. Persisted as JSON: field names are the format.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FinishedIncident {
    /// Format version.
    pub version: u8,
    /// Final state.
    pub state: IncidentState,
    /// See [`Workflow::outcome`].
    pub outcome: Option<String>,
    /// Title of the incident.
    pub title: String,
    /// Severity of the diagnosis, or of the incident without one.
    pub severity: Severity,
    /// What opened it.
    pub trigger: String,
    /// When it began, by the telemetry's clock.
    pub began_at: Timestamp,
    /// The affected entities.
    pub entities: Vec<Entity>,
    /// The causes that were found, the most likely first.
    pub causes: Vec<Cause>,
    /// The evidence that they cite: id and summary.
    pub evidence: Vec<(String, String)>,
    /// Number of diagnoses.
    pub investigations: u32,
    /// The action that was approved, or proposed if none was.
    pub call: Option<ToolCall>,
    /// The steps after it, of a plan of several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub further_calls: Vec<ToolCall>,
    /// What its dry run said.
    pub diff: Option<String>,
    /// Its risk.
    #[serde(default)]
    pub risk: Option<String>,
    /// Its runbook.
    pub runbook: Option<String>,
    /// The policy's answer about it.
    #[serde(default)]
    pub policy: Option<PolicyDecision>,
    /// Whether it was approved, by a person or by the policy.
    pub is_approved: bool,
    /// Who approved it, in order; Wardroom itself if the policy asked no person.
    #[serde(default)]
    pub approved_by: Vec<Principal>,
    /// Outcome of its execution.
    pub execution: Option<Outcome>,
    /// Outcome of its undo.
    pub undo: Option<Outcome>,
    /// Whether it helped; `None` if it was not carried out, or telemetry does not show it.
    #[serde(default)]
    pub helped: Option<bool>,
    /// The change of the entity at fault that telemetry shows after a proposal that was not carried out.
    #[serde(default)]
    pub people_did: Option<EventKind>,
    /// Seconds from the proposal to the approval.
    pub approval_seconds: Option<f64>,
    /// Verdict of a person: `real`, `noise` or `wrong_cause`, and the actual cause.
    pub verdict: Option<(String, Option<String>)>,
}

/// Whether people agreed with a proposed action, and whether it helped: what its autonomy is earned by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrialResult {
    /// Id of the rule that named the cause.
    pub rule: String,
    /// The tool.
    pub tool: String,
    /// The operation.
    pub operation: String,
    /// Whether people approved it, or confirmed the cause; `None` if no person decided.
    pub agreed: Option<bool>,
    /// Whether it helped; `None` if it was not carried out, or telemetry does not show it.
    pub helped: Option<bool>,
}

impl FinishedIncident {
    /// Returns what is kept; `None` while the incident has not ended.
    pub fn of(workflow: &Workflow) -> Option<Self> {
        if !workflow.state.is_settled() {
            return None;
        }
        let diagnosis = workflow.diagnosis.as_ref();
        let causes = diagnosis.map(|diagnosis| diagnosis.causes.clone()).unwrap_or_default();
        let is_cited = |id: &String| causes.iter().any(|cause| cause.evidence.contains(id));
        let evidence = diagnosis.into_iter().flat_map(|diagnosis| &diagnosis.evidence);
        let evidence = evidence.filter(|item| is_cited(&item.id)).map(|item| (item.id.clone(), item.summary.clone()));
        let (incident, plan) = (&workflow.incident, workflow.plan.as_ref());
        let further = plan.into_iter().flat_map(|plan| &plan.further_steps);
        Some(Self {
            version: FORMAT_VERSION,
            state: workflow.state,
            outcome: workflow.outcome.clone(),
            title: incident.title.clone(),
            severity: diagnosis.map_or(incident.severity, |diagnosis| diagnosis.severity),
            trigger: incident.trigger.clone(),
            began_at: incident.began_at,
            entities: incident.affected(),
            evidence: evidence.collect(),
            causes,
            investigations: workflow.investigations,
            call: plan.map(|plan| plan.call.clone()),
            further_calls: further.map(|step| step.call.clone()).collect(),
            diff: plan.map(wardroom_domain::Plan::diff),
            risk: plan.map(|plan| plan.risk().to_owned()),
            runbook: plan.map(|plan| plan.runbook.clone()),
            policy: workflow.policy.clone(),
            is_approved: workflow.approval.is_some(),
            approved_by: workflow.approvals().map(|approval| approval.principal.clone()).collect(),
            execution: workflow.execution,
            undo: workflow.undo,
            helped: workflow.helped,
            people_did: workflow.people_did,
            approval_seconds: workflow.approval_seconds(),
            verdict: workflow.verdict.clone(),
        })
    }

    /// Returns what the incident says about the action for the cause; `None` without a proposed action or known cause.
    /// A plan of several steps says nothing about any one of them.
    pub fn trial(&self) -> Option<TrialResult> {
        let (cause, call) = (self.causes.first()?, self.call.as_ref()?);
        if cause.rule == UNKNOWN_RULE || !self.further_calls.is_empty() {
            return None;
        }
        let is_approved = self.approved_by.iter().any(|principal| *principal != Principal::wardroom());
        let agreed = match self.verdict.as_ref().map(|(verdict, _)| verdict.as_str()) {
            Some("wrong_cause" | "noise") => Some(false),
            _ if self.outcome.as_deref() == Some("rejected") => Some(false),
            _ if is_approved => Some(true),
            // Not carried out: what people did instead, or whether they confirmed the cause.
            _ if self.execution.is_none() && self.people_did.is_some() => {
                Some(change_of(&call.operation) == self.people_did)
            }
            Some("real") if self.execution.is_none() => Some(true),
            _ => None,
        };
        Some(TrialResult {
            rule: cause.rule.clone(),
            tool: call.tool.clone(),
            operation: call.operation.clone(),
            agreed,
            helped: self.helped,
        })
    }
}

impl Workflow {
    /// Returns the time from the proposal to the approval, in seconds, if both are known.
    pub fn approval_seconds(&self) -> Option<f64> {
        let (proposed, approved) = (self.proposed_at?, self.approval.as_ref()?.at);
        Some(approved.nanos().saturating_sub(proposed.nanos()) as f64 / 1e9)
    }
}

#[cfg(test)]
mod tests {
    use wardroom_domain::{Diagnosis, Incident};

    use super::*;

    fn finished() -> FinishedIncident {
        let mut workflow = Workflow::new(Incident { key: "k".into(), ..Incident::default() });
        let causes = vec![Cause::new(Entity::service("cart"), "connection-leak", 0.9)];
        let (evidence, impact) = (Vec::new(), String::new());
        workflow.diagnosis = Some(Diagnosis { causes, evidence, severity: Severity::Critical, impact });
        workflow.state = IncidentState::Escalated;
        let (tool, operation, target) = ("process".into(), "restart".into(), "cart".into());
        let call = ToolCall { tool, operation, target, arguments: serde_json::Map::new() };
        FinishedIncident { call: Some(call), ..FinishedIncident::of(&workflow).unwrap() }
    }

    #[test]
    fn agreement_follows_from_what_people_did() {
        let alice = || vec![Principal::new("alice").unwrap()];
        let verdict = |word: &str| Some((word.to_owned(), None));
        let rejected = Some("rejected".to_owned());
        let cases = [
            (FinishedIncident { approved_by: alice(), helped: Some(true), ..finished() }, Some(true), Some(true)),
            (FinishedIncident { approved_by: alice(), helped: Some(false), ..finished() }, Some(true), Some(false)),
            (FinishedIncident { outcome: rejected, ..finished() }, Some(false), None),
            (
                FinishedIncident { approved_by: alice(), verdict: verdict("wrong_cause"), ..finished() },
                Some(false),
                None,
            ),
            (FinishedIncident { verdict: verdict("real"), ..finished() }, Some(true), None),
            (FinishedIncident { people_did: Some(EventKind::Restart), ..finished() }, Some(true), None),
            (FinishedIncident { people_did: Some(EventKind::Deployment), ..finished() }, Some(false), None),
            (FinishedIncident { approved_by: vec![Principal::wardroom()], ..finished() }, None, None),
            (finished(), None, None),
        ];
        for (finished, agreed, helped) in cases {
            let trial = finished.trial().unwrap();
            assert_eq!((trial.agreed, trial.helped), (agreed, helped), "{finished:?}");
        }
        let unknown = vec![Cause::new(Entity::service("cart"), UNKNOWN_RULE, 0.9)];
        assert_eq!(FinishedIncident { causes: unknown, ..finished() }.trial(), None);
        assert_eq!(FinishedIncident { call: None, ..finished() }.trial(), None);
        let further_calls: Vec<ToolCall> = finished().call.into_iter().collect();
        assert_eq!(FinishedIncident { further_calls, ..finished() }.trial(), None);
    }
}
