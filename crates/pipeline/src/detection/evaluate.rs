//! Evaluates one batch: updates the live series, the detectors and the correlator of its tenant.
//!
//! Pure apart from the tenant's state and metrics, so that `wardroom replay` runs the same function. The samples are
//! locked only while those of the batch are added, so that queries do not wait for the detectors.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use wardroom_correlate::Decision;
use wardroom_detect::{Engine, LimitedRecords};
use wardroom_domain::{
    Anomaly, Batch, EventKind, Finding, MetricMetadata, NativeHistogram, SeriesId, SignalKind, Timestamp,
};
use wardroom_head::PushOutcome;

use crate::config::Config;
use crate::state::limits::count_limited;
use crate::state::tenants::{Detectors, IncidentNews, LiveState, MAX_METADATA_FAMILIES, Tenant};
use crate::{metrics as names, poison_injection};

/// Maximum length of a metric family's name, in bytes; metadata of longer ones is ignored.
const MAX_FAMILY_NAME_BYTES: usize = 1024;
/// Trigger of incidents whose requests fail after a deployment.
const DEPLOYMENT_TRIGGER: &str = "deployment_correlation";
/// What the metrics of a family may have after its name.
const FAMILY_SUFFIXES: [&str; 5] = ["_total", "_bucket", "_count", "_sum", "_info"];
/// Maximum length of a help text and of a unit in memory, in bytes; longer ones are truncated.
const MAX_HELP_BYTES: usize = 1024;

/// Evaluates a batch. Returns its anomalies and the incidents that opened or grew.
pub fn evaluate(config: &Config, tenant: &Tenant, batch: &Batch) -> (Vec<Anomaly>, Vec<Decision>) {
    poison_injection::panic_on_poison_line(batch);
    let detectors = &mut *tenant.detectors();
    detectors.engine.begin_batch(batch.received_at);
    let metadata = {
        let live = &mut *tenant.live_state();
        add_metadata(live, batch);
        Arc::clone(&live.metadata)
    };
    add_new_series(tenant, &mut detectors.engine, &metadata, batch);
    let histograms = {
        let live = &mut *tenant.live_state();
        add_samples(&mut detectors.engine, live, batch);
        add_histograms(&detectors.engine, live, batch)
    };
    let engine = &mut detectors.engine;
    histograms.into_iter().for_each(|(id, histogram)| engine.histogram(id, histogram));
    if batch.request_fingerprint.is_some_and(|request| engine.is_duplicate(request)) {
        metrics::counter!(names::DUPLICATE_REQUESTS_TOTAL).increment(1);
    } else {
        batch.logs.iter().for_each(|log| engine.observe_log(log));
        batch.deployments.iter().for_each(|deployment| engine.observe_deployment(deployment));
        batch.spans.iter().for_each(|span| engine.span(span));
        // Only after the detectors: a batch on which one panicked is retried.
        batch.request_fingerprint.into_iter().for_each(|request| engine.remember_request(request));
    }
    let finished = engine.finish_batch();
    count_limits(finished.limited);
    let decisions = correlate(config, tenant, detectors, finished.findings);
    (finished.anomalies, decisions)
}

/// Adds the series that the registry got since the last batch to the engine, if the batch has one of them.
fn add_new_series(tenant: &Tenant, engine: &mut Engine, metadata: &BTreeMap<String, MetricMetadata>, batch: &Batch) {
    let known = engine.known_series();
    let others = batch.metrics.histograms.iter().map(|(series, _)| *series);
    let others = others.chain(batch.metrics.exemplars.iter().map(|(series, _)| *series));
    if batch.metrics.runs.iter().map(|run| run.series).chain(others).any(|series| series.index() >= known) {
        let new = tenant.registry().labels_from(known).to_vec();
        new.iter().for_each(|labels| engine.add_series(labels, family_of(labels.name(), metadata)));
    }
}

/// Returns the metadata of the family that a metric belongs to.
fn family_of<'a>(name: &str, metadata: &'a BTreeMap<String, MetricMetadata>) -> Option<&'a MetricMetadata> {
    let family = FAMILY_SUFFIXES.iter().find_map(|suffix| metadata.get(name.strip_suffix(suffix)?));
    metadata.get(name).or(family)
}

