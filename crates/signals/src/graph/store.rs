//! Entities by id, by name, and their relations.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use wardroom_domain::entity_names::{host_of, is_loopback};
use wardroom_domain::{Entity, EntityKind, Relation, RelationKind};

use super::identity::{Rank, is_compatible, is_one, is_program, is_store};
use super::limits::GraphLimits;
use super::state::GraphState;

/// Maximum number of entities that are compared by a common name; a name that more have says nothing.
const MAX_SHARING_A_NAME: usize = 32;
/// Maximum number of aliases of an entity; the oldest makes room. The pods of a workload are replaced often.
const MAX_ALIASES: usize = 64;
/// Maximum steps from an entity to its best known name; each step is to a better one.
const MAX_STEPS: usize = 8;
/// Separates namespace and name in keys.
const SEPARATOR: char = '\u{1f}';

pub(super) type Id = u32;

#[derive(Debug)]
pub(super) struct Node {
    pub(super) entity: Entity,
    rank: Rank,
    /// Keys with the time of their newest observation; the first are of the name.
    keys: Vec<(Box<str>, i64)>,
    aliases: Vec<Box<str>>,
    seen_ms: i64,
    /// The better known name of the same thing; itself if there is none.
    better: Id,
    /// Entities whose better known name this is.
    followers: BTreeSet<Id>,
    /// Whether the names that this entity could have are of different things.
    is_ambiguous: bool,
    pub(super) out: BTreeSet<(RelationKind, Id)>,
    pub(super) inn: BTreeSet<(RelationKind, Id)>,
}

/// The end of relations to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    From,
    To,
}

#[derive(Debug, Default)]
pub(super) struct Store {
    limits: GraphLimits,
    /// Declared names, to the first of their list.
    declared: BTreeMap<String, String>,
    nodes: Vec<Option<Node>>,
    free: Vec<Id>,
    ids: HashMap<Entity, Id>,
    by_key: HashMap<Box<str>, Vec<Id>>,
    /// Ids with a time at which they were seen, which may be older than the newest.
    by_age: VecDeque<(i64, Id)>,
    relations: usize,
    version: u64,
}

impl Store {
    pub(super) fn new(limits: GraphLimits, declared: &[Vec<String>]) -> Self {
        let mut by_name = BTreeMap::new();
        for names in declared {
            let Some(first) = names.first().map(|name| name.to_ascii_lowercase()) else { continue };
            by_name.extend(names.iter().map(|name| (name.to_ascii_lowercase(), first.clone())));
        }
        Self { limits, declared: by_name, ..Self::default() }
    }

    pub(super) fn node(&self, id: Id) -> Option<&Node> {
        self.nodes.get(id as usize)?.as_ref()
    }

    fn node_mut(&mut self, id: Id) -> Option<&mut Node> {
        self.nodes.get_mut(id as usize)?.as_mut()
    }

    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn len(&self) -> (usize, usize) {
        (self.ids.len(), self.relations)
    }

    pub(super) fn observe(&mut self, entity: &Entity, aliases: &[String], relations: &[Relation], at_ms: i64) {
        if entity.is_empty() {
            return;
        }
        let id = self.intern(entity, at_ms);
        for alias in aliases {
            self.add_alias(id, alias, at_ms);
        }
        for relation in relations {
            self.relate(relation, at_ms);
        }
    }

    pub(super) fn touch(&mut self, entity: &Entity, at_ms: i64) {
        let id = self.ids.get(entity).copied();
        if let Some(node) = id.and_then(|id| self.node_mut(id)) {
            node.seen_ms = node.seen_ms.max(at_ms);
        }
    }

    fn intern(&mut self, entity: &Entity, at_ms: i64) -> Id {
        if let Some(id) = self.ids.get(entity).copied() {
            if let Some(node) = self.node_mut(id) {
                node.seen_ms = node.seen_ms.max(at_ms);
            }
            return id;
        }
        while self.ids.len() >= self.limits.max_entities.max(1) && self.evict_oldest() {}
        let id = self.free.pop().unwrap_or(self.nodes.len() as Id);
        let node = Node {
            entity: entity.clone(),
            rank: Rank::of(entity),
            keys: Vec::new(),
            aliases: Vec::new(),
            seen_ms: at_ms,
            better: id,
            followers: BTreeSet::new(),
            is_ambiguous: false,
            out: BTreeSet::new(),
            inn: BTreeSet::new(),
        };
        match self.nodes.get_mut(id as usize) {
            Some(slot) => *slot = Some(node),
            None => self.nodes.push(Some(node)),
        }
        self.ids.insert(entity.clone(), id);
        self.by_age.push_back((at_ms, id));
        self.version += 1;
        self.add_keys(id, &entity.name, at_ms);
        id
    }

