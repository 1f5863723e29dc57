//! Rules that map labels to entities: ordered, configurable lists of label names (ADR 013, ADR 047).
//!
//! Resource attributes of OpenTelemetry are listed twice: as they are, for logs and spans, and with underscores, as
//! metrics have them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config_check::ConfigProblems;
use crate::entity::{Entity, EntityKind};
use crate::entity_names::{host_of, is_loopback, workload_of_pod};
use crate::labels::Labels;

/// Labels whose value is the name of a pod: the workload is the name without its random suffixes.
const POD_LABELS: [&str; 5] = ["k8s.pod.name", "k8s_pod_name", "pod", "pod_name", "kubernetes_pod_name"];
/// Labels with the name of a Kubernetes workload.
const WORKLOAD_LABELS: [&str; 10] = [
    "k8s.deployment.name",
    "k8s_deployment_name",
    "k8s.statefulset.name",
    "k8s_statefulset_name",
    "k8s.daemonset.name",
    "k8s_daemonset_name",
    "k8s.cronjob.name",
    "k8s_cronjob_name",
    "deployment",
    "workload",
];
/// The label with the name of the scrape job.
const JOB: &str = "job";
/// The label with the address of a scrape target.
const INSTANCE: &str = "instance";

/// A label set in any form: encoded, or decoded by a caller that asks for many labels of it.
pub trait LabelLookup<'a>: Copy {
    /// Returns the value of a label.
    fn label(self, name: &str) -> Option<&'a str>;
}

impl<'a> LabelLookup<'a> for &'a Labels {
    #[inline]
    fn label(self, name: &str) -> Option<&'a str> {
        self.get(name)
    }
}

/// Label names for each kind of entity; of each list, the first label that is present is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct EntityRules {
    /// Labels with the name of the service. Of `pod` and its other spellings the random suffixes are removed; a `job`
    /// counts only if it is not one of `generic-jobs`.
    pub service: Vec<String>,
    /// Labels of client metrics and spans with the name of the called service.
    pub peer: Vec<String>,
    /// Labels with the outcome of a request: a status code or a word.
    pub code: Vec<String>,
    /// Labels with the namespace. Since 0.1.
    pub namespace: Vec<String>,
    /// Labels with the deployment environment. Since 0.1.
    pub environment: Vec<String>,
    /// Labels with the cluster. Since 0.1.
    pub cluster: Vec<String>,
    /// Labels with the name of the machine. Since 0.1.
    pub node: Vec<String>,
    /// Names of scrape jobs that say how targets were found, not what they are; `*` stands for any text. Since 0.1.
    pub generic_jobs: Vec<String>,
    /// Names of one thing, for what Wardroom cannot find out: each entry is a list of names, addresses or DNS names,
    /// the best known first. Default: none. Since 0.1.
    pub aliases: Vec<Vec<String>>,
    /// Files with further conventions, or folders of such files (`*.yaml`), in the format of `docs/signals.md`.
    /// Default: none. Since 0.1.
    pub conventions: Vec<std::path::PathBuf>,
}

impl Default for EntityRules {
    fn default() -> Self {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut service = list(&["service.name", "service_name", "service"]);
        service.extend(list(&WORKLOAD_LABELS));
        service.extend(list(&POD_LABELS));
        service.extend(list(&["app.kubernetes.io/name", "app_kubernetes_io_name", "app", "application", JOB]));
        Self {
            service,
            peer: list(&["peer.service", "peer_service", "server_address", "upstream"]),
            code: list(&OUTCOME_LABELS),
            namespace: list(&[
                "k8s.namespace.name",
                "k8s_namespace_name",
                "namespace",
                "kubernetes_namespace",
                "service.namespace",
                "service_namespace",
            ]),
            environment: list(&[
                "deployment.environment.name",
                "deployment_environment_name",
                "deployment.environment",
                "deployment_environment",
                "environment",
                "env",
            ]),
            cluster: list(&["k8s.cluster.name", "k8s_cluster_name", "cluster"]),
            node: list(&[
                "k8s.node.name",
                "k8s_node_name",
                "node",
                "nodename",
                "kubernetes_node",
                "host.name",
                "host_name",
                "host",
                "hostname",
            ]),
            generic_jobs: list(&GENERIC_JOBS),
            aliases: Vec::new(),
            conventions: Vec::new(),
        }
    }
}

