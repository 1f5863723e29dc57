//! The signals of an incident's entities and of a control, from what detection knows.

use std::collections::BTreeSet;

use wardroom_detect::{Bad, EngineView, Signal};
use wardroom_domain::{Entity, Labels, SignalId, SignalKind};

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

/// A signal that is bad now.
pub struct BadSignal {
    /// The signal.
    pub signal: SignalId,
    /// Since when, and beyond which limit.
    pub bad: Bad,
    /// Interval of its points, in ms.
    pub interval_ms: i64,
}

/// Returns the signals of these entities that are bad now by a rule that opens incidents.
pub fn bad_signals(view: &EngineView, entities: &[Entity]) -> Vec<BadSignal> {
    let (graph, now_ms) = (view.graph(), view.watermark_ms());
    let affected: BTreeSet<Entity> = entities.iter().map(|entity| graph.canonical(entity)).collect();
    let mut found = Vec::new();
    for (id, signal) in view.signals() {
        // Its entity is compared only where that matters: few signals are bad.
        let Some(bad) = signal.bad().filter(|bad| bad.opens && is_fresh(&signal, now_ms)) else { continue };
        if bad.limit.is_finite() && bad.expected.is_finite() && affected.contains(&graph.canonical(&id.entity)) {
            found.push(BadSignal { signal: id.clone(), bad, interval_ms: signal.interval_ms() });
        }
    }
    found
}

/// Selects a control: the monitored service that has been seen for longest among those without a relation to any of
/// these entities.
pub fn select_control(view: &EngineView, entities: &[Entity]) -> Option<String> {
    let (graph, now_ms) = (view.graph(), view.watermark_ms());
    let affected: BTreeSet<Entity> = entities.iter().map(|entity| graph.canonical(entity)).collect();
    let mut services: Vec<(usize, Entity)> = Vec::new();
    for (id, signal) in view.signals() {
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
pub fn bad_share(view: &EngineView, control: &str, from_ms: i64, to_ms: i64) -> f64 {
    let (mut bad, mut total) = (0.0, 0.0);
    for (id, signal) in view.signals() {
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

/// Returns the time of the newest point of these entities' signals, in ms of telemetry time.
pub fn newest_reading_ms(view: &EngineView, entities: &[Entity]) -> Option<i64> {
    let graph = view.graph();
    let affected: BTreeSet<Entity> = entities.iter().map(|entity| graph.canonical(entity)).collect();
    let of_affected = view.signals().filter(|(id, _)| affected.contains(&graph.canonical(&id.entity)));
    of_affected.filter_map(|(_, signal)| signal.history.back().map(|(at_ms, _)| *at_ms)).max()
}

/// Returns the interval (in ms) and the points (time in ms, value) of the signal with these labels.
pub fn history(view: &EngineView, labels: &Labels) -> (i64, Vec<(i64, f64)>) {
    let id = SignalId::from_labels(labels);
    let signal = id.as_ref().and_then(|id| view.signal(id));
    let points = |signal: &Signal| signal.history.iter().copied().collect();
    signal.map_or_else(|| (0, Vec::new()), |signal| (signal.interval_ms(), points(&signal)))
}

fn is_fresh(signal: &Signal, now_ms: i64) -> bool {
    let stale_ms = MIN_STALE_MS.max(STALE_INTERVALS * signal.interval_ms());
    signal.history.back().is_some_and(|(at_ms, _)| *at_ms >= now_ms.saturating_sub(stale_ms))
}
