//! End-to-end tests of the shipped binary, with real clients and invalid input.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs, reason = "tests may unwrap and start programs")]

mod access;
mod api;
mod api_document;
mod approvals;
mod audit;
mod backup;
mod bad_input;
mod base_path;
mod binary_hardening;
mod browser;
mod command_line;
mod config;
mod data_folder;
mod docs;
mod durability;
mod entity_limits;
mod executor;
mod heartbeat;
mod hostile_clients;
mod identity;
mod incidents;
mod lake;
mod lake_outage;
mod oidc;
mod old_data_folder;
mod otlp;
mod plan_steps;
mod policy;
mod postgres;
mod prometheus;
mod prometheus_api;
mod quarantine;
mod queries;
mod query_workers;
mod replay;
mod tenants;
mod tls;
mod tools;
mod tracing;

use wardroom_testing::Server;

/// Starts a server on an empty data folder, without executor targets.
fn server() -> (tempfile::TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "", &[]).unwrap();
    (dir, server)
}
