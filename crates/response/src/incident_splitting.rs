//! Splits of incidents by people: what is split off is stored with the change of the rest, in one transaction.

use serde_json::json;
use wardroom_api::{SplitRequest, SplitView};
use wardroom_domain::audit::AuditEntry;
use wardroom_domain::{Entity, Identity, Timestamp};
use wardroom_edge::Problem;
use wardroom_respond::{SplitError, SplitOff, SplitPart, Workflow};
use wardroom_store::{Changes, IncidentRow, IncidentSplit};

use crate::audit_entry::audit_entry;
use crate::clock;
use crate::decisions::check_revision;
use crate::entity_reference::find_entity;
use crate::incident_changes::new_row;
use crate::incident_views::summary;
use crate::problem_responses::{conflict, store_problem, unreadable_workflow};
use crate::responder::{Responder, finished_incident};

impl Responder {
    /// Splits an incident. Refused splits are audited, too.
    ///
    /// # Errors
    /// Returns a problem if the split is refused, or the state cannot be written.
    pub(crate) async fn split_incident(&self, caller: Identity, request: SplitRequest) -> Result<SplitView, Problem> {
        let result = self.split_as_read(&caller, &request).await;
        if let Err(problem) = &result {
            let id = format!("INC-{}", request.number);
            self.audit_refusal(&caller, Some(&id), "split", (problem, &request.reason)).await?;
        }
        result
    }

    /// Retries while other writers change the incident, or open another one, at the same time.
    async fn split_as_read(&self, caller: &Identity, request: &SplitRequest) -> Result<SplitView, Problem> {
        let tenant = &caller.tenant;
        loop {
            let (row, mut workflow) = self.find_incident(tenant, request.number).await?;
            check_revision(&row, request.if_match)?;
            self.check_home(&workflow, "split it there")?;
            let entities = entities_of(&workflow, request)?;
            let number = self.store.next_incident_number(tenant).await.map_err(store_problem)?;
            let (from_id, new_id, at) = (row.id(), format!("INC-{number}"), clock::now());
            let split_off = SplitOff {
                entities: &entities,
                title: request.title.as_deref(),
                from_id: &from_id,
                new_id: &new_id,
                by: &caller.principal,
                reason: &request.reason,
                at_ms: self.settle_ms(tenant, &workflow),
                at,
            };
            let part = workflow.split(&split_off).map_err(split_problem)?;
            if !self.write_split(caller, (&row, &workflow), (number, &part), &split_off).await? {
                continue;
            }
            self.follow_split(&part);
            let state = part.change.as_ref().map_or(row.state, |change| change.to);
            let revision = row.revision + 1;
            let whole = IncidentRow { state, revision, updated_at: at, ..row };
            let created = new_row(&part.incident, number, at);
            let part = Workflow::new(part.incident);
            return Ok(SplitView { incident: summary(&whole, &workflow), created: summary(&created, &part) });
        }
    }

    /// Writes both incidents. Returns false if one of them is not as it was read.
    async fn write_split(
        &self,
        caller: &Identity,
        (row, workflow): (&IncidentRow, &Workflow),
        (new_number, part): (i64, &SplitPart),
        split_off: &SplitOff<'_>,
    ) -> Result<bool, Problem> {
        let home = workflow.home.clone().or_else(|| Some(self.queue.clone()));
        let new = Workflow { stored_at: Some(split_off.at), home, ..Workflow::new(part.incident.clone()) };
        let text = |workflow: &Workflow| serde_json::to_string(workflow).map_err(unreadable_workflow);
        let (workflow_text, new_text) = (text(workflow)?, text(&new)?);
        let changes = Changes {
            cancel: part.cancelled.iter().map(|kind| kind.as_str().to_owned()).collect(),
            finished_incident: finished_incident(workflow).map_err(unreadable_workflow)?,
            reopened: workflow.reopened,
            ..Changes::default()
        };
        let split = IncidentSplit {
            before: row,
            workflow: &workflow_text,
            transition: part.change.as_ref().map(|change| (change.to, change.note.as_str())),
            changes: &changes,
            new_key: &part.incident.key,
            new_number,
            new_opened_at: part.incident.opened_at,
            new_workflow: &new_text,
            at: split_off.at,
        };
        let is_void = part.change.is_some();
        let whole = json!({
            "into": split_off.new_id, "entities": split_off.entities, "reason": split_off.reason, "plan_void": is_void,
        });
        let new = json!({ "from": split_off.from_id, "title": part.incident.title, "entities": split_off.entities });
        let entries = [
            entry(caller, split_off.from_id, ("split", whole), split_off.at),
            entry(caller, split_off.new_id, ("split_from", new), split_off.at),
        ];
        self.store.split_incident(&split, [&entries[0], &entries[1]]).await.map_err(store_problem)
    }

