//! Splits of incidents: the change of the one and the opening of the other are one transaction.
//!
//! Each names the other, so the number of the new one is read first; the transaction fails if it was taken meanwhile.

use wardroom_domain::audit::AuditEntry;
use wardroom_domain::{IncidentState, TenantId, Timestamp};

use crate::audit;
use crate::database::{Transaction, query};
use crate::effects::{self, Changes};
use crate::error::Error;
use crate::incidents::{IncidentRow, NewIncident, append_history, insert_incident, next_number};
use crate::store::Store;

/// What the split of an incident writes.
#[derive(Clone, Debug)]
pub struct IncidentSplit<'a> {
    /// The incident as read; nothing is written if it has changed since.
    pub before: &'a IncidentRow,
    /// Its workflow after the split.
    pub workflow: &'a str,
    /// Its new state and the note for its history; `None` if the state stays.
    pub transition: Option<(IncidentState, &'a str)>,
    /// What is written with its change.
    pub changes: &'a Changes,
    /// Key of the new incident.
    pub new_key: &'a str,
    /// Number of the new incident, from [`Store::next_incident_number`].
    pub new_number: i64,
    /// Time of its opening, by the telemetry's clock.
    pub new_opened_at: Timestamp,
    /// Its workflow.
    pub new_workflow: &'a str,
    /// Time, by the wall clock.
    pub at: Timestamp,
}

impl Store {
    /// Returns the number that the tenant's next incident gets if no other one is opened before.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read.
    pub async fn next_incident_number(&self, tenant: &TenantId) -> Result<i64, Error> {
        next_number(&self.database, tenant).await
    }

    /// Splits an incident, and writes the audit entries of both in this order. Returns `false` if the incident has
    /// changed since it was read, or the new number was taken: the caller must read both again.
    ///
    /// # Errors
    /// Returns an error if the database cannot be written, or if the transition is not in the transition table; then
    /// nothing is written.
    pub async fn split_incident(&self, split: &IncidentSplit<'_>, entries: [&AuditEntry; 2]) -> Result<bool, Error> {
        let from = split.before.state;
        if let Some((to, _)) = split.transition
            && !from.can_transition_to(to)
        {
            return Err(Error::InvalidTransition { from, to });
        }
        let tenant = &split.before.tenant;
        let mut transaction = self.begin_write().await?;
        if next_number(&mut transaction, tenant).await? != split.new_number {
            return Ok(false);
        }
        let updated = self.record_write(update_whole(&mut transaction, split).await)?;
        if !updated {
            return Ok(false);
        }
        let incident = NewIncident {
            key: split.new_key,
            number: split.new_number,
            opened_at: split.new_opened_at,
            workflow: split.new_workflow,
        };
        let note = format!("split from {}", split.before.id());
        self.record_write(insert_incident(&mut transaction, tenant, &incident, split.at, &note).await)?;
        for entry in entries {
            self.record_write(audit::append(&mut transaction, entry).await)?;
        }
        self.commit_incident_change(transaction).await?;
        Ok(true)
    }
}

/// Changes the incident that is split. Returns `false` if it is not as it was read.
async fn update_whole(transaction: &mut Transaction, split: &IncidentSplit<'_>) -> Result<bool, Error> {
    let before = split.before;
    let to = split.transition.map_or(before.state, |(to, _)| to);
    let update = "UPDATE incidents SET state = $1, updated_at = $2, workflow = $3, revision = revision + 1
        WHERE tenant = $4 AND key = $5 AND state = $6 AND workflow = $7";
    let updated = query(update)
        .bind(to.as_str())
        .bind(split.at.nanos())
        .bind(split.workflow)
        .bind(before.tenant.as_str())
        .bind(&before.key)
        .bind(before.state.as_str())
        .bind(&before.workflow)
        .execute(&mut *transaction)
        .await?;
    if updated == 0 {
        return Ok(false);
    }
    if let Some((to, note)) = split.transition {
        append_history(transaction, &before.tenant, &before.key, split.at, Some(before.state), to, note).await?;
    }
    effects::write(transaction, &before.tenant, &before.key, split.changes, split.at).await?;
    Ok(true)
}
