//! What the facts say about each entity, and what its dependencies explain of it.

use std::collections::{BTreeMap, BTreeSet};

use wardroom_domain::{Entity, Event, EventKind, Finding, RelationKind, SignalKind, Timestamp};

use crate::facts::{EXPORTER, Facts, SignalFact, TemplateChange, TemplateFact};
use crate::levels::Levels;

/// All entities of the facts.
pub(crate) struct Case<'a> {
    pub(crate) facts: &'a Facts,
    /// Ordered by entity.
    pub(crate) suspects: Vec<Suspect<'a>>,
    /// Requests per second of an entity that does not count them: the median of those that do.
    pub(crate) usual_requests: f64,
    /// Data stores that may explain symptoms of those whose stores are unknown, with how surely each is broken, 0..1.
    pub(crate) broken_stores: Vec<(usize, f64)>,
    /// The callees that hold up each suspect; found once, since each of its calls asks for them.
    pub(crate) slow_callees: Vec<Vec<SlowCallee>>,
}

/// A callee that holds up a caller.
pub(crate) struct SlowCallee {
    pub(crate) callee: usize,
    /// How surely it does, 0..1.
    pub(crate) certainty: f64,
    /// By how many seconds the calls to it take longer.
    pub(crate) delta: f64,
}

/// One entity with its evidence.
pub(crate) struct Suspect<'a> {
    pub(crate) entity: &'a Entity,
    /// Signals of what it does itself.
    pub(crate) own: Vec<&'a SignalFact>,
    /// Signals of its outgoing calls.
    pub(crate) calls: Vec<&'a SignalFact>,
    /// Signals of others' calls to it.
    pub(crate) called: Vec<&'a SignalFact>,
    /// What a fault of which shows here: index of the suspect, kind of relation.
    pub(crate) dependencies: BTreeSet<(usize, RelationKind)>,
    /// Where a fault of this one shows.
    pub(crate) dependents: BTreeSet<(usize, RelationKind)>,
    pub(crate) events: Vec<&'a Event>,
    /// Log templates with what they tell of this entity, 0..1.
    pub(crate) templates: Vec<(f64, &'a TemplateFact)>,
    pub(crate) findings: Vec<&'a Finding>,
    pub(crate) levels: Levels,
}

impl<'a> Case<'a> {
    pub(crate) fn new(facts: &'a Facts) -> Self {
        let mut entities: BTreeSet<&Entity> = BTreeSet::new();
        for fact in &facts.signals {
            entities.insert(&fact.signal.entity);
            entities.extend(&fact.signal.peer);
        }
        entities.extend(facts.relations.iter().flat_map(|relation| [&relation.from, &relation.to]));
        entities.extend(facts.events.iter().map(|event| &event.entity));
        entities.extend(facts.templates.iter().map(|template| &template.entity));
        entities.extend(facts.findings.iter().map(|finding| &finding.signal.entity));
        let index: BTreeMap<&Entity, usize> =
            entities.iter().enumerate().map(|(index, entity)| (*entity, index)).collect();
        let mut suspects: Vec<Suspect<'a>> = entities.into_iter().map(Suspect::new).collect();
        for fact in &facts.signals {
            let entity = index[&fact.signal.entity];
            let Some(peer) = &fact.signal.peer else {
                suspects[entity].own.push(fact);
                continue;
            };
            let peer = index[peer];
            suspects[entity].calls.push(fact);
            suspects[peer].called.push(fact);
            connect(&mut suspects, entity, peer, RelationKind::Calls);
        }
        for relation in &facts.relations {
            let (from, to) = (index[&relation.from], index[&relation.to]);
            match relation.kind {
                // The fault of a part shows at the whole.
                RelationKind::PartOf => connect(&mut suspects, to, from, RelationKind::PartOf),
                kind => connect(&mut suspects, from, to, kind),
            }
        }
        for event in &facts.events {
            suspects[index[&event.entity]].events.push(event);
        }
        // What several entities begin or cease to log says little of each.
        let mut logging: BTreeMap<&str, u32> = BTreeMap::new();
        for template in facts.templates.iter().filter(|template| template.change().is_some()) {
            *logging.entry(&template.template).or_default() += 1;
        }
        for template in &facts.templates {
            let entities = logging.get(template.template.as_str()).copied().unwrap_or(1);
            let strength = template.strength() / f64::from(entities).sqrt();
            suspects[index[&template.entity]].templates.push((strength, template));
        }
        for finding in &facts.findings {
            suspects[index[&finding.signal.entity]].findings.push(finding);
        }
        for suspect in &mut suspects {
            suspect.levels = Levels::of(&suspect.own);
            // Of what has no signals of its own, only its callers tell.
            if !suspect.is_seen() {
                suspect.levels.add_hearsay(&suspect.called);
            }
        }
        let known: Vec<f64> = suspects.iter().filter_map(|suspect| suspect.levels.requests).collect();
        let usual_requests = crate::shift::median(&known).unwrap_or(1.0);
        let mut case = Self { facts, suspects, usual_requests, broken_stores: Vec::new(), slow_callees: Vec::new() };
        case.broken_stores = case.find_broken_stores();
        case.slow_callees = (0..case.suspects.len()).map(|caller| case.find_slow_callees(caller)).collect();
        case
    }

