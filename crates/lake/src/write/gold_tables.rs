//! Writes the gold tables: incidents with evidence and tool calls, and the health of services.
//!
//! ```text
//! incidents in the store ─► all rows of a tenant's day ─► one file replaces the previous one, if different
//! signals of detection   ─► rows of a finished window ─► appended once: txn(health-TENANT, end of the window)
//! ```
//!
//! Problem: an incident changes for hours after it was opened, and an external reader must find each once, in its
//! current state. Model: the store has all incidents of a day, so the day's file is rewritten as a whole. It is named
//! by its content, and an identical file is not written again. Guarantee: however often a day is written, and whatever
//! was lost, the tables show what the store has. Nothing depends on these tables; if deleted they are created again.

use std::collections::BTreeMap;

use wardroom_domain::{Entity, ServiceHealth, TenantId, Timestamp};

use crate::error::Error;
use crate::format::data_file::{DataFile, day_of};
use crate::format::row_buffer::{Cell, Lineage, RowBuffer, entity_cells, micros};
use crate::format::schema::TableSchema;
use crate::format::table_schemas::{ENRICHMENTS, INCIDENTS, SERVICE_HEALTH, TOOL_RESULTS};
use crate::lake::Lake;
use crate::maintain::retention::is_expired;
use crate::table::delta_table::CommitOutcome;

/// A row of `gold.incidents`, with its evidence and tool calls.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IncidentFact {
    /// Key derived from the trigger.
    pub key: String,
    /// Display id; `None` for an incident found only by a replay.
    pub id: Option<String>,
    /// Title, one line.
    pub title: String,
    /// Severity.
    pub severity: String,
    /// State.
    pub state: String,
    /// The entities that it affects, the first one first.
    pub entities: Vec<Entity>,
    /// Kind of trigger.
    pub trigger: String,
    /// Start of the problem.
    pub began_at: Timestamp,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// When it was settled.
    pub settled_at: Option<Timestamp>,
    /// Outcome.
    pub outcome: Option<String>,
    /// Top-ranked cause: entity, rule, confidence.
    pub cause: Option<(Entity, String, f64)>,
    /// Verdict of a person.
    pub verdict: Option<String>,
    /// Evidence.
    pub enrichments: Vec<EnrichmentFact>,
    /// Tool calls.
    pub tool_results: Vec<ToolFact>,
}

/// A row of `gold.enrichments`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EnrichmentFact {
    /// Id within the incident.
    pub id: String,
    /// What it is about.
    pub entity: Entity,
    /// When it was observed.
    pub at: Timestamp,
    /// Summary, one line. Untrusted text.
    pub summary: String,
    /// Whether the top-ranked cause cites it.
    pub cited: bool,
}

/// A row of `gold.tool_results`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ToolFact {
    /// Telemetry time of the execution; without one, of the opening of the incident.
    pub at: Timestamp,
    /// SHA-256 of the plan.
    pub plan_sha256: String,
    /// Tool, operation and target.
    pub call: [String; 3],
    /// Arguments as JSON.
    pub arguments: String,
    /// Risk.
    pub risk: String,
    /// Runbook that proposed it.
    pub runbook: String,
    /// Approver and channel of the approval.
    pub approved: Option<(String, String)>,
    /// Outcome of the execution, if it started.
    pub outcome: Option<String>,
    /// Outcome of the undo, if there was one.
    pub undo: Option<String>,
}

impl Lake {
    /// Writes all incidents that a tenant opened on one day (days since the epoch). Returns whether anything changed.
    ///
    /// # Errors
    /// Returns an error if a table cannot be read or written now.
    pub async fn write_incidents(
        &self,
        tenant: &TenantId,
        day: i64,
        incidents: &[IncidentFact],
        now: Timestamp,
    ) -> Result<bool, Error> {
        let (mut incident_rows, mut enrichment_rows, mut tool_rows) = (
            new_rows(&INCIDENTS, tenant, day),
            new_rows(&ENRICHMENTS, tenant, day),
            new_rows(&TOOL_RESULTS, tenant, day),
        );
        let unknown = Entity::default();
        for incident in incidents {
            let name = (incident.key.as_str(), optional_text(incident.id.as_deref()));
            let services: Vec<&str> = incident.entities.iter().map(|entity| entity.name.as_str()).collect();
            let first = incident.entities.first().unwrap_or(&unknown);
            push(&mut incident_rows, &incident_cells(incident, name, &services), Some(first))?;
            for enrichment in &incident.enrichments {
                push(&mut enrichment_rows, &enrichment_cells(enrichment, name), Some(&enrichment.entity))?;
            }
            for result in &incident.tool_results {
                push(&mut tool_rows, &tool_cells(result, name), None)?;
            }
        }
        let mut changed = false;
        for rows in [incident_rows, enrichment_rows, tool_rows] {
            let name = rows.table();
            if is_expired(&self.retention, name, tenant, day, now) {
                continue;
            }
            let file = if rows.len() > 0 { Some(rows.finish()?) } else { None };
            let Some(table) = self.table(name) else { continue };
            changed |= table.lock().await.rewrite_day(tenant, day, file).await?;
        }
        Ok(changed)
    }

    /// Returns the end of a tenant's newest committed window.
    ///
    /// # Errors
    /// Returns an error if the table cannot be read.
    pub async fn committed_health_end(&self, tenant: &TenantId) -> Result<Option<Timestamp>, Error> {
        let Some(table) = self.table(SERVICE_HEALTH.name) else { return Ok(None) };
        let seconds = table.lock().await.reload_position(&health_app_id(tenant)).await?;
        Ok(seconds.map(|seconds| Timestamp::from_millis(i64::try_from(seconds).unwrap_or_default() * 1000)))
    }

