//! The signals that verification judges an action by, from what detection knows.

use wardroom_detect::EngineView;
use wardroom_domain::Entity;
use wardroom_pipeline::detection::incident_signals::bad_signals;
use wardroom_respond::WatchedSignal;

/// Returns the signals of an incident's entities that are bad now and have to become good.
pub(crate) fn watched_signals(view: &EngineView, entities: &[Entity]) -> Vec<WatchedSignal> {
    let found = bad_signals(view, entities).into_iter();
    let watched = found.map(|found| WatchedSignal {
        signal: found.signal.labels(),
        expected: found.bad.expected,
        limit: found.bad.limit,
        low_is_bad: found.bad.low_is_bad,
        interval_ms: found.interval_ms,
    });
    watched.collect()
}
