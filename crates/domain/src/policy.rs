//! The answer of the policy about an action: what stands in the audit log and in the incident.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the policy answers, from the strictest to the freest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyAnswer {
    /// The action must not be carried out, with any number of approvals.
    Deny,
    /// Two people have to approve, neither of them the proposer.
    AskTwo,
    /// One person has to approve, not the proposer.
    AskOne,
    /// The action needs no approval.
    Allow,
}

impl PolicyAnswer {
    /// All answers, from the strictest to the freest.
    pub const ALL: [Self; 4] = [Self::Deny, Self::AskTwo, Self::AskOne, Self::Allow];

    /// Returns the spelling in JSON, tables and situations.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::AskTwo => "ask-two",
            Self::AskOne => "ask-one",
            Self::Allow => "allow",
        }
    }

    /// Returns the number of approvals that the action needs; `None` if no number is enough.
    pub const fn approvals(self) -> Option<usize> {
        match self {
            Self::Deny => None,
            Self::AskTwo => Some(2),
            Self::AskOne => Some(1),
            Self::Allow => Some(0),
        }
    }
}

impl std::fmt::Display for PolicyAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// A decision of the policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyDecision {
    /// The answer.
    pub answer: PolicyAnswer,
    /// Ids of the rules that decided, sorted. Rules of Wardroom itself, which no file changes, begin with `wardroom:`.
    pub rules: Vec<String>,
    /// Why, one line for people.
    pub reason: String,
    /// SHA-256 of the policy's text.
    pub policy_sha256: String,
}

impl PolicyDecision {
    /// Returns the strictest of the decisions about the steps of a plan, the first of equal ones; what it is about
    /// stands before its reason if there are several. `None` without any.
    pub fn strictest(decisions: Vec<(String, Self)>) -> Option<Self> {
        let several = decisions.len() > 1;
        let (step, mut strictest) = decisions.into_iter().min_by_key(|(_, decision)| decision.answer)?;
        if several {
            strictest.reason = format!("{step}: {}", strictest.reason);
        }
        Some(strictest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_str_is_the_json_spelling_and_fewer_approvals_are_freer() {
        for answer in PolicyAnswer::ALL {
            assert_eq!(serde_json::to_value(answer).unwrap(), answer.as_str());
        }
        assert!(PolicyAnswer::ALL.is_sorted());
        assert_eq!(PolicyAnswer::ALL.map(PolicyAnswer::approvals), [None, Some(2), Some(1), Some(0)]);
    }

    #[test]
    fn the_strictest_step_decides() {
        let decision = |answer: PolicyAnswer| PolicyDecision {
            answer,
            rules: vec![answer.to_string()],
            reason: "because".into(),
            policy_sha256: String::new(),
        };
        let of = |answers: &[PolicyAnswer]| {
            let numbered = answers.iter().enumerate();
            PolicyDecision::strictest(numbered.map(|(index, it)| (format!("step {index}"), decision(*it))).collect())
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[PolicyAnswer::Allow]), Some(decision(PolicyAnswer::Allow)));
        let found = of(&[PolicyAnswer::Allow, PolicyAnswer::AskTwo, PolicyAnswer::AskOne]).unwrap();
        assert_eq!((found.answer, found.reason.as_str()), (PolicyAnswer::AskTwo, "step 1: because"));
    }
}
