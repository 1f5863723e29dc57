//! Bar 5d: corpses made by hand.

use wardroom_domain::{Labels, Sample, TenantId, Timestamp};

use super::*;
use crate::{Config, Flush, Lake, NewSeries};

fn table(data: &Path) -> PathBuf {
    data.join("lake/silver/samples")
}

fn commit(data: &Path, version: u64) -> PathBuf {
    table(data).join(format!("_delta_log/{version:020}.json"))
}

/// A lake with batches that end at these offsets, one sample each. Version 0 made the table, so version n has n batches.
async fn build(data: &Path, offsets: std::ops::RangeInclusive<u64>) -> Lake {
    let lake = Lake::open(&Config::default(), data).await.unwrap();
    write(&lake, offsets).await;
    lake
}

async fn write(lake: &Lake, offsets: std::ops::RangeInclusive<u64>) {
    for offset in offsets {
        let mut flush = Flush::new(offset);
        flush.push(&TenantId::main(), 1, &[Sample { ts_ms: offset as i64 * 1000, value: 1.0 }]).unwrap();
        let labels = Labels::of(&[("__name__", "up")]);
        let new = (offset == 1).then_some(NewSeries { tenant: TenantId::main(), id: 1, labels, first_ms: 0 });
        lake.flush(flush, new.as_slice(), Timestamp::from_millis(0)).await.unwrap();
    }
}

/// What the table says of itself after it was repaired: where it ends, and how many samples it holds.
async fn reopened(data: &Path) -> Result<(Option<u64>, u64), Error> {
    let lake = Lake::open(&Config::default(), data).await?;
    let rows = lake.files().await?.iter().map(|file| file.rows).sum();
    Ok((lake.reached().await?, rows))
}

#[derive(Debug, Clone, Copy)]
enum Harm {
    Empty,
    Half,
    Garbage,
    Gone,
}

fn harm(path: &Path, how: Harm) {
    let bytes = std::fs::read(path).unwrap();
    match how {
        Harm::Empty => std::fs::write(path, b"").unwrap(),
        Harm::Half => std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap(),
        Harm::Garbage => std::fs::write(path, vec![0; bytes.len()]).unwrap(),
        Harm::Gone => std::fs::remove_file(path).unwrap(),
    }
}

/// Pretends that nothing after this version was ever synced.
fn unsynced_after(data: &Path, version: u64) {
    note(&table(data), version).unwrap();
}

#[tokio::test]
async fn commits_that_no_sync_covered_are_put_aside_and_written_again() {
    for how in [Harm::Empty, Harm::Half, Harm::Garbage] {
        for first in [4, 6] {
            let dir = tempfile::tempdir().unwrap();
            drop(build(dir.path(), 1..=6).await);
            unsynced_after(dir.path(), 3);
            harm(&commit(dir.path(), first), how);
            let left = first - 1;
            assert_eq!(reopened(dir.path()).await.unwrap(), (Some(left), left), "{how:?} of commit {first}");
            let lake = Lake::open(&Config::default(), dir.path()).await.unwrap();
            write(&lake, 4..=6).await;
            assert_eq!(reopened(dir.path()).await.unwrap(), (Some(6), 6), "the bus brings the rest again");
        }
    }
}

#[tokio::test]
async fn commits_whose_files_are_not_whole_go_too() {
    for how in [Harm::Empty, Harm::Half, Harm::Gone] {
        let dir = tempfile::tempdir().unwrap();
        let lake = build(dir.path(), 1..=6).await;
        let files = lake.files().await.unwrap();
        let fifth = files.iter().find(|file| file.offset == 5).unwrap();
        unsynced_after(dir.path(), 3);
        harm(&table(dir.path()).join(&fifth.path), how);
        assert_eq!(reopened(dir.path()).await.unwrap(), (Some(4), 4), "{how:?}");
    }
}

#[tokio::test]
async fn what_was_synced_once_is_never_hidden() {
    for how in [Harm::Empty, Harm::Half, Harm::Garbage, Harm::Gone] {
        for version in [2, 6] {
            let dir = tempfile::tempdir().unwrap();
            drop(build(dir.path(), 1..=6).await);
            harm(&commit(dir.path(), version), how);
            let refused = reopened(dir.path()).await.unwrap_err().to_string();
            assert!(refused.contains("from a backup"), "{how:?} of commit {version}: {refused}");
        }
    }
}

#[tokio::test]
async fn a_checkpoint_that_is_not_whole_is_done_without() {
    for how in [Harm::Empty, Harm::Half, Harm::Garbage, Harm::Gone] {
        let dir = tempfile::tempdir().unwrap();
        // delta-rs takes one at version 100.
        drop(build(dir.path(), 1..=101).await);
        let log = table(dir.path()).join("_delta_log");
        assert!(log.join("_last_checkpoint").exists());
        let checkpoint = std::fs::read_dir(&log).unwrap().map(|entry| entry.unwrap().path());
        let checkpoint = checkpoint.into_iter().find(|path| path.to_string_lossy().contains(".checkpoint")).unwrap();
        harm(&checkpoint, how);
        assert_eq!(reopened(dir.path()).await.unwrap(), (Some(101), 101), "{how:?}");
        assert!(!log.join("_last_checkpoint").exists(), "{how:?}");
    }
}
