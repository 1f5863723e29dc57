//! How badly off an entity is, by its signals or by what its callers see.

use std::collections::BTreeMap;

use wardroom_domain::{Entity, SignalKind};
use wardroom_signals::SignalUnit;

use crate::facts::{EXPORTER, PROBE, SignalFact};

/// What only its callers see of an entity counts for this much: the path or the callers themselves may be at fault, and
/// a single caller more likely so.
const HEARSAY: f64 = 0.8;
/// The same of a single caller.
const HEARSAY_OF_ONE: f64 = 0.6;

/// How badly off an entity is, each 0..1.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Levels {
    /// Its requests fail.
    pub(crate) errors: f64,
    /// Its requests are slow.
    pub(crate) latency: f64,
    /// Its latency rose by this many seconds.
    pub(crate) latency_delta: f64,
    /// The share of its requests that fail rose by this, 0..1.
    pub(crate) errors_delta: f64,
    /// Requests per second that it gets, if that is known.
    pub(crate) requests: Option<f64>,
    /// Something inside it is at a limit or far from normal: a resource, restarts, expiry.
    pub(crate) inside: f64,
    /// What fills or ages while work waits, such as a pool of connections or the newest success of a job.
    pub(crate) waiting: f64,
    /// It is not up.
    pub(crate) down: f64,
    /// Its exporter is not up.
    pub(crate) exporter_down: f64,
    /// Work waits in it.
    pub(crate) queue: f64,
    /// It serves less than before.
    pub(crate) drop: f64,
    /// It is asked for more than before.
    pub(crate) surge: f64,
    /// It logs more errors than before.
    pub(crate) logs: f64,
    /// Any other measurement differs.
    pub(crate) other: f64,
}

impl Levels {
    /// Returns how surely it cannot serve its callers well, by what is inside it.
    pub(crate) fn broken(&self) -> f64 {
        self.down.max(0.8 * self.inside.max(self.waiting).max(self.queue))
    }

    /// Returns the levels that these signals of an entity make.
    pub(crate) fn of(own: &[&SignalFact]) -> Self {
        let mut levels = Self::default();
        for fact in own {
            levels.add(fact);
        }
        let telling: Vec<_> = own.iter().filter(|fact| !fact.is_internal).collect();
        if !telling.is_empty() && telling.iter().all(|fact| fact.is_gone) {
            levels.down = levels.down.max(0.7);
        }
        levels
    }

    /// Adds what the callers of an entity see of it: the mean over them.
    pub(crate) fn add_hearsay(&mut self, called: &[&SignalFact]) {
        let mut callers: BTreeMap<&Entity, Self> = BTreeMap::new();
        for fact in called {
            callers.entry(&fact.signal.entity).or_default().add(fact);
        }
        let factor = if callers.len() > 1 { HEARSAY } else { HEARSAY_OF_ONE };
        let count = callers.len().max(1) as f64;
        let mean = |value: fn(&Self) -> f64| callers.values().map(value).sum::<f64>() / count;
        self.errors = self.errors.max(factor * mean(|levels| levels.errors));
        self.latency = self.latency.max(factor * mean(|levels| levels.latency));
        self.errors_delta = self.errors_delta.max(mean(|levels| levels.errors_delta));
        self.latency_delta = self.latency_delta.max(mean(|levels| levels.latency_delta));
        let requests = callers.values().filter_map(|levels| levels.requests).reduce(|a, b| a + b);
        self.requests = self.requests.or(requests);
    }

    fn add(&mut self, fact: &SignalFact) {
        let raise = |level: &mut f64, by: f64| *level = level.max(by);
        let strength = fact.strength();
        match fact.signal.kind {
            SignalKind::Availability if fact.signal.resource == EXPORTER => raise(&mut self.exporter_down, strength),
            // A probe sees what callers see: whatever is behind may have failed.
            SignalKind::Availability if fact.signal.resource == PROBE => raise(&mut self.errors, strength),
            SignalKind::Availability if fact.says_up() => raise(&mut self.down, strength),
            SignalKind::Availability => raise(&mut self.inside, 0.7 * strength),
            SignalKind::Errors => {
                raise(&mut self.errors, strength);
                if strength > 0.0 && fact.unit == SignalUnit::Ratio {
                    raise(&mut self.errors_delta, fact.value - fact.expected);
                }
            }
            SignalKind::Latency => {
                raise(&mut self.latency, strength);
                if strength > 0.0 && fact.unit == SignalUnit::Seconds {
                    raise(&mut self.latency_delta, fact.value - fact.expected);
                }
            }
            SignalKind::Traffic => {
                if fact.unit == SignalUnit::PerSecond {
                    self.requests = Some(self.requests.unwrap_or_default().max(fact.value));
                }
                let level = if fact.value < fact.expected { &mut self.drop } else { &mut self.surge };
                raise(level, fact.change_of_rate());
            }
            SignalKind::Freshness => raise(&mut self.waiting, strength),
            SignalKind::Saturation if fact.is_waiting() => raise(&mut self.waiting, strength),
            SignalKind::Saturation | SignalKind::Restarts | SignalKind::Expiry => raise(&mut self.inside, strength),
            SignalKind::Queue => raise(&mut self.queue, strength),
            SignalKind::Logs => raise(&mut self.logs, strength),
            SignalKind::Other => raise(&mut self.other, strength),
        }
    }
}
