//! Checks the values of the whole configuration, and the folders that it names.

use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};
use wardroom_domain::Timestamp;
use wardroom_domain::config_check::{ConfigProblems, MAX_HOURS, MAX_SECONDS};

/// Maximum number of backups to keep.
const MAX_BACKUPS: u32 = 1_000_000;

use crate::config::Config;

impl Config {
    /// Checks every value. Returns one line for each problem: field, reason, remedy.
    ///
    /// # Errors
    /// Returns the problems, if there are any.
    pub fn check_values(&self) -> Result<(), Vec<String>> {
        let mut problems = ConfigProblems::default();
        self.edge.check(&mut problems);
        self.sources.check(&mut problems);
        self.bus.check(&mut problems);
        self.store.check(&mut problems);
        self.lake.check(&mut problems);
        self.head.check(&mut problems);
        self.entities.check(&mut problems);
        crate::conventions::check(&self.entities, &mut problems);
        self.detect.check(&mut problems);
        self.correlate.check(&mut problems);
        self.diagnose.check(&mut problems);
        crate::policy_file::check(&self.policy, &mut problems);
        self.respond.check(&mut problems);
        self.checkpoint.check(&mut problems);
        self.identity.check(&mut problems);
        self.tracing.check(&mut problems);
        if let Some(url) = &self.tracing.otlp_endpoint {
            let detail = "it is not a URL with http:// or https:// and a host, such as http://collector:4318";
            problems.require(is_http_url(url), "tracing.otlp-endpoint", detail);
        }
        if let Some(reference) = &self.tracing.authorization {
            let detail = "it is neither env:NAME nor file:PATH";
            problems.require(crate::secret_reference::is_valid(reference), "tracing.authorization", detail);
        }
        problems.range("backup.every-hours", u64::from(self.backup.every_hours), 1..=MAX_HOURS);
        problems.range("backup.keep", self.backup.keep, 1..=MAX_BACKUPS);
        if let Some(folder) = &self.backup.to {
            let text = folder.to_string_lossy();
            let is_folder = !text.trim().is_empty() && !text.chars().any(char::is_control);
            let detail = format_args!("{text:?} is not a folder; write its path, or leave it out for no backups");
            problems.require(is_folder, "backup.to", detail);
        }
        problems.range("heartbeat.interval-seconds", self.heartbeat.interval_seconds, 1..=MAX_SECONDS);
        if let Some(url) = &self.heartbeat.url {
            // Without the URL, which may have a credential in it.
            let detail = "it is not a URL with http:// or https:// and a host";
            problems.require(is_http_url(url), "heartbeat.url", detail);
        }
        into_result(problems)
    }

    /// Checks that the folders exist, or can be created where they will be. Returns one line for each problem.
    ///
    /// # Errors
    /// Returns the problems, if there are any.
    pub fn check_folders(&self) -> Result<(), Vec<String>> {
        let mut problems = ConfigProblems::default();
        if let Some(folder) = &self.knowledge.runbooks {
            let detail = format_args!("{} is not a folder that can be read; create it", folder.display());
            let is_readable = folder.is_dir() && access(folder, AccessFlags::R_OK | AccessFlags::X_OK).is_ok();
            problems.require(is_readable, "knowledge.runbooks", detail);
        }
        if let Some(folder) = &self.backup.to {
            check_writable(&mut problems, "backup.to", folder);
        }
        if let Some(folder) = self.lake_folder() {
            check_writable(&mut problems, "lake.uri", &folder);
        }
        self.edge.check_files(&mut problems);
        if let Err(error) = self.store.read_password() {
            problems.add("store.password", error.reason());
        }
        if let Some(Err(reason)) = self.tracing.authorization.as_deref().map(crate::secret_reference::read) {
            problems.add("tracing.authorization", reason);
        }
        into_result(problems)
    }

