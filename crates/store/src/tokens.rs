//! Static tokens: only their SHA-256 is kept.

use std::path::{Path, PathBuf};

use sqlx::Row;
use wardroom_domain::{AccessRole, Identity, Principal, TenantId, Timestamp};

use crate::{Error, Store};

/// A token about to be stored.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// Public name of the token, for lists and revocation.
    pub id: String,
    /// SHA-256 of the secret, in hex.
    pub sha256: String,
    /// What it proves.
    pub identity: Identity,
    /// From when on it is refused.
    pub expires_at: Option<Timestamp>,
}

/// A stored token.
#[derive(Clone, Debug)]
pub struct TokenRow {
    /// Public name.
    pub id: String,
    /// SHA-256 of the secret, in hex.
    pub sha256: String,
    /// What it proves.
    pub identity: Identity,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is refused.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

impl NewToken {
    /// A token by the hash of its secret.
    pub fn new(sha256: String, identity: Identity, expires_at: Option<Timestamp>) -> Self {
        // The public name is the hash's beginning: it says nothing about the secret.
        let id = format!("tok_{}", sha256.chars().take(12).collect::<String>());
        Self { id, sha256, identity, expires_at }
    }
}

/// Where the database of a data folder is.
pub fn database(data: &Path) -> PathBuf {
    data.join("state").join("wardroom.db")
}

impl Store {
    /// Stores a token.
    ///
    /// # Errors
    /// The store's.
    pub async fn create_token(&self, token: &NewToken, now: Timestamp) -> Result<(), Error> {
        let query = "INSERT INTO tokens (id, sha256, tenant, principal, role, created_at, expires_at)
            VALUES (?, ?, ?, ?, ?, ?, ?)";
        sqlx::query(query)
            .bind(&token.id)
            .bind(&token.sha256)
            .bind(token.identity.tenant.as_str())
            .bind(token.identity.principal.as_str())
            .bind(token.identity.role.as_str())
            .bind(now.nanos())
            .bind(token.expires_at.map(Timestamp::nanos))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// All tokens, the revoked ones too.
    ///
    /// # Errors
    /// The store's.
    pub async fn tokens(&self) -> Result<Vec<TokenRow>, Error> {
        let query = "SELECT id, sha256, tenant, principal, role, created_at, expires_at, revoked_at
            FROM tokens ORDER BY created_at, id";
        let mut tokens = Vec::new();
        for row in sqlx::query(query).fetch_all(&self.pool).await? {
            let id: String = row.try_get("id")?;
            let read = |detail: String| Error::damaged(format!("token {id}"), detail);
            let identity = Identity {
                tenant: TenantId::new(row.try_get::<String, _>("tenant")?).map_err(read)?,
                principal: Principal::new(row.try_get::<String, _>("principal")?).map_err(read)?,
                role: AccessRole::parse(row.try_get("role")?).map_err(read)?,
            };
            tokens.push(TokenRow {
                sha256: row.try_get("sha256")?,
                identity,
                created_at: Timestamp::from_nanos(row.try_get("created_at")?),
                expires_at: row.try_get::<Option<i64>, _>("expires_at")?.map(Timestamp::from_nanos),
                revoked_at: row.try_get::<Option<i64>, _>("revoked_at")?.map(Timestamp::from_nanos),
                id,
            });
        }
        Ok(tokens)
    }

    /// Revokes a token; revoking it again changes nothing.
    ///
    /// # Errors
    /// No such token, or the store's.
    pub async fn revoke_token(&self, id: &str, now: Timestamp) -> Result<(), Error> {
        let query = "UPDATE tokens SET revoked_at = COALESCE(revoked_at, ?) WHERE id = ?";
        let done = sqlx::query(query).bind(now.nanos()).bind(id).execute(&self.pool).await?;
        if done.rows_affected() == 0 { Err(Error::Unknown(format!("token {id}"))) } else { Ok(()) }
    }
}
