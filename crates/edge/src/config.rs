//! Configuration of the listeners: `edge.*`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Limits of every listener.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Maximum size of a request body as received, in bytes; larger bodies get 413. Default 16 MiB. Since 0.1.
    pub max_body_bytes: usize,
    /// Maximum size of a request body after decompression, in bytes; larger bodies get 413. Default 32 MiB. Since 0.1.
    pub max_inflated_bytes: usize,
    /// Memory budget of all bodies being decompressed at the same time, in bytes; over it requests get 503.
    /// Default 64 MiB. Since 0.1.
    pub inflate_budget_bytes: usize,
    /// Additional listener for OTLP over gRPC, which the main port accepts too: `ADDRESS:PORT`, `off`, or `auto` for
    /// port 4317 at the address of `--listen` if that port is free. Default auto. Since 0.1.
    pub otlp_grpc: String,
    /// Timeout for receiving a request body, in seconds; after it the request gets 503. Default 30. Since 0.1.
    pub body_timeout_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_body_bytes: 16 << 20,
            max_inflated_bytes: 32 << 20,
            inflate_budget_bytes: 64 << 20,
            otlp_grpc: "auto".to_owned(),
            body_timeout_seconds: 30,
        }
    }
}
