//! A slow caller and its slow callee, which is the cause: `cargo run -p wardroom-diagnose --example rank_causes`.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "an example may unwrap and print")]

use wardroom_diagnose::{Aspect, Call, Config, Facts, SignalFact, diagnose, root_cause_analysis};
use wardroom_domain::Timestamp;

fn main() {
    let began_at = Timestamp::from_millis(1_795_255_200_000);
    let slow = |service: &str| SignalFact {
        service: service.into(),
        aspect: Aspect::Latency,
        value: 1.2,
        expected: 0.05,
        bad_since: Some(began_at),
    };
    let call = Call {
        caller: "web".into(),
        callee: "database".into(),
        bad_since: Some(began_at),
        rate: 40.0,
        expected_rate: 40.0,
    };
    let facts = Facts { began_at, signals: vec![slow("web"), slow("database")], calls: vec![call], ..Facts::default() };
    let diagnosis = diagnose(&facts, &Config::default());
    println!("{}", serde_json::to_string_pretty(&root_cause_analysis(&diagnosis, None)).unwrap());
}
