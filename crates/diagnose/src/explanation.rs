//! What the dependencies of an entity explain of its symptoms.

use std::collections::BTreeSet;

use wardroom_domain::{EntityKind, RelationKind, SignalKind};

use crate::facts::{SignalFact, is_store, log_ratio};
use crate::suspect::{Case, SlowCallee, Suspect};

/// How surely a broken store that a suspect may use explains its symptoms: it may as well use another.
const UNKNOWN_STORE: f64 = 0.7;
/// From this part on of what calls take longer, the callee's own time explains all of it.
const HOLDING_PART: f64 = 0.5;
/// Calls through which other log lines of a callee may make a caller log other lines.
const MAX_LOG_STEPS: u32 = 4;

impl Case<'_> {
    /// Returns how strongly the logs of what a suspect calls differ, 0..1, directly or through others: a callee that
    /// takes another way than before makes its callers log other lines, too.
    pub(crate) fn logs_explained(&self, suspect: usize) -> f64 {
        let mut seen = BTreeSet::from([suspect]);
        let mut found = 0.0_f64;
        let mut callers = vec![suspect];
        for step in 0..MAX_LOG_STEPS {
            let called = callers.iter().flat_map(|caller| &self.suspects[*caller].dependencies);
            callers = called.map(|(other, _)| *other).filter(|other| seen.insert(*other)).collect();
            let templates = callers.iter().flat_map(|other| &self.suspects[*other].templates);
            let strongest = templates.map(|(strength, _)| *strength).fold(0.0, f64::max);
            found = found.max(strongest * (1.0 - 0.15 * f64::from(step)));
        }
        found
    }

    /// Returns how much of a suspect's failing and slow requests its dependencies explain, each 0..1. A caller of
    /// several of them, one after the other, waits for all of them, so their shares of the waiting time add up.
    pub(crate) fn explained(&self, suspect: usize) -> (f64, f64) {
        let levels = self.suspects[suspect].levels;
        let store = self.broken_store(suspect);
        let (mut errors, mut latency) = (store, store);
        let mut waited = 0.0_f64;
        for (dependency, _) in &self.suspects[suspect].dependencies {
            // A queue that fills since it is not drained does not slow its consumers.
            let reach = self.reach(suspect, *dependency, 0.9) * (1.0 - self.starves(suspect, *dependency));
            let other = &self.suspects[*dependency].levels;
            let broken = other.broken();
            let failed = other.errors * part(other.errors_delta, levels.errors_delta);
            // Calls that fail at the caller while the callee is slow run into their deadline.
            let timed_out = other.latency * self.edge_failing(suspect, *dependency);
            errors = errors.max(reach * failed.max(broken).max(0.6 * other.latency).max(0.95 * timed_out));
            let (slow_path, path_delta) = self.slow_path(suspect, *dependency);
            let slow = self.slow_callees[suspect].iter().find(|slow| slow.callee == *dependency);
            let held = slow.map_or(0.0, |slow| slow.certainty * slow.delta);
            let delta = other.latency_delta.max(held);
            waited += reach * other.latency * part(delta, levels.latency_delta);
            waited += slow_path * part(path_delta, levels.latency_delta);
            latency = latency.max(reach * broken.max(0.5 * other.errors));
        }
        (errors.min(1.0), latency.max(waited).min(1.0))
    }

    /// Returns how surely what is bad at a callee shows at a caller, 0..1; `unknown` if the calls cannot be seen. Calls
    /// that go well explain nothing, whatever the state of the callee is; but those that are not made any more, since
    /// there is no connection, do not say how they would have gone.
    fn reach(&self, caller: usize, callee: usize, unknown: f64) -> f64 {
        let Some(badness) = self.edge_badness(caller, callee) else { return unknown };
        let edge = || self.edge(caller, callee);
        let traffic = edge().filter(|fact| fact.signal.kind == SignalKind::Traffic && fact.value < fact.expected);
        let fewer = traffic.map(SignalFact::change_of_rate).fold(0.0, f64::max);
        let lost = if edge().all(|fact| fact.is_gone) { 1.0 } else { fewer };
        badness.mul_add(0.9, 0.1).max(unknown * lost)
    }

    /// Returns the data stores of the incident, and those of which a rule says that they are bad, with how surely each
    /// is broken, 0..1.
    pub(crate) fn find_broken_stores(&self) -> Vec<(usize, f64)> {
        let stores = self.suspects.iter().enumerate().filter(|(_, suspect)| is_store(suspect.entity));
        let is_bad = |store: &Suspect<'_>| {
            self.facts.members.contains(store.entity) || store.findings.iter().any(|finding| finding.opens)
        };
        let broken = stores.filter(|(_, store)| is_bad(store)).map(|(index, store)| (index, self.broken_inside(store)));
        broken.filter(|(_, broken)| *broken > 0.0).collect()
    }

    /// Returns how surely a data store is broken that a suspect may use, 0..1: clients often do not say which store
    /// they use, and one of which that is unknown is not acquitted.
    fn broken_store(&self, suspect: usize) -> f64 {
        let this = &self.suspects[suspect];
        if is_store(this.entity) {
            return 0.0;
        }
        let same = |a: &str, b: &str| a.is_empty() || b.is_empty() || a == b;
        let may_use = |store: &Suspect<'_>| {
            let kind = store.entity.kind;
            same(&this.entity.cluster, &store.entity.cluster)
                && same(&this.entity.environment, &store.entity.environment)
                && !this.dependencies.iter().any(|(other, _)| self.suspects[*other].entity.kind == kind)
        };
        let is_before = |store: &Suspect<'_>| match (store.onset(), this.onset()) {
            (Some(broke), Some(began)) => {
                broke.seconds_since(began) <= store.onset_tolerance().max(this.onset_tolerance())
            }
            _ => true,
        };
        let stores = self.broken_stores.iter().map(|(index, broken)| (&self.suspects[*index], *broken));
        let causes = stores.filter(|(store, _)| may_use(store) && is_before(store));
        UNKNOWN_STORE * causes.map(|(_, broken)| broken).fold(0.0, f64::max)
    }

    /// Returns how surely a store cannot serve well, 0..1, by what is inside it and by what it runs on.
    fn broken_inside(&self, store: &Suspect<'_>) -> f64 {
        let inside =
            |suspect: &Suspect<'_>| suspect.levels.down.max(0.9 * suspect.levels.inside.max(suspect.levels.waiting));
        let hosts =
            store.dependencies.iter().filter(|(_, kind)| matches!(kind, RelationKind::RunsOn | RelationKind::PartOf));
        hosts.map(|(host, _)| inside(&self.suspects[*host])).fold(inside(store), f64::max)
    }

    /// Returns the callees that hold up a caller. A callee that is slow by its own numbers does so although its part in
    /// what the calls take longer is not all: the others wait meanwhile, also for connections that the caller uses for
    /// all of its callees. A callee that is seldom called holds few of them.
    pub(crate) fn find_slow_callees(&self, caller: usize) -> Vec<SlowCallee> {
        let mut callees: Vec<usize> = self.suspects[caller].dependencies.iter().map(|(callee, _)| *callee).collect();
        callees.dedup();
        let waiting: Vec<_> = callees.iter().map(|callee| self.waiting_at(caller, *callee)).collect();
        let most = waiting.iter().map(|(_, waiting)| *waiting).fold(0.0, f64::max);
        let slow = callees.into_iter().zip(waiting).map(|(callee, (delta, waiting))| {
            let other = &self.suspects[callee];
            let own_part = (part(other.levels.latency_delta, delta) / HOLDING_PART).min(1.0);
            let certainty = if other.is_seen() { other.levels.latency * own_part * part(waiting, most) } else { 0.0 };
            SlowCallee { callee, certainty, delta }
        });
        slow.filter(|slow| slow.certainty > 0.0).collect()
    }

    /// Returns by how many seconds the calls from one to another take longer, and how many more of them are under way
    /// at a time (arrivals times duration); one a second where their rate is not known.
    fn waiting_at(&self, caller: usize, callee: usize) -> (f64, f64) {
        let of_kind = |kind: SignalKind| self.edge(caller, callee).filter(move |fact| fact.signal.kind == kind);
        let delta = of_kind(SignalKind::Latency).map(|fact| fact.value - fact.expected).fold(0.0, f64::max);
        let rate = of_kind(SignalKind::Traffic).map(|fact| fact.value.max(fact.expected)).reduce(f64::max);
        (delta, delta * rate.unwrap_or(1.0))
    }

    /// Returns how surely one of a caller's callees, other than `except`, holds it up, 0..1: its calls to the others
    /// then say little of them and of the paths to them.
    pub(crate) fn held_up_elsewhere(&self, caller: usize, except: usize) -> f64 {
        let others = self.slow_callees[caller].iter().filter(|slow| slow.callee != except);
        others.map(|slow| slow.certainty).fold(0.0, f64::max)
    }

    /// Returns how surely the path to a visible callee is slow for all of its callers, 0..1, and by how many seconds it
    /// is for this one. Of a single caller it may as well be the caller's side that is slow.
    fn slow_path(&self, caller: usize, callee: usize) -> (f64, f64) {
        let other = &self.suspects[callee];
        let Some(slowness) = self.edge_slowness(caller, callee).filter(|_| other.is_seen()) else { return (0.0, 0.0) };
        let callers = other.dependents.iter().filter(|(others, _)| *others != caller);
        let others: Vec<f64> = callers.filter_map(|(others, _)| self.edge_slowness(*others, callee)).collect();
        if others.is_empty() {
            return (0.0, 0.0);
        }
        let latencies = self.edge(caller, callee).filter(|fact| fact.signal.kind == SignalKind::Latency);
        let delta = latencies.map(|fact| fact.value - fact.expected).fold(0.0, f64::max);
        (slowness * others.iter().sum::<f64>() / others.len() as f64, delta)
    }

    /// Returns how much less one calls something than before although it is asked for as much itself, 0..1: its
    /// requests end before they get there. What cannot be reached, or is down, is called less by all.
    fn withholds_from(&self, suspect: usize, callee: usize) -> f64 {
        let (this, other) = (&self.suspects[suspect], &self.suspects[callee]);
        let asked = 1.0 - this.levels.drop.max(this.levels.down);
        let traffic = self.edge(suspect, callee).filter(|fact| fact.signal.kind == SignalKind::Traffic);
        let less = |fact: &SignalFact| if fact.value < fact.expected { fact.change_of_rate() } else { 0.0 };
        let lost = traffic.map(less).reduce(f64::max).unwrap_or_else(|| {
            // Without numbers of the calls, less traffic of the callee may be any of its callers'.
            let callers = other.dependents.iter().filter(|(_, kind)| *kind != RelationKind::PartOf).count().max(1);
            if this.levels.requests.is_some() { other.levels.drop / callers as f64 } else { 0.0 }
        });
        let is_reached = 1.0 - self.edge_failing(suspect, callee);
        asked * lost * is_reached * (1.0 - other.levels.broken().max(other.levels.errors))
    }

    /// Returns what a suspect calls far less than before although it is asked for as much itself, and how much less,
    /// 0..1.
    pub(crate) fn withholds(&self, suspect: usize) -> Option<(usize, f64)> {
        let called = self.suspects[suspect].dependencies.iter();
        let calls = called.filter(|(_, kind)| matches!(kind, RelationKind::Calls | RelationKind::Uses));
        let lost = calls.map(|(callee, _)| (*callee, self.withholds_from(suspect, *callee)));
        lost.filter(|(_, lost)| *lost > 0.0).max_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// Returns how much its callers withhold from a suspect, 0..1: it then takes other ways than before.
    pub(crate) fn withheld(&self, suspect: usize) -> f64 {
        let callers = self.suspects[suspect].dependents.iter();
        let calls = callers.filter(|(_, kind)| matches!(kind, RelationKind::Calls | RelationKind::Uses));
        calls.map(|(caller, _)| self.withholds_from(*caller, suspect)).fold(0.0, f64::max)
    }

    /// Returns how much of the work that waits at a suspect its dependencies explain, 0..1: a caller of something
    /// slow or broken has more calls under way.
    pub(crate) fn waiting_explained(&self, suspect: usize) -> f64 {
        let dependencies = self.suspects[suspect].dependencies.iter();
        let explained = dependencies.map(|(dependency, _)| {
            let reach = self.reach(suspect, *dependency, 0.8);
            let other = &self.suspects[*dependency].levels;
            reach * other.broken().max(other.latency).max(other.errors)
        });
        explained.fold(self.broken_store(suspect), f64::max)
    }

    /// Returns how much failing and how much waiting arises at a suspect itself: the rise of its failing requests, and
    /// the seconds that its requests take longer, each per second and without what its dependencies explain.
    pub(crate) fn excess(&self, suspect: usize) -> (f64, f64) {
        let levels = self.suspects[suspect].levels;
        let (errors_explained, latency_explained) = self.explained(suspect);
        let requests = levels.requests.unwrap_or(self.usual_requests);
        let failing = requests * levels.errors_delta * levels.errors * (1.0 - errors_explained);
        let waiting = requests * levels.latency_delta * levels.latency * (1.0 - latency_explained);
        (failing, waiting)
    }

    /// Returns how much a consumer explains of a queue that fills, 0..1: it takes less than before, or is down or slow.
    pub(crate) fn starves(&self, consumer: usize, queue: usize) -> f64 {
        let (taker, store) = (&self.suspects[consumer], &self.suspects[queue].levels);
        // A store that is down has no takers.
        let symptom = store.queue.max(store.errors) * (1.0 - store.down);
        let taken_less = self
            .edge(consumer, queue)
            .filter(|fact| fact.signal.kind == SignalKind::Traffic && fact.value < fact.expected)
            .map(|fact| 1.0 - (log_ratio(fact.value, fact.expected) / 0.5).exp())
            .fold(0.0, f64::max);
        let is_queue = self.suspects[queue].entity.kind == EntityKind::Queue || store.queue > 0.2;
        let levels = &taker.levels;
        if is_queue {
            // Who is refused, or does not get through, would take more.
            return symptom.min(levels.down.max(levels.drop).max(taken_less))
                * (1.0 - self.edge_failing(consumer, queue));
        }
        // A queue behind requests: it refuses what others put in, while a slow consumer takes less and sees no errors.
        let takes_well = self.edge_badness(consumer, queue).unwrap_or_default() < 0.2;
        let is_slow = levels.latency >= 0.3 && levels.errors < 0.2;
        if takes_well && is_slow { symptom.min(taken_less) } else { 0.0 }
    }

    /// Returns how much of a suspect's lost traffic is not lost by its callers, 0..1: traffic stops from the outside
    /// in.
    pub(crate) fn own_drop(&self, suspect: usize) -> f64 {
        let callers = self.suspects[suspect].dependents.iter().filter(|(_, kind)| *kind != RelationKind::PartOf);
        let lost = callers.map(|(caller, _)| &self.suspects[*caller].levels).map(|levels| levels.drop.max(levels.down));
        self.suspects[suspect].levels.drop * (1.0 - lost.fold(0.0, f64::max))
    }
}

/// Returns the part of a rise that an equal or smaller rise elsewhere explains, 0..1.
fn part(of_other: f64, own: f64) -> f64 {
    if own > 0.0 { (of_other / own).clamp(0.0, 1.0) } else { 0.0 }
}
