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

/// The end of an effect that this process has leased.
pub(crate) fn finished(effect: &EffectRow, result: &Value) -> FinishedEffect {
    FinishedEffect { id: effect.id.clone(), fencing: effect.fencing, result: result.to_string() }
}
