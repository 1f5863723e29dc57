//! What a reopened incident forgets: the response that has ended. It is diagnosed again, and may get another plan.
//!
//! What happened is in the history, in the audit log and in what is kept of its end; the incident keeps its entities,
//! its comments and its diagnosis until the next one. A verdict that it was noise is taken back with the state that it
//! led to.

use wardroom_domain::{IncidentState, Timestamp};

use crate::workflow::Workflow;

impl Workflow {
    /// Begins the response again, at a telemetry time in ms and a wall time. The state is the caller's to change.
    pub(crate) fn begin_again(&mut self, at_ms: i64, at: Timestamp) {
        let ended = self.clone();
        let verdict = ended.verdict.filter(|_| ended.state != IncidentState::Suppressed);
        *self = Self {
            state: ended.state,
            diagnosis: ended.diagnosis,
            verdict,
            reopened: ended.reopened.saturating_add(1),
            home: ended.home,
            // Ids of effects have the number of the diagnosis.
            investigations: ended.investigations,
            evidence: ended.evidence,
            investigated_evidence: ended.evidence,
            opened_ms: at_ms,
            stored_at: Some(at),
            ..Self::new(ended.incident)
        };
    }
}

#[cfg(test)]
mod tests {
    use wardroom_domain::{Incident, Outcome, Principal, TenantId};

    use super::*;
    use crate::event::Event;
    use crate::workflow::Step;
    use crate::{Config, WorkflowError};

    fn ended(state: IncidentState) -> Workflow {
        let incident = Incident { key: "k".into(), tenant: TenantId::main(), ..Incident::default() };
        let mut workflow = Workflow::new(incident);
        workflow.state = state;
        (workflow.investigations, workflow.evidence, workflow.home) = (3, 2, Some("home".into()));
        (workflow.execution, workflow.helped, workflow.outcome) =
            (Some(Outcome::Applied), Some(true), Some("resolved".into()));
        (workflow.settled_ms, workflow.investigated_ms) = (Some(9000), Some(2000));
        workflow.verdict = Some(("noise".into(), None));
        workflow.incident.record(Timestamp::from_millis(0), "acknowledged by ann");
        workflow
    }

    fn reopen(workflow: &mut Workflow) -> Result<String, WorkflowError> {
        let (by, at) = (Principal::new("ann").unwrap(), Timestamp::from_millis(70_000));
        let event = Event::Reopened { by, reason: "it is back".into(), at_ms: 60_000, at };
        workflow.apply(event).map(|change| change.note)
    }

    #[test]
    fn what_has_ended_is_investigated_again_and_keeps_its_past() {
        for state in IncidentState::ALL {
            let mut workflow = ended(state);
            let is_over = matches!(state, IncidentState::Resolved | IncidentState::Suppressed | IncidentState::Closed);
            let reopened = reopen(&mut workflow);
            if !is_over {
                let expected = format!("an incident that is {state} does not allow reopening");
                assert_eq!(reopened.unwrap_err().to_string(), expected);
                assert_eq!(workflow, ended(state), "unchanged");
                continue;
            }
            assert_eq!(reopened.unwrap(), "reopened by ann: it is back");
            assert_eq!(workflow.state, IncidentState::Investigating);
            assert_eq!((workflow.investigations, workflow.home.as_deref(), workflow.reopened), (3, Some("home"), 1));
            assert_eq!((workflow.execution, workflow.helped, workflow.settled_ms), (None, None, None));
            assert_eq!((&workflow.outcome, &workflow.plan, &workflow.approval), (&None, &None, &None));
            assert_eq!(workflow.incident.history.len(), 1);
            assert_eq!(workflow.verdict.is_some(), state != IncidentState::Suppressed, "{state}");
            let (config, at) = (Config::default(), Timestamp::from_millis(70_000));
            assert_eq!(workflow.next(at, 60_000, &config), Step::Wait, "evidence is still arriving");
            assert_eq!(workflow.next(at, 62_000, &config), Step::Investigate);
        }
    }

    #[test]
    fn without_telemetry_the_wall_clock_ends_the_wait() {
        let mut workflow = ended(IncidentState::Closed);
        reopen(&mut workflow).unwrap();
        let later = Timestamp::from_millis(76_000);
        assert_eq!(workflow.next(later, 60_000, &Config::default()), Step::Investigate);
    }
}
