//! Contract tests of the embedded bus, and tests of its segment files.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests may unwrap")]

use std::sync::Arc;

use bytes::Bytes;
use wardroom_bus::{Bus, Config, EmbeddedBus, Error, TrimPolicy, contract};
use wardroom_domain::Timestamp;

fn small_segments() -> Config {
    Config { segment_bytes: 4096, ..Config::default() }
}

macro_rules! suite {
    ($($guarantee:ident),* $(,)?) => {$(
        #[tokio::test]
        async fn $guarantee() {
            let dir = tempfile::tempdir().unwrap();
            contract::$guarantee(Arc::new(EmbeddedBus::open(dir.path(), small_segments()).unwrap())).await;
        }
    )*};
}
suite!(
    appended_records_read_back_in_order,
    concurrent_appends_get_distinct_offsets,
    groups_keep_their_committed_offsets,
    reading_in_steps_returns_every_record,
);

async fn append_records(dir: &std::path::Path, count: u8) {
    let bus = EmbeddedBus::open(dir, small_segments()).unwrap();
    for index in 0..count {
        bus.append(contract::envelope(i64::from(index)), Bytes::from(vec![index; 64])).await.unwrap();
    }
}

fn bodies(bus: &EmbeddedBus) -> Vec<u8> {
    bus.read(bus.start_offset(), 1000).unwrap().iter().map(|record| record.body[0]).collect()
}

