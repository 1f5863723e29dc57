//! Autonomy is earned: an action runs without approval for a cause only after it was right often enough.
//!
//! The unit is a pair: the rule that names the cause, and the action (tool and operation). Each settled incident in
//! which Wardroom proposed the action, in shadow mode or for approval, is one trial. It says whether people agreed,
//! and whether the action helped. `offer` says when the lower bounds of both shares (Wilson's interval) pass the
//! [`Bar`]; an administrator then accepts one level more. One failure takes everything back: the level, and the trials
//! before it no longer count.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wardroom_domain::config_check::ConfigProblems;
use wardroom_domain::{Principal, Timestamp};

use crate::request::Autonomy;

/// Quantile of the normal distribution for a two-sided interval of 95 %.
const Z_95: f64 = 1.959_964;

/// When a pair may be offered more autonomy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Bar {
    /// Lower bound, with 95 % confidence, that agreement and success have to pass for night mode; 0.72 is ten of ten.
    /// Default 0.72. Since 0.2.
    pub night: f64,
    /// Lower bound that they have to pass to run without approval at any time; 0.88 is 29 of 29. Default 0.88.
    /// Since 0.2.
    pub automatic: f64,
}

impl Default for Bar {
    fn default() -> Self {
        Self { night: 0.72, automatic: 0.88 }
    }
}

impl Bar {
    /// Adds what is wrong with the values.
    pub(crate) fn check(&self, problems: &mut ConfigProblems) {
        problems.ratio("policy.autonomy.night", self.night);
        problems.ratio("policy.autonomy.automatic", self.automatic);
        for (field, bar) in [("policy.autonomy.night", self.night), ("policy.autonomy.automatic", self.automatic)] {
            problems.require(bar > 0.0, field, "0 would let an action run without approval that has not earned it");
        }
        let detail = "it is below policy.autonomy.night; automatic needs at least as much";
        problems.require(self.automatic >= self.night, "policy.autonomy.automatic", detail);
    }

    const fn of(&self, level: Autonomy) -> f64 {
        match level {
            Autonomy::Ask => 0.0,
            Autonomy::Night => self.night,
            Autonomy::Automatic => self.automatic,
        }
    }
}

/// A cause and an action for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pair {
    /// Id of the rule that names the cause.
    pub rule: String,
    /// The tool.
    pub tool: String,
    /// The operation.
    pub operation: String,
}

/// One incident in which Wardroom proposed the action of a pair, or would have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// When the incident was settled.
    pub at: Timestamp,
    /// Whether people did the same, or approved it; `None` if no person decided.
    pub agreed: Option<bool>,
    /// Whether the action helped; `None` if it was not carried out, or telemetry does not show it.
    pub helped: Option<bool>,
}

impl Trial {
    const fn is_failure(&self) -> bool {
        matches!(self.agreed, Some(false)) || matches!(self.helped, Some(false))
    }
}

/// A level that an administrator has accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The level.
    pub level: Autonomy,
    /// Who accepted it.
    pub by: Principal,
    /// When.
    pub at: Timestamp,
}

/// Where a pair stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Standing {
    /// The level in force.
    pub level: Autonomy,
    /// Times that people agreed, of those in which a person decided, since the last failure.
    pub agreed: (u32, u32),
    /// Times that it helped, of those in which telemetry shows it, since the last failure.
    pub helped: (u32, u32),
    /// The smaller lower bound of both shares, with 95 % confidence.
    pub lower_bound: f64,
    /// The next level, if an administrator may accept it now.
    pub offer: Option<Autonomy>,
    /// Time of the last failure.
    pub last_failure: Option<Timestamp>,
    /// Number of failures ever, and of successes since the last one.
    pub failures: u32,
}

impl Standing {
    /// Returns the number of successes since the last failure.
    pub const fn successes(&self) -> u32 {
        self.helped.0
    }

    /// Returns whether an administrator may set a level now: the offered one, or one not above that in force.
    pub fn may_set(&self, level: Autonomy) -> bool {
        level <= self.level || self.offer == Some(level)
    }
}

/// A pair without trials.
impl Default for Standing {
    fn default() -> Self {
        standing(&[], None, &Bar::default())
    }
}

/// Returns the lower bound of Wilson's interval for a share, with 95 % confidence; 0 without trials.
pub fn wilson_lower_bound(successes: u32, trials: u32) -> f64 {
    if trials == 0 {
        return 0.0;
    }
    let (n, z) = (f64::from(trials), Z_95);
    let share = f64::from(successes.min(trials)) / n;
    let centre = share + z * z / (2.0 * n);
    let spread = z * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    ((centre - spread) / (1.0 + z * z / n)).max(0.0)
}

/// Returns where a pair stands, from its trials in any order and the level accepted last.
pub fn standing(trials: &[Trial], accepted: Option<&Accepted>, bar: &Bar) -> Standing {
    let failures = trials.iter().filter(|trial| trial.is_failure());
    let last_failure = failures.clone().map(|trial| trial.at).max();
    // Level and trials count from after the last failure on.
    let counts = |at: Timestamp| last_failure.is_none_or(|failed| at > failed);
    let level = accepted.filter(|accepted| counts(accepted.at)).map(|accepted| accepted.level).unwrap_or_default();
    let current: Vec<&Trial> = trials.iter().filter(|trial| counts(trial.at)).collect();
    let share = |value: fn(&Trial) -> Option<bool>| {
        let decided = || current.iter().filter_map(|trial| value(trial));
        (count(decided().filter(|good| *good)), count(decided()))
    };
    let (agreed, helped) = (share(|trial| trial.agreed), share(|trial| trial.helped));
    let lower_bound = wilson_lower_bound(agreed.0, agreed.1).min(wilson_lower_bound(helped.0, helped.1));
    let next = Autonomy::ALL.into_iter().find(|next| *next > level);
    let offer = next.filter(|next| lower_bound >= bar.of(*next));
    Standing { level, agreed, helped, lower_bound, offer, last_failure, failures: count(failures) }
}

