//! Series, labels, exemplars and metadata, in the request and response shapes of Prometheus, errors included:
//! <https://prometheus.io/docs/prometheus/latest/querying/api/>.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use wardroom_domain::labels::unescape_name;
use wardroom_domain::query::SeriesQuery;
use wardroom_domain::{Labels, Matcher, MetricMetadata, Timestamp};
use wardroom_edge::{Access, Routes};

use crate::backend::Backend;
use crate::problem_responses::GuardErrors;
use crate::promql_selectors::extract_selectors;
use crate::query_parameters::{FormPairs, query_pairs};
use crate::request::{Caller, parse_time};
use crate::request_thread::{json_response, parse_apart, run_apart};

pub(crate) fn routes(backend: &Backend) -> Routes {
    let copy = || backend.clone();
    let (
        series_backend,
        series_post_backend,
        label_names_backend,
        label_names_post_backend,
        label_values_backend,
        metadata_backend,
        exemplars_backend,
        exemplars_post_backend,
    ) = (copy(), copy(), copy(), copy(), copy(), copy(), copy(), copy());
    Routes::new()
        .get("/api/v1/series", Access::Read, move |caller: Caller, form: FormPairs| {
            series(series_backend.clone(), caller, form)
        })
        .post("/api/v1/series", Access::Read, move |caller: Caller, form: FormPairs| {
            series(series_post_backend.clone(), caller, form)
        })
        .get("/api/v1/labels", Access::Read, move |caller: Caller, form: FormPairs| {
            label_names(label_names_backend.clone(), caller, form)
        })
        .post("/api/v1/labels", Access::Read, move |caller: Caller, form: FormPairs| {
            label_names(label_names_post_backend.clone(), caller, form)
        })
        .get("/api/v1/label/{name}/values", Access::Read, move |caller: Caller, name: Path<String>, form: FormPairs| {
            label_values(label_values_backend.clone(), caller, name, form)
        })
        .get("/api/v1/query_exemplars", Access::Read, move |caller: Caller, form: FormPairs| {
            exemplars(exemplars_backend.clone(), caller, form)
        })
        .post("/api/v1/query_exemplars", Access::Read, move |caller: Caller, form: FormPairs| {
            exemplars(exemplars_post_backend.clone(), caller, form)
        })
        .get("/api/v1/metadata", Access::Read, move |caller: Caller, form: FormPairs| {
            metadata(metadata_backend.clone(), caller, form)
        })
}

