//! `GET /api/v1/incidents`: a page of incidents, filtered and sorted.

use axum::Json;
use axum::response::Response;
use serde::Deserialize;
use wardroom_domain::{IncidentState, Severity};
use wardroom_edge::{Access, Problem, Routes};

use crate::backend::Backend;
use crate::incident_query::{IncidentQuery, IncidentSort};
use crate::paging::{DEFAULT_PAGE_ROWS, MAX_PAGE_ROWS};
use crate::problem_responses::{GuardErrors, ProblemDocument};
use crate::query_parameters::QueryParameters;
use crate::request::{Caller, parse_time};
use crate::views::IncidentPage;
use crate::warnings::{changed_limit, with_warnings};

pub(crate) fn routes(backend: &Backend) -> Routes {
    let backend = backend.clone();
    Routes::new().get(
        "/api/v1/incidents",
        Access::Read,
        move |caller: Caller, parameters: QueryParameters<IncidentParameters>| {
            list(backend.clone(), caller, parameters)
        },
    )
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct IncidentParameters {
    /// Only these states, separated by commas.
    #[param(example = "escalated,awaiting_approval")]
    state: Option<String>,
    /// Only these severities, separated by commas: `info`, `warning`, `high`, `critical`.
    severity: Option<String>,
    /// Only incidents that affect an entity of this name.
    service: Option<String>,
    /// Only incidents of this principal; `none` for those without one.
    owner: Option<String>,
    /// Only incidents opened at this time or later: RFC 3339 or seconds since the epoch.
    since: Option<String>,
    /// Only incidents opened before this time.
    until: Option<String>,
    /// Only incidents whose id, title, entities, causes or comments have all these words.
    text: Option<String>,
    /// Order; `newest` by default.
    sort: Option<IncidentSort>,
    /// `next` of the previous page.
    cursor: Option<i64>,
    /// Maximum number of incidents; 100 by default, at most 1000.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

impl IncidentParameters {
    /// Checks the values. Returns what to warn about, too.
    fn query(self) -> Result<(IncidentQuery, Vec<String>), Problem> {
        let asked = self.limit.unwrap_or(DEFAULT_PAGE_ROWS);
        let limit = asked.clamp(1, MAX_PAGE_ROWS);
        let time = |name, text: Option<String>| text.map(|text| parse_time(name, &text)).transpose();
        let query = IncidentQuery {
            states: parse_list("state", self.state.as_deref(), IncidentState::parse, &IncidentState::ALL)?,
            severities: parse_list("severity", self.severity.as_deref(), parse_severity, &SEVERITIES)?,
            entity: self.service,
            owner: self.owner.map(|owner| if owner == "none" { String::new() } else { owner }),
            since: time("since", self.since)?,
            until: time("until", self.until)?,
            words: self.text.unwrap_or_default().to_lowercase().split_whitespace().map(str::to_owned).collect(),
            sort: self.sort.unwrap_or_default(),
            cursor: self.cursor,
            limit,
        };
        Ok((query, changed_limit(asked, limit).into_iter().collect()))
    }
}

const SEVERITIES: [Severity; 4] = [Severity::Info, Severity::Warning, Severity::High, Severity::Critical];

fn parse_severity(word: &str) -> Option<Severity> {
    SEVERITIES.into_iter().find(|severity| severity.to_string() == word)
}

/// Parses words separated by commas.
fn parse_list<T: std::fmt::Display>(
    name: &str,
    text: Option<&str>,
    parse: impl Fn(&str) -> Option<T>,
    known: &[T],
) -> Result<Vec<T>, Problem> {
    let words = text.unwrap_or_default().split(',').map(str::trim).filter(|word| !word.is_empty());
    let parsed = words.map(|word| {
        parse(word).ok_or_else(|| {
            let known: Vec<String> = known.iter().map(T::to_string).collect();
            let detail = format!("parameter {name}: {word:?} is none of {}", known.join(", "));
            Problem::bad_request("bad_parameter", detail)
        })
    });
    parsed.collect()
}

/// Lists incidents, newest first.
///
/// A search may end a page before `limit` incidents are found; go on while `next` is not null.
#[utoipa::path(
    get, path = "/api/v1/incidents", operation_id = "listIncidents", tag = "incidents",
    params(IncidentParameters),
    responses((status = 200, description = "One page of incidents", body = IncidentPage),
        (status = 400, description = "`bad_parameter` or `bad_time`", body = ProblemDocument,
            content_type = "application/problem+json"), GuardErrors),
    extensions(("x-access" = json!("read"))),
)]
pub(crate) async fn list(
    backend: Backend,
    caller: Caller,
    QueryParameters(parameters): QueryParameters<IncidentParameters>,
) -> Result<Response, Problem> {
    let (query, warnings) = parameters.query()?;
    let page = (backend.incidents)(caller.tenant.clone(), query).await?;
    Ok(with_warnings(Json(page), warnings))
}
