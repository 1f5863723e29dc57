//! Which removed files a vacuum may delete.

use std::time::Duration;

use wardroom_domain::Timestamp;

use crate::error::Error;

/// Default retention of removed files.
const DEFAULT_RETENTION: Duration = Duration::from_secs(7 * 86_400);
/// Upper bound on the time that one file is written or read.
pub(crate) const MAX_FILE_ACCESS: Duration = Duration::from_secs(86_400);

/// Which removed files may be deleted.
#[derive(Clone, Copy, Debug)]
pub struct VacuumPolicy {
    /// Current time.
    pub(crate) now: Timestamp,
    /// Files removed less than this ago are kept, so that older versions stay readable.
    pub(crate) keep: Duration,
}

impl VacuumPolicy {
    /// Deletes files removed more than a week ago.
    pub const fn after_a_week(now: Timestamp) -> Self {
        Self { now, keep: DEFAULT_RETENTION }
    }

    /// Deletes files removed more than `keep` ago.
    ///
    /// # Errors
    /// Returns an error if `keep` is under a day and `force` is not set: readers may still use the files.
    pub fn after(now: Timestamp, keep: Duration, force: bool) -> Result<Self, Error> {
        if keep < MAX_FILE_ACCESS && !force {
            let detail = format!(
                "{} s is less than a day: a reader of an older version would lose its files; add --force to do it \
                 anyway",
                keep.as_secs()
            );
            return Err(Error::InvalidConfig { field: "--sweep-after", detail });
        }
        Ok(Self { now, keep })
    }
}
