//! Dead letters as people see them.

use std::path::Path;
use std::sync::Arc;

use wardroom_api::DeadLetterView;
use wardroom_bus::{Bus, DeadLetter, DeadLetters};
use wardroom_domain::{Identity, TenantId};
use wardroom_edge::Problem;
use wardroom_store::Store;

use crate::clock;
use crate::respond::entry;

/// Where letters are kept and where they go.
#[derive(Clone)]
pub(crate) struct Letters {
    pub(crate) letters: Arc<DeadLetters>,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) store: Store,
}

impl Letters {
    pub(crate) async fn list(&self, tenant: TenantId) -> Result<Vec<DeadLetterView>, Problem> {
        let letters = Arc::clone(&self.letters);
        let reading = tokio::task::spawn_blocking(move || letters.list(&tenant));
        let found = reading.await.map_err(|error| Problem::unavailable("unreadable", error.to_string()))?;
        Ok(found.map_err(storage)?.iter().map(view).collect())
    }

    /// Writes it into the audit book first: without an entry nothing is done.
    pub(crate) async fn replay(&self, who: Identity, id: u64) -> Result<Option<u64>, Problem> {
        let decision = serde_json::json!({ "dead_letter": id });
        let mut audit = entry(&who.tenant, "operator", None, "replay_dead_letter", decision, clock::now());
        audit.principal = who.principal;
        let audited = self.store.audit(&audit).await;
        audited.map_err(|error| Problem::unavailable("state_store_unavailable", error.to_string()))?;
        self.letters.replay(&self.bus, &who.tenant, id).await.map_err(storage)
    }
}

/// The letters of a data folder, beside a running server or without one.
///
/// # Errors
/// The disk's.
pub fn dead_letters(data: &Path, tenant: &TenantId) -> Result<Vec<DeadLetterView>, wardroom_bus::Error> {
    Ok(wardroom_bus::dead_letters(&data.join("dead-letters"), tenant)?.iter().map(view).collect())
}

fn view(letter: &DeadLetter) -> DeadLetterView {
    DeadLetterView {
        id: letter.id,
        group: letter.reason.group.clone(),
        offset: letter.reason.offset,
        reason: letter.reason.reason.clone(),
        tries: letter.reason.tries,
        first_try: letter.reason.first_try,
        last_try: letter.reason.last_try,
        protocol: letter.envelope.protocol.clone(),
        principal: letter.envelope.principal.to_string(),
        received_at: letter.envelope.received_at,
        bytes: letter.body.len(),
        replayed_as: letter.replayed_as,
    }
}

fn storage(error: wardroom_bus::Error) -> Problem {
    Problem::unavailable("storage_unavailable", error.to_string())
}
