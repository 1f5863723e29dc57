//! Tokens: made and revoked by the CLI, in force here within half a second.

use std::time::Duration;

use wardroom_domain::{AccessRole, Identity, Principal, TenantId};
use wardroom_edge::{KnownToken, TokenTable, mint_token};
use wardroom_store::{NewToken, Store};

use crate::clock;

/// Makes a token, and the secret that its owner sees once.
///
/// # Errors
/// The store's.
pub async fn create(
    store: &Store,
    identity: Identity,
    lives: Option<Duration>,
) -> Result<(NewToken, String), wardroom_store::Error> {
    let (secret, sha256) = mint_token();
    let now = clock::now();
    let token = NewToken::new(sha256, identity, lives.map(|lives| now.plus(lives)));
    store.create_token(&token, now).await?;
    Ok((token, secret))
}

/// Makes the first administrator's token, if there is no token at all.
pub(crate) async fn first_admin(store: &Store) -> Result<Option<String>, wardroom_store::Error> {
    if !store.tokens().await?.is_empty() {
        return Ok(None);
    }
    let admin = Principal::new("admin").unwrap_or_else(|_| Principal::wardroom());
    let identity = Identity { tenant: TenantId::main(), principal: admin, role: AccessRole::Admin };
    create(store, identity, None).await.map(|(_, secret)| Some(secret))
}

/// Keeps the table of known tokens fresh, for ever.
pub(crate) async fn refresh(store: Store, table: TokenTable) {
    let mut changes = store.changes();
    loop {
        if changes.any(clock::now()) {
            match load(&store).await {
                Ok(tokens) => table.replace(Some(tokens)),
                Err(error) => {
                    tracing::error!(%error, "token store cannot be read");
                    table.replace(None);
                    changes.again();
                }
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