    fn add_alias(&mut self, id: Id, alias: &str, at_ms: i64) {
        let Some(node) = self.node_mut(id) else { return };
        if alias.is_empty() || is_loopback(host_of(alias)) || node.entity.name.eq_ignore_ascii_case(alias) {
            return;
        }
        if !node.aliases.iter().any(|known| &**known == alias) {
            node.aliases.push(alias.into());
            if node.aliases.len() > MAX_ALIASES {
                let oldest = node.aliases.remove(0);
                for key in self.keys_of(id, &oldest) {
                    self.remove_key(id, &key);
                }
            }
            self.version += 1;
        }
        self.add_keys(id, alias, at_ms);
    }

    /// Returns the keys of a name: alone, and within the namespace.
    fn keys_of(&self, id: Id, name: &str) -> Vec<String> {
        self.node(id).map(|node| self.keys_of_entity(&node.entity, name)).unwrap_or_default()
    }

    fn keys_of_entity(&self, entity: &Entity, name: &str) -> Vec<String> {
        let lower = name.to_ascii_lowercase();
        let key = self.declared.get(&lower).cloned().unwrap_or(lower);
        let scoped = (!entity.namespace.is_empty()).then(|| format!("{}{SEPARATOR}{key}", entity.namespace));
        std::iter::once(key).chain(scoped).collect()
    }

    fn add_keys(&mut self, id: Id, name: &str, at_ms: i64) {
        for key in self.keys_of(id, name) {
            let Some(node) = self.node_mut(id) else { return };
            if let Some((_, seen_ms)) = node.keys.iter_mut().find(|(known, _)| **known == *key) {
                *seen_ms = at_ms.max(*seen_ms);
                continue;
            }
            node.keys.push((key.as_str().into(), at_ms));
            let sharing = self.by_key.entry(key.as_str().into()).or_default();
            if sharing.len() > MAX_SHARING_A_NAME {
                continue;
            }
            sharing.push(id);
            let sharing = sharing.clone();
            self.relate_to_machine(&key, id, &sharing);
            for other in sharing {
                self.find_better(other);
            }
        }
    }

    /// What has the name of a machine among its addresses runs on it.
    fn relate_to_machine(&mut self, key: &str, id: Id, sharing: &[Id]) {
        let kind = |store: &Self, id: Id| store.node(id).map(|node| node.entity.kind);
        let runs = |kind: EntityKind| is_program(kind) || is_store(kind) || kind == EntityKind::Queue;
        let is_scoped = key.contains(SEPARATOR);
        let pairs: Vec<(Id, Id)> = match kind(self, id) {
            _ if is_scoped => Vec::new(),
            Some(EntityKind::Node) => sharing.iter().map(|other| (*other, id)).collect(),
            _ => sharing.iter().map(|other| (id, *other)).collect(),
        };
        for (program, machine) in pairs {
            let (Some(from), Some(to)) = (self.node(program), self.node(machine)) else { continue };
            let (from, to) = (&from.entity, &to.entity);
            if runs(from.kind) && to.kind == EntityKind::Node && is_compatible(from, to) {
                self.add_edge(program, RelationKind::RunsOn, machine);
            }
        }
    }

    fn remove_key(&mut self, id: Id, key: &str) {
        if let Some(node) = self.node_mut(id) {
            node.keys.retain(|(known, _)| **known != *key);
        }
        let Some(sharing) = self.by_key.get_mut(key) else { return };
        sharing.retain(|other| *other != id);
        let sharing = sharing.clone();
        if sharing.is_empty() {
            self.by_key.remove(key);
        }
        for other in sharing.into_iter().chain([id]) {
            self.find_better(other);
        }
    }

    pub(super) fn relate(&mut self, relation: &Relation, at_ms: i64) {
        if relation.from.is_empty() || relation.to.is_empty() || relation.from == relation.to {
            return;
        }
        let from = self.intern(&relation.from, at_ms);
        let to = self.intern(&relation.to, at_ms);
        self.add_edge(from, relation.kind, to);
    }

    fn add_edge(&mut self, from: Id, kind: RelationKind, to: Id) {
        if from == to || self.relations >= self.limits.max_relations {
            return;
        }
        let is_new = self.node_mut(from).is_some_and(|node| node.out.insert((kind, to)));
        if is_new && let Some(node) = self.node_mut(to) {
            node.inn.insert((kind, from));
            self.relations += 1;
            self.version += 1;
        }
    }

