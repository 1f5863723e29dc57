//! The incidents of one tenant that findings may join.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use wardroom_domain::canonical::sha256_hex;
use wardroom_domain::incident::incident_key;
use wardroom_domain::{Entity, Finding, Incident, Severity, SignalId, TenantId, Timestamp};
use wardroom_signals::EntityGraph;

use crate::config::Config;
use crate::open_incident::{Candidate, OpenIncident};
use crate::reach::Reach;

/// An incident without a finding for this long is forgotten, in ms. A restart restores incidents of this age.
const RETENTION_MS: i64 = 24 * 3_600_000;
/// Maximum number of incidents that are remembered, open and settled, as a multiple of `max-open-incidents`.
const REMEMBERED_PER_OPEN: usize = 4;
/// Maximum number of signals whose findings are followed; findings of further ones are correlated at each point.
const MAX_EXCURSIONS: usize = 50_000;
/// Signals without a finding for this long are dropped first when there are too many, in ms.
const IDLE_EXCURSION_MS: i64 = 600_000;
/// Maximum number of findings that are remembered as belonging to no incident.
const MAX_UNRELATED: usize = 50_000;
/// Maximum number of entities whose surroundings in the graph are kept.
const MAX_REACHES: usize = 256;

/// The result of correlating a finding.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// The finding opened a new incident.
    Opened(Incident),
    /// An entity joined an open incident.
    Joined {
        /// Key of the incident.
        key: String,
        /// The entity.
        entity: Entity,
    },
    /// A worse finding, or one nearer to the cause, changed title and severity of an open incident.
    Updated {
        /// Key of the incident.
        key: String,
        /// New title.
        title: String,
        /// New severity.
        severity: Severity,
    },
}

/// Number of findings that a limit kept from changing an incident.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitedFindings {
    /// An incident was not opened.
    pub not_opened: u64,
    /// An entity did not join an incident.
    pub not_joined: u64,
}

/// Saved state of a correlator; the variants are the format versions.
#[derive(Debug, Serialize, Deserialize)]
pub enum SavedCorrelator {
    /// Version 1: incidents, and the findings that belong to them.
    V1(SavedIncidents),
}

/// Content of a [`SavedCorrelator`].
#[derive(Debug, Serialize, Deserialize)]
pub struct SavedIncidents {
    incidents: BTreeMap<String, OpenIncident>,
    excursions: BTreeMap<u64, Excursion>,
}

/// The findings of one signal from its onset on, and the incident that they belong to.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Excursion {
    incident: String,
    /// Time of the newest one, in ms. One that begins later is of another excursion.
    at_ms: i64,
}

/// The incidents of one tenant that findings may join.
#[derive(Debug)]
pub struct Correlator {
    config: Config,
    tenant: TenantId,
    incidents: BTreeMap<String, OpenIncident>,
    /// Keys of those that a person has made: they do not count towards the limit of open incidents.
    made_by_person: BTreeSet<String>,
    /// Findings by the hash of their signal.
    excursions: BTreeMap<u64, Excursion>,
    /// Findings that belong to no incident: onset, and the state of the incidents when that was found.
    unrelated: BTreeMap<u64, (i64, u64)>,
    /// Increases when an incident opens, grows or is released.
    version: u64,
    /// Version of the graph that the entities of the incidents have their names from.
    graph_version: Option<u64>,
    /// Surroundings of entities in that graph.
    reaches: BTreeMap<Entity, Reach>,
    limited: LimitedFindings,
}

impl Correlator {
    /// Creates a correlator without incidents.
    pub fn new(config: Config, tenant: TenantId) -> Self {
        Self {
            config,
            tenant,
            incidents: BTreeMap::new(),
            made_by_person: BTreeSet::new(),
            excursions: BTreeMap::new(),
            unrelated: BTreeMap::new(),
            version: 0,
            graph_version: None,
            reaches: BTreeMap::new(),
            limited: LimitedFindings::default(),
        }
    }

    /// Returns the state to persist, for [`Correlator::load`].
    pub fn save(&self) -> SavedCorrelator {
        let (incidents, excursions) = (self.incidents.clone(), self.excursions.clone());
        SavedCorrelator::V1(SavedIncidents { incidents, excursions })
    }

    /// Creates a correlator from saved state.
    pub fn load(config: Config, tenant: TenantId, saved: SavedCorrelator) -> Self {
        let SavedCorrelator::V1(SavedIncidents { incidents, excursions }) = saved;
        Self { incidents, excursions, ..Self::new(config, tenant) }
    }

