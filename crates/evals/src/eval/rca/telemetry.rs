//! Facts from recorded telemetry: what every adapter builds its cases with.

use std::collections::BTreeMap;

use wardroom_diagnose::{Facts, Normal, SignalFact, SignalShift, difference_floor};
use wardroom_domain::{Entity, Relation, RelationKind, SignalId, SignalKind, Timestamp};
use wardroom_signals::{Direction, SignalUnit};

/// One case: what diagnosis is told, and what the prediction names.
pub(crate) struct RcaCase {
    /// Identifier of the data set.
    pub(crate) id: String,
    pub(crate) facts: Facts,
    /// Name of the true entity, for fitting only.
    pub(crate) truth: Option<String>,
    /// How the data set spells signals and templates: text by signal or template.
    pub(super) spelling: BTreeMap<String, String>,
}

/// One signal's recording: values before the fault, and (time in ms, value) since.
pub(super) struct Recording {
    pub(super) signal: SignalId,
    pub(super) unit: SignalUnit,
    pub(super) before: Vec<f64>,
    pub(super) since: Vec<(i64, f64)>,
}

/// Names a signal of an entity.
pub(super) fn signal(entity: &Entity, kind: SignalKind, resource: &str, metric: &str) -> SignalId {
    SignalId { entity: entity.clone(), peer: None, kind, resource: resource.to_owned(), metric: metric.to_owned() }
}

/// Compares a recording with its past by the product's own measure; `None` without a past or without points since.
pub(super) fn fact(recording: &Recording, from_ms: i64) -> Option<SignalFact> {
    let Recording { signal, unit, before, since } = recording;
    let normal = Normal::of(before)?;
    let shift = SignalShift::measure(&normal, since, from_ms, difference_floor(signal, *unit))?;
    let direction = match signal.kind {
        SignalKind::Traffic | SignalKind::Other => Direction::Neutral,
        SignalKind::Availability | SignalKind::Expiry => Direction::Low,
        _ => Direction::High,
    };
    Some(SignalFact {
        signal: signal.clone(),
        unit: *unit,
        direction,
        value: shift.value,
        expected: shift.expected,
        z: shift.z,
        onset: shift.onset_ms.map(Timestamp::from_millis),
        is_bad: false,
        is_gone: false,
        is_internal: false,
    })
}

/// Names a call.
pub(super) fn calls(from: &Entity, to: &Entity) -> Relation {
    Relation { from: from.clone(), kind: RelationKind::Calls, to: to.clone() }
}
