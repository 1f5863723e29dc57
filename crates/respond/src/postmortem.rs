//! The postmortem of an incident in Markdown.

use std::fmt::Write;

use wardroom_domain::Timestamp;

use crate::step_result::StepResult;
use crate::workflow::Workflow;

/// One line of an incident's timeline.
#[derive(Clone, Debug)]
pub struct TimelineEntry {
    /// Time of the entry.
    pub at: Timestamp,
    /// Description; may quote telemetry.
    pub text: String,
}

/// A postmortem in Markdown.
pub type Postmortem = String;

/// Writes the postmortem of an incident.
pub fn postmortem(id: &str, workflow: &Workflow, timeline: &[TimelineEntry]) -> Postmortem {
    let mut out = String::new();
    let incident = &workflow.incident;
    let mut line = |text: String| {
        // Writing to a String cannot fail.
        let _infallible = writeln!(out, "{text}");
    };
    line(format!("# {id}: {}\n", escape(&incident.title)));
    line(format!("Severity {}; began {}; state {}.\n", incident.severity, incident.began_at, workflow.state));
    line("## What happened\n".into());
    for entry in timeline {
        line(format!("- {}: {}", entry.at, escape(&entry.text)));
    }
    line("\n## Why\n".into());
    match workflow.diagnosis.as_ref().and_then(|diagnosis| diagnosis.best().map(|best| (diagnosis, best))) {
        Some((diagnosis, best)) => {
            line(format!(
                "{} ({:.0} % confidence). {}\n",
                escape(&best.reasoning),
                best.confidence * 100.0,
                escape(&diagnosis.impact)
            ));
            for evidence in diagnosis.evidence.iter().filter(|item| best.evidence.contains(&item.id)) {
                line(format!("- `{}` {}", escape(&evidence.id), escape(&evidence.summary)));
            }
        }
        None => line("The evidence did not show a cause.".into()),
    }
    line("\n## What was done\n".into());
    match (&workflow.plan, &workflow.approval) {
        (Some(plan), Some(approval)) => {
            line(format!(
                "{} (runbook {}), approved by {} at {}: {}.",
                escape(&plan.describe()),
                escape(&plan.runbook),
                approval.principal,
                approval.at,
                escape(&plan.diff())
            ));
            for (number, StepResult { outcome, detail, undo }) in (1..).zip(&workflow.steps) {
                let undone = undo.map(|undo| format!("; undo {}", undo.as_str())).unwrap_or_default();
                line(format!("- Step {number} {}: {}{undone}", outcome.as_str(), escape(detail)));
            }
        }
        (Some(plan), None) => line(format!("Proposed but not approved: {}.", escape(&plan.describe()))),
        (None, _) => line("Nothing was proposed.".into()),
    }
    line("\n## Outcome\n".into());
    line(format!("{}.", workflow.outcome.as_deref().unwrap_or("still open")));
    if let Some((verdict, cause)) = &workflow.verdict {
        line(format!(
            "Verdict by a person: {verdict}{}.",
            cause.as_ref().map(|cause| format!(", the cause was {}", escape(cause))).unwrap_or_default()
        ));
    }
    out
}

/// Escapes untrusted text so that it cannot become markup.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '&' => out.push_str("&amp;"),
            '*' | '_' | '[' | ']' | '`' | '#' | '|' | '\\' => out.extend(['\\', c]),
            '\n' | '\r' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
