//! Splits an incident: some of its entities become another one.
//!
//! Both keep a history that names the other. What was prepared for the whole is dropped, and both are diagnosed; a plan
//! that is about an entity of the other one is void at once, so that no person approves it meanwhile. An incident whose
//! plan is being carried out or verified is not split: what is watched belongs to that action.

use wardroom_domain::incident::incident_key;
use wardroom_domain::{Entity, Incident, IncidentState, Plan, Principal, SignalId, Timestamp};

use crate::effect::EffectKind;
use crate::event::Event;
use crate::workflow::{StateChange, Workflow};

/// What a person splits off an incident.
#[derive(Clone, Copy, Debug)]
pub struct SplitOff<'a> {
    /// The entities of the new incident.
    pub entities: &'a [Entity],
    /// Its title; made from the entities if `None`.
    pub title: Option<&'a str>,
    /// Id of the incident that is split.
    pub from_id: &'a str,
    /// Id of the new incident.
    pub new_id: &'a str,
    /// The person.
    pub by: &'a Principal,
    /// Their reason; may be empty.
    pub reason: &'a str,
    /// Telemetry time, in ms.
    pub at_ms: i64,
    /// Wall time.
    pub at: Timestamp,
}

/// What a split leads to.
#[derive(Clone, Debug, PartialEq)]
pub struct SplitPart {
    /// The new incident.
    pub incident: Incident,
    /// The change of the state of the incident that was split, if its plan is void.
    pub change: Option<StateChange>,
    /// Kinds of its effects that are no longer wanted.
    pub cancelled: Vec<EffectKind>,
}

/// Why an incident is not split.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// Its state does not allow it.
    #[error("an incident that is {0} cannot be split; wait for the end of its action, or reopen one that has ended")]
    State(IncidentState),
    /// Nothing is split off.
    #[error("name at least one entity of the incident")]
    Nothing,
    /// Nothing would be left.
    #[error("at least one entity must stay; these are all")]
    Everything,
    /// It does not have this entity.
    #[error("{0} is no entity of the incident")]
    Unknown(Entity),
}

impl Workflow {
    /// Splits entities off. The caller saves both incidents in one transaction.
    ///
    /// # Errors
    /// See [`SplitError`]; the workflow is unchanged then.
    pub fn split(&mut self, part: &SplitOff<'_>) -> Result<SplitPart, SplitError> {
        self.check_split(part.entities)?;
        let names = part.entities.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let because = if part.reason.is_empty() { String::new() } else { format!(": {}", part.reason) };
        let mut incident = self.new_part(part, &names);
        incident.record(part.at, format!("split from {} by {}{because}", part.from_id, part.by));
        self.incident.remove_entities(part.entities);
        self.rename_rest(part);
        self.incident.record(part.at, format!("{names} split off as {} by {}{because}", part.new_id, part.by));
        // What is left is diagnosed again.
        self.evidence = self.evidence.saturating_add(1);
        self.pending = None;
        let is_touched = self.is_plan_about(part.entities);
        self.watched.retain(|watched| {
            SignalId::from_labels(&watched.signal).is_none_or(|signal| !part.entities.contains(&signal.entity))
        });
        let change = self.diagnosis.clone().filter(|_| is_touched).and_then(|diagnosis| {
            let reason = format!("it is about {names}, which became {}", part.new_id);
            self.apply(Event::PlanVoided { diagnosis, reason }).ok()
        });
        let unwanted = vec![EffectKind::Read, EffectKind::DryRun];
        let cancelled = change.as_ref().map_or(unwanted, |change| change.cancelled.clone());
        Ok(SplitPart { incident, change, cancelled })
    }

    fn check_split(&self, entities: &[Entity]) -> Result<(), SplitError> {
        use IncidentState as S;
        if !matches!(self.state, S::Open | S::Investigating | S::AwaitingApproval | S::Escalated) {
            return Err(SplitError::State(self.state));
        }
        let affected = self.incident.affected();
        if let Some(unknown) = entities.iter().find(|entity| !affected.contains(entity)) {
            return Err(SplitError::Unknown(unknown.clone()));
        }
        if entities.is_empty() {
            return Err(SplitError::Nothing);
        }
        if affected.iter().all(|entity| entities.contains(entity)) {
            return Err(SplitError::Everything);
        }
        Ok(())
    }