/// Labels with the outcome of requests, in the spellings of public instrumentations.
const OUTCOME_LABELS: [&str; 29] = [
    "http.response.status_code",
    "http_response_status_code",
    "http.status_code",
    "http_status_code",
    "rpc.grpc.status_code",
    "rpc_grpc_status_code",
    "rpc.response.status_code",
    "rpc_response_status_code",
    "response_code",
    "envoy_response_code",
    "envoy_response_code_class",
    "status_code",
    "grpc_code",
    "grpc_status",
    "grpc_response_status",
    "code",
    "status_class",
    "response_status",
    "status",
    "outcome",
    "result",
    "classification",
    "error.type",
    "error_type",
    "error",
    "success",
    "response_code_class",
    "state",
    "http_code",
];

/// Scrape jobs of public configurations that collect targets of many kinds, and those of exporters.
const GENERIC_JOBS: [&str; 24] = [
    "kubernetes-*",
    "kubernetes_*",
    "kubelet",
    "*cadvisor*",
    "node",
    "nodes",
    "*exporter*",
    "kube-state-metrics",
    "blackbox*",
    "*pushgateway*",
    "integrations/*",
    "prometheus.scrape.*",
    "podMonitor/*",
    "serviceMonitor/*",
    "otel-collector*",
    "opentelemetry-collector*",
    "federate*",
    "pods",
    "endpoints",
    "services",
    "process",
    "static",
    "default",
    "snmp*",
];

impl EntityRules {
    /// Adds what is wrong with the values.
    pub fn check(&self, problems: &mut ConfigProblems) {
        problems.names("entities.service", &self.service);
        problems.names("entities.peer", &self.peer);
        problems.names("entities.code", &self.code);
        problems.names("entities.namespace", &self.namespace);
        problems.names("entities.environment", &self.environment);
        problems.names("entities.cluster", &self.cluster);
        problems.names("entities.node", &self.node);
        problems.names("entities.generic-jobs", &self.generic_jobs);
        for names in &self.aliases {
            let enough = names.len() >= 2 && names.iter().all(|name| !name.is_empty());
            problems.require(
                enough,
                "entities.aliases",
                "an entry needs two or more names; remove it or add the others",
            );
        }
    }

    /// Returns the name of the service or workload of a label set; empty if no rule applies.
    pub fn service_of<'a>(&self, labels: impl LabelLookup<'a>) -> &'a str {
        self.named(labels).map_or("", |(_, name)| name)
    }

    /// Returns what a label set is about: the service, the workload, else the scrape target, else the machine.
    pub fn entity_of<'a>(&self, labels: impl LabelLookup<'a>) -> Option<Entity> {
        let (kind, name) = self.named(labels).or_else(|| {
            // A loopback address names a target only for lack of anything better, and is never another name of one.
            let instance = labels.label(INSTANCE).map(|instance| (EntityKind::Instance, instance));
            let target = instance.filter(|(_, instance)| !is_loopback(host_of(instance)));
            let node = || first(&self.node, labels).map(|node| (EntityKind::Node, node));
            target.or_else(node).or(instance)
        })?;
        Some(self.qualified(labels, kind, name))
    }

    /// Returns an entity of a name in the cluster, environment and namespace of a label set.
    pub fn qualified<'a>(&self, labels: impl LabelLookup<'a>, kind: EntityKind, name: impl Into<String>) -> Entity {
        let text = |rules: &[String]| first(rules, labels).unwrap_or_default().to_owned();
        let mut namespace = text(&self.namespace);
        if namespace.is_empty() && kind == EntityKind::Service {
            namespace = self.job_parts(labels).and_then(|(namespace, _)| namespace).unwrap_or_default().to_owned();
        }
        let (cluster, environment) = (text(&self.cluster), text(&self.environment));
        Entity { kind, cluster, environment, namespace, name: name.into() }
    }

    /// Returns the pod of a label set.
    pub fn pod_of<'a>(&self, labels: impl LabelLookup<'a>) -> Option<&'a str> {
        POD_LABELS.iter().find_map(|name| labels.label(name))
    }

    /// Returns the machine that a label set names.
    pub fn node_of<'a>(&self, labels: impl LabelLookup<'a>) -> Option<&'a str> {
        first(&self.node, labels)
    }

    /// Returns whether a scrape job says how targets were found, not what they are.
    pub fn is_generic_job(&self, job: &str) -> bool {
        self.generic_jobs.iter().any(|pattern| matches_pattern(pattern, job))
    }

    /// Returns the called service of a client metric.
    pub fn peer_of<'a>(&self, labels: impl LabelLookup<'a>) -> Option<&'a str> {
        first(&self.peer, labels)
    }

    /// Returns the outcome label of a request.
    pub fn code_of<'a>(&self, labels: impl LabelLookup<'a>) -> Option<&'a str> {
        first(&self.code, labels)
    }

    /// Returns whether the outcome label is a failure: a 5xx code or a failure word.
    pub fn is_failure<'a>(&self, labels: impl LabelLookup<'a>) -> bool {
        let Some(code) = self.code_of(labels) else { return false };
        let number = code.len() == 3 && code.starts_with('5') && code.bytes().all(|byte| byte.is_ascii_digit());
        let words = ["error", "timeout", "failed", "failure", "unavailable", "internal", "5xx", "deadlineexceeded"];
        number || words.contains(&code.to_ascii_lowercase().as_str())
    }

    /// Returns the name by the first rule that applies, and whether it is that of a service or of a workload.
    fn named<'a>(&self, labels: impl LabelLookup<'a>) -> Option<(EntityKind, &'a str)> {
        self.service.iter().find_map(|rule| {
            let value = labels.label(rule)?;
            match rule.as_str() {
                JOB => self.job_parts(labels).map(|(_, name)| (EntityKind::Service, name)),
                pod if POD_LABELS.contains(&pod) => Some((EntityKind::Workload, workload_of_pod(value))),
                workload if WORKLOAD_LABELS.contains(&workload) => Some((EntityKind::Workload, value)),
                _ => Some((EntityKind::Service, value)),
            }
        })
    }

    /// Returns namespace and name in a job: OpenTelemetry's is `namespace/name`. `None` for a generic job.
    fn job_parts<'a>(&self, labels: impl LabelLookup<'a>) -> Option<(Option<&'a str>, &'a str)> {
        let job = labels.label(JOB).filter(|job| !self.is_generic_job(job))?;
        match job.split_once('/') {
            Some((namespace, name)) if !name.contains('/') && !namespace.is_empty() && !name.is_empty() => {
                Some((Some(namespace), name)).filter(|(_, name)| !self.is_generic_job(name))
            }
            _ => Some((None, job)),
        }
    }
}