fn add_samples(engine: &mut Engine, live: &mut LiveState, batch: &Batch) {
    let known = engine.known_series();
    let sealed = live.sealed.clone();
    let fetch = |address: u64, buffer: &mut [u8]| sealed.read(address, buffer);
    for (id, samples) in batch.metrics.iter().filter(|(id, _)| id.index() < known) {
        for sample in samples {
            live.newest_ms = live.newest_ms.max(sample.ts_ms);
            let outcome = live.recent.push(id, *sample, &fetch);
            if outcome.feeds_detection() {
                engine.observe(id, std::slice::from_ref(sample));
            } else if batch.is_rebuild && outcome == PushOutcome::Duplicate {
                live.recent.requeue_for_flush(id, *sample);
            }
        }
    }
    for (id, exemplar) in batch.metrics.exemplars.iter().filter(|(id, _)| id.index() < known) {
        live.exemplars.push(*id, exemplar.clone());
    }
}

/// Returns the native histograms that are newer than the newest of their series.
fn add_histograms<'a>(engine: &Engine, live: &mut LiveState, batch: &'a Batch) -> Vec<(SeriesId, &'a NativeHistogram)> {
    let known = engine.known_series();
    let mut newer = Vec::new();
    for (id, histogram) in batch.metrics.histograms.iter().filter(|(id, _)| id.index() < known) {
        let newest_ms = live.native_newest_ms.entry(*id).or_insert(i64::MIN);
        if histogram.ts_ms > *newest_ms {
            *newest_ms = histogram.ts_ms;
            newer.push((*id, histogram));
        }
    }
    newer
}

fn add_metadata(live: &mut LiveState, batch: &Batch) {
    for metadata in batch.metadata.iter().filter(|metadata| metadata.family.len() <= MAX_FAMILY_NAME_BYTES) {
        let metadata = with_bounded_texts(metadata);
        let known = live.metadata.get(&metadata.family);
        if known == Some(&*metadata) {
            continue;
        }
        if known.is_none() && live.metadata.len() >= MAX_METADATA_FAMILIES {
            count_limited("metadata", 1);
            continue;
        }
        Arc::make_mut(&mut live.metadata).insert(metadata.family.clone(), metadata.into_owned());
    }
}

fn with_bounded_texts(metadata: &MetricMetadata) -> Cow<'_, MetricMetadata> {
    if metadata.help.len() <= MAX_HELP_BYTES && metadata.unit.len() <= MAX_HELP_BYTES {
        return Cow::Borrowed(metadata);
    }
    let bounded = |text: &str| text.get(..text.floor_char_boundary(MAX_HELP_BYTES)).unwrap_or_default().to_owned();
    let (help, unit) = (bounded(&metadata.help), bounded(&metadata.unit));
    Cow::Owned(MetricMetadata { help, unit, ..metadata.clone() })
}

/// Publishes the state after the batch and groups its findings into incidents.
fn correlate(config: &Config, tenant: &Tenant, detectors: &mut Detectors, findings: Vec<Finding>) -> Vec<Decision> {
    tenant.publish(detectors);
    let Detectors { engine, correlator } = detectors;
    for news in tenant.take_incident_news() {
        match news {
            IncidentNews::Released { key, at_ms } => correlator.release(&key, at_ms),
            IncidentNews::Restored { incident, opened_ms } => correlator.restore(&incident, opened_ms, None),
        }
    }
    let mut decisions = Vec::new();
    for finding in findings {
        let mut decided: Vec<Decision> = correlator.observe(&finding, engine.graph()).into_iter().collect();
        for decision in &mut decided {
            if let Decision::Opened(incident) = decision
                && was_deployed(config, &finding, engine)
            {
                incident.trigger = DEPLOYMENT_TRIGGER.to_owned();
            }
        }
        decisions.extend(decided);
    }
    let limited = correlator.take_limited();
    count_limited("open_incidents", limited.not_opened);
    count_limited("services_per_incident", limited.not_joined);
    decisions
}

fn count_limits(limited: LimitedRecords) {
    count_limited("span_services", limited.span_services);
    count_limited("span_families", limited.span_families);
    count_limited("native_histograms", limited.native_histograms);
    count_limited("log_templates", limited.log_templates);
    count_limited("signals", limited.signals);
    count_limited("stalled_points", limited.stalled_points);
}

/// Returns whether what a finding of failing requests is about was deployed shortly before.
fn was_deployed(config: &Config, finding: &Finding, engine: &Engine) -> bool {
    if finding.signal.kind != SignalKind::Errors {
        return false;
    }
    let [since, at] = [finding.since_ms, finding.at_ms].map(Timestamp::from_millis);
    let window = Duration::from_secs(config.correlate.deployment_minutes * 60);
    let entity = engine.graph().canonical(&finding.signal.entity);
    engine.events(since.minus(window), at).any(|event| {
        event.kind == EventKind::Deployment
            && (event.entity == finding.signal.entity || engine.graph().canonical(&event.entity) == entity)
    })
}
