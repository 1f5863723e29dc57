//! Tokens, tenants, the configuration, the policy's rules, and what the executor may do and for whom.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use wardroom_api::{ApproverView, CreatedToken, NewTokenRequest, PolicyRules, TokenView, ToolView};
use wardroom_data_folder::tokens;
use wardroom_domain::executor::{ListedApprover, ProofKind, Request, Response};
use wardroom_domain::{Identity, TenantId};
use wardroom_edge::{Problem, Status};
use wardroom_executor::{describe_tool, list_tools};
use wardroom_pipeline::state::tenants::SELF_TENANT;
use wardroom_store::TokenRow;

use crate::problem_responses::{run_blocking, store_problem};
use crate::respond_error::OTHER_ANSWER;
use crate::responder::Responder;

impl Responder {
    /// Returns the rules of the policy.
    pub(super) fn policy_rules(&self) -> PolicyRules {
        PolicyRules {
            policy_sha256: self.policy.sha256().to_owned(),
            rules: self.policy.rule_ids().map(str::to_owned).collect(),
            text: self.policy.text().to_owned(),
            shadow: self.config.policy.shadow,
        }
    }

    /// Returns the approvers and the settings of the executor; nothing without one.
    async fn executor_settings(&self) -> Result<(Vec<ListedApprover>, Value), Problem> {
        if !self.executor.configured() {
            return Ok((Vec::new(), Value::Null));
        }
        let response = self.executor.request(&Request::Approvers).await;
        match response.map_err(|error| Problem::unavailable("executor_unavailable", error.to_string()))? {
            Response::Approvers { approvers, settings } => Ok((approvers, settings)),
            _ => Err(Problem::unavailable("executor_unavailable", OTHER_ANSWER)),
        }
    }

    /// Returns the targets of a tenant, without secrets.
    pub(super) async fn targets(&self, tenant: TenantId) -> Result<Vec<Value>, Problem> {
        let (_, settings) = self.executor_settings().await?;
        let targets = settings["targets"].as_array().cloned().unwrap_or_default();
        let main = TenantId::main();
        let is_own = |target: &Value| target["tenant"].as_str().unwrap_or(main.as_str()) == tenant.as_str();
        Ok(targets.into_iter().filter(is_own).collect())
    }

    /// Returns the approvers of a tenant.
    pub(super) async fn approvers(&self, tenant: TenantId) -> Result<Vec<ApproverView>, Problem> {
        let (approvers, _) = self.executor_settings().await?;
        let own = approvers.into_iter().filter(|approver| approver.tenant == tenant);
        let view = |approver: ListedApprover| ApproverView {
            principal: approver.principal.to_string(),
            tenant: approver.tenant.to_string(),
            proof: proof_name(approver.proof),
            key: approver.key,
            token_id: approver.token_id,
        };
        Ok(own.map(view).collect())
    }

    /// Returns the tokens that an administrator may see.
    pub(super) async fn tokens(&self, caller: Identity) -> Result<Vec<TokenView>, Problem> {
        let rows = self.store.tokens().await.map_err(store_problem)?;
        Ok(rows.into_iter().filter(|row| may_see(&caller, row)).map(token_view).collect())
    }

    /// Creates a token.
    pub(super) async fn create_token(&self, caller: Identity, token: NewTokenRequest) -> Result<CreatedToken, Problem> {
        let tenant = token.tenant.unwrap_or_else(|| caller.tenant.clone());
        if tenant != caller.tenant && caller.tenant != TenantId::main() {
            let detail = "field tenant: tokens of other tenants are made by administrators of the tenant main";
            return Err(Problem::new(Status::FORBIDDEN, "tenant_forbidden", detail));
        }
        let identity = Identity { tenant, principal: token.principal, role: token.role };
        let lifetime = token.lifetime_s.map(Duration::from_secs);
        let created = tokens::create(&self.store, caller.principal, identity, lifetime).await;
        let (token, secret) = created.map_err(store_problem)?;
        Ok(CreatedToken {
            id: token.id,
            token: secret,
            tenant: token.identity.tenant.to_string(),
            principal: token.identity.principal.to_string(),
            role: token.identity.role.as_str().to_owned(),
            expires_at: token.expires_at,
        })
    }

    /// Revokes a token.
    pub(super) async fn revoke_token(&self, caller: Identity, id: String) -> Result<(), Problem> {
        let rows = self.store.tokens().await.map_err(store_problem)?;
        // One of another tenant is as unknown as one that does not exist.
        if !rows.iter().any(|row| row.id == id && may_see(&caller, row)) {
            let detail = format!("there is no token {id}; GET /api/v1/tokens lists them");
            return Err(Problem::new(Status::NOT_FOUND, "no_such_token", detail));
        }
        tokens::revoke(&self.store, caller.principal, &id).await.map_err(store_problem)
    }

    /// Returns the tenants that an administrator may know of.
    pub(super) async fn tenant_names(&self, caller: Identity) -> Result<Vec<String>, Problem> {
        if caller.tenant != TenantId::main() {
            return Ok(vec![caller.tenant.to_string()]);
        }
        let mut names: BTreeSet<String> = self.tenants.all().iter().map(|(id, _)| id.to_string()).collect();
        let rows = self.store.tokens().await.map_err(store_problem)?;
        names.extend(rows.iter().map(|row| row.identity.tenant.to_string()));
        names.insert(caller.tenant.to_string());
        names.remove(SELF_TENANT);
        Ok(names.into_iter().collect())
    }

    /// Returns the configuration in force, without secrets.
    pub(super) fn configuration(&self, caller: &Identity) -> Result<Value, Problem> {
        if caller.tenant != TenantId::main() {
            let detail = "the configuration is of all tenants; administrators of the tenant main read it";
            return Err(Problem::new(Status::FORBIDDEN, "tenant_forbidden", detail));
        }
        Ok(json!(self.config.with_hidden_secrets()))
    }
}

/// Describes every tool of this build.
pub(super) async fn describe_tools() -> Result<Vec<ToolView>, Problem> {
    // Schemas are made each time: this is asked rarely, and they would stay in memory.
    let described = run_blocking(|| {
        let listed = list_tools(None).map_err(|error| error.to_string())?;
        let names = listed.as_array().into_iter().flatten().filter_map(|tool| tool["name"].as_str());
        let describe = |name: &str| serde_json::from_value(describe_tool(name)?).map_err(|error| error.to_string());
        names.map(describe).collect::<Result<Vec<ToolView>, String>>()
    });
    described.await?.map_err(|error| Problem::unavailable("tools_unreadable", error))
}

fn may_see(caller: &Identity, row: &TokenRow) -> bool {
    caller.tenant == TenantId::main() || row.identity.tenant == caller.tenant
}

fn proof_name(proof: ProofKind) -> String {
    proof.as_str().to_owned()
}

fn token_view(row: TokenRow) -> TokenView {
    TokenView {
        id: row.id,
        tenant: row.identity.tenant.to_string(),
        principal: row.identity.principal.to_string(),
        role: row.identity.role.as_str().to_owned(),
        created_at: row.created_at,
        expires_at: row.expires_at,
        revoked_at: row.revoked_at,
    }
}
