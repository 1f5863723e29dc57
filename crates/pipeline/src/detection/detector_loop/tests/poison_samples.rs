//! Bar 2b for samples: a request with a sample that cannot be encoded is dead-lettered, other samples are committed,
//! and its samples are committed after a replay by a fixed build.

use wardroom_domain::Sample;
use wardroom_domain::query::SeriesQuery;
use wardroom_lake::Lake;
use wardroom_testing::remote_write;

use super::*;
use crate::consumer_groups;
use crate::poison_injection::POISON_VALUE;

#[test]
fn rebuilds_a_batch_without_the_poison_record() {
    let mut config = Config::default();
    config.lake.flush_seconds = 1;
    let fixture = Fixture::new(config);
    let lake = Arc::new(fixture.runtime.block_on(Lake::open(&fixture.config.lake, fixture.dir.path())).unwrap());
    let tables = LakeTables {
        lake: Arc::clone(&lake),
        committed_offset: None,
        samples_progress: Arc::default(),
        events_progress: Arc::default(),
    };
    let start_ms = clock::now().millis() - 60_000;
    for (step, name, value) in [(0, "a", 1.0), (1, "a", POISON_VALUE), (1, "b", 2.0), (2, "a", 3.0)] {
        let series = remote_write::series(&[("__name__", name)], value, start_ms + step * 15_000);
        let mut header = envelope(clock::now());
        header.protocol = "prometheus_remote_write".into();
        (header.content_type, header.content_encoding) = ("application/x-protobuf".into(), "snappy".into());
        fixture.append(header, remote_write::body(vec![series]).into());
    }
    let (mut events, detection_thread) = fixture.start(Some(tables.clone()));
    let Fixture { runtime, bus, dead_letters, .. } = &fixture;
    let committed = |offset: u64| {
        let deadline = Instant::now() + Duration::from_secs(40);
        while tables.samples_progress.committed_offset() < offset {
            assert!(
                Instant::now() < deadline,
                "the tables are committed to {}",
                tables.samples_progress.committed_offset()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        let (from, end) = (Timestamp::from_millis(0), clock::now());
        let query = SeriesQuery { selectors: Vec::new(), start: from, end, step_ms: None };
        let page = runtime.block_on(lake.read_samples(&TenantId::main(), &query, (0, u64::MAX >> 1), 1000)).unwrap();
        let times = |samples: Vec<Sample>| {
            samples
                .iter()
                .map(|sample| ((sample.ts_ms - start_ms) / 15_000, sample.value.to_bits()))
                .collect::<Vec<_>>()
        };
        let mut found: Vec<_> =
            page.series.into_iter().map(|(labels, samples)| (labels.name().to_owned(), times(samples))).collect();
        found.sort();
        found
    };
    let bits = f64::to_bits;
    let b = ("b".to_owned(), vec![(1, bits(2.0))]);
    assert_eq!(committed(4), [("a".to_owned(), vec![(0, bits(1.0)), (2, bits(3.0))]), b.clone()]);
    let found = dead_letters.list(&TenantId::main()).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].reason.group.as_str(), found[0].reason.offset), (consumer_groups::LAKE_SAMPLES, 1));
    assert!(found[0].reason.reason.contains("poisoned sample"), "{}", found[0].reason.reason);
    POISON_DISABLED.store(true, Ordering::Release);
    for _ in 0..2 {
        assert_eq!(runtime.block_on(dead_letters.replay(bus, &TenantId::main(), found[0].id)).unwrap(), Some(4));
    }
    let whole = vec![(0, bits(1.0)), (1, bits(POISON_VALUE)), (2, bits(3.0))];
    assert_eq!(committed(5), [("a".to_owned(), whole), b]);
    events.close();
    detection_thread.join().unwrap();
}
