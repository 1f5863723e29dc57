//! Situations: requests as people write them, with the expected answer, in YAML.
//!
//! ```yaml
//! - name: a restart in production, by day
//!   tool: process
//!   operation: restart
//!   target: { name: cart, environment: prod }
//!   risk: low
//!   expect: ask-one
//! - name: the proposer does not approve
//!   approver: { name: alice, role: responder }
//!   proposer: alice
//!   risk: low
//!   expect: deny
//! ```

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use wardroom_domain::{AccessRole, Entity, EntityKind, PolicyAnswer, PolicyDecision, Principal, Timestamp};

use crate::config::Config;
use crate::request::{ActionRequest, Actor, ActorKind, ApprovalRequest, Autonomy, Context, Criticality, Target};
use crate::rules::Policy;

/// A situation. With `approver` it asks whether that person may approve; without, how the action may be carried out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Situation {
    /// What it is about.
    pub name: String,
    /// The tool.
    pub tool: String,
    /// The operation.
    pub operation: String,
    /// The target.
    pub target: SituationTarget,
    /// `none`, `low`, `medium`, `high` or `critical`; default `low`.
    pub risk: Option<String>,
    /// Whether the action can be undone; default true.
    pub reversible: Option<bool>,
    /// Things affected, as the dry run measured it.
    pub blast_radius: Option<u64>,
    /// Confidence in the cause, 0 to 100.
    pub confidence: Option<u32>,
    /// Age of the newest evidence, in seconds.
    pub evidence_age_seconds: Option<u32>,
    /// Time of the decision; windows and freezes of the configuration count then.
    pub at: Option<Timestamp>,
    /// Names of further time windows in force.
    pub windows: BTreeSet<String>,
    /// Names of further change freezes in force.
    pub freezes: BTreeSet<String>,
    /// The rule that names the cause.
    pub cause: String,
    /// Times that the action helped for this cause.
    pub successes: u32,
    /// Times that it did not.
    pub failures: u32,
    /// Earned level: `ask`, `night` or `automatic`.
    pub autonomy: Autonomy,
    /// Actions on the target within the last hour.
    pub actions_last_hour: u32,
    /// Whether a person has declared an emergency.
    pub break_glass: bool,
    /// Who proposed it; default Wardroom.
    pub proposer: Option<Principal>,
    /// Who wants to approve.
    pub approver: Option<SituationActor>,
    /// Who asked for the plan.
    pub requester: Option<Principal>,
    /// Who has approved it already.
    pub approved_by: Vec<Principal>,
    /// Where the approval came from; default `cli`.
    pub channel: Option<String>,
    /// The expected answer: `deny`, `ask-two`, `ask-one` or `allow`; of an approval `allow` or `deny`.
    pub expect: Option<PolicyAnswer>,
    /// Ids of rules that have to be among those that decided.
    pub rules: BTreeSet<String>,
}

/// The target of a situation; what it does not say comes from `policy.entities`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct SituationTarget {
    /// Name of the entity and of the executor's target.
    pub name: String,
    /// Kind of the entity.
    pub kind: EntityKind,
    /// Namespace.
    pub namespace: String,
    /// Cluster.
    pub cluster: String,
    /// Environment.
    pub environment: String,
    /// How much depends on it.
    pub criticality: Option<Criticality>,
    /// The team that owns it.
    pub owner: Option<String>,
    /// Whether Wardroom itself runs on it.
    pub wardroom: Option<bool>,
}

/// A person or program of a situation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SituationActor {
    /// Name.
    pub name: Principal,
    /// `person` or `service`.
    #[serde(default)]
    pub kind: ActorKind,
    /// Access role.
    #[serde(default)]
    pub role: Option<AccessRole>,
}

/// What the policy answered in one situation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Name of the situation.
    pub name: String,
    /// The expected answer; `None` if the situation does not say.
    pub expected: Option<PolicyAnswer>,
    /// The decision.
    pub decision: PolicyDecision,
    /// Expected rules that did not decide.
    pub missing_rules: Vec<String>,
    /// Whether answer and rules are as expected.
    pub ok: bool,
}

/// The result of `wardroom policy test`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SituationReport {
    /// One outcome a situation, in their order.
    pub outcomes: Vec<Outcome>,
    /// Number of situations that are not as expected.
    pub failed: usize,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PolicyDecision { answer, rules, reason, .. } = &self.decision;
        write!(f, "{answer:8}{}: {reason} ({})", self.name, rules.join(", "))?;
        if let Some(expected) = self.expected.filter(|expected| expected != answer) {
            write!(f, "; expected {expected}")?;
        }
        if !self.missing_rules.is_empty() {
            write!(f, "; did not decide: {}", self.missing_rules.join(", "))?;
        }
        Ok(())
    }
}

