//! Which label names which thing: one documented, ordered, configurable rule list (decision D13).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::labels::Labels;

/// For each kind of entity the labels that may name it; the first one present wins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct EntityRules {
    /// Labels that name the service.
    pub service: Vec<String>,
    /// Labels on a client's metric that name the service it called.
    pub peer: Vec<String>,
    /// Labels that hold the outcome of a request: a status code or a word.
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
    /// The service a label set belongs to; empty if no rule applies.
    pub fn service_of<'a>(&self, labels: &'a Labels) -> &'a str {
        first(&self.service, labels).unwrap_or_default()
    }

    /// The service that a client's metric says was called.
    pub fn peer_of<'a>(&self, labels: &'a Labels) -> Option<&'a str> {
        first(&self.peer, labels)
    }

    /// Whether the outcome label says the request failed: 5xx, or a word for failure.
    pub fn failed(&self, labels: &Labels) -> bool {
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
    fn the_first_rule_present_wins() {
        let rules = EntityRules::default();
        let labels = Labels::of(&[("job", "scrape"), ("service", "a"), ("code", "503")]);
        assert_eq!(rules.service_of(&labels), "a");
        assert!(rules.failed(&labels));
        assert!(!rules.failed(&Labels::of(&[("code", "404")])));
        assert!(rules.failed(&Labels::of(&[("outcome", "Timeout")])));
    }
}
