//! Incidents: opened once per key and moved only along the transition table. Each change, its history row and its
//! audit entry are one transaction.

use wardroom_domain::audit::AuditEntry;
use wardroom_domain::{IncidentState, TenantId, Timestamp};

use crate::audit;
use crate::database::{Row, Target, Transaction, query};
use crate::effects::{self, Changes};
use crate::error::Error;
use crate::store::Store;

/// An incident as stored.
#[derive(Clone, Debug)]
pub struct IncidentRow {
    /// Key derived from what opened the incident.
    pub key: String,
    /// The tenant.
    pub tenant: TenantId,
    /// Number in `INC-<number>`, counted per tenant.
    pub number: i64,
    /// Current state.
    pub state: IncidentState,
    /// Time of opening, by the telemetry's clock.
    pub opened_at: Timestamp,
    /// Time of the last change, by the wall clock.
    pub updated_at: Timestamp,
    /// Number of changes since the opening.
    pub revision: i64,
    /// The workflow as JSON, in its owner's format.
    pub workflow: String,
}

impl IncidentRow {
    /// Returns the public id, `INC-<number>`.
    pub fn id(&self) -> String {
        format!("INC-{}", self.number)
    }
}

/// One row of an incident's history.
#[derive(Clone, Debug)]
pub struct HistoryRow {
    /// Time, by the wall clock.
    pub at: Timestamp,
    /// Previous state; `None` for the opening.
    pub from: Option<IncidentState>,
    /// New state.
    pub to: IncidentState,
    /// One-line explanation for people.
    pub note: String,
}

/// A state transition of an incident.
#[derive(Clone, Debug)]
pub struct Transition<'a> {
    /// The tenant.
    pub tenant: &'a TenantId,
    /// The incident's key.
    pub key: &'a str,
    /// State that the incident must be in.
    pub from: IncidentState,
    /// State after the transition.
    pub to: IncidentState,
    /// The workflow as read; the transition fails if it has changed since.
    pub before: &'a str,
    /// The workflow after the transition.
    pub workflow: &'a str,
    /// One-line explanation for people.
    pub note: &'a str,
    /// Time, by the wall clock.
    pub at: Timestamp,
    /// What is written in the same transaction.
    pub changes: &'a Changes,
}

/// Which incident changed last, without what it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IncidentRevision {
    /// The tenant.
    pub tenant: TenantId,
    /// The incident's key.
    pub key: String,
    /// Current state.
    pub state: IncidentState,
    /// Time of opening, by the telemetry's clock.
    pub opened_at: Timestamp,
    /// Time of the last change, by the wall clock.
    pub updated_at: Timestamp,
    /// Number of changes since the opening.
    pub revision: i64,
}

impl Store {
    /// Opens an incident and returns its number, or `None` if one with this key exists (a replay).
    ///
    /// # Errors
    /// Returns an error if the database cannot be written.
    pub async fn open_incident(
        &self,
        tenant: &TenantId,
        key: &str,
        opened_at: Timestamp,
        workflow: &str,
        now: Timestamp,
        entry: impl FnOnce(&str) -> AuditEntry,
    ) -> Result<Option<i64>, Error> {
        let mut transaction = self.begin_write().await?;
        let known = query("SELECT number FROM incidents WHERE tenant = $1 AND key = $2")
            .bind(tenant.as_str())
            .bind(key)
            .fetch_optional(&mut transaction)
            .await?;
        if known.is_some() {
            return Ok(None);
        }
        let number = next_number(&mut transaction, tenant).await?;
        let incident = NewIncident { key, number, opened_at, workflow };
        self.record_write(insert_incident(&mut transaction, tenant, &incident, now, "opened").await)?;
        self.record_write(audit::append(&mut transaction, &entry(&format!("INC-{number}"))).await)?;
        self.commit_incident_change(transaction).await?;
        Ok(Some(number))
    }

    /// Moves an incident to another state. Returns `false` if its state or workflow has changed since it was read
    /// (optimistic concurrency).
    ///
    /// # Errors
    /// Returns an error if the database cannot be written, if the transition is not in the transition table, or if an
    /// effect is finished whose lease another worker has; then nothing is written.
    pub async fn transition(&self, transition: &Transition<'_>, entry: &AuditEntry) -> Result<bool, Error> {
        if !transition.from.can_transition_to(transition.to) {
            return Err(Error::InvalidTransition { from: transition.from, to: transition.to });
        }
        let mut transaction = self.begin_write().await?;
        let update = "UPDATE incidents SET state = $1, updated_at = $2, workflow = $3, revision = revision + 1
            WHERE tenant = $4 AND key = $5 AND state = $6 AND workflow = $7";
        let updated = query(update)
            .bind(transition.to.as_str())
            .bind(transition.at.nanos())
            .bind(transition.workflow)
            .bind(transition.tenant.as_str())
            .bind(transition.key)
            .bind(transition.from.as_str())
            .bind(transition.before)
            .execute(&mut transaction)
            .await;
        if self.record_write(updated)? == 0 {
            return Ok(false);
        }
        let history = append_history(
            &mut transaction,
            transition.tenant,
            transition.key,
            transition.at,
            Some(transition.from),
            transition.to,
            transition.note,
        )
        .await;
        self.record_write(history)?;
        self.record_write(audit::append(&mut transaction, entry).await)?;
        let (tenant, key) = (transition.tenant, transition.key);
        let written = effects::write(&mut transaction, tenant, key, transition.changes, transition.at).await;
        self.record_write(written)?;
        self.commit_incident_change(transaction).await?;
        Ok(true)
    }

