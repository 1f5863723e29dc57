//! Dead letters and quarantined records: listing, replay and redrive.

use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use wardroom_api::DeadLetterView;
use wardroom_bus::{Bus, DeadLetter, DeadLetterReason, DeadLetters, Record, RecordLocation, read_dead_letters};
use wardroom_domain::{Envelope, Identity, Principal, Refusal, RefusalReason, TenantId, Timestamp};
use wardroom_edge::{Problem, Status};
use wardroom_lake::OutputFormat;
use wardroom_query::{Query, QueryPool};
use wardroom_sources::{Intake, redrive};
use wardroom_store::Store;

use super::lake_queries::lake_query_problem;
use crate::clock;
use wardroom_response::audit_entry;
use wardroom_response::problem_responses::{run_blocking, store_problem};

/// Group of the dead letters made of quarantined records that are accepted now.
const QUARANTINE_GROUP: &str = "quarantine";

/// Lists, replays and redrives for the API.
#[derive(Clone)]
pub(crate) struct DeadLetterBackend {
    pub(crate) dead_letters: Arc<DeadLetters>,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) store: Store,
    /// Validates quarantined records again.
    pub(crate) intake: Intake,
    pub(crate) queries: Option<Arc<QueryPool>>,
}

impl DeadLetterBackend {
    /// Lists the dead letters of a tenant, oldest first.
    pub(crate) async fn list(&self, tenant: TenantId) -> Result<Vec<DeadLetterView>, Problem> {
        let dead_letters = Arc::clone(&self.dead_letters);
        let found = run_blocking(move || dead_letters.list(&tenant)).await?;
        Ok(found.map_err(bus_problem)?.iter().map(dead_letter_view).collect())
    }

    /// Appends a dead letter to the bus again, at most once. Audited first: without an audit entry nothing is done.
    pub(crate) async fn replay(&self, caller: Identity, id: u64) -> Result<Option<u64>, Problem> {
        self.audit(&caller, "replay_dead_letter", json!({ "dead_letter": id })).await?;
        self.dead_letters.replay(&self.bus, &caller.tenant, id).await.map_err(bus_problem)
    }

    /// Validates the quarantined records of a request again. Accepted ones are stored as a dead letter that is replayed
    /// at once, so that repeated calls append them only once.
    pub(crate) async fn redrive(&self, caller: Identity, offset: u64) -> Result<Option<u64>, Problem> {
        self.audit(&caller, "redrive_quarantine", json!({ "offset": offset })).await?;
        let (dead_letters, tenant) = (Arc::clone(&self.dead_letters), caller.tenant.clone());
        let known = run_blocking(move || dead_letters.list(&tenant)).await?.map_err(bus_problem)?;
        let is_redriven =
            |letter: &&DeadLetter| letter.reason.group == QUARANTINE_GROUP && letter.reason.offset == offset;
        if let Some(letter) = known.iter().find(is_redriven) {
            return self.dead_letters.replay(&self.bus, &caller.tenant, letter.id).await.map_err(bus_problem);
        }
        let Some(mut record) = self.find_quarantined(&caller.tenant, offset).await? else { return Ok(None) };
        let (intake, refused) = (self.intake.clone(), record.clone());
        let validated = run_blocking(move || redrive(&intake, &refused.envelope, &refused.body));
        record.envelope = validated.await??;
        let (now, group) = (clock::now(), QUARANTINE_GROUP.to_owned());
        let reason = "redriven from quarantine".to_owned();
        let reason = DeadLetterReason { group, offset, reason, tries: 1, first_try: now, last_try: now };
        let id = self.dead_letters.add(reason, &record).await.map_err(bus_problem)?;
        self.dead_letters.replay(&self.bus, &caller.tenant, id).await.map_err(bus_problem)
    }

