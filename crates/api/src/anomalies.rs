//! `GET /api/v1/anomalies` and `GET /api/v1/deployments`: what was noticed and what was changed.

use axum::Json;
use axum::extract::Query;
use serde::Deserialize;
use serde_json::{Value, json};
use wardroom_domain::Timestamp;
use wardroom_edge::{Access, Problem, Routes};

use crate::backend::Backend;
use crate::incidents::Who;

const PAGE: u32 = 1000;

pub(crate) fn routes(backend: &Backend) -> Routes {
    let (b1, b2) = (backend.clone(), backend.clone());
    Routes::new()
        .get("/api/v1/anomalies", Access::Read, move |who: Who, query: Query<Asked>| list(b1.clone(), who, query))
        .get("/api/v1/deployments", Access::Read, move |who: Who, query: Query<Asked>| {
            deployments(b2.clone(), who, query)
        })
}

async fn deployments(backend: Backend, who: Who, Query(asked): Query<Asked>) -> Result<Json<Value>, Problem> {
    let since = asked.since.as_deref().map_or(Ok(Timestamp::from_nanos(0)), |text| moment("since", text))?;
    let mut found = (backend.deployments)(who.tenant.clone(), since);
    found.retain(|deployment| asked.service.as_ref().is_none_or(|service| *service == deployment.service));
    Ok(Json(json!({ "deployments": found })))
}

#[derive(Debug, Deserialize)]
struct Asked {
    since: Option<String>,
    service: Option<String>,
    cursor: Option<String>,
}

async fn list(backend: Backend, who: Who, Query(asked): Query<Asked>) -> Result<Json<Value>, Problem> {
    let since = match &asked.since {
        Some(text) => moment("since", text)?,
        None => Timestamp::from_nanos(0),
    };
    let after = match &asked.cursor {
        Some(cursor) => {
            let bad =
                || Problem::bad_request("bad_cursor", "parameter cursor: use `next` of the page before, as it was");
            let (nanos, id) = cursor.split_once('.').ok_or_else(bad)?;
            Some((Timestamp::from_nanos(nanos.parse().map_err(|_| bad())?), id.to_owned()))
        }
        None => None,
    };
    let anomalies = (backend.anomalies)(who.tenant.clone(), since, asked.service, after, PAGE).await?;
    let next =
        anomalies.last().filter(|_| anomalies.len() == PAGE as usize).map(|a| format!("{}.{}", a.at.nanos(), a.id));
    Ok(Json(json!({ "anomalies": anomalies, "next": next })))
}

/// A moment in a parameter: RFC 3339 or seconds since the epoch.
pub(crate) fn moment(name: &'static str, text: &str) -> Result<Timestamp, Problem> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| seconds.is_finite());
    if let Some(seconds) = seconds {
        return Ok(Timestamp::from_millis((seconds * 1000.0) as i64));
    }
    Timestamp::parse(text).map_err(|error| {
        Problem::bad_request("bad_time", format!("parameter {name}: {error}; use RFC 3339 or seconds since the epoch"))
    })
}
