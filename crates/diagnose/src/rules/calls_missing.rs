//! Requests that end before they reach what they called before.

use wardroom_domain::SignalKind;

use crate::evidence::Cited;
use crate::facts::SignalFact;
use crate::rule::{Match, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    id: "calls-missing",
    says: "no longer calls what it called before",
    needs: "as much traffic as before, and far less traffic of something that it calls and that works",
    next_checks: &[
        "Which requests end early, and with which answer?",
        "Was its code, a flag or a setting changed that skips the call?",
    ],
    tags: &["calls", "missing", "skipped", "early", "flag"],
    matches,
};

/// Less than this level of lost calls may be chance.
const LOST: f64 = 0.3;

fn matches<'a>(subject: &Subject<'a>) -> Option<Match<'a>> {
    let (callee, lost) = subject.case.withholds(subject.index).filter(|(_, lost)| *lost >= LOST)?;
    let other = &subject.case.suspects[callee];
    let calls = subject.case.edge(subject.index, callee).chain(other.own.iter().copied());
    let is_less = |fact: &&SignalFact| fact.signal.kind == SignalKind::Traffic && fact.value < fact.expected;
    let cited = calls.filter(is_less).take(1).map(Cited::Signal).collect();
    Some(Match::new(0.47 + 0.1 * lost, format!("{} gets far fewer calls from it", other.entity), cited))
}
