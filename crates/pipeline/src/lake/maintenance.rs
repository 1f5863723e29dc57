//! Background maintenance of the tables: compaction, retention and vacuum.

use std::time::Duration;

use wardroom_lake::{Error, Lake, VacuumPolicy};
use wardroom_process::clock;

use super::lake_state::LakeTables;
use crate::metrics as names;

/// Number of maintenance rounds between vacuums.
const VACUUM_INTERVAL_ROUNDS: u64 = 120;

/// Runs maintenance at this interval until it is cancelled; returns at once without tables.
pub async fn run_maintenance(tables: Option<LakeTables>, interval: Duration) {
    let Some(LakeTables { lake, .. }) = tables else { return };
    for round in 1_u64.. {
        tokio::time::sleep(interval).await;
        let vacuum = (round % VACUUM_INTERVAL_ROUNDS == 0).then(|| VacuumPolicy::after_a_week(clock::now()));
        if let Err(error) = maintain(&lake, vacuum).await {
            metrics::counter!(names::LAKE_FAILURES_TOTAL).increment(1);
            tracing::error!(%error, "lake maintenance failed; retrying");
        }
    }
}

async fn maintain(lake: &Lake, vacuum: Option<VacuumPolicy>) -> Result<(), Error> {
    lake.recheck_damaged_files().await?;
    for task in lake.due_tasks(vacuum).await? {
        let report = match lake.run_task(&task).await {
            // Logged when it was found, and reported by `/readyz`. The next round leaves the file out.
            Err(Error::DamagedFile(_)) => {
                metrics::counter!(names::LAKE_FAILURES_TOTAL).increment(1);
                continue;
            }
            report => report?,
        };
        metrics::counter!(names::LAKE_MERGED_ROWS_TOTAL).increment(report.rows);
        metrics::counter!(names::LAKE_MAINTENANCE_FILES_TOTAL, "chore" => task.kind.as_str())
            .increment(task.files as u64);
    }
    Ok(())
}
