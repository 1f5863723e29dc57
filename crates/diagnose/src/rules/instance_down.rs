//! Lost availability.

use crate::evidence::Cited;
use crate::rule::{Match, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    id: "instance-down",
    says: "is down, or some of its instances are",
    needs: "lost availability, or signals that all ended",
    next_checks: &["Is the process running, and does its port answer?", "Is its host up?"],
    tags: &["down", "unreachable", "target", "availability"],
    matches,
};

fn matches<'a>(subject: &Subject<'a>) -> Option<Match<'a>> {
    if let Some(fact) = subject.suspect.own.iter().find(|fact| fact.says_up() && fact.is_shifted()) {
        return Some(Match::by_signal(0.71, fact));
    }
    let gone: Vec<_> = subject.suspect.own.iter().filter(|fact| fact.is_gone).take(2).collect();
    (subject.suspect.levels.down >= 0.6 && !gone.is_empty()).then(|| {
        let cited = gone.into_iter().map(|fact| Cited::Signal(fact)).collect();
        Match::new(0.7, "none of its signals has arrived since", cited)
    })
}