#[tokio::test]
async fn continues_at_the_end_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    append_records(dir.path(), 100).await;
    let bus = EmbeddedBus::open(dir.path(), small_segments()).unwrap();
    assert_eq!(bus.end_offset(), 100);
    assert_eq!(bus.append(contract::envelope(0), Bytes::from_static(b"x")).await.unwrap(), 100);
    assert_eq!(bodies(&bus)[..100], (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn cuts_off_a_torn_tail_of_any_length() {
    let dir = tempfile::tempdir().unwrap();
    append_records(dir.path(), 3).await;
    let path = dir.path().join("00000000000000000000.seg");
    let original_bytes = std::fs::read(&path).unwrap();
    let frame = original_bytes.len() / 3;
    for cut in 1..frame {
        std::fs::write(&path, &original_bytes[..original_bytes.len() - cut]).unwrap();
        let bus = EmbeddedBus::open(dir.path(), small_segments()).unwrap();
        assert_eq!((bus.end_offset(), bodies(&bus)), (2, vec![0, 1]), "cut {cut}");
    }
}

#[tokio::test]
async fn skips_a_damaged_record_and_delivers_the_others() {
    let dir = tempfile::tempdir().unwrap();
    append_records(dir.path(), 60).await;
    let path = dir.path().join("00000000000000000000.seg");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    std::fs::write(&path, bytes).unwrap();
    let bus = EmbeddedBus::open(dir.path(), small_segments()).unwrap();
    let bodies_read = bodies(&bus);
    assert_eq!(bodies_read.len(), 59);
    assert!(bodies_read.is_sorted());
}

#[tokio::test]
async fn counts_each_damaged_record_once() {
    let dir = tempfile::tempdir().unwrap();
    append_records(dir.path(), 60).await;
    wardroom_bus::start_new_epoch(dir.path(), 100).unwrap();
    append_records(dir.path(), 4).await;
    let bus = EmbeddedBus::open(dir.path(), small_segments()).unwrap();
    let records = bus.read(0, 1000).unwrap();
    assert_eq!((records.len(), bus.lost_records()), (64, 0));
    // Damaged: neighbours, the last record of a segment, the first one of the epoch, and the last record of the log.
    let segment = records[0].location.segment;
    let last = records.iter().rposition(|record| record.location.segment == segment).unwrap();
    for index in [10, 11, 20, last, 60, 63] {
        let place = &records[index].location;
        let path = dir.path().join(format!("{:020}.seg", place.segment));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[place.position as usize + 40] ^= 0x40;
        std::fs::write(&path, bytes).unwrap();
    }
    for _ in 0..2 {
        assert_eq!(bus.read(12, 3).unwrap().len(), 3);
        assert_eq!(bus.read(0, 1000).unwrap().len(), 58);
        assert_eq!(bus.lost_records(), 6, "without the offsets before the epoch");
    }
    let late = Timestamp::from_millis(i64::MAX / 1_000_000);
    bus.trim(100, &TrimPolicy { segments_before: late, archive_before: late, keep: &|_| false }).unwrap();
    assert_eq!(bus.lost_records(), 2, "those of dropped segments are forgotten");
}

#[tokio::test]
async fn refuses_appends_at_the_size_limit_and_trims_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { limit_bytes: 2000, ..small_segments() };
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
async fn trim_drops_whole_segments_below_the_offset_and_archives_requests() {
    let dir = tempfile::tempdir().unwrap();
    append_records(dir.path(), 100).await;
    let bus = EmbeddedBus::open(dir.path(), small_segments()).unwrap();
    let (early, late) = (Timestamp::from_millis(0), Timestamp::from_millis(i64::MAX / 1_000_000));
    // Every second request is archived.
    let keep = |envelope: &wardroom_domain::Envelope| envelope.received_at.millis() % 2 == 0;
    assert_eq!(
        bus.trim(50, &TrimPolicy { segments_before: early, archive_before: early, keep: &keep }).unwrap(),
        0,
        "within the retention"
    );
    assert!(bus.trim(50, &TrimPolicy { segments_before: late, archive_before: early, keep: &keep }).unwrap() > 0);
    let start = bus.start_offset();
    assert!(start > 0 && start <= 50);
    assert_eq!(*bodies(&bus).last().unwrap(), 99);
    for index in 0..100_u8 {
        let offset = u64::from(index);
        let found = bus.find(offset).unwrap();
        assert_eq!(found.is_some(), offset >= start || offset % 2 == 0, "{offset}");
        assert!(found.is_none_or(|record| record.offset == offset && record.body == vec![index; 64]));
    }
    let reopened = EmbeddedBus::open(dir.path(), small_segments()).unwrap();
    assert_eq!((reopened.start_offset(), reopened.end_offset()), (start, 100), "the archive is not part of the log");
    bus.trim(50, &TrimPolicy { segments_before: early, archive_before: late, keep: &keep }).unwrap();
    assert!(bus.find(0).unwrap().is_none(), "past the retention of the archive");
}

#[tokio::test]
async fn damaged_group_offset_reads_as_none() {
    let dir = tempfile::tempdir().unwrap();
    let bus = EmbeddedBus::open(dir.path(), small_segments()).unwrap();
    bus.commit("detect", 77).unwrap();
    let path = dir.path().join("groups/detect");
    let original_bytes = std::fs::read(&path).unwrap();
    for index in 0..original_bytes.len() {
        let mut damaged = original_bytes.clone();
        damaged[index] ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        assert_eq!(bus.committed("detect").unwrap(), None, "byte {index}");
        std::fs::write(&path, &original_bytes[..index]).unwrap();
        assert_eq!(bus.committed("detect").unwrap(), None, "cut to {index}");
    }
    std::fs::write(&path, &original_bytes).unwrap();
    assert_eq!(bus.committed("detect").unwrap(), Some(77));
}

#[tokio::test]
async fn limits_bytes_waiting_to_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let bus = Arc::new(EmbeddedBus::open(dir.path(), Config { pending_bytes: 10_000, ..Config::default() }).unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let bus = Arc::clone(&bus);
        tasks.spawn(async move { bus.append(contract::envelope(0), Bytes::from(vec![1; 3000])).await });
    }
    let outcomes = tasks.join_all().await;
    let accepted = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(_) | Err(Error::Overloaded { .. }))));
    assert_eq!(bus.read(0, 1000).unwrap().len(), accepted);
    assert!(accepted > 0);
    assert!(
        bus.append(contract::envelope(0), Bytes::from(vec![1; 20_000])).await.is_ok(),
        "a single append is always allowed"
    );
}

fn reason(offset: u64) -> wardroom_bus::DeadLetterReason {
    let at = Timestamp::from_millis(7);
    wardroom_bus::DeadLetterReason {
        group: "detect".into(),
        offset,
        reason: "panic".into(),
        tries: 5,
        first_try: at,
        last_try: at,
    }
}

#[tokio::test]
async fn stores_a_dead_letter_and_replays_it_once() {
    let dir = tempfile::tempdir().unwrap();
    let bus: Arc<dyn Bus> = Arc::new(EmbeddedBus::open(&dir.path().join("bus"), small_segments()).unwrap());
    let tenant = wardroom_domain::TenantId::main();
    bus.append(contract::envelope(1), Bytes::from_static(b"poison")).await.unwrap();
    let record = bus.read(0, 1).unwrap().remove(0);
    let open = || wardroom_bus::DeadLetters::open(&dir.path().join("dead")).unwrap();
    let dead_letters = open();
    let id = dead_letters.add(reason(0), &record).await.unwrap();
    drop(dead_letters);
    let dead_letters = open();
    let found = dead_letters.list(&tenant).unwrap();
    assert_eq!((found.len(), &found[0].reason, &found[0].body[..]), (1, &reason(0), &b"poison"[..]));
    assert_eq!(found[0].envelope, record.envelope);
    assert!(dead_letters.list(&wardroom_domain::TenantId::new("other").unwrap()).unwrap().is_empty());
    assert_eq!(dead_letters.replay(&bus, &tenant, 99).await.unwrap(), None);
    assert_eq!(dead_letters.replay(&bus, &tenant, id).await.unwrap(), Some(1));
    assert_eq!(dead_letters.replay(&bus, &tenant, id).await.unwrap(), Some(1), "a second replay appends nothing");
    assert_eq!(bus.end_offset(), 2);
    let stored = wardroom_bus::read_dead_letters(&dir.path().join("dead"), &tenant).unwrap();
    assert_eq!(stored[0].replayed_as, Some(1));
}

