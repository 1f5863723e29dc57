//! The audit log: entries are appended in the same transaction as the change they record.

use sqlx::Row;
use wardroom_domain::audit::{self, AuditEntry, ChainVerification, GENESIS};

use crate::error::Error;
use crate::store::Store;

impl Store {
    /// Appends one entry in a transaction of its own.
    ///
    /// # Errors
    /// Returns an error if the database cannot be written.
    pub async fn append_audit(&self, entry: &AuditEntry) -> Result<(), Error> {
        let mut transaction = self.begin_write().await?;
        append(&mut transaction, entry).await?;
        self.commit(transaction).await
    }

    /// Returns the latest entry of an action.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read.
    pub async fn latest_audit_entry(&self, action: &str) -> Result<Option<AuditEntry>, Error> {
        // The stored text is canonical JSON. A decision may contain the same words; its entry is another action.
        let pattern = format!("%\"action\":\"{action}\"%");
        let query = "SELECT body FROM audit WHERE body LIKE ? ORDER BY sequence DESC";
        let bodies: Vec<String> = sqlx::query_scalar(query).bind(pattern).fetch_all(&self.pool).await?;
        let entries = bodies.iter().filter_map(|body| serde_json::from_str::<AuditEntry>(body).ok());
        Ok(entries.into_iter().find(|entry| entry.action == action))
    }

    /// Recomputes the hash chain of all entries.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read. A broken chain is reported in the result.
    pub async fn verify_audit(&self) -> Result<ChainVerification, Error> {
        let rows =
            sqlx::query("SELECT sequence, body, hash FROM audit ORDER BY sequence").fetch_all(&self.pool).await?;
        let mut chain = Vec::with_capacity(rows.len());
        for row in rows {
            // A value that is no longer valid text breaks its entry like any other change.
            let text = |column: &str| row.try_get::<String, _>(column).unwrap_or_else(|error| format!("!{error}"));
            chain.push((row.try_get::<i64, _>("sequence")?, text("body"), text("hash")));
        }
        Ok(audit::verify(chain))
    }
}

/// Appends an entry to the chain within a transaction.
pub(crate) async fn append(connection: &mut sqlx::SqliteConnection, entry: &AuditEntry) -> Result<(), Error> {
    let text = entry.text().map_err(|error| Error::damaged("an audit entry", error))?;
    let last = sqlx::query("SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1")
        .fetch_optional(&mut *connection)
        .await?;
    let (sequence, previous) = match last {
        Some(row) => (row.try_get::<i64, _>("sequence")? + 1, row.try_get::<String, _>("hash")?),
        None => (1, GENESIS.to_owned()),
    };
    sqlx::query("INSERT INTO audit (sequence, body, hash) VALUES (?, ?, ?)")
        .bind(sequence)
        .bind(&text)
        .bind(audit::chain_hash(&previous, sequence, &text))
        .execute(&mut *connection)
        .await?;
    Ok(())
}
