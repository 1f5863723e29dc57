//! `/api/v1/plans`, `/api/v1/policy`, `/api/v1/tools` and `/api/v1/approvers`: what may be done, by what and by whom.

use axum::Json;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use wardroom_edge::{Access, Problem, Routes};

use crate::backend::Backend;
use crate::paging::{DEFAULT_PAGE_ROWS, MAX_PAGE_ROWS, PageParameters};
use crate::problem_responses::GuardErrors;
use crate::query_parameters::QueryParameters;
use crate::request::Caller;
use crate::resource_views::{ApproverView, PlanPage, PolicyRules, ToolView};
use crate::resources_backend::PlanQuery;
use crate::warnings::{changed_limit, with_warnings};

pub(crate) fn routes(backend: &Backend) -> Routes {
    let [plans_backend, policy_backend, tools_backend, approvers_backend] = std::array::from_fn(|_| backend.clone());
    Routes::new()
        .get("/api/v1/plans", Access::Read, move |caller: Caller, parameters: QueryParameters<PlanParameters>| {
            list_plans(plans_backend.clone(), caller, parameters)
        })
        .get("/api/v1/policy", Access::Read, move || policy(policy_backend.clone()))
        .get("/api/v1/tools", Access::Read, move |caller: Caller, page: QueryParameters<PageParameters>| {
            list_tools(tools_backend.clone(), caller, page)
        })
        .get("/api/v1/approvers", Access::Read, move |caller: Caller, page: QueryParameters<PageParameters>| {
            list_approvers(approvers_backend.clone(), caller, page)
        })
}

/// Which plans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PlanState {
    /// Those that wait for an approval.
    #[default]
    Pending,
    /// All.
    All,
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PlanParameters {
    /// Which plans; `pending` by default.
    state: Option<PlanState>,
    /// `next` of the previous page.
    cursor: Option<i64>,
    /// Maximum number of plans; 100 by default, at most 1000.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Lists the plans of incidents with the policy's answers and the approvals, the newest incident first.
///
/// A page may end before `limit` plans are found; go on while `next` is not null.
#[utoipa::path(
    get, path = "/api/v1/plans", operation_id = "listPlans", tag = "plans",
    params(PlanParameters),
    responses((status = 200, description = "One page of plans", body = PlanPage), GuardErrors),
    extensions(("x-access" = json!("read"))),
)]
pub(crate) async fn list_plans(
    backend: Backend,
    caller: Caller,
    QueryParameters(parameters): QueryParameters<PlanParameters>,
) -> Result<Response, Problem> {
    let asked = parameters.limit.unwrap_or(DEFAULT_PAGE_ROWS);
    let limit = asked.clamp(1, MAX_PAGE_ROWS);
    let pending = parameters.state.unwrap_or_default() == PlanState::Pending;
    let query = PlanQuery { pending, cursor: parameters.cursor, limit };
    let page = (backend.resources.plans)((caller.tenant.clone(), query)).await?;
    Ok(with_warnings(Json(page), changed_limit(asked, limit).into_iter().collect()))
}

/// The rules of the policy in force.
#[utoipa::path(
    get, path = "/api/v1/policy", operation_id = "getPolicy", tag = "plans",
    responses((status = 200, description = "The rules", body = PolicyRules), GuardErrors),
    extensions(("x-access" = json!("read"))),
)]
pub(crate) async fn policy(backend: Backend) -> Result<Json<PolicyRules>, Problem> {
    Ok(Json((backend.resources.policy)(()).await?))
}

/// Targets of tools.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TargetList {
    /// As declared in the executor's file, without secrets; in its order.
    #[schema(value_type = Vec<Object>)]
    targets: Vec<Value>,
    /// Every tool of this build with its operations; on the first page only.
    tools: Vec<ToolView>,
    /// Cursor of the next page; null on the last page.
    #[schema(required)]
    next: Option<String>,
}

/// Lists the targets that the executor has for the caller's tenant, each with its tool, and describes the tools.
#[utoipa::path(
    get, path = "/api/v1/tools", operation_id = "listTools", tag = "plans",
    params(PageParameters),
    responses((status = 200, description = "One page of targets", body = TargetList), GuardErrors),
    extensions(("x-access" = json!("read"))),
)]
pub(crate) async fn list_tools(
    backend: Backend,
    caller: Caller,
    QueryParameters(page): QueryParameters<PageParameters>,
) -> Result<Response, Problem> {
    let targets = (backend.resources.targets)(caller.tenant.clone()).await?;
    let tools = if page.cursor.is_none() { (backend.resources.tools)(()).await? } else { Vec::new() };
    let numbered: Vec<(usize, Value)> = targets.into_iter().enumerate().collect();
    let page = page.of(numbered, |(number, _)| format!("{number:08}"));
    let targets = |rows: Vec<(usize, Value)>| rows.into_iter().map(|(_, target)| target).collect();
    Ok(page.response(|rows, next| TargetList { targets: targets(rows), tools, next }))
}

/// Approvers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ApproverList {
    /// By name.
    approvers: Vec<ApproverView>,
    /// Cursor of the next page; null on the last page.
    #[schema(required)]
    next: Option<String>,
}

/// Lists who may approve plans of the caller's tenant, as the executor's file has it.
#[utoipa::path(
    get, path = "/api/v1/approvers", operation_id = "listApprovers", tag = "plans",
    params(PageParameters),
    responses((status = 200, description = "One page of approvers", body = ApproverList), GuardErrors),
    extensions(("x-access" = json!("read"))),
)]
pub(crate) async fn list_approvers(
    backend: Backend,
    caller: Caller,
    QueryParameters(page): QueryParameters<PageParameters>,
) -> Result<Response, Problem> {
    let found = (backend.resources.approvers)(caller.tenant.clone()).await?;
    let page = page.of(found, |approver| format!("{}/{}{}", approver.principal, approver.key, approver.token_id));
    Ok(page.response(|approvers, next| ApproverList { approvers, next }))
}
