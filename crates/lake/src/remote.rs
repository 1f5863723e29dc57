//! Tables on an object store: S3 and what speaks its language, Azure, Google.
//!
//! Problem: a commit is an object that must not be there yet. A store that overlooks this condition lets two writers make the
//! same version, and the batch of one of them is gone without a word. Model: before anything is written the store has to show,
//! in a few races between equals, that one and only one of them wins ([`probe`]). Guarantee: a store that lets several win, or
//! knows no condition at all, is refused at the start.
//!
//! delta-rs knows local files by itself; what else there is, it is told here, once ([`register`]).

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
use object_store::{ObjectStoreExt as _, PutMode, PutOptions};
use url::Url;

use crate::Error;

/// How long its first answer may take; the client tries again all that time.
const ANSWER: Duration = Duration::from_secs(3);
/// Races that a store has to referee.
const RACES: usize = 4;
/// How many take part in each.
const RUNNERS: usize = 8;

/// A language that object stores speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    S3,
    Azure,
    Google,
}

/// The schemes there are.
const SCHEMES: [(&str, Kind); 7] = [
    ("s3", Kind::S3),
    ("s3a", Kind::S3),
    ("az", Kind::Azure),
    ("azure", Kind::Azure),
    ("abfs", Kind::Azure),
    ("abfss", Kind::Azure),
    ("gs", Kind::Google),
];

impl Kind {
    fn of(url: &Url) -> Option<Self> {
        SCHEMES.iter().find(|(scheme, _)| *scheme == url.scheme()).map(|(_, kind)| *kind)
    }

    fn knows(self, option: &str) -> bool {
        let option = written(option);
        match self {
            Self::S3 => option.parse::<AmazonS3ConfigKey>().is_ok(),
            Self::Azure => option.parse::<AzureConfigKey>().is_ok(),
            Self::Google => option.parse::<GoogleConfigKey>().is_ok(),
        }
    }

    /// Its client: what the environment says by the names usual there, then what the configuration says.
    fn client(self, url: &Url, options: &HashMap<String, String>) -> Result<ObjectStoreRef, ObjectStoreError> {
        macro_rules! client {
            ($builder:ty) => {{
                let begun = <$builder>::from_env().with_url(url.as_str());
                let told = options.iter().fold(begun, |builder, (name, value)| match written(name).parse() {
                    Ok(name) => builder.with_config(name, value),
                    Err(_) => builder,
                });
                Ok(Arc::new(told.build()?))
            }};
        }
        match self {
            Self::S3 => client!(AmazonS3Builder),
            Self::Azure => client!(MicrosoftAzureBuilder),
            Self::Google => client!(GoogleCloudStorageBuilder),
        }
    }
}

/// An option's name as object_store writes it: from the environment it comes with dashes.
fn written(name: &str) -> String {
    name.to_ascii_lowercase().replace('-', "_")
}

/// Makes clients for delta-rs.
#[derive(Clone, Copy, Debug)]
struct Factory(Kind);

impl ObjectStoreFactory for Factory {
    fn parse_url_opts(&self, url: &Url, config: &StorageConfig) -> DeltaResult<(ObjectStoreRef, Path)> {
        Ok((self.0.client(url, &config.raw)?, Path::from_url_path(url.path())?))
    }
}

impl LogStoreFactory for Factory {
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

/// Tells delta-rs of the stores there are, and checks that the settings mean something to the one that is asked for.
///
/// # Errors
/// No store has this scheme, or none of this kind has such an option.
pub(crate) fn register(root: &Url, options: &HashMap<String, String>) -> Result<(), Error> {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        for (scheme, kind) in SCHEMES {
            if let Ok(url) = Url::parse(&format!("{scheme}://")) {
                object_store_factories().insert(url.clone(), Arc::new(Factory(kind)));
                logstore_factories().insert(url, Arc::new(Factory(kind)));
            }
        }
    });
    if root.scheme() == "file" {
        return Ok(());
    }
    let Some(kind) = Kind::of(root) else {
        let known: Vec<_> = SCHEMES.iter().map(|(scheme, _)| format!("{scheme}://")).collect();
        let detail = format!("{root} is neither a folder nor one of file://, {}", known.join(", "));
        return Err(Error::Setting { field: "lake.uri", detail });
    };
    if let Some(unknown) = options.keys().find(|name| !kind.knows(name)) {
        let detail = format!(
            "{unknown:?} is no option of a {}:// store; the names are those of object_store, such as aws_endpoint, \
             azure_storage_account_name or google_service_account",
            root.scheme()
        );
        return Err(Error::Setting { field: "lake.options", detail });
    }
    Ok(())
}

