//! The audit log: entries are appended in the same transaction as the change they record.

use wardroom_domain::audit::{self, AuditEntry, ChainVerification, ChainVerifier, GENESIS};
use wardroom_domain::audit_head::SignedHead;

use crate::database::{Target, Transaction, query};
use crate::error::Error;
use crate::health::Operation;
use crate::store::Store;

/// Entries that are read at once.
const READ_BATCH_ROWS: i64 = 1000;

impl Store {
    /// Appends one entry in a transaction of its own.
    ///
    /// # Errors
    /// Returns an error if the database cannot be written.
    pub async fn append_audit(&self, entry: &AuditEntry) -> Result<(), Error> {
        let mut transaction = self.begin_write().await?;
        self.record_write(append(&mut transaction, entry).await)?;
        self.commit(transaction).await
    }

    /// Returns the latest entry of an action.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read.
    pub async fn latest_audit_entry(&self, action: &str) -> Result<Option<AuditEntry>, Error> {
        self.find_audit_entry(action, |_| true).await
    }

    /// Returns the latest entry of an action that is the wanted one.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read.
    pub async fn find_audit_entry(
        &self,
        action: &str,
        is_wanted: impl Fn(&AuditEntry) -> bool,
    ) -> Result<Option<AuditEntry>, Error> {
        // The stored text is canonical JSON. A decision may contain the same words; its entry is another action.
        let pattern = format!("%\"action\":\"{action}\"%");
        let select = "SELECT body FROM audit WHERE body LIKE $1 ORDER BY sequence DESC";
        let rows = query(select).bind(pattern).fetch_all(&self.database).await?;
        let bodies = rows.iter().filter_map(|row| row.get::<String>("body").ok());
        let mut entries = bodies.filter_map(|body| serde_json::from_str::<AuditEntry>(&body).ok());
        Ok(entries.find(|entry| entry.action == action && is_wanted(entry)))
    }

    /// Recomputes the hash chain of all entries.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read. A broken chain is reported in the result.
    pub async fn verify_audit(&self) -> Result<ChainVerification, Error> {
        let mut chain = ChainVerifier::default();
        self.read_audit(&mut |sequence, text, hash| chain.push(sequence, text, hash).is_some()).await?;
        Ok(chain.finish())
    }

    /// Passes sequence number, text and hash of every entry to `on_row`, in order, until that returns `false`. Returns
    /// the last signed head that was noted, from the same state of the database.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read. A value that is not valid is passed as the reason, which breaks
    /// its entry like any other change.
    pub async fn read_audit(
        &self,
        on_row: &mut (dyn FnMut(i64, &str, &str) -> bool + Send),
    ) -> Result<Option<SignedHead>, Error> {
        let mut snapshot = self.database.begin_snapshot().await?;
        let noted = noted_head(&mut snapshot).await?;
        let mut next = i64::MIN;
        loop {
            let select = "SELECT sequence, body, hash FROM audit WHERE sequence >= $1 ORDER BY sequence LIMIT $2";
            let rows = query(select).bind(next).bind(READ_BATCH_ROWS).fetch_all(&mut snapshot).await?;
            for row in &rows {
                let text = |column: &str| row.get::<String>(column).unwrap_or_else(|error| format!("!{error}"));
                // No entry has the number -1.
                let sequence = row.get::<i64>("sequence").unwrap_or(-1);
                if !on_row(sequence, &text("body"), &text("hash")) {
                    return Ok(noted);
                }
                next = sequence.saturating_add(1);
            }
            if rows.len() < READ_BATCH_ROWS as usize {
                break;
            }
        }
        // SQLite allows them in a primary key, and no comparison finds them.
        let select = "SELECT COUNT(*) AS number FROM audit WHERE sequence IS NULL";
        if query(select).fetch_one(&mut snapshot).await?.get::<i64>("number")? > 0 {
            on_row(-1, "!an entry without a sequence number", "");
        }
        Ok(noted)
    }

