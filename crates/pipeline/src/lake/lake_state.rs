//! State of the lake, shared by writers, queries and readiness.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use wardroom_domain::Timestamp;
use wardroom_lake::Lake;

/// Maximum delay between retries of an operation on the lake.
pub const MAX_RETRY_DELAY: Duration = Duration::from_secs(30);

/// Progress of one writer: its committed offset and its last error.
#[derive(Debug, Default)]
pub struct WriteProgress {
    committed_offset: AtomicU64,
    /// Time at which the last committed batch was taken, in ms; 0 before the first one of this process.
    complete_to_ms: AtomicI64,
    last_error: Mutex<Option<String>>,
}

impl WriteProgress {
    /// Sets the committed offset: everything before it is durably in the tables.
    pub fn set_committed_offset(&self, offset: u64) {
        self.committed_offset.store(offset, Ordering::Release);
    }

    /// Returns the committed offset: everything before it is in the tables.
    pub fn committed_offset(&self) -> u64 {
        self.committed_offset.load(Ordering::Acquire)
    }

    /// Sets the time at which the last committed batch was taken.
    pub fn set_complete_to(&self, at: Timestamp) {
        self.complete_to_ms.store(at.millis(), Ordering::Release);
    }

    /// Returns the time up to which everything that arrived is in the tables, except for the lag of detection at that
    /// time; `None` before the first batch of this process.
    pub fn complete_to(&self) -> Option<Timestamp> {
        Some(self.complete_to_ms.load(Ordering::Acquire)).filter(|ms| *ms > 0).map(Timestamp::from_millis)
    }

    /// Returns the last error, or `None` after a success.
    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Records an error, or `None` after a success.
    pub fn set_last_error(&self, error: Option<String>) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }
}

/// Whether telemetry is written to the tables.
#[derive(Clone)]
pub enum LakeState {
    /// `lake.enabled` is false: telemetry is lost when the bus drops it.
    Disabled,
    /// The tables could not be opened yet; the bus retains everything. The progress says why.
    Unavailable(Arc<WriteProgress>),
    /// The tables are open.
    Ready(LakeTables),
}

impl LakeState {
    /// Returns the tables if they are open.
    pub const fn tables(&self) -> Option<&LakeTables> {
        if let Self::Ready(tables) = self { Some(tables) } else { None }
    }

    /// Returns why the tables are unavailable, if they are.
    pub fn unavailable_reason(&self) -> Option<String> {
        if let Self::Unavailable(progress) = self { progress.last_error() } else { None }
    }
}

/// The open tables and the progress of their writers.
#[derive(Clone)]
pub struct LakeTables {
    /// The tables.
    pub lake: Arc<Lake>,
    /// Committed offset of the sample tables when they were opened; `None` before the first batch.
    pub committed_offset: Option<u64>,
    /// Progress of the lake writer (samples).
    pub samples_progress: Arc<WriteProgress>,
    /// Progress of the event writer.
    pub events_progress: Arc<WriteProgress>,
}
