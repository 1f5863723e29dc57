//! A restart from a checkpoint is as if there had been none.

use proptest::prelude::*;
use wardroom_bus::{BoxFuture, Bus, Record};
use wardroom_domain::{Batch, Envelope, Labels, Metrics, Run, Sample, SeriesId, Span, SpanKind, Timestamp};

use std::sync::Arc;

use super::*;
use crate::pump::judge;

/// A bus that remembers commits and nothing else.
#[derive(Default)]
struct Paper(std::sync::Mutex<Option<u64>>);

impl Bus for Paper {
    fn append(&self, _: Envelope, _: bytes::Bytes) -> BoxFuture<'_, Result<u64, wardroom_bus::Error>> {
        Box::pin(async { Ok(0) })
    }

    fn read(&self, _: u64, _: usize) -> Result<Vec<Record>, wardroom_bus::Error> {
        Ok(Vec::new())
    }

    fn follow(
        &self,
        from: u64,
        limit: usize,
        _: &dyn Fn(&Envelope) -> bool,
    ) -> Result<Vec<Record>, wardroom_bus::Error> {
        self.read(from, limit)
    }

    fn start(&self) -> u64 {
        0
    }

    fn end(&self) -> u64 {
        u64::MAX
    }

    fn commit(&self, _: &str, offset: u64) -> Result<(), wardroom_bus::Error> {
        *self.0.lock().unwrap() = Some(offset);
        Ok(())
    }

    fn committed(&self, _: &str) -> Result<Option<u64>, wardroom_bus::Error> {
        Ok(*self.0.lock().unwrap())
    }

    fn trouble(&self) -> Option<String> {
        None
    }

    fn durability(&self) -> &'static str {
        "none"
    }

    fn trim(&self, _: u64, _: &wardroom_bus::Expiry<'_>) -> Result<u64, wardroom_bus::Error> {
        Ok(0)
    }

    fn find(&self, _: u64) -> Result<Option<Record>, wardroom_bus::Error> {
        Ok(None)
    }
}

const SERIES: [&[(&str, &str)]; 7] = [
    &[("__name__", "queue_depth"), ("service", "a")],
    &[("__name__", "orders_total"), ("service", "a")],
    &[("__name__", "latency_seconds_bucket"), ("service", "a"), ("le", "0.1"), ("code", "200")],
    &[("__name__", "latency_seconds_bucket"), ("service", "a"), ("le", "+Inf"), ("code", "200")],
    &[("__name__", "latency_seconds_bucket"), ("service", "a"), ("le", "+Inf"), ("code", "500")],
    &[("__name__", "process_resident_memory_bytes"), ("service", "b")],
    &[("__name__", "process_memory_limit_bytes"), ("service", "b")],
];

