//! A timeout that is too short.

use crate::evidence::Cited;
use crate::rule::{Match, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    id: "timeout-setting",
    says: "gives up on calls that would succeed",
    needs: "calls that fail without getting slower, while the callee is healthy and gets as many as before",
    next_checks: &[
        "Which timeout applies to these calls, and since when?",
        "How long does the callee take by its own numbers?",
    ],
    tags: &["timeout", "deadline", "setting", "client"],
    matches,
};

/// A callee of which this level of traffic is lost is not reached by all calls.
const LOST: f64 = 0.2;

fn matches<'a>(subject: &Subject<'a>) -> Option<Match<'a>> {
    let (failing, callee) = subject.calls_that_only_fail()?;
    // Only a callee that counts its requests tells that they arrive.
    if callee.levels.requests.is_none() || callee.levels.drop >= LOST {
        return None;
    }
    let because =
        "its calls fail without getting slower although what it calls gets them and is healthy by its own numbers";
    Some(Match::new(0.59, because, vec![Cited::Signal(failing)]))
}
