//! Bar 2b for samples: one that no table takes is laid aside with its request, the others land, and so does it once the build is mended.

use wardroom_domain::Sample;
use wardroom_domain::query::SeriesQuery;
use wardroom_lake::Lake;
use wardroom_testing::wire;

use super::*;
use crate::keep;
use crate::poison::POISON_VALUE;

#[test]
fn a_sample_that_no_table_takes_holds_up_no_other() {
    let mut config = Config::default();
    config.lake.flush_seconds = 1;
    let rig = Rig::new(config);
    let lake = Arc::new(rig.runtime.block_on(Lake::open(&rig.config.lake, rig.dir.path())).unwrap());
    let tables = Tables { lake: Arc::clone(&lake), reached: None, progress: Arc::default(), events: Arc::default() };
    let start_ms = clock::now().millis() - 60_000;
    for (step, name, value) in [(0, "a", 1.0), (1, "a", POISON_VALUE), (1, "b", 2.0), (2, "a", 3.0)] {
        let series = wire::series(&[("__name__", name)], value, start_ms + step * 15_000);
        let mut header = envelope(clock::now());
        header.protocol = "prometheus_remote_write".into();
        (header.content_type, header.content_encoding) = ("application/x-protobuf".into(), "snappy".into());
        rig.append(header, wire::body(vec![series]).into());
    }
    let (mut heard, pumping) = rig.start(Some(tables.clone()));
    let Rig { runtime, bus, letters, .. } = &rig;
    let landed = |offset: u64| {
        let deadline = Instant::now() + Duration::from_secs(40);
        while tables.progress.reached() < offset {
            assert!(Instant::now() < deadline, "the tables stand at {}", tables.progress.reached());
            std::thread::sleep(Duration::from_millis(20));
        }
        let (from, end) = (Timestamp::from_millis(0), clock::now());
        let query = SeriesQuery { selectors: Vec::new(), start: from, end, step_ms: None };
        let page = runtime.block_on(lake.samples(&TenantId::main(), &query, (0, u64::MAX >> 1), 1000)).unwrap();
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
    assert_eq!(landed(4), [("a".to_owned(), vec![(0, bits(1.0)), (2, bits(3.0))]), b.clone()]);
    let found = letters.list(&TenantId::main()).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].reason.group.as_str(), found[0].reason.offset), (keep::GROUP, 1));
    assert!(found[0].reason.reason.contains("poisoned sample"), "{}", found[0].reason.reason);
    poison::HARMLESS.store(true, Ordering::Release);
    for _ in 0..2 {
        assert_eq!(runtime.block_on(letters.replay(bus, &TenantId::main(), found[0].id)).unwrap(), Some(4));
    }
    let whole = vec![(0, bits(1.0)), (1, bits(POISON_VALUE)), (2, bits(3.0))];
    assert_eq!(landed(5), [("a".to_owned(), whole), b]);
    heard.close();
    pumping.join().unwrap();
}
