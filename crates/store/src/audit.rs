//! The audit book: appended in the same transaction as what it tells of.

use sqlx::Row;
use wardroom_domain::audit::{self, AuditEntry, GENESIS, Verdict};

use crate::{Error, Store};

impl Store {
    /// Appends one entry that belongs to no other change.
    ///
    /// # Errors
    /// The store's.
    pub async fn audit(&self, entry: &AuditEntry) -> Result<(), Error> {
        let mut transaction = self.write().await?;
        append(&mut transaction, entry).await?;
        Ok(transaction.commit().await?)
    }

    /// Recomputes the whole chain.
    ///
    /// # Errors
    /// The store's; a broken chain is a verdict, not an error.
    pub async fn verify_audit(&self) -> Result<Verdict, Error> {
        let rows =
            sqlx::query("SELECT sequence, body, hash FROM audit ORDER BY sequence").fetch_all(&self.pool).await?;
        let mut chain = Vec::with_capacity(rows.len());
        for row in rows {
            // A byte that is not even text any more breaks its entry like any other change.
            let text = |column: &str| row.try_get::<String, _>(column).unwrap_or_else(|error| format!("!{error}"));
            chain.push((row.try_get::<i64, _>("sequence")?, text("body"), text("hash")));
        }
        Ok(audit::verify(chain))
    }

    /// The entries about one incident, oldest first.
    ///
    /// # Errors
    /// The store's.
    pub async fn audit_entries(&self, incident_id: &str) -> Result<Vec<AuditEntry>, Error> {
        let rows = sqlx::query("SELECT body FROM audit ORDER BY sequence").fetch_all(&self.pool).await?;
        let mut entries = Vec::new();
        for row in rows {
            let body: String = row.try_get("body")?;
            let entry: AuditEntry =
                serde_json::from_str(&body).map_err(|error| Error::damaged("an audit entry", error))?;
            entries.extend(Some(entry).filter(|entry| entry.incident_id.as_deref() == Some(incident_id)));
        }
        Ok(entries)
    }
}

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
        .bind(audit::link(&previous, sequence, &text))
        .execute(&mut *connection)
        .await?;
    Ok(())
}
