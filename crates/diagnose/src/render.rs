//! The root-cause analysis of the API (JSON field `analysis`).

use serde::Serialize;
use wardroom_domain::{Diagnosis, Severity};

/// Root-cause analysis with the evidence ids of each claim.
#[derive(Clone, Debug, Serialize)]
pub struct RootCauseAnalysis {
    root_cause: RootCause,
    recommended_actions: Vec<Action>,
    severity: Severity,
    estimated_customer_impact: String,
}

#[derive(Clone, Debug, Serialize)]
struct RootCause {
    description: String,
    /// Per cent, 0 to 100.
    confidence: u8,
    reasoning: String,
    evidence: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
struct Action {
    action: String,
    reasoning: String,
    risk: String,
    priority: u8,
}

/// Builds the analysis of a diagnosis. `proposal` is the proposed action, its runbook and its risk.
pub fn root_cause_analysis(diagnosis: &Diagnosis, proposal: Option<(&str, &str, &str)>) -> RootCauseAnalysis {
    let root_cause = diagnosis.best().map_or_else(
        || RootCause {
            description: "no cause was found".into(),
            confidence: 0,
            reasoning: "the evidence does not point to one entity".into(),
            evidence: Vec::new(),
        },
        |cause| RootCause {
            description: format!("{} at {}", cause.rule, cause.entity),
            confidence: (cause.confidence * 100.0).round() as u8,
            reasoning: cause.reasoning.clone(),
            evidence: cause.evidence.clone(),
        },
    );
    let recommended_actions = proposal
        .map(|(action, runbook, risk)| Action {
            action: action.into(),
            reasoning: format!("runbook {runbook}"),
            risk: risk.into(),
            priority: 1,
        })
        .into_iter()
        .collect();
    RootCauseAnalysis {
        root_cause,
        recommended_actions,
        severity: diagnosis.severity,
        estimated_customer_impact: diagnosis.impact.clone(),
    }
}
