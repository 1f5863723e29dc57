//! Dead letters as people see them.

use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use wardroom_api::DeadLetterView;
use wardroom_bus::{Bus, DeadLetter, DeadLetters, Place, Reason, Record};
use wardroom_domain::{Envelope, Identity, Principal, Refusal, TenantId, Timestamp};
use wardroom_edge::Problem;
use wardroom_lake::{Form, Queries};
use wardroom_sources::{Intake, redrive};
use wardroom_store::Store;

use super::status;
use super::tables::problem as tables;
use crate::clock;
use crate::respond::entry;

/// The group of those that come out of quarantine.
const QUARANTINE: &str = "quarantine";

/// Where letters are kept and where they go.
#[derive(Clone)]
pub(crate) struct Letters {
    pub(crate) letters: Arc<DeadLetters>,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) store: Store,
    /// The gate that refused records pass once more.
    pub(crate) intake: Intake,
    pub(crate) queries: Option<Arc<Queries>>,
}

impl Letters {
    pub(crate) async fn list(&self, tenant: TenantId) -> Result<Vec<DeadLetterView>, Problem> {
        let letters = Arc::clone(&self.letters);
        let found = blocking(move || letters.list(&tenant)).await?;
        Ok(found.map_err(storage)?.iter().map(view).collect())
    }

    /// Writes it into the audit book first: without an entry nothing is done.
    pub(crate) async fn replay(&self, who: Identity, id: u64) -> Result<Option<u64>, Problem> {
        self.audit(&who, "replay_dead_letter", serde_json::json!({ "dead_letter": id })).await?;
        self.letters.replay(&self.bus, &who.tenant, id).await.map_err(storage)
    }

    /// Judges the refused records of a request again. Those that pass become a letter that is put on the bus at once, so they
    /// land once however often this is asked.
    pub(crate) async fn redrive(&self, who: Identity, offset: u64) -> Result<Option<u64>, Problem> {
        self.audit(&who, "redrive_quarantine", serde_json::json!({ "offset": offset })).await?;
        let (letters, tenant) = (Arc::clone(&self.letters), who.tenant.clone());
        let known = blocking(move || letters.list(&tenant)).await?.map_err(storage)?;
        let known = known.iter().find(|letter| letter.reason.group == QUARANTINE && letter.reason.offset == offset);
        if let Some(letter) = known {
            return self.letters.replay(&self.bus, &who.tenant, letter.id).await.map_err(storage);
        }
        let Some(mut record) = self.refused(&who.tenant, offset).await? else { return Ok(None) };
        let (intake, refused) = (self.intake.clone(), record.clone());
        let judged = blocking(move || redrive(&intake, &refused.envelope, &refused.body));
        record.envelope = judged.await??;
        let (now, reason) = (clock::now(), "out of quarantine".to_owned());
        let reason = Reason { group: QUARANTINE.to_owned(), offset, reason, tries: 1, first_try: now, last_try: now };
        let letter = self.letters.bury(reason, &record).await.map_err(storage)?;
        self.letters.replay(&self.bus, &who.tenant, letter).await.map_err(storage)
    }

    /// The request of a tenant at an offset, if records of it were refused: from the bus, or as quarantine has it.
    async fn refused(&self, tenant: &TenantId, offset: u64) -> Result<Option<Record>, Problem> {
        let bus = Arc::clone(&self.bus);
        let found = blocking(move || bus.find(offset)).await?.map_err(storage)?;
        let found = found.filter(|record| record.envelope.tenant == *tenant);
        let Some(queries) = self.queries.as_ref() else { return Ok(found) };
        let query = format!(
            "SELECT principal, protocol, CAST(ts AS BIGINT) AS us, reason, \"first\", \"last\", payload \
             FROM silver.quarantine WHERE \"offset\" = {offset}"
        );
        let rows = queries.ask(tenant, &query, Form::Json).await.map_err(tables)?;
        let rows: Vec<Quarantined> = serde_json::from_slice(&rows).map_err(|error| damaged(&error))?;
        let Some(first) = rows.first() else { return Ok(None) };
        if found.is_some() {
            return Ok(found);
        }
        let Some(body) = first.payload.clone() else {
            let detail = "the request is no longer kept: see bus.retention-hours and bus.rest-hours";
            return Err(Problem::new(status(410), "gone", detail));
        };
        let envelope = Envelope {
            tenant: tenant.clone(),
            principal: Principal::new(&first.principal).map_err(|error| damaged(&error))?,
            protocol: first.protocol.clone(),
            content_type: "application/json".to_owned(),
            content_encoding: String::new(),
            received_at: Timestamp::from_nanos(first.us.saturating_mul(1000)),
            refused: rows.iter().filter_map(Quarantined::refusal).collect(),
            events: true,
        };
        let place = Place { segment: 0, position: 0, bytes: 0, sha256: [0; 32], size: 0 };
        Ok(Some(Record { offset, envelope, body: body.into(), place }))
    }

    async fn audit(&self, who: &Identity, action: &str, decision: Value) -> Result<(), Problem> {
        let mut audit = entry(&who.tenant, "operator", None, action, decision, clock::now());
        audit.principal = who.principal.clone();
        let audited = self.store.audit(&audit).await;
        audited.map_err(|error| Problem::unavailable("state_store_unavailable", error.to_string())).map(drop)
    }
}

/// A row of `silver.quarantine`.
#[derive(Deserialize)]
struct Quarantined {
    principal: String,
    protocol: String,
    us: i64,
    reason: String,
    first: u32,
    last: u32,
    payload: Option<String>,
}

impl Quarantined {
    /// Which records it is about; nothing if it is about the whole request.
    fn refusal(&self) -> Option<Refusal> {
        let reason = serde_json::from_value(Value::String(self.reason.clone())).ok()?;
        Some(Refusal { first: self.first, last: self.last, reason, detail: String::new() })
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Problem::unavailable("unreadable", error.to_string()))
}

fn damaged(error: &dyn std::fmt::Display) -> Problem {
    Problem::unavailable("lake_unavailable", format!("silver.quarantine cannot be read: {error}"))
}

/// The letters of a data folder, beside a running server or without one.
///
/// # Errors
/// The disk's.
pub fn dead_letters(data: &Path, tenant: &TenantId) -> Result<Vec<DeadLetterView>, wardroom_bus::Error> {
    Ok(wardroom_bus::dead_letters(&data.join("dead-letters"), tenant)?.iter().map(view).collect())
}

fn view(letter: &DeadLetter) -> DeadLetterView {
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

fn storage(error: wardroom_bus::Error) -> Problem {
    Problem::unavailable("storage_unavailable", error.to_string())
}
