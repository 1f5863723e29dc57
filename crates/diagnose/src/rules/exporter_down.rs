//! An exporter that does not answer while its target may be well.

use wardroom_domain::SignalKind;

use crate::facts::EXPORTER;
use crate::rule::{Match, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    id: "exporter-down",
    says: "has an exporter that does not answer; nothing says that it is down itself",
    needs: "a failed scrape of an exporter, and no lost availability of its target",
    next_checks: &[
        "Is the exporter's process running and its port reachable?",
        "Does the target itself answer its clients?",
    ],
    tags: &["exporter", "scrape", "target", "monitoring"],
    matches,
};

fn matches<'a>(subject: &Subject<'a>) -> Option<Match<'a>> {
    let fact = subject.shifted(SignalKind::Availability, &[EXPORTER])?;
    let levels = subject.suspect.levels;
    (levels.down < 0.8 && levels.errors < 0.2).then(|| Match::by_signal(0.74, fact))
}
