//! What of the lake can be configured.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;
use wardroom_domain::TenantId;

use crate::spec::TELEMETRY;
use crate::{Error, QueryConfig};

/// Days after its own that a row of `bronze.telemetry` is kept without a rule.
const BRONZE_DAYS: u32 = 7;

/// Settings of the lake.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Whether what arrives is kept in tables. Default true. Since 0.1.
    pub enabled: bool,
    /// Where the tables lie: a folder or a `file://` URL, or `s3://`, `az://`, `abfss://` or `gs://` on an object store; empty
    /// for `lake` below the data folder. Default empty. Since 0.1.
    pub uri: String,
    /// What the object store needs to know, by the names that object_store gives it, such as `aws_endpoint`; the usual
    /// variables of the environment count, too. Default none. Since 0.1.
    pub options: BTreeMap<String, String>,
    /// Samples are written to the tables once their series have so many new ones on average and there are
    /// `flush-samples` of them. Default 40. Since 0.1.
    pub flush_steps: u32,
    /// What comes faster than it was measured, such as the backlog of a sender that was cut off, is written in long stretches of
    /// so many samples; they need about six bytes of memory each meanwhile. Default 16777216. Since 0.1.
    pub flush_samples: u64,
    /// They are written after this long in any case, in seconds. Default 600. Since 0.1.
    pub flush_seconds: u64,
    /// How often short files are merged, and what else wants looking after is done, in seconds. Default 30. Since 0.1.
    pub maintain_seconds: u64,
    /// How often incidents, and how services fared, are written to the tables of gold, in seconds. Default 60. Since 0.1.
    pub gold_seconds: u64,
    /// How long rows are kept; the first rule that fits a table and a tenant counts, and without one they are kept for
    /// good, those of `bronze.telemetry` a week. Default none. Since 0.1.
    pub retention: Vec<Retention>,
    /// Limits of queries.
    pub query: QueryConfig,
}

/// How long the rows of some tables are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Retention {
    /// A table such as `silver.logs`, or `silver.*` for all. Since 0.1.
    pub table: String,
    /// One tenant only. Since 0.1.
    #[serde(default)]
    pub tenant: Option<TenantId>,
    /// Whole days after the day of a row; then its file goes, and a week later its bytes. Since 0.1.
    pub days: u32,
}

impl Retention {
    /// For how many days after its own a row of this table and tenant is kept; for good without an answer.
    pub(crate) fn days(rules: &[Self], table: &str, tenant: &TenantId) -> Option<u32> {
        let rule = rules.iter().find(|rule| rule.fits(table, tenant)).map(|rule| rule.days);
        // The bodies it tells of are gone by then.
        rule.or_else(|| (table == TELEMETRY.name).then_some(BRONZE_DAYS))
    }

    fn fits(&self, table: &str, tenant: &TenantId) -> bool {
        let table_fits = self.table.strip_suffix('*').map_or(self.table == table, |start| table.starts_with(start));
        table_fits && self.tenant.as_ref().is_none_or(|only| only == tenant)
    }
}

impl Config {
    /// Where the tables lie. `data` is the data folder.
    pub(crate) fn root(&self, data: &Path) -> Result<Url, Error> {
        let wrong = |detail: String| Error::Setting { field: "lake.uri", detail };
        let folder = match self.uri.as_str() {
            "" => data.join("lake"),
            uri if uri.contains("://") => {
                let url = Url::parse(&format!("{}/", uri.trim_end_matches('/')));
                return url.map_err(|error| wrong(format!("{uri:?} is no URL: {error}")));
            }
            folder => PathBuf::from(folder),
        };
        let folder = std::path::absolute(folder)?;
        Url::from_directory_path(&folder).map_err(|()| wrong(format!("{} is no folder's name", folder.display())))
    }

    /// The folder of a lake on a local disk.
    ///
    /// # Errors
    /// The settings name no place.
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
            flush_samples: 1 << 24,
            flush_seconds: 600,
            maintain_seconds: 30,
            gold_seconds: 60,
            retention: Vec::new(),
            query: QueryConfig::default(),
        }
    }
}
