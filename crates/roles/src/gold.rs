//! The gold role: what was concluded goes into tables of its own, a minute later.
//!
//! ```text
//! store ───► incidents that changed ──► their days, whole ──► gold.incidents, .enrichments, .tool_results
//! signals ─► windows that are over ───────────────────────► gold.service_health
//! ```
//!
//! A reader of what others keep: nobody waits for it, and with its tables deleted it makes them again. At the
//! start every day is looked at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use wardroom_detect::{Engine, health};
use wardroom_domain::{ServiceHealth, TenantId, Timestamp};
use wardroom_lake::{EnrichmentFact, IncidentFact, Lake, ToolFact};
use wardroom_respond::Workflow;
use wardroom_store::{IncidentRow, Store};

use crate::clock;
use wardroom_pipeline::metrics as pipeline;
use wardroom_pipeline::tenants::{SELF, Tenants};

/// Length of a window, in ms.
const WINDOW_MS: i64 = 5 * 60_000;
/// So long after its end a window is taken for complete, by the telemetry's own time, in ms.
const GRACE_MS: i64 = 60_000;
/// Windows that are looked back for, as far as detection remembers.
const BACK: i64 = 24;
/// A day in ms.
pub(crate) const DAY_MS: i64 = 86_400_000;
/// A change that was on its way into the store while it was read is seen the next time.
const OVERLAP: Duration = Duration::from_secs(60);

/// The role.
pub(crate) struct Concluder {
    pub(crate) lake: Arc<Lake>,
    pub(crate) store: Store,
    pub(crate) tenants: Arc<Tenants>,
}

/// Why a round failed; the next one tries again.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Lake(#[from] wardroom_lake::Error),
    #[error(transparent)]
    Store(#[from] wardroom_store::Error),
}

impl Concluder {
    /// Runs for ever.
    pub(crate) async fn run(self, every: Duration) {
        let mut since = Timestamp::from_nanos(i64::MIN);
        let mut reached = BTreeMap::new();
        loop {
            tokio::time::sleep(every).await;
            let now = clock::now();
            let (incidents, health) = (self.incidents(since, now).await, self.health(&mut reached).await);
            if incidents.is_ok() {
                since = now.minus(OVERLAP);
            }
            for error in [incidents, health].into_iter().filter_map(Result::err) {
                metrics::counter!(pipeline::LAKE_FAILURES_TOTAL).increment(1);
                tracing::error!(%error, "the tables of gold could not be written; it is tried again");
            }
        }
    }

    /// Writes the days on which incidents opened that changed since.
    async fn incidents(&self, since: Timestamp, now: Timestamp) -> Result<(), Error> {
        let mut changed = self.store.live_incidents(since).await?;
        // Those that wait for a person may do so for weeks.
        changed.retain(|row| row.updated_at >= since);
        let days: BTreeSet<(TenantId, i64)> =
            changed.iter().map(|row| (row.tenant.clone(), row.opened_at.millis().div_euclid(DAY_MS))).collect();
        for (tenant, day) in days {
            let [from, to] = [day, day + 1].map(|day| Timestamp::from_millis(day * DAY_MS));
            let rows = self.store.incidents_opened(&tenant, from, to).await?;
            let facts: Vec<_> = rows.iter().filter_map(fact).collect();
            self.lake.conclude(&tenant, day, &facts, now).await?;
        }
        Ok(())
    }

    /// Writes the windows that are over.
    async fn health(&self, reached: &mut BTreeMap<TenantId, i64>) -> Result<(), Error> {
        for (tenant, state) in self.tenants.all().into_iter().filter(|(tenant, _)| tenant.as_str() != SELF) {
            let written = match reached.get(&tenant) {
                Some(written) => *written,
                None => self.lake.health_reached(&tenant).await?.map_or(i64::MIN, Timestamp::millis),
            };
            let (windows, end) = {
                let engine = &state.live().engine;
                let watermark_ms = engine.watermark_ms().max(BACK * WINDOW_MS);
                let end = (watermark_ms - GRACE_MS).div_euclid(WINDOW_MS) * WINDOW_MS;
                (windows(engine, written.max(end - BACK * WINDOW_MS), end), end)
            };
            if !windows.is_empty() {
                self.lake.health(&tenant, &windows).await?;
            }
            reached.insert(tenant, written.max(end));
        }
        Ok(())
    }
}

/// How services fared between two moments, window by window; those that nothing is known of are left out.
fn windows(engine: &Engine, from_ms: i64, end_ms: i64) -> Vec<(Timestamp, Timestamp, Vec<ServiceHealth>)> {
    let starts = (from_ms..end_ms).step_by(WINDOW_MS as usize);
    let windows = starts.map(|start_ms| {
        let [start, end] = [start_ms, start_ms + WINDOW_MS].map(Timestamp::from_millis);
        (start, end, health(engine, start_ms..start_ms + WINDOW_MS))
    });
    windows.filter(|(.., facts)| !facts.is_empty()).collect()
}

/// An incident as gold shows it.
fn fact(row: &IncidentRow) -> Option<IncidentFact> {
    let workflow = Workflow::read(&row.workflow)
        .inspect_err(|error| tracing::error!(incident = %row.id(), %error, "an incident is missing in gold"))
        .ok()?;
    let incident = &workflow.incident;
    let best = workflow.diagnosis.as_ref().and_then(|diagnosis| diagnosis.best());
    let word = |outcome: wardroom_domain::Outcome| outcome.as_str().to_owned();
    let enrichments =
        workflow.diagnosis.iter().flat_map(|diagnosis| &diagnosis.evidence).map(|evidence| EnrichmentFact {
            id: evidence.id.clone(),
            service: evidence.service.clone(),
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
        approved: workflow.approval.as_ref().map(|yes| (yes.principal.to_string(), yes.channel.clone())),
        outcome: workflow.execution.map(word),
        undo: workflow.undo.map(word),
    });
    Some(IncidentFact {
        id: Some(row.id()),
        state: row.state.to_string(),
        settled_at: workflow.settled_ms.map(Timestamp::from_millis),
        outcome: workflow.outcome.clone(),
        cause: best.map(|best| (best.service.clone(), best.kind.to_string(), best.confidence)),
        verdict: workflow.verdict.as_ref().map(|(verdict, _)| verdict.clone()),
        enrichments: enrichments.collect(),
        tool_results: tool_results.collect(),
        ..opened(incident)
    })
}

/// What is known of an incident when it opens.
pub(crate) fn opened(incident: &wardroom_domain::Incident) -> IncidentFact {
    IncidentFact {
        key: incident.key.clone(),
        title: incident.title.clone(),
        severity: incident.severity.as_str().to_owned(),
        state: "open".to_owned(),
        services: incident.services.clone(),
        trigger: incident.trigger.clone(),
        began_at: incident.began_at,
        opened_at: incident.opened_at,
        ..IncidentFact::default()
    }
}
