//! Calls that do not arrive.

use wardroom_domain::SignalKind;

use crate::evidence::Cited;
use crate::facts::SignalFact;
use crate::rule::{Match, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    id: "callee-unreachable",
    says: "does not reach something that it calls",
    needs: "calls that fail without getting slower, while the callee is healthy and gets fewer than before",
    next_checks: &[
        "Do address, port and name resolution at the caller lead to the callee?",
        "Does a firewall, network policy or certificate refuse the connection?",
    ],
    tags: &["refused", "unreachable", "connection", "dns", "network", "policy"],
    matches,
};

/// A callee of which this level of traffic is lost does not get the calls.
const LOST: f64 = 0.2;

fn matches<'a>(subject: &Subject<'a>) -> Option<Match<'a>> {
    let (failing, callee) = subject.calls_that_only_fail()?;
    if callee.levels.drop < LOST {
        return None;
    }
    let is_less = |fact: &&SignalFact| fact.signal.kind == SignalKind::Traffic && fact.value < fact.expected;
    let lost = callee.own.iter().copied().find(is_less);
    let because = format!("its calls fail and {}, healthy by its own numbers, gets fewer requests", callee.entity);
    Some(Match::new(0.61, because, std::iter::once(failing).chain(lost).map(Cited::Signal).collect()))
}
