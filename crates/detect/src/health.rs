//! Health of services over a window, computed from their signals.

use std::collections::BTreeMap;
use std::ops::Range;

use wardroom_domain::ServiceHealth;

use crate::signal::{Signal, SignalKind};
use crate::signals::Signals;

/// Returns the health of every service with data in the window (ms), ordered by name.
pub fn health(signals: &Signals, window: Range<i64>) -> Vec<ServiceHealth> {
    let mut services: BTreeMap<&str, ServiceHealth> = BTreeMap::new();
    for (key, signal) in signals.iter().filter(|(key, _)| key.peer.is_none()) {
        let Some((mean, max)) = mean_and_max(&signal, &window) else { continue };
        let health = services.entry(&key.service).or_default();
        health.service.clone_from(&key.service);
        health.breaches += u32::from(signal.limit().is_some());
        let (known, value) = match key.kind {
            // A service may count its requests in several metric families.
            SignalKind::RequestRate => {
                health.requests = Some(health.requests.unwrap_or_default() + mean);
                continue;
            }
            SignalKind::ErrorRatio => (&mut health.errors, mean),
            SignalKind::LatencyP99 => (&mut health.latency_p99, max),
            SignalKind::Cpu => (&mut health.cpu, max),
            SignalKind::Memory => (&mut health.memory, max),
        };
        *known = Some(known.map_or(value, |known| known.max(value)));
    }
    services.into_values().collect()
}

/// Returns mean and maximum of a signal's points in a window.
fn mean_and_max(signal: &Signal, window: &Range<i64>) -> Option<(f64, f64)> {
    let points = signal.history.iter().filter(|(at_ms, _)| window.contains(at_ms));
    let (count, sum, max) = points.fold((0_u32, 0.0, f64::NEG_INFINITY), |(count, sum, max), (_, value)| {
        (count + 1, sum + value, f64::max(max, *value))
    });
    (count > 0).then(|| (sum / f64::from(count), max))
}
