//! Bar 5d: tables with damaged files.

use wardroom_domain::{Entity, Labels, Sample, TenantId, Timestamp};

use super::*;
use crate::config::Config;
use crate::error::Error;
use crate::lake::Lake;
use crate::table::power_loss_repair::record_synced_version;
use crate::write::flush::{Flush, NewSeries};

fn table(data: &Path) -> PathBuf {
    data.join("lake/silver/samples")
}

fn commit(data: &Path, version: u64) -> PathBuf {
    table(data).join(format!("_delta_log/{version:020}.json"))
}

/// Creates a lake with batches that end at these offsets, one sample each. Version 0 creates the table, so version n
/// has n batches.
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
        let (tenant, entity) = (TenantId::main(), Entity::default());
        let new = (offset == 1).then_some(NewSeries { tenant, id: 1, labels, entity, first_ms: 0 });
        lake.flush(flush, new.as_slice(), Timestamp::from_millis(0)).await.unwrap();
    }
}

/// Returns the committed offset and the number of samples after a repair.
async fn reopen(data: &Path) -> Result<(Option<u64>, u64), Error> {
    let lake = Lake::open(&Config::default(), data).await?;
    let rows = lake.sample_files().await?.iter().map(|file| file.rows).sum();
    Ok((lake.committed_offset().await?, rows))
}

#[derive(Debug, Clone, Copy)]
enum Damage {
    Empty,
    Half,
    Garbage,
    Gone,
    /// Still valid JSON or Parquet: a digit of a statistic, or a bit of a page.
    Changed,
}

fn damage_file(path: &Path, damage: Damage) {
    let bytes = std::fs::read(path).unwrap();
    match damage {
        Damage::Empty => std::fs::write(path, b"").unwrap(),
        Damage::Half => std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap(),
        Damage::Garbage => std::fs::write(path, vec![0; bytes.len()]).unwrap(),
        Damage::Gone => std::fs::remove_file(path).unwrap(),
        Damage::Changed if path.extension().is_some_and(|extension| extension == "json") => {
            let text = String::from_utf8(bytes).unwrap();
            let changed = text.replace("numRecords\\\":1", "numRecords\\\":2");
            assert_ne!(changed, text);
            std::fs::write(path, changed).unwrap();
        }
        Damage::Changed => {
            let mut bytes = bytes;
            bytes[100] ^= 1;
            std::fs::write(path, bytes).unwrap();
        }
    }
}

/// Pretends that nothing after this version was synced.
fn unsynced_after(data: &Path, version: u64) {
    record_synced_version(&table(data), version).unwrap();
}

#[tokio::test]
async fn quarantines_unsynced_damaged_commits() {
    for damage in [Damage::Empty, Damage::Half, Damage::Garbage] {
        for first in [4, 6] {
            let dir = tempfile::tempdir().unwrap();
            drop(build(dir.path(), 1..=6).await);
            unsynced_after(dir.path(), 3);
            damage_file(&commit(dir.path(), first), damage);
            let last_version = first - 1;
            assert_eq!(
                reopen(dir.path()).await.unwrap(),
                (Some(last_version), last_version),
                "{damage:?} of commit {first}"
            );
            let lake = Lake::open(&Config::default(), dir.path()).await.unwrap();
            write(&lake, 4..=6).await;
            assert_eq!(reopen(dir.path()).await.unwrap(), (Some(6), 6), "the rest is read from the bus again");
        }
    }
}

#[tokio::test]
async fn quarantines_unsynced_commits_with_damaged_data_files() {
    for damage in [Damage::Empty, Damage::Half, Damage::Gone] {
        let dir = tempfile::tempdir().unwrap();
        let lake = build(dir.path(), 1..=6).await;
        let files = lake.sample_files().await.unwrap();
        let fifth = files.iter().find(|file| file.offset == 5).unwrap();
        unsynced_after(dir.path(), 3);
        damage_file(&table(dir.path()).join(&fifth.path), damage);
        assert_eq!(reopen(dir.path()).await.unwrap(), (Some(4), 4), "{damage:?}");
    }
}

#[tokio::test]
async fn refuses_damage_to_synced_commits() {
    for damage in [Damage::Empty, Damage::Half, Damage::Garbage, Damage::Gone, Damage::Changed] {
        for version in [2, 6] {
            let dir = tempfile::tempdir().unwrap();
            drop(build(dir.path(), 1..=6).await);
            damage_file(&commit(dir.path(), version), damage);
            let refused = reopen(dir.path()).await.unwrap_err().to_string();
            assert!(refused.contains("from a backup"), "{damage:?} of commit {version}: {refused}");
        }
    }
}

#[tokio::test]
async fn ignores_a_damaged_checkpoint() {
    let built = tempfile::tempdir().unwrap();
    // delta-rs writes a checkpoint at version 100.
    drop(build(built.path(), 1..=101).await);
    for damage in [Damage::Empty, Damage::Half, Damage::Garbage, Damage::Gone, Damage::Changed] {
        let dir = tempfile::tempdir().unwrap();
        copy_folder(built.path(), dir.path());
        let log = table(dir.path()).join("_delta_log");
        assert!(log.join("_last_checkpoint").exists());
        let checkpoint = std::fs::read_dir(&log).unwrap().map(|entry| entry.unwrap().path());
        let checkpoint = checkpoint.into_iter().find(|path| path.to_string_lossy().contains(".checkpoint")).unwrap();
        damage_file(&checkpoint, damage);
        assert_eq!(reopen(dir.path()).await.unwrap(), (Some(101), 101), "{damage:?}");
        assert!(!log.join("_last_checkpoint").exists(), "{damage:?}");
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
