//! Many incidents that await their approval, made from one: its rows are copied with another service each.

use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};
use wardroom_domain::audit::AuditEntry;
use wardroom_domain::canonical::sha256_hex;
use wardroom_domain::{IncidentState, Plan, Principal, TenantId, Timestamp};
use wardroom_store::{Changes, NewEffect, Store, Transition, database_path};
use wardroom_testing::now_ms;

/// More than the response makes for one incident.
const MANY_INVESTIGATIONS: u32 = 1000;

/// An incident that awaits the approval of its plan.
#[derive(Clone, Debug)]
pub(super) struct Awaiting {
    /// `INC-…`.
    pub(super) id: String,
    pub(super) service: String,
    pub(super) plan_sha256: String,
}

/// Copies the only incident of a stopped server, about the service `original`, to `services`.
pub(super) async fn copy_incident(data: &Path, original: &str, services: &[String]) -> anyhow::Result<Vec<Awaiting>> {
    let store = Store::open(&database_path(data)).await?;
    let tenant = TenantId::main();
    let row = store.incident(&tenant, 1).await?.context("there is no incident to copy")?;
    let mut copies = Vec::new();
    for service in services {
        let mut key = sha256_hex(service.as_bytes());
        key.truncate(row.key.len());
        let text = row.workflow.replace(&row.key, &key).replace(original, service);
        let mut workflow: Value = serde_json::from_str(&text)?;
        let plan: Plan = serde_json::from_value(workflow["plan"].clone()).context("the incident has no plan")?;
        let plan_sha256 = plan.sha256().map_err(anyhow::Error::msg)?;
        workflow["plan_sha256"] = json!(plan_sha256);
        // As for one that waits for long: its diagnosis, of which there is no telemetry here, is not reviewed any more.
        workflow["investigations"] = json!(MANY_INVESTIGATIONS);
        let text = workflow.to_string();
        let now = Timestamp::from_millis(now_ms());
        let opened = store.open_incident(&tenant, &key, row.opened_at, &text, now, |id| entry(id, now)).await?;
        let id = format!("INC-{}", opened.with_context(|| format!("there is an incident {key} already"))?);
        // The dry run that a real one has had: incidents without any effect are taken for those of an earlier version,
        // and the executor's ledger is searched for their approvals for a while.
        let dry_run = NewEffect {
            id: format!("{key}/copied"),
            kind: "dry_run".to_owned(),
            resource: String::new(),
            queue: String::new(),
            payload: "{}".to_owned(),
            not_before: now,
            deadline: now,
        };
        let (enqueue, cancel) = (vec![dry_run.clone()], vec![dry_run.kind]);
        let changes = [Changes { enqueue, ..Changes::default() }, Changes { cancel, ..Changes::default() }];
        let states = [IncidentState::Open, IncidentState::Investigating, IncidentState::AwaitingApproval];
        for (states, changes) in states.windows(2).zip(&changes) {
            let transition = Transition {
                tenant: &tenant,
                key: &key,
                from: states[0],
                to: states[1],
                before: &text,
                workflow: &text,
                note: "copied",
                at: now,
                changes,
            };
            anyhow::ensure!(store.transition(&transition, &entry(&id, now)).await?, "{id} was not copied");
        }
        copies.push(Awaiting { id, service: service.clone(), plan_sha256 });
    }
    store.close().await;
    Ok(copies)
}

fn entry(id: &str, at: Timestamp) -> AuditEntry {
    AuditEntry {
        at,
        tenant: TenantId::main(),
        principal: Principal::wardroom(),
        agent: "sentinel".to_owned(),
        incident_id: Some(id.to_owned()),
        action: "transition".to_owned(),
        decision: json!({ "note": "copied" }),
        approved_by: None,
    }
}
