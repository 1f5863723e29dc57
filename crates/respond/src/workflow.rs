//! One incident's way from open to settled.

use serde::{Deserialize, Serialize};
use wardroom_domain::{Approval, Diagnosis, Incident, IncidentState, Outcome, Plan, Timestamp};

use crate::{Config, Watched};

/// Everything the response remembers of one incident; persisted as JSON, format version 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workflow {
    /// Format version.
    pub version: u8,
    /// What opened it.
    pub incident: Incident,
    /// Where it stands.
    pub state: IncidentState,
    /// Why, as far as known.
    pub diagnosis: Option<Diagnosis>,
    /// What is proposed.
    pub plan: Option<Plan>,
    /// Its hash.
    pub plan_sha256: Option<String>,
    /// What has to become good again.
    pub watched: Vec<Watched>,
    /// Who said yes.
    pub approval: Option<Approval>,
    /// How the execution ended.
    pub execution: Option<Outcome>,
    /// How the undo ended, if there was one.
    pub undo: Option<Outcome>,
    /// How it all ended: `resolved`, `inconclusive`, `escalated`, `rejected`, `noise`.
    pub outcome: Option<String>,
    /// A person's judgement: `real`, `noise` or `wrong_cause`, and the right cause.
    pub verdict: Option<(String, Option<String>)>,
    /// The telemetry's own time when it opened, in ms: diagnosis waits from there.
    pub opened_ms: i64,
    /// The telemetry's own time when the action was done, in ms.
    pub executed_ms: Option<i64>,
    /// The telemetry's own time when it was good, in ms.
    pub mitigated_ms: Option<i64>,
    /// The telemetry's own time when it was settled, in ms.
    pub settled_ms: Option<i64>,
}

/// What to do about an incident now. Asking twice gives the same answer and does no harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing to do yet, or ever again.
    Wait,
    /// Take it up: move to `investigating`.
    TakeUp,
    /// Diagnose, find a runbook, dry-run its action, propose.
    Investigate,
    /// Ask the executor whether a person's approval reached it (it may have, before a crash).
    AwaitApproval,
    /// The plan expired.
    Expire,
    /// Have the executor carry the plan out.
    Execute,
    /// Judge the telemetry since the action.
    Verify,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// It was taken up.
    TakenUp,
    /// A plan is proposed.
    Proposed {
        /// The answer.
        diagnosis: Diagnosis,
        /// The plan.
        plan: Box<Plan>,
        /// What has to become good.
        watched: Vec<Watched>,
    },
    /// There is nothing to propose.
    NoPlan {
        /// The answer.
        diagnosis: Diagnosis,
        /// Why not.
        reason: String,
    },
    /// A person said yes and the executor has the proof.
    Approved(Approval),
    /// A person said no.
    Rejected(String),
    /// Nobody said anything in time.
    Expired,
    /// The executor is done.
    Executed {
        /// How it ended.
        outcome: Outcome,
        /// The target's words.
        detail: String,
        /// Telemetry's time, in ms.
        at_ms: i64,
        /// Everything that was bad at that moment.
        watched: Vec<Watched>,
    },
    /// Twenty good samples of everything.
    Good(i64),
    /// The hold passed.
    Held(i64),
    /// It did not help, or cannot be said to have helped.
    NotHelped {
        /// How the undo ended, if there is one.
        undo: Option<Outcome>,
        /// Why.
        reason: String,
        /// Telemetry's time, in ms.
        at_ms: i64,
    },
    /// A person says that this was noise.
    Noise(i64),
    /// A person is done with it.
    Closed,
}

/// One move of the transition table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// From.
    pub from: IncidentState,
    /// To.
    pub to: IncidentState,
    /// One line for a person.
    pub note: String,
}

/// An event that does not fit where the incident stands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an incident that is {state} cannot take this in: {event}")]
pub struct WorkflowError {
    state: IncidentState,
    event: String,
}

