//! One incident that findings may join, and the rules by which they do.
//!
//! | relation of the finding's entity to one of the incident | onset of the finding |
//! |---|---|
//! | the same entity | any time until the incident is quiet |
//! | depends on it: the finding is a symptom | until `propagation-minutes` after that entity became bad or worse |
//! | it depends on the finding's entity: nearer the cause | not much later; a little more if nothing else explains it |
//! | both depend on a third | about the same time |
//! | none known | the same seconds, in the same place, and at least one of both is about requests |

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wardroom_domain::{Entity, Finding, Severity, SignalKind};
use wardroom_signals::EntityGraph;

use crate::config::Config;
use crate::reach::Reach;

/// Number of intervals without a finding after which an incident is quiet.
const QUIET_INTERVALS: i64 = 5;
/// Uncertainty of an estimated onset, in ms: detection takes some points, and signals have different windows.
const ONSET_TOLERANCE_MS: i64 = 60_000;
/// How much later a dependency's signals may turn bad than those of an entity that nothing else explains, in ms.
const LATE_CAUSE_MS: i64 = 180_000;
/// Onsets of entities without a known relation differ by less than this and one interval, in ms.
const UNRELATED_TOLERANCE_MS: i64 = 30_000;
/// Limit of the interval in that tolerance, in ms.
const MAX_UNRELATED_INTERVAL_MS: i64 = 60_000;
/// Maximum number of dependencies that an incident remembers, to find common ones.
const MAX_DEPENDENCIES: usize = 2000;

/// A finding with what a join depends on.
#[derive(Debug)]
pub(crate) struct Candidate<'a> {
    /// The finding.
    pub(crate) finding: &'a Finding,
    /// Its entity in canonical form.
    pub(crate) entity: Entity,
    /// The called entity in canonical form, for a signal of outgoing calls.
    pub(crate) peer: Option<Entity>,
    /// What is around the entity.
    pub(crate) reach: Reach,
}

/// How well a finding fits an incident; the smallest is the best: class of the relation, distance in relations,
/// difference of the onsets in ms.
pub(crate) type Fit = (u8, u32, i64);

/// An incident that findings may join.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct OpenIncident {
    /// The affected entities in canonical form.
    pub(crate) members: BTreeMap<Entity, Member>,
    /// What the title names.
    pub(crate) headline: Headline,
    /// Highest severity of its findings.
    pub(crate) severity: Severity,
    /// Dependencies of the members with the newest onset of a member that depends on them, in ms.
    dependencies: BTreeMap<Entity, i64>,
    /// Slowest interval of its signals, in ms.
    interval_ms: i64,
    /// Onset of the newest entity, listed or beyond the limit, in ms.
    newest_onset_ms: i64,
    /// Time of the newest finding that may open an incident, in ms.
    pub(crate) last_ms: i64,
    /// Set when the incident is settled or closed: findings that begin later do not belong to it.
    pub(crate) released_ms: Option<i64>,
}

/// An affected entity.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Member {
    /// First onset of each kind of signal whose findings may open an incident, in ms.
    onsets: BTreeMap<SignalKind, i64>,
    /// When it became bad or last became worse, in ms.
    worsened_ms: i64,
    /// Time of its newest finding, in ms: after it, nothing that begins is a symptom of it.
    bad_until_ms: i64,
    severity: Severity,
}

/// The finding that an incident is named after.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Headline {
    /// Its entity.
    pub(crate) entity: Entity,
    /// Its severity.
    severity: Severity,
    /// Its kind of signal; `None` after a restart without saved state.
    kind: Option<SignalKind>,
    /// The title.
    pub(crate) title: String,
}

impl Member {
    fn new(finding: &Finding) -> Self {
        let onsets = finding.opens.then_some((finding.signal.kind, finding.since_ms));
        Self {
            onsets: onsets.into_iter().collect(),
            worsened_ms: finding.since_ms,
            bad_until_ms: finding.at_ms,
            severity: finding.severity,
        }
    }

    fn update(&mut self, finding: &Finding) {
        self.bad_until_ms = self.bad_until_ms.max(finding.at_ms);
        if finding.opens {
            let onset_ms = self.onsets.entry(finding.signal.kind).or_insert(finding.since_ms);
            *onset_ms = finding.since_ms.min(*onset_ms);
        }
        if finding.severity > self.severity {
            (self.severity, self.worsened_ms) = (finding.severity, finding.at_ms);
        }
    }

    fn first_onset_ms(&self) -> i64 {
        self.onsets.values().copied().min().unwrap_or(self.worsened_ms)
    }

    /// Returns the latest time at which it became bad or worse.
    fn last_change_ms(&self) -> i64 {
        self.onsets.values().copied().max().unwrap_or(self.worsened_ms).max(self.worsened_ms)
    }

