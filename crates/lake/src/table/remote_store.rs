//! Tables on an object store: S3 and compatible stores, Azure, Google.
//!
//! Problem: a commit is an object that must not exist yet. A store that ignores this condition lets two writers create
//! the same version, and one batch is lost without an error. Model: before anything is written, the store has to show
//! in a few races between concurrent writers that exactly one of them succeeds ([`probe_conditional_writes`]).
//! Guarantee: a store that lets several succeed, or that does not support conditional writes, is refused at the start.
//!
//! delta-rs supports local files only; other stores are registered here once ([`register_object_stores`]).

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Once};
use std::time::Duration;

use deltalake_core::logstore::{
    LogStore, LogStoreFactory, ObjectStoreFactory, ObjectStoreRef, StorageConfig, default_logstore, logstore_factories,
    object_store_factories,
};
use deltalake_core::{DeltaResult, ObjectStoreError, Path};
use futures_util::future::join_all;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::{ObjectStoreExt as _, PutMode, PutOptions};
use url::Url;

use crate::error::Error;

/// Timeout of the first response. The client retries within it.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// Number of races in which one writer must succeed.
const PROBE_ROUNDS: usize = 4;
/// Number of concurrent writers in each race.
const PROBE_WRITERS: usize = 8;

/// Protocol of an object store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StoreKind {
    S3,
    Azure,
    Google,
}

/// Supported URL schemes.
const SCHEMES: [(&str, StoreKind); 7] = [
    ("s3", StoreKind::S3),
    ("s3a", StoreKind::S3),
    ("az", StoreKind::Azure),
    ("azure", StoreKind::Azure),
    ("abfs", StoreKind::Azure),
    ("abfss", StoreKind::Azure),
    ("gs", StoreKind::Google),
];

impl StoreKind {
    fn from_url(url: &Url) -> Option<Self> {
        SCHEMES.iter().find(|(scheme, _)| *scheme == url.scheme()).map(|(_, kind)| *kind)
    }

    fn has_option(self, option: &str) -> bool {
        let option = config_key(option);
        match self {
            Self::S3 => option.parse::<AmazonS3ConfigKey>().is_ok(),
            Self::Azure => option.parse::<AzureConfigKey>().is_ok(),
            Self::Google => option.parse::<GoogleConfigKey>().is_ok(),
        }
    }

    /// Creates a client from environment variables and the configured options, which take precedence.
    fn client(self, url: &Url, options: &HashMap<String, String>) -> Result<ObjectStoreRef, ObjectStoreError> {
        macro_rules! client {
            ($builder:ty) => {{
                let builder = <$builder>::from_env().with_url(url.as_str());
                let configured =
                    options.iter().fold(builder, |builder, (name, value)| match config_key(name).parse() {
                        Ok(name) => builder.with_config(name, value),
                        Err(_) => builder,
                    });
                Ok(Arc::new(configured.build()?))
            }};
        }
        match self {
            Self::S3 => client!(AmazonS3Builder),
            Self::Azure => client!(MicrosoftAzureBuilder),
            Self::Google => client!(GoogleCloudStorageBuilder),
        }
    }
}

/// Normalises an option's name: environment variables use dashes.
fn config_key(name: &str) -> String {
    name.to_ascii_lowercase().replace('-', "_")
}

/// Creates stores for delta-rs.
#[derive(Clone, Copy, Debug)]
struct StoreFactory(StoreKind);

impl ObjectStoreFactory for StoreFactory {
    fn parse_url_opts(&self, url: &Url, config: &StorageConfig) -> DeltaResult<(ObjectStoreRef, Path)> {
        Ok((self.0.client(url, &config.raw)?, Path::from_url_path(url.path())?))
    }
}

impl LogStoreFactory for StoreFactory {
    fn with_options(
        &self,
        table: ObjectStoreRef,
        root: ObjectStoreRef,
        location: &Url,
        options: &StorageConfig,
    ) -> DeltaResult<Arc<dyn LogStore>> {
        Ok(default_logstore(table, root, location, options))
    }
}

/// Registers object stores with delta-rs, and checks the configured options.
///
/// # Errors
/// Returns an error if the scheme is unsupported or an option is unknown.
pub(crate) fn register_object_stores(root: &Url, options: &HashMap<String, String>) -> Result<(), Error> {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        for (scheme, kind) in SCHEMES {
            if let Ok(url) = Url::parse(&format!("{scheme}://")) {
                object_store_factories().insert(url.clone(), Arc::new(StoreFactory(kind)));
                logstore_factories().insert(url, Arc::new(StoreFactory(kind)));
            }
        }
    });
    if root.scheme() == "file" {
        return Ok(());
    }
    let Some(kind) = StoreKind::from_url(root) else {
        let known: Vec<_> = SCHEMES.iter().map(|(scheme, _)| format!("{scheme}://")).collect();
        let detail = format!("{root} is neither a folder nor a URL with file://, {}", known.join(", "));
        return Err(Error::InvalidConfig { field: "lake.uri", detail });
    };
    if let Some(unknown) = options.keys().find(|name| !kind.has_option(name)) {
        let detail = format!(
            "{unknown:?} is not an option of a {}:// store; the names are those of object_store, such as aws_endpoint, \
             azure_storage_account_name or google_service_account",
            root.scheme()
        );
        return Err(Error::InvalidConfig { field: "lake.options", detail });
    }
    Ok(())
}

