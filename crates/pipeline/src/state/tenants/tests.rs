//! What answers HTTP requests does not wait for detection, and detection not for it.

use std::sync::mpsc;
use std::time::Duration;

use wardroom_domain::query::SeriesQuery;
use wardroom_domain::{
    Deployment, Entity, Exemplar, LogEntry, Metrics, Sample, SeriesRun, Severity, Span, SpanKind, Timestamp,
};
use wardroom_edge::InflateBudget;

use super::*;
use crate::detection::evaluate::evaluate;
use crate::lake::lake_state::LakeState;
use crate::query::sample_reader::SampleReader;
use crate::state::fixtures::CommitOnlyBus;

/// Time after which a reader counts as waiting.
const READER_TIMEOUT: Duration = Duration::from_secs(10);
const SERVICES: [&str; 2] = ["front", "back"];
/// Histogram families in one request; more than are resolved under one lock.
const FAMILIES_SENT: usize = 10_000;

/// Returns a batch with something of every kind that is read over HTTP.
fn batch(tenant: &Tenant, second: i64) -> Batch {
    let at = Timestamp::from_millis(second * 1000);
    let bucket = |service: &str| {
        Labels::of(&[("__name__", "http_request_seconds_bucket"), ("service", service), ("le", "+Inf")])
    };
    let series = SERVICES.map(|service| tenant.registry().get_or_insert(&bucket(service)));
    let sample = Sample { ts_ms: at.millis(), value: second as f64 * 20.0 };
    let exemplar = Exemplar { labels: Labels::of(&[("trace_id", "1")]), value: 1.0, ts_ms: at.millis() };
    Batch {
        metrics: Metrics {
            runs: series.map(|series| SeriesRun { series, count: 1 }).into(),
            samples: vec![sample; SERVICES.len()],
            exemplars: vec![(series[0], exemplar)],
            ..Metrics::default()
        },
        metadata: vec![MetricMetadata {
            family: "http_request_seconds".into(),
            kind: "histogram",
            help: "x".repeat(10_000),
            unit: String::new(),
        }],
        deployments: vec![Deployment {
            at,
            service: "front".into(),
            version: second.to_string(),
            status: "success".into(),
            metadata: Labels::default(),
        }],
        spans: (0..20)
            .map(|id| Span {
                trace_id: [1; 16],
                span_id: [id; 8],
                parent_id: [0; 8],
                kind: SpanKind::Client,
                name: "call".into(),
                start: at.minus(Duration::from_millis(10)),
                end: at,
                failed: false,
                labels: Labels::of(&[("service.name", "front"), ("peer.service", "back")]),
            })
            .collect(),
        ..Batch::default()
    }
}

/// Reads everything that is read over HTTP, and does what intake does.
fn read_all(tenants: &Arc<Tenants>) {
    let main = TenantId::main();
    let view = tenants.view(&main);
    assert_eq!(view.engine.watermark_ms(), 20_000);
    assert_eq!(view.engine.deployments(Timestamp::from_millis(0), Timestamp::from_millis(60_000)).len(), 20);
    assert!(view.engine.signals().filter(|(_, signal)| !signal.history.is_empty()).count() > 2);
    assert!(view.engine.graph().path(&Entity::service("front"), &Entity::service("back")).is_some());
    let metadata = tenants.with(&main, |live| Arc::clone(&live.metadata));
    assert_eq!(metadata["http_request_seconds"].help.len(), 1024);
    let reader = SampleReader {
        bus: Arc::new(CommitOnlyBus::default()),
        budget: InflateBudget::new(1 << 20, 1 << 20),
        tenants: Arc::clone(tenants),
        next: Arc::new(AtomicU64::new(u64::MAX)),
        lake: LakeState::Disabled,
        evicted_retention: Duration::MAX,
    };
    let (start, end) = (Timestamp::from_millis(0), Timestamp::from_millis(60_000));
    let query = SeriesQuery { selectors: Vec::new(), start, end, step_ms: None };
    assert_eq!(reader.series(&main, &query).unwrap().len(), SERVICES.len());
    assert_eq!(reader.exemplars(&main, &query).unwrap()[0].exemplars.len(), 20);
    let (page, next) = reader.read_page(&main, &query, 0).unwrap();
    assert!(page.iter().all(|series| series.samples.len() == 20) && page.len() == SERVICES.len() && next.is_none());
    let new = Labels::of(&[("__name__", "new"), ("service", "front")]);
    assert_eq!(tenants.resolve(&main, &[1], &|_| Ok(new.clone()), true).ids.len(), 1);
    let log = LogEntry {
        at: end,
        severity: Severity::Info,
        message: "m".into(),
        service: "front".into(),
        labels: Labels::default(),
    };
    let events = EventRecords { logs: &[log], deployments: &[], spans: &[], received_at: end };
    assert!(tenants.admit(&main, events).is_empty());
    tenants.release_incident(&main, "k", 1);
}