    /// The incident of the entities that are split off.
    fn new_part(&self, part: &SplitOff<'_>, names: &str) -> Incident {
        let whole = &self.incident;
        let made_title = || {
            if is_about(&whole.title, part.entities) {
                whole.title.clone()
            } else {
                format!("{names}: split from {}", part.from_id)
            }
        };
        let kinds =
            part.entities.iter().map(|entity| format!("{}:{entity}", entity.kind)).collect::<Vec<_>>().join(",");
        let signal = format!("split\n{}\n{kinds}\n{}", whole.key, part.at.nanos());
        let mut incident = Incident {
            key: incident_key(&whole.tenant, &signal, whole.began_at),
            tenant: whole.tenant.clone(),
            title: part.title.map_or_else(made_title, str::to_owned),
            severity: whole.severity,
            trigger: Incident::BY_SPLIT.to_owned(),
            began_at: whole.began_at,
            opened_at: Timestamp::from_millis(part.at_ms),
            interval_ms: whole.interval_ms,
            split_from: Some(whole.key.clone()),
            ..Incident::default()
        };
        for entity in part.entities {
            incident.add_entity(entity);
        }
        incident
    }

    /// Names what is left after an entity of its own, if the title names one that was split off.
    fn rename_rest(&mut self, part: &SplitOff<'_>) {
        let rest = self.incident.affected();
        if let Some(first) = rest.first().filter(|_| is_about(&self.incident.title, part.entities)) {
            self.incident.title = format!("{first}: what is left after the split of {}", part.new_id);
        }
    }

    /// Whether the cause, or the target of a step, of a plan that waits for its approval is one of these entities.
    fn is_plan_about(&self, entities: &[Entity]) -> bool {
        let Some(plan) = self.plan.as_ref().filter(|_| self.state == IncidentState::AwaitingApproval) else {
            return false;
        };
        let cause = self.diagnosis.as_ref().and_then(|diagnosis| diagnosis.best());
        cause.is_some_and(|cause| entities.contains(&cause.entity)) || has_target(plan, entities)
    }
}

/// Whether the title is that of a finding of one of these entities; such titles begin with its name.
fn is_about(title: &str, entities: &[Entity]) -> bool {
    entities.iter().any(|entity| {
        let rest = title.strip_prefix(&entity.to_string());
        rest.is_some_and(|rest| rest.starts_with([':', ',']))
    })
}

fn has_target(plan: &Plan, entities: &[Entity]) -> bool {
    plan.steps().any(|(call, _)| entities.iter().any(|entity| entity.name == call.target))
}

#[cfg(test)]
mod tests {
    use wardroom_domain::{Cause, Diagnosis, DryRun, Severity, SignalKind, TenantId, ToolCall};

    use super::*;
    use crate::WatchedSignal;

    const AT: Timestamp = Timestamp::from_millis(70_000);

    fn whole() -> Workflow {
        let mut incident = Incident {
            key: "k".into(),
            tenant: TenantId::main(),
            title: "cart: slow".into(),
            severity: Severity::High,
            began_at: Timestamp::from_millis(1000),
            interval_ms: 5000,
            ..Incident::default()
        };
        for name in ["cart", "mail", "web"] {
            incident.add_entity(&Entity::service(name));
        }
        let mut workflow = Workflow::new(incident);
        workflow.state = IncidentState::AwaitingApproval;
        let causes = vec![Cause::new(Entity::service("cart"), "connection-leak", 0.9)];
        let (evidence, impact) = (Vec::new(), String::new());
        workflow.diagnosis = Some(Diagnosis { causes, evidence, severity: Severity::High, impact });
        let (tool, operation, target) = ("process".into(), "restart".into(), "cart".into());
        let dry_run = DryRun {
            diff: String::new(),
            blast_radius: String::new(),
            affected: None,
            risk: "low".into(),
            reversible: false,
            precondition: "1".into(),
            undo: None,
        };
        workflow.plan = Some(Plan {
            version: 1,
            tenant: TenantId::main(),
            incident: "k".into(),
            call: ToolCall { tool, operation, target, arguments: serde_json::Map::new() },
            dry_run,
            further_steps: Vec::new(),
            runbook: "r".into(),
            control: "none".into(),
            expires_at: Timestamp::from_millis(90_000),
        });
        workflow.plan_sha256 = workflow.plan.as_ref().and_then(|plan| plan.sha256().ok());
        workflow.watched = ["cart", "mail"].map(watched).to_vec();
        workflow
    }

