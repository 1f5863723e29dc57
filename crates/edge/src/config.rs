//! Configuration of the listeners: `edge.*`.

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wardroom_domain::Timestamp;
use wardroom_domain::config_check::{ConfigProblems, MAX_SECONDS};

use crate::forwarded::{is_base_path, is_network};
use crate::tls::TlsConfig;

/// Smallest maximum of a body, in bytes: with less, requests of ordinary senders are always refused.
const MIN_BODY_BYTES: u64 = 1 << 10;
/// Largest limit of requests of one caller a second.
const MAX_CALLER_RATE: u64 = 1_000_000;

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
    /// Memory budget of all bodies being received and processed at the same time, in bytes, shared fairly by the
    /// senders; over it requests get 503. Default 256 MiB. Since 0.1.
    pub body_budget_bytes: usize,
    /// Timeout for receiving a request body, in seconds; after it the request gets 503. Default 30. Since 0.1.
    pub body_timeout_seconds: u64,
    /// Timeout for receiving the head of a request, in seconds, also of the first one of a connection; after it the
    /// connection is closed. Default 10. Since 0.1.
    pub header_timeout_seconds: u64,
    /// Time after which a connection without requests is closed, in seconds; also one whose client does not read its
    /// response. The default is longer than clients of Go keep a connection, so that it is the client that closes it.
    /// Default 120. Since 0.1.
    pub idle_timeout_seconds: u64,
    /// Maximum number of open connections. At the limit, the one that has waited longest for its client is closed; if
    /// all are handling requests, new ones are refused. At most half of the process's descriptors. Default 2048.
    /// Since 0.1.
    pub max_connections: usize,
    /// Maximum number of open connections of one client address (of IPv6, one /64 network), with the same rule.
    /// Default 512. Since 0.1.
    pub max_connections_per_address: usize,
    /// Names under which this server is reached besides `localhost` and IP addresses, without port. With `--auth off`
    /// requests for other names get 403, and also otherwise if the list is not empty. Default: none. Since 0.1.
    pub allowed_hosts: Vec<String>,
    /// Path below which a proxy has this server, such as `/wardroom`; the proxy may remove it or not. Default: none.
    /// Since 0.2.
    pub base_path: String,
    /// Proxies whose `X-Forwarded-For`, `X-Forwarded-Host` and `X-Forwarded-Proto` are believed: addresses, or networks
    /// such as `10.0.0.0/8`. Of all others these headers are removed. Default: none. Since 0.2.
    pub trusted_proxies: Vec<String>,
    /// Maximum number of requests of one caller a second, with twice as many at once; beyond it requests get 429.
    /// Telemetry does not count. 0 means no limit. Default 1000. Since 0.2.
    pub requests_per_second: u32,
    /// Maximum number of requests without a valid credential from one client address (of IPv6, one /64 network) a
    /// second, with twice as many at once; beyond it requests get 429. Of a client behind one of `trusted-proxies` the
    /// address that the proxy reports counts. 0 means no limit. Default 200. Since 0.2.
    pub anonymous_requests_per_second: u32,
    /// Maximum number of open streams of live events. Default 1000. Since 0.2.
    pub max_streams: usize,
    /// Maximum number of open streams of one tenant. Default 500. Since 0.2.
    pub max_streams_per_tenant: usize,
    /// Maximum number of open streams of one principal. Default 100. Since 0.2.
    pub max_streams_per_principal: usize,
    /// TLS of every listener. Default: none. Since 0.2.
    pub tls: TlsConfig,
    /// TLS of the listener `otlp-grpc`; `{}` for none. Default: as `tls`. Since 0.2.
    pub otlp_grpc_tls: Option<TlsConfig>,
}

