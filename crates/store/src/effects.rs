//! Effects: what the response wants done outside this process, as rows (a transactional outbox).
//!
//! ```text
//!            lease                     finish
//!  ready ───────────────► leased ───────────────► done
//!    ▲  retry, lease over   │ │ extend
//!    └──────────────────────┘ └─┘          ready, leased ──cancel──► cancelled
//! ```
//!
//! Problem: the change of an incident and the action that it asks for must not come apart in a crash, and no loop may
//! wait for a target. Model: the change writes a row in its own transaction; a worker leases the row, performs it, and
//! finishes it in the transaction of the change that follows. A worker that dies loses its lease, and another performs
//! the effect again: effects are idempotent, and the executor asks the target first.
//!
//! Guarantees: a row is leased by one worker at a time, and rows of one resource are leased one at a time. Every lease
//! has a fencing token, greater than the ones before; a call with an older one changes nothing and is refused, so a
//! worker that was paused past its lease cannot finish what another one performs now.

use std::collections::BTreeSet;
use std::time::Duration;

use wardroom_domain::audit::AuditEntry;
use wardroom_domain::{TenantId, Timestamp, mutant};

use crate::audit;
use crate::database::{Row, Target, Transaction, query};
use crate::error::Error;
use crate::health::Operation;
use crate::store::Store;

/// Rows that are considered for one lease, at most: of many rows of one resource only one is taken.
const LEASE_CANDIDATES: i64 = 500;

/// An effect to be written with a change of its incident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEffect {
    /// Id that is derived from what wants the effect: an effect with a known id is not written again.
    pub id: String,
    /// `read`, `dry_run`, `authorization`, `execution`, `undo`, `probe`, `settle` or `message`.
    pub kind: String,
    /// What it acts on; effects with the same one are performed one at a time. Empty for none.
    pub resource: String,
    /// The workers that may take it; empty for all.
    pub queue: String,
    /// The data, as JSON in its owner's format.
    pub payload: String,
    /// Time from which it may be leased.
    pub not_before: Timestamp,
    /// Time after which it is given up; the worker decides what that means.
    pub deadline: Timestamp,
}

/// The end of an effect, written with the change that follows from its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishedEffect {
    /// Id of the effect.
    pub id: String,
    /// Fencing token of the worker's lease.
    pub fencing: i64,
    /// Its result, as JSON in its owner's format.
    pub result: String,
}

/// What is written in the transaction of a change of an incident.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Effects that the change wants.
    pub enqueue: Vec<NewEffect>,
    /// Kinds of the incident's effects that are no longer wanted. One that is leased loses its lease.
    pub cancel: Vec<String>,
    /// The effect whose result led to the change.
    pub finish: Option<FinishedEffect>,
    /// What is kept of an incident that has ended, as JSON in its owner's format; replaces an earlier one.
    pub finished_incident: Option<String>,
    /// How often the incident was reopened: what is kept of its earlier ends stays.
    pub reopened: u32,
}

/// A worker that takes effects.
#[derive(Clone, Copy, Debug)]
pub struct Worker<'a> {
    /// Name of the process; no two that run at the same time have the same.
    pub name: &'a str,
    /// The queue that it takes from, beside the effects for all.
    pub queue: &'a str,
}

/// An effect as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectRow {
    /// Id.
    pub id: String,
    /// The tenant.
    pub tenant: TenantId,
    /// Key of the incident.
    pub incident: String,
    /// See [`NewEffect::kind`].
    pub kind: String,
    /// See [`NewEffect::resource`].
    pub resource: String,
    /// The data.
    pub payload: String,
    /// `ready`, `leased`, `done` or `cancelled`.
    pub state: String,
    /// Fencing token of the newest lease; 0 before the first.
    pub fencing: i64,
    /// Number of leases so far.
    pub attempts: i64,
    /// Time from which it may be leased.
    pub not_before: Timestamp,
    /// Time after which it is given up.
    pub deadline: Timestamp,
    /// Time when it was written.
    pub created_at: Timestamp,
    /// Its result, or why the last attempt failed.
    pub result: Option<String>,
}

