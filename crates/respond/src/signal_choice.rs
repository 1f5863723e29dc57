//! Which signals an action is judged by: what has to become good, the control, and how both were.
//!
//! What detection knows is an argument ([`KnownSignals`]); nothing is read here.

use std::collections::BTreeSet;

use wardroom_domain::{Entity, Labels, SignalId, SignalKind};

use crate::verify::WatchedSignal;

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

/// What a rule that opens incidents finds bad about a signal now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CrossedLimit {
    /// The limit.
    pub limit: f64,
    /// Whether values below the limit are bad.
    pub low_is_bad: bool,
    /// Normal value before the onset.
    pub expected: f64,
}

/// A signal as detection knows it.
pub trait KnownSignal {
    /// Returns the interval of its points, in ms; 0 if unknown.
    fn interval_ms(&self) -> i64;
    /// Returns its newest points as (telemetry's time in ms, value), oldest first.
    fn points(&self) -> impl DoubleEndedIterator<Item = (i64, f64)> + ExactSizeIterator;
    /// Returns its normal value.
    fn normal(&self) -> f64;
    /// Returns what is bad about it by a rule that opens incidents; `None` if nothing is.
    fn crossed_limit(&self) -> Option<CrossedLimit>;
}

/// What detection knows of a tenant.
pub trait KnownSignals {
    /// A signal.
    type Signal<'a>: KnownSignal
    where
        Self: 'a;

