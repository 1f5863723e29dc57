//! Recorded requests with a known fault: the facts of the first incident after the injection, as the server has them.

use std::path::Path;

use super::super::score::is_right;
use super::super::tape;
use super::telemetry::RcaCase;

/// Returns whether the folder holds tapes.
pub(super) fn is_here(data: &Path) -> bool {
    tape::folders(data).is_ok()
}

/// Plays all tapes with a fault. One without an incident has no facts and is left out: nothing was to be diagnosed.
pub(super) fn cases(data: &Path) -> anyhow::Result<Vec<RcaCase>> {
    let mut cases = Vec::new();
    for folder in tape::folders(data)? {
        let (known, incidents) = tape::incidents(&folder)?;
        let Some(facts) = incidents.into_iter().find(|found| !known.is_before(found)).and_then(|found| found.facts)
        else {
            continue;
        };
        let entities = facts.signals.iter().flat_map(|fact| [Some(&fact.signal.entity), fact.signal.peer.as_ref()]);
        let names = entities.flatten().map(|entity| entity.name.clone());
        let mut truth: Vec<String> = names.filter(|name| is_right(name, &known.names)).collect();
        truth.sort();
        truth.dedup();
        cases.push(RcaCase { id: known.name, system: "tapes".into(), facts, truth, spelling: Default::default() });
    }
    Ok(cases)
}