/// Has the store show that of several who put an object which is not there yet one wins.
///
/// # Errors
/// It cannot be reached, does not answer soon, or lets several win.
pub(crate) async fn probe(root: &Url, options: &HashMap<String, String>) -> Result<(), Error> {
    let Some(kind) = Kind::of(root) else { return Ok(()) };
    let unfit = |what: String| Error::Setting {
        field: "lake.uri",
        detail: format!(
            "{root}: {what}; two writers could both make the same version of a table, and rows would be lost. Use a \
             store with conditional writes (If-None-Match), or a local disk"
        ),
    };
    let store = kind.client(root, options)?;
    let folder = Path::from_url_path(root.path()).map_err(|error| unfit(error.to_string()))?.join("_wardroom");
    // Any answer will do, that there is no such object or that it may not be looked at, too.
    let answer = tokio::time::timeout(ANSWER, store.head(&folder.clone().join("answer"))).await;
    let away = |why: String| Error::Unavailable(format!("{root}: {why}"));
    if let Err(error @ ObjectStoreError::Generic { .. }) =
        answer.map_err(|_| away(format!("no answer within {ANSWER:?}")))?
    {
        return Err(away(error.to_string()));
    }
    let mut decided = 0;
    // A race without a winner says nothing: an answer was lost, and its runner lost against himself.
    for _ in 0..2 * RACES {
        let place = folder.clone().join(format!("race-{:016x}", RandomState::new().hash_one(decided)));
        let run = |runner: usize| {
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            store.put_opts(&place, runner.to_string().into(), options)
        };
        let mut winners = 0;
        for end in join_all((0..RUNNERS).map(run)).await {
            match end {
                Ok(_) => winners += 1,
                Err(ObjectStoreError::AlreadyExists { .. } | ObjectStoreError::Precondition { .. }) => {}
                Err(ObjectStoreError::NotImplemented { .. } | ObjectStoreError::NotSupported { .. }) => {
                    return Err(unfit("it knows no conditional writes".into()));
                }
                Err(error) => return Err(error.into()),
            }
        }
        store.delete(&place).await?;
        match winners {
            0 => continue,
            1 => decided += 1,
            _ => return Err(unfit(format!("of {RUNNERS} who put one object that was not there, {winners} succeeded"))),
        }
        if decided == RACES {
            return Ok(());
        }
    }
    Err(Error::Unavailable(format!("{root}: of those who put an object that was not there, nobody succeeded")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registered(uri: &str, options: &[(&str, &str)]) -> Result<(), String> {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        register(&Url::parse(uri).unwrap(), &options).map_err(|error| error.to_string())
    }

    #[test]
    fn what_no_store_understands_is_refused_by_name() {
        assert_eq!(registered("s3://bucket/lake/", &[("AWS_ENDPOINT_URL", "http://127.0.0.1:9")]), Ok(()));
        assert_eq!(registered("gs://bucket/", &[("google-service-account", "/key.json")]), Ok(()));
        assert_eq!(registered("abfss://lake@account.dfs.core.windows.net/", &[("account_key", "eA==")]), Ok(()));
        let unsafe_rename = registered("s3://bucket/", &[("AWS_S3_ALLOW_UNSAFE_RENAME", "true")]).unwrap_err();
        assert!(unsafe_rename.contains("lake.options") && unsafe_rename.contains("UNSAFE_RENAME"), "{unsafe_rename}");
        let elsewhere = registered("hdfs://node/lake/", &[]).unwrap_err();
        assert!(elsewhere.contains("lake.uri") && elsewhere.contains("s3://"), "{elsewhere}");
    }
}
