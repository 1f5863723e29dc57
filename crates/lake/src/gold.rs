//! What was concluded: incidents, what they were enriched with, what tools did about them, and how services fared.
//!
//! ```text
//! incidents in the store ──► all rows of one tenant's day ──► one file in the place of the one before, if it differs
//! signals in detection   ──► rows of a window that is over ──► appended once: txn(health-TENANT, end of the window)
//! ```
//!
//! Problem: an incident changes for hours after it opened, and a reader from outside must find each once, as it is. Model: the
//! store knows everything about the incidents of a day, so their file is made anew as a whole; it is named by its content, and one
//! that is there already is left alone. Guarantee: however often a day is written, and whatever was lost, the tables
//! show what the store says. Nothing reads them back: with all of them deleted Wardroom works on, and makes them again.

use std::collections::BTreeMap;

use wardroom_domain::{ServiceHealth, TenantId, Timestamp};

use crate::rows::{Cell, Lineage, Rows, micros};
use crate::samples::{DataFile, day_of};
use crate::spec::{ENRICHMENTS, INCIDENTS, SERVICE_HEALTH, Spec, TOOL_RESULTS};
use crate::{Error, Lake, Landed, Retention};

/// An incident.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IncidentFact {
    /// Derived from what opened it.
    pub key: String,
    /// What people call it; nothing for one that only a replay found.
    pub id: Option<String>,
    /// One line for a person.
    pub title: String,
    /// How bad.
    pub severity: String,
    /// Where it stands.
    pub state: String,
    /// Services known to be affected, the first one first.
    pub services: Vec<String>,
    /// Why it opened.
    pub trigger: String,
    /// When trouble began.
    pub began_at: Timestamp,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// When it was settled, if it was.
    pub settled_at: Option<Timestamp>,
    /// How it ended, if it did.
    pub outcome: Option<String>,
    /// The best cause: service, kind, confidence.
    pub cause: Option<(String, String, f64)>,
    /// A person's judgement, if there is one.
    pub verdict: Option<String>,
    /// What it was enriched with.
    pub enrichments: Vec<EnrichmentFact>,
    /// What was done, if anything was proposed.
    pub tool_results: Vec<ToolFact>,
}

/// A piece of evidence.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EnrichmentFact {
    /// Its id within the incident.
    pub id: String,
    /// The service it speaks about.
    pub service: String,
    /// When it was seen.
    pub at: Timestamp,
    /// One line for a person. Untrusted text.
    pub summary: String,
    /// Whether the best cause rests on it.
    pub cited: bool,
}

/// A tool's call, from the proposal to what came of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ToolFact {
    /// When it was called for: the telemetry's time of the execution, or of the opening where there was none.
    pub at: Timestamp,
    /// SHA-256 of the plan.
    pub plan_sha256: String,
    /// Tool, operation and target.
    pub call: [String; 3],
    /// JSON.
    pub arguments: String,
    /// How dangerous.
    pub risk: String,
    /// The runbook it comes from.
    pub runbook: String,
    /// Who said yes, and through which channel.
    pub approved: Option<(String, String)>,
    /// How the execution ended, if it began.
    pub outcome: Option<String>,
    /// How the undo ended, if there was one.
    pub undo: Option<String>,
}

impl Lake {
    /// Writes the incidents that a tenant opened on one day, all of them, and says whether anything changed.
    ///
    /// # Errors
    /// The tables cannot be read or written now.
    pub async fn conclude(
        &self,
        tenant: &TenantId,
        day: i64,
        incidents: &[IncidentFact],
        now: Timestamp,
    ) -> Result<bool, Error> {
        let (mut opened, mut enriched, mut done) =
            (rows(&INCIDENTS, tenant, day), rows(&ENRICHMENTS, tenant, day), rows(&TOOL_RESULTS, tenant, day));
        for incident in incidents {
            let name = (incident.key.as_str(), text(incident.id.as_deref()));
            push(&mut opened, &incident_cells(incident, name, &texts(&incident.services)))?;
            for enrichment in &incident.enrichments {
                push(&mut enriched, &enrichment_cells(enrichment, name))?;
            }
            for result in &incident.tool_results {
                push(&mut done, &tool_cells(result, name))?;
            }
        }
        let mut changed = false;
        for rows in [opened, enriched, done] {
            let name = rows.table();
            if Retention::days(&self.retention, name, tenant)
                .is_some_and(|days| day + i64::from(days) < day_of(now.millis()))
            {
                continue;
            }
            let file = if rows.len() > 0 { Some(rows.finish()?) } else { None };
            let Some(table) = self.table(name) else { continue };
            changed |= table.lock().await.rewrite(tenant, day, file).await?;
        }
        Ok(changed)
    }

    /// The end of the newest window of a tenant that was written, asked afresh.
    ///
    /// # Errors
    /// The table cannot be read.
    pub async fn health_reached(&self, tenant: &TenantId) -> Result<Option<Timestamp>, Error> {
        let Some(table) = self.table(SERVICE_HEALTH.name) else { return Ok(None) };
        let seconds = table.lock().await.reached(&app(tenant)).await?;
        Ok(seconds.map(|seconds| Timestamp::from_millis(i64::try_from(seconds).unwrap_or_default() * 1000)))
    }

