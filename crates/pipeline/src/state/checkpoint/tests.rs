//! A restart from a checkpoint gives the same state as no restart.

use proptest::prelude::*;
use wardroom_domain::{Batch, EntityRules, Labels, Metrics, Sample, SeriesId, SeriesRun, Span, SpanKind, Timestamp};
use wardroom_signals::{Catalog, UserConvention};

use std::sync::Arc;

use super::*;
use crate::detection::evaluate::evaluate;
use crate::lake::lake_state::LakeState;
use crate::query::sample_reader::SampleReader;
use crate::state::fixtures::CommitOnlyBus;

const SERIES: [&[(&str, &str)]; 7] = [
    &[("__name__", "queue_depth"), ("service", "a")],
    &[("__name__", "orders_total"), ("service", "a")],
    &[("__name__", "latency_seconds_bucket"), ("service", "a"), ("le", "0.1"), ("code", "200")],
    &[("__name__", "latency_seconds_bucket"), ("service", "a"), ("le", "+Inf"), ("code", "200")],
    &[("__name__", "latency_seconds_bucket"), ("service", "a"), ("le", "+Inf"), ("code", "500")],
    &[("__name__", "process_resident_memory_bytes"), ("service", "b")],
    &[("__name__", "process_memory_limit_bytes"), ("service", "b")],
];

/// One second of telemetry, derived from the numbers.
fn batch(tenant: &Tenant, second: i64, numbers: &[u16]) -> Batch {
    let mut metrics = Metrics::default();
    for (index, number) in numbers.iter().enumerate() {
        let labels = Labels::of(SERIES[index % SERIES.len()]);
        let series = tenant.registry().get_or_insert(&labels);
        let value = match index % SERIES.len() {
            0 | 5 => f64::from(*number),
            6 => 70_000.0,
            _ => second as f64 * 20.0 + f64::from(number % 7),
        };
        // Some samples are late or duplicates.
        let ts_ms = second * 1000 - if number % 31 == 0 { 5000 } else { 0 };
        metrics.runs.push(SeriesRun { series, count: 1 });
        metrics.samples.push(Sample { ts_ms, value });
    }
    let number = numbers.first().copied().unwrap_or_default();
    let span = |kind, id: u8, service: &str, parent: u8| Span {
        trace_id: [1 + (second % 200) as u8; 16],
        span_id: [id; 8],
        parent_id: [parent; 8],
        kind,
        name: "x".into(),
        start: Timestamp::from_millis(second * 1000 - i64::from(number % 400)),
        end: Timestamp::from_millis(second * 1000),
        failed: number % 3 == 0,
        labels: Labels::of(&[("service.name", service), ("server.address", "b")]),
    };
    let spans = [span(SpanKind::Client, 2, "a", 1), span(SpanKind::Server, 3, "b", 2)];
    let log = wardroom_domain::LogEntry {
        at: Timestamp::from_millis(second * 1000),
        severity: wardroom_domain::Severity::High,
        message: format!("cannot reach b: {number} left"),
        service: "a".into(),
        labels: Labels::default(),
    };
    Batch { metrics, logs: vec![log], spans: spans[..1 + usize::from(number % 2)].to_vec(), ..Batch::default() }
}

