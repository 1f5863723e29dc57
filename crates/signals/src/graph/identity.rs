//! When two entities with a common name are one thing, and which of their names is the best known.

use wardroom_domain::entity_names::{is_ip_address, workload_of_pod};
use wardroom_domain::{Entity, EntityKind};

/// Orders the names of one thing: the greatest is the best known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    is_store: bool,
    is_name: bool,
    has_namespace: bool,
    kind: u8,
    has_environment: bool,
    has_cluster: bool,
}

impl Rank {
    pub(super) fn of(entity: &Entity) -> Self {
        let name = entity.name.as_str();
        Self {
            is_store: is_store(entity.kind),
            // An address or `system/database` is known only as such.
            is_name: !name.contains(['/', ':']) && !is_ip_address(name),
            has_namespace: !entity.namespace.is_empty(),
            kind: kind_rank(entity.kind),
            has_environment: !entity.environment.is_empty(),
            has_cluster: !entity.cluster.is_empty(),
        }
    }
}

const fn kind_rank(kind: EntityKind) -> u8 {
    match kind {
        EntityKind::Database | EntityKind::Cache | EntityKind::Queue => 7,
        EntityKind::Service => 6,
        EntityKind::Workload => 5,
        EntityKind::Container => 4,
        EntityKind::Instance => 3,
        EntityKind::External => 2,
        EntityKind::Endpoint => 1,
        EntityKind::Node
        | EntityKind::Filesystem
        | EntityKind::Certificate
        | EntityKind::CiJob
        | EntityKind::Validator => 0,
    }
}

pub(super) const fn is_store(kind: EntityKind) -> bool {
    matches!(kind, EntityKind::Database | EntityKind::Cache)
}

/// Kinds of programs under their own name.
pub(super) const fn is_program(kind: EntityKind) -> bool {
    matches!(kind, EntityKind::Service | EntityKind::Workload | EntityKind::Container | EntityKind::Instance)
}

/// Kinds that are known by an address only.
const fn is_address(kind: EntityKind) -> bool {
    matches!(kind, EntityKind::External | EntityKind::Endpoint)
}

/// Returns whether cluster, environment and namespace allow that two entities are one: what is known of both is equal.
pub(super) fn is_compatible(a: &Entity, b: &Entity) -> bool {
    let agree = |a: &str, b: &str| a.is_empty() || b.is_empty() || a == b;
    agree(&a.cluster, &b.cluster) && agree(&a.environment, &b.environment) && agree(&a.namespace, &b.namespace)
}

/// Returns whether two compatible entities that share a name are one. `key` is that name, in lower case.
pub(super) fn is_one(a: &Entity, b: &Entity, key: &str) -> bool {
    let (lower, upper) = if Rank::of(a) <= Rank::of(b) { (a, b) } else { (b, a) };
    let names = |entity: &Entity| entity.name.eq_ignore_ascii_case(key);
    let is_pod = |entity: &Entity| entity.kind == EntityKind::Workload && workload_of_pod(key) == entity.name;
    let has_port = || key.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    match (lower.kind, upper.kind) {
        (EntityKind::Node, EntityKind::Node) => true,
        // A client names the host or the database that an exporter knows, too. Two servers may have databases of one
        // name.
        (a, b) if is_store(a) && a == b => names(lower) || names(upper) || has_port(),
        (a, b) if is_program(a) && is_program(b) => names(lower) || names(upper) || is_pod(lower) || is_pod(upper),
        // Several programs may run on the host of a database; so its name or pod is needed.
        (a, b) if is_program(a) && is_store(b) => names(lower) || is_pod(lower),
        (a, b) if is_address(a) && (is_program(b) || is_store(b)) => true,
        (a, b) if a == b => names(lower) && names(upper),
        _ => false,
    }
}
