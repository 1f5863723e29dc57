//! What a rule is, what it looks at, and what it returns if it fits.

use wardroom_domain::{Event, EventKind, RelationKind, SignalKind, Timestamp};
use wardroom_signals::SignalUnit;

use crate::evidence::{Cited, signal_summary};
use crate::facts::{SignalFact, log_ratio};
use crate::suspect::{Case, Suspect};

/// A setting that changed longer than this before the onset did not cause it, in seconds.
const SETTING_SECONDS: f64 = 600.0;

/// Requests that get slow this long after a resource began to fill do not explain it, in seconds.
const LATER_SECONDS: f64 = 30.0;

/// Requests that are under way explain a resource if their growth is at least this share of its growth: those that
/// still wait are in no latency yet.
const HELD_SHARE: f64 = 0.8;

/// Symptoms below this are none.
const WELL: f64 = 0.3;

/// What a callee's answers take longer is not what its caller waits for, if it is less than this share of it.
const SMALL_PART: f64 = 0.2;

/// A pool is at its limit from this share on.
pub(crate) const FULL_POOL: f64 = 0.85;

/// One mechanism.
#[derive(Debug)]
pub struct Rule {
    /// Identifier in causes, runbooks and the API; lower case, words joined by `-`.
    pub id: &'static str,
    /// What it says, as a sentence without subject: `does not return connections to its pool`.
    pub says: &'static str,
    /// The evidence that it needs, for people.
    pub needs: &'static str,
    /// What a person should check next, most useful first.
    pub next_checks: &'static [&'static str],
    /// Words that runbooks for it are tagged with or use.
    pub tags: &'static [&'static str],
    pub(crate) matches: for<'a> fn(&Subject<'a>) -> Option<Match<'a>>,
}

/// A rule that fits.
pub(crate) struct Match<'a> {
    /// How well it fits, 0..1.
    pub(crate) fit: f64,
    /// What was measured, as a sentence without full stop.
    pub(crate) because: String,
    pub(crate) cited: Vec<Cited<'a>>,
    /// The changed setting that explains it.
    pub(crate) setting: Option<&'a Event>,
    /// What it says instead of the rule's sentence, where less was measured than the rule's usual evidence.
    pub(crate) says: Option<&'static str>,
    /// Why no action may be proposed although the entity itself can be seen.
    pub(crate) reservation: Option<&'static str>,
}

impl<'a> Match<'a> {
    pub(crate) fn new(fit: f64, because: impl Into<String>, cited: Vec<Cited<'a>>) -> Self {
        Self { fit, because: because.into(), cited, setting: None, says: None, reservation: None }
    }

    /// A match by one signal, whose fit lies between `least` and `least` + 0.2 by the signal's strength.
    pub(crate) fn by_signal(least: f64, fact: &'a SignalFact) -> Self {
        Self::new(least + 0.2 * fact.strength(), signal_summary(fact), vec![Cited::Signal(fact)])
    }
}

/// The entity that a rule looks at, with its surroundings.
pub(crate) struct Subject<'a> {
    pub(crate) case: &'a Case<'a>,
    pub(crate) index: usize,
    pub(crate) suspect: &'a Suspect<'a>,
    /// Estimated onset at this entity.
    pub(crate) onset: Timestamp,
    /// How far back deployments count, in seconds.
    pub(crate) deployment_seconds: f64,
}

/// Returns how much a signal grew, as a logarithm.
fn growth(fact: &SignalFact) -> f64 {
    log_ratio(fact.value, fact.expected)
}