/// Text of all state that can be queried.
fn describe(tenants: &Tenants) -> String {
    let tenant = tenants.get(&TenantId::main());
    let detectors = tenant.detectors();
    let (engine, live) = (&detectors.engine, tenant.live_state());
    let mut text = String::new();
    for (key, signal) in engine.signals() {
        text.push_str(&format!("{key:?} {signal:?}\n"));
    }
    let whole_range = (Timestamp::from_millis(0), Timestamp::from_millis(i64::MAX / 2_000_000));
    text.push_str(&format!("{:?}\n", engine.level_shifts(1, |_| true)));
    text.push_str(&format!(
        "{:?}\n",
        engine.templates(whole_range.0, whole_range.1, wardroom_domain::Severity::Info, |_| true)
    ));
    for (id, labels) in (0..).zip(tenant.registry().labels_from(0)) {
        let part = live.recent.range(SeriesId(id), i64::MIN, i64::MAX);
        let samples = part.read_all(&|address, buffer| live.sealed.read(address, buffer)).unwrap();
        let bits: Vec<_> = samples.iter().map(|sample| (sample.ts_ms, sample.value.to_bits())).collect();
        text.push_str(&format!("{labels} {bits:?} {}\n", live.recent.complete_from_ms(SeriesId(id))));
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_restart_does_not_change_the_state(
        seconds in prop::collection::vec(prop::collection::vec(0_u16..2000, 0..9), 1..160),
        restarts in prop::collection::btree_set(0_usize..160, 0..4),
        torn: bool,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (config, bus) = (Config::default(), CommitOnlyBus::default());
        let (uninterrupted, mut restarted) = (Tenants::new(config.clone()), Tenants::new(config.clone()));
        let available = bus.start_offset()..=bus.end_offset();
        let opened = Checkpoints::open(dir.path(), &config, available.clone(), &restarted, None);
        let (mut checkpoints, _) = opened.unwrap();
        for (second, numbers) in seconds.iter().enumerate() {
            let evaluated = |tenants: &Tenants| {
                let tenant = tenants.get(&TenantId::main());
                let batch = batch(&tenant, 1_000_000 + second as i64, numbers);
                evaluate(&config, &tenant, &batch)
            };
            prop_assert_eq!(format!("{:?}", evaluated(&uninterrupted)), format!("{:?}", evaluated(&restarted)));
            if restarts.contains(&second) {
                let offset = second as u64 + 1;
                checkpoints.write(offset, 7, None, &bus, &restarted).unwrap();
                if torn {
                    // Bytes after the checkpoint, as after a crash during a write.
                    let log = dir.path().join("t-main/blocks-0.log");
                    let mut bytes = std::fs::read(&log).unwrap();
                    bytes.extend([9; 50]);
                    std::fs::write(&log, bytes).unwrap();
                }
                restarted = Tenants::new(config.clone());
                let opened = Checkpoints::open(dir.path(), &config, available.clone(), &restarted, None);
                let (opened, resumed) = opened.unwrap();
                prop_assert_eq!(resumed, Some(ResumePoint { offset, complete_from_ms: 7, lake_offset: None }));
                checkpoints = opened;
            }
        }
        prop_assert_eq!(describe(&uninterrupted), describe(&restarted));
    }
}

/// Writes checkpoints at offsets 6 and 9.
fn write_two_checkpoints(dir: &Path, config: &Config, bus: &CommitOnlyBus) {
    let tenants = Tenants::new(config.clone());
    let (mut checkpoints, resumed) =
        Checkpoints::open(dir, config, bus.start_offset()..=bus.end_offset(), &tenants, None).unwrap();
    assert_eq!(resumed, None);
    for second in 0..9 {
        let tenant = tenants.get(&TenantId::main());
        evaluate(config, &tenant, &batch(&tenant, 1_000_000 + second, &[50, 3, 4, 5, 6, 7, 8]));
        if [5, 8].contains(&second) {
            checkpoints.write(second as u64 + 1, 0, None, bus, &tenants).unwrap();
        }
    }
}

#[test]
fn skips_a_damaged_checkpoint_for_the_one_before() {
    let (config, bus) = (Config::default(), CommitOnlyBus::default());
    let source = tempfile::tempdir().unwrap();
    write_two_checkpoints(source.path(), &config, &bus);
    assert_eq!(bus.committed(consumer_groups::DETECT).unwrap(), Some(6), "the bus retains records since the older one");
    let newest = std::fs::read(source.path().join("00000000000000000009.state")).unwrap();
    for index in (0..newest.len()).step_by(97) {
        let dir = tempfile::tempdir().unwrap();
        copy_folder(source.path(), dir.path());
        let mut damaged = newest.clone();
        damaged[index] ^= 4;
        std::fs::write(dir.path().join("00000000000000000009.state"), &damaged).unwrap();
        let tenants = Tenants::new(config.clone());
        let (_, resumed) =
            Checkpoints::open(dir.path(), &config, bus.start_offset()..=bus.end_offset(), &tenants, None).unwrap();
        assert_eq!(resumed.map(|resumed| resumed.offset), Some(6), "byte {index}");
    }
    let dir = tempfile::tempdir().unwrap();
    copy_folder(source.path(), dir.path());
    let log = dir.path().join("t-main/series-0.log");
    let mut bytes = std::fs::read(&log).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&log, bytes).unwrap();
    let (_, resumed) = Checkpoints::open(
        dir.path(),
        &config,
        bus.start_offset()..=bus.end_offset(),
        &Tenants::new(config.clone()),
        None,
    )
    .unwrap();
    assert_eq!(resumed, None, "state is useless without its label sets");
}

