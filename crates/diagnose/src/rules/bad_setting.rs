//! A changed setting.

use crate::evidence::Cited;
use crate::rule::{Match, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    id: "bad-setting",
    says: "has a changed setting that breaks it",
    needs: "a setting change announced by the entity itself shortly before the onset",
    next_checks: &[
        "Which value did the setting have before, and who changed it?",
        "On how many instances was it changed?",
    ],
    tags: &["setting", "configuration", "reload"],
    matches,
};

fn matches<'a>(subject: &Subject<'a>) -> Option<Match<'a>> {
    let event = subject.setting()?;
    let text = |name: &str| event.attributes.get(name).unwrap_or_default();
    let because = format!("{} changed from {} to {} shortly before", text("key"), text("from"), text("to"));
    Some(Match { setting: Some(event), ..Match::new(0.97, because, vec![Cited::Event(event)]) })
}