    /// Returns the signals of one's calls to another.
    pub(crate) fn edge(&self, from: usize, to: usize) -> impl Iterator<Item = &'a SignalFact> + use<'a, '_> {
        let peer = self.suspects[to].entity;
        self.suspects[from].calls.iter().copied().filter(move |fact| fact.signal.peer.as_ref() == Some(peer))
    }

    /// Returns how badly the calls from one to another go, 0..1; `None` if they cannot be seen.
    pub(crate) fn edge_badness(&self, from: usize, to: usize) -> Option<f64> {
        let is_symptom = |fact: &&SignalFact| matches!(fact.signal.kind, SignalKind::Errors | SignalKind::Latency);
        self.edge(from, to).filter(is_symptom).map(SignalFact::strength).reduce(f64::max)
    }

    /// Returns how badly calls from one to another go, 0..1, by their failures alone.
    pub(crate) fn edge_failing(&self, from: usize, to: usize) -> f64 {
        let errors = self.edge(from, to).filter(|fact| fact.signal.kind == SignalKind::Errors);
        errors.map(SignalFact::strength).fold(0.0, f64::max)
    }

    /// Returns how badly calls from one to another go, 0..1, by their duration alone.
    pub(crate) fn edge_slowness(&self, from: usize, to: usize) -> Option<f64> {
        let latencies = self.edge(from, to).filter(|fact| fact.signal.kind == SignalKind::Latency);
        latencies.map(SignalFact::strength).reduce(f64::max)
    }

    /// Returns the dependencies that see a problem from here and cannot be seen themselves, with the badness of calls.
    pub(crate) fn hidden(&self, suspect: usize) -> impl Iterator<Item = (usize, f64)> + use<'a, '_> {
        let dependencies = self.suspects[suspect].dependencies.iter();
        dependencies.filter_map(move |(dependency, _)| {
            let badness = self.edge_badness(suspect, *dependency)?;
            (badness >= 0.2 && !self.suspects[*dependency].is_seen()).then_some((*dependency, badness))
        })
    }
}

