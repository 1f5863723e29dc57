//! The steps of an approved plan: which one is next, and what is undone when one fails.
//!
//! ```text
//! step 1 applied ─► step 2 applied ─► verification ─── did not help ──► undo 2 ─► undo 1 ─► escalated
//!                └► step 2 not applied ─► undo 1 ─► escalated
//!                └► step 2 unknown ─► escalated: a person must check; nothing is undone beneath it
//! ```
//!
//! Each step and each undo is an effect of its own, written with the end of the one before. A step without an undo has
//! nothing to take back and is passed over; an undo that does not succeed ends the sequence.

use wardroom_domain::{IncidentState, Outcome};

use crate::effect::EffectRequest;
use crate::step_result::StepResult;
use crate::workflow::Workflow;

/// What follows from the end of a step or of its undo.
#[derive(Clone, Debug, PartialEq)]
pub enum StepProgress {
    /// Nothing waits for it any more.
    Nothing,
    /// This effect is next; the caller saves the workflow with it.
    Next(Box<EffectRequest>),
    /// The execution has ended.
    Executed {
        /// Outcome of the plan.
        outcome: Outcome,
        /// Details of the steps.
        detail: String,
    },
    /// The undo after a failed verification has ended.
    Undone {
        /// Outcome of the undo of all steps.
        undo: Outcome,
        /// Why verification failed, and why the undo did, if it did.
        reason: String,
    },
}

impl Workflow {
    /// Returns the step that is executed next or now, counted from 0.
    pub(crate) fn current_step(&self) -> u32 {
        u32::try_from(self.steps.len()).unwrap_or(u32::MAX)
    }

    /// Takes the end of the execution of a step, counted from 0.
    pub fn step_executed(&mut self, step: u32, outcome: Outcome, detail: String) -> StepProgress {
        let count = self.plan.as_ref().map_or(0, wardroom_domain::Plan::step_count);
        let is_current =
            self.state == IncidentState::Mitigating && self.undoing.is_none() && step == self.current_step();
        if !is_current {
            return StepProgress::Nothing;
        }
        if count < 2 {
            return StepProgress::Executed { outcome, detail };
        }
        self.steps.push(StepResult { outcome, detail, undo: None });
        match outcome {
            Outcome::Applied if self.steps.len() < count => match self.execution() {
                Some(next) => StepProgress::Next(Box::new(next)),
                None => StepProgress::Nothing,
            },
            Outcome::Applied | Outcome::Unknown => StepProgress::Executed { outcome, detail: self.describe_steps() },
            Outcome::NotApplied => {
                let failed = self.describe_failed_step(step);
                match self.request_undo(&failed) {
                    Some(undo) => StepProgress::Next(Box::new(undo)),
                    None => StepProgress::Executed { outcome, detail: self.describe_steps() },
                }
            }
        }
    }

    /// Takes the end of the undo of a step, counted from 0.
    pub fn step_undone(&mut self, step: u32, outcome: Outcome, detail: &str) -> StepProgress {
        let Some(reason) = self.undoing.clone().filter(|_| self.next_undo() == Some(step)) else {
            return StepProgress::Nothing;
        };
        let index = usize::try_from(step).unwrap_or(usize::MAX);
        if let Some(result) = self.steps.get_mut(index) {
            result.undo = Some(outcome);
            if outcome == Outcome::Applied
                && let Some(next) = self.undo_request()
            {
                return StepProgress::Next(Box::new(next));
            }
        }
        if self.state == IncidentState::Mitigating {
            let (outcome, detail) = (Outcome::NotApplied, self.describe_steps());
            return StepProgress::Executed { outcome, detail };
        }
        let of_step = if self.steps.is_empty() { String::new() } else { format!("undo of step {}: ", index + 1) };
        let reason = match outcome {
            Outcome::Applied => reason,
            Outcome::NotApplied | Outcome::Unknown => format!("{reason}; {of_step}{detail}"),
        };
        StepProgress::Undone { undo: outcome, reason }
    }

    /// Notes why what was done is undone, and returns the undo of the last step that has one; `None` if none has, so
    /// that the failure can be applied at once.
    pub fn request_undo(&mut self, reason: &str) -> Option<EffectRequest> {
        let request = self.undo_request()?;
        self.undoing = Some(reason.to_owned());
        Some(request)
    }

    /// Returns the step that is undone next or now, counted from 0: the last one that was applied, has an undo, and is
    /// not undone.
    pub(crate) fn next_undo(&self) -> Option<u32> {
        let plan = self.plan.as_ref()?;
        if plan.step_count() < 2 {
            return plan.dry_run.undo.as_ref().map(|_| 0);
        }
        let open = (0_u32..).zip(self.steps.iter().zip(plan.steps())).filter(|(_, (result, (_, dry_run)))| {
            result.outcome == Outcome::Applied && result.undo.is_none() && dry_run.undo.is_some()
        });
        open.map(|(step, _)| step).last()
    }

    /// Returns the outcome of the undo of a plan of several steps, as far as anything was undone.
    pub(crate) fn undo_outcome(&self) -> Option<Outcome> {
        let undone = self.steps.iter().filter_map(|result| result.undo);
        let (mut any, mut failed) = (None, None);
        for outcome in undone {
            any = Some(outcome);
            if outcome != Outcome::Applied {
                failed = Some(outcome);
            }
        }
        failed.or(any)
    }

    fn describe_failed_step(&self, step: u32) -> String {
        let name = self.plan.as_ref().map(|plan| plan.describe_step(step)).unwrap_or_default();
        let detail = self.steps.last().map(|result| result.detail.as_str()).unwrap_or_default();
        format!("{name}: not applied: {detail}")
    }

    /// What came of the steps, one line.
    fn describe_steps(&self) -> String {
        let ended = (1..).zip(&self.steps).map(|(number, StepResult { outcome, detail, undo })| {
            let undone = undo.map(|undo| format!(", undo {}", undo.as_str())).unwrap_or_default();
            format!("step {number} {}: {detail}{undone}", outcome.as_str())
        });
        ended.collect::<Vec<_>>().join("; ")
    }
}
