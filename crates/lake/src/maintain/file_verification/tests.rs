use std::path::{Path, PathBuf};
use std::sync::Arc;

use wardroom_domain::query::SeriesQuery;
use wardroom_domain::{Sample, TenantId, Timestamp};
use xxhash_rust::xxh3::xxh3_128;

use super::*;
use crate::config::{Config, QueryConfig};
use crate::fixtures::{event_batch, new_series, sample_row_count};
use crate::read::sql_engine::{OutputFormat, QueryEngine};
use crate::write::flush::Flush;

const BATCHES: i64 = 3;
const STEPS: i64 = 3000;

/// A lake with three files of samples of one day, and files of several other tables.
async fn lake_with_data(data: &Path) -> Lake {
    let lake = Lake::open(&Config::default(), data).await.unwrap();
    let day_ms = 20_000 * 86_400_000;
    let now = Timestamp::from_millis(day_ms);
    for batch in 0..BATCHES {
        let mut flush = Flush::new(batch as u64 + 1);
        for series in 1..=3 {
            let sample =
                |step: i64| Sample { ts_ms: day_ms + (batch * STEPS + step) * 1000, value: value(series, step) };
            flush.push(&TenantId::main(), series, &(0..STEPS).map(sample).collect::<Vec<_>>()).unwrap();
        }
        let new: Vec<_> = (1..=3).filter(|_| batch == 0).map(new_series).collect();
        lake.flush(flush, &new, now).await.unwrap();
    }
    let mut events = event_batch(lake.committed_event_offsets().await.unwrap(), 0..40);
    lake.commit_events(&events.finish(40, now).unwrap()).await.unwrap();
    lake
}

fn value(series: i64, step: i64) -> f64 {
    (series * 1_000_003 + step * 7919 % 4001) as f64 / 16.0
}

async fn reopen(data: &Path) -> Lake {
    Lake::open_read_only(&Config::default(), data).await.unwrap().unwrap()
}

/// Data files of a table, by name.
fn data_files(data: &Path, table: &str) -> Vec<PathBuf> {
    let tenant = data.join("lake").join(table).join("tenant=main");
    let days = std::fs::read_dir(tenant).unwrap().flatten();
    let mut files: Vec<_> = days.flat_map(|day| std::fs::read_dir(day.path()).unwrap().flatten()).collect();
    files.sort_unstable_by_key(std::fs::DirEntry::file_name);
    files.into_iter().map(|file| file.path()).collect()
}

fn flip(file: &Path, position: usize) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[position] ^= 0x08;
    std::fs::write(file, bytes).unwrap();
}

/// Sum over all samples, by SQL; `Err` with the error's text.
async fn sum_by_sql(lake: Lake) -> Result<f64, String> {
    let engine = QueryEngine::new(Arc::new(lake), QueryConfig::default()).unwrap();
    let sql = "SELECT sum(value) AS sum, count(value) AS count FROM metrics";
    let text = engine.run_sql(&TenantId::main(), sql, OutputFormat::Json).await.map_err(|error| error.to_string())?;
    let rows: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(rows[0]["count"], 3 * BATCHES * STEPS, "no row is missing");
    Ok(rows[0]["sum"].as_f64().unwrap())
}

/// Sum over all samples, by the raw sample query.
async fn sum_by_query(lake: &Lake) -> Result<f64, Error> {
    let (start, end) = (Timestamp::from_millis(0), Timestamp::from_millis(i64::MAX / 2_000_000));
    let query = SeriesQuery { selectors: Vec::new(), start, end, step_ms: None };
    let page = lake.read_samples(&TenantId::main(), &query, (0, u64::MAX), usize::MAX).await?;
    let samples: Vec<_> = page.series.iter().flat_map(|(_, samples)| samples).collect();
    assert_eq!(samples.len() as i64, 3 * BATCHES * STEPS, "no row is missing");
    Ok(samples.iter().map(|sample| sample.value).sum())
}

