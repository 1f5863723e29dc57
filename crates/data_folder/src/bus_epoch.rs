//! Does the bus continue where everything processed from it ends?
//!
//! Problem: checkpoints, tables and dead letters record bus offsets. If the bus is shorter than they say (deleted,
//! restored from an older copy, another disk), it gives offsets a second time; requests that get them are acknowledged
//! and then dropped, since they count as processed. Model: a server does not start on such a bus. An operator who
//! cannot put the bus back lets it continue at an offset that nothing has recorded yet. Guarantee: an offset that is
//! acknowledged has never been processed before.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use wardroom_bus::{Bus, DeadLetters, Durability, EmbeddedBus, recorded_offsets, start_new_epoch};
use wardroom_lake::Lake;
use wardroom_pipeline::state::checkpoint;

use wardroom_config::Config;

/// File of the data folder with the end of the bus, as text: evidence outside of the bus' folder from the first record
/// on, before anything was processed durably.
const END_FILE: &str = "state/bus-end";
/// Interval at which the end of a bus without records is looked at.
const FIRST_INTERVAL: Duration = Duration::from_millis(100);
/// Interval at which the end is noted after that.
const NOTE_INTERVAL: Duration = Duration::from_secs(10);

/// Why the bus cannot be used, or no new epoch was started.
#[derive(Debug, thiserror::Error)]
pub enum BusEpochError {
    /// The bus ends before an offset that was processed.
    #[error(
        "the bus in {} ends at offset {end}, but {recorded}: it was deleted, damaged, restored from an older copy or \
         is another one. New requests would count as processed and be dropped. Put the right bus folder back, or \
         restore a backup; if the missing records cannot be recovered, run `wardroom bus new-epoch --data {}`, which \
         continues after the highest offset",
        .data.join("bus").display(), .data.display()
    )]
    TooShort {
        /// The data folder.
        data: PathBuf,
        /// The offset after the last record of the bus.
        end: u64,
        /// What has processed more, and up to which offset.
        recorded: String,
    },
    /// Nothing has processed more than the bus has.
    #[error("the bus ends at offset {end} and nothing has processed more, so no new epoch is needed")]
    NotNeeded {
        /// The offset after the last record of the bus.
        end: u64,
    },
    /// The bus or the dead letters could not be read or written.
    #[error(transparent)]
    Bus(#[from] wardroom_bus::Error),
    /// The tables could not be read.
    #[error(transparent)]
    Lake(#[from] wardroom_lake::Error),
    /// The checkpoints could not be read.
    #[error("list checkpoints: {0}")]
    Checkpoints(std::io::Error),
}

/// A new epoch of the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewEpoch {
    /// The first missing offset: the one after the last record of the bus.
    pub missing_from: u64,
    /// The first offset of the new epoch.
    pub continues_at: u64,
}

/// Checks that nothing has processed more than the bus has.
///
/// # Errors
/// Returns an error if something has, or if it cannot be determined.
pub async fn check_bus_end(
    data: &Path,
    bus: &dyn Bus,
    dead_letters: &DeadLetters,
    lake: Option<&Lake>,
) -> Result<(), BusEpochError> {
    let end = bus.end_offset();
    let mut beyond = processed_offsets(data, dead_letters, lake).await?;
    beyond.retain(|(_, offset)| *offset > end);
    if beyond.is_empty() {
        return Ok(());
    }
    let recorded: Vec<String> = beyond.iter().map(|(what, offset)| format!("{what} is at {offset}")).collect();
    Err(BusEpochError::TooShort { data: data.to_owned(), end, recorded: recorded.join(", ") })
}

/// Notes the end of the bus in the data folder while a server runs, until it is cancelled.
pub async fn note_bus_end(data: PathBuf, bus: Arc<dyn Bus>) {
    // Of a bus that is not synced, a power cut may leave less than the file says.
    if bus.durability() != Durability::Fsync.as_str() {
        return;
    }
    let (mut noted, mut interval) = (noted_end(&data).unwrap_or_default(), FIRST_INTERVAL);
    loop {
        let end = bus.end_offset();
        if end > noted {
            match write_end(&data, end) {
                Ok(()) => noted = end,
                Err(error) => tracing::warn!(%error, "noting the end of the bus failed; retrying"),
            }
            interval = NOTE_INTERVAL;
        }
        tokio::time::sleep(interval).await;
    }
}

fn write_end(data: &Path, end: u64) -> std::io::Result<()> {
    let (path, new) = (data.join(END_FILE), data.join(format!("{END_FILE}.new")));
    std::fs::write(&new, format!("{end}\n"))?;
    std::fs::rename(new, path)
}

/// Returns the end of the bus that a server has noted. A file that cannot be read says nothing.
fn noted_end(data: &Path) -> Option<u64> {
    std::fs::read_to_string(data.join(END_FILE)).ok()?.trim().parse().ok()
}

/// Lets the bus of a data folder continue after the highest offset that was processed. No server may run on the folder.
///
/// # Errors
/// Returns an error if no new epoch is needed, or if a file cannot be read or written.
pub async fn new_epoch(config: &Config, data: &Path) -> Result<NewEpoch, BusEpochError> {
    let folder = data.join("bus");
    // Opened like a server does, which cuts off a torn tail, and closed before the next segment is created.
    let missing_from = EmbeddedBus::open(&folder, config.bus.clone())?.end_offset();
    let dead_letters = DeadLetters::open(&data.join("dead-letters"))?;
    let lake = if config.lake.enabled { Lake::open_read_only(&config.lake, data).await? } else { None };
    let processed = processed_offsets(data, &dead_letters, lake.as_ref()).await?;
    let continues_at = processed.iter().map(|(_, offset)| *offset).max().unwrap_or_default();
    if continues_at <= missing_from {
        return Err(BusEpochError::NotNeeded { end: missing_from });
    }
    start_new_epoch(&folder, continues_at)?;
    Ok(NewEpoch { missing_from, continues_at })
}

/// Returns what has processed records of the bus, and the offset up to which it has.
async fn processed_offsets(
    data: &Path,
    dead_letters: &DeadLetters,
    lake: Option<&Lake>,
) -> Result<Vec<(String, u64)>, BusEpochError> {
    let mut offsets = recorded_offsets(&data.join("bus"))?;
    let newest = checkpoint::newest_offset(&data.join("checkpoint")).map_err(BusEpochError::Checkpoints)?;
    offsets.extend(newest.map(|offset| ("the newest checkpoint".to_owned(), offset)));
    offsets.extend(noted_end(data).map(|end| ("the last acknowledged request".to_owned(), end)));
    offsets.push(("the newest dead letter".to_owned(), dead_letters.mentioned_to()?));
    if let Some(lake) = lake {
        offsets.extend(lake.committed_offset().await?.map(|offset| ("the table of samples".to_owned(), offset)));
        offsets.push(("a table of events".to_owned(), lake.committed_event_offsets().await?.max()));
    }
    Ok(offsets)
}
