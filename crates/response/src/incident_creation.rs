//! Incidents that a person opens: stored, diagnosed and joined by findings like those that detection opens.

use std::time::Duration;

use serde_json::json;
use wardroom_api::{IncidentSummary, NewIncidentRequest};
use wardroom_domain::audit::AuditEntry;
use wardroom_domain::incident::incident_key;
use wardroom_domain::{Comment, Entity, Identity, Incident, TenantId, Timestamp};
use wardroom_edge::{Problem, Status};
use wardroom_respond::Workflow;

use crate::audit_entry::audit_entry;
use crate::clock;
use crate::entity_reference::{described_entity, find_entity};
use crate::incident_views::summary;
use crate::problem_responses::{run_blocking, store_problem};
use crate::respond_error::RespondError;
use crate::responder::Responder;

/// Incidents of a tenant that have not ended and changed within [`LIVE_PERIOD`], at most, as a multiple of
/// `correlate.max-open-incidents`: beyond it none is opened by hand.
const MAX_LIVE_PER_OPEN: usize = 5;
/// See [`MAX_LIVE_PER_OPEN`].
const LIVE_PERIOD: Duration = Duration::from_secs(3600);

impl Responder {
    /// Opens an incident by hand. Refused ones are audited, too.
    ///
    /// # Errors
    /// Returns a problem if a value of the request is not valid, or the state cannot be written.
    pub(crate) async fn create_incident(
        &self,
        caller: Identity,
        request: NewIncidentRequest,
    ) -> Result<IncidentSummary, Problem> {
        let result = self.open_by_hand(&caller, &request).await;
        if let Err(problem) = &result {
            self.audit_refusal(&caller, None, "create_incident", (problem, &request.description)).await?;
        }
        result
    }

    async fn open_by_hand(&self, caller: &Identity, request: &NewIncidentRequest) -> Result<IncidentSummary, Problem> {
        let (now, tenant) = (clock::now(), &caller.tenant);
        self.check_number(tenant, now).await?;
        let opened_at = self.telemetry_now(tenant, now);
        let began_at = check_began_at(request.began_at.unwrap_or(opened_at), now.max(opened_at))?;
        let entities = self.resolve_entities(tenant, request.entities.clone()).await?;
        let incident = made_by_hand(caller, request, &entities, (began_at, opened_at, now));
        let decision = json!({
            "title": incident.title, "severity": incident.severity, "entities": incident.entities,
            "began_at": began_at, "description": request.description,
        });
        let entry = |id: &str, at: Timestamp| AuditEntry {
            principal: caller.principal.clone(),
            ..audit_entry(tenant, "resolver", Some(id), "create_incident", decision, at)
        };
        let row = self.insert_incident(incident.clone(), entry).await.map_err(unwritten)?;
        let again = || Problem::unavailable("not_opened", "the same was requested at the same moment; repeat it");
        let row = row.ok_or_else(again)?;
        self.tenants.restore_incident(tenant, incident.clone(), opened_at.millis());
        // Nothing may fail from here on: it is made.
        Ok(summary(&row, &Workflow::new(incident)))
    }

    /// Refuses an incident by hand while too many of the tenant have changed lately, as a program would make them.
    async fn check_number(&self, tenant: &TenantId, now: Timestamp) -> Result<(), Problem> {
        let limit = self.config.correlate.max_open_incidents.saturating_mul(MAX_LIVE_PER_OPEN);
        let live = self.store.unsettled_revisions(now.minus(LIVE_PERIOD)).await.map_err(store_problem)?;
        let since = now.minus(LIVE_PERIOD);
        let own = live.iter().filter(|found| found.tenant == *tenant && found.updated_at >= since).count();
        if own < limit {
            return Ok(());
        }
        let detail = format!("{own} incidents of this tenant changed within the hour and have not ended; close some");
        let problem = Problem::new(Status::TOO_MANY_REQUESTS, "too_many_incidents", detail);
        Err(problem.retry_after(LIVE_PERIOD.as_secs_f64()))
    }

    /// Returns the newest time of the telemetry; `now` before any.
    fn telemetry_now(&self, tenant: &TenantId, now: Timestamp) -> Timestamp {
        let watermark_ms = self.tenants.view(tenant).engine.watermark_ms();
        if watermark_ms > 0 { Timestamp::from_millis(watermark_ms) } else { now }
    }