/// One second of telemetry: whatever the numbers say.
fn batch(tenant: &Tenant, second: i64, numbers: &[u16]) -> Batch {
    let mut metrics = Metrics::default();
    for (at, number) in numbers.iter().enumerate() {
        let labels = Labels::of(SERIES[at % SERIES.len()]);
        let series = tenant.registry().id_of(&labels);
        let value = match at % SERIES.len() {
            0 | 5 => f64::from(*number),
            6 => 70_000.0,
            _ => second as f64 * 20.0 + f64::from(number % 7),
        };
        // Now and then one that comes late, or twice.
        let ts_ms = second * 1000 - if number % 31 == 0 { 5000 } else { 0 };
        metrics.runs.push(Run { series, count: 1 });
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
    let both = [span(SpanKind::Client, 2, "a", 1), span(SpanKind::Server, 3, "b", 2)];
    let log = wardroom_domain::LogEntry {
        at: Timestamp::from_millis(second * 1000),
        severity: wardroom_domain::Severity::High,
        message: format!("cannot reach b: {number} left"),
        service: "a".into(),
        labels: Labels::default(),
    };
    Batch { metrics, logs: vec![log], spans: both[..1 + usize::from(number % 2)].to_vec(), ..Batch::default() }
}

/// Everything that can be asked.
fn picture(tenants: &Tenants) -> String {
    let tenant = tenants.get(&TenantId::main());
    let live = tenant.live();
    let mut text = String::new();
    for (key, signal) in live.engine.signals() {
        text.push_str(&format!("{key:?} {signal:?}\n"));
    }
    let always = (Timestamp::from_millis(0), Timestamp::from_millis(i64::MAX / 2_000_000));
    text.push_str(&format!("{:?}\n", live.engine.shifts(1)));
    text.push_str(&format!("{:?}\n", live.engine.templates(always.0, always.1, wardroom_domain::Severity::Info)));
    for (id, labels) in (0..).zip(tenant.registry().since(0)) {
        let part = live.recent.part(SeriesId(id), i64::MIN, i64::MAX);
        let samples = part.whole(&|address, buffer| live.sealed.read(address, buffer)).unwrap();
        let bits: Vec<_> = samples.iter().map(|sample| (sample.ts_ms, sample.value.to_bits())).collect();
        text.push_str(&format!("{labels} {bits:?} {}\n", live.recent.complete_from_ms(SeriesId(id))));
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_restart_changes_nothing(
        seconds in prop::collection::vec(prop::collection::vec(0_u16..2000, 0..9), 1..160),
        restarts in prop::collection::btree_set(0_usize..160, 0..4),
        torn: bool,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (config, bus) = (Config::default(), Paper::default());
        let (never, mut stopped) = (Tenants::new(config.clone()), Tenants::new(config.clone()));
        let (mut checkpoints, _) = Checkpoints::open(dir.path(), &config, bus.start()..=bus.end(), &stopped, None).unwrap();
        for (second, numbers) in seconds.iter().enumerate() {
            let said = |tenants: &Tenants| {
                let tenant = tenants.get(&TenantId::main());
                let batch = batch(&tenant, 1_000_000 + second as i64, numbers);
                judge(&config, &tenant, &batch)
            };
            prop_assert_eq!(format!("{:?}", said(&never)), format!("{:?}", said(&stopped)));
            if restarts.contains(&second) {
                let offset = second as u64 + 1;
                checkpoints.take(offset, 7, None, &bus, &stopped).unwrap();
                if torn {
                    // Written after the checkpoint, and belonging to nobody.
                    let log = dir.path().join("t-main/blocks-0.log");
                    let mut bytes = std::fs::read(&log).unwrap();
                    bytes.extend([9; 50]);
                    std::fs::write(&log, bytes).unwrap();
                }
                stopped = Tenants::new(config.clone());
                let (opened, resumed) = Checkpoints::open(dir.path(), &config, bus.start()..=bus.end(), &stopped, None).unwrap();
                prop_assert_eq!(resumed, Some(Resumed { offset, covered_ms: 7, lake: None }));
                checkpoints = opened;
            }
        }
        prop_assert_eq!(picture(&never), picture(&stopped));
    }
}

/// A folder with two checkpoints, at 5 and at 9.
fn two(dir: &Path, config: &Config, bus: &Paper) {
    let tenants = Tenants::new(config.clone());
    let (mut checkpoints, resumed) = Checkpoints::open(dir, config, bus.start()..=bus.end(), &tenants, None).unwrap();
    assert_eq!(resumed, None);
    for second in 0..9 {
        let tenant = tenants.get(&TenantId::main());
        judge(config, &tenant, &batch(&tenant, 1_000_000 + second, &[50, 3, 4, 5, 6, 7, 8]));
        if [5, 8].contains(&second) {
            checkpoints.take(second as u64 + 1, 0, None, bus, &tenants).unwrap();
        }
    }
}

#[test]
fn a_damaged_checkpoint_is_passed_over_for_the_one_before() {
    let (config, bus) = (Config::default(), Paper::default());
    let source = tempfile::tempdir().unwrap();
    two(source.path(), &config, &bus);
    assert_eq!(bus.committed(GROUP).unwrap(), Some(6), "the bus keeps what the older one needs");
    let newest = std::fs::read(source.path().join("00000000000000000009.state")).unwrap();
    for at in (0..newest.len()).step_by(97) {
        let dir = tempfile::tempdir().unwrap();
        copy(source.path(), dir.path());
        let mut bent = newest.clone();
        bent[at] ^= 4;
        std::fs::write(dir.path().join("00000000000000000009.state"), &bent).unwrap();
        let tenants = Tenants::new(config.clone());
        let (_, resumed) = Checkpoints::open(dir.path(), &config, bus.start()..=bus.end(), &tenants, None).unwrap();
        assert_eq!(resumed.map(|resumed| resumed.offset), Some(6), "byte {at}");
    }
    let dir = tempfile::tempdir().unwrap();
    copy(source.path(), dir.path());
    let log = dir.path().join("t-main/series-0.log");
    let mut bytes = std::fs::read(&log).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&log, bytes).unwrap();
    let (_, resumed) =
        Checkpoints::open(dir.path(), &config, bus.start()..=bus.end(), &Tenants::new(config.clone()), None).unwrap();
    assert_eq!(resumed, None, "without its label sets no state means anything");
}

#[test]
fn other_rules_and_another_bus_make_it_void() {
    let (config, bus) = (Config::default(), Paper::default());
    let dir = tempfile::tempdir().unwrap();
    two(dir.path(), &config, &bus);
    let mut other = config.clone();
    other.entities.service = vec!["team".into()];
    let (_, resumed) =
        Checkpoints::open(dir.path(), &other, bus.start()..=bus.end(), &Tenants::new(other.clone()), None).unwrap();
    assert_eq!(resumed, None);
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Series that nobody writes any more leave memory and are found on; the others keep their state, over a restart too.
#[test]
fn churned_series_leave_and_stay_findable() {
    const HOUR_MS: i64 = 3_600_000;
    let dir = tempfile::tempdir().unwrap();
    let (config, bus) = (Config::default(), Paper::default());
    let tenants = Arc::new(Tenants::new(config.clone()));
    let (mut checkpoints, _) = Checkpoints::open(dir.path(), &config, bus.start()..=bus.end(), &tenants, None).unwrap();
    let pod = |at: u32| Labels::of(&[("__name__", "depth"), ("pod", &format!("p{at}"))]);
    let write = |tenants: &Tenants, pods: std::ops::Range<u32>, at_ms: i64| {
        let tenant = tenants.get(&TenantId::main());
        let mut metrics = Metrics { generation: tenant.registry().generation(), ..Metrics::default() };
        for at in pods {
            metrics.runs.push(Run { series: tenant.registry().id_of(&pod(at)), count: 1 });
            metrics.samples.push(Sample { ts_ms: at_ms, value: f64::from(at) });
        }
        judge(&config, &tenant, &Batch { metrics, ..Batch::default() });
    };
    // A slow sender's request, decoded before and judged after.
    let early = tenants.resolve(&TenantId::main(), &[7], &|_| Ok(pod(4999)), true);
    (0..40).for_each(|step| write(&tenants, 0..5000, step * 15_000));
    checkpoints.retire(&config, &tenants).unwrap();
    assert_eq!(tenants.get(&TenantId::main()).registry().since(0).len(), 5000, "all are alive");
    (0..40).for_each(|step| write(&tenants, 4000..6000, 3 * HOUR_MS + step * 15_000));
    checkpoints.retire(&config, &tenants).unwrap();
    let all = tenants.get(&TenantId::main()).registry().since(0).len();
    assert_eq!(all, 6000, "those that the lake has yet to take stay");
    drop(tenants.get(&TenantId::main()).live().recent.cut());
    checkpoints.retire(&config, &tenants).unwrap();
    checkpoints.take(9, 0, None, &bus, &tenants).unwrap();
    let late = Batch {
        metrics: Metrics {
            generation: early.generation,
            runs: vec![Run { series: early.ids[0], count: 1 }],
            ..Metrics::default()
        },
        ..Batch::default()
    };
    assert!(!tenants.current(&TenantId::main(), &late), "its ids mean others now");
    let again = Arc::new(Tenants::new(config.clone()));
    let (mut opened, resumed) = Checkpoints::open(dir.path(), &config, bus.start()..=bus.end(), &again, None).unwrap();
    assert_eq!(resumed.map(|resumed| resumed.offset), Some(9));
    for tenants in [&tenants, &again] {
        let tenant = tenants.get(&TenantId::main());
        assert_eq!(tenant.registry().since(0).len(), 2000);
        assert_eq!(tenant.live().engine.known_series(), 2000);
        let samples = crate::samples::Samples {
            bus: Arc::new(Paper::default()),
            budget: wardroom_edge::InflateBudget::new(1 << 20, 1 << 20),
            tenants: Arc::clone(tenants),
            next: Arc::new(std::sync::atomic::AtomicU64::new(u64::MAX)),
            kept: crate::keep::Kept::Off,
            remembered: std::time::Duration::MAX,
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
        assert_eq!(found("p17", 2 * HOUR_MS, 4 * HOUR_MS), 0, "gone by then");
        // The survivors' samples are theirs.
        let registry = tenant.registry();
        let id = registry.select(&[wardroom_domain::Matcher::equal("pod", "p4321")])[0];
        drop(registry);
        let live = tenant.live();
        let part = live.recent.part(id, i64::MIN, i64::MAX);
        let samples = part.whole(&|address, buffer| live.sealed.read(address, buffer)).unwrap();
        assert!(samples.len() == 80 && samples.iter().all(|sample| sample.value == 4321.0));
    }
    // Long afterwards nobody asks for them.
    (0..40).for_each(|step| write(&again, 8000..10_000, 40 * HOUR_MS + step * 15_000));
    opened.retire(&config, &again).unwrap();
    let retired = again.get(&TenantId::main()).live().retired.read().unwrap();
    assert_eq!(retired.len(), 0, "older than the bus keeps");
}