    /// Appends a tenant's windows (start, end, one row per entity) once. The last window must be the newest.
    ///
    /// # Errors
    /// Returns an error if the table cannot be written now. Retrying is safe.
    pub async fn write_service_health(
        &self,
        tenant: &TenantId,
        windows: &[(Timestamp, Timestamp, Vec<ServiceHealth>)],
    ) -> Result<CommitOutcome, Error> {
        let mut days: BTreeMap<i64, RowBuffer> = BTreeMap::new();
        for (start, end, facts) in windows {
            let seconds = (end.millis() - start.millis()) / 1000;
            let day = day_of(start.millis());
            for fact in facts {
                let cells = [
                    Cell::Timestamp(micros(*start)),
                    Cell::Int(i32::try_from(seconds).unwrap_or(i32::MAX)),
                    Cell::Text(&fact.entity.name),
                    optional_double(fact.requests),
                    optional_double(fact.errors),
                    optional_double(fact.latency_p99),
                    optional_double(fact.cpu),
                    optional_double(fact.memory),
                    Cell::Int(i32::try_from(fact.breaches).unwrap_or(i32::MAX)),
                ];
                let rows = days.entry(day).or_insert_with(|| new_rows(&SERVICE_HEALTH, tenant, day));
                push(rows, &cells, Some(&fact.entity))?;
            }
        }
        let Some((_, end, _)) = windows.last() else { return Ok(CommitOutcome::AlreadyCommitted) };
        let files = days.into_values().map(RowBuffer::finish).collect::<Result<Vec<DataFile>, _>>()?;
        let Some(table) = self.table(SERVICE_HEALTH.name) else { return Ok(CommitOutcome::AlreadyCommitted) };
        let end = u64::try_from(end.millis() / 1000).unwrap_or_default();
        table.lock().await.append(&health_app_id(tenant), end, files).await
    }
}

fn health_app_id(tenant: &TenantId) -> String {
    format!("health-{tenant}")
}

fn new_rows(schema: &'static TableSchema, tenant: &TenantId, day: i64) -> RowBuffer {
    RowBuffer::new(schema, tenant.clone(), day)
}

/// Appends a row without lineage: these tables do not refer to the bus.
fn push(rows: &mut RowBuffer, cells: &[Cell<'_>], entity: Option<&Entity>) -> Result<(), Error> {
    rows.push(cells, entity, &Lineage::new(0, Timestamp::from_millis(0)))
}

fn optional_text(value: Option<&str>) -> Cell<'_> {
    value.map_or(Cell::Null, Cell::Text)
}

fn optional_double(value: Option<f64>) -> Cell<'static> {
    value.map_or(Cell::Null, Cell::Double)
}

fn incident_cells<'a>(
    incident: &'a IncidentFact,
    (key, id): (&'a str, Cell<'a>),
    services: &'a [&'a str],
) -> [Cell<'a>; 20] {
    let cause = incident.cause.as_ref();
    // Those of an entity, without its name.
    let [cause_kind, _, cause_namespace, cause_environment, cause_cluster] =
        cause.map_or([Cell::Null; 5], |(entity, ..)| entity_cells(entity));
    [
        Cell::Timestamp(micros(incident.opened_at)),
        Cell::Text(key),
        id,
        Cell::Text(&incident.title),
        Cell::Text(&incident.severity),
        Cell::Text(&incident.state),
        services.first().map_or(Cell::Null, |first| Cell::Text(first)),
        Cell::Texts(services),
        Cell::Text(&incident.trigger),
        Cell::Timestamp(micros(incident.began_at)),
        incident.settled_at.map_or(Cell::Null, |at| Cell::Timestamp(micros(at))),
        optional_text(incident.outcome.as_deref()),
        cause.map_or(Cell::Null, |(entity, ..)| Cell::Text(&entity.name)),
        cause_kind,
        cause_namespace,
        cause_environment,
        cause_cluster,
        cause.map_or(Cell::Null, |(_, rule, _)| Cell::Text(rule)),
        optional_double(cause.map(|(.., confidence)| *confidence)),
        optional_text(incident.verdict.as_deref()),
    ]
}

fn enrichment_cells<'a>(enrichment: &'a EnrichmentFact, (key, id): (&'a str, Cell<'a>)) -> [Cell<'a>; 8] {
    [
        Cell::Timestamp(micros(enrichment.at)),
        Cell::Text(key),
        id,
        Cell::Text(enrichment.id.split(':').next().unwrap_or_default()),
        Cell::Text(&enrichment.id),
        Cell::Text(&enrichment.entity.name),
        Cell::Text(&enrichment.summary),
        Cell::Boolean(enrichment.cited),
    ]
}

fn tool_cells<'a>(result: &'a ToolFact, (key, id): (&'a str, Cell<'a>)) -> [Cell<'a>; 14] {
    let [tool, operation, target] = &result.call;
    let approved = result.approved.as_ref();
    [
        Cell::Timestamp(micros(result.at)),
        Cell::Text(key),
        id,
        Cell::Text(&result.plan_sha256),
        Cell::Text(tool),
        Cell::Text(operation),
        Cell::Text(target),
        Cell::Text(&result.arguments),
        Cell::Text(&result.risk),
        Cell::Text(&result.runbook),
        approved.map_or(Cell::Null, |(approver, _)| Cell::Text(approver)),
        approved.map_or(Cell::Null, |(_, channel)| Cell::Text(channel)),
        optional_text(result.outcome.as_deref()),
        optional_text(result.undo.as_deref()),
    ]
}
