//! A deployment shortly before.

use crate::evidence::Cited;
use crate::rule::{Match, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    id: "bad-deployment",
    says: "was deployed shortly before, and works worse since",
    needs: "a deployment shortly before the onset",
    next_checks: &["What changed between the two versions?", "Do instances of the former version work well?"],
    tags: &["deployment", "release", "rollback", "version"],
    matches,
};

fn matches<'a>(subject: &Subject<'a>) -> Option<Match<'a>> {
    let event = subject.deployment()?;
    let version = event.attributes.get("version").unwrap_or_default();
    Some(Match::new(0.47, format!("version {version} began to run shortly before"), vec![Cited::Event(event)]))
}
