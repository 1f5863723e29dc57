//! Collects facts for diagnosis and verification from what detection knows.
//!
//! Signals, calls and deployments come from its view. Level shifts, setting changes and log templates are read under
//! its lock ([`read_details`]), once for an incident and only those of the services concerned.

use std::collections::BTreeMap;
use std::time::Duration;

use wardroom_correlate::ConnectedServices;
use wardroom_detect::{
    Config as DetectConfig, Engine, LevelShift, SettingChange, SignalKey, SignalKind, TemplateCount,
};
use wardroom_diagnose::{Aspect, Call, Change, Config as DiagnoseConfig, Facts, LogFact, SeriesFact, SignalFact};
use wardroom_domain::{Labels, Severity, Timestamp};
use wardroom_pipeline::state::tenants::DetectionView;
use wardroom_respond::WatchedSignal;

/// A signal without a point for this long is ignored, in ms.
const STALE_MS: i64 = 120_000;

/// Maximum number of series in the facts.
const MAX_SERIES_FACTS: usize = 100;
/// Maximum number of log templates in the facts.
const MAX_LOG_FACTS: usize = 50;

/// Facts about an incident that a view lacks.
pub(super) struct EngineDetails {
    shifts: Vec<(String, LevelShift)>,
    changes: Vec<SettingChange>,
    templates: Vec<TemplateCount>,
}

/// Reads the facts that a view lacks; detection waits meanwhile.
pub(super) fn read_details(
    engine: &Engine,
    connected: &ConnectedServices<'_>,
    began_at: Timestamp,
    config: &DiagnoseConfig,
) -> EngineDetails {
    let now = Timestamp::from_millis(engine.watermark_ms());
    let minutes_before = |minutes: u64| began_at.minus(Duration::from_secs(minutes * 60));
    let includes = |service: &str| connected.contains(service);
    EngineDetails {
        shifts: engine.level_shifts(3, includes),
        changes: engine.setting_changes(minutes_before(config.deployment_minutes), now),
        templates: engine.templates(minutes_before(config.log_minutes), now, Severity::Warning, includes),
    }
}

/// Collects the facts about an incident: signals, calls, deployments, settings and logs of connected services.
pub(super) fn collect_facts(
    view: &DetectionView,
    details: EngineDetails,
    connected: &ConnectedServices<'_>,
    began_at: Timestamp,
    config: &DiagnoseConfig,
) -> Facts {
    let now = Timestamp::from_millis(view.engine.watermark_ms());
    let mut calls: BTreeMap<(String, String), Call> = BTreeMap::new();
    let mut signals = Vec::new();
    for (key, signal) in view.engine.signals().filter(|(key, _)| connected.contains(&key.service)) {
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
            expected_rate: 0.0,
        });
        if key.kind == SignalKind::RequestRate {
            (call.rate, call.expected_rate) = (value, expected);
        } else if let Some(since) = bad_since {
            call.bad_since = Some(call.bad_since.map_or(since, |known| known.min(since)));
        }
    }
    let minutes_before = |minutes: u64| began_at.minus(Duration::from_secs(minutes * 60));
    Facts {
        began_at,
        signals,
        calls: calls.into_values().collect(),
        series: details
            .shifts
            .into_iter()
            .take(MAX_SERIES_FACTS)
            .map(|(service, shift)| SeriesFact {
                service,
                series: shift.labels.to_string(),
                z: shift.excursion.z(),
                value: shift.excursion.value,
                expected: shift.excursion.mean,
                since: Timestamp::from_millis(shift.excursion.since_ms),
            })
            .collect(),
        deployments: view.engine.deployments(minutes_before(config.deployment_minutes), now),
        changes: details
            .changes
            .into_iter()
            .map(|change| Change {
                service: change.service,
                at: Timestamp::from_millis(change.at_ms),
                key: change.key,
                from: change.from,
                to: change.to,
            })
            .collect(),
        logs: details
            .templates
            .into_iter()
            .take(MAX_LOG_FACTS)
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

/// Returns the signals of connected services that are bad now and have to become good.
pub(super) fn watched_signals(view: &DetectionView, services: &[String]) -> Vec<WatchedSignal> {
    let connected = view.call_graph.connected_to(services);
    view.engine
        .signals()
        .filter(|(key, _)| key.peer.is_none() && connected.contains(&key.service))
        .filter_map(|(key, signal)| {
            signal.limit().map(|bad_above| WatchedSignal {
                signal: key.labels(),
                expected: signal.expected(),
                bad_above,
            })
        })
        .collect()
}

/// Selects a control: a monitored service that is not connected to these.
pub(super) fn select_control(view: &DetectionView, services: &[String]) -> Option<String> {
    let connected = view.call_graph.connected_to(services);
    let now_ms = view.engine.watermark_ms();
    view.engine
        .signals()
        .filter(|(key, signal)| {
            let is_fresh = signal.history.back().is_some_and(|(at_ms, _)| *at_ms >= now_ms - STALE_MS);
            key.peer.is_none() && key.kind == SignalKind::LatencyP99 && is_fresh && !connected.contains(&key.service)
        })
        .map(|(key, signal)| (signal.history.len(), &key.service))
        .max_by_key(|(points, _)| *points)
        .map(|(_, service)| service.clone())
}

/// Returns the share of bad points of a service in a time range, 0 to 1.
pub(super) fn bad_share(view: &DetectionView, service: &str, from_ms: i64, to_ms: i64, config: &DetectConfig) -> f64 {
    let (mut bad, mut total) = (0.0, 0.0);
    for (key, signal) in view.engine.signals().filter(|(key, _)| key.peer.is_none() && key.service == service) {
        let limit = match key.kind {
            SignalKind::ErrorRatio => config.error_ratio,
            SignalKind::LatencyP99 => signal.expected() + 2.0 * config.latency_floor_seconds,
            SignalKind::RequestRate | SignalKind::Cpu | SignalKind::Memory => continue,
        };
        for (_, value) in signal.history.iter().filter(|(at_ms, _)| (from_ms..=to_ms).contains(at_ms)) {
            total += 1.0;
            bad += if *value > limit { 1.0 } else { 0.0 };
        }
    }
    if total > 0.0 { bad / total } else { 0.0 }
}

/// Returns the history of the signal with these labels, as (time in ms, value).
pub(super) fn history(view: &DetectionView, labels: &Labels) -> Vec<(i64, f64)> {
    let key = SignalKey::from_labels(labels);
    let signal = key.as_ref().and_then(|key| view.engine.signal(key));
    signal.map(|signal| signal.history.iter().copied().collect()).unwrap_or_default()
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
