//! Configuration of the lake.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::error::Error;
use crate::maintain::retention::Retention;

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

/// Limits of queries.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct QueryConfig {
    /// Memory that all running queries share, in bytes. Default 256 MiB. Since 0.1.
    pub memory_bytes: usize,
    /// Timeout of a query, in seconds. Default 30. Since 0.1.
    pub seconds: u64,
    /// Maximum number of rows in a result. Default 100000. Since 0.1.
    pub max_rows: usize,
    /// Maximum number of concurrent queries; further ones wait. Default 4. Since 0.1.
    pub concurrent: usize,
}

impl Default for QueryConfig {
    fn default() -> Self {
        Self { memory_bytes: 256 << 20, seconds: 30, max_rows: 100_000, concurrent: 4 }
    }
}