    /// Returns a tenant's request at an offset, if records of it were refused: from the bus, else from the quarantine
    /// table.
    async fn find_quarantined(&self, tenant: &TenantId, offset: u64) -> Result<Option<Record>, Problem> {
        let bus = Arc::clone(&self.bus);
        let found = run_blocking(move || bus.find(offset)).await?.map_err(bus_problem)?;
        let found = found.filter(|record| record.envelope.tenant == *tenant);
        if found.as_ref().is_some_and(has_refused_records) {
            return Ok(found);
        }
        let Some(queries) = self.queries.as_ref() else { return Ok(found) };
        let query = format!(
            "SELECT principal, protocol, CAST(ts AS BIGINT) AS us, reason, \"first\", \"last\", payload \
             FROM silver.quarantine WHERE \"offset\" = {offset}"
        );
        let rows = queries.run(tenant, Query::Sql(query), OutputFormat::Json).await.map_err(lake_query_problem)?;
        let rows: Vec<QuarantineRow> = serde_json::from_slice(&rows).map_err(|error| damaged(&error))?;
        let Some(first) = rows.first() else { return Ok(None) };
        if found.is_some() {
            return Ok(found);
        }
        let Some(body) = first.payload.clone() else {
            let detail = "the request is past its retention: see bus.retention-hours and bus.rest-hours";
            return Err(Problem::new(Status::GONE, "gone", detail));
        };
        let envelope = Envelope {
            tenant: tenant.clone(),
            principal: Principal::new(&first.principal).map_err(|error| damaged(&error))?,
            protocol: first.protocol.clone(),
            content_type: "application/json".to_owned(),
            content_encoding: String::new(),
            received_at: Timestamp::from_nanos(first.us.saturating_mul(1000)),
            refused: rows.iter().filter_map(QuarantineRow::refusal).collect(),
            has_events: true,
        };
        let location = RecordLocation { segment: 0, position: 0, bytes: 0, sha256: [0; 32], size: 0 };
        Ok(Some(Record { offset, envelope, body: body.into(), location }))
    }

    async fn audit(&self, caller: &Identity, action: &str, decision: Value) -> Result<(), Problem> {
        let mut audit = audit_entry(&caller.tenant, "operator", None, action, decision, clock::now());
        audit.principal = caller.principal.clone();
        self.store.append_audit(&audit).await.map_err(store_problem).map(drop)
    }
}

/// Whether a request on the bus says itself that records of it were refused. The table, which has the requests that
/// could not be decoded as well, follows the bus by about a second, and after a restart begins without its newest rows.
fn has_refused_records(record: &Record) -> bool {
    record.envelope.refused.iter().any(|refusal| refusal.reason != RefusalReason::AlreadyAccepted)
}

/// A row of `silver.quarantine`.
#[derive(Deserialize)]
struct QuarantineRow {
    principal: String,
    protocol: String,
    /// Time of arrival, in µs.
    us: i64,
    reason: String,
    first: u32,
    last: u32,
    payload: Option<String>,
}

impl QuarantineRow {
    /// Returns which records were refused; `None` if the whole request was.
    fn refusal(&self) -> Option<Refusal> {
        let reason = serde_json::from_value(Value::String(self.reason.clone())).ok()?;
        Some(Refusal { first: self.first, last: self.last, reason, detail: String::new() })
    }
}

/// Lists the dead letters of a data folder, with or without a server running on it.
///
/// # Errors
/// Returns an error if the files cannot be read.
pub fn dead_letters(data: &Path, tenant: &TenantId) -> Result<Vec<DeadLetterView>, wardroom_bus::Error> {
    Ok(read_dead_letters(&data.join("dead-letters"), tenant)?.iter().map(dead_letter_view).collect())
}

fn dead_letter_view(letter: &DeadLetter) -> DeadLetterView {
    DeadLetterView {
        id: letter.id,
        group: letter.reason.group.clone(),
        offset: letter.reason.offset,
        reason: letter.reason.reason.clone(),
        tries: letter.reason.tries,
        first_try: letter.reason.first_try,
        last_try: letter.reason.last_try,
        protocol: letter.envelope.protocol.clone(),
        principal: letter.envelope.principal.to_string(),
        received_at: letter.envelope.received_at,
        bytes: letter.body.len(),
        replayed_as: letter.replayed_as,
    }
}

fn damaged(error: &dyn std::fmt::Display) -> Problem {
    Problem::unavailable("lake_unavailable", format!("silver.quarantine cannot be read: {error}"))
}

fn bus_problem(error: wardroom_bus::Error) -> Problem {
    Problem::unavailable("storage_unavailable", error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_with_refused_records_needs_no_table() {
        let record = |reasons: &[RefusalReason]| {
            let refusal =
                |reason: &RefusalReason| Refusal { first: 0, last: 0, reason: *reason, detail: String::new() };
            let envelope = Envelope {
                tenant: TenantId::main(),
                principal: Principal::wardroom(),
                protocol: "json_logs".into(),
                content_type: String::new(),
                content_encoding: String::new(),
                received_at: Timestamp::from_millis(0),
                refused: reasons.iter().map(refusal).collect(),
                has_events: true,
            };
            let location = RecordLocation { segment: 0, position: 0, bytes: 0, sha256: [0; 32], size: 0 };
            Record { offset: 1, envelope, body: Vec::new().into(), location }
        };
        let (old, accepted) = (RefusalReason::TooOld, RefusalReason::AlreadyAccepted);
        for (reasons, expected) in [(&[][..], false), (&[accepted], false), (&[old], true), (&[accepted, old], true)] {
            assert_eq!(has_refused_records(&record(reasons)), expected, "{reasons:?}");
        }
    }
}
