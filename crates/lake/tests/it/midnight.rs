//! A first day shorter than six hours, with more rows than a file holds. Its merge leaves several files, which later
//! merges must leave alone. They were once merged into themselves, and readers treated all rows as removed.

use wardroom_domain::{Sample, TenantId, Timestamp};
use wardroom_lake::{CommitOutcome, Config, Flush, Lake};

/// Enough that two flushes fill more than one file of eight million rows.
const SERIES: i64 = 3000;
/// Samples per series in each of the two flushes.
const STEPS: i64 = 1500;
/// Interval of samples in ms: all of them are within six hours.
const STEP_MS: i64 = 7000;
const DAY_MS: i64 = 86_400_000;

fn flush(offset: u64, from_ms: i64, steps: i64) -> Flush {
    let mut flush = Flush::new(offset);
    let mut run = Vec::new();
    for series in 1..=SERIES {
        run.clear();
        run.extend((0..steps).map(|step| Sample { ts_ms: from_ms + step * STEP_MS, value: (series + step) as f64 }));
        flush.push(&TenantId::main(), series, &run).unwrap();
    }
    flush
}

/// Rows and files of the samples.
async fn rows_and_files(lake: &Lake, now: Timestamp) -> (u64, usize) {
    let usage = lake.table_usage(&TenantId::main(), now).await.unwrap();
    let samples = usage.iter().find(|usage| usage.table == "silver.samples").unwrap();
    (samples.rows, samples.files)
}

#[tokio::test]
async fn keeps_all_rows_of_a_full_first_day_after_midnight() {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(&Config::default(), dir.path()).await.unwrap();
    let evening_ms = DAY_MS - 2 * STEPS * STEP_MS;
    let now = Timestamp::from_millis(2 * DAY_MS);
    for (offset, from_ms) in [(1, evening_ms), (2, evening_ms + STEPS * STEP_MS)] {
        assert_eq!(lake.flush(flush(offset, from_ms, STEPS), &[], now).await.unwrap(), CommitOutcome::Committed);
    }
    let first_day = 2 * (SERIES * STEPS) as u64;
    assert_eq!(rows_and_files(&lake, now).await, (first_day, 2));
    assert_eq!(lake.maintain(None).await.unwrap().rows, 0, "the day is not over");
    // Half an hour into the next day.
    lake.flush(flush(3, DAY_MS + 30 * 60_000, 1), &[], now).await.unwrap();
    let merged = lake.maintain(None).await.unwrap();
    assert_eq!((merged.rows, merged.files_in, merged.files_out), (first_day, 2, 2));
    let all = (first_day + SERIES as u64, 3);
    assert_eq!(rows_and_files(&lake, now).await, all);
    for run in 0..2 {
        assert_eq!(lake.maintain(None).await.unwrap().files_in, 0, "run {run}: nothing is left to do");
        assert_eq!(rows_and_files(&lake, now).await, all);
    }
    // A reader that opens the tables afterwards.
    let reader = Lake::open_read_only(&Config::default(), dir.path()).await.unwrap().unwrap();
    assert_eq!(rows_and_files(&reader, now).await, all);
}