#[test]
fn discards_checkpoints_taken_with_other_settings() {
    let (config, bus) = (Config::default(), CommitOnlyBus::default());
    let rules = EntityRules { service: vec!["team".into()], ..EntityRules::default() };
    let text = "convention: mine\ntitle: Mine\nsource: https://example.com\nseries:\n\
                - { metric: depth, signal: other, part: value }\n";
    let convention = UserConvention { name: "mine.yaml".into(), text: text.into() };
    for catalog in [Catalog::new(&rules, &[]), Catalog::new(&EntityRules::default(), &[convention])] {
        let dir = tempfile::tempdir().unwrap();
        write_two_checkpoints(dir.path(), &config, &bus);
        let mut other = config.clone();
        other.catalog = catalog.unwrap();
        let (_, resumed) = Checkpoints::open(
            dir.path(),
            &other,
            bus.start_offset()..=bus.end_offset(),
            &Tenants::new(other.clone()),
            None,
        )
        .unwrap();
        assert_eq!(resumed, None);
    }
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Inactive series are evicted and stay findable; the others keep their state, also over a restart.
#[test]
fn evicts_inactive_series_and_finds_them_on_disk() {
    const HOUR_MS: i64 = 3_600_000;
    let dir = tempfile::tempdir().unwrap();
    let (config, bus) = (Config::default(), CommitOnlyBus::default());
    let tenants = Arc::new(Tenants::new(config.clone()));
    let (mut checkpoints, _) =
        Checkpoints::open(dir.path(), &config, bus.start_offset()..=bus.end_offset(), &tenants, None).unwrap();
    let pod = |number: u32| Labels::of(&[("__name__", "depth"), ("pod", &format!("p{number}"))]);
    let write = |tenants: &Tenants, pods: std::ops::Range<u32>, at_ms: i64| {
        let tenant = tenants.get(&TenantId::main());
        let mut metrics = Metrics { generation: tenant.registry().generation(), ..Metrics::default() };
        for number in pods {
            metrics.runs.push(SeriesRun { series: tenant.registry().get_or_insert(&pod(number)), count: 1 });
            metrics.samples.push(Sample { ts_ms: at_ms, value: f64::from(number) });
        }
        evaluate(&config, &tenant, &Batch { metrics, ..Batch::default() });
    };
    // A request that is decoded before the eviction and evaluated after it.
    let early = tenants.resolve(&TenantId::main(), &[7], &|_| Ok(pod(4999)), true);
    (0..40).for_each(|step| write(&tenants, 0..5000, step * 15_000));
    checkpoints.evict_inactive_series(&config, &tenants).unwrap();
    assert_eq!(tenants.get(&TenantId::main()).registry().labels_from(0).len(), 5000, "all are active");
    (0..40).for_each(|step| write(&tenants, 4000..6000, 3 * HOUR_MS + step * 15_000));
    checkpoints.evict_inactive_series(&config, &tenants).unwrap();
    let all = tenants.get(&TenantId::main()).registry().labels_from(0).len();
    assert_eq!(all, 6000, "series with samples that are not in the lake yet are not evicted");
    drop(tenants.get(&TenantId::main()).live_state().recent.take_flush_batch());
    checkpoints.evict_inactive_series(&config, &tenants).unwrap();
    checkpoints.write(9, 0, None, &bus, &tenants).unwrap();
    let late = Batch {
        metrics: Metrics {
            generation: early.generation,
            runs: vec![SeriesRun { series: early.ids[0], count: 1 }],
            ..Metrics::default()
        },
        ..Batch::default()
    };
    assert!(!tenants.ids_are_current(&TenantId::main(), &late), "ids of the previous generation");
    let restarted = Arc::new(Tenants::new(config.clone()));
    let (mut opened, resumed) =
        Checkpoints::open(dir.path(), &config, bus.start_offset()..=bus.end_offset(), &restarted, None).unwrap();
    assert_eq!(resumed.map(|resumed| resumed.offset), Some(9));
    for tenants in [&tenants, &restarted] {
        let tenant = tenants.get(&TenantId::main());
        assert_eq!(tenant.registry().labels_from(0).len(), 2000);
        assert_eq!(tenant.detectors().engine.known_series(), 2000);
        let samples = SampleReader {
            bus: Arc::new(CommitOnlyBus::default()),
            budget: wardroom_edge::InflateBudget::new(1 << 20, 1 << 20),
            tenants: Arc::clone(tenants),
            next: Arc::new(std::sync::atomic::AtomicU64::new(u64::MAX)),
            lake: LakeState::Disabled,
            evicted_retention: std::time::Duration::MAX,
        };
        let found = |pattern: &str, from_ms: i64, to_ms: i64| {
            let matcher = wardroom_domain::Matcher::regex("pod", pattern).unwrap();
            let (start, end) = (Timestamp::from_millis(from_ms), Timestamp::from_millis(to_ms));
            let query =
                wardroom_domain::query::SeriesQuery { selectors: vec![vec![matcher]], start, end, step_ms: None };
            samples.series(&TenantId::main(), &query).unwrap().len()
        };
        assert_eq!(found("p[0-9]+", 0, 4 * HOUR_MS), 6000, "each once");
        assert_eq!(found("p17", 0, HOUR_MS), 1);
        assert_eq!(found("p17", 2 * HOUR_MS, 4 * HOUR_MS), 0, "evicted before");
        // Series that stay keep their own samples.
        let registry = tenant.registry();
        let id = registry.select(&[wardroom_domain::Matcher::equal("pod", "p4321")])[0];
        drop(registry);
        let live = tenant.live_state();
        let range = live.recent.range(id, i64::MIN, i64::MAX);
        let samples = range.read_all(&|address, buffer| live.sealed.read(address, buffer)).unwrap();
        assert!(samples.len() == 80 && samples.iter().all(|sample| sample.value == 4321.0));
    }
    // The index of evicted series is bounded by the retention of the bus.
    (0..40).for_each(|step| write(&restarted, 8000..10_000, 40 * HOUR_MS + step * 15_000));
    opened.evict_inactive_series(&config, &restarted).unwrap();
    let evicted = restarted.get(&TenantId::main()).live_state().evicted.read().unwrap();
    assert_eq!(evicted.len(), 0, "older than the retention of the bus");
}
