//! Which effects an incident wants: those of a change of its state, and those that its state waits for.

#[cfg(test)]
mod tests;

use wardroom_domain::{IncidentState, PolicyAnswer};

use crate::effect::{EffectData, EffectKind, EffectRequest, of_step, resource};
use crate::workflow::Workflow;

impl Workflow {
    /// Returns the effects that a change of the state wants, and the kinds that it ends.
    pub(crate) fn effects_of(
        &mut self,
        from: IncidentState,
        to: IncidentState,
    ) -> (Vec<EffectRequest>, Vec<EffectKind>) {
        let mut effects = Vec::new();
        match to {
            IncidentState::AwaitingApproval => effects.extend(self.authorization()),
            IncidentState::Mitigating => effects.extend(self.execution()),
            _ => {}
        }
        // A plan of several steps may have been carried out in part.
        let was_undoable = is_undoable(from) || from == IncidentState::Mitigating && !self.steps.is_empty();
        if was_undoable && !is_undoable(to) {
            self.undoing = None;
            effects.extend(self.settle_request());
        }
        // A decision about the plan ends what was asked for before it, as does what voids the plan.
        if from != IncidentState::AwaitingApproval && !to.is_settled() {
            return (effects, Vec::new());
        }
        self.pending = None;
        (effects, vec![EffectKind::Read, EffectKind::DryRun, EffectKind::Authorization, EffectKind::Probe])
    }

    /// The execution of the next step of the approved plan; `None` after the last one.
    pub(crate) fn execution(&self) -> Option<EffectRequest> {
        let (plan, plan_sha256, step) = (self.plan.as_ref()?, self.plan_sha256.clone()?, self.current_step());
        let (call, _) = plan.step(step)?;
        let id = of_step(format!("execution:{plan_sha256}"), step);
        Some(EffectRequest::new(id, resource(call), EffectData::Execution { plan_sha256, step }))
    }

    /// The authorization of a plan that the policy permits without a person; `None` if it does not.
    pub(crate) fn authorization(&self) -> Option<EffectRequest> {
        self.policy.as_ref().filter(|decision| decision.answer == PolicyAnswer::Allow)?;
        let plan_sha256 = self.plan_sha256.clone()?;
        let id = format!("authorization:{plan_sha256}");
        Some(EffectRequest::new(id, String::new(), EffectData::Authorization { plan_sha256 }))
    }

    /// The undo of the last step that was carried out and has one; `None` if none has.
    pub(crate) fn undo_request(&self) -> Option<EffectRequest> {
        let (step, (plan_sha256, proof)) = (self.next_undo()?, self.proof_of_undo()?);
        let (call, _) = self.plan.as_ref()?.step(step)?;
        let id = of_step(format!("undo:{plan_sha256}"), step);
        Some(EffectRequest::new(id, resource(call), EffectData::Undo { plan_sha256, step, proof }))
    }

    /// Tells the executor that the plan is not undone any more; `None` if it cannot be.
    pub(crate) fn settle_request(&self) -> Option<EffectRequest> {
        let (plan_sha256, proof) = self.proof_of_undo()?;
        let id = format!("settle:{plan_sha256}");
        Some(EffectRequest::new(id, String::new(), EffectData::Settle { plan_sha256, proof }))
    }

    /// Returns the hash of the plan and the proof of its approval if the plan can be undone. Plans of builds that
    /// stored no secret have an empty proof, which the executor refuses.
    fn proof_of_undo(&self) -> Option<(String, String)> {
        self.plan.as_ref().filter(|plan| plan.has_undo())?;
        Some((self.plan_sha256.clone()?, self.undo_secret.clone().unwrap_or_default()))
    }

    /// Returns the effects that the current state waits for: those of earlier versions have no rows.
    pub fn awaited_effects(&self) -> Vec<EffectRequest> {
        use IncidentState as S;
        let mut awaited = Vec::new();
        match self.state {
            S::Mitigating | S::Verifying | S::Mitigated if self.undoing.is_some() => {
                awaited.extend(self.undo_request());
            }
            S::Mitigating => awaited.extend(self.execution()),
            S::AwaitingApproval if self.approval.is_none() => {
                awaited.extend(self.plan_sha256.as_ref().map(|plan| EffectRequest::probe(plan, "adopted")));
            }
            S::Open
            | S::Investigating
            | S::AwaitingApproval
            | S::Verifying
            | S::Mitigated
            | S::Resolved
            | S::Suppressed
            | S::Escalated
            | S::Closed => {}
        }
        awaited.extend(self.pending.iter().flat_map(|pending| self.pending_requests(pending)));
        awaited
    }
}

/// Whether the action of an incident in this state may be undone.
const fn is_undoable(state: IncidentState) -> bool {
    matches!(state, IncidentState::Verifying | IncidentState::Mitigated)
}
