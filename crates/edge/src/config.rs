//! What of a port can be configured.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Limits of every port.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Largest body as received, in bytes; more is answered 413. Default 16 MiB. Since 0.1.
    pub max_body_bytes: usize,
    /// Largest body after decompression, in bytes; more is answered 413. Default 32 MiB. Since 0.1.
    pub max_inflated_bytes: usize,
    /// All bodies being decompressed at one moment, in bytes; more is answered 503. Default 64 MiB. Since 0.1.
    pub inflate_budget_bytes: usize,
    /// Where OTLP over gRPC is taken beside the main port, which takes it too: `ADDRESS:PORT`, `off`, or `auto`:
    /// port 4317 of the address of `--listen`, if it is free. Default auto. Since 0.1.
    pub otlp_grpc: String,
    /// Time a sender has to send its body, in seconds; then 503. Default 30. Since 0.1.
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