async fn damaged_paths(lake: &Lake) -> Vec<String> {
    let tables = lake.verify(|_| {}).await.unwrap();
    tables.into_iter().flat_map(|table| table.damaged).map(|file| file.path).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_is_an_error_and_never_another_value() {
    let dir = tempfile::tempdir().unwrap();
    drop(lake_with_data(dir.path()).await);
    let intact = reopen(dir.path()).await;
    let expected: f64 = (1..=3).flat_map(|series| (0..STEPS).map(move |step| value(series, step))).sum();
    let expected = expected * BATCHES as f64;
    assert_eq!(sum_by_query(&intact).await.unwrap(), expected);
    let found = intact.verify(|_| {}).await.unwrap();
    assert!(found.iter().all(|table| table.damaged.is_empty() && table.unchecked == 0), "{found:?}");
    let samples = found.iter().find(|table| table.table == "silver.samples").unwrap();
    assert_eq!((samples.files as i64, samples.rows as i64), (BATCHES, 3 * BATCHES * STEPS));
    assert_eq!(sum_by_sql(intact).await.unwrap(), expected);
    let file = &data_files(dir.path(), "silver/samples")[1];
    let path = file.strip_prefix(dir.path().join("lake")).unwrap().to_str().unwrap().to_owned();
    let length = std::fs::read(file).unwrap().len();
    for position in (0..6).map(|step| 4 + step * (length - 5) / 5) {
        flip(file, position);
        let error = sum_by_query(&reopen(dir.path()).await).await.unwrap_err().to_string();
        assert!(error.contains(&path) && error.contains("lake verify"), "{position}: {error}");
        let error = sum_by_sql(reopen(dir.path()).await).await;
        // A flip in a column that the view does not read changes nothing.
        if let Ok(sum) = error {
            assert_eq!(sum, expected, "{position}");
        } else if let Err(error) = error {
            assert!(error.starts_with(&format!("{path} is damaged: ")), "{position}: {error}");
        }
        let lake = reopen(dir.path()).await;
        assert_eq!(damaged_paths(&lake).await, std::slice::from_ref(&path), "{position}");
        assert_eq!(lake.damaged_files().len(), 1);
        flip(file, position);
        lake.recheck_damaged_files().await.unwrap();
        assert_eq!(lake.damaged_files(), [], "intact again");
    }
}

#[tokio::test]
async fn verifies_the_files_of_every_table() {
    let dir = tempfile::tempdir().unwrap();
    drop(lake_with_data(dir.path()).await);
    for table in ["silver/samples", "silver/series", "silver/logs", "silver/log_templates", "silver/events"] {
        let file = data_files(dir.path(), table).pop().unwrap();
        let length = std::fs::metadata(&file).unwrap().len() as usize;
        for position in [0, 4, length / 2, length - 5, length - 1] {
            flip(&file, position);
            let found = damaged_paths(&reopen(dir.path()).await).await;
            assert!(found.len() == 1 && found[0].starts_with(table), "{table} at {position}: {found:?}");
            flip(&file, position);
        }
    }
    assert_eq!(damaged_paths(&reopen(dir.path()).await).await, Vec::<String>::new());
}

#[tokio::test]
async fn finds_missing_short_and_exchanged_files() {
    let dir = tempfile::tempdir().unwrap();
    drop(lake_with_data(dir.path()).await);
    let files = data_files(dir.path(), "silver/samples");
    let contents: Vec<_> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    let detail = async || {
        let tables = reopen(dir.path()).await.verify(|_| {}).await.unwrap();
        tables.into_iter().flat_map(|table| table.damaged).map(|file| file.detail).collect::<Vec<_>>().join("; ")
    };
    std::fs::remove_file(&files[0]).unwrap();
    assert_eq!(detail().await, "it is missing");
    for error in [
        sum_by_query(&reopen(dir.path()).await).await.unwrap_err().to_string(),
        sum_by_sql(reopen(dir.path()).await).await.unwrap_err(),
    ] {
        assert!(error.contains(" is damaged: it is missing; put an intact copy"), "{error}");
    }
    std::fs::write(&files[0], &contents[0][..contents[0].len() - 1]).unwrap();
    assert!(detail().await.contains("and the table's log says"), "{}", detail().await);
    std::fs::write(&files[0], &contents[1]).unwrap();
    assert!(!detail().await.is_empty(), "an intact file under the name of another");
    std::fs::write(&files[0], &contents[0]).unwrap();
    assert_eq!(detail().await, "");
}

#[tokio::test]
async fn finds_a_log_that_does_not_match_its_files() {
    let dir = tempfile::tempdir().unwrap();
    drop(lake_with_data(dir.path()).await);
    let log = dir.path().join("lake/silver/samples/_delta_log/00000000000000000002.json");
    let text = std::fs::read_to_string(&log).unwrap();
    let rows = (3 * STEPS).to_string();
    for (from, to) in [
        (format!("\\\"numRecords\\\":{rows}"), format!("\\\"numRecords\\\":{}", 3 * STEPS - 1)),
        ("\\\"maxValues\\\":{\\\"series_id\\\":3".to_owned(), "\\\"maxValues\\\":{\\\"series_id\\\":2".to_owned()),
        ("\\\"minValues\\\":{\\\"series_id\\\":1".to_owned(), "\\\"minValues\\\":{\\\"series_id\\\":2".to_owned()),
        ("\"day\":\"2024-10-04\"".to_owned(), "\"day\":\"2024-10-05\"".to_owned()),
    ] {
        assert!(text.contains(&from), "{from} in {text}");
        std::fs::write(&log, text.replace(&from, &to)).unwrap();
        let found = damaged_paths(&reopen(dir.path()).await).await;
        assert!(found.len() == 2 && found[0].ends_with("_delta_log/00000000000000000002.json"), "{to}: {found:?}");
    }
    std::fs::write(&log, &text).unwrap();
    assert_eq!(damaged_paths(&reopen(dir.path()).await).await, Vec::<String>::new());
    // A log without checksums, such as that of an earlier version, is compared with its files.
    std::fs::write(&log, text.replace(&format!("\\\"numRecords\\\":{rows}"), "\\\"numRecords\\\":5")).unwrap();
    std::fs::remove_file(log.with_file_name("_checksums")).unwrap();
    let found = damaged_paths(&reopen(dir.path()).await).await;
    assert!(found.len() == 1 && found[0].ends_with(".parquet"), "{found:?}");
}

/// Otherwise the merged file would have valid checksums of wrong values.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_not_merged() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake_with_data(dir.path()).await;
    let next_day = 20_001 * 86_400_000 + 3_600_000;
    let mut flush = Flush::new(9);
    flush.push(&TenantId::main(), 1, &[Sample { ts_ms: next_day, value: 1.0 }]).unwrap();
    lake.flush(flush, &[], Timestamp::from_millis(next_day)).await.unwrap();
    let file = data_files(dir.path(), "silver/samples").remove(1);
    let length = std::fs::metadata(&file).unwrap().len() as usize;
    flip(&file, length / 2);
    let rows = sample_row_count(&lake).await;
    lake.maintain(None).await.unwrap();
    assert_eq!(lake.damaged_files().len(), 1, "found by the merge");
    assert_eq!(lake.sample_files().await.unwrap().len(), 4, "nothing was merged");
    lake.maintain(None).await.unwrap();
    let files = lake.sample_files().await.unwrap();
    assert_eq!((files.len(), sample_row_count(&lake).await), (3, rows), "the other two of the day were merged");
    assert_eq!(damaged_paths(&lake).await.len(), 1, "the damaged file is still there");
    flip(&file, length / 2);
    lake.recheck_damaged_files().await.unwrap();
    lake.maintain(None).await.unwrap();
    assert_eq!((lake.sample_files().await.unwrap().len(), sample_row_count(&lake).await), (2, rows));
    assert_eq!(damaged_paths(&lake).await, Vec::<String>::new());
}