    /// Returns the difference to its nearest onset, in ms; positive if `at_ms` is later.
    fn nearest_onset_ms(&self, at_ms: i64) -> i64 {
        let differences = self.onsets.values().map(|onset_ms| at_ms - onset_ms);
        differences.min_by_key(|difference| difference.abs()).unwrap_or(at_ms - self.worsened_ms)
    }
}

impl OpenIncident {
    /// Opens an incident.
    pub(crate) fn new(candidate: &Candidate<'_>) -> Self {
        let finding = candidate.finding;
        let mut incident = Self {
            members: BTreeMap::new(),
            headline: Headline {
                entity: candidate.entity.clone(),
                severity: finding.severity,
                kind: Some(finding.signal.kind),
                title: title(candidate),
            },
            severity: finding.severity,
            dependencies: BTreeMap::new(),
            interval_ms: finding.interval_ms.max(0),
            newest_onset_ms: finding.since_ms,
            last_ms: finding.at_ms,
            released_ms: None,
        };
        incident.add_member(candidate);
        incident
    }

    /// Recreates an incident of which only entities and times are known.
    pub(crate) fn restored(entities: &[Entity], opened_ms: i64, title: String, severity: Severity) -> Self {
        let member = || Member { onsets: BTreeMap::new(), worsened_ms: opened_ms, bad_until_ms: opened_ms, severity };
        Self {
            members: entities.iter().map(|entity| (entity.clone(), member())).collect(),
            headline: Headline { entity: entities.first().cloned().unwrap_or_default(), severity, kind: None, title },
            severity,
            dependencies: BTreeMap::new(),
            interval_ms: 0,
            newest_onset_ms: opened_ms,
            last_ms: opened_ms,
            released_ms: None,
        }
    }

    /// Forgets the times of findings before a person reopened it: later ones are compared with each other.
    pub(crate) fn begin_again(&mut self, opened_ms: i64) {
        for member in self.members.values_mut() {
            member.onsets.clear();
            (member.worsened_ms, member.bad_until_ms) = (opened_ms, opened_ms);
        }
        self.dependencies.clear();
        self.newest_onset_ms = opened_ms;
    }

    /// Takes entities out of it. Returns the incident that has them from then on, with what is known of them.
    pub(crate) fn split_off(&mut self, entities: &[Entity], opened_ms: i64, title: String) -> Self {
        let mut part = Self::restored(entities, opened_ms, title, self.severity);
        for entity in entities {
            if let Some(member) = self.members.remove(entity) {
                part.members.insert(entity.clone(), member);
            }
        }
        part.interval_ms = self.interval_ms;
        part.newest_onset_ms = self.newest_onset_ms;
        part.last_ms = self.last_ms.max(opened_ms);
        if entities.contains(&self.headline.entity)
            && let Some(entity) = self.members.keys().next()
        {
            (self.headline.entity, self.headline.kind) = (entity.clone(), None);
        }
        part
    }

    /// Renames the entities after the graph has learned that two names are one thing.
    pub(crate) fn rename_members(&mut self, graph: &EntityGraph) {
        let members = std::mem::take(&mut self.members);
        for (entity, member) in members {
            let known = self.members.entry(graph.canonical(&entity)).or_insert_with(|| member.clone());
            for (kind, onset_ms) in member.onsets {
                let first_ms = known.onsets.entry(kind).or_insert(onset_ms);
                *first_ms = onset_ms.min(*first_ms);
            }
            known.worsened_ms = known.worsened_ms.max(member.worsened_ms);
            known.bad_until_ms = known.bad_until_ms.max(member.bad_until_ms);
            known.severity = known.severity.max(member.severity);
        }
        self.headline.entity = graph.canonical(&self.headline.entity);
    }

    /// Returns whether findings that begin at this time may still join.
    pub(crate) fn is_open(&self, at_ms: i64, config: &Config) -> bool {
        self.released_ms.is_none() && !self.is_quiet(at_ms, 0, config)
    }

    /// Returns whether all of its findings have ended long before a time.
    fn is_quiet(&self, at_ms: i64, interval_ms: i64, config: &Config) -> bool {
        let intervals_ms = self.interval_ms.max(interval_ms).saturating_mul(QUIET_INTERVALS);
        at_ms > self.last_ms.saturating_add(intervals_ms.max(minutes_to_ms(config.quiet_minutes)))
    }