impl Store {
    /// Leases at most `limit` effects that are due, the oldest first, and at most one of each resource.
    ///
    /// # Errors
    /// Returns an error if the database cannot be written.
    pub async fn lease_effects(
        &self,
        worker: Worker<'_>,
        limit: usize,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Vec<EffectRow>, Error> {
        // A write transaction would wait for the disk; mostly nothing is due.
        if limit == 0 || due_effects(&self.database, worker.queue, now).await?.is_empty() {
            return Ok(Vec::new());
        }
        let mut transaction = self.begin_write().await?;
        let due = due_effects(&mut transaction, worker.queue, now).await?;
        let (mut leased, mut resources) = (Vec::new(), BTreeSet::new());
        for mut effect in due {
            let is_free =
                effect.resource.is_empty() || resources.insert((effect.tenant.clone(), effect.resource.clone()));
            if leased.len() >= limit || !is_free {
                continue;
            }
            let update =
                "UPDATE effects SET state = 'leased', lease_owner = $1, lease_until = $2, fencing = fencing + 1,
                attempts = attempts + 1 WHERE id = $3";
            let updated = query(update)
                .bind(worker.name)
                .bind(now.plus(lease).nanos())
                .bind(&effect.id)
                .execute(&mut transaction)
                .await;
            self.record_write(updated)?;
            (effect.fencing, effect.attempts) = (effect.fencing + 1, effect.attempts + 1);
            effect.state = "leased".to_owned();
            leased.push(effect);
        }
        self.commit(transaction).await?;
        Ok(leased)
    }

    /// Returns when the next effect may be due: its start, or the end of its lease. `None` if there is none.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read.
    pub async fn next_effect_at(&self, queue: &str) -> Result<Option<Timestamp>, Error> {
        let select = "SELECT MIN(CASE WHEN state = 'ready' THEN not_before ELSE lease_until END) AS at
            FROM effects WHERE state IN ('ready', 'leased') AND queue IN ('', $1)";
        let row = query(select).bind(queue).fetch_one(&self.database).await?;
        Ok(row.get::<Option<i64>>("at")?.map(Timestamp::from_nanos))
    }

    /// Extends a lease. Returns `false` if the worker no longer has it: it must stop.
    ///
    /// # Errors
    /// Returns an error if the database cannot be written.
    pub async fn extend_effect(&self, id: &str, fencing: i64, until: Timestamp) -> Result<bool, Error> {
        let update = "UPDATE effects SET lease_until = $1 WHERE id = $2 AND fencing = $3 AND state = 'leased'";
        self.write_effect(query(update).bind(until.nanos()).bind(id).bind(fencing)).await
    }

    /// Gives an effect back, to be leased again from `not_before` on. Returns `false` if the worker no longer has it.
    ///
    /// # Errors
    /// Returns an error if the database cannot be written.
    pub async fn retry_effect(
        &self,
        id: &str,
        fencing: i64,
        not_before: Timestamp,
        reason: &str,
    ) -> Result<bool, Error> {
        let update = "UPDATE effects SET state = 'ready', lease_owner = NULL, lease_until = NULL, not_before = $1,
            result = $2 WHERE id = $3 AND fencing = $4 AND state = 'leased'";
        self.write_effect(query(update).bind(not_before.nanos()).bind(reason).bind(id).bind(fencing)).await
    }

    /// Finishes an effect whose result changes nothing. Returns `false` if the worker no longer has it.
    ///
    /// # Errors
    /// Returns an error if the database cannot be written.
    pub async fn finish_effect(&self, finished: &FinishedEffect, now: Timestamp) -> Result<bool, Error> {
        self.write_effect(finishing(finished, now)).await
    }

    /// Writes effects of an incident without a change of it, with an audit entry if there is one; effects with a known
    /// id are left as they are.
    ///
    /// # Errors
    /// Returns an error if the database cannot be written.
    pub async fn enqueue_effects(
        &self,
        tenant: &TenantId,
        incident: &str,
        effects: &[NewEffect],
        now: Timestamp,
        entry: Option<&AuditEntry>,
    ) -> Result<(), Error> {
        let mut transaction = self.begin_write().await?;
        if let Some(entry) = entry {
            self.record_write(audit::append(&mut transaction, entry).await)?;
        }
        self.record_write(enqueue(&mut transaction, tenant, incident, effects, now).await)?;
        self.commit(transaction).await?;
        self.notify_effects();
        Ok(())
    }

    /// Gives back what workers leased whose name begins with `prefix`, except `name`: processes that no longer run.
    /// Returns the number of effects.
    ///
    /// # Errors
    /// Returns an error if the database cannot be written.
    pub async fn release_effects(&self, prefix: &str, name: &str) -> Result<u64, Error> {
        let update = "UPDATE effects SET state = 'ready', lease_owner = NULL, lease_until = NULL
            WHERE state = 'leased' AND lease_owner LIKE $1 AND lease_owner <> $2";
        let pattern = format!("{}%", prefix.replace(['%', '_'], ""));
        let mut transaction = self.begin_write().await?;
        let released = query(update).bind(pattern).bind(name).execute(&mut transaction).await;
        let released = self.record_write(released)?;
        self.commit(transaction).await?;
        Ok(released)
    }

    /// Returns the effects of an incident, oldest first.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read or a row is damaged.
    pub async fn effects(&self, tenant: &TenantId, incident: &str) -> Result<Vec<EffectRow>, Error> {
        let select = "SELECT * FROM effects WHERE tenant = $1 AND incident = $2 ORDER BY created_at, id";
        let rows = query(select).bind(tenant.as_str()).bind(incident).fetch_all(&self.database).await?;
        rows.iter().map(decode).collect()
    }

    /// Deletes effects that ended before a time.
    ///
    /// # Errors
    /// Returns an error if the database cannot be written.
    pub async fn delete_effects_before(&self, before: Timestamp) -> Result<(), Error> {
        let delete = "DELETE FROM effects WHERE state IN ('done', 'cancelled') AND finished_at < $1";
        let deleted = query(delete).bind(before.nanos()).execute(&self.database).await;
        self.health.record_failure(Operation::Write, deleted.map_err(Error::from)).map(drop)
    }

    /// Returns what is kept of the incidents of a tenant that ended at or after `since`, with the time of their last
    /// change, oldest first, at most `limit`.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read.
    pub async fn finished_incidents(
        &self,
        tenant: &TenantId,
        since: Timestamp,
        limit: u32,
    ) -> Result<Vec<(Timestamp, String)>, Error> {
        let select = "SELECT finished_at, body FROM finished_incidents WHERE tenant = $1 AND finished_at >= $2
            ORDER BY finished_at, incident LIMIT $3";
        let select = query(select).bind(tenant.as_str()).bind(since.nanos()).bind(i64::from(limit));
        let rows = select.fetch_all(&self.database).await?;
        let decode = |row: &Row| Ok((Timestamp::from_nanos(row.get("finished_at")?), row.get("body")?));
        Ok(rows.iter().map(decode).collect::<Result<_, sqlx::Error>>()?)
    }

    /// Runs a statement that changes one effect; returns whether it did.
    async fn write_effect(&self, statement: crate::database::Query) -> Result<bool, Error> {
        let mut transaction = self.begin_write().await?;
        let changed = self.record_write(statement.execute(&mut transaction).await)?;
        if changed == 0 {
            return Ok(false);
        }
        self.commit(transaction).await?;
        self.notify_effects();
        Ok(true)
    }
}

/// Writes what belongs to a change of an incident.
pub(crate) async fn write(
    transaction: &mut Transaction,
    tenant: &TenantId,
    incident: &str,
    changes: &Changes,
    now: Timestamp,
) -> Result<(), Error> {
    if let Some(finished) = &changes.finish
        && finishing(finished, now).execute(&mut *transaction).await? == 0
    {
        return Err(Error::StaleLease(finished.id.clone()));
    }
    for kind in &changes.cancel {
        let update = "UPDATE effects SET state = 'cancelled', lease_owner = NULL, lease_until = NULL,
            fencing = fencing + 1, finished_at = $1
            WHERE tenant = $2 AND incident = $3 AND kind = $4 AND state IN ('ready', 'leased')";
        let update = query(update).bind(now.nanos()).bind(tenant.as_str()).bind(incident).bind(kind);
        update.execute(&mut *transaction).await?;
    }
    enqueue(transaction, tenant, incident, &changes.enqueue, now).await?;
    if let Some(body) = &changes.finished_incident {
        let upsert = "INSERT INTO finished_incidents (tenant, incident, finished_at, body) VALUES ($1, $2, $3, $4)
            ON CONFLICT (tenant, incident) DO UPDATE SET finished_at = excluded.finished_at, body = excluded.body";
        let end = if changes.reopened == 0 { incident.to_owned() } else { format!("{incident}#{}", changes.reopened) };
        let upsert = query(upsert).bind(tenant.as_str()).bind(end).bind(now.nanos()).bind(body);
        upsert.execute(transaction).await?;
    }
    Ok(())
}

pub(crate) async fn enqueue(
    transaction: &mut Transaction,
    tenant: &TenantId,
    incident: &str,
    effects: &[NewEffect],
    now: Timestamp,
) -> Result<(), Error> {
    for effect in effects {
        let insert =
            "INSERT INTO effects (id, tenant, incident, kind, resource, queue, payload, state, fencing, attempts,
            not_before, deadline, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, 'ready', 0, 0, $8, $9, $10)
            ON CONFLICT (id) DO NOTHING";
        query(insert)
            .bind(&effect.id)
            .bind(tenant.as_str())
            .bind(incident)
            .bind(&effect.kind)
            .bind(&effect.resource)
            .bind(&effect.queue)
            .bind(&effect.payload)
            .bind(effect.not_before.nanos())
            .bind(effect.deadline.nanos())
            .bind(now.nanos())
            .execute(&mut *transaction)
            .await?;
    }
    Ok(())
}

