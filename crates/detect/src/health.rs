//! Health of services over a window, computed from their signals.

use std::collections::BTreeMap;
use std::ops::Range;

use wardroom_domain::{Entity, EntityKind, ServiceHealth, SignalId, SignalKind};

use crate::evaluation::Signal;
use crate::view::EngineView;

/// Returns the health of every service and workload with data in the window (ms), ordered by entity. A service and its
/// workload are one.
pub fn health(view: &EngineView, window: Range<i64>) -> Vec<ServiceHealth> {
    let mut services: BTreeMap<Entity, ServiceHealth> = BTreeMap::new();
    for (id, signal) in view.signals().filter(|(id, _)| is_of_service(id)) {
        let Some((mean, max)) = mean_and_max(&signal, &window) else { continue };
        let is_bad = signal.bad().is_some();
        drop(signal);
        let entity = view.graph().canonical(&id.entity);
        let health = services.entry(entity).or_default();
        health.breaches += u32::from(is_bad);
        let (known, value) = match (id.kind, id.resource.as_str()) {
            // A service may count its requests in several metric families.
            (SignalKind::Traffic, _) => {
                health.requests = Some(health.requests.unwrap_or_default() + mean);
                continue;
            }
            (SignalKind::Errors, resource) if !resource.ends_with("failures") => (&mut health.errors, mean),
            (SignalKind::Latency, resource) if !resource.ends_with("median") => (&mut health.latency_p99, max),
            (SignalKind::Saturation, "cpu") if is_share(id) => (&mut health.cpu, max),
            (SignalKind::Saturation, "memory") if is_share(id) => (&mut health.memory, max),
            _ => continue,
        };
        *known = Some(known.map_or(value, |known| known.max(value)));
    }
    services.into_iter().map(|(entity, health)| ServiceHealth { entity, ..health }).collect()
}

fn is_of_service(id: &SignalId) -> bool {
    id.peer.is_none() && !id.entity.is_empty() && matches!(id.entity.kind, EntityKind::Service | EntityKind::Workload)
}

/// Returns whether the signal's values are shares of a limit.
fn is_share(id: &SignalId) -> bool {
    id.metric.ends_with(crate::points::SHARE_SUFFIX)
}

/// Returns mean and maximum of a signal's points in a window.
fn mean_and_max(signal: &Signal, window: &Range<i64>) -> Option<(f64, f64)> {
    let points = signal.history.iter().filter(|(at_ms, _)| window.contains(at_ms));
    let (count, sum, max) = points.fold((0_u32, 0.0, f64::NEG_INFINITY), |(count, sum, max), (_, value)| {
        (count + 1, sum + value, f64::max(max, *value))
    });
    (count > 0).then(|| (sum / f64::from(count), max))
}
