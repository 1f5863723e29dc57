//! All signals of a tenant, readable while detection works.
//!
//! Problem: pages and incident response read signals; if they locked the whole state, a slow reader would stop
//! detection, and a slow batch every reader. Model: the map is shared and replaced only when a signal is added or
//! removed, and each signal has a lock of its own, which is held while one point is added or one history is copied. A
//! reader sees each signal as of some moment, not all of one moment.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Serialize, Serializer};

use crate::series_detector::SeriesDetector;
use crate::signal::{Signal, SignalKey};

/// The signals of one tenant. A clone shares the signals, but not later additions and removals.
#[derive(Clone, Debug, Default)]
pub struct Signals {
    cells: Arc<BTreeMap<Arc<SignalKey>, Arc<Mutex<Signal>>>>,
    calls_version: u64,
}

impl Signals {
    /// Returns all signals, ordered by key. A signal is locked until its guard is dropped, so a caller drops each
    /// before the next or keeps few.
    pub fn iter(&self) -> impl Iterator<Item = (&SignalKey, MutexGuard<'_, Signal>)> {
        self.cells.iter().map(|(key, cell)| (&**key, lock(cell)))
    }

    /// Returns one signal, locked.
    pub fn get(&self, key: &SignalKey) -> Option<MutexGuard<'_, Signal>> {
        self.cells.get(key).map(|cell| lock(cell))
    }

    /// Returns the keys of all signals, in order.
    pub fn keys(&self) -> impl Iterator<Item = &SignalKey> {
        self.cells.keys().map(|key| &**key)
    }

    /// Returns the number of signals.
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Returns whether there are no signals.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// Returns the pairs of caller and callee that have signals; a pair may come several times.
    pub fn calls(&self) -> impl Iterator<Item = (&str, &str)> {
        self.keys().filter_map(|key| Some((key.service.as_str(), key.peer.as_deref()?)))
    }

    /// Returns a number that changes whenever the result of [`Signals::calls`] changes.
    pub const fn calls_version(&self) -> u64 {
        self.calls_version
    }

    /// Returns a signal; adds it if it is new.
    pub(crate) fn get_or_insert(&mut self, key: &SignalKey) -> MutexGuard<'_, Signal> {
        if !self.cells.contains_key(key) {
            self.calls_version += u64::from(key.peer.is_some());
            let signal = Arc::new(Mutex::new(Signal::new(SeriesDetector::default())));
            Arc::make_mut(&mut self.cells).insert(Arc::new(key.clone()), signal);
        }
        lock(&self.cells[key])
    }

    /// Removes the signals without a point since a time.
    pub(crate) fn evict_before(&mut self, before_ms: i64) {
        let is_old = |signal: &Signal| signal.history.back().is_none_or(|(at_ms, _)| *at_ms < before_ms);
        if self.cells.values().any(|cell| is_old(&lock(cell))) {
            self.calls_version += 1;
            Arc::make_mut(&mut self.cells).retain(|_, cell| !is_old(&lock(cell)));
        }
    }
}

impl From<BTreeMap<SignalKey, Signal>> for Signals {
    fn from(signals: BTreeMap<SignalKey, Signal>) -> Self {
        let cells = signals.into_iter().map(|(key, signal)| (Arc::new(key), Arc::new(Mutex::new(signal))));
        Self { cells: Arc::new(cells.collect()), calls_version: 0 }
    }
}

/// Serializes like a `BTreeMap<SignalKey, Signal>`.
impl Serialize for Signals {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().map(|(key, signal)| (key, Locked(signal))))
    }
}

struct Locked<'a>(MutexGuard<'a, Signal>);

impl Serialize for Locked<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// A detector that panicked leaves a signal in a valid state: the point is retried or dead-lettered.
fn lock(cell: &Mutex<Signal>) -> MutexGuard<'_, Signal> {
    cell.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, SignalKind};

    fn key(service: &str, peer: Option<&str>) -> SignalKey {
        let metric = "m".to_owned();
        SignalKey { service: service.into(), peer: peer.map(str::to_owned), kind: SignalKind::Cpu, metric }
    }

    fn observe(signals: &mut Signals, key: &SignalKey, at_ms: i64) {
        signals.get_or_insert(key).observe(key, at_ms, 1.0, &Config::default());
    }

    #[test]
    fn a_clone_sees_new_points_but_no_new_signals() {
        let (mut signals, a, b) = (Signals::default(), key("a", None), key("b", Some("c")));
        observe(&mut signals, &a, 1);
        let view = signals.clone();
        observe(&mut signals, &a, 2);
        observe(&mut signals, &b, 2);
        assert_eq!((view.len(), view.get(&a).unwrap().history.len()), (1, 2));
        assert_eq!(signals.calls().collect::<Vec<_>>(), [("b", "c")]);
        assert_ne!(view.calls_version(), signals.calls_version());
    }

    #[test]
    fn old_signals_are_removed_and_saved_ones_are_equal() {
        let (mut signals, a, b) = (Signals::default(), key("a", None), key("b", Some("c")));
        observe(&mut signals, &a, 1000);
        observe(&mut signals, &b, 2000);
        let bytes = postcard::to_allocvec(&signals).unwrap();
        let loaded = Signals::from(postcard::from_bytes::<BTreeMap<SignalKey, Signal>>(&bytes).unwrap());
        assert_eq!(format!("{:?}", loaded.get(&b)), format!("{:?}", signals.get(&b)));
        signals.evict_before(1001);
        assert_eq!(signals.keys().collect::<Vec<_>>(), [&b]);
        let version = signals.calls_version();
        signals.evict_before(1001);
        assert_eq!(signals.calls_version(), version, "nothing changed");
        signals.evict_before(2001);
        assert!(signals.is_empty() && signals.calls_version() != version);
    }
}