/// Returns where each pair stands that has trials or an accepted level.
pub fn standings(
    trials: impl IntoIterator<Item = (Pair, Trial)>,
    accepted: impl IntoIterator<Item = (Pair, Accepted)>,
    bar: &Bar,
) -> BTreeMap<Pair, Standing> {
    let mut pairs: BTreeMap<Pair, (Vec<Trial>, Option<Accepted>)> = BTreeMap::new();
    for (pair, trial) in trials {
        pairs.entry(pair).or_default().0.push(trial);
    }
    for (pair, level) in accepted {
        pairs.entry(pair).or_default().1 = Some(level);
    }
    pairs.into_iter().map(|(pair, (trials, accepted))| (pair, standing(&trials, accepted.as_ref(), bar))).collect()
}

fn count(items: impl Iterator) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn trial(minute: i64, agreed: Option<bool>, helped: Option<bool>) -> Trial {
        Trial { at: Timestamp::from_millis(minute * 60_000), agreed, helped }
    }

    fn successes(range: std::ops::Range<i64>) -> Vec<Trial> {
        range.map(|minute| trial(minute, Some(true), Some(true))).collect()
    }

    fn accepted(level: Autonomy, minute: i64) -> Accepted {
        let by = Principal::new("root").unwrap();
        Accepted { level, by, at: Timestamp::from_millis(minute * 60_000) }
    }

    #[test]
    fn after_ten_successes_there_is_an_offer_and_after_one_failure_it_is_gone() {
        let bar = Bar::default();
        assert_eq!(standing(&successes(0..9), None, &bar).offer, None);
        let mut trials = successes(0..10);
        assert_eq!(standing(&trials, None, &bar).offer, Some(Autonomy::Night));
        trials.push(trial(10, Some(true), Some(false)));
        let failed = standing(&trials, None, &bar);
        assert_eq!((failed.offer, failed.level, failed.successes()), (None, Autonomy::Ask, 0));
    }

    #[test]
    fn a_failure_takes_the_accepted_level_back() {
        let (bar, night) = (Bar::default(), accepted(Autonomy::Night, 10));
        let mut trials = successes(0..10);
        assert_eq!(standing(&trials, Some(&night), &bar).level, Autonomy::Night);
        trials.push(trial(11, Some(false), None));
        assert_eq!(standing(&trials, Some(&night), &bar).level, Autonomy::Ask);
        trials.extend(successes(12..22));
        let again = standing(&trials, Some(&night), &bar);
        assert_eq!((again.level, again.offer), (Autonomy::Ask, Some(Autonomy::Night)), "accepted again, not restored");
    }

    #[test]
    fn night_comes_before_automatic() {
        let bar = Bar::default();
        let trials = successes(0..29);
        assert_eq!(standing(&trials, None, &bar).offer, Some(Autonomy::Night));
        let night = accepted(Autonomy::Night, 10);
        assert_eq!(standing(&trials[..28], Some(&night), &bar).offer, None);
        assert_eq!(standing(&trials, Some(&night), &bar).offer, Some(Autonomy::Automatic));
        assert_eq!(standing(&trials, Some(&accepted(Autonomy::Automatic, 30)), &bar).offer, None);
    }

    #[test]
    fn agreement_without_success_and_success_without_agreement_are_not_enough() {
        let bar = Bar::default();
        let agreed: Vec<Trial> = (0..20).map(|minute| trial(minute, Some(true), None)).collect();
        let helped: Vec<Trial> = (0..20).map(|minute| trial(minute, None, Some(true))).collect();
        assert_eq!((standing(&agreed, None, &bar).offer, standing(&helped, None, &bar).offer), (None, None));
    }

    #[test]
    fn wilson_is_as_published() {
        // Agresti and Coull's example, and the closed form for no failures, n / (n + z²).
        for (successes, trials, expected) in [(0, 0, 0.0), (10, 10, 0.722_467), (9, 10, 0.595_850), (5, 10, 0.236_593)]
        {
            let found = wilson_lower_bound(successes, trials);
            assert!((found - expected).abs() < 1e-4, "{successes} of {trials}: {found}");
        }
    }

    proptest! {
        #[test]
        fn the_bound_is_below_the_share_and_one_failure_more_lowers_it(trials in 1_u32..1000, successes in 0_u32..1000) {
            let successes = successes.min(trials);
            let bound = wilson_lower_bound(successes, trials);
            prop_assert!((0.0..=1.0).contains(&bound));
            prop_assert!(bound <= f64::from(successes) / f64::from(trials) + 1e-12);
            prop_assert!(wilson_lower_bound(successes, trials + 1) <= bound + 1e-12);
        }

        #[test]
        fn the_order_of_trials_does_not_matter(order in Just((0..12).collect::<Vec<i64>>()).prop_shuffle()) {
            let make = |minute: i64| trial(minute, Some(minute != 1), Some(true));
            let sorted: Vec<Trial> = (0..12).map(make).collect();
            let shuffled: Vec<Trial> = order.into_iter().map(make).collect();
            let bar = Bar::default();
            prop_assert_eq!(standing(&sorted, None, &bar), standing(&shuffled, None, &bar));
        }
    }
}
