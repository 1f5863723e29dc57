//! Settings of correlation.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wardroom_domain::config_check::{ConfigProblems, MAX_MINUTES};

/// Settings of correlation.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// An incident whose findings have all ended for this long takes no findings that begin later, in minutes; at
    /// least five intervals of the slowest signal. Default 5. Since 0.1.
    pub quiet_minutes: u64,
    /// A symptom shows at a dependent entity at most this long after its cause began or became worse, in minutes.
    /// Default 10. Since 0.2.
    pub propagation_minutes: u64,
    /// A deployment at most this long before the onset is recent, in minutes. Default 30. Since 0.1.
    pub deployment_minutes: u64,
    /// Maximum number of incidents of a tenant that findings may join; further ones open when others are settled or
    /// quiet. Default 200. Since 0.1.
    pub max_open_incidents: usize,
    /// Maximum number of entities of an incident; findings of further ones belong to it, but are not listed. Default
    /// 200. Since 0.1.
    pub max_services_per_incident: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            quiet_minutes: 5,
            propagation_minutes: 10,
            deployment_minutes: 30,
            max_open_incidents: 200,
            max_services_per_incident: 200,
        }
    }
}

impl Config {
    /// Adds what is wrong with the values.
    pub fn check(&self, problems: &mut ConfigProblems) {
        problems.range("correlate.quiet-minutes", self.quiet_minutes, 1..=MAX_MINUTES);
        problems.range("correlate.propagation-minutes", self.propagation_minutes, 1..=MAX_MINUTES);
        problems.range("correlate.deployment-minutes", self.deployment_minutes, 0..=MAX_MINUTES);
        problems.count("correlate.max-open-incidents", self.max_open_incidents);
        problems.count("correlate.max-services-per-incident", self.max_services_per_incident);
    }
}
