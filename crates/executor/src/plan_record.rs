//! What the ledger knows of a plan and of each of its steps.

use std::time::Duration;

use wardroom_domain::executor::{Phase, PlanStatus, RefusalCode};
use wardroom_domain::{DryRun, Outcome, Plan, Principal, Timestamp, ToolCall};

use crate::approval::proof_key::kind_of;
use crate::refusal::Refusal;

/// A step may begin for this long after the end of the one before, although the plan has expired meanwhile: a rollout
/// takes minutes, and the approval was for all steps.
const STEP_WINDOW: Duration = Duration::from_secs(30 * 60);

/// An approval of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecordedApproval {
    pub(crate) principal: Principal,
    /// Fingerprint of the key that signed; `None` if a token proved it.
    pub(crate) key: Option<String>,
}

/// The state of a step of a plan.
#[derive(Clone, Debug, Default)]
pub(crate) struct StepRecord {
    /// Idempotency key sent to the target.
    pub(crate) key: Option<String>,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) executed: Option<Outcome>,
    pub(crate) finished_at: Option<Timestamp>,
    /// State of the target after the action, if it was applied and could be read.
    pub(crate) state_after: Option<String>,
    pub(crate) undo_started_at: Option<Timestamp>,
    /// State of the target when the undo was started.
    pub(crate) undo_started: Option<String>,
    pub(crate) undone: Option<Outcome>,
    /// The target's message about the last of these.
    pub(crate) detail: String,
}

/// The state of a plan.
#[derive(Clone, Debug)]
pub(crate) struct PlanRecord {
    pub(crate) plan: Plan,
    pub(crate) plan_sha256: String,
    /// Its approvals; see [`PlanRecord::status_of`] for the rest.
    pub(crate) status: PlanStatus,
    /// The approvals, in order.
    pub(crate) approvals: Vec<RecordedApproval>,
    /// Why the plan could not wait, if it was approved by break-glass.
    pub(crate) break_glass: Option<String>,
    /// SHA-256 of the secret that proves an undo.
    pub(crate) undo_sha256: Option<String>,
    /// The steps, in order; one for each of the plan.
    pub(crate) steps: Vec<StepRecord>,
    /// The incident is settled.
    pub(crate) settled: bool,
}

impl PlanRecord {
    /// Creates the record of a plan without approvals.
    pub(crate) fn new(plan: Plan, plan_sha256: String, undo_sha256: Option<String>) -> Self {
        Self {
            steps: vec![StepRecord::default(); plan.step_count()],
            plan,
            plan_sha256,
            status: PlanStatus::default(),
            approvals: Vec::new(),
            break_glass: None,
            undo_sha256,
            settled: false,
        }
    }

    pub(crate) fn add_approval(&mut self, approval: RecordedApproval, break_glass: Option<String>, is_partial: bool) {
        let status = &mut self.status;
        if !is_partial && status.approved_by.is_none() {
            status.phase = Phase::Authorized;
            let first = self.approvals.first().unwrap_or(&approval);
            status.approved_by = Some(first.principal.clone());
        }
        if self.approvals.is_empty() {
            status.proof = Some(kind_of(approval.key.as_deref()));
        }
        status.approvals.push(approval.principal.clone());
        self.approvals.push(approval);
        if break_glass.is_some() {
            status.review_due = true;
            self.break_glass = break_glass;
        }
    }

    /// Returns the status as far as a step, counted from 0, is concerned.
    pub(crate) fn status_of(&self, step: u32) -> PlanStatus {
        let known = self.steps.get(index(step)).cloned().unwrap_or_default();
        let phase = match (known.undone, known.executed) {
            (Some(_), _) => Phase::Undone,
            (None, Some(_)) => Phase::Done,
            (None, None) => self.status.phase,
        };
        PlanStatus {
            phase,
            executed: known.executed,
            undone: known.undone,
            idempotency_key: known.key,
            detail: known.detail,
            ..self.status.clone()
        }
    }

    /// Returns a step, counted from 0, with its call and predicted effect.
    pub(crate) fn step(&self, step: u32) -> Result<(&StepRecord, &ToolCall, &DryRun), Refusal> {
        let known = self.steps.get(index(step)).zip(self.plan.step(step));
        let missing = || (RefusalCode::Invalid, format!("the plan has {} steps", self.steps.len()));
        known.map(|(record, (call, dry_run))| (record, call, dry_run)).ok_or_else(missing)
    }

    /// Returns the steps with their numbers, counted from 0, and calls.
    pub(crate) fn numbered(&self) -> impl Iterator<Item = (u32, &StepRecord, &ToolCall)> {
        (0..).zip(self.steps.iter().zip(self.plan.steps())).map(|(step, (record, (call, _)))| (step, record, call))
    }

    /// Returns until when a step, counted from 0, may begin.
    pub(crate) fn begin_until(&self, step: u32) -> Timestamp {
        let before = step.checked_sub(1).and_then(|before| self.steps.get(index(before)));
        let finished_at = before.and_then(|before| before.finished_at);
        finished_at.map_or(self.plan.expires_at, |at| at.plus(STEP_WINDOW).max(self.plan.expires_at))
    }

    /// Returns the time of the last end of a step.
    pub(crate) fn finished_at(&self) -> Option<Timestamp> {
        self.steps.iter().filter_map(|step| step.finished_at).max()
    }

    /// Refuses a step unless all before it were applied and none is being undone.
    pub(crate) fn check_order(&self, step: u32) -> Result<(), Refusal> {
        let before = self.numbered().take_while(|(number, ..)| *number < step);
        for (number, known, _) in before {
            if known.executed != Some(Outcome::Applied) || known.undo_started.is_some() {
                let (this, before) = (u64::from(step) + 1, u64::from(number) + 1);
                let detail = format!("step {this} follows step {before}, which is not applied, or is undone");
                return Err((RefusalCode::Invalid, detail));
            }
        }
        Ok(())
    }

    /// Refuses the undo of a step while a later one is not undone.
    pub(crate) fn check_undo_order(&self, step: u32) -> Result<(), Refusal> {
        let later = self.numbered().zip(self.plan.steps()).filter(|((number, ..), _)| *number > step);
        for ((number, known, _), (_, dry_run)) in later {
            let number = u64::from(number) + 1;
            let refused = match known.executed {
                None if known.started_at.is_none() => continue,
                None => (RefusalCode::Busy, format!("step {number} has begun and not ended")),
                Some(Outcome::NotApplied) => continue,
                Some(Outcome::Unknown) => (
                    RefusalCode::Invalid,
                    format!("it is unknown whether step {number} was applied; a person must check"),
                ),
                Some(Outcome::Applied) if dry_run.undo.is_none() || known.undone == Some(Outcome::Applied) => continue,
                Some(Outcome::Applied) => (
                    RefusalCode::Invalid,
                    format!("steps are undone in reverse order, and step {number} is not undone"),
                ),
            };
            return Err(refused);
        }
        Ok(())
    }
}

/// The place of a step in a list.
pub(crate) fn index(step: u32) -> usize {
    usize::try_from(step).unwrap_or(usize::MAX)
}
