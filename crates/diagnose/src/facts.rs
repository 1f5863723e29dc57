//! The input of diagnosis: what is known about an incident and its surroundings at one point in time.

use std::collections::BTreeSet;

use wardroom_domain::{Entity, EntityKind, Event, Finding, Relation, Severity, SignalId, SignalKind, Timestamp};
use wardroom_signals::{Direction, SignalUnit};

use crate::need::Need;
use crate::shift::difference_floor;

/// Resource of the availability of an exporter, whose target may well be up.
pub(crate) const EXPORTER: &str = "exporter";
/// Resource of the availability that probes from outside measure.
pub(crate) const PROBE: &str = "probe";

/// Resources of availability whose loss means that requests are not served.
const SERVES: &[&str] = &[
    "",
    "replicas",
    "pods",
    "members",
    "servers",
    "hosts",
    "backend",
    "processes",
    "daemons",
    "node",
    "unhealthy-hosts",
];
/// From this share of its limit on a resource is full.
const FULL: f64 = 0.95;
/// A resource that is normally below this share of its limit has room.
const USUALLY_FREE: f64 = 0.85;
/// Least certainty of a resource that reached its limit, 0..1.
const AT_LIMIT: f64 = 0.6;
/// Resources that fill while requests wait.
const WAITING: &[&str] = &[
    "connections",
    "connection-pool",
    "in-flight",
    "pending",
    "threads",
    "worker-threads",
    "executor",
    "goroutines",
    "sessions",
    "queue-time",
    "active-queries",
];

/// Everything known about an incident at one point in time. All entities are canonical: one thing has one entity.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Estimated onset of the incident.
    pub began_at: Timestamp,
    /// Newest telemetry time.
    pub now: Timestamp,
    /// The entities of the incident; empty if there is none.
    pub members: BTreeSet<Entity>,
    /// Signals of the entities concerned, healthy ones included: an entity without any cannot be seen.
    pub signals: Vec<SignalFact>,
    /// Known relations between the entities.
    pub relations: Vec<Relation>,
    /// Deployments, restarts, settings and the like since the configured time before the onset.
    pub events: Vec<Event>,
    /// Log templates whose rate changed.
    pub templates: Vec<TemplateFact>,
    /// The findings of the incident: rules over signals that hold.
    pub findings: Vec<Finding>,
    /// What was asked for and has been looked up.
    pub answered: BTreeSet<Need>,
}

/// One signal compared with its own past.
#[derive(Clone, Debug, PartialEq)]
pub struct SignalFact {
    /// The signal.
    pub signal: SignalId,
    /// Unit of the values.
    pub unit: SignalUnit,
    /// Which values are bad.
    pub direction: Direction,
    /// Typical value since the onset.
    pub value: f64,
    /// Normal value before.
    pub expected: f64,
    /// Robust standard deviations from the normal value, with its sign.
    pub z: f64,
    /// Estimated time of the shift; `None` if the signal is as before.
    pub onset: Option<Timestamp>,
    /// Time between two of its points, in ms; 0 if unknown. The onset is known no better than to about two of them.
    pub interval_ms: i64,
    /// Whether a rule holds for it, or its value is beyond its limit.
    pub is_bad: bool,
    /// Whether it had points before and has none since.
    pub is_gone: bool,
    /// Whether it tells about the monitoring itself.
    pub is_internal: bool,
}

/// How often a log template appears, compared with before.
#[derive(Clone, Debug, PartialEq)]
pub struct TemplateFact {
    /// The entity that logs it.
    pub entity: Entity,
    /// The template.
    pub template: String,
    /// One original line. Untrusted text.
    pub example: String,
    /// Severity of its lines.
    pub severity: Severity,
    /// Lines since the onset.
    pub count: f64,
    /// Lines that the time before makes expect for an equal time; `None` if nothing was seen before at all.
    pub expected: Option<f64>,
    /// Time of the template's first line, or of the last one if it is gone.
    pub at: Timestamp,
}

/// How the rate of a template changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TemplateChange {
    New,
    Burst,
    Gone,
}

impl SignalFact {
    /// Returns by how many robust standard deviations the value is on the bad side; negative on the good one.
    pub fn badness(&self) -> f64 {
        match self.direction {
            Direction::High => self.z,
            Direction::Low => -self.z,
            Direction::Neutral => self.z.abs(),
        }
    }

