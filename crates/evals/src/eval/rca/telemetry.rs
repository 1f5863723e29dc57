//! Facts from recorded telemetry: what every adapter builds its cases with.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use wardroom_diagnose::{Facts, Normal, SignalFact, SignalShift, difference_floor, direction_of};
use wardroom_domain::{Entity, Relation, RelationKind, SignalId, SignalKind, Timestamp};
use wardroom_signals::SignalUnit;

/// One case: the facts for diagnosis, and what the prediction names.
pub(crate) struct RcaCase {
    /// Identifier of the data set.
    pub(crate) id: String,
    /// The system that was recorded.
    pub(crate) system: String,
    pub(crate) facts: Facts,
    /// Names of the entities at fault, any of which is right; for fitting only.
    pub(crate) truth: Vec<String>,
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

/// Reads a file with one JSON value a line.
pub(super) fn read_lines(path: &Path) -> anyhow::Result<Vec<serde_json::Value>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    text.lines().filter(|line| !line.is_empty()).map(|line| Ok(serde_json::from_str(line)?)).collect()
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
    Some(SignalFact {
        signal: signal.clone(),
        unit: *unit,
        direction: direction_of(signal.kind),
        value: shift.value,
        expected: shift.expected,
        z: shift.z,
        onset: shift.onset_ms.map(Timestamp::from_millis),
        interval_ms: interval_ms(since),
        is_bad: false,
        is_gone: false,
        is_internal: false,
    })
}

/// Returns the usual time between two points, in ms; 0 of fewer than two.
fn interval_ms(points: &[(i64, f64)]) -> i64 {
    let distances: Vec<f64> = points.windows(2).map(|pair| (pair[1].0 - pair[0].0) as f64).collect();
    wardroom_diagnose::median(&distances).unwrap_or_default() as i64
}

/// Names a call.
pub(super) fn calls(from: &Entity, to: &Entity) -> Relation {
    Relation { from: from.clone(), kind: RelationKind::Calls, to: to.clone() }
}
