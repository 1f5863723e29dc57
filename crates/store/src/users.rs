//! People who log in at this server: their role, and the hash of their password.

use wardroom_domain::audit::AuditEntry;
use wardroom_domain::{Principal, TenantId, Timestamp};

use crate::audit;
use crate::database::{Row, query};
use crate::error::Error;
use crate::health::Operation;
use crate::store::Store;

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRow {
    /// The tenant.
    pub tenant: TenantId,
    /// The name in plans and in the audit log.
    pub principal: Principal,
    /// Name of a role.
    pub role: String,
    /// Hash of the password, if there is one.
    pub password: Option<String>,
    /// Since when.
    pub created_at: Timestamp,
    /// Since when they may not enter, if so.
    pub disabled_at: Option<Timestamp>,
}

/// A change of a user. What is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct UserChange {
    /// The new role.
    pub role: Option<String>,
    /// The hash of the new password.
    pub password: Option<String>,
    /// Whether they may enter.
    pub enabled: Option<bool>,
}

impl Store {
    /// Inserts a user, and a principal of that name, with an audit entry, in one transaction. Returns whether it was
    /// new.
    ///
    /// # Errors
    /// Returns an error if the database cannot be written.
    pub async fn create_user(&self, user: &UserRow, entry: &AuditEntry) -> Result<bool, Error> {
        let mut transaction = self.begin_write().await?;
        let insert = "INSERT INTO users (tenant, principal, role, password, created_at, disabled_at)
            VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (tenant, principal) DO NOTHING";
        let inserted = query(insert)
            .bind(user.tenant.as_str())
            .bind(user.principal.as_str())
            .bind(&user.role)
            .bind(user.password.clone())
            .bind(user.created_at.nanos())
            .bind(user.disabled_at.map(Timestamp::nanos))
            .execute(&mut transaction)
            .await;
        if self.record_write(inserted)? == 0 {
            return Ok(false);
        }
        let insert = "INSERT INTO principals (tenant, principal, kind, roles) VALUES ($1, $2, 'person', $3)
            ON CONFLICT (tenant, principal) DO UPDATE SET roles = excluded.roles";
        let known = query(insert).bind(user.tenant.as_str()).bind(user.principal.as_str()).bind(&user.role);
        self.record_write(known.execute(&mut transaction).await)?;
        self.record_write(audit::append(&mut transaction, entry).await)?;
        self.commit(transaction).await.map(|()| true)
    }

    /// Changes a user with an audit entry, in one transaction. Returns whether there is one.
    ///
    /// # Errors
    /// Returns an error if the database cannot be written.
    pub async fn change_user(
        &self,
        tenant: &TenantId,
        principal: &Principal,
        change: &UserChange,
        now: Timestamp,
        entry: &AuditEntry,
    ) -> Result<bool, Error> {
        let mut transaction = self.begin_write().await?;
        let update = "UPDATE users SET role = COALESCE($3, role), password = COALESCE($4, password),
            disabled_at = CASE WHEN $5 = 1 THEN NULL WHEN $5 = 0 THEN COALESCE(disabled_at, $6) ELSE disabled_at END
            WHERE tenant = $1 AND principal = $2";
        let changed = query(update)
            .bind(tenant.as_str())
            .bind(principal.as_str())
            .bind(change.role.clone())
            .bind(change.password.clone())
            .bind(change.enabled.map_or(-1, i64::from))
            .bind(now.nanos())
            .execute(&mut transaction)
            .await;
        if self.record_write(changed)? == 0 {
            return Ok(false);
        }
        if let Some(role) = &change.role {
            let update = "UPDATE principals SET roles = $3 WHERE tenant = $1 AND principal = $2";
            let update = query(update).bind(tenant.as_str()).bind(principal.as_str()).bind(role);
            self.record_write(update.execute(&mut transaction).await)?;
        }
        self.record_write(audit::append(&mut transaction, entry).await)?;
        self.commit(transaction).await.map(|()| true)
    }

    /// Returns the users of a tenant, by name.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read or a row is damaged.
    pub async fn users(&self, tenant: &TenantId) -> Result<Vec<UserRow>, Error> {
        let select = "SELECT tenant, principal, role, password, created_at, disabled_at FROM users
            WHERE tenant = $1 ORDER BY principal";
        let rows = query(select).bind(tenant.as_str()).fetch_all(&self.database).await.map_err(Error::from);
        self.health.record(Operation::Read, rows)?.iter().map(read_user).collect()
    }

    /// Returns a user.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read or the row is damaged.
    pub async fn user(&self, tenant: &TenantId, principal: &Principal) -> Result<Option<UserRow>, Error> {
        let select = "SELECT tenant, principal, role, password, created_at, disabled_at FROM users
            WHERE tenant = $1 AND principal = $2";
        let select = query(select).bind(tenant.as_str()).bind(principal.as_str());
        let row = select.fetch_optional(&self.database).await.map_err(Error::from);
        self.health.record(Operation::Read, row)?.as_ref().map(read_user).transpose()
    }
}

fn read_user(row: &Row) -> Result<UserRow, Error> {
    let name: String = row.get("principal")?;
    let damaged = |detail: String| Error::damaged(format!("user {name}"), detail);
    Ok(UserRow {
        tenant: TenantId::new(row.get::<String>("tenant")?).map_err(damaged)?,
        principal: Principal::new(name.clone()).map_err(damaged)?,
        role: row.get("role")?,
        password: row.get("password")?,
        created_at: Timestamp::from_nanos(row.get("created_at")?),
        disabled_at: row.get::<Option<i64>>("disabled_at")?.map(Timestamp::from_nanos),
    })
}