    /// Returns the newest event time of all telemetry, in ms.
    fn now_ms(&self) -> i64;
    /// Returns all signals.
    fn signals(&self) -> impl Iterator<Item = (&SignalId, Self::Signal<'_>)>;
    /// Returns one signal.
    fn signal(&self, id: &SignalId) -> Option<Self::Signal<'_>>;
    /// Returns the one of an entity's names by which entities are compared.
    fn canonical(&self, entity: &Entity) -> Entity;
    /// Returns whether one of two entities depends on the other.
    fn are_connected(&self, a: &Entity, b: &Entity) -> bool;
}

/// Returns the signals of an incident's entities that are bad now, by a rule that opens incidents, and have to become
/// good.
pub fn watched_signals(known: &impl KnownSignals, entities: &[Entity]) -> Vec<WatchedSignal> {
    let affected = canonical_entities(known, entities);
    let mut found = Vec::new();
    for (id, signal) in known.signals() {
        // Its entity is compared only where that matters: few signals are bad.
        let Some(crossed) = signal.crossed_limit().filter(|_| is_fresh(&signal, known.now_ms())) else { continue };
        let CrossedLimit { limit, low_is_bad, expected } = crossed;
        if limit.is_finite() && expected.is_finite() && affected.contains(&known.canonical(&id.entity)) {
            let interval_ms = signal.interval_ms();
            found.push(WatchedSignal { signal: id.labels(), expected, limit, low_is_bad, interval_ms });
        }
    }
    found
}

/// Selects a control: the monitored service that has been seen for longest among those without a relation to any of
/// these entities.
pub fn select_control(known: &impl KnownSignals, entities: &[Entity]) -> Option<String> {
    let affected = canonical_entities(known, entities);
    let mut services: Vec<(usize, Entity)> = Vec::new();
    for (id, signal) in known.signals() {
        if id.peer.is_none() && id.kind == SignalKind::Latency && is_fresh(&signal, known.now_ms()) {
            services.push((signal.points().len(), known.canonical(&id.entity)));
        }
    }
    services.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    let is_unrelated = |entity: &Entity| {
        !affected.contains(entity) && !affected.iter().any(|affected| known.are_connected(affected, entity))
    };
    services.into_iter().map(|(_, entity)| entity).find(is_unrelated).map(|entity| entity.name)
}

/// Returns the share of bad points of a control in a time range (both ends inclusive), 0 to 1.
pub fn bad_share(known: &impl KnownSignals, control: &str, from_ms: i64, to_ms: i64) -> f64 {
    let (mut bad, mut total) = (0.0, 0.0);
    for (id, signal) in known.signals() {
        if id.peer.is_some() || id.entity.name != control {
            continue;
        }
        let normal = signal.normal();
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
        for (_, value) in signal.points().filter(|(at_ms, _)| (from_ms..=to_ms).contains(at_ms)) {
            total += 1.0;
            bad += if value > limit { 1.0 } else { 0.0 };
        }
    }
    if total > 0.0 { bad / total } else { 0.0 }
}

/// Returns the time of the newest point of these entities' signals, in ms of telemetry time.
pub fn newest_reading_ms(known: &impl KnownSignals, entities: &[Entity]) -> Option<i64> {
    let affected = canonical_entities(known, entities);
    let of_affected = known.signals().filter(|(id, _)| affected.contains(&known.canonical(&id.entity)));
    of_affected.filter_map(|(_, signal)| newest_ms(&signal)).max()
}

/// Returns the interval (in ms) and the points (time in ms, value) of the signal with these labels.
pub fn signal_history(known: &impl KnownSignals, labels: &Labels) -> (i64, Vec<(i64, f64)>) {
    let signal = SignalId::from_labels(labels).and_then(|id| known.signal(&id));
    signal.map_or_else(|| (0, Vec::new()), |signal| (signal.interval_ms(), signal.points().collect()))
}

fn canonical_entities(known: &impl KnownSignals, entities: &[Entity]) -> BTreeSet<Entity> {
    entities.iter().map(|entity| known.canonical(entity)).collect()
}

fn is_fresh(signal: &impl KnownSignal, now_ms: i64) -> bool {
    let stale_ms = MIN_STALE_MS.max(STALE_INTERVALS * signal.interval_ms());
    newest_ms(signal).is_some_and(|at_ms| at_ms >= now_ms.saturating_sub(stale_ms))
}

fn newest_ms(signal: &impl KnownSignal) -> Option<i64> {
    signal.points().next_back().map(|(at_ms, _)| at_ms)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Clone, Default)]
    struct Known {
        signals: BTreeMap<SignalId, Fixed>,
        related: Vec<(&'static str, &'static str)>,
    }

    #[derive(Clone)]
    struct Fixed {
        points: Vec<(i64, f64)>,
        crossed: Option<CrossedLimit>,
    }

    impl KnownSignal for Fixed {
        fn interval_ms(&self) -> i64 {
            1000
        }

        fn points(&self) -> impl DoubleEndedIterator<Item = (i64, f64)> + ExactSizeIterator {
            self.points.iter().copied()
        }

        fn normal(&self) -> f64 {
            0.1
        }

        fn crossed_limit(&self) -> Option<CrossedLimit> {
            self.crossed
        }
    }

    impl KnownSignals for Known {
        type Signal<'a> = Fixed;

        fn now_ms(&self) -> i64 {
            300_000
        }

        fn signals(&self) -> impl Iterator<Item = (&SignalId, Fixed)> {
            self.signals.iter().map(|(id, signal)| (id, signal.clone()))
        }

        fn signal(&self, id: &SignalId) -> Option<Fixed> {
            self.signals.get(id).cloned()
        }

        fn canonical(&self, entity: &Entity) -> Entity {
            // One entity has an alias.
            if entity.name == "cart-alias" { Entity::service("cart") } else { entity.clone() }
        }

        fn are_connected(&self, a: &Entity, b: &Entity) -> bool {
            self.related.contains(&(a.name.as_str(), b.name.as_str()))
        }
    }

    /// Name of the entity, kind, points, and the limit that is crossed.
    type Given<'a> = (&'a str, SignalKind, &'a [(i64, f64)], Option<f64>);

    fn known(signals: &[Given<'_>]) -> Known {
        let mut known = Known::default();
        for (name, kind, points, limit) in signals {
            let (resource, metric) = (String::new(), String::new());
            let id = SignalId { entity: Entity::service(*name), peer: None, kind: *kind, resource, metric };
            let crossed = limit.map(|limit| CrossedLimit { limit, low_is_bad: false, expected: 0.1 });
            known.signals.insert(id, Fixed { points: points.to_vec(), crossed });
        }
        known
    }

    #[test]
    fn what_is_bad_now_at_the_entities_is_watched() {
        let now: &[(i64, f64)] = &[(299_000, 1.0)];
        let known = known(&[
            ("cart", SignalKind::Latency, now, Some(0.5)),
            ("cart", SignalKind::Errors, &[(100_000, 1.0)], Some(0.5)),
            ("cart", SignalKind::Traffic, now, None),
            ("cart", SignalKind::Saturation, now, Some(f64::NEG_INFINITY)),
            ("mail", SignalKind::Latency, now, Some(0.5)),
        ]);
        let watched = watched_signals(&known, &[Entity::service("cart-alias")]);
        assert_eq!(watched.len(), 1, "one is old, one is good, one has no limit, one is another's: {watched:?}");
        assert_eq!((watched[0].limit, watched[0].interval_ms), (0.5, 1000));
        assert_eq!(signal_history(&known, &watched[0].signal), (1000, now.to_vec()));
        assert_eq!(newest_reading_ms(&known, &[Entity::service("cart")]), Some(299_000));
        assert_eq!(newest_reading_ms(&known, &[Entity::service("absent")]), None);
    }

    #[test]
    fn the_control_is_unrelated_and_known_for_longest() {
        let long: Vec<(i64, f64)> = (0..300).map(|second| (second * 1000, 0.1)).collect();
        let mut known = known(&[
            ("cart", SignalKind::Latency, &long, Some(0.5)),
            ("related", SignalKind::Latency, &long, None),
            ("old", SignalKind::Latency, &long[..10], None),
            ("short", SignalKind::Latency, &long[290..], None),
            ("control", SignalKind::Latency, &long[200..], None),
        ]);
        known.related.push(("cart", "related"));
        let affected = [Entity::service("cart")];
        assert_eq!(select_control(&known, &affected).as_deref(), Some("control"));
        known.signals.retain(|id, _| ["cart", "related", "old"].contains(&id.entity.name.as_str()));
        assert_eq!(select_control(&known, &affected), None);
    }

    #[test]
    fn the_share_of_bad_points_is_that_of_latency_and_errors() {
        let points: Vec<(i64, f64)> =
            (0..10).map(|second| (second * 1000, if second < 5 { 0.1 } else { 0.9 })).collect();
        let known = known(&[
            ("mail", SignalKind::Latency, &points, None),
            ("mail", SignalKind::Traffic, &points, None),
            ("cart", SignalKind::Latency, &points, None),
        ]);
        assert!((bad_share(&known, "mail", 0, 9000) - 0.5).abs() < 1e-9);
        assert!(bad_share(&known, "mail", 0, 4000).abs() < 1e-9);
        assert!((bad_share(&known, "mail", 5000, 9000) - 1.0).abs() < 1e-9);
        assert!(bad_share(&known, "absent", 0, 9000).abs() < 1e-9);
    }
}
