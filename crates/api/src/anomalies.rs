//! `GET /api/v1/anomalies` and `GET /api/v1/deployments`.

use axum::Json;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wardroom_domain::{Deployment, Entity, Timestamp};
use wardroom_edge::{Access, Problem, Routes};

use crate::backend::Backend;
use crate::paging::PageParameters;
use crate::problem_responses::GuardErrors;
use crate::query_parameters::QueryParameters;
use crate::request::{Caller, bad_cursor, parse_time};
use crate::views::{AnomalyView, DeploymentView};

/// Anomalies of one page.
const PAGE_ROWS: u32 = 1000;

pub(crate) fn routes(backend: &Backend) -> Routes {
    let (anomalies_backend, deployments_backend) = (backend.clone(), backend.clone());
    Routes::new()
        .get("/api/v1/anomalies", Access::Read, move |caller: Caller, parameters: QueryParameters<Parameters>| {
            list_anomalies(anomalies_backend.clone(), caller, parameters)
        })
        .get("/api/v1/deployments", Access::Read, move |caller: Caller, parameters: QueryParameters<Parameters>| {
            list_deployments(deployments_backend.clone(), caller, parameters)
        })
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Parameters {
    /// Start, inclusive: RFC 3339 or seconds since the epoch; everything by default.
    since: Option<String>,
    /// Only this service.
    service: Option<String>,
    /// `next` of the previous page.
    cursor: Option<String>,
    /// Maximum number of entries; 1000 by default, which is the maximum.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

impl Parameters {
    /// Start of the range, inclusive; everything if it is missing.
    fn since(&self) -> Result<Timestamp, Problem> {
        self.since.as_deref().map_or(Ok(Timestamp::from_nanos(0)), |text| parse_time("since", text))
    }
}

/// Deployments.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeploymentList {
    /// Oldest first.
    deployments: Vec<DeploymentView>,
    /// Cursor of the next page; null on the last page.
    #[schema(required)]
    next: Option<String>,
}

/// Lists recent deployments, oldest first.
#[utoipa::path(
    get, path = "/api/v1/deployments", operation_id = "listDeployments", tag = "changes",
    params(Parameters),
    responses((status = 200, description = "One page of deployments", body = DeploymentList), GuardErrors),
    extensions(("x-access" = json!("read"))),
)]
pub(crate) async fn list_deployments(
    backend: Backend,
    caller: Caller,
    QueryParameters(parameters): QueryParameters<Parameters>,
) -> Result<Response, Problem> {
    let mut deployments = (backend.deployments)(caller.tenant.clone(), parameters.since()?);
    deployments.retain(|(entity, _)| parameters.service.as_ref().is_none_or(|service| *service == entity.name));
    let rows: Vec<DeploymentView> = deployments
        .iter()
        .map(|(entity, deployment): &(Entity, Deployment)| DeploymentView::new(entity, deployment))
        .collect();
    let page = PageParameters { cursor: parameters.cursor, limit: Some(parameters.limit.unwrap_or(PAGE_ROWS)) };
    let page = page.of(rows, DeploymentView::key);
    Ok(page.response(|deployments, next| DeploymentList { deployments, next }))
}

/// Anomalies.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AnomalyList {
    /// Oldest first.
    anomalies: Vec<AnomalyView>,
    /// Cursor of the next page; null on the last page.
    #[schema(required)]
    next: Option<String>,
}

/// Lists anomalies, oldest first.
#[utoipa::path(
    get, path = "/api/v1/anomalies", operation_id = "listAnomalies", tag = "signals",
    params(Parameters),
    responses((status = 200, description = "One page of anomalies", body = AnomalyList), GuardErrors),
    extensions(("x-access" = json!("read"))),
)]
pub(crate) async fn list_anomalies(
    backend: Backend,
    caller: Caller,
    QueryParameters(parameters): QueryParameters<Parameters>,
) -> Result<Json<AnomalyList>, Problem> {
    let since = parameters.since()?;
    let rows = parameters.limit.unwrap_or(PAGE_ROWS).clamp(1, PAGE_ROWS);
    let after = match &parameters.cursor {
        Some(cursor) => {
            let (nanos, id) = cursor.split_once('.').ok_or_else(bad_cursor)?;
            Some((Timestamp::from_nanos(nanos.parse().map_err(|_| bad_cursor())?), id.to_owned()))
        }
        None => None,
    };
    let anomalies = (backend.anomalies)(caller.tenant.clone(), since, parameters.service, after, rows).await?;
    let last = anomalies.last().filter(|_| anomalies.len() == rows as usize);
    let next = last.map(|last| format!("{}.{}", last.at.nanos(), last.id));
    Ok(Json(AnomalyList { anomalies, next }))
}