    /// Returns how well a finding fits; `None` if it does not belong to this incident.
    pub(crate) fn fit(&self, candidate: &Candidate<'_>, graph: &EntityGraph, config: &Config) -> Option<Fit> {
        let finding = candidate.finding;
        let since_ms = finding.since_ms;
        if self.released_ms.is_some_and(|released_ms| since_ms > released_ms) {
            return None;
        }
        if self.is_quiet(finding.at_ms, finding.interval_ms, config) && since_ms > self.last_ms {
            return None;
        }
        if let Some(member) = self.members.get(&candidate.entity) {
            return Some((0, 0, member.nearest_onset_ms(since_ms).abs()));
        }
        let related = self.members.iter().filter_map(|(entity, member)| {
            let hops = self.path(candidate, (entity, member), graph, config)?;
            Some((1, hops, member.nearest_onset_ms(since_ms).abs()))
        });
        // What may only join needs a path; a coincidence of times is no evidence for it.
        related.min().or_else(|| finding.opens.then(|| self.coincidence(candidate, config)).flatten())
    }

    /// Returns the number of relations between the finding and a member along which the symptom can have travelled.
    fn path(
        &self,
        candidate: &Candidate<'_>,
        (entity, member): (&Entity, &Member),
        graph: &EntityGraph,
        config: &Config,
    ) -> Option<u32> {
        let finding = candidate.finding;
        let tolerance_ms = ONSET_TOLERANCE_MS + 2 * self.interval_ms.max(finding.interval_ms);
        let window_ms = minutes_to_ms(config.propagation_minutes);
        let is_peer = candidate.peer.as_ref() == Some(entity);
        // Some rules need long: their findings begin before what they are compared with, and last.
        let is_spanning = member.onsets.values().any(|onset_ms| (finding.since_ms..=finding.at_ms).contains(onset_ms));
        let symptom = candidate.reach.dependencies.get(entity).copied().or(is_peer.then_some(1)).filter(|_| {
            // Nothing is a symptom of what has ended.
            let latest_ms = (member.last_change_ms() + window_ms).min(member.bad_until_ms + tolerance_ms);
            let times = member.first_onset_ms() - tolerance_ms..=latest_ms;
            is_spanning || times.contains(&finding.since_ms)
        });
        let cause = candidate.reach.dependents.get(entity).copied().filter(|_| {
            let late_ms = member.nearest_onset_ms(finding.since_ms);
            if is_spanning || late_ms <= tolerance_ms {
                return is_spanning || late_ms >= -window_ms;
            }
            // Something else already explains the member: this is more likely another fault.
            late_ms <= LATE_CAUSE_MS + tolerance_ms - ONSET_TOLERANCE_MS && !self.explains(entity, graph)
        });
        [symptom, cause].into_iter().flatten().min()
    }

    /// Returns whether a dependency of an entity is a member, too.
    fn explains(&self, entity: &Entity, graph: &EntityGraph) -> bool {
        let dependencies = Reach::dependencies_of(entity, graph);
        self.members.keys().any(|member| dependencies.contains_key(member))
    }

    /// Returns how well the onset of a finding fits if there is no path.
    fn coincidence(&self, candidate: &Candidate<'_>, config: &Config) -> Option<Fit> {
        let finding = candidate.finding;
        let since_ms = finding.since_ms;
        let interval_ms = self.interval_ms.max(finding.interval_ms);
        let distance = |onset_ms: i64| since_ms.abs_diff(onset_ms) as i64;
        let common = candidate.reach.dependencies.iter().filter_map(|(entity, hops)| {
            let distance_ms = distance(*self.dependencies.get(entity)?);
            (distance_ms <= ONSET_TOLERANCE_MS + 2 * interval_ms).then_some((2, *hops, distance_ms))
        });
        if let Some(fit) = common.min() {
            return Some(fit);
        }
        let limit_ms = UNRELATED_TOLERANCE_MS + interval_ms.min(MAX_UNRELATED_INTERVAL_MS);
        let matches = |(entity, member): (&Entity, &Member)| {
            is_same_place(entity, &candidate.entity) && member.onsets.keys().any(|kind| may_coincide(*kind, finding))
        };
        // The nearest onset: many entities that fail one after the other are one incident, but not without end.
        let newest_ms = distance(self.newest_onset_ms);
        let nearest_ms = if newest_ms <= limit_ms {
            self.members.iter().any(matches).then_some(newest_ms)
        } else {
            let near = self.members.iter().map(|it| (it.1.nearest_onset_ms(since_ms).abs(), it));
            near.filter(|(near_ms, it)| *near_ms <= limit_ms && matches(*it)).map(|(near_ms, _)| near_ms).min()
        }?;
        let first_ms = self.members.values().map(Member::first_onset_ms).min()?;
        (since_ms <= first_ms + minutes_to_ms(config.propagation_minutes)).then_some((3, 0, nearest_ms))
    }