    /// Takes an incident as it is in the store: after a restart, or when a person has opened, reopened or split it. Its
    /// response began at `opened_ms`; findings that begin after `released_ms` do not belong to it. What the saved state
    /// knows of its entities stays.
    pub fn restore(&mut self, incident: &Incident, opened_ms: i64, released_ms: Option<i64>) {
        if incident.is_made_by_person() {
            self.forget_old(opened_ms);
            self.made_by_person.insert(incident.key.clone());
        }
        if let Some(whole) = &incident.split_from {
            self.split(whole, incident, opened_ms);
        }
        let restored = || {
            let (entities, title) = (incident.affected(), incident.title.clone());
            OpenIncident::restored(&entities, opened_ms, title, incident.severity)
        };
        let known = self.incidents.entry(incident.key.clone()).or_insert_with(restored);
        if known.released_ms.is_some() && released_ms.is_none() {
            known.begin_again(opened_ms);
        }
        known.last_ms = known.last_ms.max(opened_ms);
        known.released_ms = released_ms;
        // Its entities may have other names in the graph.
        self.graph_version = None;
        self.version += 1;
    }

    /// Makes another incident of some entities of one, unless that is done.
    fn split(&mut self, whole: &str, part: &Incident, opened_ms: i64) {
        if self.incidents.contains_key(&part.key) {
            return;
        }
        let Some(known) = self.incidents.get_mut(whole) else { return };
        let split_off = known.split_off(&part.affected(), opened_ms, part.title.clone());
        self.incidents.insert(part.key.clone(), split_off);
        // Which of both its findings belong to is decided again.
        self.excursions.retain(|_, excursion| excursion.incident != whole);
    }

    /// Marks an incident as settled or closed: findings that begin after `at_ms` do not belong to it.
    pub fn release(&mut self, key: &str, at_ms: i64) {
        if let Some(incident) = self.incidents.get_mut(key) {
            incident.released_ms = Some(at_ms);
            self.version += 1;
        }
    }

    /// Returns and resets the number of findings that a limit kept from changing an incident.
    pub fn take_limited(&mut self) -> LimitedFindings {
        std::mem::take(&mut self.limited)
    }

    /// Correlates a finding with the open incidents. Returns what changed; most findings change nothing.
    pub fn observe(&mut self, finding: &Finding, graph: &EntityGraph) -> Vec<Decision> {
        let signal = hash_of(&finding.signal);
        let known = self.excursions.get_mut(&signal).filter(|known| finding.since_ms <= known.at_ms);
        let key = known.map(|known| {
            known.at_ms = known.at_ms.max(finding.at_ms);
            known.incident.clone()
        });
        let key = key.filter(|key| {
            let released_ms = self.incidents.get(key).map(|incident| incident.released_ms);
            released_ms.is_some_and(|released_ms| released_ms.is_none_or(|at_ms| finding.since_ms <= at_ms))
        });
        if key.is_none() && !finding.opens {
            // Most evidence belongs to no incident: it is compared again when an incident has changed.
            let compared = (finding.since_ms, self.version);
            if self.incidents.is_empty() || self.unrelated.get(&signal) == Some(&compared) {
                return Vec::new();
            }
            if self.unrelated.len() >= MAX_UNRELATED {
                self.unrelated.clear();
            }
            self.unrelated.insert(signal, compared);
        }
        self.follow_graph(graph);
        let entity = graph.canonical(&finding.signal.entity);
        if let Some(incident) = key.as_ref().and_then(|key| self.incidents.get_mut(key))
            && incident.continues(&entity, finding, self.config.max_services_per_incident)
        {
            return Vec::new();
        }
        let peer = finding.signal.peer.as_ref().map(|peer| graph.canonical(peer));
        let reach = self.take_reach(&entity, graph);
        let candidate = Candidate { finding, entity, peer, reach };
        let decisions = match key.or_else(|| self.best_incident(&candidate, graph)) {
            Some(key) => self.join(&key, signal, &candidate),
            None if finding.opens => self.open(signal, &candidate),
            None => Vec::new(),
        };
        self.reaches.insert(candidate.entity, candidate.reach);
        decisions
    }

    /// Returns the incident that a finding fits best.
    fn best_incident(&self, candidate: &Candidate<'_>, graph: &EntityGraph) -> Option<String> {
        let fits = self.incidents.iter().filter_map(|(key, incident)| {
            let fit = incident.fit(candidate, graph, &self.config)?;
            Some((fit, std::cmp::Reverse(incident.last_ms), key))
        });
        fits.min().map(|(_, _, key)| key.clone())
    }