    /// Checks that the certificates of the listeners are valid at a time. A server with an expired one still starts,
    /// since some clients accept it. Returns one line for each problem.
    ///
    /// # Errors
    /// Returns the problems, if there are any.
    pub fn check_certificates(&self, now: Timestamp) -> Result<(), Vec<String>> {
        let mut problems = ConfigProblems::default();
        self.edge.check_certificates(now, &mut problems);
        into_result(problems)
    }

    /// Checks a data folder: that it exists and can be written, or can be created, and that backups are elsewhere.
    /// Returns one line for each problem.
    ///
    /// # Errors
    /// Returns the problems, if there are any.
    pub fn check_data_folder(&self, data: &Path) -> Result<(), Vec<String>> {
        let mut problems = ConfigProblems::default();
        check_writable(&mut problems, "--data", data);
        let absolute = |folder: &Path| std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        if let Some(folder) = &self.backup.to {
            let is_inside = absolute(folder).starts_with(absolute(data));
            let detail = format_args!("{} is inside the data folder; give one on another disk", folder.display());
            problems.require(!is_inside, "backup.to", detail);
        }
        into_result(problems)
    }

    /// The folder of the tables if it is outside the data folder, on a local disk.
    fn lake_folder(&self) -> Option<PathBuf> {
        if self.lake.enabled && !self.lake.uri.is_empty() { self.lake.folder(Path::new("")).ok()? } else { None }
    }
}

fn into_result(problems: ConfigProblems) -> Result<(), Vec<String>> {
    let lines = problems.into_lines();
    if lines.is_empty() { Ok(()) } else { Err(lines) }
}