/// A persisted workflow that this build cannot use.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// Written by a newer build.
    #[error("the workflow has format {0}; this build reads up to {FORMAT}: run the newer Wardroom")]
    Newer(u64),
    /// Not what was written.
    #[error("the workflow is damaged: {0}")]
    Damaged(#[from] serde_json::Error),
}

/// The format this build writes.
const FORMAT: u8 = 1;

impl Workflow {
    /// Reads what was persisted, of this format or an older one.
    ///
    /// # Errors
    /// See [`Unreadable`].
    pub fn read(text: &str) -> Result<Self, Unreadable> {
        let document: serde_json::Value = serde_json::from_str(text)?;
        match document["version"].as_u64() {
            Some(version) if version > u64::from(FORMAT) => Err(Unreadable::Newer(version)),
            _ => Ok(serde_json::from_value(document)?),
        }
    }

    /// A fresh one.
    pub fn new(incident: Incident) -> Self {
        let opened_ms = incident.opened_at.millis();
        Self {
            version: FORMAT,
            incident,
            state: IncidentState::Open,
            diagnosis: None,
            plan: None,
            plan_sha256: None,
            watched: Vec::new(),
            approval: None,
            execution: None,
            undo: None,
            outcome: None,
            verdict: None,
            opened_ms,
            executed_ms: None,
            mitigated_ms: None,
            settled_ms: None,
        }
    }

    /// What to do now. `now` is the wall clock (for expiry), `watermark_ms` the telemetry's time.
    pub fn next(&self, now: Timestamp, watermark_ms: i64, config: &Config) -> Effect {
        let settled = watermark_ms >= self.opened_ms + (config.settle_seconds * 1000.0) as i64;
        match self.state {
            IncidentState::Open => Effect::TakeUp,
            IncidentState::Investigating if settled => Effect::Investigate,
            IncidentState::AwaitingApproval if self.plan.as_ref().is_some_and(|plan| plan.expires_at <= now) => {
                Effect::Expire
            }
            IncidentState::AwaitingApproval => Effect::AwaitApproval,
            IncidentState::Mitigating => Effect::Execute,
            IncidentState::Verifying | IncidentState::Mitigated => Effect::Verify,
            IncidentState::Investigating
            | IncidentState::Resolved
            | IncidentState::Suppressed
            | IncidentState::Escalated
            | IncidentState::Closed => Effect::Wait,
        }
    }

    /// Takes an event in and says which move that is.
    ///
    /// # Errors
    /// The event does not fit the state; nothing has changed.
    pub fn apply(&mut self, event: Event) -> Result<Move, WorkflowError> {
        let from = self.state;
        let (to, note) = destination(from, &event)
            .filter(|(to, _)| from.may_become(*to))
            .ok_or_else(|| WorkflowError { state: from, event: format!("{event:?}") })?;
        match event {
            Event::TakenUp | Event::Closed => {}
            Event::Proposed { diagnosis, plan, watched } => {
                self.diagnosis = Some(diagnosis);
                self.plan_sha256 = plan.sha256().ok();
                self.plan = Some(*plan);
                self.watched = watched;
            }
            Event::NoPlan { diagnosis, .. } => {
                self.diagnosis = Some(diagnosis);
                self.outcome = Some("escalated".into());
            }
            Event::Approved(approval) => self.approval = Some(approval),
            Event::Rejected(_) => self.outcome = Some("rejected".into()),
            Event::Expired => self.outcome = Some("escalated".into()),
            Event::Executed { outcome, at_ms, watched, .. } => {
                self.execution = Some(outcome);
                self.executed_ms = Some(at_ms);
                for signal in watched {
                    if !self.watched.iter().any(|known| known.signal == signal.signal) {
                        self.watched.push(signal);
                    }
                }
                if to == IncidentState::Escalated {
                    self.outcome = Some("escalated".into());
                }
            }
            Event::Good(at_ms) => self.mitigated_ms = Some(at_ms),
            Event::Held(at_ms) => {
                self.settled_ms = Some(at_ms);
                self.outcome = Some("resolved".into());
            }
            Event::NotHelped { undo, .. } => {
                self.undo = undo;
                self.outcome = Some("inconclusive".into());
            }
            Event::Noise(at_ms) => {
                self.settled_ms = Some(at_ms);
                self.outcome = Some("noise".into());
            }
        }
        self.state = to;
        Ok(Move { from, to, note })
    }
}