    /// Has findings follow the split, under the names that the graph has for the entities now.
    fn follow_split(&self, part: &SplitPart) {
        let (tenant, opened_ms) = (part.incident.tenant.clone(), part.incident.opened_at.millis());
        let mut incident = part.incident.clone();
        let view = self.tenants.view(&tenant);
        incident.entities = incident.entities.iter().map(|entity| view.engine.graph().canonical(entity)).collect();
        self.tenants.restore_incident(&tenant, incident, opened_ms);
        metrics::counter!(crate::metrics::INCIDENTS_OPENED_TOTAL).increment(1);
    }
}

fn entry(caller: &Identity, id: &str, (action, decision): (&str, serde_json::Value), at: Timestamp) -> AuditEntry {
    let entry = audit_entry(&caller.tenant, "resolver", Some(id), action, decision, at);
    AuditEntry { principal: caller.principal.clone(), ..entry }
}

/// Returns the entities of an incident that a request names, each once, in the incident's order.
fn entities_of(workflow: &Workflow, request: &SplitRequest) -> Result<Vec<Entity>, Problem> {
    let bad = |detail: String| Problem::bad_request("bad_split", detail);
    let affected = workflow.incident.affected();
    let mut named = Vec::new();
    for text in &request.entities {
        let found = find_entity(text, affected.iter().map(|entity| (entity, &[][..])));
        let unknown = || bad(format!("field entities: {text:?} is no entity of the incident"));
        named.push(found.map_err(|detail| bad(format!("field entities: {detail}")))?.ok_or_else(unknown)?);
    }
    let evidence = || workflow.diagnosis.iter().flat_map(|diagnosis| &diagnosis.evidence);
    for id in &request.evidence {
        let item = evidence().find(|item| item.id == *id);
        let item = item.ok_or_else(|| bad(format!("field evidence: {id:?} is no evidence of the incident")))?;
        if !affected.contains(&item.entity) {
            return Err(bad(format!(
                "field evidence: {id} is about {}, which is no entity of the incident",
                item.entity
            )));
        }
        named.push(item.entity.clone());
    }
    Ok(affected.into_iter().filter(|entity| named.contains(entity)).collect())
}

fn split_problem(error: SplitError) -> Problem {
    match error {
        SplitError::State(_) => conflict("wrong_state", error.to_string()),
        SplitError::Nothing | SplitError::Everything | SplitError::Unknown(_) => {
            Problem::bad_request("bad_split", error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use wardroom_domain::{Diagnosis, EntityKind, Evidence, Incident, Severity};

    use super::*;

    fn request(entities: &[&str], evidence: &[&str]) -> SplitRequest {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let (entities, evidence) = (texts(entities), texts(evidence));
        SplitRequest { number: 1, if_match: None, entities, evidence, title: None, reason: String::new() }
    }

    #[test]
    fn entities_are_named_by_themselves_or_by_evidence() {
        let database = Entity::named(EntityKind::Database, "orders");
        let mut incident = Incident::default();
        for entity in [Entity::service("cart"), database.clone(), Entity::service("web")] {
            incident.add_entity(&entity);
        }
        let mut workflow = Workflow::new(incident);
        let evidence = |id: &str, entity: Entity| Evidence {
            id: id.into(),
            entity,
            at: Timestamp::from_millis(0),
            summary: String::new(),
        };
        let evidence = vec![evidence("e1", database.clone()), evidence("e2", Entity::service("mail"))];
        let (causes, impact) = (Vec::new(), String::new());
        workflow.diagnosis = Some(Diagnosis { causes, evidence, severity: Severity::High, impact });
        let found = entities_of(&workflow, &request(&["web", "database:orders", "web"], &["e1"])).unwrap();
        assert_eq!(found, [database, Entity::service("web")]);
        for (wrong, part) in [
            (request(&["mail"], &[]), "no entity of the incident"),
            (request(&[], &["e9"]), "no evidence of the incident"),
            (request(&[], &["e2"]), "about mail"),
        ] {
            let problem = entities_of(&workflow, &wrong).unwrap_err();
            assert!(problem.code() == "bad_split" && problem.detail().contains(part), "{}", problem.detail());
        }
    }
}
