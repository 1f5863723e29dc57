//! How attempts at effects end.

use std::time::Duration;

use serde_json::Value;
use wardroom_domain::Outcome;
use wardroom_store::{EffectRow, FinishedEffect};

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Performed {
    /// The row is finished; the word for the metric.
    Finished(&'static str),
    /// It is to be retried, for this reason, after this time or the usual back-off.
    Retry(String, Option<Duration>),
}

/// The end of an action or an undo.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ActionEnd {
    pub(crate) outcome: Outcome,
    pub(crate) detail: String,
}

/// What an effect is called in the names of crash points: its kind, and that it is not the first step's.
pub(crate) fn crash_name(effect: &EffectRow) -> String {
    let payload: Value = serde_json::from_str(&effect.payload).unwrap_or_default();
    let is_later = payload["step"].as_u64().is_some_and(|step| step > 0);
    if is_later { format!("{}_later", effect.kind) } else { effect.kind.clone() }
}

/// The end of an effect that this process has leased.
pub(crate) fn finished(effect: &EffectRow, result: &Value) -> FinishedEffect {
    FinishedEffect { id: effect.id.clone(), fencing: effect.fencing, result: result.to_string() }
}
