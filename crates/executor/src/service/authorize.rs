//! Approvals: who has proven them, for which plan, and whether there are enough.

use std::time::Duration;

use wardroom_domain::approval_proof::ProofAction;
use wardroom_domain::executor::{RefusalCode, Response};
use wardroom_domain::{Plan, PolicyAnswer, Principal, mutant, unfit_steps};
use wardroom_policy::{Actor, ActorKind};
use wardroom_process::clock;

use super::{Service, refuse_ledger_error, refuse_tool_error};
use crate::approval::{self, Claim, Proven};
use crate::config::ExecutorConfig;
use crate::ledger::{Entry, FORMAT_VERSION};
use crate::plan_record::PlanRecord;
use crate::policy_check;
use crate::protocol::Deadline;
use crate::refusal::Refusal;

/// Longest time until a plan expires: the server chooses the time, and an approval must not be good for years.
const MAX_PLAN_LIFETIME: Duration = Duration::from_secs(24 * 3600);

impl Service {
    /// Records an approval. A plan that needs two takes one of each of two people.
    pub(super) fn authorize(
        &self,
        plan: Plan,
        (plan_sha256, proof): (&str, &str),
        undo_sha256: Option<String>,
        deadline: Deadline,
    ) -> Result<Response, Refusal> {
        let config = self.config_for(proof)?;
        let hash = plan.sha256().map_err(|error| (RefusalCode::Invalid, error))?;
        if hash != plan_sha256 && !mutant::is_enabled("skip-plan-hash") {
            return Err((
                RefusalCode::HashMismatch,
                format!("the hash of the plan is {hash}, the approved hash is {plan_sha256}"),
            ));
        }
        let proven = self.prove_approval(&config, &plan, (&hash, proof))?;
        check_expiry(&plan)?;
        self.check_plan(&plan)?;
        self.check_open_reviews(&plan, proven.as_ref())?;
        deadline.check()?;
        // Held until the approval is recorded: of two at the same time, the second one sees the first.
        let mut ledger = self.ledger();
        let before = ledger.plan(&hash).filter(|_| !mutant::is_enabled("accept-second-approval"));
        if before.is_some_and(|record| record.status.approved_by.is_some()) {
            return Err((RefusalCode::AlreadyUsed, "this plan was approved before".to_owned()));
        }
        let approved_by: Vec<Principal> =
            before.iter().flat_map(|record| &record.approvals).map(|approval| approval.principal.clone()).collect();
        let is_partial = proven.as_ref().is_some_and(|proven| proven.break_glass.is_none())
            && !is_enough(&config, &plan, approved_by.len() + 1)?;
        let principal = proven.as_ref().map_or_else(Principal::wardroom, |proven| proven.principal.clone());
        if let Some(proven) = &proven {
            if approved_by.contains(&proven.principal) {
                let detail = "they have approved this plan before; the second approval is another person's";
                return Err((RefusalCode::AlreadyUsed, detail.to_owned()));
            }
            let role = Some(config.role_of(&plan.tenant, &proven.principal));
            let approver = Actor { principal: proven.principal.clone(), kind: ActorKind::Person, role };
            policy_check::check_approver(&config, &plan, &approver, &approved_by)?;
        }
        let (key, break_glass) = proven.map_or((None, None), |proven| (proven.key, proven.break_glass));
        let entry = Entry::Authorized {
            version: FORMAT_VERSION,
            at: clock::now(),
            plan: Box::new(plan),
            plan_sha256: hash.clone(),
            principal,
            undo_sha256,
            // A token would be a secret in the ledger.
            proof: key.is_some().then(|| proof.to_owned()),
            key,
            break_glass,
            is_partial,
        };
        ledger.append(entry).map_err(refuse_ledger_error)?;
        drop(ledger);
        Ok(self.status(&hash, 0))
    }