impl Config {
    /// Adds what is wrong with the values.
    pub fn check(&self, problems: &mut ConfigProblems) {
        for (field, value) in
            [("edge.max-body-bytes", self.max_body_bytes), ("edge.max-inflated-bytes", self.max_inflated_bytes)]
        {
            problems.bytes(field, value, MIN_BODY_BYTES);
        }
        problems.bytes("edge.inflate-budget-bytes", self.inflate_budget_bytes, 0);
        problems.bytes("edge.body-budget-bytes", self.body_budget_bytes, 0);
        problems.count("edge.max-connections", self.max_connections);
        problems.count("edge.max-connections-per-address", self.max_connections_per_address);
        for (field, seconds) in [
            ("edge.body-timeout-seconds", self.body_timeout_seconds),
            ("edge.header-timeout-seconds", self.header_timeout_seconds),
            ("edge.idle-timeout-seconds", self.idle_timeout_seconds),
        ] {
            problems.range(field, seconds, 1..=MAX_SECONDS);
        }
        // With a smaller budget a body of the maximum size is always refused.
        let largest = ("edge.max-inflated-bytes", self.max_inflated_bytes);
        problems.ordered(("edge.inflate-budget-bytes", self.inflate_budget_bytes), largest);
        let largest = ("edge.max-body-bytes", self.max_body_bytes);
        problems.ordered(("edge.body-budget-bytes", self.body_budget_bytes), largest);
        let is_address =
            ["auto", "off"].contains(&self.otlp_grpc.as_str()) || self.otlp_grpc.parse::<SocketAddr>().is_ok();
        let detail = format_args!("{:?} is neither auto, off nor ADDRESS:PORT, such as 0.0.0.0:4317", self.otlp_grpc);
        problems.require(is_address, "edge.otlp-grpc", detail);
        for host in &self.allowed_hosts {
            let is_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
            let detail =
                format_args!("{host:?} is not a name; write it without scheme, port and path: ops.example.com");
            problems.require(!host.is_empty() && host.chars().all(is_name), "edge.allowed-hosts", detail);
        }
        let detail = format_args!("{:?} is not a path; write it like /wardroom, without / at the end", self.base_path);
        problems.require(is_base_path(&self.base_path), "edge.base-path", detail);
        for proxy in &self.trusted_proxies {
            let detail = format_args!("{proxy:?} is neither an address nor a network such as 10.0.0.0/8");
            problems.require(is_network(proxy), "edge.trusted-proxies", detail);
        }
        problems.range("edge.requests-per-second", u64::from(self.requests_per_second), 0..=MAX_CALLER_RATE);
        let anonymous = u64::from(self.anonymous_requests_per_second);
        problems.range("edge.anonymous-requests-per-second", anonymous, 0..=MAX_CALLER_RATE);
        problems.count("edge.max-streams", self.max_streams);
        problems.count("edge.max-streams-per-tenant", self.max_streams_per_tenant);
        problems.count("edge.max-streams-per-principal", self.max_streams_per_principal);
        for (section, tls) in self.tls_sections() {
            tls.check(section, problems);
        }
    }

    /// Adds what is wrong with the files of certificates: that they cannot be read, or are not one pair.
    pub fn check_files(&self, problems: &mut ConfigProblems) {
        for (section, tls) in self.tls_sections() {
            tls.check_files(section, problems);
        }
    }

    /// Adds the certificates that are not valid at a time.
    pub fn check_certificates(&self, now: Timestamp, problems: &mut ConfigProblems) {
        for (section, tls) in self.tls_sections() {
            tls.check_validity(section, now, problems);
        }
    }

    /// Returns the folders from which certificates are read, also after they were replaced.
    pub fn tls_folders(&self) -> Vec<PathBuf> {
        self.tls_sections().flat_map(|(_, tls)| tls.folders()).collect()
    }

    /// Returns the TLS of the listener for OTLP over gRPC, with the section that it is in.
    pub(crate) fn otlp_grpc_tls(&self) -> (&'static str, &TlsConfig) {
        self.otlp_grpc_tls.as_ref().map_or(("edge.tls", &self.tls), |own| ("edge.otlp-grpc-tls", own))
    }

    fn tls_sections(&self) -> impl Iterator<Item = (&'static str, &TlsConfig)> {
        let of_grpc = self.otlp_grpc_tls.as_ref().map(|own| ("edge.otlp-grpc-tls", own));
        [("edge.tls", &self.tls)].into_iter().chain(of_grpc)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_body_bytes: 16 << 20,
            max_inflated_bytes: 32 << 20,
            inflate_budget_bytes: 64 << 20,
            otlp_grpc: "auto".to_owned(),
            body_budget_bytes: 256 << 20,
            body_timeout_seconds: 30,
            header_timeout_seconds: 10,
            idle_timeout_seconds: 120,
            max_connections: 2048,
            max_connections_per_address: 512,
            allowed_hosts: Vec::new(),
            base_path: String::new(),
            trusted_proxies: Vec::new(),
            requests_per_second: 1000,
            anonymous_requests_per_second: 200,
            max_streams: 1000,
            max_streams_per_tenant: 500,
            max_streams_per_principal: 100,
            tls: TlsConfig::default(),
            otlp_grpc_tls: None,
        }
    }
}