macro_rules! prometheus_response {
    ($(#[$doc:meta])* $name:ident, $data:ty) => {
        $(#[$doc])*
        #[derive(ToSchema)]
        #[expect(dead_code, reason = "only its description is used")]
        pub(crate) struct $name {
            /// `success`.
            status: String,
            /// The result.
            data: $data,
            /// What was left out.
            warnings: Option<Vec<String>>,
        }
    };
}

prometheus_response! {
    /// Labels of series, in the shape of Prometheus' API.
    PrometheusSeries, Vec<BTreeMap<String, String>>
}
prometheus_response! {
    /// Names or values of labels, in the shape of Prometheus' API.
    PrometheusNames, Vec<String>
}
prometheus_response! {
    /// Exemplars, in the shape of Prometheus' API.
    PrometheusExemplars, Vec<SeriesExemplars>
}
prometheus_response! {
    /// Metadata by family, in the shape of Prometheus' API.
    PrometheusMetadata, BTreeMap<String, Vec<FamilyMetadata>>
}

/// An error in the shape of Prometheus' API.
#[derive(ToSchema)]
#[schema(as = PrometheusError)]
#[expect(dead_code, reason = "only its description is used")]
pub(crate) struct PrometheusError {
    /// `error`.
    status: String,
    /// `bad_data`.
    #[schema(rename = "errorType")]
    error_type: String,
    /// What is wrong.
    error: String,
}

/// The exemplars of one series.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its description is used")]
pub(crate) struct SeriesExemplars {
    /// Labels of the series.
    #[schema(rename = "seriesLabels")]
    series_labels: BTreeMap<String, String>,
    /// Labels, value and time of each.
    exemplars: Vec<PrometheusExemplar>,
}

/// One exemplar.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its description is used")]
pub(crate) struct PrometheusExemplar {
    /// Such as `trace_id`.
    labels: BTreeMap<String, String>,
    /// The value as text.
    value: String,
    /// Seconds since the epoch.
    timestamp: f64,
}

/// What senders said about a metric family.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its description is used")]
pub(crate) struct FamilyMetadata {
    /// Such as `counter`.
    #[schema(rename = "type")]
    kind: String,
    /// Help text.
    help: String,
    /// Unit.
    unit: String,
}

/// Metadata of metrics: type, help and unit that senders reported, by family.
#[utoipa::path(
    get, path = "/api/v1/metadata", operation_id = "listMetricMetadata", tag = "metrics",
    params(("metric" = Option<String>, Query, description = "Only this family"),
        ("limit" = Option<i64>, Query, description = "Maximum number of families; negative means no limit")),
    responses((status = 200, description = "By family", body = PrometheusMetadata),
        (status = 400, description = "`bad_data`", body = PrometheusError), GuardErrors),
    extensions(("x-access" = json!("read")), ("x-form" = json!(true))),
)]
pub(crate) async fn metadata(backend: Backend, caller: Caller, FormPairs(form): FormPairs) -> Response {
    let (mut limit, mut metric) = (usize::MAX, None);
    for (name, value) in query_pairs(&String::from_utf8_lossy(&form)) {
        match name.as_str() {
            "limit" => match value.parse::<i64>() {
                Ok(parsed) => limit = usize::try_from(parsed).unwrap_or(usize::MAX),
                Err(_) => return bad_data("limit must be a number"),
            },
            "metric" => metric = Some(value),
            _ => {}
        }
    }
    let mut families = (backend.metadata)(caller.tenant.clone());
    families.retain(|family, _| metric.as_ref().is_none_or(|metric| metric == family));
    let entry =
        |metadata: MetricMetadata| json!([{ "type": metadata.kind, "help": metadata.help, "unit": metadata.unit }]);
    respond_apart(move || {
        let data: Map<String, Value> =
            families.into_iter().take(limit).map(|(family, metadata)| (family, entry(metadata))).collect();
        json_response(&json!({ "status": "success", "data": data }))
    })
    .await
}

/// Live series.
#[utoipa::path(
    method(get, post), path = "/api/v1/series", operation_id = "listSeries", tag = "metrics",
    params(("match[]" = Vec<String>, Query, description = "Selectors; a series may fit any of them"),
        ("start" = Option<String>, Query, description = "Start: RFC 3339 or seconds since the epoch"),
        ("end" = Option<String>, Query, description = "End: RFC 3339 or seconds since the epoch"),
        ("limit" = Option<u64>, Query, description = "Maximum number of entries; 0 means no limit")),
    responses((status = 200, description = "The labels of each series", body = PrometheusSeries),
        (status = 400, description = "`bad_data`", body = PrometheusError), GuardErrors),
    extensions(("x-access" = json!("read")), ("x-form" = json!(true))),
)]
pub(crate) async fn series(backend: Backend, caller: Caller, FormPairs(form): FormPairs) -> Response {
    let parameters = match SeriesParameters::parse_apart(form).await {
        Ok(parameters) if parameters.query.selectors.is_empty() => return bad_data("no match[] parameter provided"),
        Ok(parameters) => parameters,
        Err(response) => return *response,
    };
    match (backend.series)(caller.tenant.clone(), parameters.query).await {
        Ok(found) => respond_apart(move || parameters.limit.response(found.iter().map(|labels| json!(labels)))).await,
        Err(problem) => problem.into_response(),
    }
}

