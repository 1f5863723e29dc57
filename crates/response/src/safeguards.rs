//! Kill switch and reviews of break-glass, for the API: each decision is audited, whether it is refused or not.

use serde_json::{Value, json};
use wardroom_api::{ApprovalProof, KillSwitch, StopView};
use wardroom_domain::audit::AuditEntry;
use wardroom_domain::executor::{Request, Response};
use wardroom_domain::{Identity, TenantId};
use wardroom_edge::{Problem, Status};

use crate::audit_entry::audit_entry;
use crate::clock;
use crate::decisions::refusal_problem;
use crate::problem_responses::{conflict, store_problem};
use crate::respond_error::OTHER_ANSWER;
use crate::responder::Responder;

impl Responder {
    /// Stops all actions, ends that, or says whether they are stopped.
    ///
    /// # Errors
    /// Returns the executor's refusal, or that it or the store is not available.
    pub async fn switch(&self, caller: Identity, decision: KillSwitch) -> Result<StopView, Problem> {
        let (action, request, reason) = match decision {
            KillSwitch::Read => return self.ask_executor(&Request::StopState).await.map(stop_view),
            KillSwitch::Stop { reason } => {
                ("stop_all", Request::StopAll { by: caller.principal.clone(), reason: reason.clone() }, reason)
            }
            KillSwitch::Resume { proof } => ("resume", Request::Resume { proof: proof.0 }, String::new()),
        };
        let result = if caller.tenant == TenantId::main() {
            self.ask_executor(&request).await.map(stop_view)
        } else {
            let detail = "all actions of all tenants are stopped by the tenant main only";
            Err(Problem::new(Status::FORBIDDEN, "tenant_forbidden", detail))
        };
        self.audit_safeguard(&caller, None, (action, json!({ "reason": reason })), result.as_ref().err()).await?;
        result
    }

    /// Records that another person has reviewed an execution by break-glass.
    ///
    /// # Errors
    /// As for [`Self::switch`].
    pub async fn review(&self, caller: Identity, number: i64, proof: ApprovalProof) -> Result<(), Problem> {
        let (row, workflow) = self.find_incident(&caller.tenant, number).await?;
        let plan = workflow.plan_sha256.clone();
        let plan_sha256 = plan.ok_or_else(|| conflict("plan_changed", "the incident has no plan"))?;
        let decision = json!({ "plan_sha256": plan_sha256 });
        let result = self.ask_executor(&Request::Review { plan_sha256, proof: proof.0 }).await.map(drop);
        self.audit_safeguard(&caller, Some(&row.id()), ("review", decision), result.as_ref().err()).await?;
        result
    }

    async fn ask_executor(&self, request: &Request) -> Result<Response, Problem> {
        let response = self.executor.request(request).await;
        match response.map_err(|error| Problem::unavailable("executor_unavailable", error.to_string()))? {
            Response::Refused { code, detail } => Err(refusal_problem(code, detail)),
            response @ (Response::StopState { .. } | Response::Status { .. }) => Ok(response),
            _ => Err(Problem::unavailable("executor_unavailable", OTHER_ANSWER)),
        }
    }

    async fn audit_safeguard(
        &self,
        caller: &Identity,
        incident: Option<&str>,
        (action, mut decision): (&str, Value),
        refused: Option<&Problem>,
    ) -> Result<(), Problem> {
        let action = if refused.is_some() { format!("{action}_refused") } else { action.to_owned() };
        if let Some(problem) = refused {
            decision["code"] = json!(problem.code());
        }
        let entry = audit_entry(&caller.tenant, "resolver", incident, &action, decision, clock::now());
        let entry = AuditEntry { principal: caller.principal.clone(), ..entry };
        self.store.append_audit(&entry).await.map_err(store_problem)
    }
}

fn stop_view(response: Response) -> StopView {
    let stopped = if let Response::StopState { stopped } = response { stopped } else { None };
    StopView {
        stopped: stopped.is_some(),
        id: stopped.as_ref().map(|stop| stop.id.clone()),
        by: stopped.as_ref().map(|stop| stop.by.to_string()),
        at: stopped.as_ref().map(|stop| stop.at),
        reason: stopped.map(|stop| stop.reason),
    }
}
