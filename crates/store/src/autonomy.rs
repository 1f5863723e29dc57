//! Levels of autonomy that administrators have accepted.

use wardroom_domain::audit::AuditEntry;
use wardroom_domain::{Principal, TenantId, Timestamp};

use crate::audit;
use crate::database::query;
use crate::error::Error;
use crate::store::Store;

/// A level of autonomy that an administrator has accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutonomyRow {
    /// Id of the rule that names the cause.
    pub rule: String,
    /// The tool.
    pub tool: String,
    /// The operation.
    pub operation: String,
    /// `ask`, `night` or `automatic`.
    pub level: String,
    /// Who accepted it.
    pub principal: Principal,
    /// When.
    pub at: Timestamp,
}

impl Store {
    /// Stores an accepted level in place of an earlier one, with its audit entry, in one transaction.
    ///
    /// # Errors
    /// Returns an error if the database cannot be written.
    pub async fn set_autonomy(&self, tenant: &TenantId, row: &AutonomyRow, entry: &AuditEntry) -> Result<(), Error> {
        let upsert = "INSERT INTO autonomy (tenant, rule, tool, operation, level, principal, at)
            VALUES ($1, $2, $3, $4, $5, $6, $7)
            ON CONFLICT (tenant, rule, tool, operation)
            DO UPDATE SET level = excluded.level, principal = excluded.principal, at = excluded.at";
        let mut transaction = self.begin_write().await?;
        let written = query(upsert)
            .bind(tenant.as_str())
            .bind(&row.rule)
            .bind(&row.tool)
            .bind(&row.operation)
            .bind(&row.level)
            .bind(row.principal.as_str())
            .bind(row.at.nanos())
            .execute(&mut transaction)
            .await;
        self.record_write(written)?;
        self.record_write(audit::append(&mut transaction, entry).await)?;
        self.commit(transaction).await
    }

    /// Returns a tenant's accepted levels, by rule, tool and operation.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read or a row is damaged.
    pub async fn autonomy(&self, tenant: &TenantId) -> Result<Vec<AutonomyRow>, Error> {
        let select = "SELECT rule, tool, operation, level, principal, at FROM autonomy WHERE tenant = $1
            ORDER BY rule, tool, operation";
        let rows = query(select).bind(tenant.as_str()).fetch_all(&self.database).await?;
        rows.iter()
            .map(|row| {
                let damaged = |detail: String| Error::damaged("an accepted level of autonomy", detail);
                Ok(AutonomyRow {
                    rule: row.get("rule")?,
                    tool: row.get("tool")?,
                    operation: row.get("operation")?,
                    level: row.get("level")?,
                    principal: Principal::new(row.get::<String>("principal")?).map_err(damaged)?,
                    at: Timestamp::from_nanos(row.get("at")?),
                })
            })
            .collect()
    }

    /// Returns the number of executions on a target of a tool that ended at or after `since`.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read.
    pub async fn actions_since(
        &self,
        tenant: &TenantId,
        tool: &str,
        target: &str,
        since: Timestamp,
    ) -> Result<u32, Error> {
        let select = "SELECT COUNT(*) AS number FROM effects
            WHERE tenant = $1 AND kind = 'execution' AND resource = $2 AND state = 'done' AND finished_at >= $3";
        let select = query(select).bind(tenant.as_str()).bind(format!("{tool}:{target}")).bind(since.nanos());
        let number: i64 = select.fetch_one(&self.database).await?.get("number")?;
        Ok(u32::try_from(number).unwrap_or(u32::MAX))
    }
}
