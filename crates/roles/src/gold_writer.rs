//! The gold writer: writes incidents, service health and inferred events to the tables at an interval.
//!
//! ```text
//! store ───► changed incidents ──► rows of their whole day ──► gold.incidents, .enrichments, .tool_results
//! signals ─► completed windows ──────────────────────────────► gold.service_health
//! events ──► those that detection infers ────────────────────► silver.events
//! store ───► the first signed audit head of a day ───────────► gold.audit_heads
//! ```
//!
//! The tables are derived: they are rebuilt from the store and the signals if they are deleted. At the start all days
//! are written once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use wardroom_domain::{TenantId, Timestamp};
use wardroom_lake::{EnrichmentFact, IncidentFact, ToolFact};
use wardroom_respond::{Workflow, WorkflowReadError};
use wardroom_store::{IncidentRow, Store};

use wardroom_pipeline::lake::health_writer::write_health;
use wardroom_pipeline::lake::inferred_events::InferredEventWriter;
use wardroom_pipeline::lake::lake_state::LakeTables;
use wardroom_pipeline::metrics as pipeline_metrics;
use wardroom_pipeline::state::tenants::Tenants;

use crate::clock;

/// A day in ms.
pub(crate) const DAY_MS: i64 = 86_400_000;
/// Overlap of two reads of changed incidents, so that writes that were in progress during a read are not missed.
const READ_OVERLAP: Duration = Duration::from_secs(60);

/// The gold writer.
pub(crate) struct GoldWriter {
    pub(crate) tables: LakeTables,
    pub(crate) store: Store,
    pub(crate) tenants: Arc<Tenants>,
}

/// Why a round failed; the next round retries.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Lake(#[from] wardroom_lake::Error),
    #[error(transparent)]
    Store(#[from] wardroom_store::Error),
}

impl GoldWriter {
    /// Writes the tables at this interval until it is cancelled.
    pub(crate) async fn run(self, interval: Duration) {
        let mut since = Timestamp::from_nanos(i64::MIN);
        let (mut written_to, mut events) = (BTreeMap::new(), InferredEventWriter::default());
        loop {
            tokio::time::sleep(interval).await;
            let now = clock::now();
            let incidents = self.write_incidents(since, now).await;
            let health = write_health(&self.tables.lake, &self.tenants, &mut written_to).await.map_err(Error::from);
            let offset = self.tables.samples_progress.committed_offset();
            let inferred = events.write(&self.tables.lake, &self.tenants, offset, now).await.map_err(Error::from);
            if incidents.is_ok() {
                since = now.minus(READ_OVERLAP);
            }
            let audited = self.write_audit_head().await;
            for error in [incidents, health, inferred, audited].into_iter().filter_map(Result::err) {
                metrics::counter!(pipeline_metrics::LAKE_FAILURES_TOTAL).increment(1);
                tracing::error!(%error, "writing derived tables failed; retrying");
            }
        }
    }

    /// Writes the last signed head of the audit log, if the table has none of its day.
    async fn write_audit_head(&self) -> Result<(), Error> {
        if let Some(signed) = self.store.noted_audit_head().await? {
            self.tables.lake.write_audit_head(&signed).await?;
        }
        Ok(())
    }

    /// Writes all incidents of the days on which changed incidents opened.
    async fn write_incidents(&self, since: Timestamp, now: Timestamp) -> Result<(), Error> {
        let mut changed = self.store.live_incidents(since).await?;
        // The query also returns unsettled incidents, which may be unchanged for weeks.
        changed.retain(|row| row.updated_at >= since);
        let days: BTreeSet<(TenantId, i64)> =
            changed.iter().map(|row| (row.tenant.clone(), row.opened_at.millis().div_euclid(DAY_MS))).collect();
        for (tenant, day) in days {
            let [from, to] = [day, day + 1].map(|day| Timestamp::from_millis(day * DAY_MS));
            let rows = self.store.incidents_opened(&tenant, from, to).await?;
            let facts: Vec<_> = rows.iter().filter_map(incident_fact).collect();
            self.tables.lake.write_incidents(&tenant, day, &facts, now).await?;
        }
        Ok(())
    }
}

/// Converts an incident to its row.
fn incident_fact(row: &IncidentRow) -> Option<IncidentFact> {
    let log = |error: &WorkflowReadError| {
        tracing::error!(incident = %row.id(), %error, "reading an incident failed; no gold row written");
    };
    let workflow = Workflow::read(&row.workflow).inspect_err(log).ok()?;
    let incident = &workflow.incident;
    let best = workflow.diagnosis.as_ref().and_then(|diagnosis| diagnosis.best());
    let text = |outcome: wardroom_domain::Outcome| outcome.as_str().to_owned();
    let enrichments =
        workflow.diagnosis.iter().flat_map(|diagnosis| &diagnosis.evidence).map(|evidence| EnrichmentFact {
            id: evidence.id.clone(),
            entity: evidence.entity.clone(),
            at: evidence.at,
            summary: evidence.summary.clone(),
            cited: best.is_some_and(|best| best.evidence.contains(&evidence.id)),
        });
    let tool_results = workflow.plan.iter().zip(&workflow.plan_sha256).map(|(plan, plan_sha256)| ToolFact {
        at: workflow.executed_ms.map_or(incident.opened_at, Timestamp::from_millis),
        plan_sha256: plan_sha256.clone(),
        call: [&plan.call.tool, &plan.call.operation, &plan.call.target].map(Clone::clone),
        arguments: serde_json::Value::Object(plan.call.arguments.clone()).to_string(),
        risk: plan.dry_run.risk.clone(),
        runbook: plan.runbook.clone(),
        approved: workflow.approval.as_ref().map(|approval| (approval.principal.to_string(), approval.channel.clone())),
        outcome: workflow.execution.map(text),
        undo: workflow.undo.map(text),
    });
    Some(IncidentFact {
        id: Some(row.id()),
        state: row.state.to_string(),
        settled_at: workflow.settled_ms.map(Timestamp::from_millis),
        outcome: workflow.outcome.clone(),
        cause: best.map(|best| (best.entity.clone(), best.rule.clone(), best.confidence)),
        verdict: workflow.verdict.as_ref().map(|(verdict, _)| verdict.clone()),
        enrichments: enrichments.collect(),
        tool_results: tool_results.collect(),
        ..opened_incident_fact(incident)
    })
}

/// Returns the row of an incident that has just opened.
pub(crate) fn opened_incident_fact(incident: &wardroom_domain::Incident) -> IncidentFact {
    IncidentFact {
        key: incident.key.clone(),
        title: incident.title.clone(),
        severity: incident.severity.as_str().to_owned(),
        state: "open".to_owned(),
        entities: incident.affected(),
        trigger: incident.trigger.clone(),
        began_at: incident.began_at,
        opened_at: incident.opened_at,
        ..IncidentFact::default()
    }
}
