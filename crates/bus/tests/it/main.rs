//! The contract suite over the embedded bus, and what only segment files can suffer.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests may unwrap")]

use std::sync::Arc;

use bytes::Bytes;
use wardroom_bus::{Bus, Config, EmbeddedBus, Error, contract};
use wardroom_domain::Timestamp;

fn small() -> Config {
    Config { segment_bytes: 4096, ..Config::default() }
}

macro_rules! suite {
    ($($promise:ident),* $(,)?) => {$(
        #[tokio::test]
        async fn $promise() {
            let dir = tempfile::tempdir().unwrap();
            contract::$promise(Arc::new(EmbeddedBus::open(dir.path(), small()).unwrap())).await;
        }
    )*};
}
suite!(appended_records_read_back_in_order, concurrent_appends_get_distinct_offsets, reading_in_steps_misses_nothing,);

async fn filled(dir: &std::path::Path, count: u8) {
    let bus = EmbeddedBus::open(dir, small()).unwrap();
    for index in 0..count {
        bus.append(contract::envelope(0), Bytes::from(vec![index; 64])).await.unwrap();
    }
}

fn bodies(bus: &EmbeddedBus) -> Vec<u8> {
    bus.read(bus.start(), 1000).unwrap().iter().map(|record| record.body[0]).collect()
}

#[tokio::test]
async fn reopening_continues_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 100).await;
    let bus = EmbeddedBus::open(dir.path(), small()).unwrap();
    assert_eq!(bus.end(), 100);
    assert_eq!(bus.append(contract::envelope(0), Bytes::from_static(b"x")).await.unwrap(), 100);
    assert_eq!(bodies(&bus)[..100], (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_torn_tail_is_cut_off_at_every_length() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 3).await;
    let path = dir.path().join("00000000000000000000.seg");
    let whole = std::fs::read(&path).unwrap();
    let frame = whole.len() / 3;
    for cut in 1..frame {
        std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
        let bus = EmbeddedBus::open(dir.path(), small()).unwrap();
        assert_eq!((bus.end(), bodies(&bus)), (2, vec![0, 1]), "cut {cut}");
    }
}

#[tokio::test]
async fn a_damaged_record_is_skipped_and_the_others_delivered() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 60).await;
    let path = dir.path().join("00000000000000000000.seg");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    std::fs::write(&path, bytes).unwrap();
    let bus = EmbeddedBus::open(dir.path(), small()).unwrap();
    let seen = bodies(&bus);
    assert_eq!(seen.len(), 59);
    assert!(seen.is_sorted());
}

#[tokio::test]
async fn at_the_limit_appends_are_refused_and_nothing_is_trimmed() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { limit_bytes: 2000, ..small() };
    let bus = EmbeddedBus::open(dir.path(), config).unwrap();
    let mut accepted = 0;
    let refused = loop {
        match bus.append(contract::envelope(0), Bytes::from(vec![1; 100])).await {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, Error::Full { .. }));
    assert_eq!(bodies(&bus).len(), accepted);
}

#[tokio::test]
async fn trimming_drops_only_whole_segments_below_the_offset() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 100).await;
    let bus = EmbeddedBus::open(dir.path(), small()).unwrap();
    let late = Timestamp::from_millis(i64::MAX / 1_000_000);
    assert_eq!(bus.trim(50, Timestamp::from_millis(0)).unwrap(), 0, "too young");
    assert!(bus.trim(50, late).unwrap() > 0);
    assert!(bus.start() > 0 && bus.start() <= 50);
    assert_eq!(*bodies(&bus).last().unwrap(), 99);
}
