//! What is read of an engine while it works.

use std::sync::MutexGuard;

use wardroom_domain::{Deployment, Timestamp};

use crate::deployments::Deployments;
use crate::signal::{Signal, SignalKey};
use crate::signals::Signals;

/// The signals and deployments of an engine after a batch. Cheap to create and to clone; reading it never waits for a
/// batch, and no batch waits for its readers.
#[derive(Clone, Debug, Default)]
pub struct EngineView {
    pub(crate) signals: Signals,
    pub(crate) deployments: Deployments,
    pub(crate) watermark_ms: i64,
}

impl EngineView {
    /// Returns all signals.
    pub fn signals(&self) -> impl Iterator<Item = (&SignalKey, MutexGuard<'_, Signal>)> {
        self.signals.iter()
    }

    /// Returns one signal.
    pub fn signal(&self, key: &SignalKey) -> Option<MutexGuard<'_, Signal>> {
        self.signals.get(key)
    }

    /// Returns the map of all signals.
    pub const fn signal_map(&self) -> &Signals {
        &self.signals
    }

    /// Returns the newest event time of all telemetry, in ms.
    pub const fn watermark_ms(&self) -> i64 {
        self.watermark_ms
    }

    /// Returns the deployments in a time range, oldest first.
    pub fn deployments(&self, from: Timestamp, to: Timestamp) -> Vec<Deployment> {
        self.deployments.between(from, to).cloned().collect()
    }
}
