//! Time windows and change freezes at a point in time.

use std::collections::BTreeSet;

use jiff::civil::{Time, Weekday as CivilWeekday};
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wardroom_domain::Timestamp;
use wardroom_domain::config_check::ConfigProblems;

use crate::request::Target;

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the days of the week")]
pub enum Weekday {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

/// A time window that repeats every week. Rules refer to it by name: `context.windows.contains("night")`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TimeWindow {
    /// Name. Two windows of one name are joined.
    pub name: String,
    /// Days on which it begins. Default: all. Since 0.2.
    #[serde(default)]
    pub days: Vec<Weekday>,
    /// Begin, `HH:MM` by the clock of the time zone.
    pub from: String,
    /// End, `HH:MM`; on the next day if it is not after the begin.
    pub to: String,
}

/// A change freeze.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Freeze {
    /// Name, for messages and rules.
    pub name: String,
    /// Begin, RFC 3339.
    pub from: Timestamp,
    /// End, RFC 3339.
    pub to: Timestamp,
    /// Environments that it covers. Default: all. Since 0.2.
    #[serde(default)]
    pub environments: Vec<String>,
    /// Owners that it covers. Default: all. Since 0.2.
    #[serde(default)]
    pub owners: Vec<String>,
}

/// Returns the names of the time windows in force.
pub(crate) fn windows_at(timezone: &str, windows: &[TimeWindow], at: Timestamp) -> BTreeSet<String> {
    // `check` has refused unknown zones.
    let zone = TimeZone::get(timezone).unwrap_or(TimeZone::UTC);
    let Ok(instant) = jiff::Timestamp::from_millisecond(at.millis()) else { return BTreeSet::new() };
    let local = instant.to_zoned(zone);
    let (day, time) = (local.weekday(), local.time());
    windows.iter().filter(|window| window.contains(day, time)).map(|window| window.name.clone()).collect()
}

/// Returns the names of the change freezes in force for a target.
pub(crate) fn freezes_at(freezes: &[Freeze], at: Timestamp, target: &Target) -> BTreeSet<String> {
    let covers = |list: &[String], text: &String| list.is_empty() || list.contains(text);
    let in_force = freezes.iter().filter(|freeze| {
        (freeze.from..freeze.to).contains(&at)
            && covers(&freeze.environments, &target.entity.environment)
            && covers(&freeze.owners, &target.owner)
    });
    in_force.map(|freeze| freeze.name.clone()).collect()
}

impl TimeWindow {
    fn contains(&self, day: CivilWeekday, time: Time) -> bool {
        let (Some(from), Some(to)) = (parse_time(&self.from), parse_time(&self.to)) else { return false };
        let begins_on = |day: CivilWeekday| self.days.is_empty() || self.days.iter().any(|own| civil(*own) == day);
        if from < to {
            return begins_on(day) && (from..to).contains(&time);
        }
        begins_on(day) && time >= from || begins_on(day.previous()) && time < to
    }
}

const fn civil(day: Weekday) -> CivilWeekday {
    match day {
        Weekday::Mon => CivilWeekday::Monday,
        Weekday::Tue => CivilWeekday::Tuesday,
        Weekday::Wed => CivilWeekday::Wednesday,
        Weekday::Thu => CivilWeekday::Thursday,
        Weekday::Fri => CivilWeekday::Friday,
        Weekday::Sat => CivilWeekday::Saturday,
        Weekday::Sun => CivilWeekday::Sunday,
    }
}

/// Parses `HH:MM`.
fn parse_time(text: &str) -> Option<Time> {
    let (hour, minute) = text.split_once(':')?;
    let is_two_digits = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
    if !is_two_digits(hour) || !is_two_digits(minute) {
        return None;
    }
    Time::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok()
}

/// Adds what is wrong with time zone, windows and freezes.
pub(crate) fn check(zone: &str, windows: &[TimeWindow], freezes: &[Freeze], problems: &mut ConfigProblems) {
    let detail = format_args!("there is no time zone {zone:?}; use a name such as Europe/Berlin, or UTC");
    problems.require(TimeZone::get(zone).is_ok(), "policy.timezone", detail);
    for (index, window) in windows.iter().enumerate() {
        let field = format!("policy.windows[{index}]");
        problems.require(!window.name.is_empty(), &format!("{field}.name"), "it is empty; rules refer to the name");
        for (name, text) in [("from", &window.from), ("to", &window.to)] {
            let detail = format_args!("{text:?} is not a time of day; write HH:MM, such as 22:00");
            problems.require(parse_time(text).is_some(), &format!("{field}.{name}"), detail);
        }
    }
    for (index, freeze) in freezes.iter().enumerate() {
        let field = format!("policy.freezes[{index}]");
        problems.require(!freeze.name.is_empty(), &format!("{field}.name"), "it is empty; messages name the freeze");
        problems.require(freeze.from < freeze.to, &format!("{field}.to"), "it is not after `from`");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use wardroom_domain::Entity;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_on_which_it_begins() {
        let window = TimeWindow {
            name: "weekend-night".into(),
            days: vec![Weekday::Sat],
            from: "22:00".into(),
            to: "06:00".into(),
        };
        let config = Config { timezone: "Europe/Berlin".into(), windows: vec![window], ..Config::default() };
        // 2026-11-28 is a Saturday; Berlin is one hour ahead of UTC.
        let cases = [
            ("2026-11-28T20:59:59Z", false),
            ("2026-11-28T21:00:00Z", true),
            ("2026-11-29T04:59:59Z", true),
            ("2026-11-29T05:00:00Z", false),
            ("2026-11-29T21:30:00Z", false),
            ("2026-11-28T03:00:00Z", false),
        ];
        for (time, expected) in cases {
            assert_eq!(config.windows_at(at(time)).contains("weekend-night"), expected, "{time}");
        }
    }

    #[test]
    fn a_window_follows_daylight_saving() {
        let window = TimeWindow { name: "office".into(), days: vec![], from: "09:00".into(), to: "17:00".into() };
        let config = Config { timezone: "Europe/Berlin".into(), windows: vec![window], ..Config::default() };
        assert!(config.windows_at(at("2026-07-01T07:30:00Z")).contains("office"), "summer: two hours ahead");
        assert!(!config.windows_at(at("2026-12-01T07:30:00Z")).contains("office"), "winter: one hour ahead");
    }

    #[test]
    fn a_freeze_covers_environments_and_owners() {
        let freeze = Freeze {
            name: "sale".into(),
            from: at("2026-11-27T00:00:00Z"),
            to: at("2026-11-28T00:00:00Z"),
            environments: vec!["prod".into()],
            owners: vec![],
        };
        let config = Config { freezes: vec![freeze], ..Config::default() };
        let target = |environment: &str| {
            config.target(&Entity { environment: environment.into(), ..Entity::service("cart") }, "cart")
        };
        let during = at("2026-11-27T12:00:00Z");
        assert_eq!(config.freezes_at(during, &target("prod")).len(), 1);
        assert_eq!(config.freezes_at(during, &target("staging")).len(), 0);
        assert_eq!(config.freezes_at(at("2026-11-28T00:00:00Z"), &target("prod")).len(), 0, "the end is excluded");
    }

    #[test]
    fn wrong_values_are_named_with_their_remedy() {
        let window = TimeWindow { name: String::new(), days: vec![], from: "9:00".into(), to: "25:00".into() };
        let config = Config { timezone: "Mars/Base".into(), windows: vec![window], ..Config::default() };
        let mut problems = ConfigProblems::default();
        config.check(&mut problems);
        insta::assert_snapshot!(problems.into_lines().join("\n"));
    }
}
