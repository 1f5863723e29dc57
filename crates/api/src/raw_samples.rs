//! `GET /api/v1/samples`: raw samples of the whole retention.

use axum::extract::RawQuery;
use axum::response::Response;
use serde_json::json;
use utoipa::ToSchema;
use wardroom_domain::query::SeriesQuery;
use wardroom_domain::{Matcher, Timestamp};
use wardroom_edge::{Access, Problem, Routes};

use crate::backend::Backend;
use crate::problem_responses::{GuardErrors, ProblemDocument};
use crate::query_parameters::query_pairs;
use crate::request::{Caller, bad_cursor, parse_step_ms, parse_time};
use crate::request_thread::{json_response, parse_apart, run_apart};
use crate::series_views::SeriesView;

/// Maximum number of steps of one query, the same as in Prometheus.
pub(crate) const MAX_STEPS: u64 = 11_000;

pub(crate) fn routes(backend: &Backend) -> Routes {
    let backend = backend.clone();
    Routes::new().get("/api/v1/samples", Access::Read, move |caller: Caller, query: RawQuery| {
        list(backend.clone(), caller, query)
    })
}

/// Raw samples; the shape of the response of [`list`].
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its description is used; the response is encoded apart")]
pub(crate) struct SamplesList {
    /// One entry for each series.
    series: Vec<SeriesView>,
    /// Cursor of the next page; null on the last page.
    #[schema(required)]
    next: Option<String>,
}

/// Reads raw samples of the whole retention; with `step`, the newest sample at every step.
#[utoipa::path(
    get, path = "/api/v1/samples", operation_id = "listSamples", tag = "metrics",
    params(("match[]" = Option<Vec<String>>, Query, description = "Selectors; all series by default"),
        ("start" = Option<String>, Query, description = "Start, inclusive: RFC 3339 or seconds since the epoch"),
        ("end" = Option<String>, Query, description = "End, inclusive: RFC 3339 or seconds since the epoch"),
        ("step" = Option<String>, Query, description = "Such as `15`, `15s` or `1m`: the newest sample at every step, \
            at most five minutes old, without paging"),
        ("cursor" = Option<String>, Query, description = "`next` of the previous page")),
    responses((status = 200, description = "One page of samples", body = SamplesList),
        (status = 400, description = "`bad_match`, `bad_time`, `bad_step`, `bad_cursor` or `too_many_samples`",
            body = ProblemDocument, content_type = "application/problem+json"), GuardErrors),
    extensions(("x-access" = json!("read"))),
)]
pub(crate) async fn list(backend: Backend, caller: Caller, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let (series_query, cursor) = parse_apart(query.unwrap_or_default(), |query| parse_query(query)).await??;
    let (series, next) = (backend.samples)(caller.tenant.clone(), series_query, cursor).await?;
    run_apart(move || json_response(&json!({ "series": series, "next": next.map(|next| next.to_string()) }))).await
}

/// Parses the parameters; returns the query and the cursor.
fn parse_query(query: &str) -> Result<(SeriesQuery, u64), Problem> {
    let (start, end) = (Timestamp::from_nanos(i64::MIN), Timestamp::from_nanos(i64::MAX));
    let (mut series_query, mut cursor) = (SeriesQuery { selectors: Vec::new(), start, end, step_ms: None }, 0);
    for (name, value) in query_pairs(query) {
        match name.as_str() {
            "match[]" => {
                Matcher::parse_selector(&value)
                    .and_then(|selector| series_query.add_selector(selector))
                    .map_err(|error| Problem::bad_request("bad_match", format!("parameter match[]: {error}")))?;
            }
            "start" => series_query.start = parse_time("start", &value)?,
            "end" => series_query.end = parse_time("end", &value)?,
            "step" => series_query.step_ms = Some(parse_step_ms(&value)?),
            "cursor" => cursor = value.parse().map_err(|_| bad_cursor())?,
            _ => {}
        }
    }
    if series_query.steps() > MAX_STEPS {
        let detail = format!("parameter step: at most {MAX_STEPS} steps; give start and end, or a longer step");
        return Err(Problem::bad_request("bad_step", detail));
    }
    Ok((series_query, cursor))
}