    /// Takes a finding that continues one that it has, unless that changes more than times; then returns false.
    pub(crate) fn continues(&mut self, entity: &Entity, finding: &Finding, max_members: usize) -> bool {
        let is_full = self.members.len() >= max_members;
        let severity = match self.members.get_mut(entity) {
            Some(member) => {
                member.bad_until_ms = member.bad_until_ms.max(finding.at_ms);
                member.severity
            }
            None if is_full => self.severity,
            None => return false,
        };
        if finding.severity > severity {
            return false;
        }
        if finding.opens {
            self.last_ms = self.last_ms.max(finding.at_ms);
        }
        true
    }

    /// Takes a finding of one of its entities. Returns whether the title or the severity changed.
    pub(crate) fn update(&mut self, candidate: &Candidate<'_>) -> bool {
        let finding = candidate.finding;
        self.interval_ms = self.interval_ms.max(finding.interval_ms);
        if finding.opens {
            self.last_ms = self.last_ms.max(finding.at_ms);
        }
        match self.members.get_mut(&candidate.entity) {
            Some(member) => member.update(finding),
            None if finding.opens => self.newest_onset_ms = self.newest_onset_ms.max(finding.since_ms),
            None => {}
        }
        if !finding.opens {
            return false;
        }
        let is_worse = finding.severity > self.severity;
        self.severity = self.severity.max(finding.severity);
        let is_renamed = self.is_better_headline(candidate);
        if is_renamed {
            let (entity, severity, kind) = (candidate.entity.clone(), finding.severity, Some(finding.signal.kind));
            self.headline = Headline { entity, severity, kind, title: title(candidate) };
        }
        is_worse || is_renamed
    }

    /// Whether a finding names the incident better: it is worse, and not just a symptom of what the title names; or it
    /// is nearer to the cause and not much milder.
    fn is_better_headline(&self, candidate: &Candidate<'_>) -> bool {
        let (finding, headline) = (candidate.finding, &self.headline);
        let is_dependent = candidate.reach.dependencies.contains_key(&headline.entity);
        let is_dependency = candidate.reach.dependents.contains_key(&headline.entity);
        let levels = finding.severity as i8 - headline.severity as i8;
        // Callers decide what a service gets to do: less traffic is a symptom of theirs, and of anything else.
        let is_nearer = match (headline.kind, finding.signal.kind) {
            (Some(SignalKind::Traffic), SignalKind::Traffic) => is_dependent && !is_dependency,
            (Some(SignalKind::Traffic), _) => true,
            (_, SignalKind::Traffic) => false,
            _ => is_dependency && !is_dependent,
        };
        if is_nearer { levels >= -1 } else { levels > i8::from(is_dependent) }
    }

    /// Adds an entity.
    pub(crate) fn add_member(&mut self, candidate: &Candidate<'_>) {
        self.members.insert(candidate.entity.clone(), Member::new(candidate.finding));
        if !candidate.finding.opens {
            return;
        }
        self.newest_onset_ms = self.newest_onset_ms.max(candidate.finding.since_ms);
        let since_ms = candidate.finding.since_ms;
        for entity in candidate.reach.dependencies.keys() {
            if self.dependencies.len() < MAX_DEPENDENCIES || self.dependencies.contains_key(entity) {
                let onset_ms = self.dependencies.entry(entity.clone()).or_insert(since_ms);
                *onset_ms = since_ms.max(*onset_ms);
            }
        }
    }
}

/// The title says what was measured, and where.
fn title(candidate: &Candidate<'_>) -> String {
    let calls = candidate.peer.as_ref().map_or_else(String::new, |peer| format!(", calls to {peer}"));
    format!("{}{calls}: {}", candidate.entity, candidate.finding.summary)
}

/// Whether the onset of a finding can coincide with that of a signal of this kind because of one fault: at least one of
/// them is about requests, or both are of one kind.
fn may_coincide(kind: SignalKind, finding: &Finding) -> bool {
    let is_scheduled = |kind| matches!(kind, SignalKind::Expiry | SignalKind::Freshness);
    let is_symptom = |kind| {
        matches!(kind, SignalKind::Availability | SignalKind::Errors | SignalKind::Latency | SignalKind::Traffic)
    };
    let other = finding.signal.kind;
    kind == other || (is_symptom(kind) || is_symptom(other)) && !is_scheduled(kind) && !is_scheduled(other)
}

/// Whether two entities are of one namespace, environment and cluster, as far as these are known.
fn is_same_place(a: &Entity, b: &Entity) -> bool {
    let agree = |a: &str, b: &str| a == b || a.is_empty() || b.is_empty();
    agree(&a.namespace, &b.namespace) && agree(&a.environment, &b.environment) && agree(&a.cluster, &b.cluster)
}

const fn minutes_to_ms(minutes: u64) -> i64 {
    (minutes as i64).saturating_mul(60_000)
}
