//! The answer as seed 002 §5 writes it.

use serde::Serialize;
use wardroom_domain::{Diagnosis, Severity};

/// Seed 002's root-cause JSON, with evidence ids beside each claim.
#[derive(Clone, Debug, Serialize)]
pub struct SeedAnswer {
    root_cause: RootCause,
    recommended_actions: Vec<Action>,
    severity: Severity,
    estimated_customer_impact: String,
}

#[derive(Clone, Debug, Serialize)]
struct RootCause {
    description: String,
    /// Per cent, as the seed has it.
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

/// The seed's answer for a diagnosis, with the proposed action, its runbook and its risk.
pub fn seed_answer(diagnosis: &Diagnosis, proposal: Option<(&str, &str, &str)>) -> SeedAnswer {
    let root_cause = diagnosis.best().map_or_else(
        || RootCause {
            description: "no cause could be named from the evidence".into(),
            confidence: 0,
            reasoning: "too little of what was seen points to one service".into(),
            evidence: Vec::new(),
        },
        |cause| RootCause {
            description: format!("{} at {}", cause.kind, cause.service),
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
    SeedAnswer {
        root_cause,
        recommended_actions,
        severity: diagnosis.severity,
        estimated_customer_impact: diagnosis.impact.clone(),
    }
}
