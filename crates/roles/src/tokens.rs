//! Tokens: made and revoked by the CLI, in force here within half a second.

use std::path::{Path, PathBuf};
use std::time::Duration;

use wardroom_domain::{AccessRole, Identity, Principal, TenantId, Timestamp};
use wardroom_edge::{KnownToken, TokenTable, mint_token};
use wardroom_store::{NewToken, Store};

use crate::clock;

/// Where the database of a data folder is.
pub fn database(data: &Path) -> PathBuf {
    data.join("state").join("wardroom.db")
}

/// A token as its owner sees it, once.
#[derive(Clone, Debug)]
pub struct Minted {
    /// Public name.
    pub id: String,
    /// The secret.
    pub token: String,
    /// What it proves.
    pub identity: Identity,
    /// From when on it is refused.
    pub expires_at: Option<Timestamp>,
}

/// Makes a token.
///
/// # Errors
/// The store's.
pub async fn create(
    store: &Store,
    identity: Identity,
    lives: Option<Duration>,
) -> Result<Minted, wardroom_store::Error> {
    let (token, sha256) = mint_token();
    let now = clock::now();
    // The public name is the hash's beginning: it says nothing about the secret.
    let id = format!("tok_{}", sha256.chars().take(12).collect::<String>());
    let expires_at = lives.map(|lives| now.plus(lives));
    store.create_token(&NewToken { id: id.clone(), sha256, identity: identity.clone(), expires_at }, now).await?;
    Ok(Minted { id, token, identity, expires_at })
}

/// Makes the first administrator's token, if there is no token at all.
pub(crate) async fn first_admin(store: &Store) -> Result<Option<Minted>, wardroom_store::Error> {
    if !store.tokens().await?.is_empty() {
        return Ok(None);
    }
    let admin = Principal::new("admin").unwrap_or_else(|_| Principal::wardroom());
    let identity = Identity { tenant: TenantId::main(), principal: admin, role: AccessRole::Admin };
    create(store, identity, None).await.map(Some)
}

/// Keeps the table of known tokens fresh, for ever.
pub(crate) async fn refresh(store: Store, table: TokenTable) {
    loop {
        match load(&store).await {
            Ok(tokens) => table.replace(Some(tokens)),
            Err(error) => {
                tracing::error!(%error, "token store cannot be read");
                table.replace(None);
            }
        }
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
}

pub(crate) async fn load(store: &Store) -> Result<Vec<KnownToken>, wardroom_store::Error> {
    let in_force = store.tokens().await?.into_iter().filter(|token| token.revoked_at.is_none());
    Ok(in_force
        .map(|token| KnownToken { sha256: token.sha256, identity: token.identity, expires_at: token.expires_at })
        .collect())
}
