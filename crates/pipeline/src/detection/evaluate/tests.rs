//! Bar 2c: a request that is delivered again after a second, three minutes or three hours has one effect.
//!
//! The clock is the arrival time in the envelope; the expected state is that of a second engine without the duplicate.

use bytes::Bytes;
use wardroom_domain::{Envelope, Incident, Labels, Principal, SeriesId, SeriesRun, Severity, TenantId};

use wardroom_edge::InflateBudget;

use super::*;
use crate::state::tenants::Tenants;

const START_MS: i64 = 1_795_255_038_178;
const SECOND_MS: i64 = 1000;
const HOUR_MS: i64 = 3_600_000;

fn request(protocol: &str, kind: &str, received_ms: i64, body: impl Into<Bytes>) -> (Envelope, Bytes) {
    let envelope = Envelope {
        tenant: TenantId::main(),
        principal: Principal::wardroom(),
        protocol: protocol.into(),
        content_type: kind.into(),
        content_encoding: String::new(),
        received_at: Timestamp::from_millis(received_ms),
        refused: Vec::new(),
        has_events: true,
    };
    (envelope, body.into())
}

/// One request of every kind with additive effects, with data of `at_ms`.
fn requests(at_ms: i64) -> Vec<(Envelope, Bytes)> {
    let at = Timestamp::from_millis(at_ms).to_string();
    let nano = (at_ms * 1_000_000).to_string();
    let text = serde_json::json!({ "stringValue": "a" });
    let resource = serde_json::json!({ "attributes": [{ "key": "service.name", "value": text }] });
    let log = serde_json::json!({ "resourceLogs": [{ "resource": resource, "scopeLogs": [{ "logRecords": [
        { "timeUnixNano": nano, "severityNumber": 17, "body": { "stringValue": "cannot reach the pool" } }] }] }] });
    let span = serde_json::json!({ "resourceSpans": [{ "resource": resource, "scopeSpans": [{ "spans": [
        { "traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "kind": 2, "name": "GET",
          "startTimeUnixNano": nano, "endTimeUnixNano": nano, "status": { "code": 2 } }] }] }] });
    let delta = serde_json::json!({ "resourceMetrics": [{ "resource": resource, "scopeMetrics": [{ "metrics": [
        { "name": "http.server.request.duration", "unit": "s", "histogram": { "aggregationTemporality": 1,
          "dataPoints": [{ "startTimeUnixNano": "1", "timeUnixNano": nano, "count": "5", "sum": 2.5,
            "bucketCounts": ["2", "3"], "explicitBounds": [0.1] }] } }] }] }] });
    let line = serde_json::json!({ "timestamp": at, "level": "ERROR", "message": "no room", "service": "a" });
    let gauge = serde_json::json!({ "timestamp": at, "metric_name": "depth", "value": (at_ms % 977) as f64,
        "labels": { "service": "a" } });
    let change = serde_json::json!({ "timestamp": at, "service": "a", "version": "2", "status": "success" });
    [
        ("otlp_logs", log),
        ("otlp_traces", span),
        ("otlp_metrics", delta),
        ("json_logs", line),
        ("json_metrics", gauge),
        ("json_deployment", change),
    ]
    .map(|(protocol, body)| request(protocol, "application/json", at_ms + 700, body.to_string()))
    .into()
}

/// Evaluates requests as the detector loop does.
struct Detection {
    config: Config,
    tenants: Tenants,
    budget: InflateBudget,
}

impl Detection {
    fn new() -> Self {
        let config = Config::default();
        Self { tenants: Tenants::new(config.clone()), config, budget: InflateBudget::new(1 << 20, 1 << 20) }
    }

    fn evaluate_request(&self, (envelope, body): &(Envelope, Bytes)) {
        let mut decoded = wardroom_sources::replay(envelope, body, &self.budget).unwrap();
        assert!(!decoded.is_empty(), "{}", envelope.protocol);
        let (keys, read) = (decoded.metrics.keys(), |index: usize| decoded.metrics.labels(index));
        let found = self.tenants.resolve(&envelope.tenant, keys, &read, false);
        decoded.metrics.set_series_ids(found.ids, found.generation);
        let batch = decoded.into_batch(body, envelope.received_at);
        evaluate(&self.config, &self.tenants.get(&envelope.tenant), &batch);
    }

