//! `/api/v1/audit…`: reads, exports and verifies the audit log. Entries are of the caller's tenant; administrators of
//! the tenant `main` export the whole log, without which the chain cannot be verified.

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use wardroom_edge::{Access, Problem, Routes};

use crate::backend::Backend;
use crate::paging::{DEFAULT_PAGE_ROWS, MAX_PAGE_ROWS};
use crate::problem_responses::{GuardErrors, ProblemDocument};
use crate::query_parameters::QueryParameters;
use crate::request::{Caller, parse_time};
use crate::resource_views::{AuditEntryView, AuditPage, AuditVerification};
use crate::resources_backend::AuditQuery;
use crate::warnings::{changed_limit, with_warnings};

pub(crate) fn routes(backend: &Backend) -> Routes {
    let [list_backend, show_backend, export_backend, verify_backend] = std::array::from_fn(|_| backend.clone());
    Routes::new()
        .get("/api/v1/audit", Access::Admin, move |caller: Caller, parameters: QueryParameters<AuditParameters>| {
            list(list_backend.clone(), caller, parameters)
        })
        .get("/api/v1/audit/{sequence}", Access::Admin, move |caller: Caller, sequence: Path<String>| {
            show(show_backend.clone(), caller, sequence)
        })
        .get("/api/v1/audit/export", Access::Admin, move |caller: Caller| export(export_backend.clone(), caller))
        .get("/api/v1/audit/verify", Access::Admin, move || verify(verify_backend.clone()))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AuditParameters {
    /// Only entries of this time or later: RFC 3339 or seconds since the epoch.
    since: Option<String>,
    /// Only entries before this time.
    until: Option<String>,
    /// Only entries of this action, such as `transition`.
    action: Option<String>,
    /// Only what this principal did.
    principal: Option<String>,
    /// Only entries of this incident.
    #[param(example = "INC-42")]
    incident: Option<String>,
    /// `next` of the previous page.
    cursor: Option<i64>,
    /// Maximum number of entries; 100 by default, at most 1000.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Lists entries of the audit log, newest first.
///
/// A page may end before `limit` entries are found; go on while `next` is not null.
#[utoipa::path(
    get, path = "/api/v1/audit", operation_id = "listAuditEntries", tag = "audit",
    params(AuditParameters),
    responses((status = 200, description = "One page of entries", body = AuditPage), GuardErrors),
    extensions(("x-access" = json!("admin"))),
)]
pub(crate) async fn list(
    backend: Backend,
    caller: Caller,
    QueryParameters(parameters): QueryParameters<AuditParameters>,
) -> Result<Response, Problem> {
    let asked = parameters.limit.unwrap_or(DEFAULT_PAGE_ROWS);
    let limit = asked.clamp(1, MAX_PAGE_ROWS);
    let time = |name, text: Option<String>| text.map(|text| parse_time(name, &text)).transpose();
    let query = AuditQuery {
        since: time("since", parameters.since)?,
        until: time("until", parameters.until)?,
        action: parameters.action,
        principal: parameters.principal,
        incident: parameters.incident,
        cursor: parameters.cursor,
        limit,
    };
    let page = (backend.resources.audit)((caller.tenant.clone(), query)).await?;
    Ok(with_warnings(Json(page), changed_limit(asked, limit).into_iter().collect()))
}

/// One entry of the audit log.
#[utoipa::path(
    get, path = "/api/v1/audit/{sequence}", operation_id = "getAuditEntry", tag = "audit",
    params(("sequence" = String, Path, description = "Sequence number")),
    responses((status = 200, description = "The entry", body = AuditEntryView),
        (status = 404, description = "`no_such_entry`", body = ProblemDocument,
            content_type = "application/problem+json"), GuardErrors),
    extensions(("x-access" = json!("admin"))),
)]
pub(crate) async fn show(
    backend: Backend,
    caller: Caller,
    Path(sequence): Path<String>,
) -> Result<Json<AuditEntryView>, Problem> {
    let missing = || {
        let detail = format!("there is no entry {sequence}; GET /api/v1/audit lists them");
        Problem::new(StatusCode::NOT_FOUND, "no_such_entry", detail)
    };
    let number = sequence.parse().map_err(|_| missing())?;
    let found = (backend.resources.audit_entry)((caller.tenant.clone(), number)).await?;
    found.map(Json).ok_or_else(missing)
}

/// The audit log as JSON lines, oldest first: sequence, hash, entry, and the text that is hashed.
///
/// The hash of an entry is SHA-256 of the previous hash, the sequence number and the text, with a line feed between
/// them.
#[utoipa::path(
    get, path = "/api/v1/audit/export", operation_id = "exportAuditLog", tag = "audit",
    responses((status = 200, description = "One entry a line", body = String, content_type = "application/x-ndjson"),
        GuardErrors),
    extensions(("x-access" = json!("admin"))),
)]
pub(crate) async fn export(backend: Backend, caller: Caller) -> Result<Response, Problem> {
    let tenant = caller.tenant.clone();
    // The first part before the response begins: an error of it is still an answer.
    let first = (backend.resources.export_audit)((tenant.clone(), 0)).await?;
    let parts = futures_util::stream::unfold(Some(Ok(first)), move |part| {
        let (backend, tenant) = (backend.clone(), tenant.clone());
        async move {
            let (entries, next) = match part? {
                Ok(part) => part,
                Err(problem) => return Some((Err(problem), None)),
            };
            let following = match next {
                Some(next) => Some((backend.resources.export_audit)((tenant, next)).await),
                None => None,
            };
            Some((Ok(lines(&entries)), following))
        }
    });
    let parts = futures_util::StreamExt::map(parts, |part: Result<Bytes, Problem>| {
        part.map_err(|problem| std::io::Error::other(problem.detail().to_owned()))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(parts)).into_response())
}

fn lines(entries: &[AuditEntryView]) -> Bytes {
    let mut text = String::new();
    for entry in entries {
        text.push_str(&serde_json::to_string(entry).unwrap_or_default());
        text.push('\n');
    }
    text.into()
}

/// Verifies the chain of the whole audit log.
///
/// What the server's database says of itself; `wardroom audit verify --data` also compares it with the signed heads.
#[utoipa::path(
    get, path = "/api/v1/audit/verify", operation_id = "verifyAuditLog", tag = "audit",
    responses((status = 200, description = "The result", body = AuditVerification), GuardErrors),
    extensions(("x-access" = json!("admin"))),
)]
pub(crate) async fn verify(backend: Backend) -> Result<Json<AuditVerification>, Problem> {
    Ok(Json((backend.resources.verify_audit)(()).await?))
}
