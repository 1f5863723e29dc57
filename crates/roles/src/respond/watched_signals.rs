//! The signals that verification judges an action by, and its control, from what detection knows.

use std::collections::BTreeSet;

use wardroom_detect::Signal;
use wardroom_domain::{Entity, Labels, SignalId, SignalKind};
use wardroom_pipeline::state::tenants::DetectionView;
use wardroom_respond::WatchedSignal;

/// A signal without a point for this many of its intervals is not watched: what it is about may be gone.
const STALE_INTERVALS: i64 = 4;
/// A signal without a point for less than this is not stale, in ms.
const MIN_STALE_MS: i64 = 120_000;
/// Share of failing requests above which a point of a control is bad, beyond its normal share.
const BAD_ERROR_RATIO: f64 = 0.05;
/// A latency is bad in a control above this multiple of the normal one …
const BAD_LATENCY_FACTOR: f64 = 2.0;
/// … and this many seconds more.
const BAD_LATENCY_FLOOR_SECONDS: f64 = 0.02;

/// Returns the signals of an incident's entities that are bad now and have to become good.
pub(super) fn watched_signals(view: &DetectionView, entities: &[Entity]) -> Vec<WatchedSignal> {
    let (graph, now_ms) = (view.engine.graph(), view.engine.watermark_ms());
    let affected: BTreeSet<Entity> = entities.iter().map(|entity| graph.canonical(entity)).collect();
    let mut watched = Vec::new();
    for (id, signal) in view.engine.signals() {
        // Its entity is compared only where that matters: few signals are bad.
        let Some(bad) = signal.bad().filter(|bad| bad.opens && is_fresh(&signal, now_ms)) else { continue };
        if bad.limit.is_finite() && bad.expected.is_finite() && affected.contains(&graph.canonical(&id.entity)) {
            watched.push(WatchedSignal {
                signal: id.labels(),
                expected: bad.expected,
                limit: bad.limit,
                low_is_bad: bad.low_is_bad,
                interval_ms: signal.interval_ms(),
            });
        }
    }
    watched
}

/// Selects a control: the monitored service that has been seen for longest among those without a relation to any of
/// these entities.
pub(super) fn select_control(view: &DetectionView, entities: &[Entity]) -> Option<String> {
    let (graph, now_ms) = (view.engine.graph(), view.engine.watermark_ms());
    let affected: BTreeSet<Entity> = entities.iter().map(|entity| graph.canonical(entity)).collect();
    let mut services: Vec<(usize, Entity)> = Vec::new();
    for (id, signal) in view.engine.signals() {
        if id.peer.is_none() && id.kind == SignalKind::Latency && is_fresh(&signal, now_ms) {
            services.push((signal.history.len(), graph.canonical(&id.entity)));
        }
    }
    services.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    let is_unrelated = |entity: &Entity| {
        !affected.contains(entity) && !affected.iter().any(|affected| graph.connected(affected, entity))
    };
    services.into_iter().map(|(_, entity)| entity).find(is_unrelated).map(|entity| entity.name)
}

/// Returns the share of bad points of a control in a time range, 0 to 1.
pub(super) fn bad_share(view: &DetectionView, control: &str, from_ms: i64, to_ms: i64) -> f64 {
    let (mut bad, mut total) = (0.0, 0.0);
    for (id, signal) in view.engine.signals() {
        if id.peer.is_some() || id.entity.name != control {
            continue;
        }
        let normal = signal.baseline().center;
        let limit = match id.kind {
            SignalKind::Errors => normal + BAD_ERROR_RATIO,
            SignalKind::Latency => normal * BAD_LATENCY_FACTOR + BAD_LATENCY_FLOOR_SECONDS,
            SignalKind::Availability
            | SignalKind::Traffic
            | SignalKind::Saturation
            | SignalKind::Queue
            | SignalKind::Restarts
            | SignalKind::Freshness
            | SignalKind::Expiry
            | SignalKind::Logs
            | SignalKind::Other => continue,
        };
        for (_, value) in signal.history.iter().filter(|(at_ms, _)| (from_ms..=to_ms).contains(at_ms)) {
            total += 1.0;
            bad += if *value > limit { 1.0 } else { 0.0 };
        }
    }
    if total > 0.0 { bad / total } else { 0.0 }
}

/// Returns the interval (in ms) and the points (time in ms, value) of the signal with these labels.
pub(super) fn history(view: &DetectionView, labels: &Labels) -> (i64, Vec<(i64, f64)>) {
    let id = SignalId::from_labels(labels);
    let signal = id.as_ref().and_then(|id| view.engine.signal(id));
    let points = |signal: &Signal| signal.history.iter().copied().collect();
    signal.map_or_else(|| (0, Vec::new()), |signal| (signal.interval_ms(), points(&signal)))
}

fn is_fresh(signal: &Signal, now_ms: i64) -> bool {
    let stale_ms = MIN_STALE_MS.max(STALE_INTERVALS * signal.interval_ms());
    signal.history.back().is_some_and(|(at_ms, _)| *at_ms >= now_ms.saturating_sub(stale_ms))
}
