//! Breaches of two connected services join one incident:
//! `cargo run -p wardroom-correlate --example one_incident`.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "an example may unwrap and print")]

use wardroom_correlate::{BreachEvent, CallGraph, Config, Correlator};
use wardroom_domain::{Severity, TenantId};

fn main() {
    let graph = CallGraph::new(1, [("web", "database")]);
    let mut correlator = Correlator::new(Config::default(), TenantId::main());
    for (service, at_ms) in [("database", 10_000), ("web", 12_000), ("web", 13_000)] {
        let event = BreachEvent {
            service: service.into(),
            signal: format!("latency of {service}"),
            summary: "slow responses".into(),
            since_ms: at_ms - 5000,
            at_ms,
            severity: Severity::High,
            errors: false,
            deployed: false,
        };
        println!("{service}: {:?}", correlator.observe(&event, &graph));
    }
}
