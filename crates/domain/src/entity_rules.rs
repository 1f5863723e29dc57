//! Rules that map labels to entities: an ordered, configurable list of label names (ADR 013).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config_check::ConfigProblems;
use crate::labels::Labels;

/// Label names for each kind of entity; the first label that is present is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct EntityRules {
    /// Labels with the name of the service.
    pub service: Vec<String>,
    /// Labels of client metrics with the name of the called service.
    pub peer: Vec<String>,
    /// Labels with the outcome of a request: a status code or a word.
    pub code: Vec<String>,
}

impl Default for EntityRules {
    fn default() -> Self {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            service: list(&[
                "service.name",
                "service_name",
                "service",
                "app.kubernetes.io/name",
                "app",
                "k8s.deployment.name",
                "deployment",
                "job",
            ]),
            peer: list(&["peer.service", "peer_service", "server_address", "upstream"]),
            code: list(&[
                "http.response.status_code",
                "http_response_status_code",
                "status_code",
                "code",
                "status",
                "grpc_code",
                "outcome",
            ]),
        }
    }
}

impl EntityRules {
    /// Adds what is wrong with the values.
    pub fn check(&self, problems: &mut ConfigProblems) {
        problems.names("entities.service", &self.service);
        problems.names("entities.peer", &self.peer);
        problems.names("entities.code", &self.code);
    }

    /// Returns the service of a label set; empty if no rule applies.
    pub fn service_of<'a>(&self, labels: &'a Labels) -> &'a str {
        first(&self.service, labels).unwrap_or_default()
    }

    /// Returns the called service of a client metric.
    pub fn peer_of<'a>(&self, labels: &'a Labels) -> Option<&'a str> {
        first(&self.peer, labels)
    }

    /// Returns whether the outcome label is a failure: a 5xx code or a failure word.
    pub fn is_failure(&self, labels: &Labels) -> bool {
        let Some(code) = first(&self.code, labels) else { return false };
        let number = code.len() == 3 && code.starts_with('5') && code.bytes().all(|byte| byte.is_ascii_digit());
        let words = ["error", "timeout", "failed", "failure", "unavailable", "internal", "5xx", "deadlineexceeded"];
        number || words.contains(&code.to_ascii_lowercase().as_str())
    }
}

fn first<'a>(rules: &[String], labels: &'a Labels) -> Option<&'a str> {
    rules.iter().find_map(|name| labels.get(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_the_first_label_that_is_present() {
        let rules = EntityRules::default();
        let labels = Labels::of(&[("job", "scrape"), ("service", "a"), ("code", "503")]);
        assert_eq!(rules.service_of(&labels), "a");
        assert!(rules.is_failure(&labels));
        assert!(!rules.is_failure(&Labels::of(&[("code", "404")])));
        assert!(rules.is_failure(&Labels::of(&[("outcome", "Timeout")])));
    }
}
