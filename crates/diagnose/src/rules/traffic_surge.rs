//! More demand than it can serve.

use wardroom_domain::SignalKind;

use crate::evidence::{Cited, signal_summary};
use crate::facts::SignalFact;
use crate::rule::{Match, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    id: "traffic-surge",
    says: "is asked for far more than before",
    needs: "traffic far above normal, with a resource or latency that follows",
    next_checks: &[
        "Where does the traffic come from, and is it wanted?",
        "Can it be scaled out, or the traffic be limited?",
    ],
    tags: &["traffic", "load", "surge", "scale", "overload"],
    matches,
};

fn matches<'a>(subject: &Subject<'a>) -> Option<Match<'a>> {
    let is_higher = |fact: &&&SignalFact| {
        fact.signal.kind == SignalKind::Traffic && fact.value > 1.5 * fact.expected && fact.z >= 4.0
    };
    let traffic = subject.suspect.own.iter().find(is_higher)?;
    let suffers = subject
        .shifted(SignalKind::Saturation, &[])
        .or_else(|| subject.shifted(SignalKind::Latency, &[]))
        .or_else(|| subject.shifted(SignalKind::Errors, &[]))?;
    let because = signal_summary(traffic);
    Some(Match::new(
        0.7 + 0.2 * subject.suspect.levels.surge,
        because,
        vec![Cited::Signal(traffic), Cited::Signal(suffers)],
    ))
}