    fn watched(name: &str) -> WatchedSignal {
        let (entity, resource, metric) = (Entity::service(name), String::new(), "m".to_owned());
        let signal = SignalId { entity, peer: None, kind: SignalKind::Latency, resource, metric }.labels();
        WatchedSignal { signal, expected: 0.1, limit: 0.5, low_is_bad: false, interval_ms: 1000 }
    }

    fn split(workflow: &mut Workflow, names: &[&str]) -> Result<SplitPart, SplitError> {
        let entities: Vec<Entity> = names.iter().map(|name| Entity::service(*name)).collect();
        let by = Principal::new("ann").unwrap();
        workflow.split(&SplitOff {
            entities: &entities,
            title: None,
            from_id: "INC-1",
            new_id: "INC-2",
            by: &by,
            reason: "another fault",
            at_ms: 60_000,
            at: AT,
        })
    }

    fn history(incident: &Incident) -> Vec<&str> {
        incident.history.iter().map(|change| change.text.as_str()).collect()
    }

    #[test]
    fn both_name_the_other_and_a_plan_that_fits_stays() {
        let mut workflow = whole();
        let SplitPart { incident, change, cancelled } = split(&mut workflow, &["mail"]).unwrap();
        assert_eq!(
            (incident.affected(), incident.title.as_str()),
            (vec![Entity::service("mail")], "mail: split from INC-1")
        );
        assert_eq!((incident.split_from.as_deref(), incident.trigger.as_str()), (Some("k"), "split"));
        assert_eq!((incident.began_at, incident.severity), (Timestamp::from_millis(1000), Severity::High));
        assert_eq!(history(&incident), ["split from INC-1 by ann: another fault"]);
        assert_eq!(history(&workflow.incident), ["mail split off as INC-2 by ann: another fault"]);
        assert_eq!(workflow.incident.services, ["cart", "web"]);
        assert_eq!((change, workflow.state), (None, IncidentState::AwaitingApproval));
        assert_eq!(cancelled, [EffectKind::Read, EffectKind::DryRun]);
        assert_eq!(workflow.watched, [watched("cart")], "mail is watched by the other one");
        assert_eq!((workflow.evidence, workflow.investigated_evidence), (1, 0), "it is diagnosed again");
        assert_eq!(workflow.incident.title, "cart: slow");
    }

    #[test]
    fn a_plan_about_what_is_split_off_is_void() {
        let mut workflow = whole();
        let part = split(&mut workflow, &["cart"]).unwrap();
        let change = part.change.unwrap();
        assert_eq!((change.from, change.to), (IncidentState::AwaitingApproval, IncidentState::Investigating));
        assert_eq!(change.note, "the plan is void: it is about cart, which became INC-2");
        assert_eq!((&workflow.plan, &workflow.plan_sha256), (&None, &None));
        assert!(part.cancelled.contains(&EffectKind::Authorization) && part.cancelled.contains(&EffectKind::Probe));
        assert_eq!(part.incident.title, "cart: slow");
        assert_eq!(workflow.incident.title, "mail: what is left after the split of INC-2");
        // The cause is left, but a step acts on what is split off.
        let mut workflow = whole();
        workflow.diagnosis.as_mut().unwrap().causes[0].entity = Entity::service("web");
        assert!(split(&mut workflow, &["cart"]).unwrap().change.is_some());
    }

    #[test]
    fn what_cannot_be_split_is_unchanged() {
        use IncidentState as S;
        for state in [S::Mitigating, S::Verifying, S::Mitigated, S::Resolved, S::Suppressed, S::Closed] {
            let mut workflow = Workflow { state, ..whole() };
            assert_eq!(split(&mut workflow, &["mail"]), Err(SplitError::State(state)));
        }
        let mut workflow = whole();
        assert_eq!(split(&mut workflow, &[]), Err(SplitError::Nothing));
        assert_eq!(split(&mut workflow, &["cart", "mail", "web"]), Err(SplitError::Everything));
        assert_eq!(split(&mut workflow, &["db"]), Err(SplitError::Unknown(Entity::service("db"))));
        assert_eq!(workflow, whole());
    }
}