/// Connects to the store that a folder of tables is on, with `/` at the root of the file system or bucket.
///
/// # Errors
/// Returns an error if the store's options are invalid.
pub(crate) fn open_store(root: &Url, options: &HashMap<String, String>) -> Result<ObjectStoreRef, Error> {
    match StoreKind::from_url(root) {
        Some(kind) => Ok(kind.client(root, options)?),
        None => Ok(Arc::new(LocalFileSystem::new())),
    }
}

/// Checks that exactly one of several concurrent conditional writes succeeds.
///
/// # Errors
/// Returns an error if the store is unreachable, does not respond in time, or lets several writes succeed.
pub(crate) async fn probe_conditional_writes(root: &Url, options: &HashMap<String, String>) -> Result<(), Error> {
    let Some(kind) = StoreKind::from_url(root) else { return Ok(()) };
    let unsafe_store = |detail: String| Error::InvalidConfig {
        field: "lake.uri",
        detail: format!(
            "{root}: {detail}; two writers could create the same version of a table, and rows would be lost. Use a store \
             with conditional writes (If-None-Match), or a local disk"
        ),
    };
    let store = kind.client(root, options)?;
    let folder = Path::from_url_path(root.path()).map_err(|error| unsafe_store(error.to_string()))?.join("_wardroom");
    // Any response shows that the store is reachable, including "not found" and "forbidden".
    let response = tokio::time::timeout(PROBE_TIMEOUT, store.head(&folder.clone().join("reachable"))).await;
    let unavailable = |detail: String| Error::Unavailable(format!("{root}: {detail}"));
    if let Err(error @ ObjectStoreError::Generic { .. }) =
        response.map_err(|_| unavailable(format!("no response within {PROBE_TIMEOUT:?}")))?
    {
        return Err(unavailable(error.to_string()));
    }
    let mut decided = 0;
    // A race without a winner is inconclusive: after a lost response the retry conflicts with the writer's own object.
    for _ in 0..2 * PROBE_ROUNDS {
        let probe_path = folder.clone().join(format!("race-{:016x}", RandomState::new().hash_one(decided)));
        let write = |writer: usize| {
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            store.put_opts(&probe_path, writer.to_string().into(), options)
        };
        let mut winners = 0;
        for result in join_all((0..PROBE_WRITERS).map(write)).await {
            match result {
                Ok(_) => winners += 1,
                Err(ObjectStoreError::AlreadyExists { .. } | ObjectStoreError::Precondition { .. }) => {}
                Err(ObjectStoreError::NotImplemented { .. } | ObjectStoreError::NotSupported { .. }) => {
                    return Err(unsafe_store("it does not support conditional writes".into()));
                }
                Err(error) => return Err(error.into()),
            }
        }
        store.delete(&probe_path).await?;
        match winners {
            0 => continue,
            1 => decided += 1,
            _ => {
                return Err(unsafe_store(format!(
                    "{winners} of {PROBE_WRITERS} concurrent conditional writes of one object succeeded"
                )));
            }
        }
        if decided == PROBE_ROUNDS {
            return Ok(());
        }
    }
    Err(Error::Unavailable(format!("{root}: no conditional write of a new object succeeded")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register(uri: &str, options: &[(&str, &str)]) -> Result<(), String> {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        register_object_stores(&Url::parse(uri).unwrap(), &options).map_err(|error| error.to_string())
    }

    #[test]
    fn refuses_unknown_schemes_and_options() {
        assert_eq!(register("s3://bucket/lake/", &[("AWS_ENDPOINT_URL", "http://127.0.0.1:9")]), Ok(()));
        assert_eq!(register("gs://bucket/", &[("google-service-account", "/key.json")]), Ok(()));
        assert_eq!(register("abfss://lake@account.dfs.core.windows.net/", &[("account_key", "eA==")]), Ok(()));
        let unsafe_rename = register("s3://bucket/", &[("AWS_S3_ALLOW_UNSAFE_RENAME", "true")]).unwrap_err();
        assert!(unsafe_rename.contains("lake.options") && unsafe_rename.contains("UNSAFE_RENAME"), "{unsafe_rename}");
        let unsupported_scheme = register("hdfs://node/lake/", &[]).unwrap_err();
        assert!(
            unsupported_scheme.contains("lake.uri") && unsupported_scheme.contains("s3://"),
            "{unsupported_scheme}"
        );
    }
}