/// Parses a file of situations.
///
/// # Errors
/// Returns the parser's message, with line and column.
pub fn parse_situations(text: &str) -> Result<Vec<Situation>, String> {
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())
}

/// Asks the policy in each situation.
pub fn test_situations(policy: &Policy, config: &Config, situations: &[Situation]) -> SituationReport {
    let outcomes: Vec<Outcome> = situations.iter().map(|situation| situation.ask(policy, config)).collect();
    let failed = outcomes.iter().filter(|outcome| !outcome.ok).count();
    SituationReport { outcomes, failed }
}

impl Situation {
    /// Asks the policy.
    pub fn ask(&self, policy: &Policy, config: &Config) -> Outcome {
        let decision = match &self.approver {
            Some(approver) => policy.decide_approval(&self.approval_request(approver, config)),
            None => policy.decide(&self.action_request(config)),
        };
        let missing = self.rules.iter().filter(|rule| !decision.rules.contains(rule));
        let missing_rules: Vec<String> = missing.cloned().collect();
        let is_expected = self.expect.is_none_or(|expected| expected == decision.answer);
        let ok = is_expected && missing_rules.is_empty();
        Outcome { name: self.name.clone(), expected: self.expect, decision, missing_rules, ok }
    }

    fn risk(&self) -> String {
        self.risk.clone().unwrap_or_else(|| "low".to_owned())
    }

    fn target(&self, config: &Config) -> Target {
        let SituationTarget { name, kind, namespace, cluster, environment, criticality, owner, wardroom } =
            &self.target;
        let entity = Entity {
            kind: *kind,
            cluster: cluster.clone(),
            environment: environment.clone(),
            namespace: namespace.clone(),
            name: name.clone(),
        };
        let declared = config.target(&entity, name);
        Target {
            criticality: criticality.unwrap_or(declared.criticality),
            owner: owner.clone().unwrap_or_else(|| declared.owner.clone()),
            is_wardroom: wardroom.unwrap_or(declared.is_wardroom),
            ..declared
        }
    }

    fn action_request(&self, config: &Config) -> ActionRequest {
        let target = self.target(config);
        let (mut windows, mut freezes) = (self.windows.clone(), self.freezes.clone());
        if let Some(at) = self.at {
            windows.extend(config.windows_at(at));
            freezes.extend(config.freezes_at(at, &target));
        }
        let context = Context {
            reversible: self.reversible.unwrap_or(true),
            blast_radius: self.blast_radius,
            confidence_percent: self.confidence,
            evidence_age_seconds: self.evidence_age_seconds,
            windows,
            freezes,
            cause: self.cause.clone(),
            successes: self.successes,
            failures: self.failures,
            autonomy: self.autonomy,
            actions_last_hour: self.actions_last_hour,
            break_glass: self.break_glass,
            ..Context::new(self.risk(), self.at.unwrap_or_default())
        };
        let principal = match &self.proposer {
            Some(person) => Actor { principal: person.clone(), kind: ActorKind::Person, role: None },
            None => Actor::wardroom(),
        };
        ActionRequest { principal, tool: self.tool.clone(), operation: self.operation.clone(), target, context }
    }

    fn approval_request(&self, approver: &SituationActor, config: &Config) -> ApprovalRequest {
        ApprovalRequest {
            approver: Actor { principal: approver.name.clone(), kind: approver.kind, role: approver.role },
            proposer: self.proposer.clone().unwrap_or_else(Principal::wardroom),
            requester: self.requester.clone(),
            approved_by: self.approved_by.clone(),
            risk: self.risk(),
            channel: self.channel.clone().unwrap_or_else(|| "cli".to_owned()),
            target: self.target(config),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_field_is_named() {
        let error = parse_situations("- name: a\n  riks: low\n").unwrap_err();
        assert!(error.contains("riks") && error.contains("line 2"), "{error}");
    }

    #[test]
    fn an_unexpected_answer_and_a_missing_rule_fail() {
        let policy = Policy::builtin().unwrap();
        let text = "
- { name: right, risk: low, expect: ask-one, rules: [one-person-may-act] }
- { name: wrong answer, risk: low, expect: allow }
- { name: wrong rule, risk: low, expect: ask-one, rules: [change-freeze] }
- { name: by the calendar, risk: low, autonomy: night, confidence: 90, blast-radius: 1, at: 2026-11-30T23:00:00Z, expect: allow }
- { name: by day, risk: low, autonomy: night, confidence: 90, blast-radius: 1, at: 2026-11-30T12:00:00Z, expect: ask-one }
";
        let report = test_situations(&policy, &Config::default(), &parse_situations(text).unwrap());
        let ok: Vec<bool> = report.outcomes.iter().map(|outcome| outcome.ok).collect();
        assert_eq!((ok, report.failed), (vec![true, false, false, true, true], 2));
        assert_eq!(report.outcomes[2].missing_rules, ["change-freeze"]);
    }
}
