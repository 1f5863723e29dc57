//! Reads of the audit log by sequence number, in both directions.

use crate::database::query;
use crate::error::Error;
use crate::store::Store;

/// An entry of the audit log as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// Sequence number.
    pub sequence: i64,
    /// The text that is hashed.
    pub text: String,
    /// The hash.
    pub hash: String,
}

impl Store {
    /// Returns at most `limit` entries with numbers below `before`, the highest first.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read.
    pub async fn audit_before(&self, before: i64, limit: u32) -> Result<Vec<AuditRow>, Error> {
        let select = "SELECT sequence, body, hash FROM audit WHERE sequence < $1 ORDER BY sequence DESC LIMIT $2";
        self.audit_rows(select, before, limit).await
    }

    /// Returns at most `limit` entries from a number on, the lowest first.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read.
    pub async fn audit_from(&self, first: i64, limit: u32) -> Result<Vec<AuditRow>, Error> {
        let select = "SELECT sequence, body, hash FROM audit WHERE sequence >= $1 ORDER BY sequence LIMIT $2";
        self.audit_rows(select, first, limit).await
    }

    async fn audit_rows(&self, select: &'static str, position: i64, limit: u32) -> Result<Vec<AuditRow>, Error> {
        let rows = query(select).bind(position).bind(i64::from(limit)).fetch_all(&self.database).await?;
        rows.iter()
            .map(|row| Ok(AuditRow { sequence: row.get("sequence")?, text: row.get("body")?, hash: row.get("hash")? }))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::example_entry;

    #[tokio::test]
    async fn entries_are_read_in_both_directions() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("wardroom.db")).await.unwrap();
        for _ in 0..5 {
            store.append_audit(&example_entry()).await.unwrap();
        }
        let numbers = |rows: Vec<AuditRow>| rows.into_iter().map(|row| row.sequence).collect::<Vec<_>>();
        assert_eq!(numbers(store.audit_before(i64::MAX, 2).await.unwrap()), [5, 4]);
        assert_eq!(numbers(store.audit_before(4, 2).await.unwrap()), [3, 2]);
        assert_eq!(numbers(store.audit_from(4, 5).await.unwrap()), [4, 5]);
    }
}
