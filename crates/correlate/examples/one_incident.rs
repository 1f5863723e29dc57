//! Findings of two related entities join one incident: `cargo run -p wardroom-correlate --example one_incident`.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "an example may unwrap and print")]

use wardroom_correlate::{Config, Correlator};
use wardroom_domain::{Entity, EntityKind, Finding, Relation, RelationKind, Severity, SignalId, SignalKind, TenantId};
use wardroom_signals::EntityGraph;

fn main() {
    let (web, database) = (Entity::service("web"), Entity::named(EntityKind::Database, "orders"));
    let graph = EntityGraph::default();
    let relation = Relation { from: web.clone(), kind: RelationKind::Uses, to: database.clone() };
    graph.observe(&web, &[], &[relation], 0);
    let mut correlator = Correlator::new(Config::default(), TenantId::main());
    for (entity, kind, at_ms) in [
        (&web, SignalKind::Latency, 30_000),
        (&database, SignalKind::Saturation, 45_000),
        (&web, SignalKind::Latency, 45_000),
    ] {
        let (resource, metric) = (String::new(), "metric".to_owned());
        let finding = Finding {
            signal: SignalId { entity: entity.clone(), peer: None, kind, resource, metric },
            rule: kind.to_string(),
            severity: Severity::High,
            opens: true,
            since_ms: 15_000,
            at_ms,
            value: 2.0,
            expected: 0.1,
            limit: 0.5,
            low_is_bad: false,
            interval_ms: 15_000,
            summary: format!("{kind} is far above its past"),
        };
        println!("{entity}: {:?}", correlator.observe(&finding, &graph));
    }
}
