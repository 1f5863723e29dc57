use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use wardroom_domain::{TenantId, Timestamp};

use crate::config::Config;
use crate::error::Error;
use crate::fixtures::{
    event_batch, file_and_row_count, flush, new_series, sample_row_count, table_of, uncommitted_file,
};
use crate::format::table_schemas::{EVENTS, LOG_TEMPLATES, LOGS};
use crate::lake::Lake;
use crate::maintain::file_join::JOIN_FILE_COUNT;
use crate::maintain::maintenance_report::MaintenanceReport;
use crate::maintain::retention::Retention;
use crate::table::vacuum_policy::VacuumPolicy;

#[tokio::test]
async fn joins_short_files_of_a_day() {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(&Config::default(), dir.path()).await.unwrap();
    let now = Timestamp::from_millis(1_795_255_040_000);
    for batch in 0..20_u64 {
        let mut events = event_batch(lake.committed_event_offsets().await.unwrap(), batch * 3..batch * 3 + 3);
        lake.commit_events(&events.finish(batch * 3 + 3, now).unwrap()).await.unwrap();
        lake.flush(flush(batch + 1, 0), &[new_series(batch as i64)], now).await.unwrap();
    }
    let done = lake.maintain(None).await.unwrap();
    assert_eq!((done.files_in, done.files_out), (4 * JOIN_FILE_COUNT, 4));
    for table in [table_of(&lake, &LOGS), table_of(&lake, &EVENTS)] {
        assert_eq!(file_and_row_count(table).await, (5, 60));
    }
    let (highest, known) = lake.known_series(None).await.unwrap().remove(&TenantId::main()).unwrap();
    assert_eq!((highest, known.len()), (19, 20));
    assert_eq!(lake.stored_requests(1000, 0).await.unwrap()[&TenantId::main()].len(), 60);
    assert_eq!(lake.maintain(None).await.unwrap(), MaintenanceReport::default(), "nothing is left to do");
}

/// delta-rs alone would commit both, since neither declares a data change.
#[tokio::test]
async fn rejects_the_second_of_two_concurrent_merges() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config::default();
    let lake = Lake::open(&config, dir.path()).await.unwrap();
    for batch in 1..=3 {
        lake.flush(flush(batch, batch as i64 * 200_000), &[], days_from_now(0)).await.unwrap();
    }
    let other = Lake::open(&config, dir.path()).await.unwrap();
    let (files, seen) = (lake.sample_files().await.unwrap(), other.sample_files().await.unwrap());
    lake.merge(&files).await.unwrap();
    let late = other.merge(&seen[..2]).await;
    assert!(late.as_ref().is_err_and(|error| error.to_string().contains("another writer merged")), "{late:?}");
    let second_merge = other.merge(&files).await;
    assert!(
        matches!(second_merge, Err(Error::Unavailable(_))),
        "a stale file list fails after a reload, too: {second_merge:?}"
    );
    let live = lake.sample_files().await.unwrap();
    assert_eq!((live.len(), sample_row_count(&lake).await, sample_row_count(&other).await), (1, 90, 90));
    let table = dir.path().join("lake/silver/samples").join(&live[0].path);
    let kept = std::fs::read_dir(table.parent().unwrap()).unwrap().count();
    assert_eq!(kept, 4, "three merged files and their result; no uncommitted file is left");
}

#[tokio::test]
async fn applies_the_first_matching_retention_rule() {
    let dir = tempfile::tempdir().unwrap();
    let rule = |table: &str, tenant: Option<&str>, days| Retention {
        table: table.into(),
        tenant: tenant.map(|tenant| TenantId::new(tenant).unwrap()),
        days,
    };
    let retention =
        vec![rule("silver.logs", Some("main"), 2), rule("silver.log*", None, 0), rule("silver.samples", None, 5)];
    let lake = Lake::open(&Config { retention, ..Config::default() }, dir.path()).await.unwrap();
    // Log lines and templates are on the day of the first offset; one batch a day.
    let (day_ms, start_ms) = (86_400_000, 1_795_255_038_000);
    let time_on = |day: i64| Timestamp::from_millis(start_ms + day * day_ms);
    for day in 0..8 {
        let offset = (day as u64 + 1) * day_ms as u64;
        let mut events = event_batch(
            lake.committed_event_offsets().await.unwrap(),
            offset - day_ms as u64..offset - day_ms as u64 + 1,
        );
        lake.commit_events(&events.finish(offset, time_on(day)).unwrap()).await.unwrap();
        lake.flush(flush(offset, start_ms + day * day_ms), &[], time_on(day)).await.unwrap();
    }
    let usages = lake.table_usage(&TenantId::main(), time_on(7)).await.unwrap();
    let outdated = usages.iter().filter(|usage| usage.outdated > 0);
    let outdated: Vec<_> = outdated.map(|usage| (usage.table, usage.rows, usage.outdated)).collect();
    assert_eq!(outdated, [("silver.samples", 240, 60), ("silver.logs", 8, 5), ("silver.log_templates", 8, 7)]);
    assert_eq!(file_and_row_count(table_of(&lake, &LOGS)).await.1, 8, "listing removes nothing");
    let expired = async || {
        let mut rows = 0;
        for task in lake.due_tasks(Some(VacuumPolicy::after_a_week(time_on(7)))).await.unwrap() {
            assert_eq!(task.kind.as_str(), "expire");
            rows += task.rows;
            lake.run_task(&task).await.unwrap();
        }
        rows
    };
    assert_eq!(expired().await, 60 + 5 + 7);
    let tables = [&lake.samples, table_of(&lake, &LOGS), table_of(&lake, &LOG_TEMPLATES), table_of(&lake, &EVENTS)];
    let mut counts = Vec::new();
    for table in tables {
        counts.push(file_and_row_count(table).await.1);
    }
    assert_eq!(counts, [180, 3, 1, 8]);
    assert_eq!(expired().await, 0, "nothing is left to do");
    let committed = lake.committed_offset().await.unwrap();
    assert_eq!(committed, Some(8 * day_ms as u64), "expiry does not change the committed offset");
}

