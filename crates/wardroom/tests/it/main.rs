//! Scenarios: the shipped binary against real programs and hostile input.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs, reason = "tests may unwrap and start programs")]

mod access;
mod away;
mod backup;
mod bad_input;
mod config;
mod durability;
mod executor;
mod heartbeat;
mod incidents;
mod json;
mod lake;
mod otlp;
mod prometheus;
mod quarantine;
mod replay;
mod series;
mod sql;

use wardroom_testing::Server;

/// A server on fresh data, without targets.
fn server() -> (tempfile::TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "", &[]).unwrap();
    (dir, server)
}
