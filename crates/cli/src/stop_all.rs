//! `wardroom stop-all`, on a running server.

use serde_json::{Value, json};

use crate::client::Client;

/// Stops all actions; returns the state.
///
/// # Errors
/// Returns an error if the server does not accept it.
pub fn stop_all(client: &Client, reason: &str) -> anyhow::Result<Value> {
    client.post("/api/v1/stop-all", &json!({ "reason": reason }))
}