/// Exemplars of every selector in an expression.
#[utoipa::path(
    method(get, post), path = "/api/v1/query_exemplars", operation_id = "listExemplars", tag = "metrics",
    params(("query" = String, Query, description = "Expression in PromQL; only its selectors count"),
        ("start" = Option<String>, Query, description = "Start: RFC 3339 or seconds since the epoch"),
        ("end" = Option<String>, Query, description = "End: RFC 3339 or seconds since the epoch"),
        ("limit" = Option<u64>, Query, description = "Maximum number of series; 0 means no limit")),
    responses((status = 200, description = "By series", body = PrometheusExemplars),
        (status = 400, description = "`bad_data`", body = PrometheusError), GuardErrors),
    extensions(("x-access" = json!("read")), ("x-form" = json!(true))),
)]
pub(crate) async fn exemplars(backend: Backend, caller: Caller, FormPairs(form): FormPairs) -> Response {
    let parameters = match SeriesParameters::parse_apart(form).await {
        Ok(parameters) if !parameters.has_expression => return bad_data("no query parameter provided"),
        // The expression selects no series, such as `1 + 2`.
        Ok(parameters) if parameters.query.selectors.is_empty() => {
            return parameters.limit.response(std::iter::empty());
        }
        Ok(parameters) => parameters,
        Err(response) => return *response,
    };
    let found = match (backend.exemplars)(caller.tenant.clone(), parameters.query).await {
        Ok(found) => found,
        Err(problem) => return problem.into_response(),
    };
    let exemplar = |(labels, value, ts_ms): &(Labels, String, i64)| json!({ "labels": labels, "value": value, "timestamp": *ts_ms as f64 / 1000.0 });
    respond_apart(move || {
        parameters.limit.response(found.iter().map(|series| {
            let exemplars: Vec<Value> = series.exemplars.iter().map(exemplar).collect();
            json!({ "seriesLabels": series.series, "exemplars": exemplars })
        }))
    })
    .await
}

/// Names of labels.
#[utoipa::path(
    method(get, post), path = "/api/v1/labels", operation_id = "listLabelNames", tag = "metrics",
    params(("match[]" = Option<Vec<String>>, Query, description = "Selectors; a series may fit any of them"),
        ("start" = Option<String>, Query, description = "Start: RFC 3339 or seconds since the epoch"),
        ("end" = Option<String>, Query, description = "End: RFC 3339 or seconds since the epoch"),
        ("limit" = Option<u64>, Query, description = "Maximum number of entries; 0 means no limit")),
    responses((status = 200, description = "The names", body = PrometheusNames),
        (status = 400, description = "`bad_data`", body = PrometheusError), GuardErrors),
    extensions(("x-access" = json!("read")), ("x-form" = json!(true))),
)]
pub(crate) async fn label_names(backend: Backend, caller: Caller, FormPairs(form): FormPairs) -> Response {
    distinct_values(backend, caller, form, |labels, into| into.extend(labels.iter().map(|(name, _)| name))).await
}

/// Values of a label.
#[utoipa::path(
    get, path = "/api/v1/label/{name}/values", operation_id = "listLabelValues", tag = "metrics",
    params(("name" = String, Path, description = "Name of the label; may be escaped: `U__k8s_2e_pod_2e_name`"),
        ("match[]" = Option<Vec<String>>, Query, description = "Selectors; a series may fit any of them"),
        ("start" = Option<String>, Query, description = "Start: RFC 3339 or seconds since the epoch"),
        ("end" = Option<String>, Query, description = "End: RFC 3339 or seconds since the epoch"),
        ("limit" = Option<u64>, Query, description = "Maximum number of entries; 0 means no limit")),
    responses((status = 200, description = "The values", body = PrometheusNames),
        (status = 400, description = "`bad_data`", body = PrometheusError), GuardErrors),
    extensions(("x-access" = json!("read")), ("x-form" = json!(true))),
)]
pub(crate) async fn label_values(
    backend: Backend,
    caller: Caller,
    Path(name): Path<String>,
    FormPairs(form): FormPairs,
) -> Response {
    distinct_values(backend, caller, form, move |labels, into| into.extend(labels.get(&unescape_name(&name)))).await
}

