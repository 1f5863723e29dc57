//! What telemetry is about (D13): services, instances, nodes, databases, queues, certificates, …

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The kind of an entity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EntityKind {
    /// A program that serves or consumes requests, with all of its instances: an OpenTelemetry `service.name`, a mesh
    /// destination, a Kubernetes workload that reports requests.
    #[default]
    Service,
    /// A Kubernetes Deployment, StatefulSet, DaemonSet or Job.
    Workload,
    /// One process or scrape target.
    Instance,
    /// A machine.
    Node,
    /// One container of a pod.
    Container,
    /// A mounted file system.
    Filesystem,
    /// A database server.
    Database,
    /// A cache.
    Cache,
    /// A message broker, or one of its queues or topics.
    Queue,
    /// An address that is probed, or a route of a proxy.
    Endpoint,
    /// A TLS certificate.
    Certificate,
    /// A CI job.
    CiJob,
    /// A blockchain validator.
    Validator,
    /// A host outside of the estate that services call.
    External,
}

impl EntityKind {
    /// All kinds.
    pub const ALL: [Self; 14] = [
        Self::Service,
        Self::Workload,
        Self::Instance,
        Self::Node,
        Self::Container,
        Self::Filesystem,
        Self::Database,
        Self::Cache,
        Self::Queue,
        Self::Endpoint,
        Self::Certificate,
        Self::CiJob,
        Self::Validator,
        Self::External,
    ];

    /// Returns the spelling in JSON, tables and labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Workload => "workload",
            Self::Instance => "instance",
            Self::Node => "node",
            Self::Container => "container",
            Self::Filesystem => "filesystem",
            Self::Database => "database",
            Self::Cache => "cache",
            Self::Queue => "queue",
            Self::Endpoint => "endpoint",
            Self::Certificate => "certificate",
            Self::CiJob => "ci_job",
            Self::Validator => "validator",
            Self::External => "external",
        }
    }

    /// Parses a kind.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

impl fmt::Display for EntityKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing that telemetry is about. Two entities with equal names in different environments are two.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Entity {
    /// The kind.
    pub kind: EntityKind,
    /// Cluster; empty if unknown.
    pub cluster: String,
    /// Deployment environment, such as `prod`; empty if unknown.
    pub environment: String,
    /// Namespace; empty if unknown.
    pub namespace: String,
    /// Name within the namespace, as people know it. Untrusted text.
    pub name: String,
}

impl Entity {
    /// Creates an entity of which only kind and name are known.
    pub fn named(kind: EntityKind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into(), ..Self::default() }
    }

    /// Creates a service of which only the name is known.
    pub fn service(name: impl Into<String>) -> Self {
        Self::named(EntityKind::Service, name)
    }

    /// Creates an entity of this one's cluster, environment and namespace.
    pub fn sibling(&self, kind: EntityKind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into(), ..self.clone() }
    }

    /// Returns the number of bytes of its names.
    pub const fn len(&self) -> usize {
        self.cluster.len() + self.environment.len() + self.namespace.len() + self.name.len()
    }

    /// Returns whether it has no name.
    pub const fn is_empty(&self) -> bool {
        self.name.is_empty()
    }
}

/// The form for titles and texts: the name, after the namespace if there is one.
impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

/// How one entity depends on another. A fault of the second may show at the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RelationKind {
    /// An instance is part of a service, a file system of a node.
    PartOf,
    /// A container runs on a node.
    RunsOn,
    /// A service sends requests to another.
    Calls,
    /// A service uses a database, cache or queue.
    Uses,
}

/// A relation between two entities.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Relation {
    /// The dependent entity.
    pub from: Entity,
    /// How it depends.
    pub kind: RelationKind,
    /// What it depends on.
    pub to: Entity,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_parsed_from_their_spelling() {
        for kind in EntityKind::ALL {
            assert_eq!(EntityKind::parse(kind.as_str()), Some(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }

    #[test]
    fn equal_names_of_two_environments_are_two_entities() {
        let prod = Entity { environment: "prod".into(), ..Entity::service("cart") };
        let staging = Entity { environment: "staging".into(), ..Entity::service("cart") };
        assert_ne!(prod, staging);
        assert_eq!(prod.to_string(), "cart");
        assert_eq!(Entity { namespace: "shop".into(), ..prod }.to_string(), "shop/cart");
    }
}
