//! Opens the tables, and waits for them while their object store is unavailable.
//!
//! Problem: a remote object store may be unavailable when the server starts, and telemetry must still be accepted.
//! Model: a server without its tables behaves, as far as the tables are concerned, like one that crashed and has not
//! restarted: it accepts telemetry, detects and serves queries, but writes no checkpoint and keeps the bus from
//! deleting segments, so that the next start resumes where the last one with tables ended. Once the tables can be
//! opened the server exits and is restarted. Guarantee: no acknowledged request is lost or written twice, by the same
//! reasoning as after any crash.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use wardroom_bus::Bus;
use wardroom_lake::{Error, Lake};
use wardroom_pipeline::consumer_groups;
use wardroom_pipeline::lake::lake_state::{LakeState, LakeTables, MAX_RETRY_DELAY, WriteProgress};

use super::serve_error::ServeError;
use crate::config::Config;

/// Maximum time to open all tables on a remote store. The same limit applies to retries: a store that is slower would
/// cause repeated restarts.
const OPEN_TIMEOUT: Duration = Duration::from_secs(20);
/// Delay before the first retry; it doubles up to [`MAX_RETRY_DELAY`].
const INITIAL_RETRY_DELAY: Duration = Duration::from_secs(1);

/// Opens the tables, unless the lake is disabled.
///
/// # Errors
/// Returns an error if tables on a local disk cannot be opened, or if the store is unsuitable: neither recovers by
/// retrying. An unavailable remote store is no error.
pub(super) async fn open_lake(config: &Config, data: &Path, bus: &dyn Bus) -> Result<LakeState, ServeError> {
    if !config.lake.enabled {
        return Ok(LakeState::Disabled);
    }
    let is_remote = config.lake.folder(data)?.is_none();
    match open_with_timeout(&config.lake, data).await {
        Ok(lake) => {
            lake.check_series().await?;
            let committed_offset = lake.committed_offset().await?;
            Ok(LakeState::Ready(LakeTables {
                lake: Arc::new(lake),
                committed_offset,
                samples_progress: Arc::default(),
                events_progress: Arc::default(),
            }))
        }
        Err(error @ Error::Unavailable(_)) if is_remote => {
            tracing::error!(%error, "opening the lake failed; serving without tables and retrying");
            let progress = WriteProgress::default();
            progress.set_committed_offset(bus.committed(consumer_groups::LAKE_SAMPLES)?.unwrap_or_default());
            progress.set_last_error(Some(error.to_string()));
            Ok(LakeState::Unavailable(Arc::new(progress)))
        }
        Err(error) => Err(error.into()),
    }
}

/// Opens the tables; on a remote store within [`OPEN_TIMEOUT`].
async fn open_with_timeout(config: &wardroom_lake::Config, data: &Path) -> Result<Lake, Error> {
    let opening = Lake::open(config, data);
    if config.folder(data)?.is_some() {
        return opening.await;
    }
    let timed_out = |_| {
        let uri = &config.uri;
        Err(Error::Unavailable(format!("timeout: the tables at {uri} could not be opened within {OPEN_TIMEOUT:?}")))
    };
    tokio::time::timeout(OPEN_TIMEOUT, opening).await.unwrap_or_else(timed_out)
}

/// Waits until unavailable tables can be opened; never returns in other states.
pub(super) async fn wait_until_available(lake: &LakeState, config: &wardroom_lake::Config, data: &Path) {
    let LakeState::Unavailable(progress) = lake else { return std::future::pending().await };
    let mut delay = INITIAL_RETRY_DELAY;
    loop {
        tokio::time::sleep(delay).await;
        match open_with_timeout(config, data).await {
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(%error, "opening the lake failed; retrying");
                progress.set_last_error(Some(error.to_string()));
            }
        }
        delay = (delay * 2).min(MAX_RETRY_DELAY);
    }
}