/// The process was killed between the append and the entry that ends the replay.
#[tokio::test]
async fn completes_an_interrupted_replay_without_a_second_append() {
    let dir = tempfile::tempdir().unwrap();
    let bus: Arc<dyn Bus> = Arc::new(EmbeddedBus::open(&dir.path().join("bus"), small_segments()).unwrap());
    let tenant = wardroom_domain::TenantId::main();
    bus.append(contract::envelope(1), Bytes::from_static(b"poison")).await.unwrap();
    let record = bus.read(0, 1).unwrap().remove(0);
    let folder = dir.path().join("dead");
    let dead_letters = wardroom_bus::DeadLetters::open(&folder).unwrap();
    let id = dead_letters.add(reason(0), &record).await.unwrap();
    dead_letters.replay(&bus, &tenant, id).await.unwrap();
    drop(dead_letters);
    // Cut off the last entry.
    let segment = folder.join("00000000000000000000.seg");
    let bytes = std::fs::read(&segment).unwrap();
    std::fs::write(&segment, &bytes[..bytes.len() - 1]).unwrap();
    let dead_letters = wardroom_bus::DeadLetters::open(&folder).unwrap();
    assert_eq!(dead_letters.list(&tenant).unwrap()[0].replayed_as, None);
    assert_eq!(dead_letters.replay(&bus, &tenant, id).await.unwrap(), Some(1));
    assert_eq!(bus.end_offset(), 2);
}

#[tokio::test]
async fn a_new_epoch_continues_at_its_offset_and_keeps_earlier_records() {
    let dir = tempfile::tempdir().unwrap();
    append_records(dir.path(), 30).await;
    for _ in 0..2 {
        // An interrupted start of an epoch is repeated.
        wardroom_bus::start_new_epoch(dir.path(), 1000).unwrap();
    }
    let bus = EmbeddedBus::open(dir.path(), small_segments()).unwrap();
    assert_eq!((bus.start_offset(), bus.end_offset()), (0, 1000));
    assert_eq!(bus.append(contract::envelope(0), Bytes::from_static(b"x")).await.unwrap(), 1000);
    assert_eq!(bodies(&bus).len(), 31);
    for from in [30, 999, 1000] {
        let read = bus.read(from, 100).unwrap();
        assert_eq!(read.iter().map(|record| record.offset).collect::<Vec<_>>(), [1000], "from {from}");
    }
    drop(bus);
    let reader = wardroom_bus::ReadOnlyBus::open(dir.path()).unwrap();
    assert_eq!(reader.epochs().unwrap(), [1000]);
    assert_eq!(reader.read(0, 1000).unwrap().len(), 31);
}

#[tokio::test]
async fn records_the_offsets_of_groups_and_archive_outside_the_segments() {
    let dir = tempfile::tempdir().unwrap();
    assert!(!wardroom_bus::has_records(&dir.path().join("missing")).unwrap());
    let bus = EmbeddedBus::open(dir.path(), small_segments()).unwrap();
    assert!(!wardroom_bus::has_records(dir.path()).unwrap(), "an empty segment");
    assert_eq!(wardroom_bus::recorded_offsets(dir.path()).unwrap(), []);
    drop(bus);
    append_records(dir.path(), 100).await;
    assert!(wardroom_bus::has_records(dir.path()).unwrap());
    let bus = EmbeddedBus::open(dir.path(), small_segments()).unwrap();
    bus.commit("detect", 77).unwrap();
    bus.commit("lake", 80).unwrap();
    let late = Timestamp::from_millis(i64::MAX / 1_000_000);
    bus.trim(50, &TrimPolicy { segments_before: late, archive_before: Timestamp::from_millis(0), keep: &|_| true })
        .unwrap();
    let recorded = wardroom_bus::recorded_offsets(dir.path()).unwrap();
    let names: Vec<_> = recorded.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["consumer group detect", "consumer group lake", "the request archive"]);
    assert_eq!(recorded.iter().take(2).map(|(_, offset)| *offset).collect::<Vec<_>>(), [77, 80]);
    assert!(recorded[2].1 < bus.start_offset());
}