impl<'a> Subject<'a> {
    /// Returns its shifted signal of this kind and of one of these resources; of any if there are none.
    pub(crate) fn shifted(&self, kind: SignalKind, resources: &[&str]) -> Option<&'a SignalFact> {
        self.suspect.shifted(kind, resources)
    }

    /// Returns the deployment that may have caused it.
    pub(crate) fn deployment(&self) -> Option<&'a Event> {
        self.suspect.change(EventKind::Deployment, self.onset, self.deployment_seconds)
    }

    /// Returns the changed setting that may have caused it.
    pub(crate) fn setting(&self) -> Option<&'a Event> {
        self.suspect.change(EventKind::Setting, self.onset, SETTING_SECONDS)
    }

    /// Returns the signals of calls that go badly although the callee is healthy by its own numbers.
    pub(crate) fn calls_to_healthy(&self, kind: SignalKind) -> Option<&'a SignalFact> {
        self.bad_calls(kind, |_| false)
    }

    /// The same, of callees that are healthy or whose part in what their caller waits for is small.
    pub(crate) fn calls_that_wait_here(&self, kind: SignalKind) -> Option<&'a SignalFact> {
        self.bad_calls(kind, |callee| self.wait_is_not_the_callees(callee))
    }

    fn bad_calls(&self, kind: SignalKind, is_well: impl Fn(usize) -> bool) -> Option<&'a SignalFact> {
        let dependencies = self.suspect.dependencies.iter();
        let healthy = dependencies.filter(|(callee, _)| {
            let other = &self.case.suspects[*callee];
            other.is_seen() && (other.symptom() < WELL || is_well(*callee))
        });
        let edges = healthy.flat_map(|(callee, _)| self.case.edge(self.index, *callee));
        let shifted = edges.filter(|fact| fact.signal.kind == kind && fact.is_shifted());
        shifted.max_by(|a, b| a.strength().total_cmp(&b.strength()))
    }

    /// Returns whether the calls to something take far longer than before, and it tells itself how long it takes: its
    /// part in that is small. On a busy machine everything is a little slower.
    fn wait_is_not_the_callees(&self, callee: usize) -> bool {
        let other = &self.case.suspects[callee];
        let longer = |facts: &mut dyn Iterator<Item = &SignalFact>| {
            let latencies = facts.filter(|fact| fact.signal.kind == SignalKind::Latency);
            latencies.map(|fact| fact.value - fact.expected).reduce(f64::max)
        };
        let waited = longer(&mut self.case.edge(self.index, callee));
        let answered = longer(&mut other.own.iter().copied());
        let is_small = waited.zip(answered).is_some_and(|(waited, answered)| answered < waited * SMALL_PART);
        is_small && other.levels.errors.max(other.levels.down) < WELL
    }

    /// Returns the store of work that this one no longer drains: how much it explains, and a signal of the store.
    pub(crate) fn starved(&self) -> Option<(f64, usize, &'a SignalFact)> {
        let dependencies = self.suspect.dependencies.iter().filter(|(_, kind)| *kind != RelationKind::PartOf);
        let (share, store) = dependencies
            .map(|(store, _)| (self.case.starves(self.index, *store), *store))
            .max_by(|a, b| a.0.total_cmp(&b.0))?;
        let suspect = &self.case.suspects[store];
        let symptom = suspect
            .shifted(SignalKind::Queue, &[])
            .or_else(|| suspect.shifted(SignalKind::Errors, &[]))
            .filter(|_| share >= 0.2)?;
        Some((share, store, symptom))
    }

    /// Returns whether requests that take longer explain a resource that each of them holds: as many more of them are
    /// under way (arrivals times duration) as more of the resource is held, and not only later.
    pub(crate) fn is_held_by_requests(&self, held: &SignalFact) -> bool {
        let own = |kind: SignalKind| self.suspect.own.iter().copied().filter(move |fact| fact.signal.kind == kind);
        let slowest = |a: &'a SignalFact, b: &'a SignalFact| if growth(b) > growth(a) { b } else { a };
        // The median tells how long most requests take; a few slow ones hold little.
        let median = own(SignalKind::Latency).filter(|fact| fact.signal.resource.ends_with("median")).reduce(slowest);
        let slow = median.or_else(|| own(SignalKind::Latency).reduce(slowest));
        let Some(slow) = slow.filter(|fact| fact.is_shifted()) else { return false };
        let arrivals = own(SignalKind::Traffic).map(growth).reduce(f64::max).unwrap_or_default();
        let begins_later =
            slow.onset.zip(held.onset).is_some_and(|(slow, held)| slow.seconds_since(held) > LATER_SECONDS);
        !begins_later && growth(slow) + arrivals >= HELD_SHARE * growth(held)
    }

    /// Returns whether something that it calls tells how long its answers take, and all that do are about as fast as
    /// before, beside how much slower it is itself.
    pub(crate) fn callees_are_fast(&self) -> bool {
        let callees = self.suspect.dependencies.iter().map(|(callee, _)| &self.case.suspects[*callee]);
        let latencies = callees.flat_map(|callee| &callee.own).filter(|fact| fact.signal.kind == SignalKind::Latency);
        let (mut known, mut slow) = (0, 0);
        for fact in latencies {
            known += 1;
            let is_small = fact.value - fact.expected < self.suspect.levels.latency_delta * SMALL_PART;
            slow += usize::from(fact.is_shifted() && !is_small);
        }
        known > 0 && slow == 0
    }

    /// Returns the failing calls to something that is healthy by its own numbers and where they do not get slower, and
    /// the callee: the caller gives up, or does not get through.
    pub(crate) fn calls_that_only_fail(&self) -> Option<(&'a SignalFact, &'a Suspect<'a>)> {
        let failing = self.calls_to_healthy(SignalKind::Errors)?;
        if self.calls_to_healthy(SignalKind::Latency).is_some() {
            return None;
        }
        let callee = self.case.suspects.iter().find(|other| Some(other.entity) == failing.signal.peer.as_ref())?;
        Some((failing, callee))
    }

    /// Returns a pool of its own that has no free member left, or hardly one, and had before.
    pub(crate) fn full_pool(&self, resources: &[&str]) -> Option<&'a SignalFact> {
        self.suspect.own.iter().copied().find(|fact| {
            let is_pool =
                fact.signal.kind == SignalKind::Saturation && resources.contains(&fact.signal.resource.as_str());
            is_pool && fact.unit == SignalUnit::Ratio && fact.value >= FULL_POOL && fact.is_shifted()
        })
    }

    /// Returns its signal of this resource if it counts things of which there are none any more.
    pub(crate) fn lost(&self, resource: &str) -> Option<&'a SignalFact> {
        let mut counts = self.suspect.own.iter().copied().filter(|fact| fact.signal.resource == resource);
        counts.find(|fact| fact.expected >= 1.0 && fact.value < 0.5)
    }

    /// Returns whether the demand on it grew about as much as what it uses.
    pub(crate) fn is_asked_for_more(&self) -> bool {
        self.suspect.levels.surge >= 0.4
    }
}
