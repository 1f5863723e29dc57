//! A certificate that expires.

use wardroom_domain::SignalKind;

use crate::rule::{Match, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    id: "certificate-expiry",
    says: "has a certificate that expires soon",
    needs: "the time until a certificate expires",
    next_checks: &["Which certificate is it, and where is it deployed?", "Why was it not renewed by itself?"],
    tags: &["certificate", "tls", "expiry", "renewal"],
    matches,
};

fn matches<'a>(subject: &Subject<'a>) -> Option<Match<'a>> {
    let fact = subject.shifted(SignalKind::Expiry, &[])?;
    Some(Match::by_signal(0.75, fact))
}
