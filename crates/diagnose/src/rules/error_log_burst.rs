//! New or many error lines.

use wardroom_domain::SignalKind;

use crate::evidence::{Cited, signal_summary};
use crate::facts::TemplateChange;
use crate::rule::{Match, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    id: "error-log-burst",
    says: "logs errors that it did not log before",
    needs: "a new error template, or many more error lines",
    next_checks: &["What do the new lines say?", "Which requests or jobs cause them?"],
    tags: &["log", "error", "burst", "exception"],
    matches,
};

fn matches<'a>(subject: &Subject<'a>) -> Option<Match<'a>> {
    if let Some(fact) = subject.shifted(SignalKind::Logs, &[]) {
        return Some(Match::new(0.46, signal_summary(fact), vec![Cited::Signal(fact)]));
    }
    let (strength, template) = subject.suspect.logs(&[TemplateChange::New, TemplateChange::Burst])?;
    let because = "it logs lines that it did not log before, or far more of them";
    Some(Match::new(0.3 + 0.15 * strength, because, vec![Cited::Template(template)]))
}
