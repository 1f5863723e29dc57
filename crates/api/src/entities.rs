//! `/api/v1/events`, `/api/v1/entities`, `/api/v1/topology` and `/api/v1/signals`: what detection knows of a tenant.

use axum::Json;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wardroom_domain::{EntityKind, SignalKind, Timestamp};
use wardroom_edge::{Access, Problem, Routes};

use crate::backend::Backend;
use crate::paging::PageParameters;
use crate::problem_responses::GuardErrors;
use crate::query_parameters::QueryParameters;
use crate::request::{Caller, parse_time};
use crate::resource_views::{EntityNodeView, EventView, SignalView, TopologyView};
use crate::resources_backend::{SignalQuery, TopologyQuery};
use crate::views::EntityView;

/// Maximum number of entities of a topology.
const MAX_TOPOLOGY_ENTITIES: usize = 1000;
/// Maximum of `hops`.
const MAX_HOPS: u32 = 8;

pub(crate) fn routes(backend: &Backend) -> Routes {
    let [events_backend, entities_backend, topology_backend, signals_backend] =
        std::array::from_fn(|_| backend.clone());
    Routes::new()
        .get("/api/v1/events", Access::Read, move |caller: Caller, parameters: QueryParameters<EventParameters>| {
            list_events(events_backend.clone(), caller, parameters)
        })
        .get("/api/v1/entities", Access::Read, move |caller: Caller, parameters: QueryParameters<EntityParameters>| {
            list_entities(entities_backend.clone(), caller, parameters)
        })
        .get(
            "/api/v1/topology",
            Access::Read,
            move |caller: Caller, parameters: QueryParameters<TopologyParameters>| {
                topology(topology_backend.clone(), caller, parameters)
            },
        )
        .get("/api/v1/signals", Access::Read, move |caller: Caller, parameters: QueryParameters<SignalParameters>| {
            list_signals(signals_backend.clone(), caller, parameters)
        })
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventParameters {
    /// Start, inclusive: RFC 3339 or seconds since the epoch.
    since: Option<String>,
    /// End, exclusive: RFC 3339 or seconds since the epoch.
    until: Option<String>,
    /// Only events of this kind, such as `deployment`.
    kind: Option<String>,
    /// Only events of an entity of this name.
    entity: Option<String>,
    /// `next` of the previous page.
    cursor: Option<String>,
    /// Maximum number of events; 100 by default, at most 1000.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Events.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EventList {
    /// Oldest first.
    events: Vec<EventView>,
    /// Cursor of the next page; null on the last page.
    #[schema(required)]
    next: Option<String>,
}

/// Lists recent events, oldest first: deployments, restarts, settings and the like, reported or inferred.
///
/// Detection keeps a limited number; the table `events` has all.
#[utoipa::path(
    get, path = "/api/v1/events", operation_id = "listEvents", tag = "changes",
    params(EventParameters),
    responses((status = 200, description = "One page of events", body = EventList), GuardErrors),
    extensions(("x-access" = json!("read"))),
)]
pub(crate) async fn list_events(
    backend: Backend,
    caller: Caller,
    QueryParameters(parameters): QueryParameters<EventParameters>,
) -> Result<Response, Problem> {
    let time = |name, text: Option<String>, default| text.map_or(Ok(default), |text| parse_time(name, &text));
    let since = time("since", parameters.since, Timestamp::from_nanos(0))?;
    let until = time("until", parameters.until, Timestamp::from_nanos(i64::MAX))?;
    let mut found = (backend.resources.events)((caller.tenant.clone(), since, until)).await?;
    found.retain(|event| parameters.kind.as_ref().is_none_or(|kind| *kind == event.kind));
    found.retain(|event| parameters.entity.as_ref().is_none_or(|name| *name == event.entity.name));
    let page = PageParameters { cursor: parameters.cursor, limit: parameters.limit };
    let page = page.of(found, |event| format!("{:020}.{}", event.at.nanos().max(0), event.id));
    Ok(page.response(|events, next| EventList { events, next }))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct EntityParameters {
    /// Only entities of this kind, such as `service`.
    kind: Option<String>,
    /// Only entities of this name.
    name: Option<String>,
    /// Only entities whose name, namespace or aliases have this text, whatever its case.
    text: Option<String>,
    /// `next` of the previous page.
    cursor: Option<String>,
    /// Maximum number of entities; 100 by default, at most 1000.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Entities.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EntityList {
    /// By id.
    entities: Vec<EntityNodeView>,
    /// Cursor of the next page; null on the last page.
    #[schema(required)]
    next: Option<String>,
}

/// Lists the entities that telemetry names: services, databases, nodes and the like.
#[utoipa::path(
    get, path = "/api/v1/entities", operation_id = "listEntities", tag = "entities",
    params(EntityParameters),
    responses((status = 200, description = "One page of entities", body = EntityList), GuardErrors),
    extensions(("x-access" = json!("read"))),
)]
pub(crate) async fn list_entities(
    backend: Backend,
    caller: Caller,
    QueryParameters(parameters): QueryParameters<EntityParameters>,
) -> Result<Response, Problem> {
    let kind = parameters.kind.as_deref().map(|word| known("kind", word, EntityKind::parse(word))).transpose()?;
    let mut found = (backend.resources.entities)(caller.tenant.clone()).await?;
    let text = parameters.text.unwrap_or_default().to_lowercase();
    found.retain(|node| {
        let names = [&node.entity.name, &node.entity.namespace].into_iter().chain(&node.aliases);
        kind.is_none_or(|kind| kind.as_str() == node.entity.kind)
            && parameters.name.as_ref().is_none_or(|name| *name == node.entity.name)
            && (text.is_empty() || names.into_iter().any(|name| name.to_lowercase().contains(&text)))
    });
    let page = PageParameters { cursor: parameters.cursor, limit: parameters.limit };
    let page = page.of(found, |node| node.id.clone());
    Ok(page.response(|entities, next| EntityList { entities, next }))
}

