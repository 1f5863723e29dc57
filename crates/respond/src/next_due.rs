//! When an incident has a next step by itself: nothing has to look at each of thousands all the time.

use wardroom_domain::IncidentState;

use crate::Config;
use crate::due::Due;
use crate::workflow::Workflow;

impl Workflow {
    /// Returns when [`Workflow::next`] returns another step than [`Step::Wait`](crate::Step::Wait), as long as the
    /// workflow stays as it is.
    pub fn due(&self, config: &Config) -> Due {
        let expires_at = self.plan.as_ref().map(|plan| plan.expires_at);
        let expiry = Due { at: expires_at.filter(|_| self.state == IncidentState::AwaitingApproval), ..Due::NEVER };
        let next = match self.state {
            IncidentState::Open => Due::AT_ONCE,
            // A diagnosis waits for its checks and dry runs.
            _ if self.pending.is_some() => Due::NEVER,
            IncidentState::Investigating => self.settle_due(config),
            IncidentState::AwaitingApproval | IncidentState::Escalated => {
                Due { watermark_ms: self.review_due_ms(config), ..Due::NEVER }
            }
            IncidentState::Verifying | IncidentState::Mitigated if self.undoing.is_none() => Due::AT_ONCE,
            IncidentState::Mitigating
            | IncidentState::Verifying
            | IncidentState::Mitigated
            | IncidentState::Resolved
            | IncidentState::Suppressed
            | IncidentState::Closed => Due::NEVER,
        };
        expiry.or(next)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use wardroom_domain::{Diagnosis, DryRun, Incident, Plan, Severity, TenantId, Timestamp, ToolCall};

    use super::*;
    use crate::Step;
    use crate::pending::PendingPlan;

    fn plan(expires_at: Timestamp) -> Plan {
        Plan {
            version: 1,
            tenant: TenantId::main(),
            incident: "k".into(),
            call: ToolCall {
                tool: "process".into(),
                operation: "restart".into(),
                target: "a".into(),
                arguments: Default::default(),
            },
            dry_run: DryRun {
                diff: String::new(),
                blast_radius: String::new(),
                affected: None,
                risk: "low".into(),
                reversible: false,
                precondition: "1".into(),
                undo: None,
            },
            further_steps: Vec::new(),
            runbook: "r".into(),
            control: "none".into(),
            expires_at,
        }
    }

    /// Times in ms around the others, so that each comes before and after each.
    fn any_ms() -> impl Strategy<Value = i64> {
        (0_i64..40, 0_i64..10_000).prop_map(|(tens, ms)| tens * 10_000 + ms)
    }

    prop_compose! {
        fn any_workflow()(
            state in proptest::sample::select(IncidentState::ALL.to_vec()),
            (opened_ms, interval_ms) in (any_ms(), 0_i64..90_000),
            stored_ms in proptest::option::of(any_ms()),
            expires_ms in proptest::option::of(any_ms()),
            investigated_ms in proptest::option::of(any_ms()),
            investigations in proptest::sample::select(vec![0_u32, 1, 99, 100, 5000]),
            evidence in 0_u32..2,
            (is_pending, is_undoing) in (any::<bool>(), any::<bool>()),
        ) -> Workflow {
            let opened_at = Timestamp::from_millis(opened_ms);
            let incident = Incident { key: "k".into(), opened_at, interval_ms, ..Incident::default() };
            let diagnosis =
                Diagnosis { causes: vec![], evidence: vec![], severity: Severity::High, impact: String::new() };
            let pending = PendingPlan {
                diagnosis, call: None, further_calls: vec![], dry_runs: Default::default(), reads: vec![],
                choices: vec![], runbook: "r".into(), control: "none".into(), watched: vec![], number: 0,
            };
            Workflow {
                state,
                stored_at: stored_ms.map(Timestamp::from_millis),
                plan: expires_ms.map(|at| plan(Timestamp::from_millis(at))),
                investigated_ms,
                investigations,
                evidence,
                pending: is_pending.then_some(pending),
                undoing: is_undoing.then(|| "it did not help".to_owned()),
                ..Workflow::new(incident)
            }
        }
    }

    proptest! {
        /// Nothing is looked at in vain, and nothing is missed: a step is due exactly when there is one.
        #[test]
        fn a_step_is_due_exactly_when_there_is_one(
            workflow in any_workflow(),
            at_ms in any_ms(),
            watermark_ms in prop_oneof![any_ms(), Just(i64::MIN), Just(i64::MAX)],
        ) {
            let (config, now) = (Config::default(), Timestamp::from_millis(at_ms));
            let due = workflow.due(&config);
            let has_step = workflow.next(now, watermark_ms, &config) != Step::Wait;
            prop_assert_eq!(due.is_past(now, watermark_ms), has_step, "{:?}", due);
            // At the very moment, and not before it.
            if let Some(at) = due.at.filter(|at| *at > Timestamp::from_millis(0)) {
                prop_assert_ne!(workflow.next(at, i64::MIN, &config), Step::Wait);
                let before = at.minus(Duration::from_nanos(1));
                prop_assert_eq!(workflow.next(before, i64::MIN, &config), Step::Wait);
            }
            if let Some(due_ms) = due.watermark_ms {
                let early = Timestamp::from_millis(-1);
                prop_assert_ne!(workflow.next(early, due_ms, &config), Step::Wait);
                if due.at.is_none_or(|at| at > early) {
                    prop_assert_eq!(workflow.next(early, due_ms - 1, &config), Step::Wait);
                }
            }
        }
    }
}
