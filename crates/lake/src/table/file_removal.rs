//! Removes files from a table: replaced by merged ones, rewritten, expired, or vacuumed.
//!
//! Commits that remove files share one application id ([`MAINTENANCE_APP_ID`]), so that two of them at the same time
//! conflict. delta-rs alone lets two commits remove the same file if both declare `dataChange: false`, and the rows
//! would then exist twice.

use std::collections::BTreeSet;
use std::sync::Arc;

use deltalake_core::DeltaTableError;
use deltalake_core::kernel::transaction::{CommitProperties, TransactionError};
use deltalake_core::kernel::{Action, Add, Transaction};
use deltalake_core::operations::vacuum::{Clock, VacuumMode};
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use wardroom_domain::TenantId;

use crate::error::Error;
use crate::format::data_file::{DAY_MS, DataFile};
use crate::format::file_name::data_file_name;
use crate::table::delta_table::{PARTITIONS, Table};
use crate::table::live_file::LiveFile;
use crate::table::vacuum_policy::{MAX_FILE_ACCESS, VacuumPolicy};

/// Application id of commits that remove files.
const MAINTENANCE_APP_ID: &str = "upkeep";

impl Table {
    /// Replaces files with already written ones that hold the same rows.
    pub(crate) async fn replace_files(&mut self, old: &[LiveFile], written: Vec<Add>) -> Result<(), Error> {
        let added_count = written.len();
        let mut actions = self.remove_actions(old, false)?;
        actions.extend(written.into_iter().map(|add| Action::Add(Add { data_change: false, ..add })));
        if actions.len() != added_count + old.len() {
            return Err(Error::Unavailable(format!("{}: files to merge no longer exist", self.schema.name)));
        }
        drop_unchanged_files(&mut actions);
        if actions.is_empty() {
            return Ok(());
        }
        let operation = DeltaOperation::Optimize { predicate: None, target_size: 0 };
        self.commit_exclusively(actions, operation).await
    }

    /// Commits actions that remove files. Fails if another writer has removed files since the version that was read.
    async fn commit_exclusively(&mut self, actions: Vec<Action>, operation: DeltaOperation) -> Result<(), Error> {
        let written = actions.iter().filter_map(|action| match action {
            Action::Add(add) => Some(add.clone()),
            _ => None,
        });
        let written = written.collect();
        match self.commit(self.maintenance_transaction(), actions, operation).await {
            Err(DeltaTableError::Transaction { source: TransactionError::CommitConflict(_) }) => {
                self.table.update_state().await?;
                self.delete_uncommitted(written).await?;
                let name = self.schema.name;
                Err(Error::Unavailable(format!(
                    "{name}: another writer merged or removed files at the same time; retry"
                )))
            }
            done => {
                done?;
                self.sync()
            }
        }
    }

    /// Returns commit properties that conflict with any other removal on the same version.
    fn maintenance_transaction(&self) -> CommitProperties {
        let next = i64::try_from(self.version()).unwrap_or(i64::MAX).saturating_add(1);
        CommitProperties::default().with_application_transaction(Transaction::new(MAINTENANCE_APP_ID, next))
    }

    /// Replaces all files of a tenant's day with one file, or with none. Returns whether anything changed.
    pub(crate) async fn rewrite_day(
        &mut self,
        tenant: &TenantId,
        day: i64,
        file: Option<DataFile>,
    ) -> Result<bool, Error> {
        let mut old = self.files().await?;
        old.retain(|live| live.tenant == *tenant && live.day == day);
        let unchanged = match (&file, old.as_slice()) {
            (Some(file), [only]) => only.path.ends_with(&data_file_name(file, 0)),
            (None, []) => true,
            // Two writers may have left two files.
            _ => false,
        };
        if unchanged {
            return Ok(false);
        }
        let mut actions = self.remove_actions(&old, true)?;
        if let Some(file) = &file {
            actions.push(Action::Add(self.write_file(file, 0).await?));
        }
        drop_unchanged_files(&mut actions);
        let operation = DeltaOperation::Write {
            mode: SaveMode::Overwrite,
            partition_by: Some(PARTITIONS.map(str::to_owned).to_vec()),
            predicate: None,
        };
        self.commit_exclusively(actions, operation).await?;
        Ok(true)
    }

