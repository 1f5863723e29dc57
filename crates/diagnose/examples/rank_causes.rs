//! A slow caller and its slow database, which is the cause: `cargo run -p wardroom-diagnose --example rank_causes`.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "an example may unwrap and print")]

use wardroom_diagnose::{Config, Facts, SignalFact, Weights, diagnose, root_cause_analysis};
use wardroom_domain::{Entity, EntityKind, Relation, RelationKind, SignalId, SignalKind, Timestamp};
use wardroom_signals::{Direction, SignalUnit};

fn main() {
    let began_at = Timestamp::from_millis(1_795_255_200_000);
    let (web, database) = (Entity::service("web"), Entity::named(EntityKind::Database, "orders-db"));
    let slow = |entity: &Entity| SignalFact {
        signal: SignalId {
            entity: entity.clone(),
            peer: None,
            kind: SignalKind::Latency,
            resource: String::new(),
            metric: "request_seconds".into(),
        },
        unit: SignalUnit::Seconds,
        direction: Direction::High,
        value: 1.2,
        expected: 0.05,
        z: 23.0,
        onset: Some(began_at),
        interval_ms: 15_000,
        is_bad: true,
        is_gone: false,
        is_internal: false,
    };
    let facts = Facts {
        began_at,
        now: began_at,
        signals: vec![slow(&web), slow(&database)],
        relations: vec![Relation { from: web, kind: RelationKind::Uses, to: database }],
        ..Facts::default()
    };
    let diagnosis = diagnose(&facts, &Config::default(), &Weights::builtin().unwrap());
    println!("{}", serde_json::to_string_pretty(&root_cause_analysis(&diagnosis, None)).unwrap());
}
