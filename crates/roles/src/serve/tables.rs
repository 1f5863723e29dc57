//! Opening the tables, and what is done while their store is away.
//!
//! Problem: a store on the network may be away when the server starts, and what goes on in production meanwhile must be taken
//! in all the same. Model: a server without its tables is one that has crashed and not come back as far as they are concerned. It takes
//! in, detects and answers; it takes no checkpoint and lets the bus forget nothing, so that the start after it goes on from where the last
//! one with tables ended. Once they can be opened it ends, and is started again. Guarantee: nothing that was acknowledged is lost or
//! lands twice, by the same reasoning as after any crash.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use wardroom_bus::Bus;
use wardroom_lake::{Error, Lake};
use wardroom_pipeline::keep::{GROUP, Kept, LONGEST, Progress, Tables};

use super::ServeError;
use crate::config::Config;

/// How long a store on the network may take until all tables are open. One that takes longer is away, also when it is asked again:
/// else a slow one would have the server started over and over.
const PATIENCE: Duration = Duration::from_secs(20);
/// How soon it is asked again, and twice as long after each further time.
const SOON: Duration = Duration::from_secs(1);

/// Opens the tables, unless nothing is kept. One on a local disk that cannot be opened keeps the server from starting, and so does
/// a store that is not fit for them: neither mends itself.
pub(super) async fn open(config: &Config, data: &Path, bus: &dyn Bus) -> Result<Kept, ServeError> {
    if !config.lake.enabled {
        return Ok(Kept::Off);
    }
    let remote = config.lake.folder(data)?.is_none();
    match opened(&config.lake, data).await {
        Ok(lake) => {
            let reached = lake.reached().await?;
            Ok(Kept::Open(Tables { lake: Arc::new(lake), reached, progress: Arc::default(), events: Arc::default() }))
        }
        Err(error @ Error::Unavailable(_)) if remote => {
            tracing::error!(%error, "serving without the tables until their store is back");
            let progress = Progress::default();
            progress.set(bus.committed(GROUP)?.unwrap_or_default());
            progress.tell(Some(error.to_string()));
            Ok(Kept::Away(Arc::new(progress)))
        }
        Err(error) => Err(error.into()),
    }
}

/// The tables, if they can be opened soon; a local disk gets the time it takes.
async fn opened(config: &wardroom_lake::Config, data: &Path) -> Result<Lake, Error> {
    let opening = Lake::open(config, data);
    if config.folder(data)?.is_some() {
        return opening.await;
    }
    let late = |_| Err(Error::Unavailable(format!("the tables at {} are not open within {PATIENCE:?}", config.uri)));
    tokio::time::timeout(PATIENCE, opening).await.unwrap_or_else(late)
}

/// Waits until tables that were away can be opened.
pub(super) async fn back(kept: &Kept, config: &wardroom_lake::Config, data: &Path) {
    let Kept::Away(progress) = kept else { return std::future::pending().await };
    let mut wait = SOON;
    loop {
        tokio::time::sleep(wait).await;
        match opened(config, data).await {
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(%error, "the tables cannot be opened yet");
                progress.tell(Some(error.to_string()));
            }
        }
        wait = (wait * 2).min(LONGEST);
    }
}
