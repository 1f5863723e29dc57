//! Review of an execution by break-glass.
//!
//! Problem: in an emergency one person must be able to act where two are needed, or during a freeze. Model: they sign
//! that with a reason; the plan is then not held by approvals that are missing, freezes and rates (the kill switch, the
//! state of the target, and what the policy forbids regardless still hold). Guarantee: another approver has to confirm
//! that they have looked at it; until then the glass of the tenant cannot be broken again.

use wardroom_domain::Plan;
use wardroom_domain::approval_proof::ProofAction;
use wardroom_domain::executor::{RefusalCode, Response};
use wardroom_process::clock;

use super::{Service, refuse_ledger_error};
use crate::approval::{self, Claim, Proven};
use crate::ledger::{Entry, FORMAT_VERSION};
use crate::refusal::Refusal;

impl Service {
    /// Records that another person has reviewed an execution by break-glass. Idempotent.
    pub(super) fn review(&self, plan_sha256: &str, proof: &str) -> Result<Response, Refusal> {
        let record = self.approved_plan(plan_sha256)?;
        let plan = &record.plan;
        let claim = Claim::about_plan(ProofAction::Review, &plan.tenant, &plan.incident, plan_sha256);
        let principal = approval::verify(&*self.config_for(proof)?, &claim, proof, clock::now())?.principal;
        if record.break_glass.is_none() {
            return Err((RefusalCode::Invalid, "this plan was not approved by break-glass".to_owned()));
        }
        if record.approvals.iter().any(|approval| approval.principal == principal) {
            let detail = "who approved the plan cannot review it; another approver has to";
            return Err((RefusalCode::NotAnApprover, detail.to_owned()));
        }
        if record.status.review_due {
            let (version, at, plan_sha256) = (FORMAT_VERSION, clock::now(), plan_sha256.to_owned());
            let entry = Entry::Reviewed { version, at, plan_sha256, principal };
            self.ledger().append(entry).map_err(refuse_ledger_error)?;
        }
        Ok(self.status(plan_sha256, 0))
    }

    /// Refuses to break the glass while an earlier time was not reviewed.
    pub(super) fn check_open_reviews(&self, plan: &Plan, proven: Option<&Proven>) -> Result<(), Refusal> {
        if proven.is_none_or(|proven| proven.break_glass.is_none()) {
            return Ok(());
        }
        let ledger = self.ledger();
        let open = ledger.plans().find(|record| record.plan.tenant == plan.tenant && record.status.review_due);
        match open {
            Some(record) => {
                let detail = format!(
                    "plan {} was approved by break-glass and has not been reviewed; another approver reviews it \
                     first: `wardroom incidents review`",
                    record.plan_sha256
                );
                Err((RefusalCode::NotApproved, detail))
            }
            None => Ok(()),
        }
    }
}
