//! `GET /api/v1/anomalies` and `GET /api/v1/deployments`.

use axum::Json;
use serde::Deserialize;
use serde_json::{Value, json};
use wardroom_domain::{Deployment, Entity, Timestamp};
use wardroom_edge::{Access, Problem, Routes};

use crate::backend::Backend;
use crate::query_parameters::QueryParameters;
use crate::request::{Caller, bad_cursor, parse_time};
use crate::views::EntityView;

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

#[derive(Debug, Deserialize)]
struct Parameters {
    since: Option<String>,
    service: Option<String>,
    cursor: Option<String>,
}

impl Parameters {
    /// Start of the range, inclusive; everything if it is missing.
    fn since(&self) -> Result<Timestamp, Problem> {
        self.since.as_deref().map_or(Ok(Timestamp::from_nanos(0)), |text| parse_time("since", text))
    }
}

async fn list_deployments(
    backend: Backend,
    caller: Caller,
    QueryParameters(parameters): QueryParameters<Parameters>,
) -> Result<Json<Value>, Problem> {
    let mut deployments = (backend.deployments)(caller.tenant.clone(), parameters.since()?);
    deployments.retain(|(entity, _)| parameters.service.as_ref().is_none_or(|service| *service == entity.name));
    let row = |(entity, deployment): &(Entity, Deployment)| {
        let mut row = json!(deployment);
        row["entity"] = json!(EntityView::from(entity));
        row
    };
    Ok(Json(json!({ "deployments": deployments.iter().map(row).collect::<Vec<_>>() })))
}

async fn list_anomalies(
    backend: Backend,
    caller: Caller,
    QueryParameters(parameters): QueryParameters<Parameters>,
) -> Result<Json<Value>, Problem> {
    let since = parameters.since()?;
    let after = match &parameters.cursor {
        Some(cursor) => {
            let (nanos, id) = cursor.split_once('.').ok_or_else(bad_cursor)?;
            Some((Timestamp::from_nanos(nanos.parse().map_err(|_| bad_cursor())?), id.to_owned()))
        }
        None => None,
    };
    let anomalies = (backend.anomalies)(caller.tenant.clone(), since, parameters.service, after, PAGE_ROWS).await?;
    let last = anomalies.last().filter(|_| anomalies.len() == PAGE_ROWS as usize);
    let next = last.map(|last| format!("{}.{}", last.at.nanos(), last.id));
    Ok(Json(json!({ "anomalies": anomalies, "next": next })))
}
