//! Passkeys of users, for logins.

use wardroom_domain::audit::AuditEntry;
use wardroom_domain::{Principal, TenantId, Timestamp};

use crate::audit;
use crate::database::{Row, query};
use crate::error::Error;
use crate::health::Operation;
use crate::store::Store;

/// A passkey.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasskeyRow {
    /// Its id, in base64url.
    pub id: String,
    /// The tenant of its owner.
    pub tenant: TenantId,
    /// Its owner.
    pub principal: Principal,
    /// Its public key (COSE), in base64url.
    pub public_key: String,
    /// What its owner calls it.
    pub name: String,
    /// How often it has signed; 0 if it does not count.
    pub sign_count: u32,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When it was used last.
    pub used_at: Option<Timestamp>,
}

const SELECT_BY_ID: &str = "SELECT id, tenant, principal, public_key, name, sign_count, created_at, used_at
    FROM passkeys WHERE id = $1";
const SELECT_BY_PRINCIPAL: &str = "SELECT id, tenant, principal, public_key, name, sign_count, created_at, used_at
    FROM passkeys WHERE tenant = $1 AND principal = $2 ORDER BY created_at, id";

impl Store {
    /// Inserts a passkey with an audit entry, in one transaction. Returns whether it was new.
    ///
    /// # Errors
    /// Returns an error if the database cannot be written.
    pub async fn create_passkey(&self, passkey: &PasskeyRow, entry: &AuditEntry) -> Result<bool, Error> {
        let insert = "INSERT INTO passkeys (id, tenant, principal, public_key, name, sign_count, created_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (id) DO NOTHING";
        let mut transaction = self.begin_write().await?;
        let inserted = query(insert)
            .bind(&passkey.id)
            .bind(passkey.tenant.as_str())
            .bind(passkey.principal.as_str())
            .bind(&passkey.public_key)
            .bind(&passkey.name)
            .bind(i64::from(passkey.sign_count))
            .bind(passkey.created_at.nanos())
            .execute(&mut transaction)
            .await;
        if self.record_write(inserted)? == 0 {
            return Ok(false);
        }
        self.record_write(audit::append(&mut transaction, entry).await)?;
        self.commit(transaction).await.map(|()| true)
    }

    /// Returns a passkey.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read or the row is damaged.
    pub async fn passkey(&self, id: &str) -> Result<Option<PasskeyRow>, Error> {
        let row = query(SELECT_BY_ID).bind(id).fetch_optional(&self.database).await.map_err(Error::from);
        self.health.record(Operation::Read, row)?.as_ref().map(read_passkey).transpose()
    }

    /// Returns the passkeys of a user, oldest first.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read or a row is damaged.
    pub async fn passkeys(&self, tenant: &TenantId, principal: &Principal) -> Result<Vec<PasskeyRow>, Error> {
        let select = query(SELECT_BY_PRINCIPAL).bind(tenant.as_str()).bind(principal.as_str());
        let rows = select.fetch_all(&self.database).await.map_err(Error::from);
        self.health.record(Operation::Read, rows)?.iter().map(read_passkey).collect()
    }

    /// Stores that a passkey was used, unless its counter went on meanwhile. Returns whether it was stored: of two uses
    /// of the same answer, one is.
    ///
    /// # Errors
    /// Returns an error if the database cannot be written.
    pub async fn note_passkey_used(&self, id: &str, counts: (u32, u32), now: Timestamp) -> Result<bool, Error> {
        let (before, after) = counts;
        let update = "UPDATE passkeys SET sign_count = $2, used_at = $3 WHERE id = $1 AND sign_count = $4";
        let mut transaction = self.begin_write().await?;
        let update = query(update).bind(id).bind(i64::from(after)).bind(now.nanos()).bind(i64::from(before));
        let changed = self.record_write(update.execute(&mut transaction).await)?;
        self.commit(transaction).await.map(|()| changed > 0)
    }

    /// Deletes a user's passkey with an audit entry, in one transaction. Returns whether there was one.
    ///
    /// # Errors
    /// Returns an error if the database cannot be written.
    pub async fn delete_passkey(
        &self,
        (tenant, principal): (&TenantId, &Principal),
        id: &str,
        entry: &AuditEntry,
    ) -> Result<bool, Error> {
        let mut transaction = self.begin_write().await?;
        let delete = query("DELETE FROM passkeys WHERE id = $1 AND tenant = $2 AND principal = $3");
        let delete = delete.bind(id).bind(tenant.as_str()).bind(principal.as_str());
        if self.record_write(delete.execute(&mut transaction).await)? == 0 {
            return Ok(false);
        }
        self.record_write(audit::append(&mut transaction, entry).await)?;
        self.commit(transaction).await.map(|()| true)
    }
}

fn read_passkey(row: &Row) -> Result<PasskeyRow, Error> {
    let id: String = row.get("id")?;
    let damaged = |detail: String| Error::damaged(format!("passkey {id}"), detail);
    Ok(PasskeyRow {
        tenant: TenantId::new(row.get::<String>("tenant")?).map_err(damaged)?,
        principal: Principal::new(row.get::<String>("principal")?).map_err(damaged)?,
        public_key: row.get("public_key")?,
        name: row.get("name")?,
        sign_count: u32::try_from(row.get::<i64>("sign_count")?).map_err(|error| damaged(error.to_string()))?,
        created_at: Timestamp::from_nanos(row.get("created_at")?),
        used_at: row.get::<Option<i64>>("used_at")?.map(Timestamp::from_nanos),
        id,
    })
}
