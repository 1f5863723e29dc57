//! Builds facts in few words.

use wardroom_diagnose::{Config, Facts, SignalFact, TemplateFact, Weights, diagnose};
use wardroom_domain::{
    Diagnosis, Entity, EntityKind, Event, EventKind, Labels, Relation, RelationKind, Severity, SignalId, SignalKind,
    Timestamp,
};
use wardroom_signals::{Direction, SignalUnit};

pub(crate) const BEGAN_AT_MS: i64 = 1_795_255_200_000;

pub(crate) fn at(seconds_after: i64) -> Timestamp {
    Timestamp::from_millis(BEGAN_AT_MS + seconds_after * 1000)
}

pub(crate) fn service(name: &str) -> Entity {
    Entity::service(name)
}

pub(crate) fn entity(kind: EntityKind, name: &str) -> Entity {
    Entity::named(kind, name)
}

/// A small estate that is healthy until said otherwise.
#[derive(Default)]
pub(crate) struct Estate(pub(crate) Facts);

impl Estate {
    pub(crate) fn new() -> Self {
        Self(Facts { began_at: at(0), now: at(60), ..Facts::default() })
    }

    pub(crate) fn signal(
        mut self,
        (entity, peer): (&Entity, Option<&Entity>),
        (kind, resource): (SignalKind, &str),
        (value, expected): (f64, f64),
    ) -> Self {
        let unit = match kind {
            SignalKind::Errors | SignalKind::Availability => SignalUnit::Ratio,
            SignalKind::Saturation if expected <= 1.0 => SignalUnit::Ratio,
            SignalKind::Latency | SignalKind::Expiry => SignalUnit::Seconds,
            SignalKind::Traffic => SignalUnit::PerSecond,
            _ => SignalUnit::Number,
        };
        let direction = match kind {
            SignalKind::Availability | SignalKind::Expiry => Direction::Low,
            SignalKind::Traffic => Direction::Neutral,
            _ => Direction::High,
        };
        let z = (value - expected) / (0.05 * expected).max(0.005);
        self.0.signals.push(SignalFact {
            signal: SignalId {
                entity: entity.clone(),
                peer: peer.cloned(),
                kind,
                resource: resource.into(),
                metric: "m".into(),
            },
            unit,
            direction,
            value,
            expected,
            z: z.clamp(-100.0, 100.0),
            onset: (z.abs() >= 3.0).then(|| at(0)),
            interval_ms: 15_000,
            is_bad: false,
            is_gone: false,
            is_internal: false,
        });
        self
    }

    pub(crate) fn own(self, entity: &Entity, kind: SignalKind, resource: &str, value: f64, expected: f64) -> Self {
        self.signal((entity, None), (kind, resource), (value, expected))
    }

    pub(crate) fn healthy(self, entity: &Entity) -> Self {
        self.own(entity, SignalKind::Errors, "", 0.0, 0.0).own(entity, SignalKind::Latency, "", 0.05, 0.05)
    }

    pub(crate) fn slow(self, entity: &Entity, seconds: f64) -> Self {
        self.own(entity, SignalKind::Errors, "", 0.0, 0.0).own(entity, SignalKind::Latency, "", seconds, 0.05)
    }

    pub(crate) fn failing(self, entity: &Entity, share: f64) -> Self {
        self.own(entity, SignalKind::Errors, "", share, 0.001).own(entity, SignalKind::Latency, "", 0.05, 0.05)
    }

    pub(crate) fn call(self, from: &Entity, to: &Entity, kind: SignalKind, value: f64, expected: f64) -> Self {
        self.signal((from, Some(to)), (kind, ""), (value, expected))
    }

    pub(crate) fn relation(mut self, from: &Entity, kind: RelationKind, to: &Entity) -> Self {
        self.0.relations.push(Relation { from: from.clone(), kind, to: to.clone() });
        self
    }

    pub(crate) fn calls(self, from: &Entity, to: &Entity) -> Self {
        self.relation(from, RelationKind::Calls, to)
    }

    pub(crate) fn uses(self, from: &Entity, to: &Entity) -> Self {
        self.relation(from, RelationKind::Uses, to)
    }

    pub(crate) fn event(
        mut self,
        entity: &Entity,
        kind: EventKind,
        seconds_after: i64,
        attributes: &[(&str, &str)],
    ) -> Self {
        let attributes = Labels::of(attributes);
        let source = "inferred".into();
        self.0.events.push(Event { at: at(seconds_after), entity: entity.clone(), kind, source, attributes });
        self
    }

    pub(crate) fn log(mut self, entity: &Entity, template: &str, count: f64, expected: Option<f64>) -> Self {
        self.0.templates.push(TemplateFact {
            entity: entity.clone(),
            template: template.into(),
            example: template.into(),
            severity: Severity::High,
            count,
            expected,
            at: at(2),
        });
        self
    }

    pub(crate) fn diagnose(&self) -> Diagnosis {
        let diagnosis = diagnose(&self.0, &Config::default(), &Weights::builtin().unwrap());
        for cause in &diagnosis.causes {
            assert!(!cause.evidence.is_empty(), "{cause:?}");
            for id in &cause.evidence {
                assert_eq!(diagnosis.evidence.iter().filter(|item| item.id == *id).count(), 1, "{id}");
            }
        }
        assert!(diagnosis.causes.windows(2).all(|pair| pair[0].confidence >= pair[1].confidence));
        diagnosis
    }

    /// Asserts who is at fault, and how.
    pub(crate) fn check(&self, entity: &Entity, rule: &str) -> Diagnosis {
        let diagnosis = self.diagnose();
        let best = diagnosis.best().unwrap();
        assert_eq!((&best.entity, best.rule.as_str()), (entity, rule), "{diagnosis:#?}");
        diagnosis
    }
}