fn finishing(finished: &FinishedEffect, now: Timestamp) -> crate::database::Query {
    let mut update =
        "UPDATE effects SET state = 'done', lease_owner = NULL, lease_until = NULL, finished_at = $1, result = $2
        WHERE id = $3 AND fencing = $4 AND state = 'leased'";
    if mutant::is_enabled("ignore-fencing") {
        update = "UPDATE effects SET state = 'done', lease_owner = NULL, lease_until = NULL, finished_at = $1,
            result = $2 WHERE id = $3 AND fencing >= $4";
    }
    query(update).bind(now.nanos()).bind(&finished.result).bind(&finished.id).bind(finished.fencing)
}

/// Returns effects that may be leased now, oldest first. Several may have one resource. The states are named twice, so
/// that the index of open effects is used: rows that ended are kept for long.
async fn due_effects<'a>(target: impl Into<Target<'a>>, queue: &str, now: Timestamp) -> Result<Vec<EffectRow>, Error> {
    let select = "SELECT * FROM effects AS due
        WHERE state IN ('ready', 'leased') AND queue IN ('', $2)
            AND (state = 'ready' AND not_before <= $1 OR state = 'leased' AND lease_until <= $1)
            AND (resource = '' OR NOT EXISTS (SELECT id FROM effects AS running
                WHERE running.state = 'leased' AND running.lease_until > $1 AND running.tenant = due.tenant
                    AND running.resource = due.resource))
        ORDER BY not_before, id LIMIT $3";
    let select = query(select).bind(now.nanos()).bind(queue).bind(LEASE_CANDIDATES);
    select.fetch_all(target).await?.iter().map(decode).collect()
}

fn decode(row: &Row) -> Result<EffectRow, Error> {
    let id: String = row.get("id")?;
    let time = |column: &str| row.get(column).map(Timestamp::from_nanos);
    let tenant = TenantId::new(row.get::<String>("tenant")?);
    Ok(EffectRow {
        tenant: tenant.map_err(|detail| Error::damaged(format!("effect {id}"), detail))?,
        incident: row.get("incident")?,
        kind: row.get("kind")?,
        resource: row.get("resource")?,
        payload: row.get("payload")?,
        state: row.get("state")?,
        fencing: row.get("fencing")?,
        attempts: row.get("attempts")?,
        not_before: time("not_before")?,
        deadline: time("deadline")?,
        created_at: time("created_at")?,
        result: row.get("result")?,
        id,
    })
}
