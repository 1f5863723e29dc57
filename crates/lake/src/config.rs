//! Configuration of the lake.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;
use wardroom_domain::config_check::{ConfigProblems, MAX_COUNT, MAX_HOURS, MAX_SECONDS};

use crate::error::Error;
use crate::format::table_schemas::table_names;
use crate::maintain::retention::Retention;
use crate::table::remote_store::register_object_stores;

/// With fewer query workers, one tenant's queries would hold up another's.
const MIN_QUERY_WORKERS: usize = 2;
/// Maximum number of query workers; each is a process.
const MAX_QUERY_WORKERS: usize = 64;

/// Smallest memory of a query, in bytes: with less, not even an aggregation of a few rows runs.
const MIN_QUERY_MEMORY_BYTES: u64 = 4 << 20;
/// Smallest maximum of a result, in bytes.
const MIN_RESULT_BYTES: u64 = 1 << 10;
/// Longest retention of rows, in days.
const MAX_RETENTION_DAYS: u64 = MAX_HOURS / 24;

/// Settings of the lake.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Whether telemetry is stored in tables. Default true. Since 0.1.
    pub enabled: bool,
    /// Location of the tables: a folder or a `file://` URL, or `s3://`, `az://`, `abfss://` or `gs://` on an object
    /// store; empty for `lake` below the data folder. Default empty. Since 0.1.
    pub uri: String,
    /// Options of the object store, by the names of the `object_store` crate, such as `aws_endpoint`. The usual
    /// environment variables are read, too. Default none. Since 0.1.
    pub options: BTreeMap<String, String>,
    /// Samples are flushed to the tables once there are this many new ones per series on average, and at least
    /// `flush-samples` in all. Default 40. Since 0.1.
    pub flush_steps: u32,
    /// Minimum number of samples in a flush, unless `flush-seconds` have passed. A flush needs about six bytes of
    /// memory a sample. The default is 40 steps of 100000 series, some 25 MiB: series scraped every 15 s are flushed
    /// every ten minutes, and a faster load, such as the backlog of a sender after an outage, still makes few and large
    /// flushes. Larger values make a backlog cheaper to write and merge, and need more memory. Default 4194304. Since
    /// 0.1.
    pub flush_samples: u64,
    /// Samples are flushed after this time in any case, in seconds. Default 600. Since 0.1.
    pub flush_seconds: u64,
    /// Interval of maintenance, such as merging short files, in seconds. Default 30. Since 0.1.
    pub maintain_seconds: u64,
    /// Interval at which incidents and the health of services are written to the gold tables, in seconds. Default 60.
    /// Since 0.1.
    pub gold_seconds: u64,
    /// Retention of rows. The first rule that matches a table and a tenant applies. Without one rows are kept
    /// without limit, those of `bronze.telemetry` for seven days. Default none. Since 0.1.
    pub retention: Vec<Retention>,
    /// Limits of queries.
    pub query: QueryConfig,
}

impl Config {
    /// Returns the location of the tables. `data` is the data folder.
    pub(crate) fn root(&self, data: &Path) -> Result<Url, Error> {
        let invalid = |detail: String| Error::InvalidConfig { field: "lake.uri", detail };
        let folder = match self.uri.as_str() {
            "" => data.join("lake"),
            uri if uri.contains("://") => {
                let url = Url::parse(&format!("{}/", uri.trim_end_matches('/')));
                return url.map_err(|error| invalid(format!("{uri:?} is not a URL: {error}")));
            }
            folder => PathBuf::from(folder),
        };
        let folder = std::path::absolute(folder)?;
        Url::from_directory_path(&folder).map_err(|()| invalid(format!("{} is not a valid folder", folder.display())))
    }

