//! A first day: shorter than six hours, more rows than a file takes, and over. Its merge leaves several files, and what merges
//! after midnight has to leave them alone. It once merged them into themselves, and readers took every row for gone.

use wardroom_domain::{Sample, TenantId, Timestamp};
use wardroom_lake::{Config, Flush, Lake, Landed};

/// So many that two flushes fill more than one file of eight million.
const SERIES: i64 = 3000;
/// Samples of each, in each of the two flushes.
const STEPS: i64 = 1500;
/// From one to the next: all of them lie within six hours.
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
async fn held(lake: &Lake, now: Timestamp) -> (u64, usize) {
    let holdings = lake.holdings(&TenantId::main(), now).await.unwrap();
    let samples = holdings.iter().find(|held| held.table == "silver.samples").unwrap();
    (samples.rows, samples.files)
}

#[tokio::test]
async fn a_full_first_day_is_whole_after_midnight() {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(&Config::default(), dir.path()).await.unwrap();
    let evening = DAY_MS - 2 * STEPS * STEP_MS;
    let now = Timestamp::from_millis(2 * DAY_MS);
    for (offset, from_ms) in [(1, evening), (2, evening + STEPS * STEP_MS)] {
        assert_eq!(lake.flush(flush(offset, from_ms, STEPS), &[], now).await.unwrap(), Landed::Now);
    }
    let first_day = 2 * (SERIES * STEPS) as u64;
    assert_eq!(held(&lake, now).await, (first_day, 2));
    assert_eq!(lake.maintain(None).await.unwrap().rows, 0, "the day is not over");
    // Half an hour into the next one.
    lake.flush(flush(3, DAY_MS + 30 * 60_000, 1), &[], now).await.unwrap();
    let merged = lake.maintain(None).await.unwrap();
    assert_eq!((merged.rows, merged.files_in, merged.files_out), (first_day, 2, 2));
    let all = (first_day + SERIES as u64, 3);
    assert_eq!(held(&lake, now).await, all);
    for turn in 0..2 {
        assert_eq!(lake.maintain(None).await.unwrap().files_in, 0, "turn {turn}: nothing is left to do");
        assert_eq!(held(&lake, now).await, all);
    }
    // What a reader sees who was not there.
    let reader = Lake::look(&Config::default(), dir.path()).await.unwrap().unwrap();
    assert_eq!(held(&reader, now).await, all);
}
