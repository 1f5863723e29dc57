//! Incidents: opened once, moved only along the transition table, each move with its history row and
//! audit entry in one transaction.

use sqlx::Row;
use wardroom_domain::audit::AuditEntry;
use wardroom_domain::{IncidentState, TenantId, Timestamp};

use crate::{Error, Store, audit};

/// An incident as stored.
#[derive(Clone, Debug)]
pub struct IncidentRow {
    /// Derived from what opened it.
    pub key: String,
    /// Whose.
    pub tenant: TenantId,
    /// `INC-<number>`, counted per tenant.
    pub number: i64,
    /// Where it stands.
    pub state: IncidentState,
    /// When it was opened (telemetry's time).
    pub opened_at: Timestamp,
    /// When it last changed (wall clock).
    pub updated_at: Timestamp,
    /// The workflow's own JSON.
    pub workflow: String,
}

impl IncidentRow {
    /// The name people see.
    pub fn id(&self) -> String {
        format!("INC-{}", self.number)
    }
}

/// One row of an incident's history.
#[derive(Clone, Debug)]
pub struct HistoryRow {
    /// When (wall clock).
    pub at: Timestamp,
    /// From which state; `None` for the opening.
    pub from: Option<IncidentState>,
    /// To which state.
    pub to: IncidentState,
    /// One line for a person.
    pub note: String,
}

/// One move of one incident.
#[derive(Clone, Debug)]
pub struct Transition<'a> {
    /// Whose.
    pub tenant: &'a TenantId,
    /// Which.
    pub key: &'a str,
    /// The state it must be in.
    pub from: IncidentState,
    /// The state it goes to.
    pub to: IncidentState,
    /// The workflow as it was read.
    pub before: &'a str,
    /// The workflow after the move.
    pub workflow: &'a str,
    /// One line for a person.
    pub note: &'a str,
    /// When (wall clock).
    pub at: Timestamp,
}

impl Store {
    /// Opens an incident, unless one with its key is there already (then `None`: a replay).
    ///
    /// # Errors
    /// The store's.
    pub async fn open_incident(
        &self,
        tenant: &TenantId,
        key: &str,
        opened_at: Timestamp,
        workflow: &str,
        now: Timestamp,
        entry: impl FnOnce(&str) -> AuditEntry,
    ) -> Result<Option<i64>, Error> {
        let mut transaction = self.write().await?;
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
        sqlx::query(query)
            .bind(key)
            .bind(tenant.as_str())
            .bind(number)
            .bind(opened_at.nanos())
            .bind(now.nanos())
            .bind(workflow)
            .execute(&mut *transaction)
            .await?;
        history(&mut transaction, tenant, key, now, None, IncidentState::Open, "opened").await?;
        audit::append(&mut transaction, &entry(&format!("INC-{number}"))).await?;
        transaction.commit().await?;
        Ok(Some(number))
    }