/// A file of a version without checksums: read as before, verified by the hash in its name, and not merged if damaged.
#[tokio::test(flavor = "multi_thread")]
async fn files_without_checksums_are_read_and_verified_by_name() {
    let dir = tempfile::tempdir().unwrap();
    drop(lake_with_data(dir.path()).await);
    let file = data_files(dir.path(), "silver/samples").remove(1);
    let name = file.file_name().unwrap().to_str().unwrap().to_owned();
    let bytes = std::fs::read(&file).unwrap();
    let earlier = format!("part-{:020}-{:032x}.parquet", 2, xxh3_128(&bytes));
    let log = dir.path().join("lake/silver/samples/_delta_log/00000000000000000002.json");
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::write(&log, text.replace(&name, &earlier)).unwrap();
    std::fs::remove_file(log.with_file_name("_checksums")).unwrap();
    std::fs::rename(&file, file.with_file_name(&earlier)).unwrap();
    let file = file.with_file_name(&earlier);
    let lake = reopen(dir.path()).await;
    sum_by_query(&lake).await.unwrap();
    let tables = lake.verify(|_| {}).await.unwrap();
    assert!(tables.iter().all(|table| table.damaged.is_empty() && table.unchecked == 0), "{tables:?}");
    let expected = sum_by_sql(lake).await.unwrap();
    flip(&file, bytes.len() / 2);
    let lake = Lake::open(&Config::default(), dir.path()).await.unwrap();
    assert_eq!(damaged_paths(&lake).await.len(), 1);
    let group = lake.sample_files().await.unwrap();
    let lake = Lake::open(&Config::default(), dir.path()).await.unwrap();
    assert!(matches!(lake.merge(&group).await, Err(Error::DamagedFile(_))), "not merged");
    flip(&file, bytes.len() / 2);
    lake.merge(&group).await.unwrap();
    assert_eq!(sum_by_sql(reopen(dir.path()).await).await.unwrap(), expected);
}