    /// Finds the best known name of what an entity is.
    fn find_better(&mut self, id: Id) {
        let Some(node) = self.node(id) else { return };
        let keys: Vec<String> = node.keys.iter().map(|(key, _)| key.to_string()).collect();
        let (candidates, is_ambiguous) = self.candidates(&node.entity, Some(id), &keys);
        let better = if is_ambiguous { id } else { self.best(id, &candidates) };
        let old = node.better;
        let changed = old != better || node.is_ambiguous != is_ambiguous;
        if !changed {
            return;
        }
        if let Some(node) = self.node_mut(id) {
            (node.better, node.is_ambiguous) = (better, is_ambiguous);
        }
        if let Some(node) = self.node_mut(old) {
            node.followers.remove(&id);
        }
        if better != id
            && let Some(node) = self.node_mut(better)
        {
            node.followers.insert(id);
        }
        self.version += 1;
    }

    fn best(&self, id: Id, candidates: &[Id]) -> Id {
        let rank = |id: &Id| self.node(*id).map(|node| (node.rank, Reverse(&node.entity)));
        candidates.iter().copied().chain([id]).max_by(|a, b| rank(a).cmp(&rank(b))).unwrap_or(id)
    }

    /// Returns the entities that are one with an entity by its keys, and whether they contradict each other.
    fn candidates(&self, entity: &Entity, id: Option<Id>, keys: &[String]) -> (Vec<Id>, bool) {
        let mut found = BTreeSet::new();
        for key in keys {
            let Some(sharing) = self.by_key.get(key.as_str()).filter(|all| all.len() <= MAX_SHARING_A_NAME) else {
                continue;
            };
            found.extend(
                sharing.iter().copied().filter(|other| Some(*other) != id && self.are_one(entity, *other, key)),
            );
        }
        let found: Vec<Id> = found.into_iter().collect();
        let contradict = |a: &Id, b: &Id| match (self.node(*a), self.node(*b)) {
            (Some(a), Some(b)) => !is_compatible(&a.entity, &b.entity) || are_rivals(&a.entity, &b.entity, keys),
            _ => false,
        };
        let is_ambiguous =
            found.iter().enumerate().any(|(index, a)| found.iter().skip(index + 1).any(|b| contradict(a, b)));
        (found, is_ambiguous)
    }

    fn are_one(&self, entity: &Entity, other: Id, key: &str) -> bool {
        let Some(other) = self.node(other) else { return false };
        let name = key.rsplit(SEPARATOR).next().unwrap_or(key);
        let is_declared = self.declared.contains_key(name);
        is_compatible(entity, &other.entity) && (is_declared || is_one(entity, &other.entity, name))
    }

    /// Returns the id of an entity, or of one that it is one with.
    pub(super) fn resolve(&self, entity: &Entity) -> Option<Id> {
        if let Some(id) = self.ids.get(entity) {
            return Some(*id);
        }
        let keys = self.keys_of_entity(entity, &entity.name);
        let (candidates, is_ambiguous) = self.candidates(entity, None, &keys);
        if is_ambiguous { None } else { candidates.first().map(|first| self.best(*first, &candidates)) }
    }

    pub(super) fn resolve_canonical(&self, entity: &Entity) -> Option<Id> {
        self.resolve(entity).map(|id| self.canonical_id(id))
    }

    /// Returns the id of the best known name.
    pub(super) fn canonical_id(&self, id: Id) -> Id {
        let mut id = id;
        for _ in 0..MAX_STEPS {
            match self.step(id) {
                Some(better) => id = better,
                None => break,
            }
        }
        id
    }

    /// Returns the better known name; `None` if there is none. A name that could mean two things is none.
    fn step(&self, id: Id) -> Option<Id> {
        let better = self.node(id)?.better;
        (better != id && !self.node(better)?.is_ambiguous).then_some(better)
    }

    /// Returns the entities whose best known name this is.
    pub(super) fn members(&self, canonical: Id) -> Vec<Id> {
        let mut members = vec![canonical];
        let mut next = 0;
        while let Some(id) = members.get(next).copied() {
            next += 1;
            let followers = self.node(id).into_iter().flat_map(|node| node.followers.iter().copied());
            members.extend(followers.filter(|follower| self.step(*follower) == Some(id)));
        }
        members
    }

