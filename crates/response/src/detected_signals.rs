//! What detection knows, as the response reads it.

use std::sync::MutexGuard;

use wardroom_detect::{EngineView, Signal};
use wardroom_domain::{Entity, SignalId};
use wardroom_respond::{CrossedLimit, KnownSignal, KnownSignals};

/// The signals of a tenant.
pub(crate) struct DetectedSignals<'a>(pub(crate) &'a EngineView);

/// One signal; no other reads it meanwhile.
pub(crate) struct DetectedSignal<'a>(MutexGuard<'a, Signal>);

impl KnownSignal for DetectedSignal<'_> {
    fn interval_ms(&self) -> i64 {
        self.0.interval_ms()
    }

    fn points(&self) -> impl DoubleEndedIterator<Item = (i64, f64)> + ExactSizeIterator {
        self.0.history.iter().copied()
    }

    fn normal(&self) -> f64 {
        self.0.baseline().center
    }

    fn crossed_limit(&self) -> Option<CrossedLimit> {
        let bad = self.0.bad().filter(|bad| bad.opens)?;
        Some(CrossedLimit { limit: bad.limit, low_is_bad: bad.low_is_bad, expected: bad.expected })
    }
}

impl KnownSignals for DetectedSignals<'_> {
    type Signal<'a>
        = DetectedSignal<'a>
    where
        Self: 'a;

    fn now_ms(&self) -> i64 {
        self.0.watermark_ms()
    }

    fn signals(&self) -> impl Iterator<Item = (&SignalId, Self::Signal<'_>)> {
        self.0.signals().map(|(id, signal)| (id, DetectedSignal(signal)))
    }

    fn signal(&self, id: &SignalId) -> Option<Self::Signal<'_>> {
        self.0.signal(id).map(DetectedSignal)
    }

    fn canonical(&self, entity: &Entity) -> Entity {
        self.0.graph().canonical(entity)
    }

    fn are_connected(&self, a: &Entity, b: &Entity) -> bool {
        self.0.graph().connected(a, b)
    }
}