    /// Returns the texts of the entries from a sequence number on, with their hashes: at least one, if there is one,
    /// and more while they have no more than `max_bytes`.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read.
    pub async fn audit_entries_from(&self, first: i64, max_bytes: usize) -> Result<Vec<(String, String)>, Error> {
        let select = "SELECT body, hash FROM audit WHERE sequence >= $1 ORDER BY sequence LIMIT $2";
        let rows = query(select).bind(first).bind(READ_BATCH_ROWS).fetch_all(&self.database).await?;
        let (mut entries, mut bytes) = (Vec::new(), 0_usize);
        for row in rows {
            let (text, hash): (String, String) = (row.get("body")?, row.get("hash")?);
            bytes = bytes.saturating_add(text.len());
            if bytes > max_bytes && !entries.is_empty() {
                break;
            }
            entries.push((text, hash));
        }
        Ok(entries)
    }

    /// Returns the number of entries after a sequence number.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read.
    pub async fn audit_entries_after(&self, sequence: i64) -> Result<i64, Error> {
        let select = "SELECT COUNT(*) AS number FROM audit WHERE sequence > $1";
        Ok(query(select).bind(sequence).fetch_one(&self.database).await?.get("number")?)
    }

    /// Returns the hash of an entry; `None` if there is no such entry.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read.
    pub async fn audit_hash(&self, sequence: i64) -> Result<Option<String>, Error> {
        let select = "SELECT hash FROM audit WHERE sequence = $1";
        let row = query(select).bind(sequence).fetch_optional(&self.database).await?;
        Ok(row.map(|row| row.get("hash")).transpose()?)
    }

    /// Returns the last signed head that was noted.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read.
    pub async fn noted_audit_head(&self) -> Result<Option<SignedHead>, Error> {
        noted_head(&self.database).await
    }

    /// Notes the last signed head.
    ///
    /// # Errors
    /// Returns an error if the database cannot be written.
    pub async fn note_audit_head(&self, signed: &SignedHead) -> Result<(), Error> {
        let text = serde_json::to_string(signed).map_err(|error| Error::damaged("a signed head", error))?;
        let upsert =
            "INSERT INTO audit_head (id, head) VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET head = excluded.head";
        let mut transaction = self.begin_write().await?;
        self.record_write(query(upsert).bind(text).execute(&mut transaction).await)?;
        self.health.record(Operation::Write, transaction.commit().await.map_err(Error::from))
    }
}

/// Reads the noted head. One that is damaged is returned as an error.
async fn noted_head<'a>(target: impl Into<Target<'a>>) -> Result<Option<SignedHead>, Error> {
    let row = query("SELECT head FROM audit_head").fetch_optional(target).await?;
    let text: Option<String> = row.map(|row| row.get("head")).transpose()?;
    let read = |text: String| serde_json::from_str(&text).map_err(|error| Error::damaged("the noted head", error));
    text.map(read).transpose()
}

/// Appends an entry to the chain within a transaction.
pub(crate) async fn append(transaction: &mut Transaction, entry: &AuditEntry) -> Result<(), Error> {
    let text = entry.text().map_err(|error| Error::damaged("an audit entry", error))?;
    let last = query("SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1")
        .fetch_optional(&mut *transaction)
        .await?;
    let (sequence, previous) = match last {
        Some(row) => (row.get::<i64>("sequence")? + 1, row.get::<String>("hash")?),
        None => (1, GENESIS.to_owned()),
    };
    query("INSERT INTO audit (sequence, body, hash) VALUES ($1, $2, $3)")
        .bind(sequence)
        .bind(&text)
        .bind(audit::chain_hash(&previous, sequence, &text))
        .execute(transaction)
        .await?;
    Ok(())
}

/// An entry for tests.
#[cfg(test)]
pub(crate) fn example_entry() -> AuditEntry {
    AuditEntry {
        at: wardroom_domain::Timestamp::from_millis(1),
        tenant: wardroom_domain::TenantId::main(),
        principal: wardroom_domain::Principal::wardroom(),
        agent: "operator".into(),
        incident_id: None,
        action: "create_token".into(),
        decision: serde_json::json!({}),
        approved_by: None,
    }
}
