//! Plans and runs the maintenance of all tables as separate tasks, which can be listed before they run, counted, and
//! stopped in between.
//!
//! ```text
//! retention rules    ──► expire: files leave the newest version ─────┐
//! unreferenced files ──► vacuum: their bytes are deleted             ├──► tasks, one commit each
//! many short files   ──► merge (samples) or join (other tables)      ┘
//! ```
//!
//! Guarantee: bytes are deleted only if no version within [`VacuumPolicy`]'s retention names their file. A file that no
//! commit names yet is deleted only once it is older than that and than a day, since a slow write may still be in
//! progress.

use std::collections::BTreeSet;

use crate::error::Error;
use crate::format::parquet_source::ParquetSource;
use crate::format::table_schemas::SAMPLES;
use crate::lake::Lake;
use crate::maintain::file_join::{files_to_join, join_files};
use crate::maintain::maintenance_report::MaintenanceReport;
use crate::maintain::retention::is_expired;
use crate::maintain::sample_merge::{files_to_merge, merge_sample_files};
use crate::table::live_file::LiveFile;
use crate::table::vacuum_policy::VacuumPolicy;

/// What a maintenance task does.
#[derive(Clone, Copy, Debug)]
pub enum MaintenanceKind {
    /// Removes files past their retention from the newest version.
    Expire,
    /// Deletes the bytes of unreferenced files.
    Vacuum(VacuumPolicy),
    /// Merges short files of samples.
    Merge,
    /// Joins short files of another table.
    Join,
}

impl MaintenanceKind {
    /// Returns the stable name used in metrics and output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expire => "expire",
            Self::Vacuum(_) => "sweep",
            Self::Merge => "merge",
            Self::Join => "join",
        }
    }
}

/// One unit of maintenance.
#[derive(Clone, Debug)]
pub struct MaintenanceTask {
    /// Table name.
    pub table: &'static str,
    /// What to do.
    pub kind: MaintenanceKind,
    /// Number of files concerned.
    pub files: usize,
    /// Their rows; 0 if unknown.
    pub rows: u64,
    /// Their size in bytes; 0 if unknown.
    pub bytes: u64,
    files_to_change: Vec<LiveFile>,
}

impl MaintenanceTask {
    fn new(table: &'static str, kind: MaintenanceKind, group: Vec<LiveFile>) -> Self {
        let (rows, bytes) = group.iter().fold((0, 0), |(rows, bytes), file| (rows + file.rows, bytes + file.bytes));
        Self { table, kind, files: group.len(), rows, bytes, files_to_change: group }
    }
}

impl Lake {
    /// Lists the tasks that are due. Expiry and vacuum are included only if a policy is given.
    ///
    /// # Errors
    /// Returns an error if a table cannot be read.
    pub async fn due_tasks(&self, vacuum: Option<VacuumPolicy>) -> Result<Vec<MaintenanceTask>, Error> {
        let mut tasks = Vec::new();
        let damaged: BTreeSet<String> = self.damaged_files().into_iter().map(|file| file.path).collect();
        for table in self.tables() {
            let mut table = table.lock().await;
            let (name, mut files) = (table.name(), table.files().await?);
            if let Some(vacuum) = vacuum {
                let (expired, kept) = files
                    .into_iter()
                    .partition(|file| is_expired(&self.retention, name, &file.tenant, file.day, vacuum.now));
                files = kept;
                if !Vec::is_empty(&expired) {
                    tasks.push(MaintenanceTask::new(name, MaintenanceKind::Expire, expired));
                }
                let unreferenced = table.vacuum(vacuum, true).await?;
                if unreferenced > 0 {
                    tasks.push(MaintenanceTask {
                        files: unreferenced,
                        ..MaintenanceTask::new(name, MaintenanceKind::Vacuum(vacuum), Vec::new())
                    });
                }
            }
            // A damaged file stays as it is, so that it can be replaced by an intact copy.
            files.retain(|file| !damaged.contains(&table.path_in_lake(file)));
            let (kind, groups) = if name == SAMPLES.name {
                let newest_ms = files.iter().map(|file| file.span_ms.1).max().unwrap_or_default();
                (MaintenanceKind::Merge, files_to_merge(&files, newest_ms))
            } else {
                (MaintenanceKind::Join, files_to_join(&files))
            };
            tasks.extend(groups.into_iter().map(|group| MaintenanceTask::new(name, kind, group)));
        }
        Ok(tasks)
    }