fn first<'a>(rules: &[String], labels: impl LabelLookup<'a>) -> Option<&'a str> {
    rules.iter().find_map(|name| labels.label(name))
}

/// Returns whether a text has the form of a pattern, in which each `*` stands for any text.
#[inline]
pub fn matches_pattern(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(start) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return text.ends_with(part);
        }
        let Some((_, tail)) = text.split_once(part).filter(|_| !part.is_empty()) else {
            if part.is_empty() {
                continue;
            }
            return false;
        };
        text = tail;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entity(pairs: &[(&str, &str)]) -> Entity {
        EntityRules::default().entity_of(&Labels::of(pairs)).unwrap()
    }

    #[test]
    fn uses_the_first_label_that_is_present() {
        let rules = EntityRules::default();
        let labels = Labels::of(&[("job", "scrape"), ("service", "a"), ("code", "503")]);
        assert_eq!(rules.service_of(&labels), "a");
        assert!(rules.is_failure(&labels));
        assert!(!rules.is_failure(&Labels::of(&[("code", "404")])));
        assert!(rules.is_failure(&Labels::of(&[("outcome", "Timeout")])));
    }

    #[test]
    fn a_pod_names_its_workload_and_a_generic_job_names_nothing() {
        let pod = [("job", "kubernetes-pods"), ("namespace", "shop"), ("pod", "cart-6d7f8b556-2cwmz")];
        let cart = Entity { namespace: "shop".into(), ..Entity::named(EntityKind::Workload, "cart") };
        assert_eq!(entity(&pod), cart);
        let target = [("job", "kubernetes-service-endpoints"), ("instance", "10.0.0.7:80")];
        assert_eq!(entity(&target), Entity::named(EntityKind::Instance, "10.0.0.7:80"));
        assert_eq!(entity(&[("job", "cart"), ("instance", "10.0.0.7:80")]), Entity::service("cart"));
        let local = entity(&[("job", "node"), ("instance", "localhost:9100")]);
        assert_eq!(local, Entity::named(EntityKind::Instance, "localhost:9100"));
        assert_eq!(entity(&[("host.name", "db-1")]), Entity::named(EntityKind::Node, "db-1"));
    }

    #[test]
    fn a_job_of_opentelemetry_has_namespace_and_name() {
        let job = [("job", "shop/cart"), ("instance", "a"), ("deployment_environment_name", "prod")];
        let cart = Entity { namespace: "shop".into(), environment: "prod".into(), ..Entity::service("cart") };
        assert_eq!(entity(&job), cart);
        assert_eq!(entity(&[("job", "integrations/redis"), ("instance", "a:1")]).kind, EntityKind::Instance);
    }

    #[test]
    fn patterns_match_whole_texts() {
        for (pattern, text, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "ab", true),
            ("*b", "ab", true),
            ("*b", "ba", false),
            ("*x*", "axb", true),
            ("*x*", "ab", false),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "a1c", false),
            ("*", "", true),
        ] {
            assert_eq!(matches_pattern(pattern, text), expected, "{pattern} {text}");
        }
    }
}
