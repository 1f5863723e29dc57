//! Failing by itself.

use wardroom_domain::SignalKind;

use crate::evidence::{Cited, signal_summary};
use crate::facts::PROBE;
use crate::rule::{Match, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    id: "failing-requests",
    says: "fails requests, and nothing it depends on explains that",
    needs: "failing requests that no dependency explains",
    next_checks: &["Which errors does it return, and for which requests?", "What do its log lines say?"],
    tags: &["errors", "failing", "requests", "exception"],
    matches,
};

fn matches<'a>(subject: &Subject<'a>) -> Option<Match<'a>> {
    let probed = || subject.shifted(SignalKind::Availability, &[PROBE]);
    let fact = subject.shifted(SignalKind::Errors, &[]).or_else(probed)?;
    let (explained, _) = subject.case.explained(subject.index);
    let fit = 0.48 + 0.1 * fact.strength() * (1.0 - explained);
    Some(Match::new(fit, signal_summary(fact), vec![Cited::Signal(fact)]))
}
