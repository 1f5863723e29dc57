//! What is read of an engine while it works.

use std::sync::MutexGuard;

use wardroom_domain::{Deployment, Entity, Event, SignalId, Timestamp};
use wardroom_signals::EntityGraph;

use crate::evaluation::Signal;
use crate::events::{Events, deployment_of};
use crate::signals::Signals;

/// The signals, events and entities of an engine after a batch. Cheap to create and to clone; reading it never waits
/// for a batch, and no batch waits for its readers.
#[derive(Clone, Debug, Default)]
pub struct EngineView {
    pub(crate) signals: Signals,
    pub(crate) events: Events,
    pub(crate) graph: EntityGraph,
    pub(crate) watermark_ms: i64,
}

impl EngineView {
    /// Returns all signals.
    pub fn signals(&self) -> impl Iterator<Item = (&SignalId, MutexGuard<'_, Signal>)> {
        self.signals.iter()
    }

    /// Returns one signal.
    pub fn signal(&self, id: &SignalId) -> Option<MutexGuard<'_, Signal>> {
        self.signals.get(id)
    }

    /// Returns the map of all signals.
    pub const fn signal_map(&self) -> &Signals {
        &self.signals
    }

    /// Returns the newest event time of all telemetry, in ms; `i64::MIN` before any.
    pub const fn watermark_ms(&self) -> i64 {
        self.watermark_ms
    }

    /// Returns which entities are known, and how they depend on each other.
    pub const fn graph(&self) -> &EntityGraph {
        &self.graph
    }

    /// Returns the events in a time range (both ends inclusive), oldest first.
    pub fn events(&self, from: Timestamp, to: Timestamp) -> Vec<Event> {
        self.events.between(from, to).cloned().collect()
    }

    /// Returns the deployments in a time range with what was deployed, reported and inferred, oldest first.
    pub fn deployments(&self, from: Timestamp, to: Timestamp) -> Vec<(Entity, Deployment)> {
        let deployed = |event: &Event| Some((event.entity.clone(), deployment_of(event)?));
        self.events.between(from, to).filter_map(deployed).collect()
    }
}
