//! Incidents: opened once per key and moved only along the transition table. Each change, its history row and its
//! audit entry are one transaction.

use sqlx::Row;
use wardroom_domain::audit::AuditEntry;
use wardroom_domain::{IncidentState, TenantId, Timestamp};

use crate::audit;
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
        let known = sqlx::query("SELECT 1 FROM incidents WHERE tenant = ? AND key = ?")
            .bind(tenant.as_str())
            .bind(key)
            .fetch_optional(&mut *transaction)
            .await?;
        if known.is_some() {
            return Ok(None);
        }
        let number: i64 = sqlx::query("SELECT COALESCE(MAX(number), 0) + 1 AS next FROM incidents WHERE tenant = ?")
            .bind(tenant.as_str())
            .fetch_one(&mut *transaction)
            .await?
            .try_get("next")?;
        let query = "INSERT INTO incidents (key, tenant, number, state, opened_at, updated_at, workflow)
            VALUES (?, ?, ?, 'open', ?, ?, ?)";
        let inserted = sqlx::query(query)
            .bind(key)
            .bind(tenant.as_str())
            .bind(number)
            .bind(opened_at.nanos())
            .bind(now.nanos())
            .bind(workflow)
            .execute(&mut *transaction)
            .await;
        self.record_write(inserted)?;
        let history = append_history(&mut transaction, tenant, key, now, None, IncidentState::Open, "opened").await;
        self.record_write(history)?;
        self.record_write(audit::append(&mut transaction, &entry(&format!("INC-{number}"))).await)?;
        self.commit_incident_change(transaction).await?;
        Ok(Some(number))
    }

    /// Moves an incident to another state. Returns `false` if its state or workflow has changed since it was read
    /// (optimistic concurrency).
    ///
    /// # Errors
    /// Returns an error if the database cannot be written, or if the transition is not in the transition table.
    pub async fn transition(&self, transition: &Transition<'_>, entry: &AuditEntry) -> Result<bool, Error> {
        if !transition.from.can_transition_to(transition.to) {
            return Err(Error::InvalidTransition { from: transition.from, to: transition.to });
        }
        let mut transaction = self.begin_write().await?;
        let query = "UPDATE incidents SET state = ?, updated_at = ?, workflow = ?
            WHERE tenant = ? AND key = ? AND state = ? AND workflow = ?";
        let updated = sqlx::query(query)
            .bind(transition.to.as_str())
            .bind(transition.at.nanos())
            .bind(transition.workflow)
            .bind(transition.tenant.as_str())
            .bind(transition.key)
            .bind(transition.from.as_str())
            .bind(transition.before)
            .execute(&mut *transaction)
            .await;
        if self.record_write(updated)?.rows_affected() == 0 {
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
        entry: &AuditEntry,
    ) -> Result<bool, Error> {
        let mut transaction = self.begin_write().await?;
        let query = "UPDATE incidents SET workflow = ?, updated_at = ? WHERE tenant = ? AND key = ? AND workflow = ?";
        let updated = sqlx::query(query)
            .bind(workflow)
            .bind(entry.at.nanos())
            .bind(tenant.as_str())
            .bind(key)
            .bind(before)
            .execute(&mut *transaction)
            .await;
        if self.record_write(updated)?.rows_affected() == 0 {
            return Ok(false);
        }
        self.record_write(audit::append(&mut transaction, entry).await)?;
        self.commit_incident_change(transaction).await?;
        Ok(true)
    }

    /// Returns at most `limit` incidents of a tenant with numbers below `before`, newest first.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read or a row is damaged.
    pub async fn incidents(&self, tenant: &TenantId, before: i64, limit: u32) -> Result<Vec<IncidentRow>, Error> {
        let query = "SELECT * FROM incidents WHERE tenant = ? AND number < ? ORDER BY number DESC LIMIT ?";
        let rows = sqlx::query(query).bind(tenant.as_str()).bind(before).bind(limit).fetch_all(&self.pool).await?;
        rows.iter().map(decode_incident).collect()
    }

    /// Returns the incidents of all tenants that are not in a final state or were updated at or after `since`.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read or a row is damaged.
    pub async fn live_incidents(&self, since: Timestamp) -> Result<Vec<IncidentRow>, Error> {
        let query = "SELECT * FROM incidents
            WHERE state NOT IN ('resolved', 'suppressed', 'closed') OR updated_at >= ? ORDER BY number";
        let rows = sqlx::query(query).bind(since.nanos()).fetch_all(&self.pool).await?;
        rows.iter().map(decode_incident).collect()
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
        let query = "SELECT * FROM incidents WHERE tenant = ? AND opened_at >= ? AND opened_at < ? ORDER BY number";
        let query = sqlx::query(query).bind(tenant.as_str()).bind(from.nanos()).bind(to.nanos());
        query.fetch_all(&self.pool).await?.iter().map(decode_incident).collect()
    }

    /// Returns one incident by number.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read or the row is damaged.
    pub async fn incident(&self, tenant: &TenantId, number: i64) -> Result<Option<IncidentRow>, Error> {
        let query = "SELECT * FROM incidents WHERE tenant = ? AND number = ?";
        let row = sqlx::query(query).bind(tenant.as_str()).bind(number).fetch_optional(&self.pool).await?;
        row.as_ref().map(decode_incident).transpose()
    }

    /// Returns one incident by key.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read or the row is damaged.
    pub async fn incident_by_key(&self, tenant: &TenantId, key: &str) -> Result<Option<IncidentRow>, Error> {
        let query = "SELECT * FROM incidents WHERE tenant = ? AND key = ?";
        let row = sqlx::query(query).bind(tenant.as_str()).bind(key).fetch_optional(&self.pool).await?;
        row.as_ref().map(decode_incident).transpose()
    }

    /// Returns the history of an incident, oldest first.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read or a row is damaged.
    pub async fn history(&self, tenant: &TenantId, key: &str) -> Result<Vec<HistoryRow>, Error> {
        let query = "SELECT at, from_state, to_state, note FROM history WHERE tenant = ? AND incident = ?
            ORDER BY sequence";
        let rows = sqlx::query(query).bind(tenant.as_str()).bind(key).fetch_all(&self.pool).await?;
        rows.iter()
            .map(|row| {
                let to: String = row.try_get("to_state")?;
                Ok(HistoryRow {
                    at: Timestamp::from_nanos(row.try_get("at")?),
                    from: row.try_get::<Option<String>, _>("from_state")?.and_then(|word| IncidentState::parse(&word)),
                    to: IncidentState::parse(&to).ok_or_else(|| Error::damaged("a history row", to))?,
                    note: row.try_get("note")?,
                })
            })
            .collect()
    }
}