/// Returns the time this many days from now.
fn days_from_now(days: u64) -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "files have the system's times")]
    let age = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_millis(age.as_millis() as i64).plus(Duration::from_secs(days * 86_400))
}

#[tokio::test]
async fn vacuums_merged_files_after_a_week_without_losing_rows() {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(&Config::default(), dir.path()).await.unwrap();
    let hour = 3_600_000;
    for offset in 1..=8 {
        lake.flush(flush(offset, offset as i64 * hour), &[], Timestamp::from_millis(0)).await.unwrap();
    }
    let before: Vec<_> = lake.sample_files().await.unwrap().into_iter().map(|file| file.path).collect();
    let merged = lake.maintain(None).await.unwrap();
    assert_eq!((merged.files_in, merged.files_out, merged.rows), (8, 1, 240));
    assert_eq!(lake.maintain(None).await.unwrap(), MaintenanceReport::default(), "nothing is left to do");
    assert_eq!((sample_row_count(&lake).await, lake.committed_offset().await.unwrap()), (240, Some(8)));
    let exists = |path: &&String| dir.path().join("lake/silver/samples").join(path).exists();
    let vacuum = async |days| {
        lake.samples.lock().await.vacuum(VacuumPolicy::after_a_week(days_from_now(days)), false).await.unwrap()
    };
    assert_eq!((vacuum(6).await, before.iter().filter(exists).count()), (0, 8));
    assert_eq!((vacuum(8).await, before.iter().filter(exists).count()), (8, 0));
    let lake = Lake::open(&Config::default(), dir.path()).await.unwrap();
    let file = lake.sample_files().await.unwrap().remove(0);
    assert_eq!((lake.sample_rows(&file).await.unwrap().len(), lake.committed_offset().await.unwrap()), (240, Some(8)));
}

#[test]
fn requires_force_to_vacuum_within_a_day() {
    let (now, hour) = (Timestamp::from_millis(0), Duration::from_secs(3600));
    let refused = VacuumPolicy::after(now, hour * 23, false).unwrap_err().to_string();
    assert!(refused.contains("--force"), "{refused}");
    assert!(VacuumPolicy::after(now, hour * 24, false).is_ok() && VacuumPolicy::after(now, hour * 23, true).is_ok());
}

/// An operation on a table.
#[derive(Clone, Copy, Debug)]
enum Operation {
    /// A batch this many hours after the previous one.
    Flush(i64),
    /// A file is written without a commit.
    UncommittedFile,
    Maintain,
    /// A vacuum in this many days, which keeps the versions of this many days.
    Vacuum(u64, u64),
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let operation = prop_oneof![
        4 => (1_i64..10).prop_map(Operation::Flush),
        1 => Just(Operation::UncommittedFile),
        2 => Just(Operation::Maintain),
        2 => (0_u64..20, 1_u64..9).prop_map(|(days, keep)| Operation::Vacuum(days, keep)),
    ];
    proptest::collection::vec(operation, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Bar 5c: in any order of operations, no file is deleted that the newest version names, that was removed within
    /// the retention, or that is younger and was never committed. Older uncommitted files are deleted.
    #[test]
    fn never_deletes_a_file_in_use(operations in operations()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let lake = Lake::open(&Config::default(), dir.path()).await.unwrap();
            let folder = dir.path().join("lake/silver/samples");
            let (mut hour, mut offset, mut written) = (0, 0, 0);
            let (mut uncommitted, mut protected) = (Vec::new(), BTreeSet::new());
            for operation in operations {
                match operation {
                    Operation::Flush(hours) => {
                        (hour, offset, written) = (hour + hours, offset + 1, written + 30);
                        lake.flush(flush(offset, hour * 3_600_000), &[], Timestamp::from_millis(0)).await.unwrap();
                    }
                    Operation::UncommittedFile => {
                        let file = uncommitted_file(offset + 1000, hour * 3_600_000);
                        let add = lake.samples.lock().await.write_file(&file, offset + 1000).await.unwrap();
                        uncommitted.push(add.path);
                    }
                    Operation::Maintain => drop(lake.maintain(None).await.unwrap()),
                    Operation::Vacuum(days, keep) => {
                        let keep_for = Duration::from_secs(keep * 86_400);
                        let policy = VacuumPolicy::after(days_from_now(days), keep_for, false).unwrap();
                        lake.samples.lock().await.vacuum(policy, false).await.unwrap();
                        let files = lake.sample_files().await.unwrap().into_iter();
                        let live: BTreeSet<_> = files.map(|file| file.path).collect();
                        // All removed files were removed today.
                        let is_removable = |path: &String| !live.contains(path) && days >= keep;
                        protected.retain(|path| !is_removable(path));
                        let remaining: Vec<_> = uncommitted.iter().filter(|path| folder.join(path).exists()).collect();
                        assert!(days <= keep || remaining.is_empty(), "uncommitted files remain: {remaining:?}");
                        uncommitted.retain(|_| days < keep);
                    }
                }
                protected.extend(lake.sample_files().await.unwrap().into_iter().map(|file| file.path));
                for path in protected.iter().chain(&uncommitted) {
                    assert!(folder.join(path).exists(), "{path} is gone after {operation:?}");
                }
            }
            assert_eq!(sample_row_count(&lake).await, written, "all rows exist");
        });
    }
}