    /// Writes how services fared in a tenant's windows (start, end, and a row for each service), once. The last of them is the newest.
    ///
    /// # Errors
    /// The table cannot be written now; trying again does no harm.
    pub async fn health(
        &self,
        tenant: &TenantId,
        windows: &[(Timestamp, Timestamp, Vec<ServiceHealth>)],
    ) -> Result<Landed, Error> {
        let mut days: BTreeMap<i64, Rows> = BTreeMap::new();
        for (start, end, facts) in windows {
            let seconds = (end.millis() - start.millis()) / 1000;
            let day = day_of(start.millis());
            for fact in facts {
                let own = [
                    Cell::Moment(micros(*start)),
                    Cell::Int(i32::try_from(seconds).unwrap_or(i32::MAX)),
                    Cell::Text(&fact.service),
                    double(fact.requests),
                    double(fact.errors),
                    double(fact.latency_p99),
                    double(fact.cpu),
                    double(fact.memory),
                    Cell::Int(i32::try_from(fact.breaches).unwrap_or(i32::MAX)),
                ];
                push(days.entry(day).or_insert_with(|| rows(&SERVICE_HEALTH, tenant, day)), &own)?;
            }
        }
        let Some((_, end, _)) = windows.last() else { return Ok(Landed::Before) };
        let files = days.into_values().map(Rows::finish).collect::<Result<Vec<DataFile>, _>>()?;
        let Some(table) = self.table(SERVICE_HEALTH.name) else { return Ok(Landed::Before) };
        let end = u64::try_from(end.millis() / 1000).unwrap_or_default();
        table.lock().await.append(&app(tenant), end, files).await
    }
}

fn app(tenant: &TenantId) -> String {
    format!("health-{tenant}")
}

fn rows(spec: &'static Spec, tenant: &TenantId, day: i64) -> Rows {
    Rows::new(spec, tenant.clone(), day)
}

/// These tables say nothing of the bus.
fn push(rows: &mut Rows, own: &[Cell<'_>]) -> Result<(), Error> {
    rows.push(own, &Lineage::of(0, Timestamp::from_millis(0)))
}

fn text(value: Option<&str>) -> Cell<'_> {
    value.map_or(Cell::Nothing, Cell::Text)
}

fn texts(values: &[String]) -> Vec<&str> {
    values.iter().map(String::as_str).collect()
}

fn double(value: Option<f64>) -> Cell<'static> {
    value.map_or(Cell::Nothing, Cell::Double)
}

fn incident_cells<'a>(
    incident: &'a IncidentFact,
    (key, id): (&'a str, Cell<'a>),
    services: &'a [&'a str],
) -> [Cell<'a>; 16] {
    let cause = incident.cause.as_ref();
    [
        Cell::Moment(micros(incident.opened_at)),
        Cell::Text(key),
        id,
        Cell::Text(&incident.title),
        Cell::Text(&incident.severity),
        Cell::Text(&incident.state),
        services.first().map_or(Cell::Nothing, |first| Cell::Text(first)),
        Cell::Texts(services),
        Cell::Text(&incident.trigger),
        Cell::Moment(micros(incident.began_at)),
        incident.settled_at.map_or(Cell::Nothing, |at| Cell::Moment(micros(at))),
        text(incident.outcome.as_deref()),
        cause.map_or(Cell::Nothing, |(service, ..)| Cell::Text(service)),
        cause.map_or(Cell::Nothing, |(_, kind, _)| Cell::Text(kind)),
        double(cause.map(|(.., confidence)| *confidence)),
        text(incident.verdict.as_deref()),
    ]
}

fn enrichment_cells<'a>(enrichment: &'a EnrichmentFact, (key, id): (&'a str, Cell<'a>)) -> [Cell<'a>; 8] {
    [
        Cell::Moment(micros(enrichment.at)),
        Cell::Text(key),
        id,
        Cell::Text(enrichment.id.split(':').next().unwrap_or_default()),
        Cell::Text(&enrichment.id),
        Cell::Text(&enrichment.service),
        Cell::Text(&enrichment.summary),
        Cell::Flag(enrichment.cited),
    ]
}

fn tool_cells<'a>(result: &'a ToolFact, (key, id): (&'a str, Cell<'a>)) -> [Cell<'a>; 14] {
    let [tool, operation, target] = &result.call;
    let approved = result.approved.as_ref();
    [
        Cell::Moment(micros(result.at)),
        Cell::Text(key),
        id,
        Cell::Text(&result.plan_sha256),
        Cell::Text(tool),
        Cell::Text(operation),
        Cell::Text(target),
        Cell::Text(&result.arguments),
        Cell::Text(&result.risk),
        Cell::Text(&result.runbook),
        approved.map_or(Cell::Nothing, |(who, _)| Cell::Text(who)),
        approved.map_or(Cell::Nothing, |(_, channel)| Cell::Text(channel)),
        text(result.outcome.as_deref()),
        text(result.undo.as_deref()),
    ]
}
