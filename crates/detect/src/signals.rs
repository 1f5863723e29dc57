//! All signals of a tenant, readable while detection works.
//!
//! Problem: pages and incident response read signals; if they locked the whole state, a slow reader would stop
//! detection, and a slow batch every reader. Model: the map is shared and replaced only when a signal is added or
//! removed, and each signal has a lock of its own, which is held while one point is added or one history is copied. A
//! reader sees each signal as of some moment, not all of one moment.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Serialize, Serializer};
use wardroom_domain::SignalId;

use crate::evaluation::Signal;

/// Signals of one tenant; points of further ones are not judged.
const MAX_SIGNALS: usize = 200_000;

/// The signals of one tenant. A clone shares the signals, but not later additions and removals.
#[derive(Clone, Debug, Default)]
pub struct Signals {
    cells: Arc<BTreeMap<Arc<SignalId>, Arc<Mutex<Signal>>>>,
}

/// One signal of the map, found once for many points.
#[derive(Clone, Debug)]
pub(crate) struct SignalCell {
    pub(crate) id: Arc<SignalId>,
    signal: Arc<Mutex<Signal>>,
}

impl SignalCell {
    /// Locks the signal.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Signal> {
        lock(&self.signal)
    }
}

impl Signals {
    /// Returns all signals, ordered by id. A signal is locked until its guard is dropped, so a caller drops each
    /// before the next or keeps few.
    pub fn iter(&self) -> impl Iterator<Item = (&SignalId, MutexGuard<'_, Signal>)> {
        self.cells.iter().map(|(id, cell)| (&**id, lock(cell)))
    }

    /// Returns one signal, locked.
    pub fn get(&self, id: &SignalId) -> Option<MutexGuard<'_, Signal>> {
        self.cells.get(id).map(|cell| lock(cell))
    }

    /// Returns the ids of all signals, in order.
    pub fn keys(&self) -> impl Iterator<Item = &SignalId> {
        self.cells.keys().map(|id| &**id)
    }

    /// Returns the number of signals.
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Returns whether there are no signals.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// Returns a signal; adds it if it is new. Returns `None` beyond [`MAX_SIGNALS`].
    pub(crate) fn get_or_insert(&mut self, id: SignalId) -> Option<SignalCell> {
        if let Some((id, signal)) = self.cells.get_key_value(&id) {
            return Some(SignalCell { id: Arc::clone(id), signal: Arc::clone(signal) });
        }
        if self.cells.len() >= MAX_SIGNALS {
            return None;
        }
        let (id, signal) = (Arc::new(id), Arc::new(Mutex::new(Signal::default())));
        Arc::make_mut(&mut self.cells).insert(Arc::clone(&id), Arc::clone(&signal));
        Some(SignalCell { id, signal })
    }

    /// Returns whether a signal of this entity, kind and resource, whatever its metric is, had a point at a time or
    /// before.
    pub(crate) fn is_known(&self, id: &SignalId, resource: &str, at_ms: i64) -> bool {
        let first = SignalId { peer: None, resource: resource.to_owned(), metric: String::new(), ..id.clone() };
        let range = (Bound::Included(&first), Bound::<&SignalId>::Unbounded);
        let same = |other: &SignalId| (&other.entity, other.kind, &*other.resource) == (&id.entity, id.kind, resource);
        let of_resource = self.cells.range::<SignalId, _>(range).take_while(|(other, _)| same(other));
        of_resource.map(|(_, cell)| lock(cell)).any(|signal| signal.history.front().is_some_and(|(at, _)| *at <= at_ms))
    }

    /// Removes the signals without a point since a time; returns their number.
    pub(crate) fn evict_before(&mut self, before_ms: i64) -> usize {
        let is_old = |signal: &Signal| signal.history.back().is_none_or(|(at_ms, _)| *at_ms < before_ms);
        let before = self.cells.len();
        if self.cells.values().any(|cell| is_old(&lock(cell))) {
            Arc::make_mut(&mut self.cells).retain(|_, cell| !is_old(&lock(cell)));
        }
        before - self.cells.len()
    }

    /// Returns whether there is no room for another signal.
    pub(crate) fn is_full(&self) -> bool {
        self.cells.len() >= MAX_SIGNALS
    }
}

impl From<BTreeMap<SignalId, Signal>> for Signals {
    fn from(signals: BTreeMap<SignalId, Signal>) -> Self {
        let cells = signals.into_iter().map(|(id, signal)| (Arc::new(id), Arc::new(Mutex::new(signal))));
        Self { cells: Arc::new(cells.collect()) }
    }
}

/// Serializes like a `BTreeMap<SignalId, Signal>`.
impl Serialize for Signals {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().map(|(id, signal)| (id, Locked(signal))))
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
    use wardroom_domain::{Entity, SignalKind};
    use wardroom_signals::{Direction, SignalUnit};

    use super::*;
    use crate::{Config, Point};

    fn id(service: &str, peer: Option<&str>) -> SignalId {
        let (resource, metric) = ("cpu".to_owned(), "m".to_owned());
        SignalId {
            entity: Entity::service(service),
            peer: peer.map(Entity::service),
            kind: SignalKind::Saturation,
            resource,
            metric,
        }
    }

    fn observe(signals: &mut Signals, id: &SignalId, at_ms: i64) {
        let point = Point { at_ms, window_ms: 1000, value: 0.5, members: 1, ..Point::default() };
        let cell = signals.get_or_insert(id.clone()).unwrap();
        cell.lock().observe(id, SignalUnit::Ratio, Direction::High, &point, &Config::default());
    }

    #[test]
    fn a_clone_sees_new_points_but_no_new_signals() {
        let (mut signals, a, b) = (Signals::default(), id("a", None), id("b", Some("c")));
        observe(&mut signals, &a, 1000);
        let view = signals.clone();
        observe(&mut signals, &a, 2000);
        observe(&mut signals, &b, 2000);
        assert_eq!((view.len(), view.get(&a).unwrap().history.len(), signals.len()), (1, 2, 2));
    }

    #[test]
    fn old_signals_are_removed_and_saved_ones_are_equal() {
        let (mut signals, a, b) = (Signals::default(), id("a", None), id("b", Some("c")));
        observe(&mut signals, &a, 1000);
        observe(&mut signals, &b, 2000);
        let bytes = postcard::to_allocvec(&signals).unwrap();
        let loaded = Signals::from(postcard::from_bytes::<BTreeMap<SignalId, Signal>>(&bytes).unwrap());
        assert_eq!(format!("{:?}", loaded.get(&b)), format!("{:?}", signals.get(&b)));
        assert_eq!(signals.evict_before(1001), 1);
        assert_eq!(signals.keys().collect::<Vec<_>>(), [&b]);
        assert_eq!(signals.evict_before(1001), 0);
        assert_eq!(signals.evict_before(2001), 1);
        assert!(signals.is_empty() && !signals.is_full());
    }
}