fn tenants_with_data() -> (Config, Arc<Tenants>) {
    let config = Config::default();
    let tenants = Arc::new(Tenants::new(config.clone()));
    tenants.complete_from_ms.store(i64::MIN, std::sync::atomic::Ordering::Release);
    let main = tenants.get(&TenantId::main());
    for second in 1..=20 {
        evaluate(&config, &main, &batch(&main, second));
    }
    (config, tenants)
}

#[test]
fn readers_do_not_wait_for_a_busy_detector() {
    let (_, tenants) = tenants_with_data();
    let main = tenants.get(&TenantId::main());
    let busy = main.detectors();
    let (done, finished) = mpsc::channel();
    let reader = {
        let tenants = Arc::clone(&tenants);
        std::thread::spawn(move || {
            read_all(&tenants);
            done.send(()).unwrap();
        })
    };
    assert!(finished.recv_timeout(READER_TIMEOUT).is_ok(), "a reader waits for the detectors, or failed");
    drop(busy);
    reader.join().unwrap();
    let news = main.take_incident_news();
    assert!(matches!(news.as_slice(), [IncidentNews::Released { key, at_ms: 1 }] if key == "k"));
}

#[test]
fn detection_does_not_wait_for_a_reader_that_holds_a_view() {
    let (config, tenants) = tenants_with_data();
    let main = tenants.get(&TenantId::main());
    let before = main.view();
    let mut read = before.engine.signals();
    let (id, held) = read.next().unwrap();
    assert!(id.entity.name == "back" && !held.history.is_empty());
    drop(held);
    let (done, finished) = mpsc::channel();
    let detection = {
        let main = Arc::clone(&main);
        std::thread::spawn(move || {
            evaluate(&config, &main, &batch(&main, 21));
            done.send(()).unwrap();
        })
    };
    assert!(finished.recv_timeout(READER_TIMEOUT).is_ok(), "detection waits for a reader");
    detection.join().unwrap();
    assert_eq!((before.engine.watermark_ms(), main.view().engine.watermark_ms()), (20_000, 21_000));
}

#[test]
fn a_flood_of_histogram_families_is_refused_with_the_setting() {
    let config = Config::default();
    let tenants = Tenants::new(config.clone());
    let main = TenantId::main();
    let labels = |index: usize| {
        Ok(Labels::of(&[("__name__", &format!("m{index}_seconds_bucket")), ("service", "q"), ("le", "+Inf")]))
    };
    let keys: Vec<u128> = (0..FAMILIES_SENT as u128).collect();
    let resolved = tenants.resolve(&main, &keys, &labels, true);
    let limit = config.head.max_histogram_families_per_service;
    assert_eq!((resolved.ids.len(), resolved.refused.len()), (FAMILIES_SENT, FAMILIES_SENT - limit));
    assert_eq!(resolved.refused[0].0, limit, "the first ones are accepted");
    let (_, (reason, detail)) = &resolved.refused[0];
    assert!(*reason == RefusalReason::EntityLimit && detail.contains("head.max-histogram-families-per-service"));
    let kept = resolved.ids.iter().filter(|id| **id != SeriesRegistry::UNRESOLVED);
    let runs: Vec<_> = kept.map(|series| SeriesRun { series: *series, count: 1 }).collect();
    let samples = vec![Sample { ts_ms: 1000, value: 1.0 }; runs.len()];
    let metrics = Metrics { runs, samples, ..Metrics::default() };
    evaluate(&config, &tenants.get(&main), &Batch { metrics, ..Batch::default() });
    assert_eq!(tenants.get(&main).detectors().engine.known_series(), limit);
}

#[test]
fn the_copy_of_the_labels_follows_the_registry() {
    let config = Config::default();
    let tenant = Tenant::new(&config, &TenantId::main());
    let add = |first: usize, count: usize| {
        let labels = |number: usize| Labels::of(&[("__name__", "depth"), ("queue", &number.to_string())]);
        for number in first..first + count {
            tenant.registry().get_or_insert(&labels(number));
        }
    };
    for (first, count) in [(0, 0), (0, 3 * LABELS_PER_LOCK), (3 * LABELS_PER_LOCK, 1)] {
        add(first, count);
        let (generation, series) = tenant.series_labels();
        assert_eq!((generation, &series[..]), (0, tenant.registry().labels_from(0)));
    }
    let known = tenant.registry().labels_from(0).to_vec();
    known.iter().for_each(|labels| tenant.detectors().engine.add_series(labels, None));
    let keep: Vec<bool> = (0..known.len()).map(|number| number % 2 == 0).collect();
    let before = tenant.series_labels().1;
    let (detectors, live) = (&mut *tenant.detectors(), &mut *tenant.live_state());
    tenant.renumber((&mut detectors.engine, live), &keep, &config, EvictedSeriesFile::default());
    let (generation, series) = tenant.series_labels();
    assert_eq!((generation, &series[..]), (1, tenant.registry().labels_from(0)));
    assert_eq!((before.len(), series.len()), (known.len(), known.len().div_ceil(2)));
}
