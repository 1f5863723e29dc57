//! Which series and labels there are, in Prometheus' own request and response shapes, errors included:
//! <https://prometheus.io/docs/prometheus/latest/querying/api/>.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{Path, RawForm};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use wardroom_domain::query::SeriesQuery;
use wardroom_domain::{Labels, Matcher, MetricMetadata, Timestamp};
use wardroom_edge::{Access, Routes};

use crate::anomalies::moment;
use crate::backend::Backend;
use crate::expression::selectors;
use crate::incidents::Who;
use crate::samples::pairs;

pub(crate) fn routes(backend: &Backend) -> Routes {
    let copy = || backend.clone();
    let (b1, b2, b3, b4, b5, b6) = (copy(), copy(), copy(), copy(), copy(), copy());
    let (b7, b8) = (copy(), copy());
    Routes::new()
        .get("/api/v1/series", Access::Read, move |who: Who, form: RawForm| series(b1.clone(), who, form))
        .post("/api/v1/series", Access::Read, move |who: Who, form: RawForm| series(b2.clone(), who, form))
        .get("/api/v1/labels", Access::Read, move |who: Who, form: RawForm| names(b3.clone(), who, form))
        .post("/api/v1/labels", Access::Read, move |who: Who, form: RawForm| names(b4.clone(), who, form))
        .get("/api/v1/label/{name}/values", Access::Read, move |who: Who, name: Path<String>, form: RawForm| {
            values(b5.clone(), who, name, form)
        })
        .get("/api/v1/query_exemplars", Access::Read, move |who: Who, form: RawForm| exemplars(b7.clone(), who, form))
        .post("/api/v1/query_exemplars", Access::Read, move |who: Who, form: RawForm| exemplars(b8.clone(), who, form))
        .get("/api/v1/metadata", Access::Read, move |who: Who, form: RawForm| metadata(b6.clone(), who, form))
}

/// At most so many families; `metric` asks for one.
async fn metadata(backend: Backend, who: Who, RawForm(form): RawForm) -> Response {
    let (mut limit, mut metric) = (usize::MAX, None);
    for (name, value) in pairs(&String::from_utf8_lossy(&form)) {
        match name.as_str() {
            "limit" => match value.parse::<i64>() {
                Ok(most) => limit = usize::try_from(most).unwrap_or(usize::MAX),
                Err(_) => return bad("limit must be a number"),
            },
            "metric" => metric = Some(value),
            _ => {}
        }
    }
    let mut known = (backend.metadata)(who.tenant.clone());
    known.retain(|family, _| metric.as_ref().is_none_or(|metric| metric == family));
    let one =
        |metadata: MetricMetadata| json!([{ "type": metadata.kind, "help": metadata.help, "unit": metadata.unit }]);
    let data: Map<String, Value> = known.into_iter().take(limit).map(|(family, known)| (family, one(known))).collect();
    Json(json!({ "status": "success", "data": data })).into_response()
}

async fn series(backend: Backend, who: Who, RawForm(form): RawForm) -> Response {
    let asked = match Asked::read(&form) {
        Ok(asked) if asked.query.selectors.is_empty() => return bad("no match[] parameter provided"),
        Ok(asked) => asked,
        Err(error) => return bad(&error),
    };
    match (backend.series)(who.tenant.clone(), asked.query).await {
        Ok(found) => asked.limit.answer(found.iter().map(|labels| json!(labels))),
        Err(problem) => problem.into_response(),
    }
}