    /// Adds a finding to an incident.
    fn join(&mut self, key: &str, signal: u64, candidate: &Candidate<'_>) -> Vec<Decision> {
        self.follow(signal, key, candidate.finding);
        let Some(incident) = self.incidents.get_mut(key) else { return Vec::new() };
        let mut decisions = Vec::new();
        let is_released = incident.released_ms.is_some();
        if !is_released && !incident.members.contains_key(&candidate.entity) {
            if incident.members.len() < self.config.max_services_per_incident {
                incident.add_member(candidate);
                decisions.push(Decision::Joined { key: key.to_owned(), entity: candidate.entity.clone() });
                self.version += 1;
            } else {
                self.limited.not_joined += 1;
            }
        }
        if incident.update(candidate) && !is_released {
            let (title, severity) = (incident.headline.title.clone(), incident.severity);
            decisions.push(Decision::Updated { key: key.to_owned(), title, severity });
        }
        decisions
    }

    /// Opens an incident, unless there are too many.
    fn open(&mut self, signal: u64, candidate: &Candidate<'_>) -> Vec<Decision> {
        let finding = candidate.finding;
        let is_counted = |key: &String| !self.made_by_person.contains(key);
        let open = self
            .incidents
            .iter()
            .filter(|(key, incident)| is_counted(key) && incident.is_open(finding.at_ms, &self.config));
        let open = open.count();
        if open >= self.config.max_open_incidents {
            self.limited.not_opened += 1;
            return Vec::new();
        }
        self.forget_old(finding.at_ms);
        let (began_at, opened_at) = (Timestamp::from_millis(finding.since_ms), Timestamp::from_millis(finding.at_ms));
        let key = incident_key(&self.tenant, &finding.signal.labels().to_string(), began_at);
        let incident = OpenIncident::new(candidate);
        let mut opened = Incident {
            key: key.clone(),
            tenant: self.tenant.clone(),
            title: incident.headline.title.clone(),
            severity: finding.severity,
            trigger: "sustained_breach".to_owned(),
            began_at,
            opened_at,
            interval_ms: finding.interval_ms.max(0),
            ..Incident::default()
        };
        opened.add_entity(&candidate.entity);
        self.follow(signal, &key, finding);
        self.incidents.insert(key, incident);
        self.version += 1;
        vec![Decision::Opened(opened)]
    }

    /// Notes that the findings of a signal belong to an incident.
    fn follow(&mut self, signal: u64, key: &str, finding: &Finding) {
        if self.excursions.len() >= MAX_EXCURSIONS && !self.excursions.contains_key(&signal) {
            self.excursions.retain(|_, excursion| excursion.at_ms.saturating_add(IDLE_EXCURSION_MS) >= finding.at_ms);
            if self.excursions.len() >= MAX_EXCURSIONS {
                return;
            }
        }
        self.excursions.insert(signal, Excursion { incident: key.to_owned(), at_ms: finding.at_ms });
    }

    /// Forgets incidents without a finding for long, then the oldest beyond the limit, and their findings.
    fn forget_old(&mut self, now_ms: i64) {
        let last_ms = |incident: &OpenIncident| incident.last_ms.max(incident.released_ms.unwrap_or(i64::MIN));
        self.incidents.retain(|_, incident| last_ms(incident).saturating_add(RETENTION_MS) >= now_ms);
        let limit = self.config.max_open_incidents.saturating_mul(REMEMBERED_PER_OPEN);
        while self.incidents.len() >= limit.max(1) {
            let oldest = self.incidents.iter().min_by_key(|(key, incident)| (last_ms(incident), *key));
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else { break };
            self.incidents.remove(&oldest);
        }
        self.excursions.retain(|_, excursion| self.incidents.contains_key(&excursion.incident));
        self.made_by_person.retain(|key| self.incidents.contains_key(key));
    }

    /// Takes over what the graph has learned since the last finding.
    fn follow_graph(&mut self, graph: &EntityGraph) {
        if self.graph_version != Some(graph.version()) {
            self.graph_version = Some(graph.version());
            self.reaches.clear();
            self.incidents.values_mut().for_each(|incident| incident.rename_members(graph));
        }
    }

    /// Returns what is around an entity, from the last time if the graph is the same.
    fn take_reach(&mut self, entity: &Entity, graph: &EntityGraph) -> Reach {
        if self.reaches.len() >= MAX_REACHES {
            self.reaches.clear();
        }
        self.reaches.remove(entity).unwrap_or_else(|| Reach::of(entity, graph))
    }
}

/// A hash of a signal's labels: equal in every build, since it is persisted.
fn hash_of(signal: &SignalId) -> u64 {
    let digest = sha256_hex(signal.labels().to_string().as_bytes());
    digest.get(..16).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or_default()
}
