//! The section `policy` of the configuration.

use std::collections::BTreeSet;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wardroom_domain::config_check::ConfigProblems;
use wardroom_domain::{Entity, EntityKind, Timestamp};

use crate::autonomy::Bar;
use crate::calendar::{self, Freeze, TimeWindow};
use crate::escalation::Step;
use crate::request::{Criticality, Target};

/// Maximum number of windows, freezes, declared targets or steps.
const MAX_ENTRIES: usize = 1000;

/// Settings of the policy.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// File of rules in Cedar, in place of the built-in ones, which `wardroom policy show` prints. Default: none.
    /// Since 0.2.
    pub file: Option<PathBuf>,
    /// Shadow mode: plans are proposed and recorded beside what people do, and never carried out. Default false.
    /// Since 0.2.
    pub shadow: bool,
    /// Time zone of the time windows, a name of the IANA database such as `Europe/Berlin`. Default `UTC`. Since 0.2.
    pub timezone: String,
    /// Time windows, which rules refer to by name. Default: `night`, from 22:00 to 06:00. Since 0.2.
    pub windows: Vec<TimeWindow>,
    /// Change freezes: no action on what they cover, unless a person declares an emergency. Default: none. Since 0.2.
    pub freezes: Vec<Freeze>,
    /// What is known of targets: criticality, owner, environment. Of several entries that fit, the first that says
    /// something counts. Default: none. Since 0.2.
    pub entities: Vec<TargetRule>,
    /// When an action has earned more autonomy. Since 0.2.
    pub autonomy: Bar,
    /// Who is asked for an approval, in turn, if no person answers. Default: responders at once. Since 0.2.
    pub escalation: Vec<Step>,
}

impl Default for Config {
    fn default() -> Self {
        let night = TimeWindow { name: "night".into(), days: Vec::new(), from: "22:00".into(), to: "06:00".into() };
        Self {
            file: None,
            shadow: false,
            timezone: "UTC".into(),
            windows: vec![night],
            freezes: Vec::new(),
            entities: Vec::new(),
            autonomy: Bar::default(),
            escalation: vec![Step::default()],
        }
    }
}

/// What is known of the targets that fit. Patterns may have `*`, which stands for any text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct TargetRule {
    /// Pattern of the entity's or the target's name. Default `*`. Since 0.2.
    pub name: Option<String>,
    /// Pattern of the namespace. Default `*`. Since 0.2.
    pub namespace: Option<String>,
    /// Pattern of the cluster. Default `*`. Since 0.2.
    pub cluster: Option<String>,
    /// Pattern of the environment. Default `*`. Since 0.2.
    pub environment: Option<String>,
    /// Kind of the entity. Default: any. Since 0.2.
    pub kind: Option<EntityKind>,
    /// How much depends on them. Default: the next entry says. Since 0.2.
    pub criticality: Option<Criticality>,
    /// The team that owns them. Since 0.2.
    pub owner: Option<String>,
    /// Their environment, where telemetry does not say it. Since 0.2.
    pub in_environment: Option<String>,
    /// Whether Wardroom itself runs on them: its host, store or bus. Since 0.2.
    pub wardroom: Option<bool>,
}

impl Config {
    /// Adds what is wrong with the values.
    pub fn check(&self, problems: &mut ConfigProblems) {
        calendar::check(&self.timezone, &self.windows, &self.freezes, problems);
        let lists = [
            ("policy.windows", self.windows.len()),
            ("policy.freezes", self.freezes.len()),
            ("policy.entities", self.entities.len()),
            ("policy.escalation", self.escalation.len()),
        ];
        for (field, length) in lists {
            problems.require(length <= MAX_ENTRIES, field, format_args!("{length} entries; at most {MAX_ENTRIES}"));
        }
        self.autonomy.check(problems);
        crate::escalation::check(&self.escalation, problems);
    }

    /// Returns the names of the time windows in force.
    pub fn windows_at(&self, at: Timestamp) -> BTreeSet<String> {
        calendar::windows_at(&self.timezone, &self.windows, at)
    }

    /// Returns the names of the change freezes in force for a target.
    pub fn freezes_at(&self, at: Timestamp, target: &Target) -> BTreeSet<String> {
        calendar::freezes_at(&self.freezes, at, target)
    }

    /// Returns a target with what is declared of it. `name` is the executor's name.
    pub fn target(&self, entity: &Entity, name: &str) -> Target {
        let mut entity = entity.clone();
        let fits = |rule: &&TargetRule| rule.fits(&entity, name);
        let rules: Vec<&TargetRule> = self.entities.iter().filter(fits).collect();
        if entity.environment.is_empty() {
            let environment = rules.iter().find_map(|rule| rule.in_environment.clone());
            entity.environment = environment.unwrap_or_default();
        }
        Target {
            criticality: rules.iter().find_map(|rule| rule.criticality).unwrap_or_default(),
            owner: rules.iter().find_map(|rule| rule.owner.clone()).unwrap_or_default(),
            is_wardroom: rules.iter().find_map(|rule| rule.wardroom).unwrap_or_default(),
            name: name.to_owned(),
            entity,
        }
    }
}

impl TargetRule {
    fn fits(&self, entity: &Entity, target: &str) -> bool {
        let fits = |pattern: &Option<String>, text: &str| pattern.as_deref().is_none_or(|p| matches_pattern(p, text));
        let is_named = fits(&self.name, &entity.name) || fits(&self.name, target);
        is_named
            && fits(&self.namespace, &entity.namespace)
            && fits(&self.cluster, &entity.cluster)
            && fits(&self.environment, &entity.environment)
            && self.kind.is_none_or(|kind| kind == entity.kind)
    }
}

/// Whether a text fits a pattern in which `*` stands for any text.
fn matches_pattern(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some((_, after)) = text.split_once(part) else { return false };
        text = after;
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let cases = [
            ("cart", "cart", true),
            ("cart", "cart2", false),
            ("*", "", true),
            ("prod-*", "prod-eu", true),
            ("prod-*", "staging-eu", false),
            ("*-db", "cart-db", true),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "a1c2b", false),
            ("aa*aa", "aaa", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(matches_pattern(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn the_first_entry_that_says_something_counts() {
        let rule = |name: &str| TargetRule { name: Some(name.into()), ..TargetRule::default() };
        let config = Config {
            entities: vec![
                TargetRule { criticality: Some(Criticality::Critical), ..rule("pay*") },
                TargetRule { owner: Some("billing".into()), ..rule("payment") },
                TargetRule { criticality: Some(Criticality::Low), in_environment: Some("prod".into()), ..rule("*") },
                TargetRule { wardroom: Some(true), ..rule("wardroom-db") },
            ],
            ..Config::default()
        };
        let payment = config.target(&Entity::service("payment"), "web");
        assert_eq!((payment.criticality, payment.owner.as_str()), (Criticality::Critical, "billing"));
        assert_eq!(payment.entity.environment, "prod");
        assert!(!payment.is_wardroom && config.target(&Entity::service("x"), "wardroom-db").is_wardroom);
        let staging = Entity { environment: "staging".into(), ..Entity::service("cart") };
        assert_eq!(config.target(&staging, "cart").entity.environment, "staging");
    }
}