/// Notes that a fault of `to` shows at `from`.
fn connect(suspects: &mut [Suspect<'_>], from: usize, to: usize, kind: RelationKind) {
    if from != to {
        suspects[from].dependencies.insert((to, kind));
        suspects[to].dependents.insert((from, kind));
    }
}

impl<'a> Suspect<'a> {
    fn new(entity: &'a Entity) -> Self {
        Self {
            entity,
            own: Vec::new(),
            calls: Vec::new(),
            called: Vec::new(),
            dependencies: BTreeSet::new(),
            dependents: BTreeSet::new(),
            events: Vec::new(),
            templates: Vec::new(),
            findings: Vec::new(),
            levels: Levels::default(),
        }
    }

    /// Returns whether its own signals tell whether it works. An entity without them is neither healthy nor at fault.
    pub(crate) fn is_seen(&self) -> bool {
        self.own.iter().any(|fact| {
            let says = !matches!(fact.signal.kind, SignalKind::Other | SignalKind::Logs | SignalKind::Expiry);
            says && !fact.is_internal && !fact.is_gone && fact.signal.resource != EXPORTER
        })
    }

    /// Returns whether only its callers tell about it.
    pub(crate) fn is_hearsay(&self) -> bool {
        self.own.is_empty()
    }

    /// Returns how badly off it is, by any symptom or anything inside it.
    pub(crate) fn symptom(&self) -> f64 {
        let Levels { errors, latency, inside, waiting, down, queue, .. } = self.levels;
        errors.max(latency).max(inside).max(waiting).max(down).max(queue)
    }

    /// Returns the strongest signal of this kind and resource, if it is shifted.
    pub(crate) fn shifted(&self, kind: SignalKind, resource: &[&str]) -> Option<&'a SignalFact> {
        let matches = |fact: &&&SignalFact| {
            fact.signal.kind == kind
                && !fact.is_internal
                && (resource.is_empty() || resource.iter().any(|word| fact.signal.resource == *word))
        };
        let strongest = self.own.iter().filter(matches).max_by(|a, b| a.strength().total_cmp(&b.strength()))?;
        strongest.is_shifted().then_some(*strongest)
    }

    /// Returns the time since which anything of it differs.
    pub(crate) fn onset(&self) -> Option<Timestamp> {
        self.onsets().map(|(at, _)| at).min()
    }

    /// Returns the onsets of what differs, each with the interval of the signal's points in ms.
    fn onsets(&self) -> impl Iterator<Item = (Timestamp, i64)> + use<'a, '_> {
        let shifted = self.own.iter().chain(&self.calls).filter(|fact| fact.is_shifted() && !fact.is_internal);
        let findings = self.findings.iter();
        shifted
            .filter_map(|fact| Some((fact.onset?, fact.interval_ms)))
            .chain(findings.map(|finding| (Timestamp::from_millis(finding.since_ms), finding.interval_ms)))
    }

    /// Returns by how much the true onset may be later than the estimated one, in seconds: a point tells about the
    /// time since the one before, and the time of that is as uncertain. It is twice the interval of the signal that
    /// differed first, within bounds.
    pub(crate) fn onset_tolerance(&self) -> f64 {
        let first = self.onsets().min_by_key(|(at, interval_ms)| (*at, std::cmp::Reverse(*interval_ms)));
        let any = || self.own.iter().map(|fact| fact.interval_ms).max();
        let interval_ms = first.map(|(_, interval_ms)| interval_ms).or_else(any).unwrap_or_default();
        (2.0 * interval_ms as f64 / 1000.0).clamp(ONSET_TOLERANCE_SECONDS.0, ONSET_TOLERANCE_SECONDS.1)
    }

    /// Returns the newest event of this kind that may have caused what began at `onset`: at most `within` seconds
    /// before, or a little later, since the onset is an estimate.
    pub(crate) fn change(&self, kind: EventKind, onset: Timestamp, within: f64) -> Option<&'a Event> {
        let tolerance = self.onset_tolerance();
        let may_cause = |event: &&&Event| {
            let before = onset.seconds_since(event.at);
            event.kind == kind && (-tolerance..=within).contains(&before)
        };
        self.events.iter().filter(may_cause).max_by_key(|event| event.at).copied()
    }

    /// Returns the most telling change of its log templates of these kinds, and how telling it is.
    pub(crate) fn logs(&self, changes: &[TemplateChange]) -> Option<(f64, &'a TemplateFact)> {
        let matches =
            |(_, fact): &&(f64, &'a TemplateFact)| fact.change().is_some_and(|change| changes.contains(&change));
        let strongest = self.templates.iter().filter(matches).max_by(|a, b| a.0.total_cmp(&b.0))?;
        (strongest.0 > 0.0).then_some(*strongest)
    }
}

/// Least and largest time after the estimated onset at which an event may still be the cause, in seconds: senders'
/// clocks differ by seconds, and what comes minutes after the first sign is no cause however rare the points are.
const ONSET_TOLERANCE_SECONDS: (f64, f64) = (15.0, 180.0);