fn is_http_url(text: &str) -> bool {
    text.parse::<url::Url>().is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

/// Checks that a folder can be written, or else created below the nearest one that exists.
fn check_writable(problems: &mut ConfigProblems, field: &str, folder: &Path) {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    // Without a final slash: a file with one does not exist.
    let absolute: PathBuf = absolute.components().collect();
    let Some(existing) = absolute.ancestors().find(|ancestor| ancestor.symlink_metadata().is_ok()) else { return };
    let (folder, existing_text) = (folder.display(), existing.display());
    if !existing.is_dir() {
        problems.add(field, format_args!("{folder}: {existing_text} is not a folder; give another path"));
    } else if access(existing, AccessFlags::W_OK | AccessFlags::X_OK).is_err() {
        let detail = format_args!("{folder} cannot be written: this user may not write {existing_text}");
        problems.add(field, format_args!("{detail}; change its owner or give another path"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(Config::default().check_values(), Ok(()));
        assert_eq!(Config::default().check_folders(), Ok(()));
    }

    /// Changes one value and expects one problem of this field.
    #[track_caller]
    fn refused(field: &str, change: impl FnOnce(&mut Config)) {
        let mut config = Config::default();
        change(&mut config);
        let problems = config.check_values().unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:#?}");
        assert!(problems[0].starts_with(&format!("field {field}: ")), "{problems:#?}");
    }

    #[test]
    fn values_that_cannot_work_are_refused_with_their_field() {
        refused("detect.error-ratio", |config| config.detect.error_ratio = 5.0);
        refused("detect.z-high", |config| config.detect.z_high = 1.0);
        refused("detect.history", |config| config.detect.history = 2);
        refused("diagnose.min-confidence", |config| config.diagnose.min_confidence = f64::NAN);
        refused("respond.settle-seconds", |config| config.respond.settle_seconds = -1.0);
        refused("respond.hold", |config| config.respond.hold = 0);
        refused("checkpoint.interval-seconds", |config| config.checkpoint.interval_seconds = u64::MAX);
        refused("bus.segment-bytes", |config| config.bus.segment_bytes = config.bus.limit_bytes + 1);
        refused("bus.segment-bytes", |config| config.bus.segment_bytes = 1);
        refused("sources.tenant-bytes-per-second", |config| config.sources.tenant_bytes_per_second = 1);
        refused("lake.query.memory-bytes", |config| config.lake.query.memory_bytes = 1);
        refused("detect.effect", |config| config.detect.effect = 1e300);
        for folder in ["", " ", "a\nb"] {
            refused("backup.to", |config| config.backup.to = Some(folder.into()));
        }
        refused("lake.options", |config| {
            config.lake.options.insert("aws_endpoint".to_owned(), "http://127.0.0.1:9000".to_owned());
        });
        let rule = serde_json::json!([{ "table": "*", "days": u32::MAX }]);
        refused("lake.retention.days", |config| config.lake.retention = serde_json::from_value(rule).unwrap());
        refused("edge.inflate-budget-bytes", |config| config.edge.inflate_budget_bytes = 1);
        refused("edge.otlp-grpc", |config| config.edge.otlp_grpc = "4317".to_owned());
        refused("tracing.authorization", |config| config.tracing.authorization = Some("Bearer s3cret".to_owned()));
        refused("edge.tls.key-file", |config| config.edge.tls.cert_file = Some("server.pem".into()));
        refused("edge.otlp-grpc-tls.cert-file", |config| {
            let tls = serde_json::json!({ "client-ca-file": "people.pem" });
            config.edge.otlp_grpc_tls = serde_json::from_value(tls).unwrap();
        });
        refused("edge.allowed-hosts", |config| config.edge.allowed_hosts = vec!["https://ops.example".to_owned()]);
        refused("entities.service", |config| config.entities.service = vec![String::new()]);
        refused("head.max-series", |config| config.head.max_series = 0);
        refused("sources.max-age-hours", |config| config.sources.max_age_hours = 0);
        for uri in ["ftp://host/tables", "s3:///tables", "s3:/bucket", "https://x/y", "s3:bucket", "a\u{1b}b", " lake"]
        {
            refused("lake.uri", |config| config.lake.uri = uri.to_owned());
        }
        refused("lake.options", |config| {
            config.lake.uri = "s3://bucket/tables".to_owned();
            config.lake.options.insert("bucket_colour".to_owned(), "blue".to_owned());
        });
        for url in ["nonsense", "http://", "ftp://example.com/x", "//example.com", "http://a b/"] {
            refused("heartbeat.url", |config| config.heartbeat.url = Some(url.to_owned()));
            refused("tracing.otlp-endpoint", |config| config.tracing.otlp_endpoint = Some(url.to_owned()));
        }
        for table in ["silver.smples", "gold", "copper.*", ""] {
            let rule = serde_json::json!([{ "table": table, "days": 3 }]);
            refused("lake.retention.table", |config| config.lake.retention = serde_json::from_value(rule).unwrap());
        }
    }

    /// Numbers that have a use at 0: it switches something off, or makes it immediate.
    const USEFUL_AT_ZERO: &[&str] = &[
        "bus.rest-hours",
        "correlate.deployment-minutes",
        "detect.cpu",
        "detect.disk",
        "detect.effect",
        "detect.error-ratio",
        "detect.latency-floor-seconds",
        "detect.memory",
        "detect.min-requests",
        "detect.points-per-second",
        "detect.saturation",
        "detect.shifts-per-second",
        "detect.z-warning",
        "edge.anonymous-requests-per-second",
        "edge.requests-per-second",
        "diagnose.deployment-minutes",
        "diagnose.log-minutes",
        "diagnose.min-confidence",
        "head.max-exemplars",
        "respond.approval-minutes",
        "respond.settle-seconds",
        "sources.max-ahead-minutes",
        "sources.tenant-bytes-per-second",
        "tracing.sample-ratio",
    ];

    fn numbers(value: &serde_json::Value, path: &str, found: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(fields) => {
                for (name, value) in fields {
                    numbers(value, &format!("{path}/{name}"), found);
                }
            }
            serde_json::Value::Number(_) => found.push(path.to_owned()),
            _ => {}
        }
    }

    /// Returns whether the configuration with this number is refused, by its type or with its name.
    fn is_refused(path: &str, field: &str, value: serde_json::Value) -> bool {
        let mut document = serde_json::to_value(Config::default()).unwrap();
        *document.pointer_mut(path).unwrap() = value;
        let Ok(config) = serde_json::from_value::<Config>(document) else { return true };
        config.check_values().is_err_and(|problems| problems.iter().any(|line| line.contains(field)))
    }

    #[test]
    fn every_number_has_a_range() {
        let defaults = serde_json::to_value(Config::default()).unwrap();
        let mut paths = Vec::new();
        numbers(&defaults, "", &mut paths);
        assert!(paths.len() > 60, "{paths:?}");
        for path in paths {
            let field = path.trim_start_matches('/').replace('/', ".");
            let is_float = defaults.pointer(&path).unwrap().is_f64();
            let (zero, huge) = if is_float {
                (serde_json::json!(0.0), vec![serde_json::json!(1e300), serde_json::json!(-1.0)])
            } else {
                (serde_json::json!(0), vec![serde_json::json!(u32::MAX), serde_json::json!(u64::MAX)])
            };
            let is_useful_at_zero = USEFUL_AT_ZERO.contains(&field.as_str());
            assert_eq!(is_refused(&path, &field, zero), !is_useful_at_zero, "{field}: 0");
            // Sizes may exceed 32 bits.
            let is_size = field.contains("bytes");
            for value in huge.into_iter().skip(usize::from(is_size)) {
                assert!(is_refused(&path, &field, value.clone()), "{field}: {value}");
            }
        }
    }

    #[test]
    fn known_tables_and_urls_are_accepted() {
        let mut config = Config::default();
        let rules = serde_json::json!([{ "table": "silver.samples", "days": 0 }, { "table": "*", "days": 3 },
            { "table": "gold.*", "days": 3 }]);
        config.lake.retention = serde_json::from_value(rules).unwrap();
        config.lake.uri = "s3://bucket/tables".to_owned();
        config.heartbeat.url = Some("https://hc.example/ping?id=1".to_owned());
        config.edge.otlp_grpc = "[::1]:4317".to_owned();
        assert_eq!(config.check_values(), Ok(()));
    }

    #[test]
    fn folders_exist_or_can_be_created() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let mut config = Config::default();
        config.knowledge.runbooks = Some(dir.path().join("missing"));
        config.backup.to = Some(file.join("backups"));
        config.lake.uri = file.display().to_string();
        let problems = config.check_folders().unwrap_err();
        let fields = ["field knowledge.runbooks: ", "field backup.to: ", "field lake.uri: "];
        assert!(problems.len() == 3 && problems.iter().zip(fields).all(|(line, field)| line.starts_with(field)));
        config.knowledge.runbooks = Some(dir.path().to_owned());
        config.backup.to = Some(dir.path().join("new/backups"));
        config.lake.uri = dir.path().join("new/lake").display().to_string();
        assert_eq!(config.check_folders(), Ok(()));
        config.edge.tls.cert_file = Some(dir.path().join("missing.pem"));
        config.edge.tls.key_file = Some(dir.path().join("missing.key"));
        let problems = config.check_folders().unwrap_err();
        assert!(problems.len() == 1 && problems[0].starts_with("field edge.tls.cert-file: "), "{problems:?}");
        config.edge.tls = wardroom_edge::TlsConfig::default();
        config.store.url = "postgres://wardroom@db/wardroom".to_owned();
        config.store.password = Some(format!("file:{}", dir.path().join("missing").display()));
        let problems = config.check_folders().unwrap_err();
        assert!(problems.len() == 1 && problems[0].starts_with("field store.password: "), "{problems:?}");
    }

    #[test]
    fn backups_are_not_inside_the_data_folder() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        let data = dir.path().join("new/data");
        config.backup.to = Some(dir.path().join("backups"));
        assert_eq!(config.check_data_folder(&data), Ok(()));
        config.backup.to = Some(data.join("backups"));
        let problems = config.check_data_folder(&data).unwrap_err();
        assert!(problems.len() == 1 && problems[0].starts_with("field backup.to: "), "{problems:?}");
        std::fs::write(dir.path().join("new"), "").unwrap();
        assert_eq!(config.check_data_folder(&data).unwrap_err().len(), 2);
    }
}