/// The value of a parameter with known words.
fn known<T>(name: &str, word: &str, parsed: Option<T>) -> Result<T, Problem> {
    parsed.ok_or_else(|| Problem::bad_request("bad_parameter", format!("parameter {name}: there is no {word:?}")))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct TopologyParameters {
    /// Id or name of an entity: only what is around it; the whole graph by default.
    entity: Option<String>,
    /// Maximum number of relations to `entity`; 1 by default, at most 8.
    #[param(minimum = 0, maximum = 8)]
    hops: Option<u32>,
}

/// Entities and how they depend on each other.
#[utoipa::path(
    get, path = "/api/v1/topology", operation_id = "getTopology", tag = "entities",
    params(TopologyParameters),
    responses((status = 200, description = "At most 1000 entities, with the relations between them",
        body = TopologyView), GuardErrors),
    extensions(("x-access" = json!("read"))),
)]
pub(crate) async fn topology(
    backend: Backend,
    caller: Caller,
    QueryParameters(parameters): QueryParameters<TopologyParameters>,
) -> Result<Json<TopologyView>, Problem> {
    let query = TopologyQuery {
        entity: parameters.entity,
        hops: parameters.hops.unwrap_or(1).min(MAX_HOPS),
        limit: MAX_TOPOLOGY_ENTITIES,
    };
    Ok(Json((backend.resources.topology)((caller.tenant.clone(), query)).await?))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct SignalParameters {
    /// Only signals of an entity of this name.
    entity: Option<String>,
    /// Only signals of this kind, such as `errors`.
    kind: Option<String>,
    /// Only signals that are bad now.
    bad: Option<bool>,
    /// `next` of the previous page.
    cursor: Option<String>,
    /// Maximum number of signals; 100 by default, at most 1000.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Signals.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SignalList {
    /// By entity.
    signals: Vec<SignalView>,
    /// Cursor of the next page; null on the last page.
    #[schema(required)]
    next: Option<String>,
}

/// Lists signals with their newest value, and why those that are bad are bad.
#[utoipa::path(
    get, path = "/api/v1/signals", operation_id = "listSignals", tag = "signals",
    params(SignalParameters),
    responses((status = 200, description = "One page of signals", body = SignalList), GuardErrors),
    extensions(("x-access" = json!("read"))),
)]
pub(crate) async fn list_signals(
    backend: Backend,
    caller: Caller,
    QueryParameters(parameters): QueryParameters<SignalParameters>,
) -> Result<Response, Problem> {
    let kind = parameters.kind.as_deref().map(|word| known("kind", word, SignalKind::parse(word))).transpose()?;
    let kind = kind.map(|kind| kind.as_str().to_owned());
    let query = SignalQuery { entity: parameters.entity, kind, bad: parameters.bad.unwrap_or_default() };
    let found = (backend.resources.signals)((caller.tenant.clone(), query)).await?;
    let page = PageParameters { cursor: parameters.cursor, limit: parameters.limit };
    let page = page.of(found, |signal| {
        let peer = signal.peer.as_ref().map_or_else(String::new, EntityView::id);
        format!("{}|{}|{peer}|{}|{}", signal.entity.id(), signal.kind, signal.resource, signal.metric)
    });
    Ok(page.response(|signals, next| SignalList { signals, next }))
}
