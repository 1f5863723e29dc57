//! Appends a request and reads it back, like recovery does: `cargo run -p wardroom-bus --example publish_and_consume`.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "an example may unwrap and print")]

use bytes::Bytes;
use wardroom_bus::{Bus, Config, EmbeddedBus};
use wardroom_domain::{Envelope, Principal, TenantId, Timestamp};

#[tokio::main]
async fn main() {
    let dir = tempfile::tempdir().unwrap();
    let bus = EmbeddedBus::open(dir.path(), Config::default()).unwrap();
    let envelope = Envelope {
        tenant: TenantId::main(),
        principal: Principal::wardroom(),
        protocol: "json_logs".into(),
        content_type: "application/json".into(),
        content_encoding: String::new(),
        received_at: Timestamp::from_millis(1_795_255_200_000),
        refused: Vec::new(),
        has_events: false,
    };
    // Returns once the body is on disk.
    let offset = bus.append(envelope, Bytes::from_static(b"{\"message\":\"hello\"}")).await.unwrap();
    for record in bus.read(offset, 10).unwrap() {
        println!("{} {} {:?}", record.offset, record.envelope.protocol, record.body);
    }
}