    /// Moves an incident. `false` if it is no longer in the state `from`, or its workflow is another: somebody else was
    /// there meanwhile.
    ///
    /// # Errors
    /// The store's; a move outside the transition table is a defect of the caller and refused.
    pub async fn transition(&self, step: &Transition<'_>, entry: &AuditEntry) -> Result<bool, Error> {
        if !step.from.may_become(step.to) {
            return Err(Error::damaged("a transition", format!("{} to {} is not in the table", step.from, step.to)));
        }
        let mut transaction = self.write().await?;
        let query = "UPDATE incidents SET state = ?, updated_at = ?, workflow = ?
            WHERE tenant = ? AND key = ? AND state = ? AND workflow = ?";
        let moved = sqlx::query(query)
            .bind(step.to.as_str())
            .bind(step.at.nanos())
            .bind(step.workflow)
            .bind(step.tenant.as_str())
            .bind(step.key)
            .bind(step.from.as_str())
            .bind(step.before)
            .execute(&mut *transaction)
            .await?;
        if moved.rows_affected() == 0 {
            return Ok(false);
        }
        history(&mut transaction, step.tenant, step.key, step.at, Some(step.from), step.to, step.note).await?;
        audit::append(&mut transaction, entry).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Saves a workflow that changed without a move. `false` if it is no longer the one `before`: whoever read that one
    /// must look again, or what was written meanwhile would be undone.
    ///
    /// # Errors
    /// The store's.
    pub async fn save_workflow(
        &self,
        tenant: &TenantId,
        key: &str,
        before: &str,
        workflow: &str,
        entry: &AuditEntry,
    ) -> Result<bool, Error> {
        let mut transaction = self.write().await?;
        let saved = "UPDATE incidents SET workflow = ?, updated_at = ? WHERE tenant = ? AND key = ? AND workflow = ?";
        let saved = sqlx::query(saved)
            .bind(workflow)
            .bind(entry.at.nanos())
            .bind(tenant.as_str())
            .bind(key)
            .bind(before)
            .execute(&mut *transaction)
            .await?;
        if saved.rows_affected() == 0 {
            return Ok(false);
        }
        audit::append(&mut transaction, entry).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Incidents of a tenant, newest first, with numbers below `before`.
    ///
    /// # Errors
    /// The store's.
    pub async fn incidents(&self, tenant: &TenantId, before: i64, limit: u32) -> Result<Vec<IncidentRow>, Error> {
        let query = "SELECT * FROM incidents WHERE tenant = ? AND number < ? ORDER BY number DESC LIMIT ?";
        let rows = sqlx::query(query).bind(tenant.as_str()).bind(before).bind(limit).fetch_all(&self.pool).await?;
        rows.iter().map(incident).collect()
    }

    /// Every incident, of all tenants, that may still move, or moved after `since`.
    ///
    /// # Errors
    /// The store's.
    pub async fn live_incidents(&self, since: Timestamp) -> Result<Vec<IncidentRow>, Error> {
        let query = "SELECT * FROM incidents
            WHERE state NOT IN ('resolved', 'suppressed', 'closed') OR updated_at >= ? ORDER BY number";
        let rows = sqlx::query(query).bind(since.nanos()).fetch_all(&self.pool).await?;
        rows.iter().map(incident).collect()
    }

    /// The incidents that a tenant opened from one moment until before another (telemetry's time), by number.
    ///
    /// # Errors
    /// The store's.
    pub async fn incidents_opened(
        &self,
        tenant: &TenantId,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<IncidentRow>, Error> {
        let query = "SELECT * FROM incidents WHERE tenant = ? AND opened_at >= ? AND opened_at < ? ORDER BY number";
        let query = sqlx::query(query).bind(tenant.as_str()).bind(from.nanos()).bind(to.nanos());
        query.fetch_all(&self.pool).await?.iter().map(incident).collect()
    }

    /// One incident by number.
    ///
    /// # Errors
    /// The store's.
    pub async fn incident(&self, tenant: &TenantId, number: i64) -> Result<Option<IncidentRow>, Error> {
        let query = "SELECT * FROM incidents WHERE tenant = ? AND number = ?";
        let row = sqlx::query(query).bind(tenant.as_str()).bind(number).fetch_optional(&self.pool).await?;
        row.as_ref().map(incident).transpose()
    }

    /// An incident's history, oldest first.
    ///
    /// # Errors
    /// The store's.
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

fn incident(row: &sqlx::sqlite::SqliteRow) -> Result<IncidentRow, Error> {
    let key: String = row.try_get("key")?;
    let state: String = row.try_get("state")?;
    let read = |detail: String| Error::damaged(format!("incident {key}"), detail);
    Ok(IncidentRow {
        tenant: TenantId::new(row.try_get::<String, _>("tenant")?).map_err(read)?,
        number: row.try_get("number")?,
        state: IncidentState::parse(&state).ok_or_else(|| Error::damaged(format!("incident {key}"), state))?,
        opened_at: Timestamp::from_nanos(row.try_get("opened_at")?),
        updated_at: Timestamp::from_nanos(row.try_get("updated_at")?),
        workflow: row.try_get("workflow")?,
        key,
    })
}

async fn history(
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
