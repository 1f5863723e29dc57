//! Decisions: Cedar is asked for each way of carrying out an action, the freest first.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use cedar_policy::{Decision, PolicyId};
use wardroom_domain::{PolicyAnswer, PolicyDecision};

use crate::cedar_request::CedarRequest;
use crate::request::{ActionRequest, ActorKind, ApprovalRequest};
use crate::rules::Policy;

/// The ways of carrying out an action, the freest first, as (action of the schema, answer).
pub(crate) const WAYS: [(&str, PolicyAnswer); 3] = [
    ("act-without-approval", PolicyAnswer::Allow),
    ("act-with-one-approval", PolicyAnswer::AskOne),
    ("act-with-two-approvals", PolicyAnswer::AskTwo),
];
/// The action of the schema for approving.
pub(crate) const APPROVE: &str = "approve";

/// Rule of Wardroom itself: only people approve.
const SERVICE_CANNOT_APPROVE: &str = "wardroom:service-cannot-approve";
/// Rule of Wardroom itself.
const PROPOSER_CANNOT_APPROVE: &str = "wardroom:proposer-cannot-approve";
/// Rule of Wardroom itself.
const REQUESTER_CANNOT_APPROVE: &str = "wardroom:requester-cannot-approve";
/// Rule of Wardroom itself: two approvals are of two people.
const APPROVED_BEFORE: &str = "wardroom:approved-before";
/// Rule of Wardroom itself: a rule that fails could be one that forbids.
const RULE_FAILED: &str = "wardroom:rule-failed";
/// Rule of Wardroom itself: what no rule permits is denied.
const NOT_PERMITTED: &str = "wardroom:not-permitted";

/// What Cedar says about one way.
struct CedarAnswer {
    permitted: bool,
    /// Ids of the rules that decided.
    rules: BTreeSet<String>,
}

impl Policy {
    /// Decides how an action may be carried out. An error in a rule denies.
    pub fn decide(&self, request: &ActionRequest) -> PolicyDecision {
        let decide = || -> Result<PolicyDecision, String> {
            let cedar = CedarRequest::of_action(request, &self.schema)?;
            // Why the freer ways are closed.
            let mut forbidding = BTreeSet::new();
            for (action, answer) in WAYS {
                let found = self.ask(&cedar, action)?;
                if found.permitted {
                    let rules: BTreeSet<String> = found.rules.union(&forbidding).cloned().collect();
                    // What closed the way before says more than what permits this one.
                    let because = if forbidding.is_empty() { &found.rules } else { &forbidding };
                    return Ok(self.decision(answer, rules.clone(), self.reasons(because)));
                }
                // The rules that closed the last way say why; those about freer ways only would distract.
                forbidding = found.rules;
            }
            Ok(self.denied(forbidding))
        };
        decide().unwrap_or_else(|error| self.failed(&error))
    }

    /// Decides whether a person may approve a plan: [`PolicyAnswer::Allow`] or [`PolicyAnswer::Deny`].
    pub fn decide_approval(&self, request: &ApprovalRequest) -> PolicyDecision {
        if let Some((rule, reason)) = refused_approval(request) {
            return self.decision(PolicyAnswer::Deny, BTreeSet::from([rule.to_owned()]), reason.to_owned());
        }
        let decide = || -> Result<PolicyDecision, String> {
            let found = self.ask(&CedarRequest::of_approval(request, &self.schema)?, APPROVE)?;
            if !found.permitted {
                return Ok(self.denied(found.rules));
            }
            let reason = self.reasons(&found.rules);
            Ok(self.decision(PolicyAnswer::Allow, found.rules, reason))
        };
        decide().unwrap_or_else(|error| self.failed(&error))
    }

    fn ask(&self, request: &CedarRequest, action: &str) -> Result<CedarAnswer, String> {
        let cedar = request.with_action(action, &self.schema)?;
        let response = self.authorizer.is_authorized(&cedar, &self.set, &request.entities);
        // Cedar leaves out a rule that fails, so one that forbids would be lost.
        if let Some(error) = response.diagnostics().errors().next() {
            return Err(error.to_string());
        }
        let id = |id: &PolicyId| AsRef::<str>::as_ref(id).to_owned();
        let rules = response.diagnostics().reason().map(id).collect();
        Ok(CedarAnswer { permitted: response.decision() == Decision::Allow, rules })
    }

    fn reasons(&self, rules: &BTreeSet<String>) -> String {
        let mut reasons: Vec<String> = Vec::new();
        for rule in rules {
            let reason = self.reason_of(rule);
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        reasons.join("; ")
    }

    fn denied(&self, rules: BTreeSet<String>) -> PolicyDecision {
        if rules.is_empty() {
            let rules = BTreeSet::from([NOT_PERMITTED.to_owned()]);
            return self.decision(PolicyAnswer::Deny, rules, "no rule permits it".to_owned());
        }
        let reason = self.reasons(&rules);
        self.decision(PolicyAnswer::Deny, rules, reason)
    }

    fn failed(&self, error: &str) -> PolicyDecision {
        let error: String = error.split_whitespace().collect::<Vec<_>>().join(" ");
        let rules = BTreeSet::from([RULE_FAILED.to_owned()]);
        self.decision(PolicyAnswer::Deny, rules, format!("the policy cannot be evaluated: {error}"))
    }

    fn decision(&self, answer: PolicyAnswer, rules: BTreeSet<String>, reason: String) -> PolicyDecision {
        let policy_sha256 = self.sha256().to_owned();
        PolicyDecision { answer, rules: rules.into_iter().collect(), reason, policy_sha256 }
    }
}

/// Returns the rule of Wardroom itself that refuses an approval, and why. No policy file can permit these.
fn refused_approval(request: &ApprovalRequest) -> Option<(&'static str, &'static str)> {
    let approver = &request.approver.principal;
    if request.approver.kind == ActorKind::Service {
        return Some((SERVICE_CANNOT_APPROVE, "only people approve"));
    }
    if *approver == request.proposer {
        return Some((PROPOSER_CANNOT_APPROVE, "the proposer of a plan does not approve it"));
    }
    if request.requester.as_ref() == Some(approver) {
        return Some((REQUESTER_CANNOT_APPROVE, "who asked for a plan does not approve it"));
    }
    request
        .approved_by
        .contains(approver)
        .then_some((APPROVED_BEFORE, "they have approved this plan already; a second approval is another person's"))
}
