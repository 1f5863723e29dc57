//! The incidents that the response may still change by itself, and when it looks at which of them.
//!
//! Problem: thousands may await an approval for hours, and reading or judging each of them all the time takes a core.
//! Model: an incident is looked at when it was changed, and at times that are known beforehand (see
//! [`Workflow::due`]); of the others only revision and time are kept. All of it is made from the database at a start.
//! Guarantee: a change by this process is seen at the next tick, one by another process within a second, and within a
//! minute if its clock is behind.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use wardroom_domain::Timestamp;
use wardroom_respond::{Due, IncidentId, Schedule, Workflow};
use wardroom_store::{IncidentRow, Store};

use crate::clock;

/// Interval between looks at incidents that are followed, such as those whose action is verified.
pub(crate) const TICK_INTERVAL: Duration = Duration::from_millis(200);
/// Longest interval between ticks: what only the wall clock says is not noticed later.
const IDLE_TICK_INTERVAL: Duration = Duration::from_secs(1);
/// Interval between looks for incidents that other processes changed, in a database that they share.
const SHARED_POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Interval between reads of all revisions.
const WHOLE_READ_INTERVAL: Duration = Duration::from_secs(60);
/// Changes are looked for from this long before the last look on: a transaction may have been waiting for that long.
const READ_OVERLAP: Duration = Duration::from_secs(15);

/// By how much the clock may go back without a new beginning: what is repeated by the wall clock is late by that much.
const MAX_CLOCK_STEP: Duration = Duration::from_secs(1);

/// An incident as stored.
pub(crate) struct OpenIncident {
    pub(crate) row: IncidentRow,
    /// `None` if it cannot be read by this build.
    pub(crate) workflow: Option<Workflow>,
}

impl OpenIncident {
    pub(crate) fn new(row: IncidentRow) -> Self {
        Self { workflow: Workflow::read(&row.workflow).ok(), row }
    }
}

/// See the top of this file.
pub(crate) struct OpenIncidents {
    /// Changes when an incident was written by this process.
    changes: watch::Receiver<u64>,
    /// Whether one was since the last read.
    is_changed: bool,
    /// Wall time of the last tick.
    ticked_at: Option<Timestamp>,
    /// When changes were last read.
    read_at: Option<(Instant, Timestamp)>,
    /// When all revisions were last read.
    all_read_at: Option<Instant>,
    /// By incident.
    revisions: BTreeMap<IncidentId, i64>,
    pub(crate) schedule: Schedule,
    /// Those that are followed: reading them at every tick would cost more than the tick.
    followed: BTreeMap<IncidentId, OpenIncident>,
}

impl OpenIncidents {
    pub(crate) fn new(store: &Store) -> Self {
        Self {
            changes: store.subscribe_incidents(),
            is_changed: false,
            ticked_at: None,
            read_at: None,
            all_read_at: None,
            revisions: BTreeMap::new(),
            schedule: Schedule::default(),
            followed: BTreeMap::new(),
        }
    }

    /// Waits until this process has written an incident; does not return while one is known to be.
    pub(crate) async fn wait_for_change(&mut self) {
        // The store outlives its subscribers, so the channel is never closed.
        if self.is_changed || self.changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.is_changed = true;
    }

    /// Notes the wall time of a tick. After a clock that was set back everything is read again: steps are repeated by
    /// the wall clock, and none may wait until the old time comes again.
    pub(crate) fn begin_tick(&mut self, now: Timestamp) {
        if self.ticked_at.is_some_and(|before| now.plus(MAX_CLOCK_STEP) < before) {
            (self.read_at, self.all_read_at) = (None, None);
            self.revisions.clear();
            self.followed.clear();
            self.schedule = Schedule::default();
        }
        self.ticked_at = Some(now);
    }

    /// Has the incidents read again.
    pub(crate) const fn mark_changed(&mut self) {
        self.is_changed = true;
    }

    /// Returns whether an incident may have changed since the last read.
    pub(crate) fn is_outdated(&self, store: &Store) -> bool {
        let is_shared =
            store.is_shared() && self.read_at.is_none_or(|(read_at, _)| read_at.elapsed() >= SHARED_POLL_INTERVAL);
        self.is_changed || is_shared || self.is_whole_read_due() || self.changes.has_changed().unwrap_or(true)
    }

    fn is_whole_read_due(&self) -> bool {
        self.all_read_at.is_none_or(|read_at| read_at.elapsed() >= WHOLE_READ_INTERVAL)
    }

    /// Begins a read: what changes from here on is noticed by the next one. Returns from when on changes are to be
    /// read; `None` for all revisions.
    pub(crate) fn begin_read(&mut self, now: Timestamp) -> Option<Timestamp> {
        self.changes.mark_unchanged();
        self.is_changed = false;
        let (_, read_at) = self.read_at.filter(|_| !self.is_whole_read_due())?;
        // The clock may have been set back since.
        Some(read_at.min(now).minus(READ_OVERLAP))
    }

    /// Ends a read that has begun at these times. `all` has every incident if all revisions were read.
    pub(crate) fn end_read(&mut self, began: (Instant, Timestamp), all: Option<&BTreeSet<IncidentId>>) {
        self.read_at = Some(began);
        let Some(all) = all else { return };
        self.all_read_at = Some(began.0);
        let gone: Vec<IncidentId> = self.revisions.keys().filter(|id| !all.contains(*id)).cloned().collect();
        gone.iter().for_each(|id| self.forget(id));
    }

    /// Returns the revision that was read; `None` for an incident that is not known.
    pub(crate) fn revision(&self, id: &IncidentId) -> Option<i64> {
        self.revisions.get(id).copied()
    }

    /// Notes an incident as read, and when it is due.
    pub(crate) fn note(&mut self, id: IncidentId, incident: OpenIncident, due: Due) {
        self.schedule.set(&id, due);
        self.revisions.insert(id.clone(), incident.row.revision);
        if due == Due::AT_ONCE {
            self.followed.insert(id, incident);
        } else {
            self.followed.remove(&id);
        }
    }

    /// Returns an incident that is followed.
    pub(crate) fn followed(&self, id: &IncidentId) -> Option<&OpenIncident> {
        self.followed.get(id)
    }

    /// Forgets an incident that has no next step any more.
    pub(crate) fn forget(&mut self, id: &IncidentId) {
        self.schedule.remove(id);
        self.revisions.remove(id);
        self.followed.remove(id);
    }

    /// Returns the time until something may be due.
    pub(crate) fn pause(&self) -> Duration {
        if self.schedule.waits_for_telemetry() {
            return TICK_INTERVAL;
        }
        let Some(next) = self.schedule.next_at() else { return IDLE_TICK_INTERVAL };
        let nanos = next.nanos().saturating_sub(clock::now().nanos());
        Duration::from_nanos(nanos.max(0).unsigned_abs()).clamp(TICK_INTERVAL, IDLE_TICK_INTERVAL)
    }
}
