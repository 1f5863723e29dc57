//! Static tokens: only the SHA-256 of each secret is stored.

use wardroom_domain::audit::AuditEntry;
use wardroom_domain::identity::token_id;
use wardroom_domain::{AccessRole, Identity, Principal, TenantId, Timestamp};

use crate::audit;
use crate::database::query;
use crate::error::Error;
use crate::health::Operation;
use crate::store::Store;

/// A token to be stored.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// Public id of the token, for lists and revocation.
    pub id: String,
    /// SHA-256 of the secret, in hex.
    pub sha256: String,
    /// The identity that the token proves.
    pub identity: Identity,
    /// Time from which the token is refused; never if `None`.
    pub expires_at: Option<Timestamp>,
}

/// A stored token.
#[derive(Clone, Debug)]
pub struct TokenRow {
    /// Public id.
    pub id: String,
    /// SHA-256 of the secret, in hex.
    pub sha256: String,
    /// The identity that the token proves.
    pub identity: Identity,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Time from which the token is refused; never if `None`.
    pub expires_at: Option<Timestamp>,
    /// Time of revocation, if revoked.
    pub revoked_at: Option<Timestamp>,
}

impl NewToken {
    /// Creates a token from the hash of its secret; the id is derived from it.
    pub fn new(sha256: String, identity: Identity, expires_at: Option<Timestamp>) -> Self {
        Self { id: token_id(&sha256), sha256, identity, expires_at }
    }
}

impl Store {
    /// Inserts a token with its audit entry, in one transaction.
    ///
    /// # Errors
    /// Returns an error if the database cannot be written.
    pub async fn create_token(&self, token: &NewToken, now: Timestamp, entry: &AuditEntry) -> Result<(), Error> {
        let insert = "INSERT INTO tokens (id, sha256, tenant, principal, role, created_at, expires_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7)";
        let mut transaction = self.begin_write().await?;
        let inserted = query(insert)
            .bind(&token.id)
            .bind(&token.sha256)
            .bind(token.identity.tenant.as_str())
            .bind(token.identity.principal.as_str())
            .bind(token.identity.role.as_str())
            .bind(now.nanos())
            .bind(token.expires_at.map(Timestamp::nanos))
            .execute(&mut transaction)
            .await;
        self.record_write(inserted)?;
        self.record_write(audit::append(&mut transaction, entry).await)?;
        self.commit(transaction).await
    }

    /// Returns all tokens, including revoked ones, oldest first.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read or a row is damaged.
    pub async fn tokens(&self) -> Result<Vec<TokenRow>, Error> {
        let select = "SELECT id, sha256, tenant, principal, role, created_at, expires_at, revoked_at
            FROM tokens ORDER BY created_at, id";
        let mut tokens = Vec::new();
        let rows = query(select).fetch_all(&self.database).await.map_err(Error::from);
        for row in self.health.record(Operation::Read, rows)? {
            let id: String = row.get("id")?;
            let damaged = |detail: String| Error::damaged(format!("token {id}"), detail);
            let identity = Identity {
                tenant: TenantId::new(row.get::<String>("tenant")?).map_err(damaged)?,
                principal: Principal::new(row.get::<String>("principal")?).map_err(damaged)?,
                role: AccessRole::parse(&row.get::<String>("role")?).map_err(damaged)?,
            };
            tokens.push(TokenRow {
                sha256: row.get("sha256")?,
                identity,
                created_at: Timestamp::from_nanos(row.get("created_at")?),
                expires_at: row.get::<Option<i64>>("expires_at")?.map(Timestamp::from_nanos),
                revoked_at: row.get::<Option<i64>>("revoked_at")?.map(Timestamp::from_nanos),
                id,
            });
        }
        Ok(tokens)
    }

    /// Revokes a token with its audit entry, in one transaction. Revoking it again changes nothing and has no entry.
    ///
    /// # Errors
    /// Returns an error if the token does not exist or the database cannot be written.
    pub async fn revoke_token(&self, id: &str, now: Timestamp, entry: &AuditEntry) -> Result<(), Error> {
        let mut transaction = self.begin_write().await?;
        let update = "UPDATE tokens SET revoked_at = $1 WHERE id = $2 AND revoked_at IS NULL";
        let done = query(update).bind(now.nanos()).bind(id).execute(&mut transaction).await;
        if self.record_write(done)? > 0 {
            self.record_write(audit::append(&mut transaction, entry).await)?;
            return self.commit(transaction).await;
        }
        let known = query("SELECT id FROM tokens WHERE id = $1").bind(id).fetch_optional(&mut transaction).await?;
        known.map(|_| ()).ok_or_else(|| Error::Unknown(format!("token {id}")))
    }
}