    /// Saved state of the detectors.
    fn engine(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.tenants.with_detectors(&TenantId::main(), |detectors| detectors.engine.save(&mut bytes)).unwrap();
        bytes
    }

    /// Saved state of the live series.
    fn recent(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.tenants.with(&TenantId::main(), |live| live.recent.save(&mut bytes)).unwrap();
        bytes
    }
}

#[test]
fn a_duplicate_request_has_one_effect() {
    for later_ms in [SECOND_MS, 180 * SECOND_MS, 3 * HOUR_MS] {
        let (once, twice) = (Detection::new(), Detection::new());
        let (first, step_ms) = (requests(START_MS), 15 * SECOND_MS);
        for detection in [&once, &twice] {
            first.iter().for_each(|request| detection.evaluate_request(request));
            // The same series and services continue meanwhile.
            (1..=later_ms / step_ms).for_each(|step| {
                requests(START_MS + step * step_ms).iter().for_each(|request| detection.evaluate_request(request));
            });
        }
        let recent = twice.recent();
        for (envelope, body) in &first {
            let duplicate = Envelope { received_at: Timestamp::from_millis(START_MS + later_ms), ..envelope.clone() };
            twice.evaluate_request(&(duplicate, body.clone()));
            // The end of any batch finishes pending work of the detectors.
            evaluate(&once.config, &once.tenants.get(&TenantId::main()), &Batch::default());
            assert!(once.engine() == twice.engine(), "duplicate {} after {later_ms} ms", envelope.protocol);
        }
        // A sample older than memory is queued for the lake, without effect on detection.
        assert!(later_ms >= HOUR_MS || recent == twice.recent(), "after {later_ms} ms");
    }
}

#[test]
fn the_correlator_has_what_a_person_opened_from_the_next_batch_on() {
    let (detection, tenant) = (Detection::new(), TenantId::main());
    let incident = Incident { key: "by-hand".into(), ..Incident::default() };
    detection.tenants.restore_incident(&tenant, incident, START_MS);
    evaluate(&detection.config, &detection.tenants.get(&tenant), &Batch::default());
    let known = detection.tenants.with_detectors(&tenant, |detectors| format!("{:?}", detectors.correlator));
    assert!(known.contains("by-hand"), "{known}");
}

#[test]
fn log_lines_without_a_timestamp_are_not_deduplicated() {
    let detection = Detection::new();
    for second in 0..3 {
        let line = serde_json::json!({ "level": "ERROR", "message": "no room", "service": "a" }).to_string();
        detection.evaluate_request(&request("json_logs", "application/json", START_MS + second * SECOND_MS, line));
    }
    let (from, to) = (Timestamp::from_millis(START_MS), Timestamp::from_millis(START_MS + HOUR_MS));
    let top = detection
        .tenants
        .with_detectors(&TenantId::main(), |detectors| detectors.engine.templates(from, to, Severity::High, |_| true));
    assert_eq!(top.first().map(|template| template.count), Some(3));
}

#[test]
fn late_samples_are_evaluated_for_five_minutes() {
    let detection = Detection::new();
    let tenant = detection.tenants.get(&TenantId::main());
    let series = tenant.registry().get_or_insert(&Labels::of(&[("__name__", "depth")]));
    let sample = |ts_ms: i64, value: f64| {
        let mut batch = Batch::default();
        batch.metrics.runs.push(SeriesRun { series, count: 1 });
        batch.metrics.samples.push(wardroom_domain::Sample { ts_ms, value });
        evaluate(&detection.config, &tenant, &batch);
        detection.engine()
    };
    assert_eq!(series, SeriesId(0));
    let known = sample(START_MS, 1.0);
    assert!(sample(START_MS, 1.0) == known, "duplicate");
    let late = sample(START_MS - 299 * SECOND_MS, 1.0);
    assert!(late != known);
    assert!(sample(START_MS - 301 * SECOND_MS, 1.0) == late, "stored, not evaluated");
    let kept = tenant.live_state().recent.range(series, 0, i64::MAX).read_all(&|_, _| None);
    assert_eq!(kept.map(|samples| samples.len()), Some(3));
}
