//! What of the lake can be configured.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::{Error, QueryConfig};

/// Settings of the lake.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Whether what arrives is kept in tables. Default true. Since 0.1.
    pub enabled: bool,
    /// Where the tables lie: a folder or a `file://` URL; empty for `lake` below the data folder. Default empty. Since 0.1.
    pub uri: String,
    /// What the object store needs to know, by the names that delta-rs and object_store give it. Default none. Since 0.1.
    pub options: BTreeMap<String, String>,
    /// Samples are written to the tables once their series have so many new ones on average. Default 40. Since 0.1.
    pub flush_steps: u32,
    /// They are written after this long in any case, in seconds. Default 600. Since 0.1.
    pub flush_seconds: u64,
    /// Limits of queries.
    pub query: QueryConfig,
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
            flush_seconds: 600,
            query: QueryConfig::default(),
        }
    }
}
