//! The mechanisms: one rule a file. A rule names how an entity fails, from evidence about that entity; which entity it
//! is decides the ranking. A new rule is a file and a line in [`RULES`].

mod bad_deployment;
mod bad_setting;
mod cache_memory_full;
mod callee_unreachable;
mod calls_missing;
mod certificate_expiry;
mod connection_leak;
mod consumer_slow;
mod consumer_stopped;
mod container_not_starting;
mod cpu_hog;
mod crash_loop;
mod database_connections;
mod database_lock;
mod dependency_unavailable;
mod descriptor_leak;
mod disk_full;
mod error_log_burst;
mod exporter_down;
mod failing_requests;
mod instance_down;
mod memory_leak;
mod network_delay;
mod node_saturated;
mod oom_kill;
mod pool_exhausted;
mod queue_full;
mod queue_growing;
mod slow_dependency;
mod timeout_setting;
mod traffic_surge;
mod unknown;

use crate::rule::Rule;

/// All rules, the more specific ones first: of equal fits the first one counts.
pub const RULES: &[&Rule] = &[
    &bad_setting::RULE,
    &certificate_expiry::RULE,
    &oom_kill::RULE,
    &crash_loop::RULE,
    &container_not_starting::RULE,
    &disk_full::RULE,
    &exporter_down::RULE,
    &database_connections::RULE,
    &database_lock::RULE,
    &cache_memory_full::RULE,
    &consumer_stopped::RULE,
    &queue_full::RULE,
    &consumer_slow::RULE,
    &instance_down::RULE,
    &traffic_surge::RULE,
    &connection_leak::RULE,
    &pool_exhausted::RULE,
    &descriptor_leak::RULE,
    &node_saturated::RULE,
    &memory_leak::RULE,
    &cpu_hog::RULE,
    &queue_growing::RULE,
    &dependency_unavailable::RULE,
    &callee_unreachable::RULE,
    &timeout_setting::RULE,
    &network_delay::RULE,
    &slow_dependency::RULE,
    &failing_requests::RULE,
    &calls_missing::RULE,
    &error_log_burst::RULE,
    &bad_deployment::RULE,
    &unknown::RULE,
];

impl Rule {
    /// Returns the rule with this id.
    pub fn find(id: &str) -> Option<&'static Self> {
        RULES.iter().copied().find(|rule| rule.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_every_rule_says_what_to_check() {
        for (index, rule) in RULES.iter().enumerate() {
            assert!(RULES.iter().skip(index + 1).all(|other| other.id != rule.id), "{}", rule.id);
            assert!(!rule.next_checks.is_empty() && !rule.needs.is_empty() && !rule.says.is_empty(), "{}", rule.id);
            assert!(rule.id == "unknown" || !rule.tags.is_empty(), "{}", rule.id);
            assert!(Rule::find(rule.id).is_some());
        }
    }
}
