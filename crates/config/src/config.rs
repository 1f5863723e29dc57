//! The whole configuration: one section for each crate.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wardroom_domain::EntityRules;
use wardroom_domain::canonical::sha256_hex;
use wardroom_domain::config_check::split_user_info;
use wardroom_signals::Catalog;

use crate::conventions::read_catalog;
use crate::store_config::StoreConfig;

/// Digits of a credential's hash that are shown; too few to test guesses against.
const SHOWN_HASH_DIGITS: usize = 4;

/// Wardroom's configuration file. Every field has a default; `WARDROOM_<SECTION>__<FIELD>` overrides it.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Ports and their limits.
    pub edge: wardroom_edge::Config,
    /// Limits of requests.
    pub sources: wardroom_sources::Config,
    /// The durable log.
    pub bus: wardroom_bus::Config,
    /// The database with tokens, incidents, effects and the audit log.
    pub store: StoreConfig,
    /// The tables.
    pub lake: wardroom_lake::Config,
    /// The live series.
    pub head: wardroom_head::Config,
    /// Which labels name services and other entities.
    pub entities: EntityRules,
    /// Detection.
    pub detect: wardroom_detect::Config,
    /// Correlation.
    pub correlate: wardroom_correlate::Config,
    /// Diagnosis.
    pub diagnose: wardroom_diagnose::Config,
    /// Runbooks.
    pub knowledge: wardroom_knowledge::Config,
    /// Policy: who has to approve what.
    pub policy: wardroom_policy::Config,
    /// Response.
    pub respond: wardroom_respond::Config,
    /// Checkpoints of detection.
    pub checkpoint: wardroom_pipeline::CheckpointConfig,
    /// Backups of the data folder.
    pub backup: BackupConfig,
    /// The outgoing heartbeat.
    pub heartbeat: HeartbeatConfig,
    /// Who may enter: sessions, providers of logins, issuers of tokens.
    pub identity: wardroom_identity::Config,
    /// Wardroom's own traces.
    pub tracing: wardroom_traces::Config,
}

/// Backups of the data folder, as `wardroom backup` makes them.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct BackupConfig {
    /// Folder for the backups, preferably on another disk; each gets a subfolder. No backups without it.
    /// Default: none. Since 0.1.
    pub to: Option<std::path::PathBuf>,
    /// Interval between backups, in hours. Default 24. Since 0.1.
    pub every_hours: u32,
    /// Number of backups to keep; older ones are deleted. Default 7. Since 0.1.
    pub keep: u32,
}

impl Default for BackupConfig {
    fn default() -> Self {
        Self { to: None, every_hours: 24, keep: 7 }
    }
}

/// The outgoing heartbeat.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct HeartbeatConfig {
    /// URL to post to while probe samples reach detection. Default: none. Since 0.1.
    pub url: Option<String>,
    /// Interval between heartbeats, in seconds. Default 30. Since 0.1.
    pub interval_seconds: u64,
}

impl Default for HeartbeatConfig {
    fn default() -> Self {
        Self { url: None, interval_seconds: 30 }
    }
}

impl Config {
    /// Returns a copy in which each credential is replaced with the start of its hash, which tells whether it changed.
    #[must_use]
    pub fn with_hidden_secrets(&self) -> Self {
        let mut shown = self.clone();
        for (_, value) in shown.lake.options.iter_mut().filter(|(name, _)| is_secret(name)) {
            let hash = shown_hash(value);
            *value = format!("(hidden, SHA-256 {hash}…)");
        }
        hide_user_info(&mut shown.lake.uri);
        shown.heartbeat.url.iter_mut().chain(&mut shown.tracing.otlp_endpoint).for_each(hide_user_info);
        shown
    }

    /// Reads the value of the header `Authorization` for the collector of traces, if there is one.
    ///
    /// # Errors
    /// Returns the field, the reason and the remedy if it cannot be had.
    pub fn read_tracing_authorization(&self) -> Result<Option<String>, String> {
        let reference = self.tracing.authorization.as_deref();
        let read = reference.map(crate::secret_reference::read).transpose();
        read.map_err(|reason| format!("field tracing.authorization: {reason}"))
    }

    /// Returns the sections that the pipeline reads.
    pub fn pipeline(&self) -> wardroom_pipeline::Config {
        wardroom_pipeline::Config {
            edge: self.edge.clone(),
            sources: self.sources.clone(),
            bus: self.bus.clone(),
            lake: self.lake.clone(),
            head: self.head.clone(),
            catalog: self.catalog(),
            detect: self.detect.clone(),
            correlate: self.correlate.clone(),
            checkpoint: self.checkpoint.clone(),
        }
    }

    /// Returns what series mean, by the user's and the built-in conventions and these entity rules.
    fn catalog(&self) -> Catalog {
        // Loading has refused files that cannot be read; one that changed since then is left out until the next start.
        read_catalog(&self.entities).unwrap_or_else(|_| Catalog::new(&self.entities, &[]).unwrap_or_default())
    }
}

/// Replaces user and password of a URL, if it has any.
fn hide_user_info(text: &mut String) {
    if let Some((before, user_info, after)) = split_user_info(text) {
        *text = format!("{before}//hidden-{}@{after}", shown_hash(user_info));
    }
}

/// Returns the start of a credential's hash.
fn shown_hash(credential: &str) -> String {
    sha256_hex(credential.as_bytes()).chars().take(SHOWN_HASH_DIGITS).collect()
}

/// Whether the name of an object store option suggests a credential.
fn is_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    ["key", "secret", "token", "password", "sas"].iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_in_options_and_urls_are_hidden() {
        let mut config = Config::default();
        config.lake.options.insert("aws_secret_access_key".into(), "s3cret".into());
        config.lake.options.insert("region".into(), "eu".into());
        config.lake.uri = "s3://user:s3cret@bucket/tables".into();
        config.heartbeat.url = Some("https://user:s3cret@example.com/ping".into());
        config.tracing.otlp_endpoint = Some("https://user:s3cret@collector:4318".into());
        let shown = serde_json::to_string(&config.with_hidden_secrets()).unwrap();
        assert!(!shown.contains("s3cret") && shown.contains("eu"), "{shown}");
        assert!(shown.contains("@bucket/tables") && shown.contains("@example.com/ping"), "{shown}");
        let mut invalid = "ftp://user:s3cret:@[host/x".to_owned();
        hide_user_info(&mut invalid);
        assert!(!invalid.contains("s3cret"), "a text that is no URL: {invalid}");
        for plain in ["", "/srv/tables", "https://example.com/ping"] {
            let mut text = plain.to_owned();
            hide_user_info(&mut text);
            assert_eq!(text, plain);
        }
    }
}
