//! From what detection remembers to what diagnosis and verification ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use wardroom_correlate::component;
use wardroom_detect::{Config as DetectConfig, Engine, SignalKind};
use wardroom_diagnose::{Aspect, Call, Change, Config as DiagnoseConfig, Facts, LogFact, SeriesFact, SignalFact};
use wardroom_domain::{Labels, Severity, Timestamp};
use wardroom_respond::Watched;

use wardroom_pipeline::tenants::topology;

/// A signal that has been silent for so long says nothing about now.
const STALE_MS: i64 = 120_000;

/// Everything diagnosis asks for about an incident.
pub(super) fn facts(engine: &Engine, services: &[String], began_at: Timestamp, config: &DiagnoseConfig) -> Facts {
    let now = Timestamp::from_millis(engine.watermark_ms());
    let near = nearby(engine, services);
    let mut calls: BTreeMap<(String, String), Call> = BTreeMap::new();
    let mut signals = Vec::new();
    for (key, signal) in engine.signals().filter(|(key, _)| near.contains(&key.service)) {
        let Some((last_ms, value)) = signal.history.back().copied() else { continue };
        if last_ms < now.millis() - STALE_MS {
            continue;
        }
        let bad_since = signal.bad_since().map(|(since_ms, _)| Timestamp::from_millis(since_ms));
        let expected = signal.expected();
        let Some(peer) = &key.peer else {
            signals.push(SignalFact {
                service: key.service.clone(),
                aspect: aspect(key.kind),
                value,
                expected,
                bad_since,
            });
            continue;
        };
        let call = calls.entry((key.service.clone(), peer.clone())).or_insert_with(|| Call {
            caller: key.service.clone(),
            callee: peer.clone(),
            bad_since: None,
            rate: 0.0,
            usual_rate: 0.0,
        });
        if key.kind == SignalKind::RequestRate {
            (call.rate, call.usual_rate) = (value, expected);
        } else if let Some(since) = bad_since {
            call.bad_since = Some(call.bad_since.map_or(since, |known| known.min(since)));
        }
    }
    let series = engine.shifts(3).into_iter().filter(|(service, _)| near.contains(service)).take(100);
    let minutes = |minutes: u64| began_at.minus(Duration::from_secs(minutes * 60));
    Facts {
        began_at,
        signals,
        calls: calls.into_values().collect(),
        series: series
            .map(|(service, shift)| SeriesFact {
                service,
                series: shift.labels.to_string(),
                z: shift.run.z(),
                value: shift.run.value,
                expected: shift.run.mean,
                since: Timestamp::from_millis(shift.run.since_ms),
            })
            .collect(),
        deployments: engine.deployments(minutes(config.deployment_minutes), now),
        changes: engine
            .setting_changes(minutes(config.deployment_minutes), now)
            .into_iter()
            .map(|change| Change {
                service: change.service,
                at: Timestamp::from_millis(change.at_ms),
                key: change.key,
                from: change.from,
                to: change.to,
            })
            .collect(),
        logs: engine
            .templates(minutes(config.log_minutes), now, Severity::Warning)
            .into_iter()
            .filter(|log| near.contains(&log.service))
            .take(50)
            .map(|log| LogFact {
                service: log.service,
                template: log.template,
                example: log.example,
                count: log.count,
                first: Timestamp::from_millis(log.first_ms),
            })
            .collect(),
    }
}

/// What is bad now in or near these services, and has to become good.
pub(super) fn watched(engine: &Engine, services: &[String]) -> Vec<Watched> {
    let near = nearby(engine, services);
    engine
        .signals()
        .filter(|(key, _)| key.peer.is_none() && near.contains(&key.service))
        .filter_map(|(key, signal)| {
            signal.limit().map(|bad_above| Watched { signal: key.labels(), expected: signal.expected(), bad_above })
        })
        .collect()
}

/// A service with no path to or from these, that is being watched itself.
pub(super) fn control(engine: &Engine, services: &[String]) -> Option<String> {
    let near = nearby(engine, services);
    let now_ms = engine.watermark_ms();
    engine
        .signals()
        .filter(|(key, signal)| {
            let fresh = signal.history.back().is_some_and(|(at_ms, _)| *at_ms >= now_ms - STALE_MS);
            key.peer.is_none() && key.kind == SignalKind::LatencyP99 && fresh && !near.contains(&key.service)
        })
        .max_by_key(|(_, signal)| signal.history.len())
        .map(|(key, _)| key.service.clone())
}

/// The share of a service's points between two moments that were bad.
pub(super) fn bad_share(engine: &Engine, service: &str, from_ms: i64, to_ms: i64, config: &DetectConfig) -> f64 {
    let (mut bad, mut all) = (0.0, 0.0);
    for (key, signal) in engine.signals().filter(|(key, _)| key.peer.is_none() && key.service == service) {
        let limit = match key.kind {
            SignalKind::ErrorRatio => config.error_ratio,
            SignalKind::LatencyP99 => signal.expected() + 2.0 * config.latency_floor_seconds,
            SignalKind::RequestRate | SignalKind::Cpu | SignalKind::Memory => continue,
        };
        for (_, value) in signal.history.iter().filter(|(at_ms, _)| (from_ms..=to_ms).contains(at_ms)) {
            all += 1.0;
            bad += if *value > limit { 1.0 } else { 0.0 };
        }
    }
    if all > 0.0 { bad / all } else { 0.0 }
}

/// The history of the signal with these labels.
pub(super) fn points(engine: &Engine, labels: &Labels) -> Vec<(i64, f64)> {
    let found = engine.signals().find(|(key, _)| key.labels() == *labels);
    found.map(|(_, signal)| signal.history.iter().copied().collect()).unwrap_or_default()
}

/// All services with a path to or from these.
pub(crate) fn nearby(engine: &Engine, services: &[String]) -> BTreeSet<String> {
    let topology = topology(engine);
    services.iter().flat_map(|service| component(service, &topology)).collect()
}

const fn aspect(kind: SignalKind) -> Aspect {
    match kind {
        SignalKind::RequestRate => Aspect::Rate,
        SignalKind::ErrorRatio => Aspect::Errors,
        SignalKind::LatencyP99 => Aspect::Latency,
        SignalKind::Cpu => Aspect::Cpu,
        SignalKind::Memory => Aspect::Memory,
    }
}