async fn exemplars(backend: Backend, who: Who, RawForm(form): RawForm) -> Response {
    let asked = match Asked::read(&form) {
        Ok(asked) if !asked.expression => return bad("no query parameter provided"),
        // Nothing that is measured stands in it.
        Ok(asked) if asked.query.selectors.is_empty() => return asked.limit.answer(std::iter::empty()),
        Ok(asked) => asked,
        Err(error) => return bad(&error),
    };
    let found = match (backend.exemplars)(who.tenant.clone(), asked.query).await {
        Ok(found) => found,
        Err(problem) => return problem.into_response(),
    };
    let one = |(labels, value, ts_ms): &(Labels, String, i64)| json!({ "labels": labels, "value": value, "timestamp": *ts_ms as f64 / 1000.0 });
    asked.limit.answer(found.iter().map(|series| {
        let exemplars: Vec<Value> = series.exemplars.iter().map(one).collect();
        json!({ "seriesLabels": series.series, "exemplars": exemplars })
    }))
}

async fn names(backend: Backend, who: Who, RawForm(form): RawForm) -> Response {
    distinct(backend, who, &form, |labels, into| into.extend(labels.iter().map(|(name, _)| name))).await
}

async fn values(backend: Backend, who: Who, Path(name): Path<String>, RawForm(form): RawForm) -> Response {
    distinct(backend, who, &form, move |labels, into| into.extend(labels.get(&name))).await
}

/// What `pick` finds in the selected series, each once, ascending.
async fn distinct(
    backend: Backend,
    who: Who,
    form: &[u8],
    pick: impl for<'a> Fn(&'a Labels, &mut BTreeSet<&'a str>),
) -> Response {
    let asked = match Asked::read(form) {
        Ok(asked) => asked,
        Err(error) => return bad(&error),
    };
    let found = match (backend.series)(who.tenant.clone(), asked.query).await {
        Ok(found) => found,
        Err(problem) => return problem.into_response(),
    };
    let mut all = BTreeSet::new();
    found.iter().for_each(|labels| pick(labels, &mut all));
    asked.limit.answer(all.into_iter().map(Value::from))
}

/// A request, understood.
struct Asked {
    query: SeriesQuery,
    /// An expression was given.
    expression: bool,
    limit: Limit,
}

impl Asked {
    fn read(form: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(form).map_err(|_| "the request is not UTF-8".to_owned())?;
        let mut query = SeriesQuery {
            selectors: Vec::new(),
            start: Timestamp::from_nanos(i64::MIN),
            end: Timestamp::from_nanos(i64::MAX),
            step_ms: None,
        };
        let (mut limit, mut expression) = (0, false);
        for (name, value) in pairs(text) {
            let time =
                |name| moment(name, &value).map_err(|_| format!("invalid parameter {name:?}: cannot parse {value:?}"));
            match name.as_str() {
                "query" => {
                    expression = true;
                    let found = selectors(&value).map_err(|error| format!("invalid parameter \"query\": {error}"))?;
                    query.selectors.extend(found);
                }
                "match[]" => query.selectors.push(
                    Matcher::parse_selector(&value)
                        .map_err(|error| format!("invalid parameter \"match[]\": {error}"))?,
                ),
                "start" => query.start = time("start")?,
                "end" => query.end = time("end")?,
                "limit" => limit = value.parse().map_err(|_| format!("invalid parameter \"limit\": {value:?}"))?,
                _ => {}
            }
        }
        if query.end < query.start {
            return Err("invalid parameter \"end\": end timestamp must not be before start time".to_owned());
        }
        Ok(Self { query, expression, limit: Limit(limit) })
    }
}

/// Most entries of an answer; 0 for all.
struct Limit(usize);

impl Limit {
    fn answer(&self, entries: impl Iterator<Item = Value>) -> Response {
        let mut data: Vec<Value> = entries.collect();
        if self.0 > 0 && data.len() > self.0 {
            data.truncate(self.0);
            let warning = "results truncated due to limit";
            return Json(json!({ "status": "success", "data": data, "warnings": [warning] })).into_response();
        }
        Json(json!({ "status": "success", "data": data })).into_response()
    }
}

fn bad(error: &str) -> Response {
    let body = json!({ "status": "error", "errorType": "bad_data", "error": error });
    (StatusCode::BAD_REQUEST, Json(body)).into_response()
}
