//! Undo of an executed plan.
//!
//! Problem: an undo changes a target like the action did, and is requested later, when much may have changed. Model: a
//! plan covers its undo, so the approval is the authority for it, as long as the approver is one, the incident is not
//! settled, and the time for it is not over. Who requests it proves to be the one who got the approval, with a secret
//! of which the approval recorded the hash; or an approver requests it with their own proof. Guarantee: it restores the
//! state before the action only from the state that the action left.

use std::sync::Arc;

use subtle::ConstantTimeEq;
use wardroom_domain::approval_proof::ProofAction;
use wardroom_domain::canonical::sha256_hex;
use wardroom_domain::executor::{RefusalCode, Response};
use wardroom_domain::{Outcome, Principal};
use wardroom_process::clock;
use wardroom_respond::Applied;

use super::execute::Step;
use super::runs::Work;
use super::{Service, refuse_ledger_error, refuse_tool_error, with_crash_points};
use crate::approval::{self, Claim};
use crate::ledger::{Entry, FORMAT_VERSION};
use crate::plan_record::{PlanRecord, StepRecord};
use crate::protocol::Deadline;
use crate::refusal::Refusal;

/// What a proof shows.
enum Authority {
    /// The approval of the plan.
    Approval,
    /// An approver of the plan's tenant, now.
    Approver(Principal),
}

impl Service {
    /// Begins an undo. What can be refused without asking the target is refused at once.
    pub(super) fn start_undo(
        self: &Arc<Self>,
        (plan_sha256, step): (&str, u32),
        proof: &str,
        deadline: Deadline,
    ) -> Result<Response, Refusal> {
        let record = self.approved_plan(plan_sha256)?;
        let authority = self.verify(&record, ProofAction::Undo, proof)?;
        let (known, ..) = record.step(step)?;
        if known.undone.is_some() {
            return Ok(self.status(plan_sha256, step));
        }
        if known.undo_started.is_none() {
            self.check_stop()?;
        }
        let work = (Work::Undo, step);
        self.spawn(&record, work, move |service, plan_sha256| service.undo((plan_sha256, step), &authority, deadline))?;
        Ok(self.status(plan_sha256, step))
    }

    fn undo(&self, (plan_sha256, step): (&str, u32), authority: &Authority, deadline: Deadline) -> Result<(), Refusal> {
        let record = self.approved_plan(plan_sha256)?;
        let (known, _, dry_run) = record.step(step)?;
        if known.undone.is_some() {
            return Ok(());
        }
        if known.executed != Some(Outcome::Applied) {
            return Err((
                RefusalCode::Invalid,
                "the plan has not been applied, so there is nothing to undo".to_owned(),
            ));
        }
        let Some(call) = dry_run.undo.clone() else {
            return Err((RefusalCode::Invalid, "this plan cannot be undone".to_owned()));
        };
        let authorized = || self.check_undo(&record, authority);
        let tool = self.tool(&record.plan.tenant, &call)?;
        let tool = tool.as_ref();
        let key = format!("{}-undo", self.idempotency_key(&record.plan, step)?);
        let this = Step { plan_sha256, tool, crash_point: "adapter:undo", call: &call, precondition: "", key: &key };
        let Applied { outcome, detail, .. } = if let Some(state) = &known.undo_started {
            self.recover(&Step { crash_point: "adapter:execute", precondition: state, ..this }, authorized)?
        } else {
            authorized()?;
            record.check_undo_order(step)?;
            tool.check(&call).map_err(refuse_tool_error)?;
            let state = with_crash_points("adapter:probe", || tool.state(&call)).map_err(refuse_tool_error)?;
            check_state(known, &state)?;
            let principal = match authority {
                Authority::Approval => None,
                Authority::Approver(principal) => Some(principal.clone()),
            };
            let started = Entry::UndoStarted {
                version: FORMAT_VERSION,
                at: clock::now(),
                plan_sha256: plan_sha256.to_owned(),
                plan_step: step,
                key: key.clone(),
                precondition: state.clone(),
                principal,
            };
            deadline.check()?;
            self.append_effect(started)?;
            self.call(&Step { precondition: &state, ..this })
        };
        let entry = Entry::Undone {
            version: FORMAT_VERSION,
            at: clock::now(),
            plan_sha256: plan_sha256.to_owned(),
            plan_step: step,
            outcome,
            detail,
        };
        self.ledger().append(entry).map_err(refuse_ledger_error)
    }

    /// Ends the authority to undo a plan.
    pub(super) fn settle(&self, plan_sha256: &str, proof: &str) -> Result<Response, Refusal> {
        let record = self.approved_plan(plan_sha256)?;
        self.verify(&record, ProofAction::Settle, proof)?;
        if !record.settled {
            let (version, at, plan_sha256) = (FORMAT_VERSION, clock::now(), plan_sha256.to_owned());
            self.ledger().append(Entry::Settled { version, at, plan_sha256 }).map_err(refuse_ledger_error)?;
        }
        Ok(self.status(plan_sha256, 0))
    }

    /// Verifies the proof of a request. Compares in constant time.
    fn verify(&self, record: &PlanRecord, action: ProofAction, proof: &str) -> Result<Authority, Refusal> {
        let digest = sha256_hex(proof.as_bytes());
        let is_secret = |hash: &String| bool::from(hash.as_bytes().ct_eq(digest.as_bytes()));
        if record.undo_sha256.as_ref().is_some_and(is_secret) {
            return Ok(Authority::Approval);
        }
        let claim = Claim::about_plan(action, &record.plan.tenant, &record.plan.incident, &record.plan_sha256);
        let proven = approval::verify(&*self.config_for(proof)?, &claim, proof, clock::now());
        proven.map(|proven| Authority::Approver(proven.principal)).map_err(|(code, detail)| {
            (code, format!("the proof is not the secret of the approval, nor an approver's: {detail}"))
        })
    }

    /// Checks that the plan may be undone now.
    fn check_undo(&self, record: &PlanRecord, authority: &Authority) -> Result<(), Refusal> {
        if matches!(authority, Authority::Approval) {
            self.check_approvers(record)?;
        }
        let window = self.config()?.undo_window();
        if record.settled {
            return Err((
                RefusalCode::Expired,
                "the incident is settled, so the plan is not undone any more".to_owned(),
            ));
        }
        if record.finished_at().is_none_or(|finished_at| finished_at.plus(window) <= clock::now()) {
            let minutes = window.as_secs() / 60;
            return Err((RefusalCode::Expired, format!("the plan was executed more than {minutes} min ago")));
        }
        Ok(())
    }
}

/// Checks that the target is as the action left it: an undo must not overwrite what was changed since.
fn check_state(step: &StepRecord, found: &str) -> Result<(), Refusal> {
    match &step.state_after {
        Some(left) if left == found => Ok(()),
        Some(left) => Err((
            RefusalCode::Stale,
            format!("the target has changed since the action: it was at {left}, and is at {found}; it is left so"),
        )),
        None => Err((
            RefusalCode::Stale,
            format!("it is unknown how the action left the target, which is at {found}; a person must check"),
        )),
    }
}
