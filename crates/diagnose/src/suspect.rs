//! What the facts say about each entity, and what its dependencies explain of it.

use std::collections::{BTreeMap, BTreeSet};

use wardroom_domain::{Entity, EntityKind, Event, EventKind, Finding, RelationKind, SignalKind, Timestamp};
use wardroom_signals::SignalUnit;

use crate::facts::{Facts, SignalFact, TemplateChange, TemplateFact, log_ratio};

/// Resource of the availability of an exporter, whose target may well be up.
pub(crate) const EXPORTER: &str = "exporter";

/// Resource of the availability that probes from outside measure.
pub(crate) const PROBE: &str = "probe";
/// Calls through which other log lines of a callee may make a caller log other lines.
const MAX_LOG_STEPS: u32 = 4;

/// All entities of the facts.
pub(crate) struct Case<'a> {
    pub(crate) facts: &'a Facts,
    /// Ordered by entity.
    pub(crate) suspects: Vec<Suspect<'a>>,
    /// Requests per second of an entity that does not count them: the median of those that do.
    usual_requests: f64,
}

/// How badly off an entity is, each 0..1.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Levels {
    /// Its requests fail.
    pub(crate) errors: f64,
    /// Its requests are slow.
    pub(crate) latency: f64,
    /// Its latency rose by this many seconds.
    pub(crate) latency_delta: f64,
    /// The share of its requests that fail rose by this, 0..1.
    pub(crate) errors_delta: f64,
    /// Requests per second that it gets, if that is known.
    pub(crate) requests: Option<f64>,
    /// Something inside it is at a limit or far from normal: a resource, restarts, expiry.
    pub(crate) inside: f64,
    /// What fills or ages while work waits, such as a pool of connections or the newest success of a job.
    pub(crate) waiting: f64,
    /// It is not up.
    pub(crate) down: f64,
    /// Its exporter is not up.
    pub(crate) exporter_down: f64,
    /// Work waits in it.
    pub(crate) queue: f64,
    /// It serves less than before.
    pub(crate) drop: f64,
    /// It is asked for more than before.
    pub(crate) surge: f64,
    /// It logs more errors than before.
    pub(crate) logs: f64,
    /// Any other measurement differs.
    pub(crate) other: f64,
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
        }
        let known: Vec<f64> = suspects.iter().filter_map(|suspect| suspect.levels.requests).collect();
        Self { facts, suspects, usual_requests: crate::shift::median(&known).unwrap_or(1.0) }
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
    fn edge_failing(&self, from: usize, to: usize) -> f64 {
        let errors = self.edge(from, to).filter(|fact| fact.signal.kind == SignalKind::Errors);
        errors.map(SignalFact::strength).fold(0.0, f64::max)
    }

    /// Returns how badly calls from one to another go, 0..1, by their duration alone.
    pub(crate) fn edge_slowness(&self, from: usize, to: usize) -> Option<f64> {
        let latencies = self.edge(from, to).filter(|fact| fact.signal.kind == SignalKind::Latency);
        latencies.map(SignalFact::strength).reduce(f64::max)
    }

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
        let (mut errors, mut latency) = (self.broken_store(suspect), self.broken_store(suspect));
        let mut waited = 0.0_f64;
        for (dependency, _) in &self.suspects[suspect].dependencies {
            // Calls that go well explain nothing, whatever the state of the callee is.
            let reach = self.edge_badness(suspect, *dependency).map_or(0.9, |badness| badness.mul_add(0.9, 0.1));
            let other = &self.suspects[*dependency].levels;
            let broken = other.broken();
            let failed = other.errors * part(other.errors_delta, levels.errors_delta);
            // Calls that fail at the caller while the callee is slow run into their deadline.
            let timed_out = other.latency * self.edge_failing(suspect, *dependency);
            errors = errors.max(reach * failed.max(broken).max(0.6 * other.latency).max(0.95 * timed_out));
            waited += reach * other.latency * part(other.latency_delta, levels.latency_delta);
            latency = latency.max(reach * broken.max(0.5 * other.errors));
        }
        (errors.min(1.0), latency.max(waited).min(1.0))
    }

    /// Returns how surely a data store of the incident is broken that a suspect may use, 0..1: clients often do not say
    /// which store they use, and one of which that is unknown is not acquitted.
    fn broken_store(&self, suspect: usize) -> f64 {
        let is_store = |other: &Suspect<'_>| {
            matches!(other.entity.kind, EntityKind::Database | EntityKind::Cache | EntityKind::Queue)
        };
        let this = &self.suspects[suspect];
        if is_store(this) || this.dependencies.iter().any(|(other, _)| is_store(&self.suspects[*other])) {
            return 0.0;
        }
        let stores = self.suspects.iter().filter(|other| is_store(other) && self.facts.members.contains(other.entity));
        0.7 * stores.map(|store| store.levels.down).fold(0.0, f64::max)
    }

    /// Returns how much of the work that waits at a suspect its dependencies explain, 0..1: a caller of something
    /// slow or broken has more calls under way.
    pub(crate) fn waiting_explained(&self, suspect: usize) -> f64 {
        let dependencies = self.suspects[suspect].dependencies.iter();
        let explained = dependencies.map(|(dependency, _)| {
            let reach = self.edge_badness(suspect, *dependency).map_or(0.8, |badness| badness.mul_add(0.9, 0.1));
            let other = &self.suspects[*dependency].levels;
            reach * other.broken().max(other.latency).max(other.errors)
        });
        explained.fold(0.0, f64::max)
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
        let symptom = store.queue.max(store.errors);
        let taken_less = self
            .edge(consumer, queue)
            .filter(|fact| fact.signal.kind == SignalKind::Traffic && fact.value < fact.expected)
            .map(|fact| 1.0 - (log_ratio(fact.value, fact.expected) / 0.5).exp())
            .fold(0.0, f64::max);
        let is_queue = self.suspects[queue].entity.kind == EntityKind::Queue || store.queue > 0.2;
        let levels = &taker.levels;
        if is_queue {
            return symptom.min(levels.down.max(levels.drop).max(taken_less));
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

    /// Returns the dependencies that see a problem from here and cannot be seen themselves, with the badness of calls.
    pub(crate) fn hidden(&self, suspect: usize) -> impl Iterator<Item = (usize, f64)> + use<'a, '_> {
        let dependencies = self.suspects[suspect].dependencies.iter();
        dependencies.filter_map(move |(dependency, _)| {
            let badness = self.edge_badness(suspect, *dependency)?;
            (badness >= 0.2 && !self.suspects[*dependency].is_seen()).then_some((*dependency, badness))
        })
    }
}

/// Returns the part of a rise that an equal or smaller rise elsewhere explains, 0..1.
fn part(of_other: f64, own: f64) -> f64 {
    if own > 0.0 { (of_other / own).clamp(0.0, 1.0) } else { 0.0 }
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
        let shifted = self.own.iter().chain(&self.calls).filter(|fact| fact.is_shifted() && !fact.is_internal);
        let findings = self.findings.iter().map(|finding| Timestamp::from_millis(finding.since_ms));
        shifted.filter_map(|fact| fact.onset).chain(findings).min()
    }

    /// Returns the newest event of this kind that may have caused what began at `onset`: at most `within` seconds
    /// before, or a little later, since the onset is an estimate.
    pub(crate) fn change(&self, kind: EventKind, onset: Timestamp, within: f64) -> Option<&'a Event> {
        let may_cause = |event: &&&Event| {
            let before = onset.seconds_since(event.at);
            event.kind == kind && (-ONSET_TOLERANCE_SECONDS..=within).contains(&before)
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

/// An event up to this long after the estimated onset may still be the cause, in seconds: signals are measured over
/// windows, which may begin before the event.
const ONSET_TOLERANCE_SECONDS: f64 = 60.0;

impl Levels {
    /// Returns how surely it cannot serve its callers well, by what is inside it.
    fn broken(&self) -> f64 {
        self.down.max(0.8 * self.inside.max(self.waiting).max(self.queue))
    }

    fn of(own: &[&SignalFact]) -> Self {
        let mut levels = Self::default();
        let raise = |level: &mut f64, by: f64| *level = level.max(by);
        for fact in own {
            let strength = fact.strength();
            match fact.signal.kind {
                SignalKind::Availability if fact.signal.resource == EXPORTER => {
                    raise(&mut levels.exporter_down, strength)
                }
                // A probe sees what callers see: whatever is behind may have failed.
                SignalKind::Availability if fact.signal.resource == PROBE => raise(&mut levels.errors, strength),
                SignalKind::Availability if fact.says_up() => raise(&mut levels.down, strength),
                SignalKind::Availability => raise(&mut levels.inside, 0.7 * strength),
                SignalKind::Errors => {
                    raise(&mut levels.errors, strength);
                    if strength > 0.0 && fact.unit == SignalUnit::Ratio {
                        raise(&mut levels.errors_delta, fact.value - fact.expected);
                    }
                }
                SignalKind::Latency => {
                    raise(&mut levels.latency, strength);
                    if strength > 0.0 && fact.unit == SignalUnit::Seconds {
                        raise(&mut levels.latency_delta, fact.value - fact.expected);
                    }
                }
                SignalKind::Traffic => {
                    let size = (1.0 - (-log_ratio(fact.value, fact.expected).abs() / 0.7).exp())
                        * (1.0 - (-(fact.z.abs() - 2.0).max(0.0) / 4.0).exp());
                    if fact.unit == SignalUnit::PerSecond {
                        levels.requests = Some(levels.requests.unwrap_or_default().max(fact.value));
                    }
                    let level = if fact.value < fact.expected { &mut levels.drop } else { &mut levels.surge };
                    raise(level, size);
                }
                SignalKind::Freshness => raise(&mut levels.waiting, strength),
                SignalKind::Saturation if fact.is_waiting() => raise(&mut levels.waiting, strength),
                SignalKind::Saturation | SignalKind::Restarts | SignalKind::Expiry => {
                    raise(&mut levels.inside, strength);
                }
                SignalKind::Queue => raise(&mut levels.queue, strength),
                SignalKind::Logs => raise(&mut levels.logs, strength),
                SignalKind::Other => raise(&mut levels.other, strength),
            }
        }
        let telling: Vec<_> = own.iter().filter(|fact| !fact.is_internal).collect();
        if !telling.is_empty() && telling.iter().all(|fact| fact.is_gone) {
            levels.down = levels.down.max(0.7);
        }
        levels
    }
}
