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
}