    /// Returns the remove actions of files that the newest version still has.
    fn remove_actions(&self, old: &[LiveFile], data_change: bool) -> Result<Vec<Action>, Error> {
        let removed_paths: BTreeSet<&str> = old.iter().map(|file| file.path.as_str()).collect();
        let files = self.table.snapshot()?.log_data();
        let removed = files.iter().filter(|view| removed_paths.contains(view.path().as_ref()));
        Ok(removed.map(|view| Action::Remove(view.remove_action(data_change))).collect())
    }

    /// Removes files from the newest version.
    pub(crate) async fn remove_files(&mut self, old: &[LiveFile]) -> Result<(), Error> {
        let actions = self.remove_actions(old, true)?;
        self.commit_exclusively(actions, DeltaOperation::Delete { predicate: None }).await
    }

    /// Deletes the bytes of files that were removed long enough ago, or only counts them. Returns their number.
    pub(crate) async fn vacuum(&mut self, policy: VacuumPolicy, dry_run: bool) -> Result<usize, Error> {
        self.table.update_state().await?;
        let now: Arc<dyn Clock> = Arc::new(VacuumClock::new(policy));
        // A file that no commit names may belong to a write in progress. Full mode deletes it once it is older than any
        // write.
        let mode = if policy.keep < MAX_FILE_ACCESS { VacuumMode::Lite } else { VacuumMode::Full };
        let vacuum = || self.table.clone().vacuum().with_mode(mode.clone()).with_clock(Arc::clone(&now));
        // delta-rs commits twice even if there is nothing to delete, so count first.
        let (_, found) = vacuum().with_dry_run(true).await?;
        if found.files_deleted.is_empty() || dry_run {
            return Ok(found.files_deleted.len());
        }
        let (table, done) = vacuum().await?;
        self.table = table;
        self.sync()?;
        Ok(done.files_deleted.len())
    }
}

/// A clock shifted so that delta-rs' fixed minimum of one week equals the policy's retention.
#[derive(Debug)]
struct VacuumClock(i64);

impl VacuumClock {
    fn new(policy: VacuumPolicy) -> Self {
        const WEEK_MS: i64 = 7 * DAY_MS;
        let keep_ms = i64::try_from(policy.keep.as_millis()).unwrap_or(i64::MAX);
        Self(policy.now.millis().saturating_add(WEEK_MS).saturating_sub(keep_ms))
    }
}

impl Clock for VacuumClock {
    fn current_timestamp_millis(&self) -> i64 {
        self.0
    }
}

/// Drops files that a commit would both remove and add. Files are named by content, and readers would treat them as
/// removed.
fn drop_unchanged_files(actions: &mut Vec<Action>) {
    let path = |action: &Action| match action {
        Action::Add(add) => Some((true, add.path.clone())),
        Action::Remove(remove) => Some((false, remove.path.clone())),
        _ => None,
    };
    let all: BTreeSet<(bool, String)> = actions.iter().filter_map(path).collect();
    actions.retain(|action| path(action).is_none_or(|(added, path)| !all.contains(&(!added, path))));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader that sees a remove and an add of one file in one commit treats it as removed.
    #[test]
    fn keeps_a_file_that_is_removed_and_added_in_one_commit() {
        let action = |text: &str| serde_json::from_str::<Action>(text).unwrap();
        let add = |path: &str| {
            action(&format!(
                r#"{{"add":{{"path":"{path}","partitionValues":{{}},"size":1,"modificationTime":0,
                "dataChange":false}}}}"#
            ))
        };
        let remove = |path: &str| {
            action(&format!(r#"{{"remove":{{"path":"{path}","dataChange":false,"deletionTimestamp":0}}}}"#))
        };
        let mut actions = vec![remove("a"), remove("b"), add("b"), add("c")];
        drop_unchanged_files(&mut actions);
        assert_eq!(actions, [remove("a"), add("c")]);
        let mut same = vec![remove("a"), add("a")];
        drop_unchanged_files(&mut same);
        assert_eq!(same, []);
    }
}