    /// Returns the size of the effect, 0..1, whatever its direction and however certain it is.
    fn effect(&self) -> f64 {
        let saturating = |x: f64| 1.0 - (-x.max(0.0)).exp();
        let delta = (self.value - self.expected).abs();
        // Differences that do not matter change the ratio of small values little.
        let floor = difference_floor(&self.signal, self.unit);
        let log_ratio = log_ratio(self.value.abs() + floor, self.expected.abs() + floor).abs();
        match self.signal.kind {
            // Below half a percentage point any few requests may fail.
            SignalKind::Errors if self.unit == SignalUnit::Ratio && delta < 0.005 => 0.0,
            // 10 percentage points are much whatever was before; so is twenty times as much as before.
            SignalKind::Errors if self.unit == SignalUnit::Ratio => {
                saturating(delta / 0.1).max(saturating(log_ratio / 2.0) * saturating(delta / 0.005))
            }
            SignalKind::Availability => saturating(delta / 0.2),
            SignalKind::Saturation if self.unit == SignalUnit::Ratio => {
                // Towards the limit counts for more than far from it.
                let room = (self.value.clamp(0.0, 1.0) - 0.5).max(0.0) * 2.0;
                saturating(delta / 0.15).max(saturating(log_ratio)) * room.mul_add(0.8, 0.2)
            }
            SignalKind::Restarts => saturating(self.value - self.expected),
            SignalKind::Expiry | SignalKind::Freshness => saturating(log_ratio),
            _ => saturating(log_ratio / 0.7),
        }
    }

    /// Returns whether it is a resource at its limit that was not before: however much it varied, it cannot go on so.
    fn reached_limit(&self) -> bool {
        self.signal.kind == SignalKind::Saturation
            && self.unit == SignalUnit::Ratio
            && self.value >= FULL
            && self.expected < USUALLY_FREE
    }

    /// Returns how strongly the signal speaks of a fault, 0..1: certainty of the shift times size of its effect.
    pub fn strength(&self) -> f64 {
        let certainty = 1.0 - (-(self.badness() - 2.0).max(0.0) / 4.0).exp();
        let certainty = if self.reached_limit() { certainty.max(AT_LIMIT) } else { certainty };
        let mut strength = certainty * self.effect();
        if self.is_bad {
            strength = strength.max(0.6);
        }
        if self.is_internal { strength * 0.25 } else { strength }
    }

    /// Returns whether it measures work that waits or is under way at a client or server: it fills when what is called
    /// gets slow. The connections of a data store are its own resource.
    pub(crate) fn is_waiting(&self) -> bool {
        !is_store(&self.signal.entity) && WAITING.contains(&self.signal.resource.as_str())
    }

    /// Returns whether this availability says that the entity serves, instead of that some function of it works.
    pub(crate) fn says_up(&self) -> bool {
        self.signal.kind == SignalKind::Availability && SERVES.contains(&self.signal.resource.as_str())
    }

    /// Returns by how much a rate differs from before, 0..1, in whichever direction.
    pub(crate) fn change_of_rate(&self) -> f64 {
        let size = 1.0 - (-log_ratio(self.value, self.expected).abs() / 0.7).exp();
        size * (1.0 - (-(self.z.abs() - 2.0).max(0.0) / 4.0).exp())
    }

    /// Returns whether it is worse than before beyond doubt.
    pub fn is_shifted(&self) -> bool {
        self.is_bad || self.strength() >= 0.2
    }
}

/// Whether an entity keeps data or work for others.
pub(crate) const fn is_store(entity: &Entity) -> bool {
    matches!(entity.kind, EntityKind::Database | EntityKind::Cache | EntityKind::Queue)
}

/// Returns ln(value / expected), with both at least one thousandth of the larger.
pub(crate) fn log_ratio(value: f64, expected: f64) -> f64 {
    let floor = 1e-3 * value.abs().max(expected.abs()).max(1e-9);
    (value.abs().max(floor) / expected.abs().max(floor)).ln()
}

impl TemplateFact {
    /// Returns how the rate of the template changed, if it did.
    pub(crate) fn change(&self) -> Option<TemplateChange> {
        let Some(expected) = self.expected else { return (self.count >= 1.0).then_some(TemplateChange::New) };
        // The spread of counts is that of a Poisson process.
        let deviation = (self.count - expected) / expected.max(1.0).sqrt();
        if expected < 0.5 && self.count >= 1.0 {
            Some(TemplateChange::New)
        } else if deviation >= 4.0 && self.count >= 2.0 * expected {
            Some(TemplateChange::Burst)
        } else if expected >= 4.0 && self.count <= 0.2 * expected {
            Some(TemplateChange::Gone)
        } else {
            None
        }
    }

    /// Returns how strongly the template speaks of a fault, 0..1.
    pub(crate) fn strength(&self) -> f64 {
        let size = match self.change() {
            None => return 0.0,
            Some(TemplateChange::New) => 1.0 - (-self.count / 5.0).exp(),
            Some(TemplateChange::Burst) => 0.8,
            // A line that belongs to every request and is gone says where requests end.
            Some(TemplateChange::Gone) => 0.9 * (1.0 - (-self.expected.unwrap_or(0.0) / 8.0).exp()),
        };
        match self.severity {
            // How bad a line is says nothing when it is gone.
            _ if self.change() == Some(TemplateChange::Gone) => 0.6 * size,
            Severity::Critical | Severity::High => size,
            Severity::Warning => 0.6 * size,
            Severity::Info => 0.3 * size,
        }
    }
}
