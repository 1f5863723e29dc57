//! Sessions of browsers: only the hashes of their secrets.

use wardroom_domain::audit::AuditEntry;
use wardroom_domain::{AccessRole, Principal, TenantId, Timestamp};

use crate::audit;
use crate::database::{Row, query};
use crate::error::Error;
use crate::health::Operation;
use crate::store::Store;

/// A session that is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// Public id.
    pub id: String,
    /// SHA-256 of the secret, in hex.
    pub sha256: String,
    /// SHA-256 of the secret before, and until when it counts.
    pub previous: Option<(String, Timestamp)>,
    /// What requests that change something repeat.
    pub csrf_token: String,
    /// The tenant.
    pub tenant: TenantId,
    /// The person.
    pub principal: Principal,
    /// `password`, `passkey`, `oidc` or `token`.
    pub method: String,
    /// What a provider's groups permitted, as words; empty for the other methods.
    pub scopes: String,
    /// The token or passkey of the login.
    pub credential: Option<String>,
    /// When the person logged in.
    pub created_at: Timestamp,
    /// When the secret was made.
    pub rotated_at: Timestamp,
    /// When it was used last, to the minute.
    pub used_at: Timestamp,
    /// When it ends, used or not.
    pub ends_at: Timestamp,
}

/// A session that may be in force, with what decides about it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionState {
    /// The session.
    pub session: SessionRow,
    /// The role of the user of that name now, if there is one.
    pub user_role: Option<String>,
    /// Whether that user may not enter.
    pub is_disabled: bool,
    /// The role of the token of the login now, if it is in force.
    pub token_role: Option<AccessRole>,
    /// When that token expires.
    pub token_ends_at: Option<Timestamp>,
}

/// Sessions to be ended.
#[derive(Clone, Debug)]
pub enum EndedSessions {
    /// One, by its public id.
    One(String),
    /// All of a person.
    OfPrincipal(Principal),
}

impl Store {
    /// Inserts a session with an audit entry, in one transaction.
    ///
    /// # Errors
    /// Returns an error if the database cannot be written.
    pub async fn create_session(&self, session: &SessionRow, entry: &AuditEntry) -> Result<(), Error> {
        let insert = "INSERT INTO sessions (id, sha256, csrf_token, tenant, principal, method, scopes, credential,
            created_at, rotated_at, used_at, ends_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
        let mut transaction = self.begin_write().await?;
        let inserted = query(insert)
            .bind(&session.id)
            .bind(&session.sha256)
            .bind(&session.csrf_token)
            .bind(session.tenant.as_str())
            .bind(session.principal.as_str())
            .bind(&session.method)
            .bind(&session.scopes)
            .bind(session.credential.clone())
            .bind(session.created_at.nanos())
            .bind(session.rotated_at.nanos())
            .bind(session.used_at.nanos())
            .bind(session.ends_at.nanos())
            .execute(&mut transaction)
            .await;
        self.record_write(inserted)?;
        self.record_write(audit::append(&mut transaction, entry).await)?;
        self.commit(transaction).await
    }

    /// Stores a new secret of a session.
    ///
    /// # Errors
    /// Returns an error if the database cannot be written.
    pub async fn rotate_session(&self, session: &SessionRow) -> Result<(), Error> {
        let (previous, until) = session.previous.clone().unzip();
        let update = "UPDATE sessions SET sha256 = $2, previous_sha256 = $3, previous_until = $4, rotated_at = $5
            WHERE id = $1 AND rotated_at < $5";
        let mut transaction = self.begin_write().await?;
        let updated = query(update)
            .bind(&session.id)
            .bind(&session.sha256)
            .bind(previous)
            .bind(until.map(Timestamp::nanos))
            .bind(session.rotated_at.nanos())
            .execute(&mut transaction)
            .await;
        self.record_write(updated)?;
        self.commit(transaction).await
    }

    /// Stores when sessions were used.
    ///
    /// # Errors
    /// Returns an error if the database cannot be written.
    pub async fn note_sessions_used(&self, used: &[(String, Timestamp)]) -> Result<(), Error> {
        let mut transaction = self.begin_write().await?;
        for (id, at) in used {
            let update = query("UPDATE sessions SET used_at = $2 WHERE id = $1 AND used_at < $2");
            let updated = update.bind(id).bind(at.nanos()).execute(&mut transaction).await;
            self.record_write(updated)?;
        }
        self.commit(transaction).await
    }

