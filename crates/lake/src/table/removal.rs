//! Files that leave a table: in the place of which others come, that no rule keeps, and whose bytes nobody needs any more.
//!
//! Two who look after one table at the same time are a conflict, by an application id that all of them share ([`UPKEEP`]):
//! delta-rs lets two commits take the same file out as long as both say that they only put the rows elsewhere, and the rows
//! would then be in both places. Bar 5a found that.

use std::collections::BTreeSet;
use std::sync::Arc;

use deltalake_core::DeltaTableError;
use deltalake_core::kernel::transaction::{CommitProperties, TransactionError};
use deltalake_core::kernel::{Action, Add, Transaction};
use deltalake_core::operations::vacuum::{Clock, VacuumMode};
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use wardroom_domain::TenantId;

use super::{LiveFile, PARTITIONS, Table, file_name};
use crate::Error;
use crate::samples::{DAY_MS, DataFile};
use crate::upkeep::{LONGEST, Sweep};

/// The name under which files are taken out.
const UPKEEP: &str = "upkeep";

impl Table {
    /// Puts written files in the place of others that hold the same rows.
    pub(crate) async fn replace(&mut self, old: &[LiveFile], written: Vec<Add>) -> Result<(), Error> {
        let added = written.len();
        let mut actions = self.removals(old, false)?;
        actions.extend(written.into_iter().map(|add| Action::Add(Add { data_change: false, ..add })));
        if actions.len() != added + old.len() {
            return Err(Error::Unavailable(format!("{}: files to merge are gone", self.spec.name)));
        }
        unlike(&mut actions);
        if actions.is_empty() {
            return Ok(());
        }
        let operation = DeltaOperation::Optimize { predicate: None, target_size: 0 };
        self.exclusively(actions, operation).await
    }

    /// Commits what takes files out, unless somebody else has done so since the version that was read: he has put the rows where he
    /// wanted them.
    async fn exclusively(&mut self, actions: Vec<Action>, operation: DeltaOperation) -> Result<(), Error> {
        let written = actions.iter().filter_map(|action| match action {
            Action::Add(add) => Some(add.clone()),
            _ => None,
        });
        let written = written.collect();
        match self.commit(self.upkeep(), actions, operation).await {
            Err(DeltaTableError::Transaction { source: TransactionError::CommitConflict(_) }) => {
                self.table.update_state().await?;
                self.discard(written).await?;
                let name = self.spec.name;
                Err(Error::Unavailable(format!(
                    "{name}: somebody else merged or removed files at the same moment; try again"
                )))
            }
            done => {
                done?;
                self.sync()
            }
        }
    }

    /// What makes two commits of this kind at the same time a conflict.
    fn upkeep(&self) -> CommitProperties {
        let next = i64::try_from(self.version()).unwrap_or(i64::MAX).saturating_add(1);
        CommitProperties::default().with_application_transaction(Transaction::new(UPKEEP, next))
    }

    /// Puts a file in the place of all that a tenant's day holds, or nothing; says whether anything changed.
    pub(crate) async fn rewrite(&mut self, tenant: &TenantId, day: i64, file: Option<DataFile>) -> Result<bool, Error> {
        let mut old = self.files().await?;
        old.retain(|live| live.tenant == *tenant && live.day == day);
        let done = match (&file, old.as_slice()) {
            (Some(file), [only]) => only.path.ends_with(&file_name(file, 0)),
            (None, []) => true,
            // Two writers may have left two.
            _ => false,
        };
        if done {
            return Ok(false);
        }
        let mut actions = self.removals(&old, true)?;
        if let Some(file) = &file {
            actions.push(Action::Add(self.put(file, 0).await?));
        }
        unlike(&mut actions);
        let operation = DeltaOperation::Write {
            mode: SaveMode::Overwrite,
            partition_by: Some(PARTITIONS.map(str::to_owned).to_vec()),
            predicate: None,
        };
        self.exclusively(actions, operation).await?;
        Ok(true)
    }

    fn removals(&self, old: &[LiveFile], data_change: bool) -> Result<Vec<Action>, Error> {
        let named: BTreeSet<&str> = old.iter().map(|file| file.path.as_str()).collect();
        let files = self.table.snapshot()?.log_data();
        let gone = files.iter().filter(|view| named.contains(view.path().as_ref()));
        Ok(gone.map(|view| Action::Remove(view.remove_action(data_change))).collect())
    }

    /// Takes files out of the newest version.
    pub(crate) async fn remove(&mut self, old: &[LiveFile]) -> Result<(), Error> {
        let actions = self.removals(old, true)?;
        self.exclusively(actions, DeltaOperation::Delete { predicate: None }).await
    }

    /// Deletes files that were replaced long enough ago, or only counts them.
    pub(crate) async fn sweep(&mut self, sweep: Sweep, dry_run: bool) -> Result<usize, Error> {
        self.table.update_state().await?;
        let now: Arc<dyn Clock> = Arc::new(Moment::of(sweep));
        // What no commit names may be on its way in; once it is older than anybody writes, it was left behind by a try that failed.
        let mode = if sweep.keep < LONGEST { VacuumMode::Lite } else { VacuumMode::Full };
        let vacuum = || self.table.clone().vacuum().with_mode(mode.clone()).with_clock(Arc::clone(&now));
        // It writes two commits even when there is nothing to do.
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

/// A moment at which a week has passed for what may go: delta-rs keeps everything younger than that.
#[derive(Debug)]
struct Moment(i64);

impl Moment {
    fn of(sweep: Sweep) -> Self {
        const WEEK_MS: i64 = 7 * DAY_MS;
        let keep_ms = i64::try_from(sweep.keep.as_millis()).unwrap_or(i64::MAX);
        Self(sweep.now.millis().saturating_add(WEEK_MS).saturating_sub(keep_ms))
    }
}

impl Clock for Moment {
    fn current_timestamp_millis(&self) -> i64 {
        self.0
    }
}

/// Leaves out files that a commit would take out and put in: they are called by their content, and readers would take them for gone.
fn unlike(actions: &mut Vec<Action>) {
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

    /// A reader that is told in one commit that a file goes and comes takes it for gone.
    #[test]
    fn a_file_that_would_go_and_come_stays() {
        let action = |text: &str| serde_json::from_str::<Action>(text).unwrap();
        let add = |path: &str| {
            action(&format!(
                r#"{{"add":{{"path":"{path}","partitionValues":{{}},"size":1,"modificationTime":0,"dataChange":false}}}}"#
            ))
        };
        let remove = |path: &str| {
            action(&format!(r#"{{"remove":{{"path":"{path}","dataChange":false,"deletionTimestamp":0}}}}"#))
        };
        let mut actions = vec![remove("a"), remove("b"), add("b"), add("c")];
        unlike(&mut actions);
        assert_eq!(actions, [remove("a"), add("c")]);
        let mut same = vec![remove("a"), add("a")];
        unlike(&mut same);
        assert_eq!(same, []);
    }
}