    /// Saves a workflow without changing the state. Returns `false` if the stored workflow is no longer `before`: the
    /// caller must read it again, or it would overwrite a concurrent change.
    ///
    /// # Errors
    /// Returns an error if the database cannot be written.
    pub async fn save_workflow(
        &self,
        tenant: &TenantId,
        key: &str,
        before: &str,
        workflow: &str,
        changes: &Changes,
        entry: &AuditEntry,
    ) -> Result<bool, Error> {
        let mut transaction = self.begin_write().await?;
        let update = "UPDATE incidents SET workflow = $1, updated_at = $2, revision = revision + 1
            WHERE tenant = $3 AND key = $4 AND workflow = $5";
        let updated = query(update)
            .bind(workflow)
            .bind(entry.at.nanos())
            .bind(tenant.as_str())
            .bind(key)
            .bind(before)
            .execute(&mut transaction)
            .await;
        if self.record_write(updated)? == 0 {
            return Ok(false);
        }
        self.record_write(audit::append(&mut transaction, entry).await)?;
        self.record_write(effects::write(&mut transaction, tenant, key, changes, entry.at).await)?;
        self.commit_incident_change(transaction).await?;
        Ok(true)
    }

    /// Returns at most `limit` incidents of a tenant with numbers below `before`, newest first.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read or a row is damaged.
    pub async fn incidents(&self, tenant: &TenantId, before: i64, limit: u32) -> Result<Vec<IncidentRow>, Error> {
        let select = "SELECT * FROM incidents WHERE tenant = $1 AND number < $2 ORDER BY number DESC LIMIT $3";
        let select = query(select).bind(tenant.as_str()).bind(before).bind(i64::from(limit));
        select.fetch_all(&self.database).await?.iter().map(decode_incident).collect()
    }

    /// Returns the incidents of all tenants that are not in a final state or were updated at or after `since`.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read or a row is damaged.
    pub async fn live_incidents(&self, since: Timestamp) -> Result<Vec<IncidentRow>, Error> {
        let select = "SELECT * FROM incidents
            WHERE state NOT IN ('resolved', 'suppressed', 'closed') OR updated_at >= $1 ORDER BY number";
        let rows = query(select).bind(since.nanos()).fetch_all(&self.database).await?;
        rows.iter().map(decode_incident).collect()
    }

    /// Returns the revisions of all incidents that are not settled, and of the escalated ones that were updated at or
    /// after `since`: those that the response may still change by itself. Reads no workflow.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read or a row is damaged.
    pub async fn unsettled_revisions(&self, since: Timestamp) -> Result<Vec<IncidentRevision>, Error> {
        let select = "SELECT tenant, key, state, opened_at, updated_at, revision FROM incidents
            WHERE state NOT IN ('resolved', 'suppressed', 'closed') AND (state <> 'escalated' OR updated_at >= $1)";
        let rows = query(select).bind(since.nanos()).fetch_all(&self.database).await?;
        rows.iter().map(decode_revision).collect()
    }

    /// Returns the revisions of the incidents of all tenants that were changed at or after `since`, in any state. Reads
    /// no workflow, and nothing of the others.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read or a row is damaged.
    pub async fn revisions_since(&self, since: Timestamp) -> Result<Vec<IncidentRevision>, Error> {
        let select = "SELECT tenant, key, state, opened_at, updated_at, revision FROM incidents
            WHERE updated_at >= $1";
        let rows = query(select).bind(since.nanos()).fetch_all(&self.database).await?;
        rows.iter().map(decode_revision).collect()
    }