/// Returns the distinct values that `collect` takes from each selected series, in ascending order.
async fn distinct_values(
    backend: Backend,
    caller: Caller,
    form: Vec<u8>,
    collect: impl for<'a> Fn(&'a Labels, &mut BTreeSet<&'a str>) + Send + 'static,
) -> Response {
    let parameters = match SeriesParameters::parse_apart(form).await {
        Ok(parameters) => parameters,
        Err(response) => return *response,
    };
    let found = match (backend.series)(caller.tenant.clone(), parameters.query).await {
        Ok(found) => found,
        Err(problem) => return problem.into_response(),
    };
    respond_apart(move || {
        let mut values = BTreeSet::new();
        found.iter().for_each(|labels| collect(labels, &mut values));
        parameters.limit.response(values.into_iter().map(Value::from))
    })
    .await
}

/// Builds a response that may be large on the request thread.
async fn respond_apart(respond: impl FnOnce() -> Response + Send + 'static) -> Response {
    run_apart(respond).await.unwrap_or_else(IntoResponse::into_response)
}

/// The parameters of a request, parsed.
struct SeriesParameters {
    query: SeriesQuery,
    /// Whether there was a `query` parameter.
    has_expression: bool,
    limit: Limit,
}

impl SeriesParameters {
    /// Like [`SeriesParameters::parse`], on a thread of its own; the error is a response.
    async fn parse_apart(form: Vec<u8>) -> Result<Self, Box<Response>> {
        match parse_apart(form, |form| Self::parse(form)).await {
            Ok(parsed) => parsed.map_err(|error| Box::new(bad_data(&error))),
            Err(problem) => Err(Box::new(problem.into_response())),
        }
    }

    fn parse(form: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(form).map_err(|_| "the request is not UTF-8".to_owned())?;
        let mut query = SeriesQuery {
            selectors: Vec::new(),
            start: Timestamp::from_nanos(i64::MIN),
            end: Timestamp::from_nanos(i64::MAX),
            step_ms: None,
        };
        let (mut limit, mut has_expression) = (0, false);
        for (name, value) in query_pairs(text) {
            let time = |name| {
                parse_time(name, &value).map_err(|_| format!("invalid parameter {name:?}: cannot parse {value:?}"))
            };
            match name.as_str() {
                "query" => {
                    has_expression = true;
                    let selectors =
                        extract_selectors(&value).map_err(|error| format!("invalid parameter \"query\": {error}"))?;
                    let mut added = selectors.into_iter().map(|selector| query.add_selector(selector));
                    added
                        .try_for_each(|result| result)
                        .map_err(|error| format!("invalid parameter \"query\": {error}"))?;
                }
                "match[]" => Matcher::parse_selector(&value)
                    .and_then(|selector| query.add_selector(selector))
                    .map_err(|error| format!("invalid parameter \"match[]\": {error}"))?,
                "start" => query.start = time("start")?,
                "end" => query.end = time("end")?,
                "limit" => limit = value.parse().map_err(|_| format!("invalid parameter \"limit\": {value:?}"))?,
                _ => {}
            }
        }
        if query.end < query.start {
            return Err("invalid parameter \"end\": end timestamp must not be before start time".to_owned());
        }
        Ok(Self { query, has_expression, limit: Limit(limit) })
    }
}

/// Maximum number of entries in the response; 0 means no limit.
struct Limit(usize);

impl Limit {
    fn response(&self, entries: impl Iterator<Item = Value>) -> Response {
        let mut data: Vec<Value> = entries.collect();
        if self.0 > 0 && data.len() > self.0 {
            data.truncate(self.0);
            let warning = "results truncated due to limit";
            return json_response(&json!({ "status": "success", "data": data, "warnings": [warning] }));
        }
        json_response(&json!({ "status": "success", "data": data }))
    }
}

fn bad_data(error: &str) -> Response {
    let body = json!({ "status": "error", "errorType": "bad_data", "error": error });
    (StatusCode::BAD_REQUEST, Json(body)).into_response()
}
