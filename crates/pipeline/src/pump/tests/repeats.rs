//! Bar 2c: a request that is delivered again a second, three minutes or three hours later has one effect.
//!
//! Time is that of arrival in the envelope, so the clock is injected; the oracle is a second engine that never
//! saw the repetition.

use bytes::Bytes;
use wardroom_domain::{Envelope, Labels, Principal, Run, SeriesId};

use super::super::*;

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
        events: true,
    };
    (envelope, body.into())
}

/// One request of every kind whose effects add up, with what happened at `at_ms`.
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
    let gauge = serde_json::json!({ "timestamp": at, "metric_name": "depth", "value": (at_ms % 977) as f64, "labels": { "service": "a" } });
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

/// Takes requests as detection does.
struct House {
    config: Config,
    tenants: Tenants,
    budget: InflateBudget,
}

impl House {
    fn new() -> Self {
        let config = Config::default();
        Self { tenants: Tenants::new(config.clone()), config, budget: InflateBudget::new(1 << 20, 1 << 20) }
    }

    fn take(&self, (envelope, body): &(Envelope, Bytes)) {
        let mut decoded = wardroom_sources::replay(envelope, body, &self.budget).unwrap();
        assert!(!decoded.is_empty(), "{}", envelope.protocol);
        let (keys, read) = (decoded.metrics.keys(), |at: usize| decoded.metrics.labels(at));
        let found = self.tenants.resolve(&envelope.tenant, keys, &read, false);
        decoded.metrics.identify(found.ids, found.generation);
        let batch = decoded.resolve(body, envelope.received_at);
        judge(&self.config, &self.tenants.get(&envelope.tenant), &batch);
    }

    /// All that detection remembers.
    fn engine(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.tenants.with(&TenantId::main(), |live| live.engine.save(&mut bytes)).unwrap();
        bytes
    }

    /// All that the live series hold.
    fn recent(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.tenants.with(&TenantId::main(), |live| live.recent.save(&mut bytes)).unwrap();
        bytes
    }
}

#[test]
fn a_request_delivered_again_has_one_effect() {
    for later_ms in [SECOND_MS, 180 * SECOND_MS, 3 * HOUR_MS] {
        let (once, twice) = (House::new(), House::new());
        let (first, step_ms) = (requests(START_MS), 15 * SECOND_MS);
        for house in [&once, &twice] {
            first.iter().for_each(|request| house.take(request));
            // Meanwhile the same series and services go on.
            (1..=later_ms / step_ms).for_each(|step| {
                requests(START_MS + step * step_ms).iter().for_each(|request| house.take(request));
            });
        }
        let held = twice.recent();
        for (envelope, body) in &first {
            let again = Envelope { received_at: Timestamp::from_millis(START_MS + later_ms), ..envelope.clone() };
            twice.take(&(again, body.clone()));
            // The end of any batch lets what is pending settle.
            judge(&once.config, &once.tenants.get(&TenantId::main()), &Batch::default());
            assert!(once.engine() == twice.engine(), "{} again after {later_ms} ms", envelope.protocol);
        }
        // What has left memory is kept beside the rest, and detection never sees it.
        assert!(later_ms >= HOUR_MS || held == twice.recent(), "after {later_ms} ms");
    }
}

#[test]
fn lines_that_bear_no_time_of_their_own_may_come_again() {
    let house = House::new();
    for second in 0..3 {
        let line = serde_json::json!({ "level": "ERROR", "message": "no room", "service": "a" }).to_string();
        house.take(&request("json_logs", "application/json", START_MS + second * SECOND_MS, line));
    }
    let (from, to) = (Timestamp::from_millis(START_MS), Timestamp::from_millis(START_MS + HOUR_MS));
    let top = house.tenants.with(&TenantId::main(), |live| live.engine.templates(from, to, Severity::High));
    assert_eq!(top.first().map(|template| template.count), Some(3));
}

#[test]
fn late_samples_count_for_five_minutes() {
    let house = House::new();
    let tenant = house.tenants.get(&TenantId::main());
    let series = tenant.registry().id_of(&Labels::of(&[("__name__", "depth")]));
    let sample = |ts_ms: i64, value: f64| {
        let mut batch = Batch::default();
        batch.metrics.runs.push(Run { series, count: 1 });
        batch.metrics.samples.push(wardroom_domain::Sample { ts_ms, value });
        judge(&house.config, &tenant, &batch);
        house.engine()
    };
    assert_eq!(series, SeriesId(0));
    let known = sample(START_MS, 1.0);
    assert!(sample(START_MS, 1.0) == known, "repeated");
    let late = sample(START_MS - 299 * SECOND_MS, 1.0);
    assert!(late != known);
    assert!(sample(START_MS - 301 * SECOND_MS, 1.0) == late, "kept, not learnt");
    let kept = tenant.live().recent.part(series, 0, i64::MAX).whole(&|_, _| None);
    assert_eq!(kept.map(|samples| samples.len()), Some(3));
}