    /// Ends sessions of a tenant with an audit entry, in one transaction. Without any, nothing is written. Returns
    /// their number.
    ///
    /// # Errors
    /// Returns an error if the database cannot be written.
    pub async fn end_sessions(
        &self,
        tenant: &TenantId,
        which: &EndedSessions,
        now: Timestamp,
        entry: &AuditEntry,
    ) -> Result<u64, Error> {
        let (update, key) = match which {
            EndedSessions::One(id) => (
                "UPDATE sessions SET revoked_at = $3 WHERE tenant = $1 AND id = $2 AND revoked_at IS NULL",
                id.as_str(),
            ),
            EndedSessions::OfPrincipal(principal) => (
                "UPDATE sessions SET revoked_at = $3 WHERE tenant = $1 AND principal = $2 AND revoked_at IS NULL",
                principal.as_str(),
            ),
        };
        let mut transaction = self.begin_write().await?;
        let update = query(update).bind(tenant.as_str()).bind(key).bind(now.nanos());
        let ended = self.record_write(update.execute(&mut transaction).await)?;
        if ended > 0 {
            self.record_write(audit::append(&mut transaction, entry).await)?;
            self.commit(transaction).await?;
        }
        Ok(ended)
    }

    /// Returns the sessions that have neither ended nor been revoked, with what decides about them now.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read or a row is damaged.
    pub async fn sessions(&self, now: Timestamp) -> Result<Vec<SessionState>, Error> {
        let select = "SELECT sessions.id AS id, sessions.sha256 AS sha256, previous_sha256, previous_until, csrf_token,
            sessions.tenant AS tenant, sessions.principal AS principal, method, scopes, credential,
            sessions.created_at AS created_at, rotated_at, used_at, ends_at,
            users.role AS user_role, users.disabled_at AS disabled_at,
            tokens.role AS token_role, tokens.expires_at AS token_ends_at
            FROM sessions
            LEFT JOIN users ON users.tenant = sessions.tenant AND users.principal = sessions.principal
            LEFT JOIN tokens ON tokens.id = sessions.credential AND tokens.revoked_at IS NULL
            WHERE sessions.revoked_at IS NULL AND ends_at > $1";
        let rows = query(select).bind(now.nanos()).fetch_all(&self.database).await.map_err(Error::from);
        self.health.record(Operation::Read, rows)?.iter().map(read_state).collect()
    }

    /// Deletes sessions that ended before a time; the audit log keeps who logged in.
    ///
    /// # Errors
    /// Returns an error if the database cannot be written.
    pub async fn delete_sessions_before(&self, before: Timestamp) -> Result<(), Error> {
        let mut transaction = self.begin_write().await?;
        let delete = query("DELETE FROM sessions WHERE ends_at < $1").bind(before.nanos());
        self.record_write(delete.execute(&mut transaction).await)?;
        self.commit(transaction).await
    }
}

fn read_state(row: &Row) -> Result<SessionState, Error> {
    let id: String = row.get("id")?;
    let damaged = |detail: String| Error::damaged(format!("session {id}"), detail);
    let time = |column: &str| Ok::<_, Error>(Timestamp::from_nanos(row.get(column)?));
    let optional_time = |column: &str| Ok::<_, Error>(row.get::<Option<i64>>(column)?.map(Timestamp::from_nanos));
    let token_role = row.get::<Option<String>>("token_role")?;
    let session = SessionRow {
        sha256: row.get("sha256")?,
        previous: row.get::<Option<String>>("previous_sha256")?.zip(optional_time("previous_until")?),
        csrf_token: row.get("csrf_token")?,
        tenant: TenantId::new(row.get::<String>("tenant")?).map_err(damaged)?,
        principal: Principal::new(row.get::<String>("principal")?).map_err(damaged)?,
        method: row.get("method")?,
        scopes: row.get("scopes")?,
        credential: row.get("credential")?,
        created_at: time("created_at")?,
        rotated_at: time("rotated_at")?,
        used_at: time("used_at")?,
        ends_at: time("ends_at")?,
        id: id.clone(),
    };
    Ok(SessionState {
        session,
        user_role: row.get("user_role")?,
        is_disabled: optional_time("disabled_at")?.is_some(),
        token_role: token_role.map(|role| AccessRole::parse(&role)).transpose().map_err(damaged)?,
        token_ends_at: optional_time("token_ends_at")?,
    })
}