    pub(super) fn relations(&self, entity: &Entity, side: Side) -> Vec<(RelationKind, Entity)> {
        let Some(id) = self.resolve_canonical(entity) else { return Vec::new() };
        let mut ends = BTreeSet::new();
        for member in self.members(id).into_iter().filter_map(|member| self.node(member)) {
            let edges = if side == Side::From { &member.out } else { &member.inn };
            ends.extend(edges.iter().map(|(kind, other)| (*kind, self.canonical_id(*other))));
        }
        let known = ends.into_iter().filter(|(_, other)| *other != id);
        known.filter_map(|(kind, other)| Some((kind, self.node(other)?.entity.clone()))).collect()
    }

    pub(super) fn evict(&mut self, now_ms: i64) {
        let oldest_ms = now_ms.saturating_sub(self.limits.max_age_ms);
        while self.by_age.front().is_some_and(|(seen_ms, _)| *seen_ms < oldest_ms) {
            let Some((_, id)) = self.by_age.pop_front() else { return };
            match self.node(id).map(|node| node.seen_ms) {
                Some(seen_ms) if seen_ms >= oldest_ms => self.by_age.push_back((seen_ms, id)),
                _ => self.remove(id),
            }
        }
    }

    /// Removes the entity that was not seen for the longest time, nearly: one that was seen since its turn gets another
    /// one.
    fn evict_oldest(&mut self) -> bool {
        for _ in 0..MAX_SHARING_A_NAME {
            let Some((known_ms, id)) = self.by_age.pop_front() else { return false };
            match self.node(id).map(|node| node.seen_ms) {
                Some(seen_ms) if seen_ms > known_ms => self.by_age.push_back((seen_ms, id)),
                _ => {
                    self.remove(id);
                    return true;
                }
            }
        }
        let Some((_, id)) = self.by_age.pop_front() else { return false };
        self.remove(id);
        true
    }

    fn remove(&mut self, id: Id) {
        let Some(node) = self.nodes.get_mut(id as usize).and_then(Option::take) else { return };
        self.ids.remove(&node.entity);
        for (kind, to) in &node.out {
            self.relations -= 1;
            if let Some(to) = self.node_mut(*to) {
                to.inn.remove(&(*kind, id));
            }
        }
        for (kind, from) in &node.inn {
            self.relations -= 1;
            if let Some(from) = self.node_mut(*from) {
                from.out.remove(&(*kind, id));
            }
        }
        if let Some(better) = self.node_mut(node.better) {
            better.followers.remove(&id);
        }
        for follower in &node.followers {
            if let Some(follower_node) = self.node_mut(*follower) {
                follower_node.better = *follower;
            }
        }
        for (key, _) in &node.keys {
            self.remove_key(id, key);
        }
        self.free.push(id);
        self.version += 1;
    }

    /// Whether nothing is left of what was removed.
    #[cfg(test)]
    pub(super) fn is_clean(&self) -> bool {
        self.by_key.is_empty() && self.by_age.is_empty() && self.nodes.iter().all(Option::is_none)
    }

    pub(super) fn state(&self) -> GraphState {
        let mut order: Vec<(i64, Id)> = Vec::with_capacity(self.ids.len());
        for (id, node) in self.nodes.iter().enumerate() {
            order.extend(node.as_ref().map(|node| (node.seen_ms, id as Id)));
        }
        order.sort_unstable();
        let index: BTreeMap<Id, u32> = order.iter().enumerate().map(|(index, (_, id))| (*id, index as u32)).collect();
        let mut state = GraphState::default();
        for (seen_ms, id) in &order {
            let Some(node) = self.node(*id) else { continue };
            let aliases = node.aliases.iter().map(|alias| alias.to_string()).collect();
            state.entities.push((node.entity.clone(), aliases, *seen_ms));
            let edges = node.out.iter().filter_map(|(kind, to)| Some((*index.get(id)?, *kind, *index.get(to)?)));
            state.relations.extend(edges);
        }
        state
    }
}

/// Two programs or servers of the same kind under different names, none of which is a name of the other.
fn are_rivals(a: &Entity, b: &Entity, keys: &[String]) -> bool {
    let same_kind =
        a.kind == b.kind && matches!(a.kind, EntityKind::Service | EntityKind::Database | EntityKind::Cache);
    let is_key = |entity: &Entity| keys.iter().any(|key| entity.name.eq_ignore_ascii_case(key));
    same_kind && !a.name.eq_ignore_ascii_case(&b.name) && !is_key(a) && !is_key(b)
}
