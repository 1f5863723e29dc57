//! Scores of detection and diagnosis against what is known of a recording.

use serde::Serialize;

use super::detection_run::FoundIncident;

/// An incident may be dated this long before the injection, in ms: the recording's clock is that of its controller.
const TOLERANCE_MS: i64 = 1000;
/// Titles that are listed of one case.
const MAX_TITLES: usize = 5;

/// What is known of a recording.
#[derive(Clone, Debug)]
pub(crate) struct Truth {
    /// Name of the case.
    pub(crate) name: String,
    /// What was injected.
    pub(crate) kind: String,
    /// Whether nothing is wrong: every incident is a false one.
    pub(crate) healthy: bool,
    /// Time of the injection, in ms.
    pub(crate) injected_ms: i64,
    /// Names of the component at fault, any of which is right.
    pub(crate) names: Vec<String>,
}

impl Truth {
    /// Returns whether an incident opened before anything was wrong.
    pub(super) fn is_before(&self, found: &FoundIncident) -> bool {
        self.healthy || found.incident.opened_at.millis() < self.injected_ms - TOLERANCE_MS
    }
}

/// The score of one case.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Score {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) healthy: bool,
    /// Incidents before the injection, or at all in a healthy case.
    pub(crate) false_incidents: usize,
    /// Time from the injection to the first incident after it, in seconds.
    pub(crate) delay_seconds: Option<f64>,
    /// Best place of the component at fault in the newest diagnosis of an incident after the injection, from 1 on.
    pub(crate) rank: Option<usize>,
    /// Rule of the first cause of the first incident after the injection.
    pub(crate) rule: String,
    /// Incidents after the injection beyond the first.
    pub(crate) split: usize,
    /// Titles of the first incidents, each with its seconds since the injection.
    pub(crate) titles: Vec<String>,
}

/// Scores the incidents of one case.
pub(crate) fn score(truth: &Truth, incidents: &[FoundIncident]) -> Score {
    let is_before =
        |found: &&FoundIncident| truth.healthy || found.incident.opened_at.millis() < truth.injected_ms - TOLERANCE_MS;
    let (before, after): (Vec<&FoundIncident>, Vec<_>) = incidents.iter().partition(is_before);
    let opened_ms = after.iter().map(|found| found.incident.opened_at.millis()).min();
    let rank = |found: &&FoundIncident| {
        found.causes.iter().position(|(name, _)| is_right(name, &truth.names)).map(|place| place + 1)
    };
    let title = |found: &FoundIncident| {
        let after_ms = found.incident.opened_at.millis() - truth.injected_ms;
        format!("{:+} s {}", after_ms / 1000, found.incident.title)
    };
    let first_cause = after.first().and_then(|found| found.causes.first());
    Score {
        name: truth.name.clone(),
        kind: truth.kind.clone(),
        healthy: truth.healthy,
        false_incidents: before.len(),
        delay_seconds: opened_ms.map(|opened_ms| (opened_ms - truth.injected_ms) as f64 / 1000.0),
        rank: after.iter().filter_map(rank).min(),
        rule: first_cause.map(|(_, rule)| rule.clone()).unwrap_or_default(),
        split: after.len().saturating_sub(1),
        titles: incidents.iter().take(MAX_TITLES).map(title).collect(),
    }
}

/// Returns whether a name is one of the wanted ones, or has one as a whole word. A name of several words names nothing.
pub(super) fn is_right(name: &str, wanted: &[String]) -> bool {
    let name = name.to_lowercase();
    if name.chars().filter(|letter| letter.is_whitespace() || ",;|/+".contains(*letter)).count() > 1 {
        return false;
    }
    wanted.iter().any(|wanted| {
        let wanted = wanted.to_lowercase();
        // Short names are words of a name, not of its parts: `db` is not `orders-db`.
        let joins = |letter: char| letter.is_alphanumeric() || (wanted.len() <= 3 && ".:-".contains(letter));
        !wanted.is_empty()
            && name.match_indices(&wanted).any(|(at, found)| {
                let (before, after) = (name.get(..at), name.get(at + found.len()..));
                !before.unwrap_or_default().ends_with(joins) && !after.unwrap_or_default().starts_with(joins)
            })
    })
}

/// Totals of several cases.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) faults: usize,
    pub(crate) found: usize,
    pub(crate) first: usize,
    pub(crate) in_three: usize,
    pub(crate) healthy: usize,
    pub(crate) healthy_silent: usize,
    pub(crate) false_incidents: usize,
    pub(crate) split: usize,
    pub(crate) median_delay_seconds: f64,
    pub(crate) longest_delay_seconds: f64,
}

impl Summary {
    /// Adds up scores.
    pub(crate) fn of<'a>(scores: impl Iterator<Item = &'a Score> + Clone) -> Self {
        let faults = || scores.clone().filter(|score| !score.healthy);
        let count = |includes: &dyn Fn(&Score) -> bool| faults().filter(|score| includes(score)).count();
        let mut delays: Vec<f64> = faults().filter_map(|score| score.delay_seconds).collect();
        delays.sort_by(f64::total_cmp);
        let healthy = || scores.clone().filter(|score| score.healthy);
        Self {
            faults: faults().count(),
            found: delays.len(),
            first: count(&|score| score.rank == Some(1)),
            in_three: count(&|score| score.rank.is_some_and(|rank| rank <= 3)),
            healthy: healthy().count(),
            healthy_silent: healthy().filter(|score| score.false_incidents == 0).count(),
            false_incidents: scores.clone().map(|score| score.false_incidents).sum(),
            split: scores.clone().map(|score| score.split).sum(),
            median_delay_seconds: delays.get(delays.len() / 2).copied().unwrap_or_default(),
            longest_delay_seconds: delays.last().copied().unwrap_or_default(),
        }
    }
}

/// Returns one line about a case.
pub(crate) fn line(score: &Score) -> String {
    let kind = if score.healthy { "healthy" } else { &score.kind };
    let delay = score.delay_seconds.map_or_else(|| "–".to_owned(), |delay| format!("{delay:.0}"));
    let rank = score.rank.map_or_else(|| "–".to_owned(), |rank| rank.to_string());
    format!(
        "{:44} {kind:24} false {} delay {delay:>4} rank {rank:>2} split {} {:22} {:?}",
        score.name, score.false_incidents, score.split, score.rule, score.titles
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_right_as_a_whole_word() {
        let wanted = |name: &str| vec![name.to_owned()];
        for (name, want, right) in [
            ("orders", "orders", true),
            ("shop/orders", "orders", true),
            ("orders-db", "orders", true),
            ("reorders", "orders", false),
            ("orders-db", "db", false),
            ("a, b, orders", "orders", false),
        ] {
            assert_eq!(is_right(name, &wanted(want)), right, "{name} {want}");
        }
    }
}