    /// Verifies who approves. `None` if the policy permits the action without an approval.
    fn prove_approval(
        &self,
        config: &ExecutorConfig,
        plan: &Plan,
        (plan_sha256, proof): (&str, &str),
    ) -> Result<Option<Proven>, Refusal> {
        if proof.is_empty() {
            let decision = policy_check::decide(config, plan, policy_check::facts_of(plan), false, clock::now())?;
            return match decision.answer {
                PolicyAnswer::Allow => Ok(None),
                _ => Err((RefusalCode::NotApproved, policy_check::describe(&decision))),
            };
        }
        let claim = Claim::about_plan(ProofAction::Approve, &plan.tenant, &plan.incident, plan_sha256);
        let proven = approval::verify(config, &claim, proof, clock::now())?;
        tracing::info!(
            principal = %proven.principal,
            tenant = %plan.tenant,
            plan_sha256,
            proof = proven.kind.as_str(),
            key = proven.key.as_deref().unwrap_or_default(),
            "approval verified"
        );
        Ok(Some(proven))
    }

    /// Checks what a plan would do, without contacting its targets: calls and undos are allowed for the tenant, an undo
    /// acts on nothing else than its step, and each step on a target of its own.
    fn check_plan(&self, plan: &Plan) -> Result<(), Refusal> {
        let invalid = |detail: String| Err((RefusalCode::Invalid, detail));
        let expected = Plan::version_of(&plan.further_steps);
        if plan.version != expected {
            return invalid(format!(
                "the plan has format {}; this build checks {expected} for its steps",
                plan.version
            ));
        }
        if plan.expires_at > clock::now().plus(MAX_PLAN_LIFETIME) {
            let hours = MAX_PLAN_LIFETIME.as_secs() / 3600;
            return invalid(format!("the plan expires in more than {hours} h; lower respond.approval-minutes"));
        }
        if let Some(reason) = unfit_steps(plan.steps().map(|(call, _)| call)) {
            return invalid(reason);
        }
        for (call, dry_run) in plan.steps() {
            let tool = self.tool(&plan.tenant, call)?;
            tool.check(call).map_err(refuse_tool_error)?;
            let Some(undo) = &dry_run.undo else { continue };
            if (&undo.tool, &undo.target) != (&call.tool, &call.target) {
                return invalid("the undo of the plan acts on another target than the plan".to_owned());
            }
            tool.check(undo).map_err(refuse_tool_error)?;
        }
        Ok(())
    }

    /// Checks the time and the approvers' authority again, immediately before the execution of a step.
    pub(super) fn check_authority(&self, record: &PlanRecord, step: u32) -> Result<(), Refusal> {
        let until = record.begin_until(step);
        if until <= clock::now() {
            return Err((RefusalCode::Expired, format!("the plan expired at {until}")));
        }
        self.check_approvers(record)
    }

    /// Checks that the people who approved a plan are still approvers of its tenant, with the same keys.
    pub(super) fn check_approvers(&self, record: &PlanRecord) -> Result<(), Refusal> {
        let config = self.config()?;
        for approval in &record.approvals {
            let is_policy = approval.key.is_none() && approval.principal == Principal::wardroom();
            if !is_policy && !config.is_approver(&record.plan.tenant, &approval.principal, approval.key.as_deref()) {
                return Err((RefusalCode::NotAnApprover, "the approver is no longer configured".to_owned()));
            }
        }
        Ok(())
    }
}

/// Returns whether a plan has the approvals that it needs, as far as that is known without its target.
fn is_enough(config: &ExecutorConfig, plan: &Plan, approvals: usize) -> Result<bool, Refusal> {
    if mutant::is_enabled("ignore-policy") {
        return Ok(true);
    }
    let decision = policy_check::decide(config, plan, policy_check::facts_of(plan), false, clock::now())?;
    match decision.answer.approvals() {
        Some(needed) => Ok(approvals >= needed),
        None => Err((RefusalCode::Denied, policy_check::describe(&decision))),
    }
}

fn check_expiry(plan: &Plan) -> Result<(), Refusal> {
    if plan.expires_at > clock::now() {
        Ok(())
    } else {
        Err((RefusalCode::Expired, format!("the plan expired at {}", plan.expires_at)))
    }
}