    /// Runs a task.
    ///
    /// # Errors
    /// Returns an error if the table cannot be read or written now; retrying is safe. [`Error::DamagedFile`] is for a
    /// file that no later task includes.
    pub async fn run_task(&self, task: &MaintenanceTask) -> Result<MaintenanceReport, Error> {
        let Some(table) = self.table(task.table) else { return Ok(MaintenanceReport::default()) };
        match task.kind {
            MaintenanceKind::Merge | MaintenanceKind::Join => {
                let report = match task.kind {
                    MaintenanceKind::Merge => self.merge(&task.files_to_change).await,
                    _ => join_files(&mut *table.lock().await, &task.files_to_change).await,
                };
                let Err(error) = report else { return report };
                // The Parquet reader turns the error of a damaged file into text.
                let table = table.lock().await;
                let paths: BTreeSet<_> = task.files_to_change.iter().map(|file| table.path_in_lake(file)).collect();
                let damaged = self.damaged_files().into_iter().find(|file| paths.contains(&file.path));
                return Err(damaged.map_or(error, Error::from));
            }
            MaintenanceKind::Vacuum(vacuum) => drop(table.lock().await.vacuum(vacuum, false).await?),
            MaintenanceKind::Expire => table.lock().await.remove_files(&task.files_to_change).await?,
        }
        tracing::info!(table = task.table, kind = task.kind.as_str(), files = task.files, "maintenance task done");
        Ok(MaintenanceReport::default())
    }

    /// Runs all due tasks, and reports merges and joins.
    ///
    /// # Errors
    /// Returns an error if a table cannot be read or written now.
    pub async fn maintain(&self, vacuum: Option<VacuumPolicy>) -> Result<MaintenanceReport, Error> {
        let mut done = MaintenanceReport::default();
        for task in self.due_tasks(vacuum).await? {
            match self.run_task(&task).await {
                // Logged when it was found. The next round leaves the file out.
                Err(Error::DamagedFile(_)) => {}
                report => done.add(report?),
            }
        }
        if done.files_in > 0 {
            tracing::info!(
                files_in = done.files_in,
                files_out = done.files_out,
                rows = done.rows,
                "merged and joined files"
            );
        }
        Ok(done)
    }

    /// Merges sample files of one tenant and day.
    pub(crate) async fn merge(&self, group: &[LiveFile]) -> Result<MaintenanceReport, Error> {
        let Some(LiveFile { tenant, day, .. }) = group.first().cloned() else {
            return Ok(MaintenanceReport::default());
        };
        let mut runs = Vec::new();
        for file in group {
            runs.push(self.open_sample_file(file).await?);
        }
        // Holds one finished file in memory at a time.
        let (finished, mut ready) = tokio::sync::mpsc::channel(1);
        let merge_task = tokio::task::spawn_blocking(move || {
            runs.iter().try_for_each(ParquetSource::verify_before_rewrite)?;
            let writer_stopped = |_| Error::Unavailable("the writer of merged files has stopped".into());
            merge_sample_files(&tenant, day, runs, |file| finished.blocking_send(file).map_err(writer_stopped))
        });
        let offset = group.iter().map(|file| file.offset).max().unwrap_or_default();
        let mut written = Vec::new();
        while let Some(file) = ready.recv().await {
            written.push(self.samples.lock().await.write_file(&file, offset).await?);
        }
        let done = merge_task.await.map_err(|error| Error::Unavailable(error.to_string()))??;
        self.samples.lock().await.replace_files(group, written).await?;
        Ok(done)
    }
}

#[cfg(test)]
mod tests;
