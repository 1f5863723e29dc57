//! What the tables want doing: each of it by itself, so that it can be told before it is done, counted while it is, and left
//! off at any moment.
//!
//! ```text
//! rules of retention ──► files that go out of the newest version ──┐
//! files nobody names ──► bytes that go from the store              ├──► chores, one commit each
//! many short files   ──► few long ones                             ┘
//! ```
//!
//! Guarantee: bytes go only once no version younger than [`Sweep`] keeps names them, and those of a file that no commit names
//! yet only once it is older than that and than a day: whoever is writing it may be slow.

use std::time::Duration;

use wardroom_domain::Timestamp;

use crate::merge::{self, Merged};
use crate::samples::day_of;
use crate::spec::{SAMPLES, SERIES};
use crate::table::LiveFile;
use crate::{Error, Lake, Retention, compact};

/// How long a file that was replaced is kept without being told otherwise.
const WEEK: Duration = Duration::from_secs(7 * 86_400);
/// Nobody writes or reads one file for longer.
pub(crate) const LONGEST: Duration = Duration::from_secs(86_400);

/// Which bytes may go.
#[derive(Clone, Copy, Debug)]
pub struct Sweep {
    /// What time it is.
    pub(crate) now: Timestamp,
    /// Older versions can be read for so long.
    pub(crate) keep: Duration,
}

impl Sweep {
    /// Those of files that were replaced a week ago.
    pub const fn weekly(now: Timestamp) -> Self {
        Self { now, keep: WEEK }
    }

    /// Those of files that were replaced so long ago.
    ///
    /// # Errors
    /// It is so short that somebody may be reading them, and nobody insists.
    pub fn after(now: Timestamp, keep: Duration, force: bool) -> Result<Self, Error> {
        if keep < LONGEST && !force {
            let detail = format!(
                "{} s is less than a day: whoever reads an older version now would find its files gone; add --force to do \
                 it all the same",
                keep.as_secs()
            );
            return Err(Error::Setting { field: "--sweep-after", detail });
        }
        Ok(Self { now, keep })
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub enum Deed {
    /// Files whose time is over go out of the newest version.
    Expire,
    /// Bytes go that nobody needs.
    Sweep(Sweep),
    /// Short files of samples become few long ones.
    Merge,
    /// Short files of another table become one.
    Join,
}

impl Deed {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expire => "expire",
            Self::Sweep(_) => "sweep",
            Self::Merge => "merge",
            Self::Join => "join",
        }
    }
}

/// One thing to do.
#[derive(Clone, Debug)]
pub struct Chore {
    /// In which table.
    pub table: &'static str,
    /// What.
    pub deed: Deed,
    /// Files it is about.
    pub files: usize,
    /// Their rows, where they are known.
    pub rows: u64,
    /// Their size in bytes, where it is known.
    pub bytes: u64,
    group: Vec<LiveFile>,
}

impl Chore {
    fn of(table: &'static str, deed: Deed, group: Vec<LiveFile>) -> Self {
        let (rows, bytes) = group.iter().fold((0, 0), |(rows, bytes), file| (rows + file.rows, bytes + file.bytes));
        Self { table, deed, files: group.len(), rows, bytes, group }
    }
}

impl Lake {
    /// What wants doing now: what is to be merged and joined; and with a moment, also what retention lets go, and which bytes
    /// nobody needs.
    ///
    /// # Errors
    /// A table cannot be read.
    pub async fn chores(&self, sweep: Option<Sweep>) -> Result<Vec<Chore>, Error> {
        let mut chores = Vec::new();
        for table in self.all() {
            let mut table = table.lock().await;
            let (name, mut files) = (table.name(), table.files().await?);
            if let Some(sweep) = sweep {
                let (gone, stay) = files.into_iter().partition(|file| self.outdated(name, file, sweep.now));
                files = stay;
                if !Vec::is_empty(&gone) {
                    chores.push(Chore::of(name, Deed::Expire, gone));
                }
                let unneeded = table.sweep(sweep, true).await?;
                if unneeded > 0 {
                    chores.push(Chore { files: unneeded, ..Chore::of(name, Deed::Sweep(sweep), Vec::new()) });
                }
            }
            let (deed, groups) = if name == SAMPLES.name {
                let newest_ms = files.iter().map(|file| file.span_ms.1).max().unwrap_or_default();
                (Deed::Merge, merge::due(&files, newest_ms))
            } else {
                (Deed::Join, compact::due(&files))
            };
            chores.extend(groups.into_iter().map(|group| Chore::of(name, deed, group)));
        }
        Ok(chores)
    }

    /// Does it, and says what was merged. Whoever writes meanwhile waits for one file at most.
    ///
    /// # Errors
    /// The table cannot be read or written now; nothing has changed for whoever reads.
    pub async fn carry_out(&self, chore: &Chore) -> Result<Merged, Error> {
        let Some(table) = self.table(chore.table) else { return Ok(Merged::default()) };
        match chore.deed {
            Deed::Merge => return self.merge(&chore.group).await,
            Deed::Join => return compact::join(&mut *table.lock().await, &chore.group).await,
            Deed::Sweep(sweep) => drop(table.lock().await.sweep(sweep, false).await?),
            Deed::Expire => table.lock().await.remove(&chore.group).await?,
        }
        tracing::info!(table = chore.table, deed = chore.deed.as_str(), files = chore.files, "looked after");
        Ok(Merged::default())
    }

    /// Does everything that wants doing, and says what was merged.
    ///
    /// # Errors
    /// A table cannot be read or written now.
    pub async fn maintain(&self, sweep: Option<Sweep>) -> Result<Merged, Error> {
        let mut done = Merged::default();
        for chore in self.chores(sweep).await? {
            done.add(self.carry_out(&chore).await?);
        }
        if done.files_in > 0 {
            tracing::info!(files_in = done.files_in, files_out = done.files_out, rows = done.rows, "merged");
        }
        Ok(done)
    }

    pub(crate) async fn merge(&self, group: &[LiveFile]) -> Result<Merged, Error> {
        let Some(LiveFile { tenant, day, .. }) = group.first().cloned() else { return Ok(Merged::default()) };
        let mut runs = Vec::new();
        for file in group {
            runs.push(self.open_samples(file).await?);
        }
        // One file at a time is in memory.
        let (finished, mut ready) = tokio::sync::mpsc::channel(1);
        let merging = tokio::task::spawn_blocking(move || {
            let gone = |_| Error::Unavailable("nobody takes the merged files".into());
            merge::merge(&tenant, day, runs, |file| finished.blocking_send(file).map_err(gone))
        });
        let offset = group.iter().map(|file| file.offset).max().unwrap_or_default();
        let mut written = Vec::new();
        while let Some(file) = ready.recv().await {
            written.push(self.samples.lock().await.put(&file, offset).await?);
        }
        let done = merging.await.map_err(|error| Error::Unavailable(error.to_string()))??;
        self.samples.lock().await.replace(group, written).await?;
        Ok(Merged { bytes_in: group.iter().map(|file| file.bytes).sum(), ..done })
    }

    /// Whether the rules of retention let a file go.
    pub(crate) fn outdated(&self, table: &str, file: &LiveFile, now: Timestamp) -> bool {
        // Labels are needed as long as there are samples under them.
        let days = Retention::days(&self.retention, table, &file.tenant).filter(|_| table != SERIES.name);
        days.is_some_and(|days| file.day + i64::from(days) < day_of(now.millis()))
    }
}

#[cfg(test)]
mod tests;