    /// Returns the entities that texts name, each once. One that telemetry does not know is as the text describes it.
    async fn resolve_entities(&self, tenant: &TenantId, texts: Vec<String>) -> Result<Vec<Entity>, Problem> {
        let view = self.tenants.view(tenant);
        run_blocking(move || {
            let state = view.engine.graph().state();
            let mut entities: Vec<Entity> = Vec::new();
            for text in &texts {
                let known = state.entities.iter().map(|(entity, aliases, _)| (entity, aliases.as_slice()));
                let found = find_entity(text, known);
                let found =
                    found.map_err(|detail| Problem::bad_request("bad_entity", format!("field entities: {detail}")))?;
                let entity = found.unwrap_or_else(|| described_entity(text));
                if !entities.contains(&entity) {
                    entities.push(entity);
                }
            }
            Ok(entities)
        })
        .await?
    }
}

/// Refuses a time before the epoch or after `latest`.
fn check_began_at(began_at: Timestamp, latest: Timestamp) -> Result<Timestamp, Problem> {
    if began_at > latest || began_at < Timestamp::from_millis(0) {
        let detail = format!("field began_at: {began_at} is no time until now, {latest}");
        return Err(Problem::bad_request("bad_began_at", detail));
    }
    Ok(began_at)
}

fn made_by_hand(
    caller: &Identity,
    request: &NewIncidentRequest,
    entities: &[Entity],
    (began_at, opened_at, now): (Timestamp, Timestamp, Timestamp),
) -> Incident {
    let (by, tenant) = (&caller.principal, &caller.tenant);
    // The time makes two incidents of two requests; a repetition of one has an idempotency key.
    let signal = format!("person\n{by}\n{}\n{}", request.title, now.nanos());
    let mut incident = Incident {
        key: incident_key(tenant, &signal, began_at),
        tenant: tenant.clone(),
        title: request.title.clone(),
        severity: request.severity,
        trigger: Incident::BY_PERSON.to_owned(),
        began_at,
        opened_at,
        ..Incident::default()
    };
    for entity in entities {
        incident.add_entity(entity);
    }
    incident.record(now, format!("opened by {by}"));
    if !request.description.is_empty() {
        incident.comments.push(Comment { by: by.clone(), at: now, text: request.description.clone() });
    }
    incident
}

fn unwritten(error: RespondError) -> Problem {
    match error {
        RespondError::Store(error) => store_problem(error),
        other => Problem::unavailable("not_opened", other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use wardroom_domain::{AccessRole, Principal, Severity};

    use super::*;

    #[test]
    fn two_requests_make_two_incidents_with_author_and_description() {
        let caller = Identity {
            tenant: TenantId::main(),
            principal: Principal::new("ann").unwrap(),
            role: AccessRole::Responder,
        };
        let request = NewIncidentRequest {
            title: "orders are late".into(),
            entities: vec!["cart".into()],
            severity: Severity::Critical,
            description: "customers call".into(),
            began_at: None,
        };
        let at = Timestamp::from_millis;
        let make =
            |now: i64| made_by_hand(&caller, &request, &[Entity::service("cart")], (at(1000), at(2000), at(now)));
        let (first, second) = (make(5000), make(5001));
        assert_ne!(first.key, second.key);
        assert_eq!((first.affected(), first.trigger.as_str()), (vec![Entity::service("cart")], "person"));
        assert_eq!((first.began_at, first.opened_at, first.severity), (at(1000), at(2000), Severity::Critical));
        assert_eq!(first.history[0].text, "opened by ann");
        assert_eq!(
            (first.comments[0].text.as_str(), first.comments[0].by.to_string()),
            ("customers call", "ann".into())
        );
    }

    #[test]
    fn an_incident_has_begun() {
        let (now, at) = (Timestamp::from_millis(5000), Timestamp::from_millis);
        assert_eq!(check_began_at(at(4000), now).unwrap(), at(4000));
        for wrong in [5001, -1] {
            assert_eq!(check_began_at(at(wrong), now).unwrap_err().code(), "bad_began_at");
        }
    }
}
