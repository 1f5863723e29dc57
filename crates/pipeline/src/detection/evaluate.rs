//! Evaluates one batch: updates the live series, the detectors and the correlator of its tenant.
//!
//! Pure apart from the tenant's state and metrics, so that `wardroom replay` runs the same function.

#[cfg(test)]
mod tests;

use std::time::Duration;

use wardroom_correlate::{BreachEvent, Decision};
use wardroom_detect::{Breach, Engine, SignalKind};
use wardroom_domain::{Anomaly, Batch, Severity, Timestamp};
use wardroom_head::PushOutcome;

use super::topology::service_topology;
use crate::config::Config;
use crate::state::tenants::{MAX_METADATA_FAMILIES, Tenant};
use crate::{metrics as names, poison_injection};

/// Evaluates a batch. Returns its anomalies and the incidents that opened or grew.
pub fn evaluate(config: &Config, tenant: &Tenant, batch: &Batch) -> (Vec<Anomaly>, Vec<Decision>) {
    poison_injection::panic_on_poison_line(batch);
    let state = &mut *tenant.live_state();
    let known = state.engine.known_series();
    let others = batch.metrics.histograms.iter().map(|(series, _)| *series);
    let others = others.chain(batch.metrics.exemplars.iter().map(|(series, _)| *series));
    if batch.metrics.runs.iter().map(|run| run.series).chain(others).any(|series| series.index() >= known) {
        let new = tenant.registry().labels_from(known).to_vec();
        new.iter().for_each(|labels| state.engine.add_series(labels));
    }
    let known = state.engine.known_series();
    let sealed = state.sealed.clone();
    let fetch = |address: u64, buffer: &mut [u8]| sealed.read(address, buffer);
    for (id, samples) in batch.metrics.iter().filter(|(id, _)| id.index() < known) {
        for sample in samples {
            let outcome = state.recent.push(id, *sample, &fetch);
            if outcome.feeds_detection() {
                state.engine.observe(id, std::slice::from_ref(sample));
            } else if batch.is_rebuild && outcome == PushOutcome::Duplicate {
                state.recent.requeue_for_flush(id, *sample);
            }
        }
    }
    for (id, histogram) in batch.metrics.histograms.iter().filter(|(id, _)| id.index() < known) {
        let newest_ms = state.native_newest_ms.entry(*id).or_insert(i64::MIN);
        if histogram.ts_ms > *newest_ms {
            *newest_ms = histogram.ts_ms;
            state.engine.histogram(*id, histogram);
        }
    }
    for (id, exemplar) in batch.metrics.exemplars.iter().filter(|(id, _)| id.index() < known) {
        state.exemplars.push(*id, exemplar.clone());
    }
    for metadata in &batch.metadata {
        if state.metadata.get(&metadata.family) == Some(metadata) {
            continue;
        }
        if state.metadata.len() < MAX_METADATA_FAMILIES || state.metadata.contains_key(&metadata.family) {
            state.metadata.insert(metadata.family.clone(), metadata.clone());
        }
    }
    if batch.request_fingerprint.is_some_and(|request| state.engine.is_duplicate(request)) {
        metrics::counter!(names::DUPLICATE_REQUESTS_TOTAL).increment(1);
    } else {
        batch.logs.iter().for_each(|log| state.engine.observe_log(log));
        batch.deployments.iter().for_each(|deployment| state.engine.observe_deployment(deployment));
        batch.spans.iter().for_each(|span| state.engine.span(span));
        // Only after the detectors: a batch on which one panicked is retried.
        batch.request_fingerprint.into_iter().for_each(|request| state.engine.remember_request(request));
    }
    let finished = state.engine.finish_batch();
    let mut decisions = Vec::new();
    let breaches: Vec<Breach> = finished.breaches.into_iter().filter(|breach| breach.key.peer.is_none()).collect();
    if !breaches.is_empty() {
        let topology = service_topology(&state.engine);
        for breach in breaches {
            let event = breach_event(config, &breach, &state.engine);
            decisions.extend(state.correlator.observe(&event, &topology));
        }
    }
    (finished.anomalies, decisions)
}

fn breach_event(config: &Config, breach: &Breach, engine: &Engine) -> BreachEvent {
    let at = Timestamp::from_millis(breach.at_ms);
    let since = Timestamp::from_millis(breach.since_ms);
    let window = Duration::from_secs(config.correlate.deployment_minutes * 60);
    let deployments = engine.deployments(since.minus(window), at);
    BreachEvent {
        service: breach.key.service.clone(),
        signal: breach.key.labels().to_string(),
        summary: breach.summary(),
        since_ms: breach.since_ms,
        at_ms: breach.at_ms,
        severity: if breach.key.kind == SignalKind::ErrorRatio { Severity::Critical } else { Severity::High },
        errors: breach.key.kind == SignalKind::ErrorRatio,
        deployed: deployments.iter().any(|deployment| deployment.service == breach.key.service),
    }
}