/// Where an event leads from a state, and the line that history gets.
fn destination(from: IncidentState, event: &Event) -> Option<(IncidentState, String)> {
    use IncidentState as S;
    // Each event belongs to one place of the way; anywhere else it is an error, whatever the table allows.
    let found = match (from, event) {
        (S::Open, Event::TakenUp) => (S::Investigating, "gathering evidence".to_owned()),
        (S::Investigating, Event::Proposed { plan, .. }) => {
            let call = &plan.call;
            (S::AwaitingApproval, format!("proposed {} {} of {}", call.tool, call.operation, call.target))
        }
        (S::Investigating, Event::NoPlan { reason, .. }) => (S::Escalated, reason.clone()),
        (S::AwaitingApproval, Event::Approved(approval)) => {
            (S::Mitigating, format!("approved by {}", approval.principal))
        }
        (S::AwaitingApproval, Event::Rejected(reason)) => (S::Escalated, format!("rejected: {reason}")),
        (S::AwaitingApproval, Event::Expired) => (S::Escalated, "nobody approved in time".to_owned()),
        (S::Mitigating, Event::Executed { outcome: Outcome::Applied, detail, .. }) => {
            (S::Verifying, format!("executed: {detail}"))
        }
        (S::Mitigating, Event::Executed { outcome, detail, .. }) => {
            (S::Escalated, format!("execution {}: {detail}", outcome.as_str()))
        }
        (S::Verifying, Event::Good(_)) => (S::Mitigated, "every watched signal is good again".to_owned()),
        (S::Mitigated, Event::Held(_)) => (S::Resolved, "it stayed good for the whole hold".to_owned()),
        (S::Verifying | S::Mitigated, Event::NotHelped { undo, reason, .. }) => {
            let undone = undo.map_or_else(|| "nothing to undo".to_owned(), |undo| format!("undo {}", undo.as_str()));
            (S::Escalated, format!("inconclusive: {reason}; {undone}"))
        }
        (S::Escalated | S::AwaitingApproval, Event::Noise(_)) => {
            (S::Suppressed, "a person says this was noise".to_owned())
        }
        (S::Escalated, Event::Closed) => (S::Closed, "closed by a person".to_owned()),
        _ => return None,
    };
    Some(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wardroom_domain::{DryRun, Principal, Severity, TenantId, ToolCall};

    use super::*;

    fn workflow() -> Workflow {
        let at = Timestamp::from_millis(1000);
        Workflow::new(Incident {
            key: "k".into(),
            tenant: TenantId::main(),
            title: "t".into(),
            severity: Severity::High,
            services: vec!["a".into()],
            trigger: "sustained_breach".into(),
            began_at: at,
            opened_at: at,
        })
    }

    fn diagnosis() -> Diagnosis {
        Diagnosis { causes: vec![], evidence: vec![], severity: Severity::High, impact: String::new() }
    }

    fn plan() -> Plan {
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
                risk: "low".into(),
                reversible: false,
                precondition: "1".into(),
                undo: None,
            },
            runbook: "r".into(),
            control: "none".into(),
            expires_at: Timestamp::from_millis(5000),
        }
    }

    fn approval() -> Approval {
        Approval {
            principal: Principal::wardroom(),
            at: Timestamp::from_millis(1),
            channel: "http".into(),
            plan_sha256: String::new(),
            reason: String::new(),
        }
    }

    fn event(pick: u8) -> Event {
        let executed = |outcome| Event::Executed { outcome, detail: String::new(), at_ms: 7, watched: vec![] };
        match pick {
            0 => Event::TakenUp,
            1 => Event::Proposed { diagnosis: diagnosis(), plan: Box::new(plan()), watched: vec![] },
            2 => Event::NoPlan { diagnosis: diagnosis(), reason: "x".into() },
            3 => Event::Approved(approval()),
            4 => Event::Rejected("x".into()),
            5 => Event::Expired,
            6 => executed(Outcome::Applied),
            7 => executed(Outcome::Unknown),
            8 => Event::Good(8),
            9 => Event::Held(9),
            10 => Event::NotHelped { undo: None, reason: "x".into(), at_ms: 9 },
            11 => Event::Noise(9),
            _ => Event::Closed,
        }
    }

    proptest! {
        /// Whatever happens in whatever order: only moves of the table, and nothing is executed unapproved.
        #[test]
        fn only_the_table_and_never_without_approval(picks in prop::collection::vec(0_u8..13, 0..40)) {
            let mut workflow = workflow();
            for pick in picks {
                let before = workflow.clone();
                match workflow.apply(event(pick)) {
                    Ok(step) => prop_assert!(step.from == before.state && step.from.may_become(step.to)),
                    Err(_) => prop_assert_eq!(&workflow, &before),
                }
                prop_assert!(workflow.execution.is_none() || workflow.approval.is_some());
                let back: Workflow = serde_json::from_str(&serde_json::to_string(&workflow).unwrap()).unwrap();
                prop_assert_eq!(back, workflow.clone());
            }
        }
    }

    /// A workflow of every format version ever released stays readable, and means the same.
    #[test]
    fn version_1_stays_readable() {
        let text = include_str!("../tests/formats/workflow-v1.json");
        let workflow = Workflow::read(text).unwrap();
        assert_eq!((workflow.state, workflow.outcome.as_deref()), (IncidentState::Resolved, Some("resolved")));
        assert_eq!(workflow.plan.as_ref().unwrap().sha256().ok(), workflow.plan_sha256);
        assert_eq!(serde_json::to_value(&workflow).unwrap(), serde_json::from_str::<serde_json::Value>(text).unwrap());
        let newer = text.replacen("\"version\":1", "\"version\":2", 1);
        assert!(Workflow::read(&newer).unwrap_err().to_string().contains("newer Wardroom"));
        assert!(matches!(Workflow::read("{"), Err(Unreadable::Damaged(_))));
    }

    #[test]
    fn every_unsettled_state_has_something_to_do_or_wait_for() {
        let mut workflow = workflow();
        let now = Timestamp::from_millis(2000);
        let ask = |workflow: &Workflow, watermark| workflow.next(now, watermark, &Config::default());
        assert_eq!(ask(&workflow, 1000), Effect::TakeUp);
        workflow.apply(event(0)).unwrap();
        assert_eq!(ask(&workflow, 1000), Effect::Wait, "the evidence is still coming in");
        assert_eq!(ask(&workflow, 3000), Effect::Investigate);
        workflow.apply(event(1)).unwrap();
        assert_eq!(ask(&workflow, 3000), Effect::AwaitApproval);
        assert_eq!(workflow.next(Timestamp::from_millis(6000), 3000, &Config::default()), Effect::Expire);
        workflow.apply(event(3)).unwrap();
        assert_eq!(ask(&workflow, 3000), Effect::Execute);
        workflow.apply(event(6)).unwrap();
        assert_eq!(ask(&workflow, 3000), Effect::Verify);
        workflow.apply(event(8)).unwrap();
        assert_eq!(ask(&workflow, 3000), Effect::Verify);
        workflow.apply(event(9)).unwrap();
        assert_eq!(ask(&workflow, 3000), Effect::Wait);
    }
}