#[tokio::test]
async fn mentions_of_the_bus_by_dead_letters_are_known() {
    let dir = tempfile::tempdir().unwrap();
    let bus: Arc<dyn Bus> = Arc::new(EmbeddedBus::open(&dir.path().join("bus"), small_segments()).unwrap());
    bus.append(contract::envelope(1), Bytes::from_static(b"poison")).await.unwrap();
    let record = bus.read(0, 1).unwrap().remove(0);
    let dead_letters = wardroom_bus::DeadLetters::open(&dir.path().join("dead")).unwrap();
    assert_eq!(dead_letters.mentioned_to().unwrap(), 0);
    let id = dead_letters.add(reason(0), &record).await.unwrap();
    assert_eq!(dead_letters.mentioned_to().unwrap(), 1);
    dead_letters.replay(&bus, &wardroom_domain::TenantId::main(), id).await.unwrap();
    assert_eq!(dead_letters.mentioned_to().unwrap(), 2);
}

/// What is written to a deleted file would be acknowledged and lost at the next start.
#[tokio::test]
async fn refuses_appends_once_the_open_segment_is_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let bus = EmbeddedBus::open(dir.path(), small_segments()).unwrap();
    let append = || bus.append(contract::envelope(0), Bytes::from_static(b"x"));
    assert_eq!(append().await.unwrap(), 0);
    std::fs::remove_file(dir.path().join("00000000000000000000.seg")).unwrap();
    for _ in 0..3 {
        assert!(append().await.is_err());
        assert!(bus.append_error().is_some());
    }
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert!(bus.append_error().unwrap().contains("deleted"), "the probe of the disk does not clear the error");
    assert_eq!(bus.end_offset(), 1);
}

#[tokio::test]
async fn refuses_appends_while_the_bus_is_moved_away() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, moved) = (dir.path().join("bus"), dir.path().join("moved"));
    let bus = EmbeddedBus::open(&folder, small_segments()).unwrap();
    let append = || bus.append(contract::envelope(0), Bytes::from_static(b"x"));
    assert_eq!(append().await.unwrap(), 0);
    std::fs::rename(&folder, &moved).unwrap();
    assert!(append().await.unwrap_err().to_string().contains("moved"));
    assert!(append().await.is_err());
    std::fs::rename(&moved, &folder).unwrap();
    let offset = append().await.unwrap();
    drop(bus);
    let bus = EmbeddedBus::open(&folder, small_segments()).unwrap();
    let read: Vec<_> = bus.read(0, 100).unwrap().iter().map(|record| record.offset).collect();
    assert!(read.contains(&0) && read.last() == Some(&offset), "{read:?}");
}

/// A segment that was replaced by another one must not give its records other places in the log.
#[tokio::test]
async fn skips_records_in_the_place_of_another_segment() {
    let dir = tempfile::tempdir().unwrap();
    append_records(dir.path(), 100).await;
    let segments = || {
        let files = std::fs::read_dir(dir.path()).unwrap().flatten().map(|entry| entry.path());
        let mut segments: Vec<_> = files.filter(|path| path.extension().is_some_and(|ext| ext == "seg")).collect();
        segments.sort_unstable();
        segments
    };
    let files = segments();
    assert!(files.len() >= 4, "{files:?}");
    let offsets = |from: u64| {
        let reader = wardroom_bus::ReadOnlyBus::open(dir.path()).unwrap();
        reader.read(from, 1000).unwrap().iter().map(|record| record.offset).collect::<Vec<_>>()
    };
    let all = offsets(0);
    assert_eq!(all, (0..100).collect::<Vec<_>>());
    let base = |path: &std::path::Path| path.file_stem().unwrap().to_str().unwrap().parse::<u64>().unwrap();
    for other in [0, 2] {
        let content = std::fs::read(&files[1]).unwrap();
        std::fs::copy(&files[other], &files[1]).unwrap();
        let expected: Vec<_> =
            (0..100).filter(|offset| *offset < base(&files[1]) || *offset >= base(&files[2])).collect();
        assert_eq!(offsets(0), expected, "segment 1 replaced by {other}");
        std::fs::write(&files[1], content).unwrap();
    }
    // The newest one decides at which offset the log continues.
    std::fs::copy(&files[0], files.last().unwrap()).unwrap();
    let refused = EmbeddedBus::open(dir.path(), small_segments()).unwrap_err().to_string();
    assert!(refused.contains("another segment"), "{refused}");
}