fn decode_incident(row: &sqlx::sqlite::SqliteRow) -> Result<IncidentRow, Error> {
    let key: String = row.try_get("key")?;
    let state: String = row.try_get("state")?;
    let damaged = |detail: String| Error::damaged(format!("incident {key}"), detail);
    Ok(IncidentRow {
        tenant: TenantId::new(row.try_get::<String, _>("tenant")?).map_err(damaged)?,
        number: row.try_get("number")?,
        state: IncidentState::parse(&state).ok_or_else(|| Error::damaged(format!("incident {key}"), state))?,
        opened_at: Timestamp::from_nanos(row.try_get("opened_at")?),
        updated_at: Timestamp::from_nanos(row.try_get("updated_at")?),
        workflow: row.try_get("workflow")?,
        key,
    })
}

async fn append_history(
    connection: &mut sqlx::SqliteConnection,
    tenant: &TenantId,
    key: &str,
    at: Timestamp,
    from: Option<IncidentState>,
    to: IncidentState,
    note: &str,
) -> Result<(), Error> {
    let query = "INSERT INTO history (tenant, incident, sequence, at, from_state, to_state, note)
        SELECT ?, ?, COUNT(*), ?, ?, ?, ? FROM history WHERE tenant = ? AND incident = ?";
    sqlx::query(query)
        .bind(tenant.as_str())
        .bind(key)
        .bind(at.nanos())
        .bind(from.map(IncidentState::as_str))
        .bind(to.as_str())
        .bind(note)
        .bind(tenant.as_str())
        .bind(key)
        .execute(connection)
        .await?;
    Ok(())
}
