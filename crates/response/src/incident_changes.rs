//! Stores what detection and correlation found: anomalies, new incidents, and what is added to open ones.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use wardroom_correlate::Decision;
use wardroom_domain::audit::AuditEntry;
use wardroom_domain::{Incident, IncidentState, TenantId, Timestamp};
use wardroom_pipeline::detection::detector_output::DetectorEvent;
use wardroom_respond::Workflow;
use wardroom_store::{Changes, IncidentRow};

use super::audit_entry::audit_entry;
use super::respond_error::RespondError;
use super::responder::Responder;
use crate::metrics as names;
use crate::{clock, crash};

impl Responder {
    /// Stores the anomalies and decisions of detection.
    pub(crate) async fn store_events(&self, events: &[DetectorEvent]) -> Result<(), RespondError> {
        let mut anomalies_of: BTreeMap<TenantId, Vec<_>> = BTreeMap::new();
        // What is added to one incident is stored at once: in an outage many entities join within seconds.
        let mut additions: BTreeMap<(&TenantId, &str), Vec<&Decision>> = BTreeMap::new();
        for event in events {
            match event {
                DetectorEvent::Anomalies(tenant, anomalies) => {
                    anomalies_of.entry(tenant.clone()).or_default().extend_from_slice(anomalies);
                }
                DetectorEvent::Decision(tenant, decision) => match &**decision {
                    Decision::Opened(incident) => self.open_incident(tenant, incident.clone()).await?,
                    Decision::Joined { key, .. } | Decision::Updated { key, .. } => {
                        additions.entry((tenant, key)).or_default().push(decision);
                    }
                },
                DetectorEvent::Barrier(_) => {}
            }
        }
        for ((tenant, key), decisions) in additions {
            self.add_to_incident(tenant, key, &decisions).await?;
        }
        for (tenant, anomalies) in anomalies_of {
            self.store.add_anomalies(&tenant, &anomalies).await?;
        }
        Ok(())
    }

    pub(crate) async fn open_incident(&self, tenant: &TenantId, incident: Incident) -> Result<(), RespondError> {
        let decision = json!({ "title": incident.title, "trigger": incident.trigger });
        let entry = |id: &str, at| audit_entry(tenant, "sentinel", Some(id), "open_incident", decision, at);
        self.insert_incident(incident, entry).await.map(drop)
    }

    /// Stores a new incident, which this server handles. Returns its row, without its workflow; `None` if it is known.
    pub(crate) async fn insert_incident(
        &self,
        incident: Incident,
        entry: impl FnOnce(&str, Timestamp) -> AuditEntry,
    ) -> Result<Option<IncidentRow>, RespondError> {
        let now = clock::now();
        let home = Some(self.queue.clone());
        let workflow = Workflow { stored_at: Some(now), home, ..Workflow::new(incident) };
        let Incident { key, tenant, opened_at, title, .. } = &workflow.incident;
        let text = serde_json::to_string(&workflow)?;
        crash::maybe_crash("incident:open", "before");
        let number = self.store.open_incident(tenant, key, *opened_at, &text, now, |id| entry(id, now)).await?;
        crash::maybe_crash("incident:open", "after");
        if let Some(number) = number {
            metrics::counter!(names::INCIDENTS_OPENED_TOTAL).increment(1);
            tracing::warn!(incident = number, %title, "incident opened");
        }
        Ok(number.map(|number| new_row(&workflow.incident, number, now)))
    }

    /// Adds entities, and a new title and severity, to an incident.
    pub(crate) async fn add_to_incident(
        &self,
        tenant: &TenantId,
        key: &str,
        decisions: &[&Decision],
    ) -> Result<(), RespondError> {
        loop {
            let Some(row) = self.store.incident_by_key(tenant, key).await? else { return Ok(()) };
            let mut workflow = match Workflow::read(&row.workflow) {
                Ok(workflow) => workflow,
                // Not retried: later detector events must not wait for a person to repair the incident.
                Err(error) => {
                    metrics::counter!(names::RESPOND_FAILURES_TOTAL).increment(1);
                    tracing::error!(incident = %row.id(), %error, "reading an incident failed");
                    return Ok(());
                }
            };
            let Some((action, decision)) = add_decisions(&mut workflow, decisions) else { return Ok(()) };
            let text = serde_json::to_string(&workflow)?;
            let audit = audit_entry(tenant, "sentinel", Some(&row.id()), action, decision, clock::now());
            // Fails if the workflow changed meanwhile, for example by a decision; then it is read again.
            if self.store.save_workflow(tenant, key, &row.workflow, &text, &Changes::default(), &audit).await? {
                return Ok(());
            }
        }
    }
}

/// Returns the row of an incident that was just stored, without its workflow.
pub(crate) fn new_row(incident: &Incident, number: i64, at: Timestamp) -> IncidentRow {
    IncidentRow {
        key: incident.key.clone(),
        tenant: incident.tenant.clone(),
        number,
        state: IncidentState::Open,
        opened_at: incident.opened_at,
        updated_at: at,
        revision: 0,
        workflow: String::new(),
    }
}

/// Adds decisions to a workflow. Returns action and content of the audit entry; `None` if all are known, as after a
/// replay.
fn add_decisions(workflow: &mut Workflow, decisions: &[&Decision]) -> Option<(&'static str, Value)> {
    let now = clock::now();
    let incident = &mut workflow.incident;
    let (mut joined, mut update) = (Vec::new(), None);
    for decision in decisions {
        match decision {
            Decision::Opened(_) => {}
            Decision::Joined { entity, .. } => {
                if incident.add_entity(entity) {
                    incident.record(now, format!("{} {entity} joined", entity.kind));
                    joined.push(entity);
                }
            }
            Decision::Updated { title, severity, .. } => {
                // A title that a person gave stays.
                let keeps_title = incident.is_made_by_person();
                let is_new = !keeps_title && incident.title != *title || incident.severity < *severity;
                if is_new && incident.severity <= *severity {
                    incident.record(now, format!("{severity}: {title}"));
                    incident.severity = *severity;
                    if !keeps_title {
                        incident.title.clone_from(title);
                    }
                    update = Some((title, severity));
                }
            }
        }
    }
    let changes = joined.len() + usize::from(update.is_some());
    workflow.evidence = workflow.evidence.saturating_add(u32::try_from(changes).unwrap_or(u32::MAX));
    match (joined.as_slice(), update) {
        ([], None) => None,
        ([], Some((title, severity))) => Some(("incident_updated", json!({ "title": title, "severity": severity }))),
        ([first, ..], update) => {
            let mut content = json!({ "service": first.name, "entities": joined });
            if let Some((title, severity)) = update {
                content["title"] = json!(title);
                content["severity"] = json!(severity);
            }
            Some(("service_joined", content))
        }
    }
}
