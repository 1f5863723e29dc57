//! What a client metric or span calls: by the attributes of OpenTelemetry's semantic conventions, old and new.

use wardroom_domain::entity_names::{host_of, is_ip_address, is_loopback, service_dns};
use wardroom_domain::{Entity, EntityKind};

use crate::context::Context;

const DATABASE_SYSTEM: [&str; 4] = ["db.system.name", "db_system_name", "db.system", "db_system"];
const DATABASE_NAME: [&str; 4] = ["db.namespace", "db_namespace", "db.name", "db_name"];
const MESSAGING_SYSTEM: [&str; 2] = ["messaging.system", "messaging_system"];
const DESTINATION: [&str; 4] =
    ["messaging.destination.name", "messaging_destination_name", "messaging.destination", "messaging_destination"];
const PEER_SERVICE: [&str; 2] = ["peer.service", "peer_service"];
const SERVER_ADDRESS: [&str; 8] = [
    "server.address",
    "server_address",
    "net.peer.name",
    "net_peer_name",
    "http.host",
    "http_host",
    "net.peer.ip",
    "network.peer.address",
];
const SERVER_PORT: [&str; 4] = ["server.port", "server_port", "net.peer.port", "net_peer_port"];
/// Systems of `db.system` that keep data for speed.
const CACHES: [&str; 5] = ["redis", "valkey", "memcached", "hazelcast", "dragonfly"];
/// Names of databases that every server has.
const SYSTEM_DATABASES: [&str; 10] = [
    "postgres",
    "template0",
    "template1",
    "mysql",
    "information_schema",
    "performance_schema",
    "sys",
    "master",
    "0",
    "",
];

/// A called entity with its further names.
pub(crate) struct Called {
    pub(crate) entity: Entity,
    pub(crate) aliases: Vec<String>,
}

/// Returns what a client metric or span calls.
pub(crate) fn called(context: &Context<'_>) -> Option<Called> {
    let view = &context.view;
    let address = view.value(&SERVER_ADDRESS).unwrap_or_default();
    let host = Some(host_of(address)).filter(|host| !is_loopback(host));
    let mut aliases = Vec::new();
    if let Some(host) = host {
        if let Some(port) = view.value(&SERVER_PORT) {
            aliases.push(format!("{host}:{port}"));
        }
        aliases.push(host.to_owned());
    }
    let system = view.value(&DATABASE_SYSTEM).map(normal_system);
    if let Some(system) = &system {
        let database = view.value(&DATABASE_NAME).filter(|name| !SYSTEM_DATABASES.contains(name));
        aliases.extend(database.map(|name| database_alias(system, name)));
    }
    let entity = if let Some(service) = view.value(&PEER_SERVICE) {
        let kind = system.as_deref().map_or(EntityKind::Service, system_kind);
        context.of_host(kind, service, true)
    } else if let Some(system) = &system {
        let name = view.value(&DATABASE_NAME).filter(|name| !SYSTEM_DATABASES.contains(name));
        match (host, name) {
            (Some(host), _) => context.of_host(system_kind(system), host, true),
            // Behind a proxy on the same machine, only the name of the database tells servers apart.
            (None, Some(name)) => context.of_host(system_kind(system), &database_alias(system, name), true),
            (None, None) => context.of_host(system_kind(system), system, true),
        }
    } else if let Some(system) = view.value(&MESSAGING_SYSTEM) {
        let name = view.value(&DESTINATION).or(host).unwrap_or(system);
        let mut queue = context.rules.qualified(&context.view, EntityKind::Queue, name);
        queue.namespace.clear();
        queue
    } else {
        let host =
            host.or_else(|| context.rules.peer_of(&context.view).map(host_of)).filter(|host| !is_loopback(host))?;
        context.of_host(host_kind(host), host, is_ip_address(host) || host.contains('.'))
    };
    aliases.retain(|alias| *alias != entity.name);
    Some(Called { entity, aliases })
}

/// A host with a dot that is no name of Kubernetes may be outside of the estate.
fn host_kind(host: &str) -> EntityKind {
    let is_service = service_dns(host).is_some() || !host.contains('.') && !is_ip_address(host);
    if is_service { EntityKind::Service } else { EntityKind::External }
}

fn system_kind(system: &str) -> EntityKind {
    if CACHES.contains(&system) { EntityKind::Cache } else { EntityKind::Database }
}

/// `postgresql` and `postgres`, `mssql` and `microsoft.sql_server` are one system.
fn normal_system(system: &str) -> String {
    let system = system.to_ascii_lowercase();
    match system.as_str() {
        "postgres" | "pgsql" => "postgresql".to_owned(),
        "microsoft.sql_server" => "mssql".to_owned(),
        "mariadb" => "mysql".to_owned(),
        _ => system,
    }
}

/// Returns a name for the server of a database: clients and exporters both know it.
pub(crate) fn database_alias(system: &str, database: &str) -> String {
    format!("{system}/{database}")
}