    /// Returns the incidents of a tenant opened in `from..to` by the telemetry's clock, ordered by number.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read or a row is damaged.
    pub async fn incidents_opened(
        &self,
        tenant: &TenantId,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<IncidentRow>, Error> {
        let select = "SELECT * FROM incidents WHERE tenant = $1 AND opened_at >= $2 AND opened_at < $3 ORDER BY number";
        let select = query(select).bind(tenant.as_str()).bind(from.nanos()).bind(to.nanos());
        select.fetch_all(&self.database).await?.iter().map(decode_incident).collect()
    }

    /// Returns one incident by number.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read or the row is damaged.
    pub async fn incident(&self, tenant: &TenantId, number: i64) -> Result<Option<IncidentRow>, Error> {
        let select = "SELECT * FROM incidents WHERE tenant = $1 AND number = $2";
        let row = query(select).bind(tenant.as_str()).bind(number).fetch_optional(&self.database).await?;
        row.as_ref().map(decode_incident).transpose()
    }

    /// Returns one incident by key.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read or the row is damaged.
    pub async fn incident_by_key(&self, tenant: &TenantId, key: &str) -> Result<Option<IncidentRow>, Error> {
        let select = "SELECT * FROM incidents WHERE tenant = $1 AND key = $2";
        let row = query(select).bind(tenant.as_str()).bind(key).fetch_optional(&self.database).await?;
        row.as_ref().map(decode_incident).transpose()
    }

    /// Returns the history of an incident, oldest first.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read or a row is damaged.
    pub async fn history(&self, tenant: &TenantId, key: &str) -> Result<Vec<HistoryRow>, Error> {
        let select = "SELECT at, from_state, to_state, note FROM history WHERE tenant = $1 AND incident = $2
            ORDER BY sequence";
        let rows = query(select).bind(tenant.as_str()).bind(key).fetch_all(&self.database).await?;
        rows.iter()
            .map(|row| {
                let to: String = row.get("to_state")?;
                Ok(HistoryRow {
                    at: Timestamp::from_nanos(row.get("at")?),
                    from: row.get::<Option<String>>("from_state")?.and_then(|word| IncidentState::parse(&word)),
                    to: IncidentState::parse(&to).ok_or_else(|| Error::damaged("a history row", to))?,
                    note: row.get("note")?,
                })
            })
            .collect()
    }
}

/// An incident that is inserted.
pub(crate) struct NewIncident<'a> {
    pub(crate) key: &'a str,
    pub(crate) number: i64,
    pub(crate) opened_at: Timestamp,
    pub(crate) workflow: &'a str,
}

/// Returns the number of the tenant's next incident.
pub(crate) async fn next_number<'a>(target: impl Into<Target<'a>>, tenant: &TenantId) -> Result<i64, Error> {
    let select = "SELECT COALESCE(MAX(number), 0) + 1 AS next FROM incidents WHERE tenant = $1";
    Ok(query(select).bind(tenant.as_str()).fetch_one(target).await?.get("next")?)
}

/// Inserts an incident with the first row of its history.
pub(crate) async fn insert_incident(
    transaction: &mut Transaction,
    tenant: &TenantId,
    incident: &NewIncident<'_>,
    now: Timestamp,
    note: &str,
) -> Result<(), Error> {
    let insert = "INSERT INTO incidents (key, tenant, number, state, opened_at, updated_at, workflow)
        VALUES ($1, $2, $3, 'open', $4, $5, $6)";
    query(insert)
        .bind(incident.key)
        .bind(tenant.as_str())
        .bind(incident.number)
        .bind(incident.opened_at.nanos())
        .bind(now.nanos())
        .bind(incident.workflow)
        .execute(&mut *transaction)
        .await?;
    append_history(transaction, tenant, incident.key, now, None, IncidentState::Open, note).await
}

fn decode_revision(row: &Row) -> Result<IncidentRevision, Error> {
    let damaged = |detail: String| Error::damaged("an incident", detail);
    let state: String = row.get("state")?;
    Ok(IncidentRevision {
        tenant: TenantId::new(row.get::<String>("tenant")?).map_err(damaged)?,
        key: row.get("key")?,
        state: IncidentState::parse(&state).ok_or_else(|| damaged(state))?,
        opened_at: Timestamp::from_nanos(row.get("opened_at")?),
        updated_at: Timestamp::from_nanos(row.get("updated_at")?),
        revision: row.get("revision")?,
    })
}

pub(crate) fn decode_incident(row: &Row) -> Result<IncidentRow, Error> {
    let key: String = row.get("key")?;
    let state: String = row.get("state")?;
    let damaged = |detail: String| Error::damaged(format!("incident {key}"), detail);
    let revision = match row.get("revision") {
        // A database of an earlier version, which is only read.
        Err(sqlx::Error::ColumnNotFound(_)) => 0,
        revision => revision?,
    };
    Ok(IncidentRow {
        tenant: TenantId::new(row.get::<String>("tenant")?).map_err(damaged)?,
        number: row.get("number")?,
        state: IncidentState::parse(&state).ok_or_else(|| Error::damaged(format!("incident {key}"), state))?,
        opened_at: Timestamp::from_nanos(row.get("opened_at")?),
        updated_at: Timestamp::from_nanos(row.get("updated_at")?),
        revision,
        workflow: row.get("workflow")?,
        key,
    })
}

pub(crate) async fn append_history(
    transaction: &mut Transaction,
    tenant: &TenantId,
    key: &str,
    at: Timestamp,
    from: Option<IncidentState>,
    to: IncidentState,
    note: &str,
) -> Result<(), Error> {
    let insert = "INSERT INTO history (tenant, incident, sequence, at, from_state, to_state, note)
        SELECT $1, $2, COUNT(*), $3, $4, $5, $6 FROM history WHERE tenant = $1 AND incident = $2";
    query(insert)
        .bind(tenant.as_str())
        .bind(key)
        .bind(at.nanos())
        .bind(from.map(IncidentState::as_str))
        .bind(to.as_str())
        .bind(note)
        .execute(transaction)
        .await?;
    Ok(())
}
