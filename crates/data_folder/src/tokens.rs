//! Tokens: created and revoked by the CLI, another process; in force in the server within a second.

use std::time::Duration;

use serde_json::json;
use wardroom_domain::audit::AuditEntry;
use wardroom_domain::{AccessRole, Identity, Principal, TenantId, Timestamp};
use wardroom_edge::{KnownToken, TokenTable, generate_token};
use wardroom_process::clock;
use wardroom_store::{NewToken, Store};

/// Interval between reads of the tokens table. Including the time of a query, a change is in force within a second.
const TOKEN_POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Creates a token and returns it with its secret, which is not stored. `by` is the principal of the audit entry.
///
/// # Errors
/// Returns an error if the store cannot be written.
pub async fn create(
    store: &Store,
    by: Principal,
    identity: Identity,
    lifetime: Option<Duration>,
) -> Result<(NewToken, String), wardroom_store::Error> {
    let (secret, sha256) = generate_token();
    let now = clock::now();
    let token = NewToken::new(sha256, identity, lifetime.map(|lifetime| now.plus(lifetime)));
    let entry = token_entry(by, "create_token", &token.id, &token.identity, token.expires_at, now);
    store.create_token(&token, now, &entry).await?;
    // The token is stored; only a plain copy of the database file needs this.
    if let Err(error) = store.checkpoint().await {
        tracing::warn!(%error, "writing the new token to the database file failed; it is in the write-ahead log");
    }
    Ok((token, secret))
}

/// Revokes a token. `by` is the principal of the audit entry.
///
/// # Errors
/// Returns an error if the token does not exist or the store cannot be written.
pub async fn revoke(store: &Store, by: Principal, id: &str) -> Result<(), wardroom_store::Error> {
    let now = clock::now();
    let unknown = || wardroom_store::Error::Unknown(format!("token {id}"));
    let token = store.tokens().await?.into_iter().find(|token| token.id == id).ok_or_else(unknown)?;
    let entry = token_entry(by, "revoke_token", id, &token.identity, token.expires_at, now);
    store.revoke_token(id, now, &entry).await
}

/// Returns the user of the operating system that runs a command, as the principal of its audit entries.
pub fn local_user() -> Principal {
    use std::os::unix::fs::MetadataExt;
    let user = std::fs::metadata("/proc/self").ok().map(|process| format!("uid-{}", process.uid()));
    user.and_then(|user| Principal::new(user).ok()).unwrap_or_else(Principal::anonymous)
}

fn token_entry(
    by: Principal,
    action: &str,
    id: &str,
    identity: &Identity,
    expires_at: Option<Timestamp>,
    now: Timestamp,
) -> AuditEntry {
    let decision =
        json!({ "token": id, "principal": identity.principal, "role": identity.role, "expires_at": expires_at });
    AuditEntry {
        at: now,
        tenant: identity.tenant.clone(),
        principal: by,
        agent: "operator".to_owned(),
        incident_id: None,
        action: action.to_owned(),
        decision,
        approved_by: None,
    }
}

/// Creates an administrator's token if there is no token at all, and returns its secret.
///
/// # Errors
/// Returns an error if the store cannot be read or written.
pub async fn first_admin(store: &Store) -> Result<Option<String>, wardroom_store::Error> {
    if !store.tokens().await?.is_empty() {
        return Ok(None);
    }
    let admin = Principal::new("admin").unwrap_or_else(|_| Principal::wardroom());
    let identity = Identity { tenant: TenantId::main(), principal: admin, role: AccessRole::Admin };
    create(store, Principal::wardroom(), identity, None).await.map(|(_, secret)| Some(secret))
}

/// Polls the tokens table and replaces the table of known tokens. Never returns.
pub async fn refresh(store: Store, table: TokenTable) {
    loop {
        match load(&store).await {
            Ok(tokens) => table.replace(Some(tokens)),
            Err(error) => {
                tracing::error!(%error, "reading tokens failed; retrying");
                table.replace(None);
            }
        }
        tokio::time::sleep(TOKEN_POLL_INTERVAL).await;
    }
}

/// Reads the tokens that are not revoked.
///
/// # Errors
/// Returns an error if the store cannot be read.
pub async fn load(store: &Store) -> Result<Vec<KnownToken>, wardroom_store::Error> {
    let in_force = store.tokens().await?.into_iter().filter(|token| token.revoked_at.is_none());
    Ok(in_force
        .map(|token| KnownToken { sha256: token.sha256, identity: token.identity, expires_at: token.expires_at })
        .collect())
}
