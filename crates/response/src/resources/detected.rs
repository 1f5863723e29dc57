//! What detection knows: events, entities, their relations, and signals.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use wardroom_api::{
    BadSignalView, EntityNodeView, EntityView, EventView, RelationView, SignalQuery, SignalView, TopologyQuery,
    TopologyView,
};
use wardroom_domain::{Event, SignalId, TenantId, Timestamp};
use wardroom_edge::Problem;
use wardroom_pipeline::state::tenants::{DetectionView, SELF_TENANT};
use wardroom_signals::GraphState;

use crate::problem_responses::run_blocking;
use crate::responder::Responder;

impl Responder {
    /// Returns the events from a time until before another, oldest first.
    pub(super) async fn events(
        &self,
        tenant: TenantId,
        since: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<EventView>, Problem> {
        let view = self.tenants.view(&tenant);
        // Their ids are hashes.
        run_blocking(move || {
            let events = view.engine.events(since, until);
            events.into_iter().filter(|event| event.at < until).map(event_view).collect()
        })
        .await
    }

    /// Returns the tenants with telemetry, each with the newest time of it in ms. Wardroom's own is none of them.
    pub(super) fn live_tenants(&self) -> Vec<(TenantId, i64)> {
        let tenants = self.tenants.all().into_iter().filter(|(id, _)| id.as_str() != SELF_TENANT);
        tenants.map(|(id, tenant)| (id, tenant.view().engine.watermark_ms().max(0))).collect()
    }

    /// Returns the entities that are known.
    pub(super) async fn entities(&self, tenant: TenantId) -> Result<Vec<EntityNodeView>, Problem> {
        let view = self.tenants.view(&tenant);
        run_blocking(move || nodes(&view.engine.graph().state())).await
    }

    /// Returns entities and their relations.
    pub(super) async fn topology(&self, tenant: TenantId, query: TopologyQuery) -> Result<TopologyView, Problem> {
        let view = self.tenants.view(&tenant);
        run_blocking(move || topology_of(&view.engine.graph().state(), &query)).await
    }

    /// Returns signals with their newest value.
    pub(super) async fn signals(&self, tenant: TenantId, query: SignalQuery) -> Result<Vec<SignalView>, Problem> {
        let view = self.tenants.view(&tenant);
        run_blocking(move || signals_of(&view, &query)).await
    }
}

fn event_view(event: Event) -> EventView {
    EventView {
        id: event.id(),
        at: event.at,
        kind: event.kind.as_str().to_owned(),
        source: event.source,
        entity: EntityView::from(&event.entity),
        attributes: event.attributes,
    }
}

fn nodes(state: &GraphState) -> Vec<EntityNodeView> {
    let node = |(entity, aliases, seen_ms): &(wardroom_domain::Entity, Vec<String>, i64)| {
        let entity = EntityView::from(entity);
        let last_seen = Timestamp::from_millis(*seen_ms);
        EntityNodeView { id: entity.id(), entity, aliases: aliases.clone(), last_seen }
    };
    state.entities.iter().map(node).collect()
}

fn topology_of(state: &GraphState, query: &TopologyQuery) -> TopologyView {
    let nodes = nodes(state);
    let mut neighbours: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (from, _, to) in &state.relations {
        let (from, to) = (*from as usize, *to as usize);
        neighbours.entry(from).or_default().push(to);
        neighbours.entry(to).or_default().push(from);
    }
    let is_start = |node: &EntityNodeView| {
        query.entity.as_ref().is_none_or(|wanted| *wanted == node.id || *wanted == node.entity.name)
    };
    let mut frontier: Vec<usize> = (0..nodes.len()).filter(|index| nodes.get(*index).is_some_and(is_start)).collect();
    let mut chosen: BTreeSet<usize> = frontier.iter().copied().take(query.limit).collect();
    let mut is_cut = frontier.len() > chosen.len();
    for _ in 0..query.hops {
        let next: BTreeSet<usize> = frontier.iter().filter_map(|at| neighbours.get(at)).flatten().copied().collect();
        frontier = next.into_iter().filter(|index| !chosen.contains(index)).collect();
        for index in &frontier {
            is_cut |= chosen.len() >= query.limit;
            if chosen.len() < query.limit {
                chosen.insert(*index);
            }
        }
    }
    let id = |index: u32| nodes.get(index as usize).filter(|_| chosen.contains(&(index as usize)));
    let relation = |(from, kind, to): &(u32, wardroom_domain::RelationKind, u32)| {
        let kind = serde_json::to_value(kind).ok()?.as_str()?.to_owned();
        Some(RelationView { from: id(*from)?.id.clone(), kind, to: id(*to)?.id.clone() })
    };
    let relations = state.relations.iter().filter_map(relation).collect();
    let entities = nodes.iter().enumerate().filter(|(index, _)| chosen.contains(index));
    TopologyView { entities: entities.map(|(_, node)| node.clone()).collect(), relations, is_cut }
}

fn signals_of(view: &Arc<DetectionView>, query: &SignalQuery) -> Vec<SignalView> {
    let is_wanted = |id: &SignalId| {
        query.entity.as_ref().is_none_or(|name| *name == id.entity.name)
            && query.kind.as_ref().is_none_or(|kind| kind == id.kind.as_str())
    };
    let mut found = Vec::new();
    for (id, signal) in view.engine.signals() {
        if !is_wanted(id) {
            continue;
        }
        let bad = signal.bad();
        if query.bad && bad.is_none() {
            continue;
        }
        let newest = signal.history.back().copied();
        found.push(SignalView {
            entity: EntityView::from(&id.entity),
            peer: id.peer.as_ref().map(EntityView::from),
            kind: id.kind.as_str().to_owned(),
            resource: id.resource.clone(),
            metric: id.metric.clone(),
            value: newest.map(|(_, value)| value).filter(|value| value.is_finite()),
            at: newest.map(|(at_ms, _)| Timestamp::from_millis(at_ms)),
            bad: bad.map(|bad| BadSignalView {
                rule: bad.rule,
                since: Timestamp::from_millis(bad.since_ms),
                limit: bad.limit,
                low_is_bad: bad.low_is_bad,
                expected: bad.expected,
                severity: bad.severity.to_string(),
            }),
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use wardroom_domain::{Entity, RelationKind};

    use super::*;

    /// a calls b, b calls c; d is apart.
    fn state() -> GraphState {
        let entities = ["a", "b", "c", "d"].map(|name| (Entity::service(name), Vec::new(), 1000));
        let relations = vec![(0, RelationKind::Calls, 1), (1, RelationKind::Calls, 2)];
        GraphState { entities: entities.to_vec(), relations }
    }

    #[test]
    fn a_topology_is_cut_by_hops_and_by_number() {
        let around = |entity: Option<&str>, hops, limit| {
            let query = TopologyQuery { entity: entity.map(str::to_owned), hops, limit };
            let found = topology_of(&state(), &query);
            let names = found.entities.iter().map(|node| node.entity.name.clone()).collect::<String>();
            (names, found.relations.len(), found.is_cut)
        };
        assert_eq!(around(None, 1, 10), ("abcd".to_owned(), 2, false));
        assert_eq!(around(Some("a"), 0, 10), ("a".to_owned(), 0, false));
        assert_eq!(around(Some("a"), 1, 10), ("ab".to_owned(), 1, false));
        assert_eq!(around(Some("service////c"), 2, 10), ("abc".to_owned(), 2, false));
        assert_eq!(around(Some("b"), 1, 2), ("ab".to_owned(), 1, true));
        assert_eq!(around(Some("x"), 8, 10), (String::new(), 0, false));
    }
}