    /// Adds what is wrong with the values.
    pub fn check(&self, problems: &mut ConfigProblems) {
        for (field, seconds) in [
            ("lake.flush-seconds", self.flush_seconds),
            ("lake.maintain-seconds", self.maintain_seconds),
            ("lake.gold-seconds", self.gold_seconds),
            ("lake.query.seconds", self.query.seconds),
        ] {
            problems.range(field, seconds, 1..=MAX_SECONDS);
        }
        problems.range("lake.flush-steps", u64::from(self.flush_steps), 1..=MAX_COUNT);
        problems.range("lake.flush-samples", self.flush_samples, 1..=MAX_COUNT);
        problems.bytes("lake.query.memory-bytes", self.query.memory_bytes, MIN_QUERY_MEMORY_BYTES);
        problems.count("lake.query.max-rows", self.query.max_rows);
        problems.bytes("lake.query.max-bytes", self.query.max_bytes, MIN_RESULT_BYTES);
        problems.count("lake.query.max-waiting", self.query.max_waiting);
        problems.range("lake.query.workers", self.query.workers, MIN_QUERY_WORKERS..=MAX_QUERY_WORKERS);
        self.check_location(problems);
        for Retention { table, days, .. } in &self.retention {
            problems.range("lake.retention.days", u64::from(*days), 0..=MAX_RETENTION_DAYS);
            let is_known = table.strip_suffix('*').map_or_else(
                || table_names().any(|name| name == table),
                |prefix| table_names().any(|name| name.starts_with(prefix)),
            );
            let known = || table_names().collect::<Vec<_>>().join(", ");
            if !is_known {
                problems.add("lake.retention.table", format_args!("there is no table {table}; known: {}", known()));
            }
        }
    }

    /// Adds what is wrong with the location of the tables and the options of their object store.
    fn check_location(&self, problems: &mut ConfigProblems) {
        let example = "write a folder, or a URL such as s3://BUCKET/FOLDER";
        if self.uri.chars().any(char::is_control) || self.uri.trim() != self.uri {
            let detail = format_args!("{:?} has control characters, or spaces around it; {example}", self.uri);
            return problems.add("lake.uri", detail);
        }
        let options = self.options.clone().into_iter().collect();
        let location = self.root(Path::new("data")).and_then(|root| {
            register_object_stores(&root, &options)?;
            Ok(root)
        });
        match location {
            Err(Error::InvalidConfig { field, detail }) => problems.add(field, detail),
            Err(error) => problems.add("lake.uri", error),
            Ok(root) if root.scheme() != "file" && root.host_str().is_none_or(str::is_empty) => {
                problems.add("lake.uri", format_args!("{:?} names no bucket; {example}", self.uri));
            }
            Ok(_) if has_scheme(&self.uri) && !self.uri.contains("://") => {
                problems.add("lake.uri", format_args!("{:?} is neither a folder nor a URL; {example}", self.uri));
            }
            Ok(root) if root.scheme() == "file" && !self.options.is_empty() => {
                let detail = "they are for an object store, but the tables are in a folder (lake.uri); remove them";
                problems.add("lake.options", detail);
            }
            Ok(_) => {}
        }
    }

    /// Returns the folder of a lake on a local disk, or `None` if it is on an object store.
    ///
    /// # Errors
    /// Returns an error if the location is invalid.
    pub fn folder(&self, data: &Path) -> Result<Option<PathBuf>, Error> {
        Ok(self.root(data)?.to_file_path().ok())
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            uri: String::new(),
            options: BTreeMap::new(),
            flush_steps: 40,
            flush_samples: 1 << 22,
            flush_seconds: 600,
            maintain_seconds: 30,
            gold_seconds: 60,
            retention: Vec::new(),
            query: QueryConfig::default(),
        }
    }
}

/// Whether a text begins as a URL does, `name:`; a folder may have a colon after its first slash.
fn has_scheme(text: &str) -> bool {
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    };
    text.split_once(':').is_some_and(|(name, _)| is_name(name))
}

/// Limits of queries.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct QueryConfig {
    /// Number of processes that run queries, one query at a time each; at least 2. One tenant uses all but one of them
    /// if others ask, too. Default 2. Since 0.1.
    pub workers: usize,
    /// Maximum number of queries of a tenant that wait for a worker; further ones are refused with 429. Default 16.
    /// Since 0.1.
    pub max_waiting: usize,
    /// Memory of a query, in bytes. Its process may use 512 MiB more for its threads, buffers and the encoded result.
    /// Default 256 MiB. Since 0.1.
    pub memory_bytes: usize,
    /// Timeout of a query, in seconds, and of its wait for a worker. Default 30. Since 0.1.
    pub seconds: u64,
    /// Maximum number of rows in a result. Default 100000. Since 0.1.
    pub max_rows: usize,
    /// Maximum size of a result in its output format, in bytes. Default 64 MiB. Since 0.1.
    pub max_bytes: usize,
}

impl Default for QueryConfig {
    fn default() -> Self {
        Self {
            workers: 2,
            max_waiting: 16,
            memory_bytes: 256 << 20,
            seconds: 30,
            max_rows: 100_000,
            max_bytes: 64 << 20,
        }
    }
}
